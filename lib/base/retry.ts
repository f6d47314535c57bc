import {type Clock, systemClock} from './clock';

export interface RetryOptions {
  /** Total tries, the first included. */
  tries: number;
  firstDelayMs: number;
  maxDelayMs: number;
  /** Says whether this error is worth another try. */
  retryable(err: unknown): boolean;
  signal?: AbortSignal;
  clock?: Clock;
  random?: () => number;
}

/** Calls `attempt` until it succeeds, its error is final, or the tries are used up; waits with jitter in between. */
export async function retry<T>(options: RetryOptions, attempt: (n: number) => Promise<T>): Promise<T> {
  const clock = options.clock ?? systemClock;
  const random = options.random ?? Math.random;
  let delayMs = options.firstDelayMs;
  for (let n = 1; ; n += 1) {
    try {
      return await attempt(n);
    } catch (err) {
      if (n >= options.tries || !options.retryable(err)) throw err;
      // Half fixed, half random: callers that failed together do not return together.
      await clock.sleep(delayMs / 2 + random() * delayMs / 2, options.signal);
      delayMs = Math.min(delayMs * 2, options.maxDelayMs);
    }
  }
}
