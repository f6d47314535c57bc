/** Rejects a node whose reservations and the asked amount together exceed what it has. An amount of 0 asks for nothing. */
import {formatBytes, formatMemory, NANO_CPUS_PER_CPU} from '../../base/units';
import type {Reservation} from '../../schema/container';
import type {NodeView} from '../placement';

export const DIMENSIONS = ['memoryBytes', 'nanoCpus', 'diskBytes', 'pids'] as const;
export type Dimension = (typeof DIMENSIONS)[number];
/** As users call them. */
export const WORD: Record<Dimension, string> = {memoryBytes: 'memory', nanoCpus: 'cpus', diskBytes: 'disk', pids: 'pids'};

export const free = (node: NodeView, dimension: Dimension): number => Math.max(0, node.capacity[dimension] - node.reserved[dimension]);

/** The first resource that is too small, or undefined where all fits. */
export function lacking(node: NodeView, asked: Reservation): string | undefined {
  for (const d of DIMENSIONS) if (asked[d] > 0 && node.reserved[d] + asked[d] > node.capacity[d]) return WORD[d];
  return undefined;
}

export function describeAmount(dimension: Dimension, amount: number): string {
  switch (dimension) {
    case 'memoryBytes': return `memory ${formatMemory(amount)}`;
    case 'diskBytes': return `disk ${formatBytes(amount)}`;
    case 'nanoCpus': return `cpus ${Number((amount / NANO_CPUS_PER_CPU).toFixed(3))}`;
    case 'pids': return `pids ${amount}`;
  }
}
