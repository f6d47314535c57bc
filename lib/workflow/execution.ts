/**
 * One job in the hands of one runner, from claim to end: asks `next`, does the move, commits. The only place where steps are called.
 * It ends in one of three ways: the job ended; the lease is lost (nothing more is written); or, for a job not yet in the store, the
 * target's lock is somebody else's and nothing was written at all.
 */
import {formatNs, OVER, type Clock} from '../base/clock';
import {asCetusError, CetusError, fromWire, isCetusError, unreachable} from '../base/errors';
import type {Log} from '../base/log';
import type {BatchOp, Etag, Moray} from '../moray/moray';
import {BUCKETS} from '../schema/buckets';
import type {Job, Lock} from '../schema/job';
import type {ActStep, Chain, PlanStep, StepContext} from './chain';
import {commitJob, LeaseLost, rereadJob, Refused, type Saved} from './commit';
import type {Gates} from './gate';
import {isDecided, next, outputsOf, resultOf, undoTriesOf, type Limits} from './next';
import {bounded, MAX_OUTPUT_BYTES, wireError} from './record';
import {keepLease} from './lease';
import {OwnWrites} from './own-writes';
import {must} from './state';

export interface ExecutionLimits extends Limits {
  /** Times that a segment is planned again because of others' writes. */
  replans: number;
  undoFirstDelayMs: number;
  undoMaxDelayMs: number;
}

export interface ExecutionDeps {
  moray: Moray;
  services: unknown;
  clock: Clock;
  random(): number;
  log: Log;
  gates: Gates;
  leaseMs: number;
  limits: ExecutionLimits;
}

/** What a runner that executes for a waiting caller has besides the job. */
export interface Inline {
  secrets?: unknown;
  onProgress?(message: unknown): void;
  /** What the job's end will be is decided; how long the way back takes is not. */
  onUnwinding?(error: CetusError): void;
  /** The outcome is committed; what is left is carried out behind it. */
  onDecided?(result: unknown): void;
}

export type Ending =
  | {kind: 'ended'; job: Job; /** the first failing step's own error, with its cause */ error?: CetusError}
  | {kind: 'lost'}
  | {kind: 'locked'};

const DEFAULT_ACT_TIMEOUT_MS = 60_000;
const DEFAULT_ACT_TRIES = 3;
// How often a plan is called again because the store (or a node it asks) did not answer.
const UNANSWERED_PLAN_TRIES = 4;
// A gate only saves conflicts, so nobody waits long for it.
const GATE_WAIT_MS = 2_000;

export class Execution {
  private job: Job;
  /** The job as of the last act's outcome (or the beginning): where planning starts again after a conflict. */
  private base: Job;
  private saved: Saved;
  private pending: {step: PlanStep<unknown, unknown>; writes: BatchOp[]}[] = [];
  private replans = 0;
  private unanswered = 0;
  private leaves: {key: string; leave(): void}[] = [];
  private firstError: CetusError | undefined;
  private readonly lost = new AbortController();
  private readonly canceled = new AbortController();
  private readonly own: OwnWrites;
  /** Of the lock, where it was taken here and the store's answer was heard. */
  private lockEtag: Etag | undefined;

  /** `job` is claimed already; `etag` null where it is not in the store yet. */
  constructor(
    private readonly deps: ExecutionDeps, private readonly chain: Chain, job: Job, etag: Etag | null, private readonly inline: Inline = {},
  ) {
    this.job = job;
    this.base = job;
    this.saved = {job, etag};
    this.own = new OwnWrites(deps.moray, deps.clock);
  }

  /** Lets go of the job at once: what runs is abandoned, nothing more is written, another runner may take it when the lease has expired. */
  abandon(): void {
    this.lost.abort(new LeaseLost(this.job.id, 'the runner stops'));
  }

