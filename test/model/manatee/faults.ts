/**
 * What can go wrong, and what an operator can order: a schedule is a list of these. Whom one hits is said by role and settled when it happens, so that a
 * list means the same after others have been dropped from it.
 */
import type {Random} from './random';

export type Target = 'primary' | 'sync' | 'async' | 'deposed' | 'any';

export type FaultKind =
  | 'crashSitter' | 'crashPostgres' | 'crashMachine' | 'pauseSitter' | 'pausePostgres' | 'pauseMachine'
  | 'cutFromZk' | 'cutToZk' | 'cutZk' | 'cutPeers' | 'cutPeerOneWay' | 'isolate'
  | 'zkDown' | 'zkServerDies' | 'zkStale' | 'zkSlow'
  | 'diskFull' | 'diskSlow' | 'diskLost' | 'clockJump' | 'atCall'
  | 'freeze' | 'promoteSync' | 'promoteAsync' | 'rebuild' | 'forget' | 'alone' | 'notAlone' | 'addPeer' | 'removePeer';

export interface Fault {
  atMs: number;
  kind: FaultKind;
  target: Target;
  /** How long, where it ends by itself. */
  forMs: number;
  /** Which of several, and other choices. */
  choice: number;
}

const WEIGHTS: Readonly<Record<FaultKind, number>> = {
  crashSitter: 8, crashPostgres: 10, crashMachine: 10, pauseSitter: 6, pausePostgres: 5, pauseMachine: 8,
  cutFromZk: 4, cutToZk: 4, cutZk: 6, cutPeers: 6, cutPeerOneWay: 4, isolate: 5,
  zkDown: 3, zkServerDies: 4, zkStale: 3, zkSlow: 4,
  diskFull: 4, diskSlow: 4, diskLost: 3, clockJump: 2, atCall: 24,
  freeze: 2, promoteSync: 4, promoteAsync: 3, rebuild: 3, forget: 1, alone: 2, notAlone: 2, addPeer: 2, removePeer: 1,
};
export const FAULT_KINDS = Object.keys(WEIGHTS) as FaultKind[];
const TOTAL = FAULT_KINDS.reduce((sum, kind) => sum + WEIGHTS[kind], 0);
const TARGETS: readonly Target[] = ['primary', 'primary', 'primary', 'sync', 'sync', 'async', 'deposed', 'any', 'any'];

/** Faults come in clusters: what is interesting happens while the last one is still being dealt with. */
export function planFaults(random: Random, fromMs: number, untilMs: number): Fault[] {
  const faults: Fault[] = [];
  const wanted = 1 + random.below(random.chance(0.3) ? 14 : 6);
  let atMs = fromMs;
  while (faults.length < wanted) {
    atMs += random.chance(0.55) ? random.between(0, 1_200) : random.between(0, 7_000);
    if (atMs > untilMs) break;
    faults.push({atMs, kind: pickKind(random), target: random.pick(TARGETS), forMs: random.chance(0.5) ? random.between(20, 2_500) : random.between(1_000, 12_000), choice: random.below(1 << 20)});
  }
  return faults;
}

function pickKind(random: Random): FaultKind {
  let at = random.below(TOTAL);
  for (const kind of FAULT_KINDS) {
    at -= WEIGHTS[kind];
    if (at < 0) return kind;
  }
  return 'crashPostgres';
}

export const describeFault = ({atMs, kind, target, forMs, choice}: Fault): string => `${(atMs / 1000).toFixed(2)} s ${kind} ${target} for ${(forMs / 1000).toFixed(2)} s (${choice})`;
