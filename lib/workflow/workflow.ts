/** The room's front door: accepts jobs, runs them inline or leaves them to any runner, waits for them, and starts and stops this process's runner. */
import {formatNs, OVER, systemClock, type Clock} from '../base/clock';
import {CetusError, fromWire, isCetusError} from '../base/errors';
import {systemIds, type Ids} from '../base/ids';
import type {Log} from '../base/log';
import type {Etag, Moray} from '../moray/moray';
import {BUCKETS} from '../schema/buckets';
import type {Job, Lock} from '../schema/job';
import {busy} from './busy';
import type {Chain, RunRequest, Workflow} from './chain';
import {amend, Claims} from './claims';
import {Execution, type Ending, type ExecutionLimits, type Inline} from './execution';
import {Gates} from './gate';
import {CLAIMABLE, jobEnded, Notices, targetFreed} from './notices';
import {newJob} from './record';
import {Registry, type AnyChain} from './registry';
import {isEnded, must} from './state';

export interface WorkflowOptions {
  moray: Moray;
  chains: readonly AnyChain[];
  services: unknown;
  /** Names this runner in leases. Stable over restarts where `resumeOwn` is wanted. */
  runnerId: string;
  log: Log;
  clock?: Clock;
  ids?: Ids;
  random?(): number;
  /** Default 15 s. */
  leaseMs?: number;
  /** How late a job is found where the change feed does not tell. Default 1 s. */
  pollMs?: number;
  /** At start, claim at once the jobs that this runnerId held: only where no other process can bear the name. Default false. */
  resumeOwn?: boolean;
  /** Default 64. */
  maxClaimed?: number;
  /** How long ended jobs are kept. Default 24 h. */
  retentionMs?: number;
  limits?: Partial<ExecutionLimits>;
}

export interface RunningWorkflow extends Workflow {
  /** Begins to claim others' and queued jobs. `run` works without it. */
  start(): Promise<void>;
  /** Claims no more, lets what runs finish for `graceMs` (default 5 s), then abandons it to its lease's expiry. */
  stop(graceMs?: number): Promise<void>;
}

const LOCKS = BUCKETS.locks.name;
const JOBS = BUCKETS.jobs.name;
const DEFAULT_LOCK_WAIT_MS = 30_000;
const DEFAULT_WAIT_MS = 60_000;
/** Who asked is told of the failure when the way back takes longer than this: what cannot be taken back now may be taken back in an hour. */
const UNWINDING_PATIENCE_MS = 8_000;
const DEFAULT_LIMITS: ExecutionLimits = {undoTries: 6, unansweredUndoTries: 360, replans: 30, undoFirstDelayMs: 200, undoMaxDelayMs: 10_000};

export function createWorkflow(options: WorkflowOptions): RunningWorkflow {
  return new Engine(options);
}

class Engine implements RunningWorkflow {
  private readonly clock: Clock;
  private readonly ids: Ids;
  private readonly registry: Registry;
  private readonly gates: Gates;
  private readonly notices: Notices;
  private readonly claims: Claims;
  private readonly active = new Map<string, Execution>();
  private readonly inline = new Set<Promise<unknown>>();
  private readonly leaseMs: number;
  private readonly pollMs: number;
  private stopped = false;

  constructor(private readonly options: WorkflowOptions) {
    this.clock = options.clock ?? systemClock;
    this.ids = options.ids ?? systemIds;
    this.leaseMs = options.leaseMs ?? 15_000;
    this.pollMs = options.pollMs ?? 1000;
    this.registry = new Registry(options.chains);
    this.gates = new Gates(this.clock);
    this.notices = new Notices(this.clock);
    this.claims = new Claims({
      moray: options.moray, clock: this.clock, random: options.random ?? Math.random, log: options.log, registry: this.registry, notices: this.notices,
      runnerId: options.runnerId, leaseMs: this.leaseMs, pollMs: this.pollMs, resumeOwn: options.resumeOwn ?? false,
      maxClaimed: options.maxClaimed ?? 64, retentionMs: options.retentionMs ?? 24 * 3600_000, retentionSweepMs: 60_000,
      isActive: (id) => this.active.has(id),
      execute: async (job, etag) => void (await this.execute(this.registry.of(job)!, job, etag, {})),
    });
  }

  async start(): Promise<void> {
    await this.options.moray.open(BUCKETS.jobs, BUCKETS.locks);
    this.claims.start();
  }

  async stop(graceMs = 5000): Promise<void> {
    this.stopped = true;
    await this.claims.stop();
    const over = new AbortController();
    const idle = Promise.all([Promise.allSettled([...this.inline]), this.claims.idle()]).then(() => over.abort(OVER));
    await this.clock.sleep(graceMs, over.signal).catch(() => undefined);
    for (const execution of this.active.values()) execution.abandon();
    await idle;
  }

