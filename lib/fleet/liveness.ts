/**
 * Whether a node lives, decided from how long nothing was heard of it: pure.
 *
 *   alive -- a lease without renewal --> suspect -- three leases --> lost -- fenceDelayMs --> fenced        any but fenced -- renewal --> alive
 *
 * `fenced` is the only one of these that others build upon: whoever calls a node so must still hold that no renewal slips in behind (fencing.ts). Only a join ends it.
 */
import type {NodeLiveness} from '../schema/node';

export interface LivenessView {
  stored: NodeLiveness;
  /** By the judging process's own monotonic clock, as all times here; undefined: this process has heard nothing yet. */
  lastHeartbeatMs: number | undefined;
  /** Since when this process listens: silence before that says nothing about the node. */
  listeningSinceMs: number;
  nowMs: number;
  leaseMs: number;
  /** After its own start this process declares nobody suspect for so long: agents need a moment to find it again. */
  graceMs: number;
  /** Undefined: this node is never fenced. */
  fenceDelayMs?: number | undefined;
}
export interface LivenessVerdict { liveness: NodeLiveness; reason: string }

export const LOST_AFTER_LEASES = 3;
/** Of leaseMs: how long an agent may run what is marked after it SENT the last heartbeat that was answered. Longer than a failover of the store takes. */
export const FENCE_AFTER_LEASES = 4;
/**
 * By how much the clocks of two machines may differ in speed. Quartz is right to 0.01 %, and a time daemon bends a clock by 0.05 % at most; beyond that
 * there are only broken machines.
 */
export const CLOCK_RATES = 0.01;

/**
 * From the moment a renewal was SEEN to the moment at which its node may be called fenced. It was sent before that, and the node stops what is marked `fenceAfterMs` after the
 * sending by its own clock: the agent at that moment, its guard a quarter of a lease later; three quarters of a lease remain for the kernel to do it.
 */
export function fenceDelayMs(fenceAfterMs: number, leaseMs: number): number {
  return Math.ceil(fenceAfterMs * (1 + CLOCK_RATES) + leaseMs);
}

/** undefined where what is stored stays. */
export function judge(view: LivenessView): LivenessVerdict | undefined {
  const verdict = decide(view);
  return verdict && verdict.liveness !== view.stored ? verdict : undefined;
}

function decide(view: LivenessView): LivenessVerdict | undefined {
  if (view.stored === 'fenced') return undefined;
  const heard = view.lastHeartbeatMs;
  const listenedMs = view.nowMs - (heard ?? view.listeningSinceMs);
  const reference = heard ?? view.listeningSinceMs + view.graceMs;
  const silentMs = view.nowMs - reference;
  if (heard !== undefined && silentMs <= view.leaseMs) return {liveness: 'alive', reason: 'heartbeats arrive'};
  if (view.nowMs < view.listeningSinceMs + view.graceMs || silentMs <= view.leaseMs) return undefined;
  const since = `no heartbeat for ${Math.round(listenedMs / 1000)} s`;
  if (view.fenceDelayMs !== undefined && listenedMs >= view.fenceDelayMs) return {liveness: 'fenced', reason: `${since}: it has stopped what may run elsewhere`};
  return silentMs > LOST_AFTER_LEASES * view.leaseMs ? {liveness: 'lost', reason: since} : view.stored === 'lost' ? undefined : {liveness: 'suspect', reason: since};
}
