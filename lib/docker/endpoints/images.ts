/** Images: list, pull, inspect, history, tag, remove, prune, save, load, import, commit, push. */
import {CetusError, isCetusError} from '../../base/errors';
import type {WantedPlatform} from '../../datacenter/verbs';
import type {Config, ProgressMessage} from '../../schema/docker';
import {familiarReference, invalidTag, isDigest, isTag, parseReference} from '../../schema/reference';
import {parseBody} from '../body';
import type {Exchange, Handlers} from '../exchange';
import {parsePlatformJson} from '../platform';
import {parseRegistryAuth} from '../registry-auth';
import {imageHistory, imageInspect, imageListEntry} from '../views/image';

const TAR = 'application/x-tar';
const MAX_SAVED_NAMES = 1_000;

/** Asks for the newest version there is and makes no container anew without a field that ended with 1.44. */
const COMPOSE_1 = /^docker-compose\/1\./;

const options = (x: Exchange): {speaks: (minor: number) => boolean} => ({speaks: (minor) => x.speaks(minor)});

async function list(x: Exchange): Promise<void> {
  const filters = x.query.filters();
  // Before 1.41 a name could be given apart.
  const name = x.speaks(41) ? '' : x.query.text('filter');
  if (name) filters.reference = [...(filters.reference ?? []), name];
  const manifests = x.speaks(47) && x.query.bool('manifests');
  const images = await x.datacenter.images.list(x.caller, {all: x.query.bool('all'), filters, sharedSize: x.speaks(42) && x.query.bool('shared-size'), usedBy: manifests});
  const view = {...options(x), manifests};
  x.json(200, images.map((image) => imageListEntry(image, view)));
}

/** `fromImage` may carry the tag itself; `tag` may be a digest. Without either every tag of the repository is meant. */
export function pullReference(fromImage: string, tag: string): {reference: string; allTags: boolean} {
  const asked = parseReference(fromImage);
  if (!tag) return {reference: fromImage, allTags: asked.tag === undefined && asked.digest === undefined};
  if (!isTag(tag) && !isDigest(tag)) throw invalidTag();
  const {registry, repository} = asked;
  return {reference: familiarReference(tag.includes(':') ? {registry, repository, digest: tag} : {registry, repository, tag}), allTags: false};
}

/** One operation of the API with two meanings: a name is pulled, a source is imported. */
async function create(x: Exchange): Promise<void> {
  if (x.query.text('fromImage') === '' && x.query.has('fromSrc')) return importArchive(x);
  for (const name of ['repo', 'message', 'changes']) if (x.query.text(name) !== '') throw new CetusError('invalid', `the parameter "${name}" belongs to an import (fromSrc), not to a pull`);
  return pull(x);
}

async function importArchive(x: Exchange): Promise<void> {
  const source = x.query.text('fromSrc');
  const platform = x.speaks(32) ? x.query.text('platform') : '';
  await x.lines(x.datacenter.images.import(x.caller, source === '-' ? x.bodyStream() : source, {
    repository: x.query.text('repo'), tag: x.query.text('tag'), message: x.query.text('message'), changes: x.query.all('changes'), ...(platform ? {platform} : {}),
  }));
}

async function pull(x: Exchange): Promise<void> {
  const fromImage = x.query.text('fromImage');
  if (!fromImage) throw new CetusError('invalid', 'invalid reference format: "fromImage" is required');
  const {reference, allTags} = pullReference(fromImage, x.query.text('tag'));
  const platform = x.speaks(32) ? x.query.text('platform') || undefined : undefined;
  const auth = parseRegistryAuth(x.request.headers['x-registry-auth']);
  await x.lines(registryRefusals(x.datacenter.images.pull(x.caller, reference, {...(platform ? {platform} : {}), ...(allTags ? {allTags} : {})}, auth)));
}

/**
 * A registry that does not take the credentials is not we who do not take the client's: at a 401 the CLI asks for a name and a password on
 * its terminal, and a script hangs there for ever.
 */
async function* registryRefusals(lines: AsyncIterable<ProgressMessage>): AsyncGenerator<ProgressMessage> {
  try {
    yield* lines;
  } catch (err) {
    throw isCetusError(err, 'unauthorized') ? new CetusError('forbidden', err.message, {cause: err, info: err.info}) : err;
  }
}

