/**
 * image.remove: decides after the Engine's rules; where the image itself goes, it is marked first (no container can come to use it), the nodes
 * let go of it, then it is forgotten with its names.
 */
import {CetusError, isCetusError} from '../../base/errors';
import {and, eq} from '../../moray/filter';
import type {BatchOp, Stored} from '../../moray/moray';
import {BUCKETS} from '../../schema/buckets';
import {targets, type ImageRemoveParams, type ImageRemoveResult} from '../../schema/chains';
import type {Job} from '../../schema/job';
import type {Image, ImageRef} from '../../schema/objects';
import type {Chain} from '../../workflow/chain';
import {IMAGE_REFS} from '../image-fetch';
import {decideRemoval, type Removal} from '../image-removal';
import type {Ctx, JobServices} from '../services';
import {imagePut, IMAGES, isRunning, task, usersOfImage} from '../steps';

const REMOVALS_WAIT_MS = 5_000;
const REMOVALS_POLL_MS = 10;

interface Marked extends Removal { key: string; nodes: string[]; users: string[] }

export const remove: Chain<ImageRemoveParams, JobServices> = {
  name: 'image.remove',
  version: 1,
  target: (params) => targets.image(params.account, params.imageId),
  steps: [
    {kind: 'plan', name: 'mark', plan: mark, undo: unmark},
    {kind: 'act', name: 'remove', do: letGo, timeoutMs: 120_000},
    {kind: 'plan', name: 'forget', plan: forget},
  ],
  result: (outputs): ImageRemoveResult => (outputs['mark'] as Marked).answer,
};

async function mark(ctx: Ctx<ImageRemoveParams>): Promise<{output: Marked; writes: BatchOp[]}> {
  const {account, imageId, shown} = ctx.params;
  const key = `${account}/${imageId}`;
  const stored = await ctx.moray.peek<Image>(IMAGES, key);
  if (!stored) throw new CetusError('notFound', `No such image: ${shown}`);
  const image = stored.value;
  const [refs, users, children] = await Promise.all([
    refsOf(ctx), usersOfImage(ctx, account, imageId), ctx.moray.count(IMAGES, and(eq('account', account), eq('parent', imageId))),
  ]);
  const removal = decideRemoval({
    image, tags: refs.map((r) => r.value.reference), users: users.map((c) => ({id: c.id, running: isRunning(c)})), hasChildren: children > 0,
  }, ctx.params);
  const output: Marked = {...removal, key, nodes: [...new Set([...image.nodes, ...image.leaving ?? []])], users: users.map((c) => c.id)};
  if (removal.deleteImage) return {output, writes: [{op: 'put', bucket: IMAGES, key, value: {...image, removing: true}, etag: stored.etag}]};
  const gone = refs.filter((r) => removal.untag.includes(r.value.reference));
  return {
    output,
    writes: [
      ...gone.map((r): BatchOp => ({op: 'delete', bucket: IMAGE_REFS, key: r.key, etag: r.etag})),
      {op: 'put', bucket: IMAGES, key, value: {...image, repoDigests: image.repoDigests.filter((d) => !removal.dropDigests.includes(d))}, etag: stored.etag},
      ...untagEvents(ctx, removal.answer, image.config),
    ],
  };
}

/** Of a name that was asked for one; the digests that go with it are told in the answer only. Of an image that was asked for by its id one for each name and digest. */
function untagEvents(ctx: Ctx<ImageRemoveParams>, answer: ImageRemoveResult, config: Image['config'] | undefined): BatchOp[] {
  const {account, imageId, reference} = ctx.params;
  const untagged = answer.filter((line) => 'Untagged' in line);
  return (reference ? untagged.slice(0, 1) : untagged).map(() => imagePut(ctx, account, 'untag', config, imageId, imageId));
}

async function refsOf(ctx: Ctx<ImageRemoveParams>): Promise<Stored<ImageRef>[]> {
  return ctx.moray.list<ImageRef>(IMAGE_REFS, and(eq('account', ctx.params.account), eq('imageId', ctx.params.imageId)));
}

