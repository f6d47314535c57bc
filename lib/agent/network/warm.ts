/**
 * Prepared network namespaces: loopback up, first interface pair made, and a socket inside that takes the last commands. Refilled in the background, a moment after use, so that refilling does not compete with
 * the container that is just starting.
 */
import {type Clock} from '../../base/clock';
import type {Log} from '../../base/log';
import {CetusError} from '../../base/errors';
import type {Coprocess} from './coprocess';
import {networkingFailed} from './failures';
import type {Inside, Namespaces} from './inside';
import {type Names, NETNS_DIR} from './names';

export interface WarmNamespace { namespace: string; path: string; hostInterface: string; inside: Inside }

const REFILL_PAUSE_MS = 20;
const REFILL_RETRY_MS = 1_000;

export interface WarmOptions { size: number; names: Names; host: Coprocess; namespaces: Namespaces; clock: Clock; log: Log }

export class WarmNamespaces {
  private readonly ready: WarmNamespace[] = [];
  private readonly stopped = new AbortController();
  private refilling: Promise<void> | undefined;

  constructor(private readonly options: WarmOptions) {}

  async take(): Promise<WarmNamespace> {
    const warm = this.ready.shift();
    void this.refill();
    return warm ?? this.make();
  }

  /** Resolves when the pool is full, or the making failed and will be tried again. */
  refill(pauseMs = REFILL_PAUSE_MS): Promise<void> {
    this.refilling ??= this.fill(pauseMs).finally(() => { this.refilling = undefined; });
    return this.refilling;
  }

  /** Those that nobody uses go. */
  async close(): Promise<void> {
    this.stopped.abort(new CetusError('canceled', 'the pool closes'));
    await this.refilling;
    await Promise.all(this.ready.splice(0).map(warm => this.discard(warm)));
  }

  async discard(warm: WarmNamespace): Promise<void> {
    warm.inside.close();
    await this.remove(warm);
  }

  /** Of one whose socket its taker closes. */
  async remove(warm: {namespace: string; hostInterface: string}): Promise<void> {
    await this.options.host.run([`link set ${warm.hostInterface} down`, `netns del ${warm.namespace}`]);
  }

  private async fill(pauseMs: number): Promise<void> {
    const {clock, log, size} = this.options;
    const {signal} = this.stopped;
    let pause = pauseMs;
    while (this.ready.length < size && !signal.aborted) {
      await clock.sleep(pause, signal).catch(() => undefined);
      if (signal.aborted) return;
      try {
        this.ready.push(await this.make());
        pause = 0;
      } catch (err) {
        log.warn({err}, 'a network namespace could not be prepared; it is tried again');
        pause = REFILL_RETRY_MS;
      }
    }
  }

  private async make(): Promise<WarmNamespace> {
    const {names, host, namespaces} = this.options;
    const {namespace, hostInterface} = names.next();
    const added = await host.run([`netns add ${namespace}`]);
    if (added) throw networkingFailed(`make network namespace ${namespace}: ${added.trim()}`);
    const path = `${NETNS_DIR}/${namespace}`;
    let inside: Inside | undefined;
    try {
      inside = namespaces.open(path);
      await inside.run([{do: 'set', name: 'lo'}, {do: 'pair', name: 'eth0', peer: hostInterface}]);
      return {namespace, path, hostInterface, inside};
    } catch (err) {
      inside?.close();
      await this.remove({namespace, hostInterface});
      throw err;
    }
  }
}