  async run<R = unknown>(request: RunRequest): Promise<R> {
    this.refuseWhenStopped();
    const chain = this.registry.current(request.workflow);
    const job = newJob(request, chain, this.clock, this.ids);
    const ended = new AbortController();
    let early!: (err: CetusError) => void;
    const failed = new Promise<never>((_resolve, reject) => { early = reject; });
    failed.catch(() => undefined);
    let decide!: (result: R) => void;
    const decided = new Promise<R>((resolve) => { decide = resolve; });
    const onUnwinding = (err: CetusError): void => {
      this.clock.sleep(UNWINDING_PATIENCE_MS, ended.signal).then(() => early(failureOf({...job, execution: 'unwinding'}, err, err)), () => undefined);
    };
    const outcome = this.runInline(chain, job, request, {onUnwinding, onDecided: (result) => decide((result ?? null) as R)}).finally(() => {
      ended.abort(OVER);
      this.inline.delete(outcome);
    });
    this.inline.add(outcome);
    // Whatever of it is under way in this process; the signal reaches no further than the request did.
    const withdraw = (): void => this.active.get(job.id)?.cancel();
    request.signal?.addEventListener('abort', withdraw, {once: true});
    void outcome.catch(() => undefined).finally(() => request.signal?.removeEventListener('abort', withdraw));
    const ending = Promise.race([this.within(outcome, request.deadlineMs, job), failed]).then((found) => resultOf<R>(...found));
    ending.catch(() => undefined);
    return await Promise.race([decided, ending]);
  }

  async enqueue(request: RunRequest): Promise<Job> {
    this.refuseWhenStopped();
    const chain = this.registry.current(request.workflow);
    const job = newJob(request, chain, this.clock, this.ids);
    const untilMs = this.clock.now() + (request.lockWaitMs ?? DEFAULT_LOCK_WAIT_MS);
    return this.inLine(job, untilMs, request, async () => {
      const lock: Lock = {target: job.target, jobId: job.id, takenAt: job.createdAt};
      for (;;) {
        try {
          await this.options.moray.batch([
            {op: 'put', bucket: JOBS, key: job.id, value: job, etag: null},
            {op: 'put', bucket: LOCKS, key: job.target, value: lock, etag: null},
          ]);
          this.notices.notify(CLAIMABLE);
          return job;
        } catch (err) {
          if (!isCetusError(err, 'etagConflict') || err.info['bucket'] !== LOCKS) throw err;
          await this.targetFree(job, untilMs, request.signal);
        }
      }
    });
  }

  async wait(jobId: string, deadlineMs = DEFAULT_WAIT_MS): Promise<Job> {
    const untilMs = this.clock.now() + deadlineMs;
    for (;;) {
      // Listening begins before looking, so that no end falls in between.
      const leftMs = untilMs - this.clock.now();
      const look = new AbortController();
      const noticed = this.notices.next(jobEnded(jobId), Math.max(0, Math.min(leftMs, this.pollMs)), look.signal);
      try {
        const job = await this.get(jobId);
        if (isEnded(job)) return job;
        if (leftMs <= 0) throw new CetusError('timeout', `job ${jobId} (${job.workflow} on ${job.target}) is still ${job.execution}`, {info: {jobId}});
        await noticed;
      } finally {
        look.abort(OVER);
      }
    }
  }

  async get(jobId: string): Promise<Job> {
    const stored = await this.options.moray.peek<Job>(JOBS, jobId);
    if (!stored) throw new CetusError('notFound', `no such job: ${jobId}`);
    return stored.value;
  }

  async cancel(jobId: string): Promise<Job> {
    await this.get(jobId);
    const job = await amend(this.options.moray, jobId, (found) => {
      if (isEnded(found)) throw new CetusError('conflict', `job ${jobId} has ended already: ${found.execution}`);
      return found.execution === 'unwinding' || found.cancelRequested ? undefined : {type: 'request-cancel'};
    });
    this.active.get(jobId)?.cancel();
    this.notices.notify(CLAIMABLE);
    return job;
  }

  async retryStuck(jobId: string): Promise<Job> {
    await this.get(jobId);
    const job = await amend(this.options.moray, jobId, (found) => {
      if (found.execution !== 'stuck') throw new CetusError('conflict', `job ${jobId} is not stuck: ${found.execution}`);
      return {type: 'retry-stuck'};
    });
    this.notices.notify(CLAIMABLE);
    return job;
  }

  // ---- inline

  private async runInline(chain: Chain, job: Job, request: RunRequest, hooks: Pick<Inline, 'onUnwinding' | 'onDecided'>): Promise<[Job, CetusError | undefined]> {
    const untilMs = this.clock.now() + (request.lockWaitMs ?? DEFAULT_LOCK_WAIT_MS);
    let waited = false;
    return this.inLine(job, untilMs, request, async (inLine) => {
      waited = inLine;
      for (;;) {
        if (request.signal?.aborted) throw canceledBefore(job);
        const claimed = must(job, {type: 'claim', runner: this.options.runnerId, untilMs: this.clock.now() + this.leaseMs, at: formatNs(this.clock.nowNs())});
        const ending = await this.execute(chain, claimed, null, {secrets: request.secrets, onProgress: request.onProgress?.bind(request), ...hooks});
        if (ending.kind === 'ended') return [ending.job, ending.error];
        if (ending.kind === 'locked') {
          if (!waited) request.onWaiting?.();
          waited = true;
          await this.targetFree(job, untilMs, request.signal);
        } else if (this.stopped) throw new CetusError('unavailable', `this runner stops; job ${job.id} goes on elsewhere`, {info: {jobId: job.id}});
        else return [await this.waitForever(job.id), undefined];
      }
    });
  }

