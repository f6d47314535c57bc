/**
 * One container on this node: asks `decide`, saves, reports, and performs the actions in order. One transition at a time (a lock), released
 * while waiting for an exit, so that the exit itself, a kill, or a second stop can come in between.
 *
 * Refuses: a runtime exit that is not of the process it knows (pids are compared). Called by the supervisor only.
 */
import {formatNs} from '../../base/clock';
import {asCetusError, CetusError, isCetusError, unreachable} from '../../base/errors';
import {type ContainerObservation, type ContainerSpec, renamedIn} from '../../schema/container';
import type {Resources, RestartPolicy} from '../../schema/docker';
import {ContainerLog} from '../logs/log';
import type {LogSource} from '../logs/read';
import {type LogOptions, parseLogOptions} from '../logs/options';
import type {ProcessExit, SnapshotMount} from '../runtime/runtime';
import type {StoredSpec} from '../store';
import {REBOOT_GENERATION_STEP} from '../store';
import {StdioHub} from '../stdio/hub';
import {type ContainerAction, type ContainerEvent, type ContainerView, decide} from './decide';
import {endedMeanwhile} from './ended';
import {ExitWait} from './exit-wait';
import {healthPlan, runProbes} from './health';
import {Launcher} from './launch';
import {Lock} from './lock';
import {type ContainerRecord, type Launch, newRecord} from './record';
import {parseSignal} from './signals';
import type {NodeParts} from './node-parts';
import {ifGone, Remains} from './remains';
import {RecordSaver} from './saving';
import {startFailure, UNHEARD} from './start-failure';

/** How long an ended process's last bytes are waited for: a grandchild may hold the pipe open for ever. The Engine waits as long. */
const DRAIN_MS = 2_000;

export class ContainerUnit {
  readonly id: string;
  record: ContainerRecord;
  hub: StdioHub;
  gone = false;
  private readonly suspended = new AbortController();
  private readonly lock = new Lock();
  private readonly launcher: Launcher;
  private readonly remains: Remains;
  private readonly saver: RecordSaver;
  private readonly exits: ExitWait;
  private logOptions: LogOptions;
  private log: ContainerLog | undefined;
  private restart: AbortController | undefined;
  private probes: AbortController | undefined;
  private startedMs = 0;

  constructor(private readonly parts: NodeParts, public stored: StoredSpec, record?: ContainerRecord) {
    this.id = stored.spec.id;
    this.record = record ?? newRecord(this.id);
    this.logOptions = parseLogOptions(stored.spec.logConfig, stored.spec);
    this.hub = new StdioHub(this.tty, parts.clock);
    this.launcher = new Launcher(parts, () => this.stored, () => this.mustBePermitted());
    this.remains = new Remains(parts, () => this.spec, () => this.launcher.settled(), this.suspended.signal);
    this.saver = new RecordSaver(parts, this.id, () => this.record, () => this.gone || this.suspended.signal.aborted, this.suspended.signal);
    this.exits = new ExitWait(parts, {id: this.id, running: () => this.running, reconcile: () => this.reconcile(), suspended: this.suspended.signal});
    this.startedMs = Date.parse(this.record.observation.startedAt) || 0;
    if (this.record.bootId !== '' && this.record.bootId !== parts.bootId) this.record.observation.generation += REBOOT_GENERATION_STEP;
  }

  /** What an ended process left is being taken away. Never rejects. */
  get cleaning(): Promise<void> {
    return this.remains.cleaning;
  }

  /** Once `gone`: nothing of the container is left on the node, or the agent goes. Never rejects. */
  get erased(): Promise<void> {
    return this.remains.erased;
  }

  get spec(): ContainerSpec {
    return this.stored.spec;
  }

  get tty(): boolean {
    return this.stored.spec.config.Tty === true;
  }

  get observation(): ContainerObservation {
    return this.record.observation;
  }

  get running(): boolean {
    return this.observation.status === 'running' || this.observation.status === 'paused';
  }

  /** As far as the record knows: what it was given for its run is not to be taken away yet. */
  get mayRun(): boolean {
    return this.running || this.observation.status === 'restarting' || Boolean(this.record.launching);
  }

  /** `take` is called between two transitions, with the process's pid or 0; of a container that is gone there are no files. */
  settledAt<T>(take: (pid: number) => T): Promise<T> {
    return this.lock.hold(async () => {
      this.mustBeThere();
      return take(this.running ? this.observation.pid : 0);
    });
  }

  logSource(): LogSource {
    if (!this.logOptions.cached) throw new CetusError('notImplemented', 'configured logging driver does not support reading');
    return {path: this.parts.store.logPath(this.id), maxFiles: this.logOptions.maxFiles, writer: this.log?.writer};
  }

