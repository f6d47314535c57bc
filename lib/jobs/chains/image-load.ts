/** image.load: an archive that the request carries goes to one node. It can be read once only, so nobody can take this act over. */
import {CetusError} from '../../base/errors';
import type {BatchOp} from '../../moray/moray';
import {targets, type FetchedImages, type LoadParams, type LoadResult, type LoadSecrets} from '../../schema/chains';
import type {Chain} from '../../workflow/chain';
import {chooseNode, copyElsewhere, dropFetched, loadTo, recordImage} from '../image-fetch';
import type {Ctx, JobServices} from '../services';
import {imagePut} from '../steps';

export const load: Chain<LoadParams, JobServices> = {
  name: 'image.load',
  version: 1,
  target: (params) => targets.image(params.account, `load/${params.loadId}`),
  steps: [
    {kind: 'plan', name: 'choose', plan: async (ctx) => ({output: {nodeId: await chooseNode(ctx)}})},
    {
      kind: 'act', name: 'load', do: fetch, tries: 1, timeoutMs: 6 * 3600_000,
      undo: (ctx, output) => dropFetched(ctx, 'load', output),
    },
    {kind: 'plan', name: 'record', plan: record},
  ],
  result: (outputs): LoadResult => ({images: (outputs['load'] as FetchedImages).images.map(({imageId, references}) => ({imageId, references}))}),
};

async function fetch(ctx: Ctx<LoadParams>): Promise<FetchedImages> {
  const {nodeId} = ctx.outputs['choose'] as {nodeId: string};
  const {archive} = (ctx.secrets ?? {}) as Partial<LoadSecrets>;
  if (!archive) throw new CetusError('unavailable', 'the archive went away with the process that was reading it; load it again');
  const images = await loadTo(ctx, nodeId, archive, ctx.params.account, ctx.params.platform);
  return {nodeId, images, upToDate: false, copies: await copyElsewhere(ctx, 'load', nodeId, images)};
}

async function record(ctx: Ctx<LoadParams>): Promise<{writes: BatchOp[]}> {
  const {account} = ctx.params;
  const {nodeId, images, copies} = ctx.outputs['load'] as FetchedImages;
  const writes: BatchOp[] = [];
  // An archive may name one image twice; its row can be written once in a batch.
  const byId = new Map<string, {image: (typeof images)[number]; references: string[]}>();
  for (const image of images) {
    const seen = byId.get(image.imageId);
    byId.set(image.imageId, {image, references: [...new Set([...(seen?.references ?? []), ...image.references])]});
  }
  for (const {image, references} of byId.values()) {
    writes.push(...(await recordImage(ctx, {account, nodeId, alsoOn: copies?.[image.imageId], inside: true, image, references})));
    writes.push(imagePut(ctx, account, 'load', image.config, image.imageId, image.imageId));
  }
  return {writes};
}
