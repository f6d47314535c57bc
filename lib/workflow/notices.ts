/** Wakes whoever waits in this process for a job's end or for a target's release. A hint only: waiters look at the store again. */
import {OVER, type Clock} from '../base/clock';

export class Notices {
  private readonly waiters = new Map<string, Set<() => void>>();

  constructor(private readonly clock: Clock) {}

  notify(key: string): void {
    const waiting = this.waiters.get(key);
    this.waiters.delete(key);
    waiting?.forEach((wake) => wake());
  }

  /** Resolves at the next notify after this call, or after `ms`, or when the signal is aborted. Listens at once, synchronously. */
  next(key: string, ms: number, signal?: AbortSignal): Promise<void> {
    const over = new AbortController();
    const wake = (): void => over.abort(OVER);
    const waiting = this.waiters.get(key) ?? new Set();
    this.waiters.set(key, waiting);
    waiting.add(wake);
    signal?.addEventListener('abort', wake, {once: true});
    if (signal?.aborted) wake();
    return this.clock.sleep(ms, over.signal).catch(() => undefined).finally(() => {
      signal?.removeEventListener('abort', wake);
      waiting.delete(wake);
      if (!waiting.size && this.waiters.get(key) === waiting) this.waiters.delete(key);
    });
  }
}

export const jobEnded = (jobId: string): string => `job/${jobId}`;
export const targetFreed = (target: string): string => `target/${target}`;
/** Something may be there to be claimed. */
export const CLAIMABLE = 'claimable';
