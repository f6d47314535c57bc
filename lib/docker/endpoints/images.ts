/** Images: list, pull, inspect, history, tag, remove, prune, save, load, import, commit, push. */
import {CetusError, isCetusError} from '../../base/errors';
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
  const images = await x.datacenter.images.list(x.caller, {all: x.query.bool('all'), filters});
  x.json(200, images.map((image) => imageListEntry(image, options(x))));
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
  return x.query.text('fromImage') === '' && x.query.has('fromSrc') ? importArchive(x) : pull(x);
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

async function inspect(x: Exchange): Promise<void> {
  x.json(200, imageInspect(await x.datacenter.images.get(x.caller, x.param('name')), {...options(x), containerConfig: COMPOSE_1.test(x.request.headers['user-agent'] ?? '')}));
}

async function history(x: Exchange): Promise<void> {
  x.json(200, imageHistory(await x.datacenter.images.get(x.caller, x.param('name'))));
}

async function tag(x: Exchange): Promise<void> {
  const repository = x.query.text('repo');
  if (!repository) throw new CetusError('invalid', 'invalid reference format: repository name is required');
  await x.datacenter.images.tag(x.caller, x.param('name'), repository, x.query.text('tag') || 'latest');
  x.empty(201);
}

async function remove(x: Exchange): Promise<void> {
  x.json(200, await x.datacenter.images.remove(x.caller, x.param('name'), {force: x.query.bool('force'), noPrune: x.query.bool('noprune')}));
}

async function prune(x: Exchange): Promise<void> {
  const {deleted, spaceReclaimed} = await x.datacenter.images.prune(x.caller, x.query.filters());
  x.json(200, {ImagesDeleted: deleted.length ? deleted : null, SpaceReclaimed: spaceReclaimed});
}

async function save(x: Exchange): Promise<void> {
  await x.stream(200, {'Content-Type': TAR}, await x.datacenter.images.save(x.caller, [x.param('name')]));
}

async function saveAll(x: Exchange): Promise<void> {
  // Either repeated or, as some clients do, one value with commas.
  const names = x.query.all('names').flatMap((value) => value.split(',')).filter((name) => name !== '');
  if (!names.length) throw new CetusError('invalid', 'no image names given: the parameter "names" is required');
  if (names.length > MAX_SAVED_NAMES) throw new CetusError('invalid', `more than ${MAX_SAVED_NAMES} images in one archive`);
  await x.stream(200, {'Content-Type': TAR}, await x.datacenter.images.save(x.caller, names));
}

async function load(x: Exchange): Promise<void> {
  // The Engine has always taken 1 as the default, and clients rely on it.
  await x.lines(x.datacenter.images.load(x.caller, x.bodyStream(), {quiet: x.query.bool('quiet', true)}));
}

async function push(x: Exchange): Promise<void> {
  const platform = x.speaks(46) ? x.query.text('platform') : '';
  const auth = parseRegistryAuth(x.request.headers['x-registry-auth']);
  await x.lines(x.datacenter.images.push(x.caller, x.param('name'), x.query.text('tag'), platform ? {platform: parsePlatformJson(platform)} : {}, auth));
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
