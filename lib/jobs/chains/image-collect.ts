/**
 * image.collect: one node lets go of its copy, or of one that it has and nobody knows of. The node is taken off the image first, and marked `leaving`:
 * whoever is placed there from then on waits for the end and gets the image anew. After the mark users are looked for once more; where one
 * came in between, the copy stays.
 */
import {CetusError} from '../../base/errors';
import {and, eq} from '../../moray/filter';
import type {BatchOp} from '../../moray/moray';
import {targets, type ImageCollectParams, type ImageCollectResult} from '../../schema/chains';
import type {Image} from '../../schema/objects';
import type {Chain} from '../../workflow/chain';
import {mayLeave} from '../image-copies';
import type {Ctx, JobServices} from '../services';
import {CONTAINERS, IMAGES, task} from '../steps';

interface Marked { /** the account has the image, and this node counted */ known: boolean }
interface LetGo { kept: boolean }

export const collect: Chain<ImageCollectParams, JobServices> = {
  name: 'image.collect',
  version: 1,
  target: ({account, imageId}) => targets.image(account, imageId),
  steps: [
    {kind: 'plan', name: 'mark', plan: mark, undo: (ctx) => settle(ctx, false)},
    {kind: 'act', name: 'collect', do: letGo, timeoutMs: 120_000},
    {kind: 'plan', name: 'settle', plan: (ctx) => settle(ctx, (ctx.outputs['collect'] as LetGo).kept)},
  ],
  result: (outputs): ImageCollectResult => ({gone: !(outputs['collect'] as LetGo).kept}),
};

const keyOf = ({account, imageId}: ImageCollectParams): string => `${account}/${imageId}`;

async function mark(ctx: Ctx<ImageCollectParams>): Promise<{output: Marked; writes: BatchOp[]}> {
  const {nodeId, imageId} = ctx.params;
  if (await isUsed(ctx)) throw new CetusError('conflict', `image ${imageId} is in use on the node`);
  const stored = await ctx.moray.peek<Image>(IMAGES, keyOf(ctx.params));
  if (!stored) return {output: {known: false}, writes: []};
  const {value: image} = stored;
  const known = image.nodes.includes(nodeId);
  if (known && !mayLeave(image, await ctx.services.fleet.nodes(), nodeId)) throw new CetusError('conflict', `image ${imageId} must stay on the node: there are no other copies, or too few`);
  const value = {...image, nodes: image.nodes.filter((id) => id !== nodeId), leaving: [...new Set([...image.leaving ?? [], nodeId])]};
  return {output: {known}, writes: [{op: 'put', bucket: IMAGES, key: stored.key, value, etag: stored.etag}]};
}

/** Containers of this image on this node, those that are only being made included. */
async function isUsed(ctx: Ctx<ImageCollectParams>): Promise<boolean> {
  const {account, imageId, nodeId} = ctx.params;
  return (await ctx.moray.count(CONTAINERS, and(eq('account', account), eq('imageId', imageId), eq('nodeId', nodeId)))) > 0;
}

async function letGo(ctx: Ctx<ImageCollectParams>): Promise<LetGo> {
  const {account, imageId, nodeId} = ctx.params;
  if (await isUsed(ctx)) return {kept: true};
  await task(ctx, nodeId, 'collect', {kind: 'image.remove', imageId, account});
  return {kept: false};
}

/** Where it failed, whether the node still has it is not known: it does not count, and is looked at again. */
async function settle(ctx: Ctx<ImageCollectParams>, kept: boolean): Promise<{writes: BatchOp[]}> {
  const stored = await ctx.moray.peek<Image>(IMAGES, keyOf(ctx.params));
  if (!stored) return {writes: []};
  const {leaving = [], ...image} = stored.value;
  const {nodeId} = ctx.params;
  const rest = leaving.filter((id) => id !== nodeId);
  const nodes = kept && (ctx.outputs['mark'] as Marked).known ? [...new Set([...image.nodes, nodeId])] : image.nodes;
  return {writes: [{op: 'put', bucket: IMAGES, key: stored.key, value: {...image, nodes, ...(rest.length ? {leaving: rest} : {})}, etag: stored.etag}]};
}
