/** image.replicate: one more node has the image. Asked for by the keeper after a loss, and by whoever needs the image on that very node. */
import {CetusError} from '../../base/errors';
import type {BatchOp} from '../../moray/moray';
import {targets, type ImageReplicateParams, type ImageReplicateResult} from '../../schema/chains';
import type {Image} from '../../schema/objects';
import type {Chain} from '../../workflow/chain';
import {peersOf} from '../image-copies';
import {dropUnrecorded, ensureOn, registryOf} from '../image-fetch';
import type {Ctx, JobServices} from '../services';
import {IMAGES} from '../steps';

interface Begun { here: boolean }
interface Copied extends ImageReplicateResult { manifestDigest: string }

export const replicate: Chain<ImageReplicateParams, JobServices> = {
  name: 'image.replicate',
  version: 1,
  target: ({account, imageId}) => targets.image(account, imageId),
  steps: [
    {kind: 'plan', name: 'begin', plan: async (ctx) => ({output: {here: (await present(ctx)).value.nodes.includes(ctx.params.nodeId)} satisfies Begun})},
    {
      kind: 'act', name: 'copy', do: copy, timeoutMs: 6 * 3600_000, interruptible: true,
      worthAgain: (err) => err.info['registry'] === undefined && err.info['code'] !== 'NOBODY',
      undo: (ctx) => ((ctx.outputs['begin'] as Begun).here ? Promise.resolve() : dropUnrecorded(ctx, 'copy', ctx.params.nodeId, [ctx.params.imageId])),
    },
    {kind: 'plan', name: 'record', plan: record},
  ],
  result: (outputs): ImageReplicateResult => ({taken: (outputs['copy'] as Copied).taken}),
};

async function present(ctx: Ctx<ImageReplicateParams>): Promise<{key: string; etag: string; value: Image}> {
  const {account, imageId} = ctx.params;
  const image = await ctx.moray.peek<Image>(IMAGES, `${account}/${imageId}`);
  if (!image || image.value.removing) throw new CetusError('notFound', `No such image: ${imageId}`);
  return image;
}

async function copy(ctx: Ctx<ImageReplicateParams>): Promise<Copied> {
  const {account, imageId, nodeId} = ctx.params;
  const {value: image} = await present(ctx);
  const {manifest, manifestDigest} = image;
  if ((ctx.outputs['begin'] as Begun).here) return {taken: null, manifestDigest};
  const {taken} = await ensureOn(ctx, nodeId, {account, imageId, manifest, peers: peersOf(image, await ctx.services.fleet.nodes(), nodeId), ...registryOf(image)}, undefined);
  return {taken, manifestDigest};
}

async function record(ctx: Ctx<ImageReplicateParams>): Promise<{writes: BatchOp[]}> {
  const {key, etag, value} = await present(ctx);
  const {nodeId} = ctx.params;
  if ((ctx.outputs['begin'] as Begun).here || value.nodes.includes(nodeId)) return {writes: []};
  if (value.manifestDigest !== (ctx.outputs['copy'] as Copied).manifestDigest) throw new CetusError('conflict', `image ${value.id} has become another one meanwhile`);
  return {writes: [{op: 'put', bucket: IMAGES, key, value: {...value, nodes: [...value.nodes, nodeId]}, etag}]};
}