  /** Bytes of lines that are still open: a replay ends with them. */
  openLine(stream: 1 | 2): Buffer {
    return this.log?.openLine(stream) ?? Buffer.alloc(0);
  }

  /** A hub that can be attached to: the running process's, or the next one's. */
  renewHub(): void {
    if (this.hub.closed) this.hub = new StdioHub(this.tty, this.parts.clock);
  }

  /** First half of `start` that needs nothing of it: done behind create's answer, so that the start finds it ready. */
  prepare(): void {
    this.launcher.prepare();
  }

  rootMounts(): Promise<SnapshotMount[]> {
    return this.launcher.rootMounts();
  }

  /** Nothing is under way on the node for this container beside what it was told to do. Never rejects. */
  async settled(): Promise<void> {
    await Promise.all([this.cleaning, this.erased, this.launcher.settled()]);
  }

  /** Saves the record of a container that has just been created. */
  save(): void {
    this.saver.save();
  }

  /** Resolves after the event's actions; rejects with what `decide` refused or what the runtime answered. */
  async handle(event: ContainerEvent): Promise<ContainerObservation> {
    let release = await this.lock.acquire();
    try {
      await this.apply(event, async (wait) => {
        release();
        try {
          return await wait();
        } finally {
          release = await this.lock.acquire();
        }
      });
      return this.observation;
    } finally {
      release();
    }
  }

  /** A process of this container ended. `exit` may be of a run that is long over. */
  exited(exit: ProcessExit): Promise<void> {
    return this.lock.hold(async () => {
      if (this.gone || !this.running || exit.pid !== this.observation.pid) return;
      // Word of it may be here before an agent that starts has taken up what the process last wrote.
      await this.reattach();
      await this.drain();
      await this.apply({kind: 'exit', exitCode: exit.exitCode, at: exit.exitedAt, ranForMs: this.ranForMs(exit.exitedAt)});
    });
  }

  /** Whether it may be started elsewhere. Known to the guard before it is said to anybody that it is marked, and until nobody can think so. */
  mark(reschedule: boolean): Promise<void> {
    return this.lock.hold(async () => {
      if (reschedule) this.parts.fencing.mark(this.id);
      if (Boolean(this.record.reschedule) !== reschedule) {
        this.record = {...this.record, reschedule};
        this.save();
      }
      if (!reschedule) this.parts.fencing.unmark(this.id);
    });
  }

  /** As mustBePermitted, for an order to start it. */
  async admitted(): Promise<void> {
    if (this.record.reschedule) await this.parts.fencing.admit(this.id);
  }

  /** Of a marked one: `unavailable` without a lease under which it may run. */
  mustBePermitted(): void {
    if (this.record.reschedule) this.parts.fencing.mustPermit(this.id);
  }

  /** Compares what is known with what the runtime has: at the agent's start and after the runtime's. */
  reconcile(): Promise<void> {
    return this.lock.hold(async () => {
      if (this.gone) return;
      // Asked under the lock: an answer from before a start would declare the new process lost.
      const state = await this.parts.runtime.state(this.id);
      const at = formatNs(this.parts.clock.nowNs());
      if (this.record.launching && state.status === 'stopped' && !this.running)
        await this.apply({kind: 'started', pid: state.pid, at: state.exitedAt || at});
      const adopts = state.status === 'running' || state.status === 'paused';
      if (adopts || (state.status === 'stopped' && this.running)) await this.reattach();
      // What the FIFOs still hold is in the log before the exit is saved: whoever finds an exit saved does not look into them again.
      if (state.status === 'stopped' && this.running) await this.drain();
      await this.apply({kind: 'found', task: state, at, ranForMs: this.ranForMs(state.exitedAt || at)});
      await this.cleaning;
    });
  }

  update(task: string, resources: Resources, policy: RestartPolicy | null): Promise<ContainerObservation> {
    return this.lock.hold(async () => {
      const given = Object.fromEntries(Object.entries(resources).filter(([, value]) => value !== undefined && value !== null));
      const hostConfig = {...this.spec.hostConfig, ...given, ...(policy ? {RestartPolicy: policy} : {})};
      const stored = {...this.stored, spec: {...this.spec, hostConfig}};
      if (this.running && Object.keys(given).length)
        // A process that has just ended takes no limits; the next one starts with them.
        await this.parts.runtime.updateResources(this.id, this.parts.specs.resources(hostConfig)).catch((err: unknown) => {
          if (!isCetusError(err, 'notFound')) throw err;
        });
      this.stored = stored;
      this.parts.store.saveSpec(this.id, stored);
      this.launcher.forget();
      await this.apply({kind: 'updated', task});
      return this.observation;
    });
  }

