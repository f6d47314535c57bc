/** Keeps a lease alive while a step runs; aborts `lost` once the lease is no longer provably ours. */
import {OVER, type Clock} from '../base/clock';
import type {Moray} from '../moray/moray';
import {LeaseLost, renewLease, type Saved} from './commit';

export interface LeaseKeeper {
  /** Rejects with LeaseLost when it is lost; never resolves. */
  lost: Promise<never>;
  /** After it nothing is written any more. */
  stop(): Promise<void>;
}

export function keepLease(deps: {moray: Moray; clock: Clock; leaseMs: number}, saved: Saved, lost: AbortController): LeaseKeeper {
  const stopped = new AbortController();
  const rejected = new Promise<never>((_resolve, reject) => {
    if (lost.signal.aborted) reject(lost.signal.reason as Error);
    lost.signal.addEventListener('abort', () => reject(lost.signal.reason as Error), {once: true, signal: stopped.signal});
  });
  rejected.catch(() => undefined);
  const loop = async (): Promise<void> => {
    for (;;) {
      try {
        // A third: two renewals may fail before the lease runs out.
        await deps.clock.sleep(deps.leaseMs / 3, stopped.signal);
      } catch {
        return;
      }
      try {
        await renewLease(deps, saved);
      } catch (err) {
        lost.abort(err instanceof LeaseLost ? err : new LeaseLost(saved.job.id, `renewing failed: ${String(err)}`));
        return;
      }
    }
  };
  const running = loop();
  return {
    lost: rejected,
    stop: async () => {
      stopped.abort(OVER);
      await running;
    },
  };
}
