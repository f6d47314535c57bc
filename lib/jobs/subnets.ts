/**
 * Subnets of bridge networks: one pool for the whole datacenter, so that no two networks overlap anywhere. Pure; the blocks (bucket
 * `subnets`, one row per /16) are written under their etags by network.create and network.remove.
 */
import {CetusError} from '../base/errors';
import type {SubnetBlock} from '../schema/objects';
import {formatAddress, overlap, parseCidr, type Cidr} from './ipam';

/** `base` is divided into networks of `size` bits. */
export interface SubnetPool { base: string; size: number }

/** The Engine's own default pools, in its order. */
export const DEFAULT_POOLS: SubnetPool[] = [
  {base: '172.17.0.0/16', size: 16}, {base: '172.18.0.0/16', size: 16}, {base: '172.19.0.0/16', size: 16},
  {base: '172.20.0.0/14', size: 16}, {base: '172.24.0.0/14', size: 16}, {base: '172.28.0.0/14', size: 16}, {base: '192.168.0.0/16', size: 20},
];

// A /8 touches 256 rows; anything larger is a mistake rather than a network.
const SHORTEST_PREFIX = 8;

/** Keys of the blocks that a subnet lies in or covers. */
export function blocksOf(subnet: string): string[] {
  const cidr = parseCidr(subnet);
  if (cidr.length < SHORTEST_PREFIX) throw new CetusError('invalid', `invalid subnet ${subnet}: shorter than /${SHORTEST_PREFIX}`);
  const blocks: string[] = [];
  for (let n = Math.floor(cidr.first / 65536); n <= Math.floor(cidr.last / 65536); n += 1) blocks.push(formatAddress(n * 65536));
  return blocks;
}

export interface SubnetQuestion {
  /** '' = from the pools. */
  requested: string;
  taken: Iterable<SubnetBlock>;
  pools: readonly SubnetPool[];
  /** Routes of the machines themselves: never given from the pools. */
  avoid: readonly string[];
}

/** The subnet, or the Engine's refusal. */
export function chooseSubnet(question: SubnetQuestion): string {
  const taken = takenIn(question.taken);
  if (question.requested) {
    const cidr = parseCidr(question.requested);
    blocksOf(question.requested);
    if (taken.some((t) => overlap(t, cidr))) throw new CetusError('forbidden', 'invalid pool request: Pool overlaps with other one on this address space');
    return `${formatAddress(cidr.base)}/${cidr.length}`;
  }
  const barred = [...taken, ...question.avoid.map(parseCidr)];
  for (const pool of question.pools) {
    const whole = parseCidr(pool.base);
    const step = 2 ** (32 - pool.size);
    for (let base = whole.first; base <= whole.last; base += step) {
      const cidr: Cidr = {base, length: pool.size, first: base, last: base + step - 1};
      if (!barred.some((t) => overlap(t, cidr))) return `${formatAddress(base)}/${pool.size}`;
    }
  }
  throw new CetusError('forbidden', 'all predefined address pools have been fully subnetted');
}

function takenIn(blocks: Iterable<SubnetBlock>): Cidr[] {
  const subnets = new Set<string>();
  for (const block of blocks) for (const subnet of Object.values(block.networks)) subnets.add(subnet);
  return [...subnets].map(parseCidr);
}
