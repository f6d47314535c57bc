/** Who waits for the end of a container's process: woken by word of the exit, and, since that may be lost, by looking. One for each unit. */
import type {NodeParts} from './node-parts';

/** How often the runtime is asked for an exit that is waited for. */
const LOOK_AGAIN_MS = 1_000;

interface Watched {
  id: string;
  running(): boolean;
  /** Works off an exit that was found. */
  reconcile(): Promise<void>;
  /** Aborted when the agent goes. */
  suspended: AbortSignal;
}

export class ExitWait {
  private waiters: (() => void)[] = [];

  constructor(private readonly parts: Pick<NodeParts, 'clock' | 'log' | 'runtime'>, private readonly watched: Watched) {}

  /** Whether it ended in that time. */
  within(withinMs: number): Promise<boolean> {
    const {clock} = this.parts;
    if (!this.watched.running()) return Promise.resolve(true);
    return new Promise((resolve) => {
      const late = new AbortController();
      const ended = (): void => {
        late.abort();
        resolve(true);
      };
      this.waiters.push(ended);
      const over = (): void => {
        late.abort();
        this.waiters = this.waiters.filter((waiter) => waiter !== ended);
        resolve(!this.watched.running());
      };
      if (withinMs !== Infinity) clock.sleep(withinMs, late.signal).then(over, () => undefined);
      void this.look(AbortSignal.any([late.signal, this.watched.suspended]));
    });
  }

  /** The exit has been worked off. */
  wake(): void {
    for (const wake of this.waiters.splice(0)) wake();
  }

  /** A runtime that is killed may take the word of an exit with it; what it then says of the state is true. Never rejects. */
  private async look(signal: AbortSignal): Promise<void> {
    const {clock, log, runtime} = this.parts;
    const {id} = this.watched;
    for (;;) {
      const slept = await clock.sleep(LOOK_AGAIN_MS, signal).then(() => true, () => false);
      if (!slept) return;
      const state = await runtime.state(id).catch(() => undefined);
      if (signal.aborted) return;
      if (state?.status !== 'stopped' && state?.status !== 'none') continue;
      await this.watched.reconcile().catch((err: unknown) => log.warn({err, containerId: id}, 'an exit that was found could not be worked off; looking again'));
    }
  }
}
