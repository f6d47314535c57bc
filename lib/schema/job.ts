import type {WireError} from '../base/errors';

/**
 *   queued -> running -> succeeded
 *                    `-> unwinding -> failed | canceled
 *                                 `-> stuck      (an undo kept failing: the operator's)
 */
export type JobExecution = 'queued' | 'running' | 'unwinding' | 'succeeded' | 'failed' | 'canceled' | 'stuck';

export type StepState = 'started' | 'succeeded' | 'failed' | 'undoing' | 'undone' | 'undo-failed';

export interface StepRecord {
  step: string;
  state: StepState;
  /** Only outputs pass from step to step. JSON, no credentials. */
  output?: unknown;
  error?: WireError;
  /** Of `do`; once the step is being undone, of `undo`. */
  tries: number;
  /** The lease epoch in which it last changed. */
  epoch: number;
  /** RFC 3339 with nanoseconds. */
  startedAt: string;
  endedAt?: string;
}

export interface JobLease { runner: string; epoch: number; /** ms since the epoch */ untilMs: number }

/** Bucket `jobs`, key = id. */
export interface Job {
  id: string;
  workflow: string;
  version: number;
  /** What it locks: "container/ID", "image/ACCOUNT/REF", "network/ID", "volume/ID". */
  target: string;
  account: string;
  params: unknown;
  execution: JobExecution;
  /** What the chain returned, for whoever waits. */
  result?: unknown;
  error?: WireError;
  steps: StepRecord[];
  /** null while queued and once ended; kept while stuck, because its epoch must go on rising. */
  lease: JobLease | null;
  /** Counts the writes of the job's runner: one that did not hear the store's answer recognises its own write by it. */
  revision: number;
  cancelRequested: boolean;
  requestId: string;
  createdAt: string;
  createdAtNs: string;
  startedAt?: string;
  endedAt?: string;
}

/** Bucket `locks`, key = target. */
export interface Lock { target: string; jobId: string; takenAt: string }
