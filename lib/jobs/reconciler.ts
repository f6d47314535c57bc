/**
 * Starts what nobody asks for in person: removes containers that ended and were to be removed, finishes removals that were left, starts
 * what a restart policy wants back after a reboot, and gives back leases whose container is gone. The hint (change feed, the report path)
 * and the timer run the same code; being called twice is harmless.
 */
import {repeat} from '../base/background';
import {systemClock, type Clock} from '../base/clock';
import {isCetusError} from '../base/errors';
import type {Log} from '../base/log';
import {and, eq, or} from '../moray/filter';
import type {Moray} from '../moray/moray';
import {BUCKETS} from '../schema/buckets';
import {targets, type DestroyParams, type StartParams} from '../schema/chains';
import type {Container} from '../schema/container';
import type {Lock} from '../schema/job';
import type {AddressLease, PortLease} from '../schema/objects';
import type {Workflow} from '../workflow/chain';

export interface ReconcilerOptions {
  moray: Moray;
  workflow: Workflow;
  log: Log;
  clock?: Clock;
  /** Default 30 s: what the feed did not tell is found so late. */
  sweepMs?: number;
}

export interface Reconciler {
  start(): Promise<void>;
  stop(): Promise<void>;
  /** Call it with every container that changed (the report path does, to save the feed's delay). Never throws. */
  containerChanged(container: Container): void;
  /** One pass over everything; resolves when the removals it began are over. */
  sweep(): Promise<void>;
}

const CONTAINERS = BUCKETS.containers.name;
const DUE = and(eq('autoRemove', true), or(eq('status', 'exited'), eq('status', 'created')));
const COMEBACK = eq('wantsStart', true);
const PARALLEL = 16;
const SWEEP_MS = 30_000;
const WATCH_AGAIN_MS = 1_000;

export function createReconciler(options: ReconcilerOptions): Reconciler {
  return new Sweeper(options);
}

class Sweeper implements Reconciler {
  private readonly clock: Clock;
  private readonly stopping = new AbortController();
  private readonly removing = new Map<string, Promise<void>>();
  private readonly starting = new Map<string, Promise<void>>();
  private loops: Promise<void>[] = [];
  private suspects = new Set<string>();

  constructor(private readonly options: ReconcilerOptions) {
    this.clock = options.clock ?? systemClock;
  }

  async start(): Promise<void> {
    await this.options.moray.open(BUCKETS.containers, BUCKETS.addresses, BUCKETS.ports, BUCKETS.locks);
    const {clock, stopping: {signal}, options: {log}} = this;
    const watch = (filter: string): Promise<void> => repeat({
      clock, signal, pauseMs: WATCH_AGAIN_MS, work: () => this.watch(filter), failed: (err) => log.warn({err}, 'the feed of containers broke; watching again'),
    });
    const sweep = repeat({
      clock, signal, pauseMs: this.options.sweepMs ?? SWEEP_MS, work: () => this.sweep(),
      failed: (err) => log.warn({err}, 'a pass over ended containers failed; trying again later'),
    });
    this.loops = [watch(DUE), watch(COMEBACK), sweep];
  }

  async stop(): Promise<void> {
    this.stopping.abort(new Error('the reconciler stops'));
    await Promise.all(this.loops);
    await Promise.allSettled([...this.removing.values(), ...this.starting.values()]);
  }

  containerChanged(container: Container): void {
    if (isDue(container)) this.remove(container);
    if (comesBack(container)) this.startAgain(container);
  }