  rename(name: string): Promise<ContainerObservation> {
    return this.lock.hold(async () => {
      const before = this.spec.name;
      this.stored = {...this.stored, spec: {...this.spec, name}};
      this.parts.store.saveSpec(this.id, this.stored);
      const {launch} = this.record;
      if (launch) {
        this.record = {...this.record, launch: {...launch, attachments: renamedIn(launch.attachments, before, name)}};
        this.save();
      }
      await this.parts.network.rename(this.id, before, name);
      return this.observation;
    });
  }

  /** The launch's networks change while it runs. */
  relink(change: (launch: Launch) => Promise<Launch>): Promise<void> {
    return this.lock.hold(async () => {
      if (!this.record.launch || this.observation.status === 'exited' || this.observation.status === 'created') return;
      const launch = await change(this.record.launch);
      this.record = {...this.record, launch};
      this.save();
      await this.launcher.writeNames(launch);
    });
  }

  /** The agent goes; the process, its FIFOs and its open log lines stay. */
  async suspend(): Promise<void> {
    await Promise.all([this.abandon(), this.settled()]);
  }

  /** As suspend, but what is under way is left where it is: a dead agent's calls never come back. */
  async abandon(): Promise<void> {
    this.gone = true;
    this.suspended.abort(new CetusError('canceled', 'the agent closes'));
    this.restart?.abort();
    this.probes?.abort();
    this.hub.suspend();
    await this.log?.close('suspend');
  }

  private view(): ContainerView {
    const {config, hostConfig} = this.spec;
    return {
      record: this.record, name: this.spec.name, policy: hostConfig.RestartPolicy ?? {}, bootId: this.parts.bootId,
      stopSignal: config.StopSignal ? parseSignal(config.StopSignal) : undefined, stopTimeoutSeconds: config.StopTimeout,
      hasHealthcheck: healthPlan(config) !== undefined,
    };
  }

  /** `notFound` is for what was removed: a removal that meets it counts as done. Of an agent that goes nothing follows for the container. */
  mustBeThere(): void {
    this.mustNotClose();
    if (this.gone) throw new CetusError('notFound', `No such container: ${this.id}`);
  }

  private mustNotClose(): void {
    if (this.suspended.signal.aborted) throw new CetusError('unavailable', 'the agent closes');
  }

  private async apply(event: ContainerEvent, unlocked: (<T>(wait: () => Promise<T>) => Promise<T>) = (wait) => wait()): Promise<void> {
    this.mustBeThere();
    const decision = decide(this.view(), event);
    const before = this.record;
    this.record = decision.record;
    if (before !== this.record && (event.kind !== 'health' || event.changed)) this.saveOr(event, before);
    for (const report of decision.reports)
      this.parts.reports.container(report.action, report.attributes, this.observation);
    for (const action of decision.actions) {
      if (action.kind === 'awaitExit') {
        const over = await unlocked(() => this.exits.within(action.withinMs));
        if (!over) this.mustNotClose(); // nobody may be told that a process has ended because we go
        if (over || this.gone) continue;
        if (action.then === 'fail') throw new CetusError('timeout', `tried to kill container ${this.id}, but did not receive an exit event`);
        await this.apply({kind: 'stopTimedOut'}, unlocked);
      } else {
        await this.act(action);
      }
    }
  }

  /**
   * A start that the disk does not take is refused before anything has happened. Everything else has happened, or makes room, whatever the disk
   * says: it holds, is reported, and is written down as soon as that can be done.
   */
  private saveOr(event: ContainerEvent, before: ContainerRecord): void {
    try {
      this.save();
    } catch (err) {
      if (event.kind === 'start') {
        this.record = before;
        throw (err as NodeJS.ErrnoException).code === 'ENOSPC' ? new CetusError('noSpace', `start ${this.id}: no space left on device`, {cause: err}) : err;
      }
      this.saver.saveLater(err);
    }
  }

  private async act(action: Exclude<ContainerAction, {kind: 'awaitExit'}>): Promise<void> {
    const {runtime} = this.parts;
    switch (action.kind) {
      case 'refuse': throw action.error;
      case 'launch': return this.launch(action.launch);
      case 'signal': return runtime.kill(this.id, '', action.signal).catch(ifGone);
      case 'pause':
        await runtime.pause(this.id).catch(endedMeanwhile(this.id));
        return this.apply({kind: 'paused'});
      case 'resume':
        await runtime.resume(this.id).catch(ifGone);
        return this.apply({kind: 'resumed'});
      case 'restartAfter': return this.restartAfter(action.ms);
      case 'cancelRestart':
        this.restart?.abort();
        this.restart = undefined;
        return;
      case 'probes': return action.on ? this.startProbes() : this.probes?.abort();
      case 'cleanUp': return this.cleanUp(action.keepSandbox);
      case 'erase': return this.erase();
      default: return unreachable(action);
    }
  }

