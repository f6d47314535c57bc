/** A process's own time, and messages between processes: what comes to a stopped one comes when it goes on, to a dead one never. */
import {CetusError} from '../../../lib/base/errors';
import type {Clock} from '../../../lib/base/clock';
import type {Life} from '../manatee/life';
import type {Random} from '../manatee/random';
import type {Timeline} from '../manatee/timeline';

/** Quartz of one machine: it has its own speed, and nobody else's idea of when it began. */
export interface Quartz { rate: number; offsetMs: number }

export class ProcessClock implements Clock {
  private lastNs = 0n;

  constructor(private readonly life: Life, private readonly quartz: Quartz) {}

  now(): number {
    return this.quartz.offsetMs + this.life.timeline.nowMs * this.quartz.rate;
  }

  nowNs(): bigint {
    const ns = BigInt(Math.floor(this.now() * 1e6));
    this.lastNs = ns > this.lastNs ? ns : this.lastNs + 1n;
    return this.lastNs;
  }

  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(signal.reason as Error);
      const onAbort = (): void => {
        over = true;
        reject(signal!.reason as Error);
      };
      let over = false;
      this.life.after(ms / this.quartz.rate, () => {
        if (over) return;
        signal?.removeEventListener('abort', onAbort);
        resolve();
      });
      signal?.addEventListener('abort', onAbort, {once: true});
    });
  }
}

/** Which ways are cut, each for itself, and how long things take. */
export class Ways {
  private readonly cuts = new Map<string, number>();

  constructor(readonly timeline: Timeline, private readonly random: Random) {}

  cut(from: string, to: string): () => void {
    const way = `${from}>${to}`;
    this.cuts.set(way, (this.cuts.get(way) ?? 0) + 1);
    return () => void this.cuts.set(way, this.cuts.get(way)! - 1);
  }

  isOpen(from: string, to: string): boolean {
    return (this.cuts.get(`${from}>${to}`) ?? 0) === 0;
  }

  /** Mostly a few ms; now and then a message is held up for seconds, and comes all the same. */
  delayMs(): number {
    return this.random.chance(0.01) ? this.random.between(500, 15_000) : this.random.latency(3);
  }

  /** Lost where the way is cut when it leaves, or when it would arrive. */
  send(from: string, to: string, arrive: () => void): void {
    if (!this.isOpen(from, to)) return;
    this.timeline.after(this.delayMs(), () => {
      if (this.isOpen(from, to)) arrive();
    });
  }
}

export interface Party { name: string; life: Life }

/** A question and its answer; `unavailable` after `timeoutMs` of the asker's patience, whatever becomes of the question. */
export function ask<T>(ways: Ways, from: Party, to: Party, timeoutMs: number, answer: () => Promise<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    let over = false;
    const end = (settle: () => void): void => {
      if (over) return;
      over = true;
      settle();
    };
    from.life.after(timeoutMs, () => end(() => reject(new CetusError('unavailable', `${to.name} did not answer`))));
    const back = (settle: () => void): void => ways.send(to.name, from.name, () => from.life.deliver(() => end(settle)));
    ways.send(from.name, to.name, () => to.life.deliver(() => {
      answer().then((value) => back(() => resolve(value)), (err: Error) => back(() => reject(err)));
    }));
  });
}
