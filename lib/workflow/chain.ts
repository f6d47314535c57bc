/**
 * How a chain (a saga) is written. Definitions are code, registered by name and version; a job stores only the name, the version and its params.
 *
 * Two kinds of step:
 *  - `plan`: pure decision over the store. It returns an output and the writes that make it so; the engine commits both in one batch
 *    with the step's record (and with the neighbouring steps' records), so a plan step happens exactly once. On an etag conflict in
 *    its writes it is called again.
 *  - `act`: touches the world (an agent). Its intent is recorded before, its outcome after; it may be repeated, so it must be
 *    repeatable: mint identifiers in an earlier step. `undo` must also be repeatable and succeed where `do` never happened.
 *
 * Consecutive records are merged: a chain plan, act, plan costs two commits (created + planned + act started; act's outcome + plan + done).
 */
import type {CetusError} from '../base/errors';
import type {Log} from '../base/log';
import type {BatchOp, Moray} from '../moray/moray';
import type {Job} from '../schema/job';

export interface StepContext<P, S> {
  job: Readonly<Job>;
  params: P;
  /** Outputs of the steps before, by step name. */
  outputs: Readonly<Record<string, unknown>>;
  /** The runner's services (moray, fleet, placement...), injected by main. */
  services: S;
  moray: Moray;
  epoch: number;
  requestId: string;
  log: Log;
  /** 1 for the first try of an act or undo, and for the first call of a plan; rises with each repetition in this epoch. */
  attempt: number;
  /** Aborted when the lease is lost or the step's time is up. */
  signal: AbortSignal;
  /**
   * What came with the request and must never be stored (registry credentials). Present only in the runner that accepted the
   * request; undefined after a takeover.
   */
  secrets: unknown;
  /** Progress for whoever waits inline; not recorded. */
  progress(message: unknown): void;
  /**
   * For plans that write an object which many jobs of this process write (a node's reservations): await it before reading the object;
   * the engine opens the gate again once the plan is committed. It only saves etag conflicts: correctness never rests on it.
   */
  gate(key: string): Promise<void>;
}

export interface Planned { output?: unknown; writes?: BatchOp[] }

export interface PlanStep<P, S> {
  kind: 'plan';
  name: string;
  plan(ctx: StepContext<P, S>): Promise<Planned>;
  /** Writes that take the plan back; called with the step's recorded output. */
  undo?(ctx: StepContext<P, S>, output: unknown): Promise<Planned>;
  /**
   * A unique index refused one of the writes ({bucket, field, value} in `error.info`): plan again, or fail with the error returned.
   * Default: fail with the store's error.
   */
  onConflict?(ctx: StepContext<P, S>, error: CetusError): Promise<'replan' | CetusError>;
}

export interface ActStep<P, S> {
  kind: 'act';
  name: string;
  do(ctx: StepContext<P, S>): Promise<unknown>;
  /** An act without undo is the point of no return: once it has begun, a cancel comes too late. */
  undo?(ctx: StepContext<P, S>, output: unknown): Promise<void>;
  /** Per try. Default 60 s. */
  timeoutMs?: number | ((params: P, outputs: Readonly<Record<string, unknown>>) => number);
  /** Total tries for retryable errors (`unavailable`, `timeout`). Default 3. */
  tries?: number;
  /** Which of these errors another try may mend. Default: all. */
  worthAgain?(err: CetusError): boolean;
  /** A cancel ends it in the middle: its signal is aborted and it counts as failed. Without this a cancel waits for its end. For acts with an undo. */
  interruptible?: boolean;
}

export type Step<P, S> = PlanStep<P, S> | ActStep<P, S>;

export interface Chain<P = unknown, S = unknown> {
  name: string;
  version: number;
  /** The lock's key. */
  target(params: P): string;
  steps: Step<P, S>[];
  /** What the job's result is; default: the last step's output. */
  result?(outputs: Readonly<Record<string, unknown>>): unknown;
  /**
   * Says of what is committed that it is the outcome already, whatever is left to do: who waits is answered with `result` at once, a cancel comes
   * too late, and the acts left are tried until they work. The plans left must be unable to refuse. Pure; it may become true with a commit, never false again.
   */
  decided?(outputs: Readonly<Record<string, unknown>>): boolean;
}

export interface RunRequest<P = unknown> {
  workflow: string;
  account: string;
  params: P;
  requestId: string;
  secrets?: unknown;
  onProgress?(message: unknown): void;
  /** Another job has the target: said once, when waiting for it begins. */
  onWaiting?(): void;
  /** How long to wait for the target's lock when another job holds it; then `conflict` naming that job. Default 30 s. */
  lockWaitMs?: number;
  /** How long the caller waits for the outcome; the job goes on by itself afterwards. */
  deadlineMs?: number;
  /** Aborted when nobody wants the outcome any more: the job is canceled, as far as it can still be taken back. */
  signal?: AbortSignal;
}

export interface Workflow {
  /** Creates the job already claimed by this process's runner, executes it here, and returns its result or throws its error (after unwinding). */
  run<R = unknown>(request: RunRequest): Promise<R>;
  /** Creates the job for any runner and returns it at once. */
  enqueue(request: RunRequest): Promise<Job>;
  /** Resolves when the job has finished, whoever runs it. */
  wait(jobId: string, deadlineMs?: number): Promise<Job>;
  cancel(jobId: string): Promise<Job>;
  get(jobId: string): Promise<Job>;
  /** Operator: a stuck job's unwinding is tried again. */
  retryStuck(jobId: string): Promise<Job>;
}
