/** `docker push`: which names go, from which node, and what the account knows of the digests afterwards. The bytes are the node's. */
import {CetusError, isCetusError} from '../../base/errors';
import {retry} from '../../base/retry';
import {and, eq, startsWith} from '../../moray/filter';
import type {PushResult} from '../../schema/agent';
import {BUCKETS} from '../../schema/buckets';
import type {ProgressMessage, RegistryAuth} from '../../schema/docker';
import type {Image, ImageRef} from '../../schema/objects';
import {familiarName, familiarReference, formatReference, parseReference, repositoryName, type Reference} from '../../schema/reference';
import type {Context} from '../context';
import type {Caller} from '../verbs';
import {reachableHolders} from './holders';
import {checkPlatform, type WantedPlatform} from './platform';
import {imageKey} from './resolve';

const IMAGES = BUCKETS.images.name;
const REFS = BUCKETS.image_refs.name;
const RECORD_TRIES = 100;
/** Repositories that a layer may be taken over from; each costs a question. */
const MAX_SOURCES = 4;

export async function* push(context: Context, caller: Caller, name: string, tag: string, options: {platform?: WantedPlatform}, auth?: RegistryAuth): AsyncGenerator<ProgressMessage> {
  const asked = parseReference(name);
  const reference: Reference = tag === '' ? asked : parseReference(`${familiarName(asked)}:${tag}`);
  yield {status: `The push refers to repository [${repositoryName(reference)}]`};
  if (reference.digest !== undefined) throw new CetusError('invalid', 'cannot push a digest reference');
  const targets = await localTags(context, caller, reference);
  const sources = await sourcesOf(context, caller, reference);
  for (const {reference: target, image} of targets) {
    if (options.platform) checkPlatform(image, options.platform, familiarReference(target));
    const result = yield* pushFrom(context, caller, image, target, sources, auth);
    yield {status: `${target.tag!}: digest: ${result.digest} size: ${result.size}`};
    await record(context, caller, image, `${familiarName(target)}@${result.digest}`);
    yield {progressDetail: {}, aux: {Tag: target.tag!, Digest: result.digest, Size: result.size}};
  }
  const shown = familiarName(reference);
  context.events.emit(caller.account, {type: 'image', action: 'push', actorId: tag === '' ? shown : familiarReference(reference), attributes: {name: shown}});
}

/** The one that is named, or all of the repository. */
async function localTags(context: Context, caller: Caller, reference: Reference): Promise<{reference: Reference; image: Image}[]> {
  const {moray} = context;
  const all = (await moray.list<ImageRef>(REFS, and(eq('account', caller.account), startsWith('reference', `${repositoryName(reference)}:`)))).map(({value}) => value);
  if (all.length === 0) throw new CetusError('notFound', `An image does not exist locally with the tag: ${familiarName(reference)}`);
  const wanted = reference.tag === undefined ? all : all.filter((ref) => ref.reference === formatReference(reference));
  if (wanted.length === 0) throw new CetusError('notFound', `tag does not exist: ${familiarReference(reference)}`);
  const found = await Promise.all(wanted.map(async (ref) => ({reference: parseReference(ref.reference), image: (await moray.peek<Image>(IMAGES, imageKey(caller.account, ref.imageId)))?.value})));
  return found.filter((f): f is {reference: Reference; image: Image} => f.image !== undefined).sort((a, b) => (a.reference.tag! < b.reference.tag! ? -1 : 1));
}

/** By diff id: where in the same registry the account's images of that layer came from, or went. Of other accounts nothing is said. */
async function sourcesOf(context: Context, caller: Caller, {registry, repository}: Reference): Promise<Map<string, string[]>> {
  const sources = new Map<string, string[]>();
  for await (const {value} of context.moray.find<Image>(IMAGES, eq('account', caller.account))) {
    const here = value.repoDigests.map((d) => parseReference(d)).filter((r) => r.registry === registry && r.repository !== repository).map((r) => r.repository);
    if (here.length === 0) continue;
    for (const {diffId} of value.layers) sources.set(diffId, [...new Set([...sources.get(diffId) ?? [], ...here])].slice(0, MAX_SOURCES));
  }
  return sources;
}

/** From the first of the nodes that can be reached; once one has begun, its failure is the push's. */
async function* pushFrom(context: Context, caller: Caller, image: Image, target: Reference, sources: Map<string, string[]>, auth?: RegistryAuth): AsyncGenerator<ProgressMessage, PushResult> {
  const request = {
    imageId: image.id, manifest: image.manifest, reference: formatReference(target),
    sources: Object.fromEntries(image.layers.flatMap(({diffId}) => (sources.has(diffId) ? [[diffId, sources.get(diffId)!] as const] : []))),
  };
  let failure: unknown = new CetusError('unavailable', `no node holds the image ${familiarReference(target)}`);
  for (const node of await reachableHolders(context, image, familiarReference(target))) {
    let begun = false;
    try {
      const agent = await context.fleet.agent(node);
      for await (const line of agent.push(request, auth, caller.signal)) {
        begun = true;
        if ('result' in line) return line.result;
        yield line;
      }
      throw new CetusError('unavailable', `push ${familiarReference(target)}: the node's answer was cut off`);
    } catch (err) {
      // What the registry said it says to the next node as well.
      if (begun || !isCetusError(err, 'unavailable') || err.info['registry'] !== undefined) throw err;
      failure = err;
    }
  }
  throw failure;
}

/** The image may have been removed meanwhile: then nobody is there to remember. */
async function record(context: Context, caller: Caller, image: Image, repoDigest: string): Promise<void> {
  const {moray, clock} = context;
  await retry({tries: RECORD_TRIES, firstDelayMs: 2, maxDelayMs: 100, clock, retryable: (err) => isCetusError(err, 'etagConflict')}, async () => {
    const stored = await moray.peek<Image>(IMAGES, imageKey(caller.account, image.id));
    if (!stored || stored.value.removing || stored.value.repoDigests.includes(repoDigest)) return;
    await moray.batch([{op: 'put', bucket: IMAGES, key: stored.key, value: {...stored.value, repoDigests: [...stored.value.repoDigests, repoDigest]}, etag: stored.etag}]);
  });
}
