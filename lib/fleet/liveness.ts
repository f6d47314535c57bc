/**
 * Whether a node lives, decided from its heartbeats: pure. `fenced` is never decided here; only a join ends it.
 *
 *   alive -- a lease without heartbeat --> suspect -- three leases --> lost          any -- heartbeat --> alive
 */
import type {NodeLiveness} from '../schema/node';

export interface LivenessView {
  stored: NodeLiveness;
  /** ms since the epoch; undefined: this process has heard nothing yet. */
  lastHeartbeatMs: number | undefined;
  /** Since when this process listens: silence before that says nothing about the node. */
  listeningSinceMs: number;
  nowMs: number;
  leaseMs: number;
  /** After its own start this process declares nobody suspect for so long: agents need a moment to find it again. */
  graceMs: number;
}
export interface LivenessVerdict { liveness: NodeLiveness; reason: string }

export const LOST_AFTER_LEASES = 3;

/** undefined where what is stored stays. */
export function judge(view: LivenessView): LivenessVerdict | undefined {
  const verdict = decide(view);
  return verdict && verdict.liveness !== view.stored ? verdict : undefined;
}

function decide(view: LivenessView): LivenessVerdict | undefined {
  if (view.stored === 'fenced') return undefined;
  const heard = view.lastHeartbeatMs;
  const reference = heard ?? view.listeningSinceMs + view.graceMs;
  const silentMs = view.nowMs - reference;
  if (heard !== undefined && silentMs <= view.leaseMs) return {liveness: 'alive', reason: 'heartbeats arrive'};
  if (view.nowMs < view.listeningSinceMs + view.graceMs || silentMs <= view.leaseMs) return undefined;
  const since = `no heartbeat for ${Math.round((view.nowMs - (heard ?? view.listeningSinceMs)) / 1000)} s`;
  return silentMs > LOST_AFTER_LEASES * view.leaseMs ? {liveness: 'lost', reason: since} : view.stored === 'lost' ? undefined : {liveness: 'suspect', reason: since};
}
