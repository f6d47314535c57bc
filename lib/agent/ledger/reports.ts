/**
 * Reports on their way to the control plane: an append-only file of JSON lines, kept until acknowledged, posted in order.
 *
 * Guarantees: a report is on disk before `container` or `exec` returns (in memory while the disk takes nothing, see lines.ts); seq rises by one for ever, also over restarts; nothing is forgotten
 * before it is acknowledged; the first post leaves in the same tick. A line torn by a power cut is dropped. If the control plane has
 * acknowledged more than we ever wrote (our disk lost its last writes), what we have is numbered anew behind that, never swallowed.
 */
import {type Clock, formatNs} from '../../base/clock';
import type {Log} from '../../base/log';
import type {Report, ReportAction} from '../../schema/agent';
import type {ContainerObservation} from '../../schema/container';
import type {ReportSink} from '../parts';
import {JsonLines} from './lines';

const BATCH = 500;
const FIRST_DELAY_MS = 50;
const MAX_DELAY_MS = 1_000;
/** Rewritten when acknowledged lines make up so much. */
const COMPACT_BYTES = 1024 * 1024;

type Line = Report | {acked: number; seq: number};

export interface Reporter { nodeId(): string; bootGeneration(): number }

export class ReportLedger {
  private pending: Report[] = [];
  private seq = 0;
  private acked = 0;
  private readonly file: JsonLines<Line>;
  private sink: ReportSink | undefined;
  private posting: Promise<void> | undefined;
  private readonly stop = new AbortController();
  private idleWaiters: (() => void)[] = [];

  constructor(path: string, private readonly clock: Clock, private readonly log: Log, private readonly reporter: Reporter) {
    this.file = new JsonLines<Line>(path, (line) => {
      this.seq = Math.max(this.seq, line.seq);
      if ('acked' in line) this.acked = Math.max(this.acked, line.acked);
      else this.pending.push(line);
    }, (err) => log.error({err}, 'the disk takes no reports: they wait in memory'));
    this.pending = this.pending.filter((report) => report.seq > this.acked).sort((a, b) => a.seq - b.seq);
    this.compact();
  }

  get lastSeq(): number {
    return this.seq;
  }

  get waiting(): readonly Report[] {
    return this.pending;
  }

  container(action: ReportAction, attributes: Record<string, string>, observation: ContainerObservation): void {
    this.append({kind: 'container', action, attributes, observation, seq: this.seq + 1, at: formatNs(this.clock.nowNs())});
  }

  exec(execId: string, containerId: string, exitCode: number): void {
    this.append({kind: 'exec', execId, containerId, exitCode, seq: this.seq + 1, at: formatNs(this.clock.nowNs())});
  }

  /** From now on reports leave; what was kept from earlier lives leaves first. */
  begin(sink: ReportSink): void {
    this.sink = sink;
    this.post();
  }

  /** Resolves when everything is acknowledged. */
  settled(): Promise<void> {
    return this.pending.length === 0 ? Promise.resolve() : new Promise((resolve) => this.idleWaiters.push(resolve));
  }

  async close(): Promise<void> {
    this.stop.abort(new Error('closed'));
    await this.posting;
    this.file.close();
  }

  private append(report: Report): void {
    this.seq = report.seq;
    this.pending.push(report);
    this.file.append(report);
    this.post();
  }

  private post(): void {
    if (this.posting || !this.sink || this.pending.length === 0 || this.stop.signal.aborted) return;
    this.posting = this.postAll(this.sink).finally(() => {
      this.posting = undefined;
      this.post();
    });
  }

  private async postAll(sink: ReportSink): Promise<void> {
    let delayMs = FIRST_DELAY_MS;
    while (this.pending.length && !this.stop.signal.aborted) {
      const reports = this.pending.slice(0, BATCH);
      try {
        const {ackedSeq} = await sink.reports({nodeId: this.reporter.nodeId(), bootGeneration: this.reporter.bootGeneration(), reports});
        this.acknowledge(ackedSeq);
        delayMs = FIRST_DELAY_MS;
      } catch (err) {
        this.log.warn({err, waiting: this.pending.length}, 'reports could not be delivered; trying again');
        await this.clock.sleep(delayMs, this.stop.signal).catch(() => undefined);
        delayMs = Math.min(delayMs * 2, MAX_DELAY_MS);
      }
    }
  }

  private acknowledge(ackedSeq: number): void {
    if (ackedSeq > this.seq) {
      this.log.warn({ackedSeq, seq: this.seq}, 'the control plane knows later reports of this node than its own disk: numbering on behind them');
      this.pending = this.pending.map((report, i) => ({...report, seq: ackedSeq + 1 + i}));
      this.seq = ackedSeq + this.pending.length;
      this.acked = ackedSeq;
      this.rewrite();
      return;
    }
    if (ackedSeq <= this.acked) throw new Error(`reports were taken without being acknowledged (${ackedSeq})`);
    this.acked = ackedSeq;
    let done = 0;
    while (done < this.pending.length && this.pending[done]!.seq <= ackedSeq) done += 1;
    this.pending.splice(0, done);
    this.file.append({acked: ackedSeq, seq: this.seq});
    this.compact();
    if (this.pending.length === 0) for (const resolve of this.idleWaiters.splice(0)) resolve();
  }

  private compact(): void {
    if (this.file.size > COMPACT_BYTES && this.file.size > this.pending.length * 1024) this.rewrite();
  }

  private rewrite(): void {
    this.file.rewrite([{acked: this.acked, seq: this.seq}, ...this.pending]);
  }
}
