/**
 * Joins the control plane, asks what of its containers is still the node's own, then beats a third of the lease apart, for ever. A control plane that has forgotten the node is
 * joined again; one that has fenced this life is joined in the next, once what is marked has been stopped.
 */
import type {Clock} from '../base/clock';
import {asCetusError, type CetusError} from '../base/errors';
import type {Log} from '../base/log';
import type {HeartbeatAnswer} from '../schema/agent';
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
  /** After the join of each life; what it throws is tried again, and nothing marked is started before. */
  assign(): Promise<void>;
  /** By the clock that leases are counted with. */
  leaseClockMs(): number;
  renewed(sentMs: number, answer: HeartbeatAnswer): void;
  /** This life is over: stops what is marked, and begins the next. */
  fenced(): Promise<void>;
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
    let isAssigned = false;
    while (!this.stop.signal.aborted) {
      let waitMs: number;
      try {
        if (!isJoined) {
          const {nodeId} = await this.unlessStopped(sink.join(facts()));
          isJoined = true;
          isAssigned = false;
          this.parts.joined(nodeId);
        }
        if (!isAssigned) {
          await this.unlessStopped(this.parts.assign());
          isAssigned = true;
        }
        const {nodeId, bootGeneration} = facts();
        // Before anything leaves: whatever the way and the endpoint take, the lease is counted from here.
        const sentMs = this.parts.leaseClockMs();
        const answer = await this.unlessStopped(sink.heartbeat({nodeId, bootGeneration, reportSeq: this.parts.reportSeq(), runningContainers: this.parts.running()}));
        this.parts.renewed(sentMs, answer);
        waitMs = Math.max(MIN_BEAT_MS, answer.leaseMs / 3);
        retryMs = RETRY_MS;
      } catch (err) {
        if (this.stop.signal.aborted) return;
        const error = asCetusError(err);
        if (error.kind === 'notFound') isJoined = false;
        if (isFenced(error)) {
          isJoined = false;
          await this.parts.fenced().catch((failure: unknown) => log.error({err: failure}, 'what is marked for rescheduling could not be stopped; trying again'));
        }
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

function isFenced(err: CetusError): boolean {
  return err.kind === 'stale' && err.info['fenced'] === true;
}
