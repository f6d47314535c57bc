/** The verbs on images: references, listing, pull, load, save, tag, remove, prune. Blobs live on nodes; here are names and metadata. */
import {createHash} from 'node:crypto';
import {formatNs} from '../../base/clock';
import {CetusError, isCetusError} from '../../base/errors';
import {retry} from '../../base/retry';
import {eq} from '../../moray/filter';
import {BUCKETS} from '../../schema/buckets';
import type {ChainResult} from '../../schema/chains';
import type {Image, ImageRef} from '../../schema/objects';
import {familiarName, familiarReference, formatReference, invalidTag, isDigest, isTag, parseImageName, parseReference} from '../../schema/reference';
import type {Context} from '../context';
import {checkPlatformText} from '../create/platform';
import {unsupported} from '../create/options';
import {eventWrite, pruned} from '../events';
import {acceptFilters, booleanFilter, has, labelFilters, labelsMatch, untilFilter, valuesOf} from '../filters';
import {compilePattern} from '../../base/pattern';
import type {Caller, Filters, ImageVerbs, ListedImage} from '../verbs';
import {commit} from './commit';
import {importImage} from './import';
import {followProgress} from './progress';
import {push} from './push';
import {inspectRemote, login, search} from './registry';
import {imageKey, noSuchImage, refKey, resolveImage} from './resolve';
import {SharedPulls} from './shared-pulls';

const IMAGES = BUCKETS.images.name;
const REFS = BUCKETS.image_refs.name;
/** Who tags what others tag at the same moment comes after them, as at the Engine, however many they are. */
const TAG_TRIES = 100;
const TAG_PAUSE_MS = {firstDelayMs: 2, maxDelayMs: 100};

