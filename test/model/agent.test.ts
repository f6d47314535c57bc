/**
 * Random tasks against an agent that is killed at any call of its runtime, network, images or control plane, before or after the call
 * took effect, and started anew on the same directory. Whoever asked repeats the same job and step until it is answered, as a runner does.
 *
 * Held at the end: reports complete and in order, generations rising, start and die alternating; every line of every run in the log
 * exactly once; what the agent says runs is what the runtime has; nothing left of what was removed.
 */
import {existsSync, mkdtempSync, readdirSync, readFileSync, rmSync} from 'node:fs';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import fc from 'fast-check';
import {type Clock, systemClock} from '../../lib/base/clock';
import {silentLog} from '../../lib/base/log';
import {type Agent, createAgent} from '../../lib/agent/agent';
import {createFakeNetworking} from '../../lib/agent/network/fake';
import {createFakeRuntime} from '../../lib/agent/runtime/fake';
import type {Runtime, RuntimeEvent} from '../../lib/agent/runtime/runtime';
import type {TaskBody, TaskAnswer} from '../../lib/schema/agent';
import {makeSpec, plainSpecs, RecordingSink, testFacts, testImages, until} from '../agent/node';
import {ofLong} from '../harness/long';

jest.setTimeout(240_000);

const NEVER = new Promise<never>(() => undefined);

/** One life of the agent: dies at its `lethal`th call, and nothing that it awaits comes back afterwards. */
class Life {
  dead = false;
  private calls = 0;
  private readonly onDeath: (() => void)[] = [];
  readonly death = new Promise<void>((resolve) => this.onDeath.push(resolve));

  constructor(private lethal: number) {}

  /** From now on it lives. */
  spare(): void {
    this.lethal = Infinity;
  }

  die(): void {
    this.dead = true;
    for (const tell of this.onDeath) tell();
  }

  wrap<T extends object>(parts: T): T {
    return new Proxy(parts, {
      get: (target, key) => {
        const value = Reflect.get(target, key) as unknown;
        if (typeof value !== 'function') return value;
        if (key === 'events') return (signal: AbortSignal) => this.events(target as unknown as Runtime, signal);
        if (key === 'now' || key === 'nowNs') return value.bind(target) as unknown;
        return (...args: unknown[]) => this.call(() => (value as (...a: unknown[]) => unknown).apply(target, args));
      },
    });
  }

  private async call(real: () => unknown): Promise<unknown> {
    this.tick();
    if (this.dead) return NEVER;
    let outcome: {value: unknown} | {err: unknown};
    try {
      outcome = {value: await real()};
    } catch (err) {
      outcome = {err};
    }
    this.tick();
    if (this.dead) return NEVER;
    if ('err' in outcome) throw outcome.err;
    return outcome.value;
  }

  private tick(): void {
    this.calls += 1;
    if (this.calls === this.lethal) this.die();
  }

  private async *events(runtime: Runtime, signal: AbortSignal): AsyncGenerator<RuntimeEvent> {
    for await (const event of runtime.events(signal)) {
      if (this.dead) return;
      yield event;
    }
  }
}

/** Fifty times as fast for processes and back-offs. What a dead agent, or a process that outlives its world, still waits for keeps nobody. */
const fastClock: Clock = {
  now: () => systemClock.now(),
  nowNs: () => systemClock.nowNs(),
  sleep: (ms, signal) => new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(signal.reason as Error);
    const onAbort = (): void => {
      clearTimeout(timer);
      reject(signal!.reason as Error);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener('abort', onAbort);
      resolve();
    }, Math.min(ms, 1e9) / 50).unref();
    signal?.addEventListener('abort', onAbort, {once: true});
  }),
};

class World {
  readonly dataDir = mkdtempSync(join(tmpdir(), 'cetus-agent-model-'));
  readonly clock = fastClock;
  readonly runtime = createFakeRuntime({clock: this.clock});
  /** Processes that began, by container. */
  readonly starts = new Map<string, number>();
  readonly network = createFakeNetworking();
  readonly sink = new RecordingSink();
  agent!: Agent;
  private life!: Life;
  private jobs = 0;
  crashes = 0;

  constructor(private readonly lethal: number[]) {
    const startTask = this.runtime.startTask.bind(this.runtime);
    this.runtime.startTask = async (id) => {
      await startTask(id);
      this.starts.set(id, (this.starts.get(id) ?? 0) + 1);
    };
  }

  async boot(): Promise<void> {
    for (;;) {
      const life = (this.life = new Life(this.lethal.shift() ?? Infinity));
      const agent = createAgent({
        facts: testFacts(), runtime: life.wrap(this.runtime), network: life.wrap(this.network), images: life.wrap(testImages), specs: plainSpecs, dataDir: this.dataDir,
        log: silentLog(), clock: life.wrap(this.clock), controlPlane: life.wrap(this.sink), bootId: 'b1',
      });
      this.agent = agent;
      const opened = await Promise.race([agent.open().then(() => true), life.death.then(() => false)]);
      if (opened && !life.dead) {
        agent.report();
        return;
      }
      await this.bury();
    }
  }

