/**
 * What to do next with a job, from its record and its chain alone: pure and total. A runner that takes a job over gets the same answer as
 * the one that lost it, which is the whole of recovery.
 */
import type {WireError} from '../base/errors';
import type {Job, StepRecord} from '../schema/job';
import type {ActStep, Chain, PlanStep} from './chain';

export type Move =
  | {move: 'plan'; step: PlanStep<unknown, unknown>}
  | {move: 'act'; step: ActStep<unknown, unknown>}
  /** Stop going forward: because a step failed, or because somebody asked. */
  | {move: 'unwind'; error: WireError}
  | {move: 'undo-plan'; step: PlanStep<unknown, unknown>; output: unknown}
  | {move: 'undo-act'; step: ActStep<unknown, unknown>; output: unknown}
  | {move: 'succeed'; result: unknown}
  | {move: 'end-unwound'}
  | {move: 'get-stuck'}
  /** Ended, or still waiting for somebody to claim it. */
  | {move: 'rest'};

export interface Limits {
  /** Tries of one undo before the job is stuck. */
  undoTries: number;
  /** The same where nobody answered (a node that is away): no person could do better than wait for it. Default: as many. */
  unansweredUndoTries?: number;
}

export function undoTriesOf(record: StepRecord, limits: Limits): number {
  const unanswered = record.error?.kind === 'unavailable' || record.error?.kind === 'timeout';
  return unanswered ? limits.unansweredUndoTries ?? limits.undoTries : limits.undoTries;
}

export function next(job: Job, chain: Chain, limits: Limits): Move {
  if (job.execution === 'running') return forward(job, chain);
  if (job.execution === 'unwinding') return backward(job, chain, limits);
  return {move: 'rest'};
}

export function outputsOf(job: Job): Record<string, unknown> {
  return Object.fromEntries(job.steps.filter((s) => s.state === 'succeeded' || s.output !== undefined).map((s) => [s.step, s.output]));
}

export function resultOf(job: Job, chain: Chain): unknown {
  const outputs = outputsOf(job);
  const last = chain.steps.at(-1);
  return chain.result ? chain.result(outputs) : last && outputs[last.name];
}

/** The outcome stands, and what is left is only to be carried out. */
export function isDecided(job: Job, chain: Chain): boolean {
  return job.execution === 'running' && Boolean(chain.decided?.(outputsOf(job)));
}

function forward(job: Job, chain: Chain): Move {
  const failed = job.steps.find((s) => s.state === 'failed');
  if (failed) return {move: 'unwind', error: failed.error ?? {kind: 'internal', message: `step ${failed.step} failed`}};
  const step = chain.steps.find((s) => job.steps.find((r) => r.step === s.name)?.state !== 'succeeded');
  if (!step) return {move: 'succeed', result: resultOf(job, chain)};
  if (job.cancelRequested && !isPastReturn(job, chain)) return {move: 'unwind', error: {kind: 'canceled', message: `job ${job.id} (${job.workflow}) was canceled`}};
  return step.kind === 'plan' ? {move: 'plan', step} : {move: 'act', step};
}

/** An act without undo that has begun, or may have, cannot be taken back: the only consistent way is forward, and a cancel comes too late. */
function isPastReturn(job: Job, chain: Chain): boolean {
  return isDecided(job, chain) || chain.steps.some((step) => step.kind === 'act' && !step.undo && job.steps.some((r) => r.step === step.name && (r.state === 'started' || r.state === 'succeeded')));
}

function backward(job: Job, chain: Chain, limits: Limits): Move {
  for (const step of chain.steps.toReversed()) {
    const record = job.steps.find((r) => r.step === step.name);
    if (!record || record.state === 'undone' || !step.undo) continue;
    // A plan that failed wrote nothing. An act that failed, or of which only the intent is known, may have done anything.
    if (step.kind === 'plan' && record.state === 'failed') continue;
    if (record.state === 'undo-failed' && record.tries >= undoTriesOf(record, limits)) return {move: 'get-stuck'};
    return step.kind === 'plan' ? {move: 'undo-plan', step, output: record.output} : {move: 'undo-act', step, output: record.output};
  }
  return {move: 'end-unwound'};
}
