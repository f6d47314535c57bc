/**
 * Virtual time: a queue of events in the order of their moments, then of their making. Nothing of a simulated world happens outside of it, so
 * a seed is a schedule.
 *
 * Between two events all promises that the first one resolved have run their course. Node does so between two callbacks of one batch of
 * setImmediate, and that is the cheapest way that is right: 0.1 us over what the awaits cost by themselves, where an immediate at a time
 * costs 4 us (a turn of the event loop each) and a fixed number of awaits costs 0.4 us and is wrong for longer chains. Events that woke
 * nobody (`touched` unset) follow one another without even that.
 */
const BATCH = 128;

export interface Timer { readonly at: number; cancelled: boolean }

interface Entry extends Timer { seq: number; run: () => void }

const before = (a: Entry, b: Entry): boolean => a.at < b.at || (a.at === b.at && a.seq < b.seq);

export class Timeline {
  nowMs = 0;
  events = 0;
  private readonly heap: Entry[] = [];
  private seq = 0;
  private touched = false;
  private halted = false;

  after(delayMs: number, run: () => void): Timer {
    const entry: Entry = {at: this.nowMs + (delayMs > 0 ? delayMs : 0), seq: this.seq++, run, cancelled: false};
    this.push(entry);
    return entry;
  }

  /** Some code that awaits has been woken: it runs before the next event. */
  touch(): void {
    this.touched = true;
  }

  /** `run` ends where it is. */
  halt(): void {
    this.halted = true;
  }

  /** Resolves when the moment is reached or the world was halted; rejects with whatever an event threw. */
  run(untilMs: number): Promise<void> {
    this.halted = false;
    return new Promise((resolve, reject) => {
      let over = false;
      let left = 0;
      const batch = (): void => {
        left = BATCH;
        for (let i = 0; i < BATCH; i += 1) setImmediate(step);
      };
      const step = (): void => {
        left -= 1;
        if (over) return;
        try {
          if (!this.advance(untilMs)) {
            over = true;
            return resolve();
          }
        } catch (err) {
          over = true;
          return reject(err as Error);
        }
        if (left === 0) batch();
      };
      batch();
    });
  }

  /** Events up to one that woke somebody; false: nothing is left to do. */
  private advance(untilMs: number): boolean {
    this.touched = false;
    while (!this.touched) {
      if (this.halted) return false;
      const next = this.heap[0];
      if (!next || next.at > untilMs) {
        this.nowMs = untilMs;
        return false;
      }
      this.pop();
      if (next.cancelled) continue;
      this.nowMs = next.at;
      this.events += 1;
      next.run();
    }
    return true;
  }

  private push(entry: Entry): void {
    const heap = this.heap;
    let i = heap.length;
    heap.push(entry);
    while (i > 0) {
      const up = (i - 1) >> 1;
      if (!before(entry, heap[up]!)) break;
      heap[i] = heap[up]!;
      i = up;
    }
    heap[i] = entry;
  }

  private pop(): void {
    const heap = this.heap;
    const last = heap.pop()!;
    const size = heap.length;
    if (size === 0) return;
    let i = 0;
    for (;;) {
      let child = 2 * i + 1;
      if (child >= size) break;
      if (child + 1 < size && before(heap[child + 1]!, heap[child]!)) child += 1;
      if (!before(heap[child]!, last)) break;
      heap[i] = heap[child]!;
      i = child;
    }
    heap[i] = last;
  }
}