export function imageVerbs(context: Context): ImageVerbs {
  const {moray} = context;
  const pulls = new SharedPulls<ChainResult<'image.pull'>>();

  const listed = async (caller: Caller): Promise<ListedImage[]> => {
    const [images, refs, containers] = await Promise.all([
      moray.list<Image>(IMAGES, eq('account', caller.account)), moray.list<ImageRef>(REFS, eq('account', caller.account)), context.views.list(caller.account),
    ]);
    const references = new Map<string, string[]>();
    for (const {value} of refs) references.set(value.imageId, [...(references.get(value.imageId) ?? []), value.reference]);
    const counts = new Map<string, number>();
    for (const c of containers) counts.set(c.imageId, (counts.get(c.imageId) ?? 0) + 1);
    return images.map(({value}) => ({image: value, references: (references.get(value.id) ?? []).sort(), containers: counts.get(value.id) ?? 0}));
  };

  const get = async (caller: Caller, nameOrId: string): Promise<ListedImage> => {
    const {image} = await resolveImage(context, caller.account, nameOrId);
    const refs = await moray.list<ImageRef>(REFS, `(&${eq('account', caller.account)}${eq('imageId', image.id)})`);
    const containers = (await context.views.list(caller.account)).filter((c) => c.imageId === image.id).length;
    return {image, references: refs.map((r) => r.value.reference).sort(), containers};
  };

  const verbs: ImageVerbs = {
    async list(caller, {filters}) {
      const select = await listFilter(context, caller, filters);
      return (await listed(caller)).flatMap((i) => select(i) ?? []).sort((a, b) => createdMs(b.image) - createdMs(a.image));
    },

    get,

    async *pull(caller, text, options, auth) {
      if (options.allTags) throw unsupported('pulling all tags (--all-tags)', 'name the tags one by one');
      if (options.platform) checkPlatformText(options.platform);
      const reference = parseImageName(text);
      const shown = familiarReference(reference);
      let begun = false;
      const said = new Set<string>();
      const params = {account: caller.account, reference: formatReference(reference), ...(options.platform ? {platform: options.platform} : {})};
      const follow = pulls.follow(pullKey(params, auth), caller.signal, (onProgress, signal) => context.run(caller, 'image.pull', params, {secrets: {auth}, onProgress, signal}));
      for (;;) {
        const next = await follow.next();
        if (!begun && (!next.done ? !next.value.status?.startsWith('Pulling from ') : true))
          yield {status: `Pulling from ${reference.repository}`, id: reference.digest ?? reference.tag};
        begun = true;
        if (next.done) {
          const result = next.value;
          if (!said.has('Digest')) yield {status: `Digest: ${result.digest}`};
          if (!said.has('Status')) yield {status: `Status: ${result.upToDate ? 'Image is up to date' : 'Downloaded newer image'} for ${shown}`};
          return;
        }
        const word = /^(Digest|Status): /.exec(next.value.status ?? '');
        if (word) said.add(word[1]!);
        yield next.value;
      }
    },

    async *load(caller, archive, options) {
      const follow = followProgress((onProgress) => context.run(caller, 'image.load', {account: caller.account, loadId: context.ids.uuid()}, {secrets: {archive}, onProgress}));
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

    async save(caller, names) {
      if (names.length === 0) throw new CetusError('invalid', 'no images to save');
      const wanted = new Map<string, {image: Image; references: Set<string>}>();
      for (const name of names) {
        const {image, reference} = await resolveImage(context, caller.account, name).catch((err: unknown) => {
          throw isCetusError(err, 'notFound') ? new CetusError('notFound', `No such image: ${name}`, {cause: err}) : err;
        });
        const entry = wanted.get(image.id) ?? {image, references: new Set<string>()};
        wanted.set(image.id, entry);
        if (reference) entry.references.add(reference);
        else if (/^[^@:]+$/.test(name) && !/^[0-9a-f]+$/.test(name)) for (const r of (await get(caller, image.id)).references) entry.references.add(r);
      }
      const images = [...wanted.values()];
      const holders = images[0]!.image.nodes.filter((node) => images.every((i) => i.image.nodes.includes(node)));
      if (holders.length === 0) throw new CetusError('unavailable', 'no single node holds all of these images: save them one by one');
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

    async remove(caller, nameOrId, options) {
      const {image, reference} = await resolveImage(context, caller.account, nameOrId);
      return context.run(caller, 'image.remove', {account: caller.account, imageId: image.id, reference, shown: nameOrId, force: options.force, noPrune: options.noPrune});
    },

    async prune(caller, filters) {
      acceptFilters(filters, ['dangling', 'label', 'label!', 'until']);
      const dangling = booleanFilter(filters, 'dangling') ?? true;
      const matches = labelFilters(filters);
      const until = untilFilter(filters, context.clock.now());
      const deleted: ({Untagged: string} | {Deleted: string})[] = [];
      let spaceReclaimed = 0;
      for (const {image, references, containers} of await listed(caller)) {
        if (containers > 0 || (dangling && references.length > 0) || !matches(image.config.config?.Labels ?? {}) || (until !== undefined && createdMs(image) > until)) continue;
        try {
          const gone = await context.run(caller, 'image.remove', {account: caller.account, imageId: image.id, reference: '', shown: image.id, force: references.length > 1, noPrune: false});
          deleted.push(...gone);
          if (gone.some((g) => 'Deleted' in g && g.Deleted === image.id)) spaceReclaimed += image.size;
        } catch (err) {
          if (!isCetusError(err, 'conflict') && !isCetusError(err, 'notFound')) throw err;
        }
      }
      context.events.emit(caller.account, pruned('image', spaceReclaimed));
      return {deleted, spaceReclaimed};
    },
  };
  return verbs;
}

/** The credentials' digest, not themselves: keys live as long as pulls do. */
function pullKey(params: object, auth: unknown): string {
  return `${JSON.stringify(params)} ${createHash('sha256').update(JSON.stringify(auth ?? null)).digest('hex')}`;
}

function createdMs(image: Image): number {
  const ms = Date.parse(image.createdAt);
  return Number.isNaN(ms) ? 0 : ms;
}

/** Which images, and of each which names: a filter by reference leaves out the others. */
async function listFilter(context: Context, caller: Caller, filters: Filters): Promise<(i: ListedImage) => ListedImage | undefined> {
  acceptFilters(filters, ['before', 'dangling', 'label', 'reference', 'since', 'until']);
  const dangling = booleanFilter(filters, 'dangling');
  const until = untilFilter(filters, context.clock.now());
  const bound = async (name: string): Promise<Image | undefined> => {
    const value = valuesOf(filters, name)[0];
    return value === undefined ? undefined : (await resolveImage(context, caller.account, value)).image;
  };
  const [before, since] = await Promise.all([bound('before'), bound('since')]);
  const byReference = has(filters, 'reference') ? valuesOf(filters, 'reference').map(referencePattern) : undefined;
  const selects = ({image, references}: ListedImage): boolean =>
    (dangling === undefined || (references.length === 0) === dangling)
    && labelsMatch(valuesOf(filters, 'label'), image.config.config?.Labels ?? {})
    && (until === undefined || createdMs(image) <= until)
    && (!before || createdMs(image) < createdMs(before)) && (!since || createdMs(image) > createdMs(since));
  return (listed) => {
    if (!selects(listed)) return undefined;
    if (!byReference) return listed;
    const references = listed.references.filter((r) => byReference.some((test) => test(r)));
    return references.length ? {...listed, references} : undefined;
  };
}

/** As the Engine's reference.FamiliarMatch: a glob over the familiar name, with or without the tag; * does not cross a slash, [a-z] is one of these. */
function referencePattern(glob: string): (reference: string) => boolean {
  const ONE_OF = /\[\^?[^\]\\]+\]/g;
  if (/[[\]]/.test(glob.replace(ONE_OF, ''))) throw new CetusError('invalid', 'syntax error in pattern');
  const source = glob.replace(/\[\^?[^\]\\]+\]|[.+^$(){}|\\*?]/g, (part) => (part === '*' ? '[^/]*' : part === '?' ? '[^/]' : part.length > 1 ? part : `\\${part}`));
  const pattern = compilePattern(`/^${source}$/`);
  return (reference) => {
    const parsed = parseReference(reference);
    return pattern.matches(familiarReference(parsed)) || pattern.matches(familiarName(parsed)) || pattern.matches(reference);
  };
}