  /** What the kernel does with a dead process: its file descriptors are closed. */
  private async bury(): Promise<void> {
    this.crashes += 1;
    for (const unit of this.agent.supervisor.units.values()) await unit.abandon();
  }

  /** As a runner: the same job and step until there is an answer. */
  async task(body: TaskBody): Promise<TaskAnswer> {
    const jobId = `job-${(this.jobs += 1)}`;
    for (;;) {
      const answer = await Promise.race([this.agent.task({jobId, step: 's', epoch: 1, requestId: 'r', body}), this.life.death]);
      if (answer && !this.life.dead) return answer;
      await this.bury();
      await this.boot();
    }
  }

  /** Revives the agent if it died between tasks. */
  async alive(): Promise<void> {
    if (!this.life.dead) return;
    await this.bury();
    await this.boot();
  }

  /** Every report has arrived; the agent may die on the way. */
  async settled(): Promise<void> {
    for (;;) {
      await this.alive();
      const arrived = await Promise.race([this.agent.settled().then(() => true), this.life.death.then(() => false)]);
      if (arrived && !this.life.dead) return;
    }
  }

  async end(): Promise<void> {
    this.lethal.length = 0;
    this.life.spare();
    await this.alive();
    await this.agent.close();
    for (const {id} of await this.runtime.list()) await this.runtime.kill(id, '', 9).catch(() => undefined);
    rmSync(this.dataDir, {recursive: true, force: true});
  }
}

type Kind = 'talks' | 'stays' | 'flashes';
type Step = {do: 'create' | 'start' | 'stop' | 'kill' | 'remove' | 'pause' | 'unpause' | 'wait'; kind: Kind};
/** What each kind of container runs, how many lines a whole run writes, and with which code it ends by itself. */
const KINDS = {
  talks: {cmd: ['sh', '-c', `${Array.from({length: 6}, (_, i) => `echo line-${i}`).join('; sleep 0.05; ')}; exit 3`], lines: 6, policy: {Name: 'on-failure', MaximumRetryCount: 2}},
  stays: {cmd: ['sh', '-c', 'trap "exit 0" TERM; echo line-0; sleep 1000'], lines: 1, policy: {Name: 'unless-stopped'}},
  // Over before the agent has written that it started.
  flashes: {cmd: ['sh', '-c', 'echo line-0; exit 3'], lines: 1, policy: {Name: 'no'}},
} as const;
const OWN_EXIT = '3';

const steps = fc.array(fc.record<Step>({do: fc.constantFrom('create', 'start', 'start', 'stop', 'kill', 'remove', 'pause', 'unpause', 'wait', 'wait'), kind: fc.constantFrom<Kind>('talks', 'stays', 'flashes')}), {minLength: 3, maxLength: 14});
const crashes = fc.array(fc.integer({min: 1, max: 60}), {maxLength: 6});

function bodyOf({do: what, kind}: Step, id: string): TaskBody | undefined {
  switch (what) {
    case 'create': return {kind: 'container.create', volumes: [], spec: makeSpec(id, [...KINDS[kind].cmd], {hostConfig: {RestartPolicy: KINDS[kind].policy}})};
    case 'start': return {kind: 'container.start', containerId: id, networks: [], attachments: [], ports: []};
    case 'stop': return {kind: 'container.stop', containerId: id, timeoutSeconds: 1, signal: null};
    case 'kill': return {kind: 'container.kill', containerId: id, signal: 'KILL'};
    case 'remove': return {kind: 'container.remove', containerId: id, force: true};
    case 'pause': return {kind: 'container.pause', containerId: id};
    case 'unpause': return {kind: 'container.unpause', containerId: id};
    case 'wait': return undefined;
  }
}

async function play(script: Step[], lethal: number[]): Promise<number> {
  const world = new World([...lethal]);
  try {
    await world.boot();
    const there = new Map<Kind, string>();
    let made = 0;
    for (const step of script) {
      await world.alive();
      const {kind} = step;
      if (step.do === 'create' && there.has(kind)) continue;
      const id = step.do === 'create' ? `${kind}-${(made += 1)}` : there.get(kind) ?? 'nobody';
      const body = bodyOf(step, id);
      if (!body) {
        await new Promise((resolve) => setTimeout(resolve, 3));
        continue;
      }
      const answer = await world.task(body);
      if (!answer.ok) expect(['conflict', 'notFound', 'notModified']).toContain(answer.error.kind);
      if (step.do === 'create') there.set(kind, id);
      if (step.do === 'remove') there.delete(kind);
    }
    await world.alive();
    for (const id of there.values()) await world.task({kind: 'container.unpause', containerId: id});
    const ids = [...there.values()].sort();
    // Everything comes to rest: what ends by itself has ended, what stays runs or does not.
    await until('at rest', async () => {
      await world.alive();
      const units = [...world.agent.supervisor.units.values()];
      // Behind the answer to a removal, and in the next life where a crash came between, there is still something to take away.
      if (!(await onlyTheseAreLeft(world, ids))) return false;
      const states = await Promise.all(units.map(async (unit) => [unit.id, unit.observation.status, (await world.runtime.state(unit.id)).status] as const));
      return states.every(([id, seen, real]) => seen !== 'restarting' && !(!id.startsWith('stays') && seen === 'running') && (seen === 'running' ? real === 'running' : real === 'none'));
    });
    await world.settled();
    checkReports(world);
    await checkNode(world, ids);
    return world.crashes;
  } finally {
    await world.end();
  }
}

