/**
 * Applies agents' reports to the store. Per container in order, different containers in parallel; what a container's pending reports change is
 * one batch: the container (on its etag), the leases it lets go, the events; events alone share one with those of other containers. A repeated report changes nothing: state goes by generation, and
 * an event's key is made from the report. Called by the listener; the hooks are for waiters and auto-remove in this process.
 */
import {type Clock} from '../base/clock';
import {asCetusError, CetusError, isCetusError} from '../base/errors';
import type {Log} from '../base/log';
import {retry} from '../base/retry';
import type {BatchOp, Moray} from '../moray/moray';
import type {Report, ReportBatch} from '../schema/agent';
import {BUCKETS} from '../schema/buckets';
import type {Container} from '../schema/container';
import type {Exec} from '../schema/objects';
import {EventWriter} from './event-writer';
import {containerEvent, disconnectEvents, nsOf, putEvent, reportedEvent, volumeEvents} from './events';
import {applyObservation, holdsNothing, letsGo, releaseLeases} from './observe';
import type {OutstandingTransitions} from './outstanding';

type ContainerReport = Extract<Report, {kind: 'container'}>;
type ExecReport = Extract<Report, {kind: 'exec'}>;

export interface ContainerChange { container: Container; /** what was reported, oldest first */ actions: ContainerReport['action'][] }
export type ContainerListener = (change: ContainerChange) => void;

/** Batches under way at once, over all nodes: the store's pool serves requests too. */
const PARALLEL = 16;
const TRIES = 20;

/** A container's reports that wait for the batch before them. */
interface Lane { pending: Entry[]; busy: boolean }
interface Entry { nodeId: string; report: Report; done(err?: CetusError): void }

export class ReportApplier {
  private readonly lanes = new Map<string, Lane>();
  private readonly listeners = new Set<ContainerListener>();
  private readonly waiting: (() => void)[] = [];
  private readonly events: EventWriter;
  private running = 0;

  constructor(private readonly services: {moray: Moray; log: Log; clock: Clock; outstanding: OutstandingTransitions}) {
    this.events = new EventWriter(services.moray);
  }

  onContainerChange(listener: ContainerListener): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  /** Resolves to the highest seq up to which everything is durable; throws where not even the first report is. */
  async apply(batch: ReportBatch): Promise<{ackedSeq: number}> {
    const reports = [...batch.reports].sort((a, b) => a.seq - b.seq);
    const errors = await Promise.all(reports.map(report => this.enqueue(batch.nodeId, report)));
    const failed = errors.findIndex(err => err !== undefined);
    if (failed === 0) throw errors[0]!;
    const last = reports[failed < 0 ? reports.length - 1 : failed - 1];
    return {ackedSeq: last?.seq ?? 0};
  }

  private enqueue(nodeId: string, report: Report): Promise<CetusError | undefined> {
    const key = report.kind === 'container' ? report.observation.containerId : `exec/${report.execId}`;
    return new Promise(resolve => {
      let lane = this.lanes.get(key);
      if (!lane) this.lanes.set(key, lane = {pending: [], busy: false});
      lane.pending.push({nodeId, report, done: resolve});
      if (!lane.busy) void this.drain(key, lane);
    });
  }

  private async drain(key: string, lane: Lane): Promise<void> {
    lane.busy = true;
    // Reports that arrived in one request, and those that come while a batch is under way, share the next batch.
    await Promise.resolve();
    while (lane.pending.length) {
      const entries = lane.pending.splice(0);
      const outcome = await this.limited(() => this.settle(key, entries));
      for (const entry of entries) entry.done(outcome);
    }
    lane.busy = false;
    this.lanes.delete(key);
  }

  /** undefined: durable, or given up for good. An error: the agent must send it again. */
  private async settle(key: string, entries: Entry[]): Promise<CetusError | undefined> {
    try {
      await retry({
        tries: TRIES, firstDelayMs: 1, maxDelayMs: 50, clock: this.services.clock, retryable: err => isCetusError(err, 'etagConflict'),
      }, attempt => entries[0]!.report.kind === 'exec' ? this.applyExec(entries) : this.applyContainer(key, entries, attempt));
      return undefined;
    } catch (err) {
      const error = asCetusError(err, `apply reports of ${key}`);
      if (error.kind === 'unavailable' || error.kind === 'timeout' || error.kind === 'etagConflict') return error;
      // One report that the store refuses for ever must not dam up all that the node has to say.
      this.services.log.error({err: error, key, reports: entries.map(e => e.report)}, 'a report is refused by the store and dropped');
      return undefined;
    }
  }