  /** Somebody asked for a cancel: seen between steps, and at once by an act that may be interrupted. */
  cancel(): void {
    this.canceled.abort(new CetusError('canceled', `job ${this.job.id} (${this.job.workflow}) was canceled`));
  }

  async drive(): Promise<Ending> {
    try {
      for (;;) {
        if (this.lost.signal.aborted) throw this.lost.signal.reason;
        // A job that is not in the store yet is decided whole first: in a moment it is, or it is refused.
        if (this.canceled.signal.aborted && this.saved.etag !== null) this.job = {...this.job, cancelRequested: true};
        const move = next(this.job, this.chain, this.deps.limits);
        switch (move.move) {
          case 'plan': await this.plan(move.step); break;
          case 'act': if (await this.save(this.after({type: 'start', step: move.step.name}))) await this.act(move.step); break;
          case 'unwind': await this.unwind(move.error); break;
          case 'undo-plan': await this.undoPlan(move.step, move.output); break;
          case 'undo-act': await this.undoAct(move.step, move.output); break;
          case 'succeed': await this.save(must(this.job, {type: 'succeed', result: bounded(move.result, MAX_OUTPUT_BYTES, 'the result'), at: this.at()}), this.unlock()); break;
          case 'end-unwound': await this.save(must(this.job, {type: 'end-unwound', at: this.at()}), this.unlock()); break;
          case 'get-stuck': await this.save(must(this.job, {type: 'get-stuck', at: this.at()})); break;
          case 'rest': return {kind: 'ended', job: this.saved.job, error: this.firstError};
          default: unreachable(move);
        }
      }
    } catch (err) {
      if (err instanceof LeaseLost) {
        this.deps.log.warn({jobId: this.job.id, workflow: this.job.workflow, reason: err.message}, 'lease lost; the job goes on elsewhere');
        return {kind: 'lost'};
      }
      if (err instanceof Refused && err.why === 'locked') return {kind: 'locked'};
      throw err;
    } finally {
      this.openGates();
    }
  }

  // ---- moves

  private async plan(step: PlanStep<unknown, unknown>): Promise<void> {
    try {
      const planned = await step.plan(this.context(this.replans + 1, this.lost.signal));
      const output = bounded(planned.output, MAX_OUTPUT_BYTES, `the output of ${step.name}`);
      this.job = must(this.job, {type: 'succeed-step', step: step.name, output, at: this.at()});
      this.pending.push({step, writes: planned.writes ?? []});
      this.unanswered = 0;
    } catch (err) {
      if (this.lost.signal.aborted) throw this.lost.signal.reason;
      if (await this.worthAnotherPlan(err)) return;
      this.failStep(step.name, err);
    }
  }

  private async act(step: ActStep<unknown, unknown>): Promise<void> {
    try {
      const output = await this.attempts(step, (ctx) => step.do(ctx));
      this.job = must(this.job, {type: 'succeed-step', step: step.name, output: bounded(output, MAX_OUTPUT_BYTES, `the output of ${step.name}`), at: this.at()});
    } catch (err) {
      if (err instanceof LeaseLost) throw err;
      this.failStep(step.name, err);
    }
    this.settle();
  }

  private async unwind(error: Job['error'] & object): Promise<void> {
    const unwinding = must(this.job, {type: 'unwind', error});
    this.inline.onUnwinding?.(this.firstError ?? fromWire(error));
    // Plans not yet committed must be, before their undo reads the store. Where nothing is pending, the next commit takes this along.
    if (this.pending.length) await this.save(unwinding);
    else this.job = unwinding;
  }

  private async undoPlan(step: PlanStep<unknown, unknown>, output: unknown): Promise<void> {
    const undoing = this.after({type: 'start-undo', step: step.name});
    try {
      const planned = await step.undo!(this.context(this.replans + 1, this.lost.signal, undoing), output);
      this.job = must(undoing, {type: 'undone', step: step.name, at: this.at()});
      this.pending.push({step, writes: planned.writes ?? []});
      this.unanswered = 0;
    } catch (err) {
      if (this.lost.signal.aborted) throw this.lost.signal.reason;
      if (await this.worthAnotherPlan(err)) return;
      await this.undoFailed(step.name, err);
    }
  }