  private async execute(chain: Chain, job: Job, etag: Etag | null, inline: Inline): Promise<Ending> {
    const execution = new Execution({
      moray: this.options.moray, services: this.options.services, clock: this.clock, random: this.options.random ?? Math.random,
      log: this.options.log, gates: this.gates, leaseMs: this.leaseMs, limits: {...DEFAULT_LIMITS, ...this.options.limits},
    }, chain, job, etag, inline);
    this.active.set(job.id, execution);
    try {
      return await execution.drive();
    } finally {
      this.active.delete(job.id);
      this.notices.notify(jobEnded(job.id));
      this.notices.notify(targetFreed(job.target));
    }
  }

  private async waitForever(jobId: string): Promise<Job> {
    for (;;) {
      try {
        return await this.wait(jobId);
      } catch (err) {
        if (this.stopped || !(isCetusError(err, 'timeout') || isCetusError(err, 'unavailable'))) throw err;
      }
    }
  }

  // ---- targets

  /** First come, first served within this process: only the head of the line tries for the store's lock. */
  private async inLine<T>(job: Job, untilMs: number, {signal, onWaiting}: Pick<RunRequest, 'signal' | 'onWaiting'>, body: (waited: boolean) => Promise<T>): Promise<T> {
    const line = `line/${job.target}`;
    const waits = this.gates.holder(line) !== undefined;
    if (waits) onWaiting?.();
    const leave = await this.gates.enter(line, `${job.workflow} ${job.id}`, Math.max(0, untilMs - this.clock.now()), signal);
    if (!leave && signal?.aborted) throw canceledBefore(job);
    if (!leave) throw busy(job.target, this.gates.holder(line) ?? 'a job that has just ended');
    try {
      return await body(waits);
    } finally {
      leave();
    }
  }

  /** Resolves when it is worth trying for the lock again; `conflict`, naming the holder, when the time is up; `canceled` as soon as nobody waits any more. */
  private async targetFree(job: Job, untilMs: number, signal: AbortSignal | undefined): Promise<void> {
    const patientUntilMs = this.clock.now() + DEFAULT_LOCK_WAIT_MS;
    for (;;) {
      if (signal?.aborted) throw canceledBefore(job);
      const leftMs = untilMs - this.clock.now();
      const over = leftMs <= 0 || this.stopped;
      const look = new AbortController();
      const noticed = this.notices.next(targetFreed(job.target), Math.max(0, Math.min(leftMs, this.pollMs)), signal ? AbortSignal.any([look.signal, signal]) : look.signal);
      try {
        const lock = await this.options.moray.peek<Lock>(LOCKS, job.target);
        if (!lock) return;
        if (over || this.clock.now() >= patientUntilMs) {
          const holder = await this.options.moray.peek<Job>(JOBS, lock.value.jobId);
          // One that is stuck keeps its target until an operator has looked at it: however patient who asks is, he is told.
          if (over || holder?.value.execution === 'stuck') throw busy(job.target, holder ? `${holder.value.workflow} ${holder.key} (${holder.value.execution})` : lock.value.jobId);
        }
        await noticed;
      } finally {
        look.abort(OVER);
      }
    }
  }

  // ---- answers

  private async within<T>(outcome: Promise<T>, deadlineMs: number | undefined, job: Job): Promise<T> {
    if (deadlineMs === undefined) return outcome;
    const done = new AbortController();
    outcome.catch(() => undefined);
    const late = this.clock.sleep(deadlineMs, done.signal).then(() => {
      throw new CetusError('timeout', `job ${job.id} (${job.workflow} on ${job.target}) goes on; waiting for it ended after ${deadlineMs / 1000} s`, {info: {jobId: job.id}});
    });
    late.catch(() => undefined);
    try {
      return await Promise.race([outcome, late]);
    } finally {
      done.abort(OVER);
    }
  }

  private refuseWhenStopped(): void {
    if (this.stopped) throw new CetusError('unavailable', 'this runner stops');
  }
}

function canceledBefore({workflow, target}: Job): CetusError {
  return new CetusError('canceled', `${workflow} on ${target} was canceled before it began`);
}

function resultOf<R>(job: Job, cause: CetusError | undefined): R {
  if (job.execution === 'succeeded') return (job.result ?? null) as R;
  // A failed undo has its own story; who asked is told what went wrong first, and which job to look at.
  throw failureOf(job, fromWire(job.error ?? {kind: 'internal', message: `job ${job.id} ended as ${job.execution}`}), cause);
}

function failureOf(job: Job, error: CetusError, cause: CetusError | undefined): CetusError {
  return new CetusError(error.kind, error.message, {cause, shown: error.shown, info: {...error.info, jobId: job.id, execution: job.execution}});
}