  private async applyContainer(containerId: string, entries: Entry[], attempt: number): Promise<void> {
    const {moray, log, outstanding} = this.services;
    const stored = await moray.peek<Container>(BUCKETS.containers.name, containerId);
    if (!stored) {
      log.info({containerId, actions: entries.map(e => (e.report as ContainerReport).action)}, 'reports of a container that is gone are dropped');
      return;
    }
    const events: BatchOp[] = [];
    const actions: ContainerReport['action'][] = [];
    let after = stored.value;
    let released = false;
    for (const {nodeId, report} of entries as (Entry & {report: ContainerReport})[]) {
      // A container that moved: what its former node still has to tell is history, not state, and its generations are not comparable.
      const newer = nodeId === stored.value.nodeId ? applyObservation(after, report.observation) : undefined;
      const origin = `${nodeId}-${report.seq}`;
      if (report.action !== 'comeback') events.push(putEvent(reportedEvent(stored.value, report), origin));
      events.push(...volumeEvents(after, report).map((event, i) => putEvent(event, `${origin}-v${i}`)));
      const lets = newer !== undefined && letsGo(after, report.observation);
      released ||= lets;
      if (lets)
        events.push(...disconnectEvents(after, nsOf(report.at)).map((event, i) => putEvent(event, `${origin}-${i + 1}`)));
      if (newer) after = newer;
      actions.push(report.action);
    }
    const changed = after !== stored.value;
    // Events alone where a job of this process is about to write this very state.
    const leave = changed && !holdsNothing(after.observation) && await outstanding.leaves(containerId, after.observation.generation);
    const state: BatchOp[] = changed && !leave
      ? [{op: 'put', bucket: BUCKETS.containers.name, key: containerId, value: after, etag: stored.etag}, ...(released ? releaseLeases(containerId) : [])]
      : [];
    if (state.length) await this.commit([...state, ...events], events);
    else await this.events.write(events);
    // On a later attempt the conflict may have been with our own write, whose answer was lost: nothing is left to write, and nobody was told yet.
    if (changed && !leave || attempt > 1) this.announce({container: after, actions});
  }

  private async applyExec(entries: Entry[]): Promise<void> {
    const {moray, log} = this.services;
    const {nodeId, report} = entries[0] as Entry & {report: ExecReport};
    const [exec, container] = await Promise.all([
      moray.peek<Exec>(BUCKETS.execs.name, report.execId), moray.peek<Container>(BUCKETS.containers.name, report.containerId),
    ]);
    if (!exec || !container) {
      log.info({execId: report.execId, containerId: report.containerId}, 'a report of an exec that is gone is dropped');
      return;
    }
    const event = putEvent(containerEvent(container.value, 'exec_die', {execID: report.execId, exitCode: String(report.exitCode)}, nsOf(report.at)), `${nodeId}-${report.seq}`);
    const after: Exec = {...exec.value, running: false, exitCode: report.exitCode, pid: 0};
    await this.commit([{op: 'put', bucket: BUCKETS.execs.name, key: report.execId, value: after, etag: exec.etag}, event], [event]);
  }

  /**
   * Of several reports some may be known and others new: an acknowledgement that was lost, then a
   * repetition with more behind it; then the known events are left out and the batch is tried again.
   */
  private async commit(ops: BatchOp[], events: BatchOp[]): Promise<void> {
    const known = new Set<string>();
    for (;;) {
      const fresh = ops.filter(op => !(op.op === 'put' && op.bucket === BUCKETS.events.name && known.has(op.key)));
      if (fresh.length === 0) return;
      try {
        await this.services.moray.batch(fresh);
        return;
      } catch (err) {
        if (!isCetusError(err, 'etagConflict') || err.info['bucket'] !== BUCKETS.events.name || known.size >= events.length) throw err;
        known.add(String(err.info['key']));
      }
    }
  }

  private announce(change: ContainerChange): void {
    for (const listener of this.listeners) {
      try {
        listener(change);
      } catch (err) {
        this.services.log.error({err, containerId: change.container.id}, 'a listener to container changes failed');
      }
    }
  }

  private async limited<T>(work: () => Promise<T>): Promise<T> {
    if (this.running >= PARALLEL) await new Promise<void>(go => this.waiting.push(go));
    else this.running += 1;
    try {
      return await work();
    } finally {
      const next = this.waiting.shift();
      if (next) next();
      else this.running -= 1;
    }
  }
}
