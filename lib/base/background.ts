/**
 * A background task: the same work again and again until it is stopped. It takes no input, so that the hint, the timer and the restart run the
 * same code; a pass that fails is told, and the next one comes all the same.
 */
import type {Clock} from './clock';

export interface BackgroundTask {
  work(): Promise<unknown>;
  /** From the end of a pass to the next one's begin. */
  pauseMs: number;
  failed(err: unknown): void;
  clock: Clock;
  signal: AbortSignal;
}

/** The first pass begins at once. Resolves when the signal is aborted and the pass under way has ended; never rejects. */
export async function repeat({work, pauseMs, failed, clock, signal}: BackgroundTask): Promise<void> {
  while (!signal.aborted) {
    try {
      await work();
    } catch (err) {
      // What breaks because of the stop is no failure.
      if (!signal.aborted) failed(err);
    }
    await clock.sleep(pauseMs, signal).catch(() => undefined);
  }
}
