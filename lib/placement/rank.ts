/** Scores: the weighted parts of README.md. Pure arithmetic over one node's numbers; every part is already multiplied by its weight. */
import type {Reservation} from '../schema/container';
import type {NodeScore} from '../schema/placement';

export const WEIGHT = {soft: 4, spreadLabel: 2, utilization: 1, spreadAccount: 1, imageLocality: 0.5} as const;
/** Utilization has this many steps: noise does not decide. */
export const LEVELS = 64;

const freeShare = (capacity: number, reserved: number): number => (capacity > 0 ? Math.max(0, (capacity - reserved) / capacity) : 0);

/** 0 (full) to LEVELS (empty), by the scarcest of memory and cpu. */
export function freeLevel(capacity: Reservation, reserved: Reservation): number {
  const free = Math.min(freeShare(capacity.memoryBytes, reserved.memoryBytes), freeShare(capacity.nanoCpus, reserved.nanoCpus));
  return Math.min(LEVELS, Math.floor(free * LEVELS));
}

export const utilizationScore = (level: number): number => (WEIGHT.utilization * level) / LEVELS;
export const spread = (weight: number, count: number): number => weight / (1 + count);

export const COMPOSE_PROJECT = 'com.docker.compose.project';
export const COMPOSE_SERVICE = 'com.docker.compose.service';
export const SPREAD_LABEL = 'cetus.spread';

/** Containers of one group keep away from each other; undefined where a container belongs to none. */
export function spreadGroup(account: string, labels: Readonly<Record<string, string>>): string | undefined {
  const own = labels[SPREAD_LABEL];
  if (own) return JSON.stringify([account, own]);
  const service = labels[COMPOSE_SERVICE];
  return service ? JSON.stringify([account, labels[COMPOSE_PROJECT] ?? '', service]) : undefined;
}

export function totalOf(parts: NodeScore['parts']): number {
  return parts.soft + parts.spreadLabel + parts.utilization + parts.spreadAccount + parts.imageLocality;
}
