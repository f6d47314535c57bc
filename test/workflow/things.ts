/** The chain of the engine's tests, scripted, and a world of a store, a clock and runners for it. */
import {CetusError} from '../../lib/base/errors';
import {silentLog} from '../../lib/base/log';
import {createMemoryMoray} from '../../lib/moray/memory';
import type {Moray} from '../../lib/moray/moray';
import {BUCKETS} from '../../lib/schema/buckets';
import type {Job, Lock} from '../../lib/schema/job';
import type {Chain, StepContext} from '../../lib/workflow/chain';
import {createWorkflow, type RunningWorkflow, type WorkflowOptions} from '../../lib/workflow/workflow';
import {SeqIds, seeded, SimClock} from './world';

export const THINGS = {name: 'things', version: 1, fields: {owner: {type: 'string', unique: true}}} as const;

export interface Params { id: string; owner?: string }
export interface Script {
  interruptible?: boolean;
  log: string[];
  act?: (ctx: StepContext<Params, unknown>) => Promise<unknown>;
  undoAct?: () => Promise<void>;
  lastPlan?: () => void;
  /** The first commit is the outcome. */
  decided?: boolean;
}

/** plan (writes a thing), act, plan (completes it). */
function thingChain(script: Script): Chain<Params, unknown> {
  return {
    name: 'thing.make', version: 1, target: (p) => `thing/${p.id}`,
    decided: (outputs) => Boolean(script.decided) && outputs['reserve'] !== undefined,
    ...(script.decided ? {result: (outputs) => ({first: outputs['reserve']})} : {}),
    steps: [
      {
        kind: 'plan', name: 'reserve',
        plan: async (ctx) => {
          script.log.push('plan');
          const stored = await ctx.moray.peek<{n: number}>('things', ctx.params.id);
          return {output: {n: (stored?.value.n ?? 0) + 1}, writes: [{op: 'put', bucket: 'things', key: ctx.params.id, value: {n: (stored?.value.n ?? 0) + 1, ...(ctx.params.owner ? {owner: ctx.params.owner} : {})}, etag: stored?.etag ?? null}]};
        },
        undo: async (ctx) => {
          script.log.push('unplan');
          return {writes: [{op: 'delete', bucket: 'things', key: ctx.params.id}]};
        },
        onConflict: async (_ctx, error) => new CetusError('conflict', `taken: ${String(error.info['value'])}`, {cause: error}),
      },
      {
        kind: 'act', name: 'act', get interruptible() { return script.interruptible; },
        do: async (ctx) => {
          script.log.push(`act ${ctx.epoch}.${ctx.attempt}`);
          return script.act?.(ctx);
        },
        undo: async () => {
          script.log.push('unact');
          await script.undoAct?.();
        },
      },
      {
        kind: 'plan', name: 'complete',
        plan: async (ctx) => {
          script.lastPlan?.();
          return {output: {made: ctx.params.id, saw: ctx.outputs['act'] ?? null}, writes: []};
        },
      },
    ],
  };
}

export class World {
  readonly clock = new SimClock();
  readonly store = createMemoryMoray({clock: this.clock});
  readonly script: Script = {log: []};
  private readonly running: RunningWorkflow[] = [];
  private salt = 0;

  async open(): Promise<this> {
    await this.store.open(BUCKETS.jobs, BUCKETS.locks, THINGS);
    return this;
  }

  runner(options: Partial<WorkflowOptions> = {}, connection: Moray = this.store): RunningWorkflow {
    this.salt += 1;
    const workflow = createWorkflow({
      moray: connection, chains: [thingChain(this.script)], services: {}, runnerId: `runner-${this.salt}`, log: silentLog(), clock: this.clock,
      ids: new SeqIds(this.salt), random: seeded(this.salt), leaseMs: 9000, pollMs: 500, ...options,
    });
    this.running.push(workflow);
    return workflow;
  }

  make(workflow: RunningWorkflow, params: Params = {id: 'a'}, more: object = {}): Promise<unknown> {
    return this.clock.until(workflow.run({workflow: 'thing.make', account: 'default', params, requestId: 'r', ...more}));
  }

  async jobs(): Promise<Job[]> { return (await this.store.list<Job>('jobs', '(&)')).map((r) => r.value); }
  async locks(): Promise<Lock[]> { return (await this.store.list<Lock>('locks', '(&)')).map((r) => r.value); }
  async things(): Promise<string[]> { return (await this.store.list('things', '(&)')).map((r) => r.key); }
}

export const failure = (kind: 'conflict' | 'internal' = 'conflict', message = 'no'): (() => Promise<never>) => async () => { throw new CetusError(kind, message); };
