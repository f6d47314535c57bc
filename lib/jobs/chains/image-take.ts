/**
 * image.take: what a build engine made becomes the account's. The node takes it over from its engine first, which may be repeated for as long as the
 * build's hold lasts; then names, image and events are one commit, so that nobody sees a half of it.
 */
import type {BatchOp} from '../../moray/moray';
import type {LoadLine} from '../../schema/agent';
import {targets, type FetchedImages, type TakeParams, type TakeResult} from '../../schema/chains';
import {familiarName, familiarReference, parseImageName} from '../../schema/reference';
import type {Chain} from '../../workflow/chain';
import {copyElsewhere, dropFetched, readToResult, recordImage} from '../image-fetch';
import type {Ctx, JobServices} from '../services';
import {imagePut, IMAGES} from '../steps';

export const take: Chain<TakeParams, JobServices> = {
  name: 'image.take',
  version: 1,
  target: (params) => targets.image(params.account, `take/${params.takeId}`),
  steps: [
    {
      kind: 'act', name: 'take', do: fetch, timeoutMs: 6 * 3600_000,
      // Where the build's hold has ended there is nothing to ask again.
      worthAgain: (err) => err.kind === 'unavailable' || err.kind === 'timeout',
      undo: (ctx, output) => dropFetched(ctx, 'take', output),
    },
    {kind: 'plan', name: 'record', plan: record},
  ],
  result: (outputs): TakeResult => ({images: (outputs['take'] as FetchedImages).images.map(({imageId, references}) => ({imageId, references}))}),
};

async function fetch(ctx: Ctx<TakeParams>): Promise<FetchedImages> {
  const {nodeId, hold, images} = ctx.params;
  const agent = await ctx.services.fleet.agent(nodeId);
  const taken = await readToResult<Extract<LoadLine, {result: unknown}>>(ctx, agent.builds.take(hold, images, ctx.signal), 'take over what was built');
  const made = taken.images.filter(({imageId}) => pulledAs(ctx, imageId).length === 0);
  return {nodeId, images: taken.images, upToDate: false, copies: await copyElsewhere(ctx, 'take', nodeId, made)};
}

async function record(ctx: Ctx<TakeParams>): Promise<{writes: BatchOp[]}> {
  const {account} = ctx.params;
  const {nodeId, images, copies} = ctx.outputs['take'] as FetchedImages;
  const writes: BatchOp[] = [];
  for (const image of images) {
    const {imageId, references, config} = image;
    const isNew = !(await ctx.moray.peek(IMAGES, `${account}/${imageId}`));
    const repoDigests = pulledAs(ctx, imageId);
    writes.push(...(await recordImage(ctx, {account, nodeId, alsoOn: copies?.[imageId], inside: repoDigests.length === 0, image, references, repoDigests})));
    if (repoDigests.length > 0) {
      for (const name of references.map(parseImageName)) writes.push(imagePut(ctx, account, 'pull', config, familiarReference(name), familiarName(name)));
      continue;
    }
    if (isNew) writes.push(imagePut(ctx, account, 'create', config, imageId, imageId));
    for (const name of references.map(parseImageName)) writes.push(imagePut(ctx, account, 'tag', config, imageId, familiarReference(name)));
  }
  return {writes};
}

/** The engine pulled it from a registry, for a FROM; [] of what it made. */
function pulledAs(ctx: Ctx<TakeParams>, imageId: string): string[] {
  return ctx.params.images.find((i) => i.imageId === imageId)?.repoDigests ?? [];
}
