/**
 * The job's state table: pure and total. Every (job, event) gives the next job, or the error that names the illegal transition;
 * nothing else in the room changes a job's execution or its step records.
 */
import {CetusError, unreachable, type WireError} from '../base/errors';
import type {Job, StepRecord, StepState} from '../schema/job';

export type JobEvent =
  | {type: 'claim'; runner: string; untilMs: number; at: string}
  | {type: 'renew'; untilMs: number}
  | {type: 'request-cancel'}
  /** An act's intent; a repeated one (takeover) counts as another try. */
  | {type: 'start'; step: string; at: string}
  | {type: 'succeed-step'; step: string; output: unknown; at: string}
  | {type: 'fail-step'; step: string; error: WireError; at: string}
  | {type: 'unwind'; error: WireError}
  | {type: 'start-undo'; step: string; at: string}
  | {type: 'undone'; step: string; at: string}
  | {type: 'undo-failed'; step: string; error: WireError; at: string}
  | {type: 'succeed'; result: unknown; at: string}
  /** `failed`, or `canceled` where a cancel was why. */
  | {type: 'end-unwound'; at: string}
  | {type: 'get-stuck'; at: string}
  | {type: 'retry-stuck'};

export type Transition = {ok: true; job: Job} | {ok: false; error: CetusError};

export function transition(job: Job, event: JobEvent): Transition {
  switch (event.type) {
    case 'claim':
      if (job.execution !== 'queued' && job.execution !== 'running' && job.execution !== 'unwinding') return illegal(job, event);
      return to(job, {
        execution: job.execution === 'queued' ? 'running' : job.execution,
        startedAt: job.startedAt ?? event.at,
        lease: {runner: event.runner, epoch: (job.lease?.epoch ?? 0) + 1, untilMs: event.untilMs},
      });
    case 'renew':
      if (!isHeld(job)) return illegal(job, event);
      return to(job, {lease: {...job.lease, untilMs: event.untilMs}});
    case 'request-cancel':
      if (job.execution !== 'queued' && job.execution !== 'running') return illegal(job, event);
      return to(job, {cancelRequested: true});
    case 'start':
      return inRunning(job, event, ['started'], true, (record) => ({
        step: event.step, state: 'started', tries: (record?.tries ?? 0) + 1, epoch: epochOf(job), startedAt: record?.startedAt ?? event.at,
      }));
    case 'succeed-step':
      // A plan has no intent record: it goes from nothing to succeeded.
      return inRunning(job, event, ['started'], true, (record) => ({
        ...(record ?? {step: event.step, tries: 1, startedAt: event.at}), state: 'succeeded', output: event.output, epoch: epochOf(job), endedAt: event.at,
      }));
    case 'fail-step':
      return inRunning(job, event, ['started'], true, (record) => ({
        ...(record ?? {step: event.step, tries: 1, startedAt: event.at}), state: 'failed', error: event.error, epoch: epochOf(job), endedAt: event.at,
      }));
    case 'unwind':
      if (job.execution !== 'running' || !isHeld(job)) return illegal(job, event);
      return to(job, {execution: 'unwinding', error: event.error});
    case 'start-undo':
      return inUnwinding(job, event, ['succeeded', 'failed', 'started', 'undoing', 'undo-failed'], (record) => ({
        ...record, state: 'undoing', tries: record.state === 'undoing' || record.state === 'undo-failed' ? record.tries + 1 : 1, epoch: epochOf(job),
      }));
    case 'undone':
      return inUnwinding(job, event, ['undoing'], (record) => ({...record, state: 'undone', epoch: epochOf(job), endedAt: event.at}));
    case 'undo-failed':
      // The step's own error, where it had one, is the job's error already.
      return inUnwinding(job, event, ['undoing'], (record) => ({...record, state: 'undo-failed', error: event.error, epoch: epochOf(job), endedAt: event.at}));
    case 'succeed':
      if (job.execution !== 'running' || !isHeld(job) || job.steps.some((s) => s.state !== 'succeeded')) return illegal(job, event);
      return to(job, {execution: 'succeeded', result: event.result, lease: null, endedAt: event.at});
    case 'end-unwound':
      if (job.execution !== 'unwinding' || !isHeld(job) || job.steps.some((s) => s.state === 'undoing' || s.state === 'undo-failed')) return illegal(job, event);
      return to(job, {execution: job.error?.kind === 'canceled' && job.cancelRequested ? 'canceled' : 'failed', lease: null, endedAt: event.at});
    case 'get-stuck':
      if (job.execution !== 'unwinding' || !isHeld(job) || !job.steps.some((s) => s.state === 'undo-failed')) return illegal(job, event);
      return to(job, {execution: 'stuck', lease: {...job.lease, untilMs: 0}, endedAt: event.at});
    case 'retry-stuck':
      if (job.execution !== 'stuck' || !job.lease) return illegal(job, event);
      // tries begin anew: the pure decision "enough" is made from them.
      return to(job, {
        execution: 'unwinding', endedAt: undefined, lease: {...job.lease, untilMs: 0},
        steps: job.steps.map((s) => (s.state === 'undo-failed' ? {...s, tries: 0} : s)),
      });
    default:
      return unreachable(event);
  }
}

/** For callers whose decision proves the transition legal: an illegal one is then a bug, and thrown. */
export function must(job: Job, event: JobEvent): Job {
  const next = transition(job, event);
  if (!next.ok) throw next.error;
  return next.job;
}

export function isEnded(job: Pick<Job, 'execution'>): boolean {
  return job.execution === 'succeeded' || job.execution === 'failed' || job.execution === 'canceled' || job.execution === 'stuck';
}

type Held = Job & {lease: NonNullable<Job['lease']>};
function isHeld(job: Job): job is Held {
  return job.lease !== null && (job.execution === 'running' || job.execution === 'unwinding');
}

function epochOf(job: Job): number {
  return job.lease?.epoch ?? 0;
}

function to(job: Job, change: Partial<Job>): Transition {
  return {ok: true, job: {...job, ...change}};
}

function illegal(job: Job, event: JobEvent): Transition {
  const step = 'step' in event ? ` ${event.step} (${job.steps.find((s) => s.step === event.step)?.state ?? 'no record'})` : '';
  return {ok: false, error: new CetusError('internal', `job ${job.id}: ${event.type}${step} is not possible while ${job.execution}`)};
}

function inRunning(
  job: Job, event: JobEvent & {step: string}, from: StepState[], orNone: boolean, make: (record: StepRecord | undefined) => StepRecord,
): Transition {
  const record = job.steps.find((s) => s.step === event.step);
  if (job.execution !== 'running' || !isHeld(job) || (record ? !from.includes(record.state) : !orNone)) return illegal(job, event);
  return to(job, {steps: replaceRecord(job.steps, make(record))});
}

function inUnwinding(job: Job, event: JobEvent & {step: string}, from: StepState[], make: (record: StepRecord) => StepRecord): Transition {
  const record = job.steps.find((s) => s.step === event.step);
  if (job.execution !== 'unwinding' || !isHeld(job) || !record || !from.includes(record.state)) return illegal(job, event);
  return to(job, {steps: replaceRecord(job.steps, make(record))});
}

function replaceRecord(steps: StepRecord[], record: StepRecord): StepRecord[] {
  const at = steps.findIndex((s) => s.step === record.step);
  return at < 0 ? [...steps, record] : steps.map((s, i) => (i === at ? record : s));
}
