/**
 * The first answer to each (job, step), so that a repeated task is answered and not done twice: by a runner that lost the answer, by one
 * that took the job over, also after our restart. Concurrent repeats join the one that runs.
 *
 * Refuses (`stale`) an epoch lower than the highest seen for the job; epochs are on disk before the task begins. Errors that a repeat may
 * cure (`unavailable`, `timeout`, `canceled`) are not kept. Bounded: the oldest jobs are forgotten beyond MAX_JOBS, long after their end.
 */
import {asCetusError, CetusError, type ErrorKind} from '../../base/errors';
import type {Task, TaskAnswer, TaskOutput} from '../../schema/agent';
import {JsonLines} from './lines';

const MAX_JOBS = 20_000;
const COMPACT_BYTES = 16 * 1024 * 1024;
const CURABLE: ReadonlySet<ErrorKind> = new Set(['unavailable', 'timeout', 'canceled']);

interface JobEntry { epoch: number; answers: Record<string, TaskAnswer> }
type Line = {jobId: string; epoch: number} | {jobId: string; step: string; answer: TaskAnswer};

export class TaskLedger {
  /** In order of first sight: the first key is the oldest. */
  private readonly jobs = new Map<string, JobEntry>();
  private readonly running = new Map<string, Promise<TaskAnswer>>();
  private readonly file: JsonLines<Line>;
  /** Characters written since the last rewriting. */
  private grown: number;

  constructor(path: string, private readonly maxJobs = MAX_JOBS) {
    this.file = new JsonLines<Line>(path, (line) => {
      const entry = this.jobs.get(line.jobId) ?? this.remember(line.jobId);
      if ('epoch' in line) entry.epoch = Math.max(entry.epoch, line.epoch);
      else entry.answers[line.step] = line.answer;
    });
    this.grown = this.file.size;
  }

  run(task: Task, execute: () => Promise<TaskOutput>): Promise<TaskAnswer> {
    const entry = this.jobs.get(task.jobId) ?? this.remember(task.jobId);
    if (task.epoch < entry.epoch) {
      const error = new CetusError('stale', `job ${task.jobId} is in epoch ${entry.epoch}, this task is of epoch ${task.epoch}`, {info: {known: entry.epoch, given: task.epoch}});
      return Promise.resolve({ok: false, error: error.toWire()});
    }
    if (task.epoch > entry.epoch) {
      entry.epoch = task.epoch;
      this.write({jobId: task.jobId, epoch: task.epoch});
    }
    const known = entry.answers[task.step];
    if (known) return Promise.resolve(known);
    const key = `${task.jobId}/${task.step}`;
    const under = this.running.get(key);
    if (under) return under;
    const answer = this.execute(task, entry, execute).finally(() => this.running.delete(key));
    this.running.set(key, answer);
    return answer;
  }

  close(): void {
    this.file.close();
  }

  private async execute(task: Task, entry: JobEntry, execute: () => Promise<TaskOutput>): Promise<TaskAnswer> {
    const answer = await answered(task, execute);
    if (!answer.ok && CURABLE.has(answer.error.kind)) return answer;
    entry.answers[task.step] = answer;
    this.write({jobId: task.jobId, step: task.step, answer});
    return answer;
  }

  private remember(jobId: string): JobEntry {
    const entry: JobEntry = {epoch: 0, answers: {}};
    this.jobs.set(jobId, entry);
    if (this.jobs.size > this.maxJobs) {
      for (const [oldest] of this.jobs) {
        if (this.jobs.size <= this.maxJobs) break;
        this.jobs.delete(oldest);
      }
    }
    return entry;
  }

  private write(line: Line): void {
    const before = this.file.size;
    this.file.append(line);
    this.grown += this.file.size - before;
    if (this.grown > COMPACT_BYTES) this.rewrite();
  }

  private rewrite(): void {
    this.file.rewrite(this.lines());
    // Counted from zero, so that a ledger full of kept answers is not rewritten at each task.
    this.grown = 0;
  }

  private *lines(): Generator<Line> {
    for (const [jobId, {epoch, answers}] of this.jobs) {
      yield {jobId, epoch};
      for (const [step, answer] of Object.entries(answers)) yield {jobId, step, answer};
    }
  }
}

/** Done, whatever was done before. */
export async function answered(task: Task, execute: () => Promise<TaskOutput>): Promise<TaskAnswer> {
  try {
    return {ok: true, output: await execute()};
  } catch (err) {
    return {ok: false, error: asCetusError(err, task.body.kind).toWire()};
  }
}
