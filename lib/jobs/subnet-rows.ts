/** The rows behind `subnets.ts`: giving a network's part of the address space back. */
import type {BatchOp} from '../moray/moray';
import {BUCKETS} from '../schema/buckets';
import type {Network, SubnetBlock} from '../schema/objects';
import type {Ctx} from './services';
import {blocksOf} from './subnets';

export const SUBNETS = BUCKETS.subnets.name;

export async function releaseBlocks(ctx: Ctx<unknown>, network: Network): Promise<BatchOp[]> {
  if (!network.subnet) return [];
  const writes: BatchOp[] = [];
  for (const block of blocksOf(network.subnet)) {
    const row = await ctx.moray.peek<SubnetBlock>(SUBNETS, block);
    if (!row?.value.networks[network.id]) continue;
    const {[network.id]: _given, ...networks} = row.value.networks;
    writes.push(Object.keys(networks).length
      ? {op: 'put', bucket: SUBNETS, key: block, value: {block, networks}, etag: row.etag}
      : {op: 'delete', bucket: SUBNETS, key: block, etag: row.etag});
  }
  return writes;
}
