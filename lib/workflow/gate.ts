/**
 * First-come-first-served queues by key, inside one process. Two uses: the line before a target (at most one of this process's requests
 * tries for the store's lock), and the gate before a hot object. Neither carries correctness; etags do.
 */
import {OVER, type Clock} from '../base/clock';

interface Waiter { enter(): void; label: string }

export class Gates {
  private readonly lines = new Map<string, {holder: string; waiters: Waiter[]}>();

  constructor(private readonly clock: Clock) {}

  /** Who is inside, as the label it gave. */
  holder(key: string): string | undefined {
    return this.lines.get(key)?.holder;
  }

  /** The function that leaves (repeatable), or undefined where `waitMs` passed, or the signal was aborted, first. */
  async enter(key: string, label: string, waitMs: number, signal?: AbortSignal): Promise<(() => void) | undefined> {
    const line = this.lines.get(key);
    if (!line) {
      this.lines.set(key, {holder: label, waiters: []});
      return this.leaver(key);
    }
    let entered = false;
    const done = new AbortController();
    const waiter: Waiter = {label, enter: () => {
      entered = true;
      done.abort(OVER);
    }};
    line.waiters.push(waiter);
    await this.clock.sleep(waitMs, signal ? AbortSignal.any([done.signal, signal]) : done.signal).catch(() => undefined);
    if (entered) return this.leaver(key);
    line.waiters = line.waiters.filter((w) => w !== waiter);
    return undefined;
  }

  private leaver(key: string): () => void {
    let left = false;
    return () => {
      if (left) return;
      left = true;
      const line = this.lines.get(key)!;
      const nextInLine = line.waiters.shift();
      if (!nextInLine) {
        this.lines.delete(key);
        return;
      }
      line.holder = nextInLine.label;
      nextInLine.enter();
    };
  }
}