  private async launch(launch: Launch): Promise<void> {
    await Promise.all([this.cleaning, this.parts.files.quiet(this.id)]);
    this.renewHub();
    this.remains.launching();
    try {
      this.log = this.openLog();
      await this.log?.open();
      const pid = await this.launcher.launch(launch, this.hub, this.log);
      this.startedMs = this.parts.clock.now();
      await this.apply({kind: 'started', pid, at: formatNs(this.parts.clock.nowNs())});
    } catch (err) {
      if (UNHEARD.has(asCetusError(err).kind)) await this.remains.endUnheard();
      const failure = startFailure(err);
      const byHand = this.observation.status !== 'restarting';
      this.parts.log.warn({err, containerId: this.id}, 'a container could not be started');
      await this.apply({kind: 'startFailed', error: failure.error.shown, exitCode: failure.exitCode, at: formatNs(this.parts.clock.nowNs())});
      await this.cleaning;
      if (byHand) throw failure.error;
    }
  }

  private openLog(): ContainerLog | undefined {
    if (this.logOptions.driver === 'none') return undefined;
    if (this.log && !this.log.closed) return this.log;
    const {store, clock, log} = this.parts;
    return new ContainerLog(this.logOptions, this.spec, {
      path: store.logPath(this.id), clock,
      trouble: (lost) => {
        if ('err' in lost) log.error({err: lost.err, containerId: this.id}, 'the disk takes no log: what the container writes from now on is missing in it');
        else log.error({bytes: lost.bytes, containerId: this.id}, 'the disk takes the log again; so many bytes of output are missing in it');
      },
      delivery: ({err, lost}) => {
        if (err) log.warn({err, containerId: this.id}, 'the syslog server went away; it is looked for again');
        else if (lost === undefined) log.error({containerId: this.id}, 'the syslog server takes no messages: what the container writes from now on is missing there');
        else log.error({messages: lost, containerId: this.id}, 'the syslog server takes messages again; so many are missing there');
      },
    });
  }

  private async reattach(): Promise<void> {
    if (this.hub.connected) return;
    this.renewHub();
    this.log = this.openLog();
    this.log?.openLater();
    try {
      const io = await this.parts.runtime.reattach(this.id, '', {stdin: this.spec.config.OpenStdin === true, terminal: this.tty});
      this.hub.connect(io, this.log);
    } catch (err) {
      this.parts.log.error({err, containerId: this.id}, 'the output of a running container could not be taken up again');
    }
  }

  private async drain(): Promise<void> {
    this.probes?.abort();
    const late = new AbortController();
    await Promise.race([this.hub.ended, this.parts.clock.sleep(DRAIN_MS, late.signal).catch(() => undefined)]);
    late.abort();
  }

  private restartAfter(ms: number): void {
    this.restart?.abort();
    const wait = (this.restart = new AbortController());
    this.parts.clock.sleep(ms, wait.signal)
      .then(() => (this.record.reschedule ? this.parts.fencing.permitted(this.id, wait.signal) : undefined))
      .then(() => (wait.signal.aborted ? undefined : this.handle({kind: 'backoffElapsed'})))
      .catch((err: unknown) => wait.signal.aborted || this.parts.log.error({err, containerId: this.id}, 'a restart by policy failed'));
  }

  private startProbes(): void {
    const plan = healthPlan(this.spec.config);
    if (!plan) return;
    this.probes?.abort();
    const {signal} = (this.probes = new AbortController());
    void runProbes({
      plan, startedMs: this.startedMs || this.parts.clock.now(), clock: this.parts.clock,
      probe: (args, timeoutMs, abort) => this.parts.probe(this, args, timeoutMs, abort),
      state: () => this.observation.health ?? {status: 'starting', failingStreak: 0, log: []},
      result: async (health, changed) => {
        if (!signal.aborted && !this.gone) await this.handle({kind: 'health', health, changed}).catch(() => undefined);
      },
    }, signal);
  }

  private cleanUp(keepSandbox: boolean): void {
    const log = this.letGo();
    if (!this.running) this.exits.wake();
    this.remains.cleanUp(log, keepSandbox);
  }

  /** The process is gone, and `removing` is on disk: for everybody the container is gone now, and what is left of it goes behind the answer. */
  private erase(): void {
    const log = this.letGo();
    this.gone = true;
    if (this.record.reschedule) this.parts.fencing.unmark(this.id);
    this.remains.erase(log, this.record.launch !== null);
  }

  private letGo(): ContainerLog | undefined {
    this.hub.finish();
    this.parts.execsEnded(this.id);
    const {log} = this;
    this.log = undefined;
    return log;
  }

  private ranForMs(at: string): number {
    return this.startedMs ? Math.max(0, Date.parse(at) - this.startedMs) : 0;
  }
}
