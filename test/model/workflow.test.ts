/**
 * Several runners over one store, with a simulated clock and seeded trouble: processes that die before and after writes and come back, that
 * sleep through their leases, answers that are lost, cancels, acts and undos that fail or take long. Whatever the schedule:
 *  - no act runs in two runners in the same epoch, and a target is never in the hands of two jobs;
 *  - every job ends, with nobody's help but time's, and no lock is left;
 *  - a job that succeeded has its effect exactly once; one that did not has none.
 */
import {CetusError} from '../../lib/base/errors';
import {silentLog} from '../../lib/base/log';
import {createMemoryMoray} from '../../lib/moray/memory';
import {BUCKETS} from '../../lib/schema/buckets';
import type {Job} from '../../lib/schema/job';
import type {Chain} from '../../lib/workflow/chain';
import {createWorkflow, type RunningWorkflow} from '../../lib/workflow/workflow';
import {Connection, SeqIds, seeded, SimClock, type Fate} from '../workflow/world';

const THINGS = {name: 'things', version: 1, fields: {}} as const;
const SEEDS = Number(process.env['CETUS_MODEL_SEEDS'] ?? 30);
const TARGETS = 3;

interface Process { workflow: RunningWorkflow; connection: Connection; name: string }
interface Thing { count: number; by: string[] }

class Model {
  readonly clock = new SimClock();
  readonly store = createMemoryMoray({clock: this.clock});
  readonly random: () => number;
  readonly wrong: string[] = [];
  /** What the world outside holds: made by acts, taken back by undos, each repeatable. */
  readonly outside = new Map<string, Set<string>>();
  /** job -> who is acting now, in which epoch */
  private readonly acting = new Map<string, {epoch: number; by: string}[]>();
  private readonly highest = new Map<string, number>();
  private calm = false;
  private incarnations = 0;

  constructor(seed: number) {
    this.random = seeded(seed);
  }

  chance(p: number): boolean {
    return !this.calm && this.random() < p;
  }

  chain(by: () => string): Chain<{id: string}, unknown> {
    return {
      name: 'm', version: 1, target: (p) => `thing/${p.id}`,
      steps: [
        {
          kind: 'plan', name: 'count',
          plan: async (ctx) => {
            if (this.chance(0.05)) throw new CetusError('conflict', 'refused');
            const stored = await ctx.moray.peek<Thing>('things', ctx.params.id);
            const value: Thing = {count: (stored?.value.count ?? 0) + 1, by: [...(stored?.value.by ?? []), ctx.job.id]};
            return {output: null, writes: [{op: 'put', bucket: 'things', key: ctx.params.id, value, etag: stored?.etag ?? null}]};
          },
          undo: async (ctx) => {
            const stored = await ctx.moray.get<Thing>('things', ctx.params.id);
            if (!stored.value.by.includes(ctx.job.id)) this.wrong.push(`${ctx.job.id} undoes a plan twice`);
            return {writes: [{op: 'put', bucket: 'things', key: ctx.params.id, value: {count: stored.value.count - 1, by: stored.value.by.filter((j) => j !== ctx.job.id)}, etag: stored.etag}]};
          },
        },
        this.act('first', by),
        {kind: 'plan', name: 'between', plan: async () => ({output: null, writes: []})},
        this.act('second', by),
        {kind: 'plan', name: 'end', plan: async () => ({output: null, writes: []})},
      ],
    };
  }

  private act(name: string, by: () => string): Chain<{id: string}, unknown>['steps'][number] {
    const during = async (jobId: string, epoch: number, work: () => Promise<void>): Promise<void> => {
      const mine = {epoch, by: by()};
      const others = this.acting.get(jobId) ?? [];
      const clash = others.find((o) => o.epoch === epoch && o.by !== mine.by);
      if (clash) this.wrong.push(`job ${jobId}: ${mine.by} and ${clash.by} act in epoch ${epoch}`);
      this.acting.set(jobId, [...others, mine]);
      try {
        await work();
      } finally {
        this.acting.set(jobId, this.acting.get(jobId)!.filter((a) => a !== mine));
      }
    };
    // The node: refuses an older epoch, does the rest at once and repeatably.
    const order = (jobId: string, epoch: number, apply: (held: Set<string>) => void): void => {
      if (epoch < (this.highest.get(jobId) ?? 0)) throw new CetusError('stale', 'an older epoch');
      this.highest.set(jobId, epoch);
      const held = this.outside.get(jobId) ?? new Set();
      apply(held);
      this.outside.set(jobId, held);
    };
    return {
      kind: 'act', name, timeoutMs: 30_000,
      do: (ctx) => during(ctx.job.id, ctx.epoch, async () => {
        if (this.chance(0.15)) await this.clock.sleep(this.random() * 20_000, ctx.signal);
        if (this.chance(0.08)) throw new CetusError('unavailable', 'no answer before');
        order(ctx.job.id, ctx.epoch, (held) => held.add(name));
        if (this.chance(0.08)) throw new CetusError('timeout', 'no answer after');
        if (this.chance(0.06)) throw new CetusError('internal', 'failed');
      }),
      undo: (ctx) => during(ctx.job.id, ctx.epoch, async () => {
        if (this.chance(0.2)) throw new CetusError('unavailable', 'undo: no answer');
        order(ctx.job.id, ctx.epoch, (held) => held.delete(name));
      }),
    };
  }

