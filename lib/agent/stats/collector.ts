/**
 * One sampler for each container that somebody watches, shared by all who do: a second client costs its own bytes and no reading. A sampler
 * measures when its first watcher comes and once a second from then on, as the Engine; without watchers nothing is measured. A container that does
 * not run gives `undefined`, one that is started again gives samples again, one that is removed ends the watching.
 */
import {type Clock, formatNs} from '../../base/clock';
import type {Meter} from './meter';
import type {Sample} from './sample';

const INTERVAL_MS = 1_000;

/** What the collector knows of a container: undefined once it is gone. */
export interface Watched { id: string; running: boolean; pid: number; /** Its interfaces are its own to count. */ ownNetwork: boolean }

class Sampler {
  watchers = 0;
  /** Of the last round; undefined where it did not run. */
  latest: Sample | undefined;
  gone = false;
  private waiting: (() => void)[] = [];
  private readonly stopped = new AbortController();

  constructor(private readonly look: () => Watched | undefined, private readonly meter: Meter, private readonly clock: Clock) {
    this.round();
    void this.tick();
  }

  stop(): void {
    this.stopped.abort();
  }

  /** Resolves with the next round, or when the signal is aborted. */
  next(signal: AbortSignal): Promise<void> {
    if (signal.aborted || this.gone) return Promise.resolve();
    return new Promise((resolve) => {
      const done = (): void => {
        signal.removeEventListener('abort', left);
        resolve();
      };
      const left = (): void => {
        this.waiting = this.waiting.filter((waiter) => waiter !== done);
        resolve();
      };
      signal.addEventListener('abort', left, {once: true});
      this.waiting.push(done);
    });
  }

  private async tick(): Promise<void> {
    const {signal} = this.stopped;
    while (!this.gone && await this.clock.sleep(INTERVAL_MS, signal).then(() => true, () => false)) this.round();
  }

  private round(): void {
    const watched = this.look();
    this.gone = watched === undefined;
    const measured = watched?.running ? this.meter.container(watched.id, watched.pid, watched.ownNetwork) : undefined;
    this.latest = measured && {...measured, machine: this.meter.machine(), read: formatNs(this.clock.nowNs())};
    for (const wake of this.waiting.splice(0)) wake();
  }
}

export class StatsCollector {
  private readonly samplers = new Map<string, Sampler>();

  constructor(private readonly parts: {meter: Meter; clock: Clock; look(id: string): Watched | undefined}) {}

  /** Containers that are measured now. */
  get active(): number {
    return this.samplers.size;
  }

  /** Samples from now on, once a second, until the container is gone or the signal is aborted; the first at once. A slow reader misses rounds. */
  async *samples(id: string, signal: AbortSignal): AsyncGenerator<Sample | undefined> {
    const {meter, clock, look} = this.parts;
    let sampler = this.samplers.get(id);
    if (!sampler || sampler.gone) this.samplers.set(id, (sampler = new Sampler(() => look(id), meter, clock)));
    sampler.watchers += 1;
    try {
      while (!signal.aborted && !sampler.gone) {
        yield sampler.latest;
        await sampler.next(signal);
      }
    } finally {
      sampler.watchers -= 1;
      if (sampler.watchers === 0) {
        sampler.stop();
        if (this.samplers.get(id) === sampler) this.samplers.delete(id);
      }
    }
  }
}
