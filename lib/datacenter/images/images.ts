/** The verbs on images: references, listing, pull, load, save, tag, remove, prune. Blobs live on nodes; here are names and metadata. */
import {formatNs} from '../../base/clock';
import {CetusError, isCetusError} from '../../base/errors';
import {retry} from '../../base/retry';
import {BUCKETS} from '../../schema/buckets';
import type {Image, ImageRef} from '../../schema/objects';
import {familiarName, familiarReference, formatReference, invalidTag, isDigest, isTag, parseImageName, parseReference} from '../../schema/reference';
import type {Context} from '../context';
import {eventWrite} from '../events';
import type {ImageVerbs} from '../verbs';
import {commit} from './commit';
import {gatherOn} from './holders';
import {importImage} from './import';
import {getImage, historyOf, listImages} from './list';
import {followProgress} from './progress';
import {checkPlatform, formatPlatform} from './platform';
import {Pulls} from './pull';
import {push} from './push';
import {inspectRemote, login, search} from './registry';
import {pruneImages, removeImage} from './remove';
import {imageKey, noSuchImage, refKey, resolveImage} from './resolve';

const IMAGES = BUCKETS.images.name;
const REFS = BUCKETS.image_refs.name;
/** Who tags what others tag at the same moment comes after them, as at the Engine, however many they are. */
const TAG_TRIES = 100;
const TAG_PAUSE_MS = {firstDelayMs: 2, maxDelayMs: 100};

export function imageVerbs(context: Context): ImageVerbs {
  const {moray} = context;
  const pulls = new Pulls(context);

  const verbs: ImageVerbs = {
    list: (caller, query) => listImages(context, caller, query),
    get: (caller, nameOrId, options) => getImage(context, caller, nameOrId, options),
    history: (caller, nameOrId, options) => historyOf(context, caller, nameOrId, options),

    pull: (caller, text, options, auth) => pulls.pull(caller, text, options, auth),

    async *load(caller, archive, options) {
      const follow = followProgress((onProgress) => context.run(caller, 'image.load', {account: caller.account, loadId: context.ids.uuid(), ...(options.platform ? {platform: formatPlatform(options.platform)} : {})}, {secrets: {archive}, onProgress}));
      let told = false;
      for (;;) {
        const next = await follow.next();
        if (!next.done) {
          if (/^Loaded image/.test(next.value.stream ?? '')) told = true;
          // Quiet asks for no progress bars; what was loaded is said all the same.
          if (!options.quiet || next.value.stream !== undefined) yield next.value;
          continue;
        }
        if (!told) for (const {imageId, references} of next.value.images) {
          if (references.length === 0) yield {stream: `Loaded image ID: ${imageId}\n`};
          for (const reference of references) yield {stream: `Loaded image: ${familiarReference(parseImageName(reference))}\n`};
        }
        return;
      }
    },

    async save(caller, names, {platform} = {}) {
      if (names.length === 0) throw new CetusError('invalid', 'no images to save');
      const wanted = new Map<string, {image: Image; references: Set<string>}>();
      for (const name of names) {
        const {image, reference} = await resolveImage(context, caller.account, name).catch((err: unknown) => {
          throw isCetusError(err, 'notFound') ? new CetusError('notFound', `No such image: ${name}`, {cause: err}) : err;
        });
        if (platform) checkPlatform(image, platform, name);
        const entry = wanted.get(image.id) ?? {image, references: new Set<string>()};
        wanted.set(image.id, entry);
        if (reference) entry.references.add(reference);
        else if (/^[^@:]+$/.test(name) && !/^[0-9a-f]+$/.test(name)) for (const r of (await getImage(context, caller, image.id)).references) entry.references.add(r);
      }
      const images = [...wanted.values()];
      const holders = await gatherOn(context, caller, images.map(({image, references: [reference]}) => ({image, shown: reference ?? image.id})));
      let failure: unknown;
      for (const node of holders) {
        try {
          const agent = await context.fleet.agent(node);
          const stream = await agent.save({images: images.map(({image, references}) => ({imageId: image.id, manifest: image.manifest, references: [...references]}))}, caller.signal);
          for (const {image} of images) context.events.emit(caller.account, {type: 'image', action: 'save', actorId: image.id, attributes: {...image.config.config?.Labels, name: image.id}});
          return stream;
        } catch (err) {
          if (!isCetusError(err, 'unavailable')) throw err;
          failure = err;
        }
      }
      throw failure;
    },

    import: (caller, source, options) => importImage(context, caller, source, options),
    login: (caller, auth) => login(context, caller, auth),
    search: (caller, term, options, auth) => search(context, caller, term, options, auth),
    inspectRemote: (caller, name, auth) => inspectRemote(context, caller, name, auth),
    push: (caller, name, tag, options, auth) => push(context, caller, name, tag, options, auth),

    commit: (caller, container, options) => commit(context, caller, container, options),

    async tag(caller, source, repository, tag) {
      // A digest in the tag's place cannot be a name.
      if (isDigest(tag) || repository.includes('@')) throw new CetusError('invalid', 'refusing to create a tag with a digest reference');
      parseReference(repository);
      if (tag && !isTag(tag)) throw invalidTag();
      const target = parseReference(tag ? `${repository}:${tag}` : repository);
      const name = formatReference(parseImageName(tag ? `${repository}:${tag}` : repository));
      if (familiarName(target) === 'sha256') throw new CetusError('invalid', 'refusing to create an ambiguous tag using digest algorithm as name');
      const again = {tries: TAG_TRIES, ...TAG_PAUSE_MS, clock: context.clock, signal: caller.signal, retryable: (err: unknown) => isCetusError(err, 'etagConflict')};
      await retry(again, async () => {
        const {image} = await resolveImage(context, caller.account, source);
        const stored = await moray.peek<Image>(IMAGES, imageKey(caller.account, image.id));
        if (!stored || stored.value.removing) throw noSuchImage(source);
        const taggedAt = formatNs(context.clock.nowNs());
        const ref: ImageRef = {account: caller.account, reference: name, imageId: image.id, taggedAt};
        await moray.batch([
          // The image's etag keeps a removal that is under way and this name apart.
          {op: 'put', bucket: IMAGES, key: stored.key, value: {...stored.value, lastTaggedAt: taggedAt}, etag: stored.etag},
          {op: 'put', bucket: REFS, key: refKey(caller.account, name), value: ref},
          eventWrite(context.clock, context.ids, {account: caller.account, type: 'image', action: 'tag', actorId: image.id, attributes: {...image.config.config?.Labels, name: familiarReference(parseImageName(name))}}),
        ]);
      });
    },

    remove: (caller, nameOrId, options) => removeImage(context, caller, nameOrId, options),
    prune: (caller, filters) => pruneImages(context, caller, filters),
  };
  return verbs;
}