async function onlyTheseAreLeft(world: World, ids: string[]): Promise<boolean> {
  const left = [...world.agent.supervisor.units.keys(), ...readdirSync(join(world.dataDir, 'containers')), ...(await world.runtime.list()).map(({id}) => id), ...await world.network.sandboxes()];
  return left.every((id) => ids.includes(id));
}

function checkReports(world: World): void {
  expect(world.sink.reports_.map((report) => report.seq)).toEqual(world.sink.reports_.map((_, i) => i + 1));
  const running = new Map<string, boolean>();
  const generation = new Map<string, number>();
  for (const report of world.sink.reports_) {
    if (report.kind !== 'container') continue;
    const {containerId} = report.observation;
    expect(report.observation.generation).toBeGreaterThan(generation.get(containerId) ?? 0);
    generation.set(containerId, report.observation.generation);
    if (report.action === 'start') expect(running.get(containerId) ?? false).toBe(false);
    if (report.action === 'die') expect(running.get(containerId)).toBe(true);
    if (report.action === 'start' || report.action === 'die') running.set(containerId, report.action === 'start');
  }
}

async function checkNode(world: World, ids: string[]): Promise<void> {
  expect([...world.agent.supervisor.units.keys()].sort()).toEqual(ids);
  expect(readdirSync(join(world.dataDir, 'containers')).sort()).toEqual(ids);
  // A container that has never run may have no snapshot yet: it is made behind create's answer, or by the start where a crash came between.
  const inRuntime = (await world.runtime.list()).map((container) => container.id);
  expect(inRuntime.filter((id) => !ids.includes(id))).toEqual([]);
  expect(ids.filter((id) => world.starts.has(id) && !inRuntime.includes(id))).toEqual([]);
  for (const sandbox of await world.network.sandboxes()) expect(world.agent.supervisor.unit(sandbox).observation.status).toBe('running');
  for (const id of ids) {
    const reports = world.sink.reports_.flatMap((report) => (report.kind === 'container' && report.observation.containerId === id ? [report] : []));
    // Every process that ever began was told of: no exit goes unseen.
    expect(reports.filter((report) => report.action === 'start')).toHaveLength(world.starts.get(id) ?? 0);
    const whole = KINDS[id.split('-')[0] as Kind].lines;
    const runs = runsIn(join(world.dataDir, 'containers', id, `${id}-json.log`));
    // A run may be cut short by a kill, never by a crash of the agent.
    expect(runs.filter((lines) => lines === whole).length).toBeGreaterThanOrEqual(reports.filter((report) => report.action === 'die' && report.attributes.exitCode === OWN_EXIT).length);
  }
}

/** Numbers of lines that the runs wrote; within a run each line comes once and in order. */
function runsIn(path: string): number[] {
  const runs: number[] = [];
  if (!existsSync(path)) return runs;
  for (const entry of readFileSync(path, 'utf8').split('\n').filter(Boolean)) {
    const {log} = JSON.parse(entry) as {log: string};
    if (log === 'line-0\n') runs.push(0);
    expect(log).toBe(`line-${runs.at(-1)}\n`);
    runs[runs.length - 1]! += 1;
  }
  return runs;
}

test('random tasks and crashes at any call leave nothing half-done', async () => {
  let crashed = 0;
  await fc.assert(fc.asyncProperty(steps, crashes, async (script, lethal) => {
    crashed += await play([{do: 'create', kind: 'talks'}, {do: 'create', kind: 'stays'}, {do: 'create', kind: 'flashes'}, ...script], lethal);
  }), {numRuns: Number(process.env.CETUS_MODEL_RUNS ?? ofLong(30, 60))});
  expect(crashed).toBeGreaterThan(ofLong(10, 20));
});

test.each<Kind>(['stays', 'talks', 'flashes'])('the life of one that %s is crashed at each of its calls, before and after', async (kind) => {
  const life: Step['do'][] = ['create', 'start', 'stop', 'start', 'wait', 'stop'];
  for (let at = 1; at <= 40; at += 1) {
    await play(life.map((what) => ({do: what, kind})), [at]);
    await play([...life, 'remove' as const].map((what) => ({do: what, kind})), [at, at]);
  }
});
