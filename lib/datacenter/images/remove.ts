/** `docker rmi` and `docker image prune`: each image by its own job, and behind it the nameless images that it was made from and nobody else needs. */
import {CetusError, isCetusError} from '../../base/errors';
import {BUCKETS} from '../../schema/buckets';
import type {ImageRemoveResult} from '../../schema/chains';
import type {Image} from '../../schema/objects';
import type {Context} from '../context';
import {pruned} from '../events';
import {acceptFilters, booleanFilter, labelFilters, untilFilter} from '../filters';
import type {Caller, Filters} from '../verbs';
import {allImages, createdMs} from './list';
import {checkPlatform, type WantedPlatform} from './platform';
import {imageKey, resolveImage} from './resolve';

const IMAGES = BUCKETS.images.name;

export interface RemoveOptions { force: boolean; noPrune: boolean; platforms?: WantedPlatform[] }

export async function removeImage(context: Context, caller: Caller, nameOrId: string, options: RemoveOptions): Promise<ImageRemoveResult> {
  const {platforms = []} = options;
  if (platforms.length > 1) throw new CetusError('invalid', 'multiple platforms are not supported: an image has one here');
  const {image, reference} = await resolveImage(context, caller.account, nameOrId);
  for (const platform of platforms) checkPlatform(image, platform, nameOrId);
  const gone = await context.run(caller, 'image.remove', {account: caller.account, imageId: image.id, reference, shown: nameOrId, force: options.force, noPrune: options.noPrune});
  return options.noPrune || !takes(gone, image.id) ? gone : [...gone, ...(await removeParents(context, caller, image.parent))];
}

/** Upwards until one has a name, a container or another child: that one stays, and nobody is told of it. */
async function removeParents(context: Context, caller: Caller, parent: string | undefined): Promise<ImageRemoveResult> {
  const gone: ImageRemoveResult = [];
  for (let id = parent; id !== undefined;) {
    const above = await context.moray.peek<Image>(IMAGES, imageKey(caller.account, id));
    if (!above) break;
    try {
      gone.push(...await context.run(caller, 'image.remove', {account: caller.account, imageId: id, reference: '', shown: id, force: false, noPrune: false, nameless: true}));
    } catch (err) {
      if (!isCetusError(err, 'conflict') && !isCetusError(err, 'notFound')) throw err;
      break;
    }
    id = above.value.parent;
  }
  return gone;
}

export async function pruneImages(context: Context, caller: Caller, filters: Filters): Promise<{deleted: ImageRemoveResult; spaceReclaimed: number}> {
  acceptFilters(filters, ['dangling', 'label', 'label!', 'until']);
  const dangling = booleanFilter(filters, 'dangling') ?? true;
  const matches = labelFilters(filters);
  const until = untilFilter(filters, context.clock.now());
  const deleted: ImageRemoveResult = [];
  let spaceReclaimed = 0;
  // Children before what they were made from: a parent goes when it has none left.
  for (const {image, references, containers} of (await allImages(context, caller)).sort((a, b) => createdMs(b.image) - createdMs(a.image))) {
    if (containers > 0 || (dangling && references.length > 0) || !matches(image.config.config?.Labels ?? {}) || (until !== undefined && createdMs(image) > until)) continue;
    try {
      // Not by force, though it may have names in several repositories: a container that came to use it since we looked must keep it.
      const gone = await context.run(caller, 'image.remove', {account: caller.account, imageId: image.id, reference: '', shown: image.id, force: false, noPrune: false, unused: true});
      deleted.push(...gone);
      if (takes(gone, image.id)) spaceReclaimed += image.size;
    } catch (err) {
      if (!isCetusError(err, 'conflict') && !isCetusError(err, 'notFound')) throw err;
    }
  }
  context.events.emit(caller.account, pruned('image', spaceReclaimed));
  return {deleted, spaceReclaimed};
}

const takes = (gone: ImageRemoveResult, imageId: string): boolean => gone.some((line) => 'Deleted' in line && line.Deleted === imageId);
