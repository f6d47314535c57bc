/** image.pull: one node takes the image from its registry, then the account has it by name. Credentials are the request's and end with it. */
import type {BatchOp} from '../../moray/moray';
import {targets, type FetchedImages, type PullParams, type PullResult, type PullSecrets} from '../../schema/chains';
import {familiarName, familiarReference, parseImageName} from '../../schema/reference';
import type {Chain} from '../../workflow/chain';
import {chooseNode, dropFetched, pullTo, recordImage} from '../image-fetch';
import type {Ctx, JobServices} from '../services';
import {imagePut} from '../steps';

interface Pulled extends FetchedImages { digest: string }

export const pull: Chain<PullParams, JobServices> = {
  name: 'image.pull',
  version: 1,
  target: (params) => targets.image(params.account, params.reference),
  steps: [
    {kind: 'plan', name: 'choose', plan: async (ctx) => ({output: {nodeId: await chooseNode(ctx)}})},
    {
      // Layers resume where they stopped; a stalled registry is the node's to notice.
      kind: 'act', name: 'pull', do: fetch, timeoutMs: 6 * 3600_000, interruptible: true,
      // The node has tried a registry more than once already; here it is the node's own restart that is waited for.
      worthAgain: (err) => err.info['registry'] === undefined,
      undo: (ctx, output) => dropFetched(ctx, 'pull', output),
    },
    {kind: 'plan', name: 'record', plan: record},
  ],
  result: (outputs): PullResult => {
    const {images, upToDate, digest} = outputs['pull'] as Pulled;
    return {imageId: images[0]!.imageId, digest, upToDate, reference: (outputs['record'] as {reference: string}).reference};
  },
};

async function fetch(ctx: Ctx<PullParams>): Promise<Pulled> {
  const {nodeId} = ctx.outputs['choose'] as {nodeId: string};
  const {account, reference, platform} = ctx.params;
  const {image, upToDate} = await pullTo(ctx, nodeId, {account, reference, platform}, ctx.secrets as PullSecrets | undefined);
  return {nodeId, images: [image], upToDate, digest: image.resolvedDigest};
}

async function record(ctx: Ctx<PullParams>): Promise<{output: {reference: string}; writes: BatchOp[]}> {
  const {account, reference} = ctx.params;
  const {nodeId, images: [image], digest} = ctx.outputs['pull'] as Pulled;
  const name = parseImageName(reference);
  const writes = await recordImage(ctx, {
    // Pulled by digest, it has no tag to be known by.
    account, nodeId, image: image!, references: name.digest ? [] : [reference], repoDigests: [`${familiarName(name)}@${digest}`],
  });
  return {output: {reference}, writes: [...writes, imagePut(ctx, account, 'pull', image!.config, familiarReference(name), familiarName(name))]};
}
