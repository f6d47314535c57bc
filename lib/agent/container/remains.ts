/**
 * What a container leaves on the node, taken away behind the answers: after an exit its task and its sandbox, after a removal all of it, after a
 * start that broke off what may run. Guarantees: one clean-up after the other; a removal is tried again until it works or the agent goes;
 * spec.json goes last, so that whoever comes finds what is left to do. Called by the unit.
 */
import {asCetusError} from '../../base/errors';
import type {ContainerSpec} from '../../schema/container';
import type {ContainerLog} from '../logs/log';
import type {NodeParts} from './node-parts';
import {sharesIpc, unmountShm} from './shm';
import {SIGKILL} from './signals';

const UNHEARD_TRIES = 100;
const UNHEARD_PAUSE_MS = 50;
const FIRST_ERASE_DELAY_MS = 100;
const MAX_ERASE_DELAY_MS = 60_000;

export class Remains {
  /** The ended process's, in order: nobody but the next start has to wait for it. Never rejects. */
  cleaning: Promise<void> = Promise.resolve();
  /** After `erase`: resolves when nothing of the container is left on the node, or the agent goes. Never rejects. */
  erased: Promise<void> = Promise.resolve();
  private taskGone = false;

  /** `settled`: what the launcher does behind answers. */
  constructor(
    private readonly parts: NodeParts, private readonly spec: () => ContainerSpec, private readonly settled: () => Promise<void>, private readonly suspended: AbortSignal,
  ) {}

  private get id(): string {
    return this.spec().id;
  }

  /** A start begins: there will be a task again. */
  launching(): void {
    this.taskGone = false;
  }

  cleanUp(log: ContainerLog | undefined, keepSandbox: boolean): void {
    const {runtime, network, store, volumes} = this.parts;
    const spec = this.spec();
    this.cleaning = this.cleaning.then(async () => {
      await Promise.all([
        log?.close('end'),
        runtime.deleteTask(spec.id),
        keepSandbox || spec.networkMode === 'host' ? undefined : network.removeSandbox(spec.id),
      ]);
      if (sharesIpc(spec.hostConfig)) await unmountShm(store.shmPath(spec.id));
      // By policy it comes back at once, and finds what it had.
      if (!keepSandbox) await volumes.release(spec.id);
      this.taskGone = true;
    }).catch((err: unknown) => this.parts.log.error({err, containerId: spec.id}, 'what an ended container leaves could not be taken away; the next start or removal tries again'));
  }

  /** `launched`: there may be a task. */
  erase(log: ContainerLog | undefined, launched: boolean): void {
    this.erased = this.eraseAll(log, launched);
  }

  private async eraseAll(log: ContainerLog | undefined, launched: boolean): Promise<void> {
    const {runtime, network, store, clock, volumes, files} = this.parts;
    for (let delayMs = FIRST_ERASE_DELAY_MS; !this.suspended.aborted; delayMs = Math.min(delayMs * 2, MAX_ERASE_DELAY_MS)) {
      try {
        await Promise.all([this.cleaning, this.settled(), files.drop(this.id), log?.close('end')]);
        if (!this.taskGone && launched) await runtime.deleteTask(this.id);
        await Promise.all([runtime.remove(this.id), network.removeSandbox(this.id), unmountShm(store.shmPath(this.id)), volumes.release(this.id)]);
        store.erase(this.id);
        return;
      } catch (err) {
        this.parts.log.error({err, containerId: this.id, againInMs: delayMs}, 'what is left of a removed container could not be taken away; trying again');
        await clock.sleep(delayMs, this.suspended).catch(() => undefined);
      }
    }
  }

  /**
   * The runtime died under a start, so nobody knows how far it came. What may run must not run on: the next try would meet it, and the
   * failure's clean-up takes the network from under it.
   */
  async endUnheard(): Promise<void> {
    const {runtime, clock, log} = this.parts;
    for (let tries = 1; ; tries += 1) {
      try {
        const {status} = await runtime.state(this.id);
        if (status === 'none') return;
        if (status !== 'stopped') await runtime.kill(this.id, '', SIGKILL, true).catch(ifGone);
        await runtime.deleteTask(this.id);
        return;
      } catch (err) {
        if (tries >= UNHEARD_TRIES) return void log.error({err, containerId: this.id}, 'what a start that broke off left behind could not be ended');
        await clock.sleep(UNHEARD_PAUSE_MS);
      }
    }
  }
}

/** A signal for a process that has just ended has done its work. */
export function ifGone(err: unknown): void {
  const error = asCetusError(err);
  if (error.kind !== 'notFound' && error.kind !== 'conflict') throw error;
}
