/**
 * Numbers of networks' segments across nodes: each is in the store while its network is, so that no two networks ever share one. Chosen at random, so that
 * networks that are made at once seldom want the same, and the number of one that has gone is not soon another's: a node that could not be
 * told of the end may still listen to it.
 */
import {CetusError} from '../base/errors';
import type {BatchOp} from '../moray/moray';
import {BUCKETS} from '../schema/buckets';
import type {Network, VniLease} from '../schema/objects';
import type {Ctx} from './services';

const VNIS = BUCKETS.vnis.name;
/** Below are those that people choose by hand. */
const FIRST = 4096;
const LAST = 2 ** 24 - 1;
const TRIES = 100;

/** The write fails where another is faster: then the plan is made anew. */
export async function takeVni(ctx: Ctx<unknown>, networkId: string): Promise<{vni: number; write: BatchOp}> {
  const start = Math.floor(ctx.services.random() * (LAST - FIRST + 1));
  for (let n = 0; n < TRIES; n += 1) {
    const vni = FIRST + ((start + n) % (LAST - FIRST + 1));
    if (await ctx.moray.peek<VniLease>(VNIS, String(vni))) continue;
    const lease: VniLease = {vni, networkId};
    return {vni, write: {op: 'put', bucket: VNIS, key: String(vni), value: lease, etag: null}};
  }
  throw new CetusError('unavailable', 'no number for the network was found free; try again');
}

export function releaseVni({vni}: Network): BatchOp[] {
  return vni === undefined ? [] : [{op: 'delete', bucket: VNIS, key: String(vni)}];
}