  async process(): Promise<Process> {
    this.incarnations += 1;
    const name = `runner-${this.incarnations}`;
    const connection = new Connection(this.store);
    // Each life has its fates written in advance: some writes go unheard, one may be the last.
    for (let n = 1; n < 60; n += 1) {
      const roll = this.calm ? 1 : this.random();
      const fate: Fate | undefined = roll < 0.02 ? 'die-before' : roll < 0.04 ? 'die-after' : roll < 0.06 ? 'unheard-before' : roll < 0.08 ? 'unheard-after' : undefined;
      if (fate) connection.doom(n, fate);
    }
    const workflow = createWorkflow({
      moray: connection, chains: [this.chain(() => name)], services: {}, runnerId: name, log: silentLog(), clock: this.clock, ids: new SeqIds(this.incarnations),
      random: this.random, leaseMs: 6000, pollMs: 1000, limits: {undoTries: 40, unansweredUndoTries: 40},
    });
    await workflow.start();
    return {workflow, connection, name};
  }

  async run(): Promise<void> {
    await this.store.open(BUCKETS.jobs, BUCKETS.locks, THINGS);
    let processes: Process[] = await Promise.all([this.process(), this.process(), this.process()]);
    for (let n = 0; n < 25; n += 1) {
      const p = processes[Math.floor(this.random() * processes.length)]!;
      const request = {workflow: 'm', account: 'a', params: {id: `t${Math.floor(this.random() * TARGETS)}`}, requestId: `r${n}`, lockWaitMs: 20_000};
      void (this.random() < 0.7 ? p.workflow.run(request) : p.workflow.enqueue(request)).catch(() => undefined);
      await this.clock.pass(this.random() * 3000);
      if (this.chance(0.2)) await this.cancelOne();
      if (this.chance(0.1)) p.connection.kill();
      processes = await Promise.all(processes.map((q) => (q.connection.dead && this.random() < 0.5 ? this.process() : q)));
      await this.noTwoHolders();
    }
    // Trouble ends; two healthy runners are all that is needed.
    this.calm = true;
    processes.push(await this.process(), await this.process());
    for (let n = 0; n < 60 && !(await this.allEnded()); n += 1) await this.clock.pass(5000);
    for (const p of processes) if (!p.connection.dead) await this.clock.until(p.workflow.stop(0));
  }

  private async cancelOne(): Promise<void> {
    const open = (await this.jobs()).filter((j) => j.execution === 'running' || j.execution === 'queued');
    const job = open[Math.floor(this.random() * open.length)];
    if (!job) return;
    const stored = await this.store.get<Job>('jobs', job.id);
    await this.store.put('jobs', job.id, {...stored.value, cancelRequested: true}, {etag: stored.etag});
  }

  private async noTwoHolders(): Promise<void> {
    const open = (await this.jobs()).filter((j) => j.execution === 'running' || j.execution === 'unwinding' || j.execution === 'queued');
    const targets = open.map((j) => j.target);
    if (new Set(targets).size !== targets.length) this.wrong.push(`two jobs on one target: ${open.map((j) => `${j.id} ${j.target}`).join(', ')}`);
  }

  async jobs(): Promise<Job[]> { return (await this.store.list<Job>('jobs', '(&)')).map((r) => r.value); }
  async allEnded(): Promise<boolean> { return (await this.jobs()).every((j) => ['succeeded', 'failed', 'canceled'].includes(j.execution)); }

  async check(): Promise<void> {
    const jobs = await this.jobs();
    for (const job of jobs) {
      if (!['succeeded', 'failed', 'canceled'].includes(job.execution)) this.wrong.push(`job ${job.id} is ${job.execution}: ${JSON.stringify(job.steps)}`);
      const held = [...(this.outside.get(job.id) ?? [])].sort();
      const wanted = job.execution === 'succeeded' ? ['first', 'second'] : [];
      if (held.join() !== wanted.join()) this.wrong.push(`job ${job.id} is ${job.execution} and holds ${held.join()}`);
    }
    for (const lock of await this.store.list('locks', '(&)')) this.wrong.push(`lock ${lock.key} is left`);
    const succeeded = new Set(jobs.filter((j) => j.execution === 'succeeded').map((j) => j.id));
    const counted: string[] = [];
    for (const {value} of await this.store.list<Thing>('things', '(&)')) {
      counted.push(...value.by);
      if (value.count !== value.by.length) this.wrong.push(`counted ${value.count}, not ${value.by.length}`);
    }
    if (counted.length !== succeeded.size || counted.some((id) => !succeeded.has(id))) this.wrong.push(`counted ${counted.join()} of ${[...succeeded].join()}`);
  }
}

describe('runners in trouble', () => {
  it.each(Array.from({length: SEEDS}, (_, n) => n + 1))('seed %i', async (seed) => {
    const model = new Model(seed);
    await model.run();
    await model.check();
    expect(model.wrong).toEqual([]);
    expect((await model.jobs()).length).toBeGreaterThan(5);
  });
});
