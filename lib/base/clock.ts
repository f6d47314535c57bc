/** Time, injectable, so that a simulator can own it. */
export interface Clock {
  /** Milliseconds since the epoch. */
  now(): number;
  /** Nanoseconds since the epoch; strictly increasing within one process, as Docker's timestamps must be. */
  nowNs(): bigint;
  /** Resolves after `ms`, or rejects with the signal's reason when it is aborted. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>;
}

/** Node takes a longer timeout for one of 1 ms. 24 days: a grace or an interval that a person gives may well be longer. */
const MAX_TIMER_MS = 2 ** 31 - 1;

class SystemClock implements Clock {
  // hrtime is monotonic but has no epoch: the two are joined once, and wall clock steps move the join.
  private base = BigInt(Date.now()) * 1_000_000n - process.hrtime.bigint();
  private last = 0n;

  now(): number {
    return Date.now();
  }

  nowNs(): bigint {
    const wall = BigInt(Date.now()) * 1_000_000n;
    let ns = this.base + process.hrtime.bigint();
    const drift = ns - wall;
    if (drift > 2_000_000n || drift < -2_000_000n) {
      this.base += wall - ns;
      ns = wall;
    }
    this.last = ns > this.last ? ns : this.last + 1n;
    return this.last;
  }

  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(signal.reason as Error);
      const onAbort = (): void => {
        clearTimeout(timer);
        reject(signal!.reason as Error);
      };
      let timer: NodeJS.Timeout;
      const wait = (leftMs: number): void => {
        timer = setTimeout(() => {
          if (leftMs > MAX_TIMER_MS) return wait(leftMs - MAX_TIMER_MS);
          signal?.removeEventListener('abort', onAbort);
          resolve();
        }, Math.min(leftMs, MAX_TIMER_MS));
      };
      wait(ms);
      signal?.addEventListener('abort', onAbort, {once: true});
    });
  }
}

/** Why a wait of one's own was ended: it is not needed any more. `abort()` without a reason makes an error with a stack each time, a fiftieth of what a busy endpoint does. */
export const OVER = new Error('nobody waits any more');

export const systemClock: Clock = new SystemClock();

/** RFC 3339 with nanoseconds, as the Engine prints times: 2026-01-02T03:04:05.123456789Z */
export function formatNs(ns: bigint): string {
  const seconds = ns / 1_000_000_000n;
  const fraction = (ns % 1_000_000_000n).toString().padStart(9, '0');
  return `${new Date(Number(seconds) * 1000).toISOString().slice(0, 19)}.${fraction}Z`;
}

/** The Engine's "never": what it shows for a start or finish that has not happened. */
export const ZERO_TIME = '0001-01-01T00:00:00Z';
