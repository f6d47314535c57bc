/** image.import: one tar, from the request or an address, is an image of one node. What the request carries can be read once only: nobody can take this act over. */
import {CetusError} from '../../base/errors';
import {formatNs} from '../../base/clock';
import type {BatchOp} from '../../moray/moray';
import {targets, type FetchedImages, type ImportParams, type ImportResult, type ImportSecrets} from '../../schema/chains';
import {familiarReference, parseImageName} from '../../schema/reference';
import type {Chain} from '../../workflow/chain';
import {chooseNode, copyElsewhere, dropFetched, importTo, recordImage} from '../image-fetch';
import type {Ctx, JobServices} from '../services';
import {imagePut} from '../steps';

export const importArchive: Chain<ImportParams, JobServices> = {
  name: 'image.import',
  version: 1,
  target: (params) => targets.image(params.account, `import/${params.importId}`),
  steps: [
    {kind: 'plan', name: 'choose', plan: async (ctx) => ({output: {nodeId: await chooseNode({...ctx, params: {account: ctx.params.account}}), created: formatNs(ctx.services.clock.nowNs())}})},
    {
      kind: 'act', name: 'import', do: make, tries: 1, timeoutMs: 6 * 3600_000, interruptible: true,
      undo: (ctx, output) => dropFetched(ctx, 'import', output),
    },
    {kind: 'plan', name: 'record', plan: record},
  ],
  result: (outputs): ImportResult => ({imageId: (outputs['import'] as FetchedImages).images[0]!.imageId}),
};

async function make(ctx: Ctx<ImportParams>): Promise<FetchedImages> {
  const {nodeId, created} = ctx.outputs['choose'] as {nodeId: string; created: string};
  const source = ctx.secrets as ImportSecrets | undefined;
  if (!source) throw new CetusError('unavailable', 'the archive went away with the process that was reading it; import it again');
  const {account, message, config, platform} = ctx.params;
  const request = {account, created, message, config, ...(platform === undefined ? {} : {platform}), ...('url' in source ? {url: source.url} : {})};
  const images = [await importTo(ctx, nodeId, request, 'archive' in source ? source.archive : undefined)];
  return {nodeId, images, upToDate: false, copies: await copyElsewhere(ctx, 'import', nodeId, images)};
}

async function record(ctx: Ctx<ImportParams>): Promise<{writes: BatchOp[]}> {
  const {account, reference} = ctx.params;
  const {nodeId, images: [image], copies} = ctx.outputs['import'] as FetchedImages;
  const writes = await recordImage(ctx, {account, nodeId, alsoOn: copies?.[image!.imageId], inside: true, image: image!, references: reference ? [reference] : []});
  if (reference) writes.push(imagePut(ctx, account, 'tag', image!.config, image!.imageId, familiarReference(parseImageName(reference))));
  return {writes: [...writes, imagePut(ctx, account, 'import', image!.config, image!.imageId, image!.imageId)]};
}