  private async undoAct(step: ActStep<unknown, unknown>, output: unknown): Promise<void> {
    if (!(await this.save(this.after({type: 'start-undo', step: step.name})))) return;
    try {
      await this.attempts({...step, tries: 1, interruptible: false}, (ctx) => step.undo!(ctx, output));
    } catch (err) {
      if (err instanceof LeaseLost) throw err;
      await this.undoFailed(step.name, err, true);
      return;
    }
    this.job = this.after({type: 'undone', step: step.name});
    this.settle();
  }

  private async undoFailed(step: string, err: unknown, started = false): Promise<void> {
    this.deps.log.warn({err, jobId: this.job.id, workflow: this.job.workflow, step}, 'an undo failed');
    this.rollback();
    const undoing = started ? this.job : this.after({type: 'start-undo', step});
    await this.save(must(undoing, {type: 'undo-failed', step, error: wireError(err, `undo ${step}`), at: this.at()}));
    this.settle();
    const record = this.job.steps.find((s) => s.step === step)!;
    if (record.tries >= undoTriesOf(record, this.deps.limits)) return;
    const delayMs = Math.min(this.deps.limits.undoFirstDelayMs * 2 ** (record.tries - 1), this.deps.limits.undoMaxDelayMs);
    await this.renewing(() => this.pause(delayMs));
  }

  // ---- commits

  /** Commits what is pending with `job` as the record. False: nothing was written and the job stands at `base` again; decide anew. */
  private async save(job: Job, lock: BatchOp[] = []): Promise<boolean> {
    const creating = this.saved.etag === null;
    const ops = [...(creating ? this.takeLock(job) : lock), ...this.pending.flatMap((p) => p.writes)];
    try {
      const {cancelSeen, results} = await commitJob(this.deps, this.saved, job, ops);
      if (results) this.own.committed(ops, results);
      else this.own.forget();
      // The first of the ops, where it is a put and no check.
      if (creating) this.lockEtag = results?.[0]?.etag;
      if (cancelSeen) {
        // Our segment was decided without knowing of the cancel: between steps is the place to see it.
        this.base = {...this.base, cancelRequested: true};
        this.rollback();
        return false;
      }
    } catch (err) {
      // Who has the target and finds the lock gone goes on: it is the end that lets go of it.
      if (!(err instanceof Refused) || (err.why === 'locked' && creating)) throw err;
      await this.refused(err);
      return false;
    } finally {
      this.openGates();
    }
    this.job = this.saved.job;
    this.settle();
    this.replans = 0;
    if (isDecided(this.job, this.chain)) this.inline.onDecided?.(resultOf(this.job, this.chain));
    return true;
  }

  private async refused(refusal: Refused): Promise<void> {
    // Gone, or another's, by an operator's hand: what is ours of it is looked for.
    if (refusal.error.info['bucket'] === BUCKETS.locks.name) this.lockEtag = undefined;
    const culprits = this.pending;
    const context = this.context(this.replans + 1, this.lost.signal);
    this.rollback();
    if (refusal.why === 'unique') {
      const owner = culprits.findLast((p) => p.step.onConflict && p.writes.some((w) => w.bucket === refusal.error.info['bucket']));
      const verdict = this.job.execution === 'running' && owner ? await owner.step.onConflict!(context, refusal.error) : refusal.error;
      if (verdict !== 'replan') return this.blame(culprits[0]?.step, verdict);
    } else if (refusal.why === 'invalid') return this.blame(culprits[0]?.step, refusal.error);
    this.replans += 1;
    if (this.replans > this.deps.limits.replans)
      return this.blame(culprits[0]?.step, refusal.error);
    if (this.replans > 1) await this.pause(this.crowdPauseMs());
  }

