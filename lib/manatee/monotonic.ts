/**
 * The machine's own Monotonic. Node's clock stands still while the machine is suspended (CLOCK_MONOTONIC), and a lease must not: whatever the
 * system's uptime, which counts on, has gained on Node's clock is added. It never goes back.
 *
 * A virtual machine that its host freezes and that is not told so cannot know; a lease is as good as the guest's clocks.
 */
import os from 'node:os';
import type {Monotonic} from './coordination';
import type {Interruption} from './interrupt';

/** Uptime comes in hundredths of a second. */
const NOISE_MS = 50;
const TOGETHER_MS = 5;
const TRIES = 100;
const MAX_TIMER_MS = 2 ** 31 - 1;

export class MachineClock implements Monotonic {
  private sleptMs = 0;
  private readonly startMs: number;

  constructor(private readonly runningMs: () => number = () => performance.now(), private readonly uptimeMs: () => number = () => os.uptime() * 1000) {
    // Read as good as together, where the machine lets us.
    for (let left = TRIES; ; left -= 1) {
      const before = runningMs();
      this.startMs = uptimeMs() - before;
      if (left === 0 || runningMs() - before < TOGETHER_MS) return;
    }
  }

  nowMs(): number {
    // In this order: to be kept waiting between the two looks like less of a suspension, never like one.
    const uptime = this.uptimeMs();
    const running = this.runningMs();
    const gained = uptime - running - this.startMs;
    if (gained > this.sleptMs + NOISE_MS) this.sleptMs = gained;
    return running + this.sleptMs;
  }

  sleep(ms: number, signal?: Interruption): Promise<void> {
    return new Promise((resolve) => {
      if (signal?.aborted) return resolve();
      const done = (): void => {
        clearTimeout(timer);
        signal?.removeEventListener('abort', done);
        resolve();
      };
      const timer = setTimeout(done, Math.min(Math.max(0, ms), MAX_TIMER_MS));
      signal?.addEventListener('abort', done, {once: true});
    });
  }
}

export const monotonic: Monotonic = new MachineClock();