  async sweep(): Promise<void> {
    for await (const row of this.options.moray.find<Container>(CONTAINERS, DUE)) {
      if (isDue(row.value)) this.remove(row.value);
      // Memory stays bounded whatever the number: the next ones wait for these.
      if (this.removing.size >= PARALLEL) await Promise.race([...this.removing.values()]);
    }
    for await (const row of this.options.moray.find<Container>(CONTAINERS, eq('status', 'removing'))) {
      // Somebody's removal is under way while its lock stands; one that stands for ever is a stuck job's, and the operator's.
      if (!(await this.options.moray.peek<Lock>(BUCKETS.locks.name, targets.container(row.key)))) this.remove(row.value);
      if (this.removing.size >= PARALLEL) await Promise.race([...this.removing.values()]);
    }
    await Promise.all([...this.removing.values()]);
    await this.sweepLeases();
    for await (const row of this.options.moray.find<Container>(CONTAINERS, COMEBACK)) {
      if (comesBack(row.value)) this.startAgain(row.value);
      if (this.starting.size >= PARALLEL) await Promise.race([...this.starting.values()]);
    }
    await Promise.all([...this.starting.values()]);
  }

  /** Leases of containers that do not exist, seen in two passes running. */
  private async sweepLeases(): Promise<void> {
    const {moray, log} = this.options;
    const still = new Set<string>();
    for (const bucket of [BUCKETS.addresses.name, BUCKETS.ports.name]) {
      for await (const row of moray.find<AddressLease | PortLease>(bucket, '(containerId=*)')) {
        if (await moray.peek<Container>(CONTAINERS, row.value.containerId)) continue;
        const suspect = `${bucket}/${row.key}/${row.etag}`;
        if (!this.suspects.has(suspect)) {
          still.add(suspect);
          continue;
        }
        log.warn({bucket, key: row.key, containerId: row.value.containerId}, 'a lease of a container that is gone is given back');
        await moray.delete(bucket, row.key, {etag: row.etag}).catch((err: unknown) => {
          if (!isCetusError(err, 'etagConflict') && !isCetusError(err, 'notFound')) throw err;
        });
      }
    }
    this.suspects = still;
  }

  private remove(container: Container): void {
    if (this.removing.has(container.id) || this.stopping.signal.aborted) return;
    const params: DestroyParams = {containerId: container.id, force: false, removeVolumes: true};
    const work = this.options.workflow.run({workflow: 'container.destroy', account: container.account, params, requestId: `auto-remove-${container.id.slice(0, 12)}`})
      .then(() => undefined, (err: unknown) => {
        // Gone already, started again, or held by somebody: all of it somebody else's decision. The next pass looks again.
        if (!isCetusError(err, 'notFound') && !isCetusError(err, 'conflict')) this.options.log.warn({err, containerId: container.id}, 'removing a container failed; trying again later');
      })
      .finally(() => this.removing.delete(container.id));
    this.removing.set(container.id, work);
  }

  /** As a person would: with addresses and ports of its own, held anew. */
  private startAgain(container: Container): void {
    if (this.starting.has(container.id) || this.stopping.signal.aborted) return;
    const params: StartParams = {containerId: container.id};
    const work = this.options.workflow.run({workflow: 'container.start', account: container.account, params, requestId: `comeback-${container.id.slice(0, 12)}`})
      .then(() => undefined, (err: unknown) => {
        if (!isCetusError(err, 'notFound') && !isCetusError(err, 'conflict') && !isCetusError(err, 'notModified'))
          this.options.log.warn({err, containerId: container.id}, 'a container that its policy wants back could not be started');
      })
      .finally(() => this.starting.delete(container.id));
    this.starting.set(container.id, work);
  }

  private async watch(filter: string): Promise<void> {
    for await (const change of await this.options.moray.watch<Container>(CONTAINERS, filter, {signal: this.stopping.signal}))
      if (change.kind === 'put') this.containerChanged(change.value);
  }
}

/** One that waits for its first start stays; one whose start failed goes, as the Engine removes it. */
function isDue(container: Container): boolean {
  if (!container.autoRemove || container.provisioning) return false;
  return container.status === 'exited' || (container.status === 'created' && container.observation.error !== '');
}

function comesBack(container: Container): boolean {
  return container.status === 'exited' && container.observation.wantsStart === true;
}