  /** None of the segment was written, so the failure may be laid at its first plan's door: everything after it never happened. */
  private async blame(step: PlanStep<unknown, unknown> | undefined, err: CetusError): Promise<void> {
    this.replans = 0;
    if (!step) throw err;
    if (this.job.execution === 'running') this.failStep(step.name, err);
    else await this.undoFailed(step.name, err);
  }

  private takeLock(job: Job): BatchOp[] {
    const bucket = BUCKETS.locks.name;
    // Refused by the first plan: nothing to guard, but a refusal decided under another job's half-done work would be a wrong one.
    if (job.lease === null) return [{op: 'check', bucket, key: job.target, etag: null}];
    const lock: Lock = {target: job.target, jobId: job.id, takenAt: this.at()};
    return [{op: 'put', bucket, key: job.target, value: lock, etag: null}];
  }

  private unlock(): BatchOp[] {
    // By its etag, or by job, and never by target alone: it can then never be another job's lock. The former is the cheaper; by job its absence (an operator's hand) is no error.
    if (this.lockEtag !== undefined) return [{op: 'delete', bucket: BUCKETS.locks.name, key: this.job.target, etag: this.lockEtag}];
    return [{op: 'deleteMany', bucket: BUCKETS.locks.name, filter: `(jobId=${this.job.id})`}];
  }

  // ---- the small parts

  private async attempts<T>(step: Pick<ActStep<unknown, unknown>, 'name' | 'timeoutMs' | 'tries' | 'worthAgain' | 'interruptible'>, call: (ctx: StepContext<unknown, unknown>) => Promise<T>): Promise<T> {
    const tries = step.tries ?? DEFAULT_ACT_TRIES;
    const timeoutMs = typeof step.timeoutMs === 'function' ? step.timeoutMs(this.job.params, outputsOf(this.job)) : step.timeoutMs ?? DEFAULT_ACT_TIMEOUT_MS;
    return this.renewing(async (leaseSignal) => {
      for (let n = 1; ; n += 1) {
        try {
          const ends = step.interruptible ? AbortSignal.any([leaseSignal, this.canceled.signal]) : leaseSignal;
          return await this.withTimeout(step.name, timeoutMs, ends, (signal) => call(this.context(n, signal)));
        } catch (err) {
          if (leaseSignal.aborted) throw leaseSignal.reason;
          if (step.interruptible && this.canceled.signal.aborted) throw this.canceled.signal.reason;
          if (isDecided(this.job, this.chain)) {
            this.deps.log.warn({err, jobId: this.job.id, workflow: this.job.workflow, step: step.name, tries: n}, 'an act that must work failed; trying again');
            await this.pause(Math.min(this.deps.limits.undoFirstDelayMs * 2 ** (n - 1), this.deps.limits.undoMaxDelayMs));
            continue;
          }
          if (n >= tries || !(isCetusError(err, 'unavailable') || isCetusError(err, 'timeout')) || step.worthAgain?.(err) === false) throw err;
          await this.pause(100 * 2 ** (n - 1) * (0.5 + this.deps.random() / 2));
        }
      }
    });
  }

  private async withTimeout<T>(name: string, timeoutMs: number, outer: AbortSignal, call: (signal: AbortSignal) => Promise<T>): Promise<T> {
    outer.throwIfAborted();
    const over = new AbortController();
    const finished = new AbortController();
    const onOuter = (): void => over.abort(outer.reason);
    outer.addEventListener('abort', onOuter, {once: true});
    void this.deps.clock.sleep(timeoutMs, finished.signal).then(
      () => over.abort(new CetusError('timeout', `${name} took longer than ${timeoutMs / 1000} s`)), () => undefined);
    try {
      const aborted = new Promise<never>((_resolve, reject) => over.signal.addEventListener('abort', () => reject(over.signal.reason as Error), {once: true}));
      return await Promise.race([call(over.signal), aborted]);
    } finally {
      finished.abort(OVER);
      outer.removeEventListener('abort', onOuter);
    }
  }