async function unmark(ctx: Ctx<ImageRemoveParams>, output: unknown): Promise<{writes: BatchOp[]}> {
  const {key, deleteImage} = output as Marked;
  const stored = deleteImage ? await ctx.moray.peek<Image>(IMAGES, key) : undefined;
  if (!stored) return {writes: []};
  const {removing: _mark, ...image} = stored.value;
  return {writes: [{op: 'put', bucket: IMAGES, key, value: image, etag: stored.etag}]};
}

async function letGo(ctx: Ctx<ImageRemoveParams>): Promise<{left: string[]}> {
  const {deleteImage, nodes, users} = ctx.outputs['mark'] as Marked;
  if (!deleteImage) return {left: []};
  const {account, imageId} = ctx.params;
  // One who was placed while we decided is in the store by now, and after the mark nobody can be.
  const late = (await usersOfImage(ctx, account, imageId)).find((c) => !users.includes(c.id));
  if (late) throw new CetusError('conflict', `conflict: unable to delete ${ctx.params.shown} (cannot be forced) - container ${late.id} has just been created from it`);
  await behindRemovals(ctx);
  const left: string[] = [];
  const {here, away} = await reachable(ctx, nodes);
  let gone = false;
  for (const nodeId of here) {
    try {
      await task(ctx, nodeId, `remove.${nodeId}`, {kind: 'image.remove', imageId, account});
      gone = true;
    } catch (err) {
      // Where no node has let go yet, the image stays what it was. After the first there is no way back: a node that cannot be
      // reached then keeps blobs that nobody names, until the keeper of images finds them there.
      if (!gone || (ctx.attempt < 3 && (isCetusError(err, 'unavailable') || isCetusError(err, 'timeout')))) throw err;
      ctx.log.warn({err, nodeId, imageId}, 'a node still holds a removed image');
      left.push(nodeId);
    }
  }
  if (away.length > 0) ctx.log.warn({nodes: away, imageId}, 'nodes that are away may still hold a removed image');
  left.push(...away);
  return {left};
}

/** Nodes that are away are not waited for where others can let go; one that is no node any more holds nothing. */
async function reachable(ctx: Ctx<ImageRemoveParams>, ids: string[]): Promise<{here: string[]; away: string[]}> {
  const nodes = new Map((await ctx.services.fleet.nodes()).map((node) => [node.id, node]));
  const known = ids.filter((id) => nodes.has(id));
  const away = known.filter((id) => nodes.get(id)!.liveness === 'lost' || nodes.get(id)!.liveness === 'fenced');
  const here = known.filter((id) => !away.includes(id));
  return here.length > 0 ? {here, away} : {here: known, away: []};
}

/**
 * A container that is forgotten may still be on its way out of its node, and would keep the image's layers there from being collected with
 * the image. A bounded wait: nothing but the moment at which the disk is free rests on it.
 */
async function behindRemovals(ctx: Ctx<ImageRemoveParams>): Promise<void> {
  const {clock} = ctx.services;
  const untilMs = clock.now() + REMOVALS_WAIT_MS;
  const underWay = async (): Promise<string[]> =>
    (await ctx.moray.list<Job>(BUCKETS.jobs.name, and(eq('workflow', 'container.destroy'), eq('execution', 'running')), {fresh: true})).map((job) => job.key);
  const before = new Set(await underWay());
  for (let left = before.size; left && clock.now() < untilMs; left = (await underWay()).filter((id) => before.has(id)).length)
    await clock.sleep(REMOVALS_POLL_MS, ctx.signal);
}

async function forget(ctx: Ctx<ImageRemoveParams>): Promise<{writes: BatchOp[]}> {
  const {account, imageId} = ctx.params;
  const {key, deleteImage, answer} = ctx.outputs['mark'] as Marked;
  if (!deleteImage) return {writes: []};
  const [refs, image] = await Promise.all([refsOf(ctx), ctx.moray.peek<Image>(IMAGES, key)]);
  return {
    writes: [
      {op: 'delete', bucket: IMAGES, key},
      // Also a tag that was put on it meanwhile: it names nothing any more.
      ...refs.map((r): BatchOp => ({op: 'delete', bucket: IMAGE_REFS, key: r.key, etag: r.etag})),
      ...untagEvents(ctx, answer, image?.value.config),
      imagePut(ctx, account, 'delete', undefined, imageId, imageId),
    ],
  };
}
