/** Joins the control plane, then beats a third of the lease apart, for ever. A control plane that has forgotten the node is joined again. */
import type {Clock} from '../base/clock';
import {asCetusError} from '../base/errors';
import type {Log} from '../base/log';
import type {NodeFacts} from '../schema/node';
import type {ReportSink} from './parts';

const RETRY_MS = 250;
const MAX_RETRY_MS = 2_000;
const MIN_BEAT_MS = 100;

export interface HeartbeatParts {
  sink: ReportSink;
  clock: Clock;
  log: Log;
  facts(): NodeFacts;
  reportSeq(): number;
  running(): number;
  joined(nodeId: string): void;
}

export class HeartbeatLoop {
  private readonly stop = new AbortController();
  private loop: Promise<void> | undefined;

  constructor(private readonly parts: HeartbeatParts) {}

  begin(): void {
    this.loop ??= this.run();
  }

  async close(): Promise<void> {
    this.stop.abort(new Error('closed'));
    await this.loop;
  }

  private async run(): Promise<void> {
    const {sink, clock, log, facts} = this.parts;
    let retryMs = RETRY_MS;
    let isJoined = false;
    while (!this.stop.signal.aborted) {
      let waitMs: number;
      try {
        if (!isJoined) {
          const {nodeId} = await this.unlessStopped(sink.join(facts()));
          isJoined = true;
          this.parts.joined(nodeId);
        }
        const {nodeId, bootGeneration} = facts();
        const {leaseMs} = await this.unlessStopped(sink.heartbeat({nodeId, bootGeneration, reportSeq: this.parts.reportSeq(), runningContainers: this.parts.running()}));
        waitMs = Math.max(MIN_BEAT_MS, leaseMs / 3);
        retryMs = RETRY_MS;
      } catch (err) {
        if (this.stop.signal.aborted) return;
        if (asCetusError(err).kind === 'notFound') isJoined = false;
        log.warn({err}, isJoined ? 'a heartbeat was lost' : 'the control plane cannot be joined yet');
        waitMs = retryMs;
        retryMs = Math.min(retryMs * 2, MAX_RETRY_MS);
      }
      await clock.sleep(waitMs, this.stop.signal).catch(() => undefined);
    }
  }

  /** The sink has its own deadline; closing does not wait for it. */
  private unlessStopped<T>(call: Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      const onStop = (): void => reject(this.stop.signal.reason as Error);
      this.stop.signal.addEventListener('abort', onStop, {once: true});
      call.then(resolve, reject).finally(() => this.stop.signal.removeEventListener('abort', onStop));
    });
  }
}