  /** Runs `work` while the lease is kept alive; the signal is aborted, and LeaseLost thrown, when it no longer is ours. */
  private async renewing<T>(work: (signal: AbortSignal) => Promise<T>): Promise<T> {
    const keeper = keepLease(this.deps, this.saved, this.lost);
    try {
      return await Promise.race([work(this.lost.signal), keeper.lost]);
    } finally {
      await keeper.stop();
      if (this.saved.job.cancelRequested) this.job = {...this.job, cancelRequested: true};
    }
  }

  private async worthAnotherPlan(err: unknown): Promise<boolean> {
    if (isCetusError(err, 'etagConflict')) {
      // The plan itself saw that what it read does not fit together (yet): the same as a conflict at the commit.
      this.replans += 1;
      if (this.replans > this.deps.limits.replans) return false;
    } else if (isCetusError(err, 'unavailable') || isCetusError(err, 'timeout')) {
      this.unanswered += 1;
      if (this.unanswered >= UNANSWERED_PLAN_TRIES) return false;
    } else {
      return false;
    }
    this.rollback();
    await this.pause(isCetusError(err, 'etagConflict') ? this.crowdPauseMs() : 50 * 2 ** this.unanswered);
    // In that time the job may have become somebody else's: a plan decided then would only fail at its commit, an act would not.
    if (this.saved.etag !== null) await rereadJob(this.deps, this.saved);
    return true;
  }

  private failStep(step: string, thrown: unknown): void {
    // Others' writes are nobody's fault and no user's word.
    const err = isCetusError(thrown, 'etagConflict') ? new CetusError('unavailable', `too many others change what ${this.job.workflow} needs; try again`, {cause: thrown}) : thrown;
    this.firstError ??= asCetusError(err, step);
    this.job = must(this.job, {type: 'fail-step', step, error: wireError(err, step), at: this.at()});
    this.unanswered = 0;
  }

  private rollback(): void {
    this.own.forget();
    this.openGates();
    this.pending = [];
    this.job = this.saved.job.cancelRequested ? {...this.base, cancelRequested: true} : this.base;
  }

  /** What stands now stays: a later rollback comes back to here. */
  private settle(): void {
    this.pending = [];
    this.base = this.job;
  }

  private after(event: {type: 'start' | 'start-undo' | 'undone'; step: string}): Job {
    return must(this.job, {...event, at: this.at()});
  }

  private context(attempt: number, signal: AbortSignal, job = this.job): StepContext<unknown, unknown> {
    return {
      job, params: job.params, outputs: outputsOf(job), services: this.deps.services, moray: this.own.moray,
      epoch: job.lease?.epoch ?? 0, requestId: job.requestId, attempt, signal, secrets: this.inline.secrets,
      log: this.deps.log.child({jobId: job.id, workflow: job.workflow, requestId: job.requestId}, true),
      progress: (message) => this.inline.onProgress?.(message),
      gate: (key) => this.enterGate(key),
    };
  }

  private async enterGate(key: string): Promise<void> {
    if (this.leaves.some((l) => l.key === key)) return;
    const leave = await this.deps.gates.enter(`gate/${key}`, this.job.id, GATE_WAIT_MS);
    if (leave) this.leaves.push({key, leave});
  }

  private openGates(): void {
    for (const {leave} of this.leaves) leave();
    this.leaves = [];
  }

  /** Those who collided must not collide again: a random pause that grows with the crowd. */
  private crowdPauseMs(): number {
    return this.deps.random() * Math.min(2 ** this.replans, 64);
  }

  private async pause(ms: number): Promise<void> {
    await this.deps.clock.sleep(ms, this.lost.signal);
  }

  private at(): string {
    return formatNs(this.deps.clock.nowNs());
  }
}