/** The parameter `platform` of the API versions that know it. */
function platformOf(x: Exchange, since: number): {platform?: WantedPlatform} {
  const text = x.speaks(since) ? x.query.text('platform') : '';
  return text ? {platform: parsePlatformJson(text)} : {};
}

async function inspect(x: Exchange): Promise<void> {
  const manifests = x.speaks(48) && x.query.bool('manifests');
  const wanted = platformOf(x, 49);
  if (manifests && wanted.platform) throw new CetusError('invalid', 'conflicting options: manifests and platform options cannot both be set');
  x.json(200, imageInspect(await x.datacenter.images.get(x.caller, x.param('name'), wanted), {
    manifests, ...options(x), containerConfig: COMPOSE_1.test(x.request.headers['user-agent'] ?? '')}));
}

async function history(x: Exchange): Promise<void> {
  x.json(200, imageHistory(await x.datacenter.images.history(x.caller, x.param('name'), platformOf(x, 48))));
}

async function tag(x: Exchange): Promise<void> {
  const repository = x.query.text('repo');
  if (!repository) throw new CetusError('invalid', 'invalid reference format: repository name is required');
  await x.datacenter.images.tag(x.caller, x.param('name'), repository, x.query.text('tag') || 'latest');
  x.empty(201);
}

async function remove(x: Exchange): Promise<void> {
  const platforms = x.speaks(50) ? x.query.all('platforms').filter((text) => text !== '').map(parsePlatformJson) : [];
  x.json(200, await x.datacenter.images.remove(x.caller, x.param('name'), {force: x.query.bool('force'), noPrune: x.query.bool('noprune'), ...(platforms.length ? {platforms} : {})}));
}

async function prune(x: Exchange): Promise<void> {
  const {deleted, spaceReclaimed} = await x.datacenter.images.prune(x.caller, x.query.filters());
  x.json(200, {ImagesDeleted: deleted.length ? deleted : null, SpaceReclaimed: spaceReclaimed});
}

async function save(x: Exchange): Promise<void> {
  await x.stream(200, {'Content-Type': TAR}, await x.datacenter.images.save(x.caller, [x.param('name')], platformOf(x, 48)));
}

async function saveAll(x: Exchange): Promise<void> {
  // Either repeated or, as some clients do, one value with commas.
  const names = x.query.all('names').flatMap((value) => value.split(',')).filter((name) => name !== '');
  if (!names.length) throw new CetusError('invalid', 'no image names given: the parameter "names" is required');
  if (names.length > MAX_SAVED_NAMES) throw new CetusError('invalid', `more than ${MAX_SAVED_NAMES} images in one archive`);
  await x.stream(200, {'Content-Type': TAR}, await x.datacenter.images.save(x.caller, names, platformOf(x, 48)));
}

async function load(x: Exchange): Promise<void> {
  // The Engine has always taken 1 as the default, and clients rely on it.
  await x.lines(x.datacenter.images.load(x.caller, x.bodyStream(), {quiet: x.query.bool('quiet', true), ...platformOf(x, 48)}));
}

async function push(x: Exchange): Promise<void> {
  const auth = parseRegistryAuth(x.request.headers['x-registry-auth']);
  await x.lines(x.datacenter.images.push(x.caller, x.param('name'), x.query.text('tag'), platformOf(x, 46), auth));
}

async function commit(x: Exchange): Promise<void> {
  const given = await x.readJson();
  const config = given === undefined || given === null ? undefined : parseBody<Config>('imageCommit', given);
  const {imageId} = await x.datacenter.images.commit(x.caller, x.query.text('container'), {
    repository: x.query.text('repo'), tag: x.query.text('tag'), author: x.query.text('author'), comment: x.query.text('comment'),
    pause: x.query.text('pause') === '' || x.query.bool('pause'), changes: x.query.all('changes'), ...(config ? {config} : {}),
  });
  x.json(201, {Id: imageId});
}

export const imageHandlers: Handlers = {
  ImageList: list,
  ImageCreate: create,
  ImageInspect: inspect,
  ImageHistory: history,
  ImageTag: tag,
  ImageDelete: remove,
  ImagePrune: prune,
  ImageGet: save,
  ImageGetAll: saveAll,
  ImageLoad: load,
  ImageCommit: commit,
  ImagePush: push,
};
