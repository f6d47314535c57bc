/**
 * When the next layer of a pull may start while others are on their way. Where one connection fills the line, more of them only make every
 * layer finish last, and nothing can be unpacked meanwhile: from a registry near by, layers come one after the other. Where it does not,
 * the next starts after a moment.
 */
import type {Clock} from '../../base/clock';

/** What a gigabit line carries. */
const FULL_BYTES_PER_MS = 100_000;
const WINDOW_MS = 50;

export class Pace {
  private bytes = 0;
  private running = 0;
  private turn: Promise<void> = Promise.resolve();
  private wake: (() => void) | undefined;

  constructor(private readonly clock: Clock) {}

  /** One waits at a time; the order of calls is the order of starts. */
  start(signal: AbortSignal): Promise<void> {
    const mine = this.turn.then(() => this.wait(signal));
    this.turn = mine.catch(() => undefined);
    return mine;
  }

  end(): void {
    this.running -= 1;
    this.wake?.();
  }

  arrived(bytes: number): void {
    this.bytes += bytes;
  }

  private async wait(signal: AbortSignal): Promise<void> {
    while (this.running > 0) {
      const [before, from] = [this.bytes, this.clock.now()];
      const ended = new Promise<void>((resolve) => {
        this.wake = resolve;
      });
      await Promise.race([this.clock.sleep(WINDOW_MS, signal), ended]);
      // What the machine itself was late by counts too.
      if (this.running > 0 && this.bytes - before < FULL_BYTES_PER_MS * (this.clock.now() - from)) break;
    }
    this.running += 1;
  }
}
