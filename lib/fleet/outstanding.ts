/**
 * Which container transitions a job of this process is about to write itself. The agent reports a start at the moment it answers the task, and
 * both would write the same container: one would lose on the etag and cost the client a round trip. So the report path asks here, and
 * leaves a transition to the job that asked for it, by generation. Only an economy: without it everything is still right.
 */
import {OVER, type Clock} from '../base/clock';
import type {TaskBody, TaskOutput} from '../schema/agent';

/** How long an answer is remembered: reports follow the answer within milliseconds. */
const REMEMBER_MS = 2_000;
/** A report does not wait longer for the task's answer. */
const WAIT_MS = 200;

interface Outstanding { generation: Promise<number>; untilMs: number }

export class OutstandingTransitions {
  private readonly tasks = new Map<string, Outstanding>();

  constructor(private readonly clock: Clock) {}

  /** Passes the task's promise through. */
  track(body: TaskBody, answer: Promise<TaskOutput>): Promise<TaskOutput> {
    if (body.kind !== 'container.start' && body.kind !== 'container.pause' && body.kind !== 'container.unpause') return answer;
    const id = body.containerId;
    const entry: Outstanding = {generation: answer.then(output => output.observation?.generation ?? 0, () => 0), untilMs: Infinity};
    this.tasks.set(id, entry);
    void entry.generation.then(() => {
      entry.untilMs = this.clock.now() + REMEMBER_MS;
      const timer = setTimeout(() => { if (this.tasks.get(id) === entry) this.tasks.delete(id); }, REMEMBER_MS);
      timer.unref();
    });
    return answer;
  }

  /** True where a job of this process writes this generation, or a later one. */
  async leaves(containerId: string, generation: number): Promise<boolean> {
    const entry = this.tasks.get(containerId);
    if (!entry || entry.untilMs < this.clock.now()) return false;
    const giveUp = new AbortController();
    try {
      const answered = await Promise.race([entry.generation, this.clock.sleep(WAIT_MS, giveUp.signal).then(() => 0, () => 0)]);
      return generation <= answered;
    } finally {
      giveUp.abort(OVER);
    }
  }
}
