/**
 * A compute node: its kernel and containerd, in which processes live; its agent, which dies and comes again; its guard. The agent's heartbeats and fencing are the real ones; what a unit of lib/agent does with
 * them is told here in few words (a start is let go in two steps, a policy starts again what ended, all of it under the permit).
 */
import {CetusError} from '../../../lib/base/errors';
import {silentLog} from '../../../lib/base/log';
import {Fencing} from '../../../lib/agent/fencing/fencing';
import type {Guard} from '../../../lib/agent/fencing/guard-link';
import {HeartbeatLoop} from '../../../lib/agent/heartbeat';
import type {ReportSink} from '../../../lib/agent/parts';
import type {NodeFacts} from '../../../lib/schema/node';
import {someFacts} from '../../fleet/objects';
import {Life} from '../manatee/life';
import {ask, ProcessClock, type Quartz} from './process';
import type {World} from './world';

const GUARD_LOOK_MS = 250;
const BACKOFF_MS = 100;
const CALL_MS = 4_000;

/** What is on the node's disk of a container, and its process. */
export interface Unit { id: string; marked: boolean; desired: boolean; process: 'none' | 'created' | 'running'; launching: boolean }

interface Answer { ok: true }

export class Machine {
  readonly units = new Map<string, Unit>();
  readonly quartz: Quartz;
  /** What is outside of every process of ours: containers, containerd. */
  kernel: Life;
  agent: Agent | undefined;
  /** The guard's files; they are of one boot. */
  lease: {untilMs: number; guardAtMs: number} | undefined;
  readonly marks = new Set<string>();
  bootGeneration = 0;
  frozen = 0;
  wokeMs = -Infinity;
  slowMs = 0;
  private guard: Life;
  /** (job, step) to the first answer; job to the highest epoch. */
  readonly ledger = new Map<string, Answer>();
  readonly epochs = new Map<string, number>();

  constructor(readonly world: World, readonly name: string) {
    const {random, timeline} = world;
    this.quartz = {rate: 1 + random.between(-0.004, 0.004), offsetMs: random.between(0, 1e7)};
    this.kernel = new Life(timeline);
    this.guard = new Life(timeline);
    this.guardLoop();
    this.startAgent();
  }

  get alive(): boolean {
    return this.agent !== undefined && !this.agent.life.dead;
  }

  bootTimeMs(): number {
    return this.quartz.offsetMs + this.world.timeline.nowMs * this.quartz.rate;
  }

  running(id: string): boolean {
    return this.frozen === 0 && this.units.get(id)?.process === 'running';
  }

  startAgent(): void {
    if (this.alive) return;
    this.bootGeneration += 1;
    this.agent = new Agent(this);
    this.agent.begin();
  }

  killAgent(): void {
    this.agent?.life.die();
  }

  /** Everything stands still, and time goes on. */
  freeze(): () => void {
    this.frozen += 1;
    for (const life of this.lives()) life.stop();
    return () => {
      this.frozen -= 1;
      this.wokeMs = this.world.timeline.nowMs;
      // Those that were made meanwhile stand still as often.
      for (const life of this.lives()) life.proceed();
      this.world.checker.woke(this);
    };
  }

  private lives(): Life[] {
    return [this.kernel, this.guard, ...(this.agent ? [this.agent.life] : [])];
  }

  /** As still as the machine is. */
  newLife(): Life {
    const life = new Life(this.world.timeline);
    for (let i = 0; i < this.frozen; i += 1) life.stop();
    return life;
  }

  /** The disk stays; no process does. */
  reboot(): void {
    this.agent?.life.die();
    this.kernel.die();
    this.guard.die();
    this.kernel = this.newLife();
    this.guard = this.newLife();
    for (const unit of this.units.values()) Object.assign(unit, {process: 'none', launching: false});
    this.lease = undefined;
    if (!this.world.mutant.noGuard) this.guardLoop();
    this.world.timeline.after(this.world.random.between(500, 20_000), () => this.startAgent());
  }

  /** By whoever: takes the kernel a moment. */
  kill(ids: readonly string[]): Promise<void> {
    const {kernel} = this;
    return new Promise((resolve) => kernel.after(this.world.random.between(1, 40), () => {
      for (const id of ids) this.ended(id);
      resolve();
    }));
  }

  ended(id: string): void {
    const unit = this.units.get(id);
    if (!unit || unit.process === 'none') return;
    unit.process = 'none';
    const {agent} = this;
    agent?.life.deliver(() => agent.ended(id));
  }

  createTask(id: string): Promise<void> {
    return new Promise((resolve) => this.kernel.after(this.takesMs(), () => {
      const unit = this.units.get(id);
      if (unit?.process === 'none') unit.process = 'created';
      resolve();
    }));
  }

  startTask(id: string): Promise<void> {
    return new Promise((resolve, reject) => this.kernel.after(this.takesMs(), () => {
      const unit = this.units.get(id);
      if (unit?.process !== 'created') return reject(new CetusError('notFound', 'the process is gone'));
      unit.process = 'running';
      this.world.trace(this.name, () => `${id} runs`);
      this.world.checker.began(this, id);
      resolve();
    }));
  }

  private takesMs(): number {
    return this.world.random.between(5, 60) + (this.slowMs ? this.world.random.between(0, this.slowMs) : 0);
  }

  /** lib/agent/fencing/guard.ts over these files. */
  private guardLoop(): void {
    const {guard} = this;
    const look = (): void => {
      if (this.lease && this.bootTimeMs() >= this.lease.guardAtMs && !this.world.mutant.noGuard) {
        const found = [...this.marks].filter((id) => this.units.get(id)?.process !== 'none' && this.units.has(id));
        if (found.length) {
          this.world.trace(`${this.name}/guard`, () => `kills ${found.join(' ')}`);
          void this.kill(found);
        }
      }
      guard.after(GUARD_LOOK_MS / this.quartz.rate, look);
    };
    guard.after(this.world.random.between(0, GUARD_LOOK_MS), look);
  }
}

export class Agent {
  readonly life: Life;
  readonly clock: ProcessClock;
  readonly facts: NodeFacts;
  readonly fencing: Fencing;
  private readonly heartbeat: HeartbeatLoop;
  private readonly never = new AbortController().signal;
  private endpoint = 0;

  constructor(readonly machine: Machine) {
    const {world, name} = machine;
    this.life = machine.newLife();
    this.clock = new ProcessClock(this.life, machine.quartz);
    this.facts = someFacts({nodeId: name, name, agentUrl: `https://${name}`, bootGeneration: machine.bootGeneration});
    const {mutant} = world;
    this.fencing = new Fencing({
      clock: this.clock, log: silentLog(), guard: this.guard(), nowMs: () => machine.bootTimeMs(),
      running: () => [...machine.units.values()].filter((unit) => unit.marked && (unit.process !== 'none' || unit.launching)).map((unit) => unit.id),
      kill: (ids) => machine.kill(ids),
    });
    this.heartbeat = new HeartbeatLoop({
      sink: this.sink(), clock: this.clock, log: silentLog(), facts: () => this.facts, reportSeq: () => 0, running: () => 0,
      joined: () => this.fencing.joined(),
      assign: () => this.assign(),
      leaseClockMs: () => machine.bootTimeMs(),
      renewed: (sentMs, answer) => this.fencing.renewed(mutant.countFromAnswer ? machine.bootTimeMs() : sentMs, answer),
      fenced: async () => {
        world.trace(name, () => `life ${this.facts.bootGeneration} was fenced`);
        await this.fencing.lifeOver();
        machine.bootGeneration += 1;
        this.facts.bootGeneration = machine.bootGeneration;
      },
    });
  }

  begin(): void {
    const {machine} = this;
    machine.world.trace(machine.name, () => `agent of generation ${this.facts.bootGeneration} begins`);
    this.fencing.marks(new Set([...machine.units.values()].filter((unit) => unit.marked).map((unit) => unit.id)));
    this.fencing.begin();
    for (const unit of machine.units.values()) {
      unit.launching = false;
      // What a life before had made and not let go is nobody's.
      if (unit.process === 'created') void machine.kill([unit.id]);
      else if (unit.process === 'none' && unit.desired) this.again(unit);
    }
    this.heartbeat.begin();
  }

  /** A task, through the ledger. */
  async order(step: 'create' | 'start' | 'remove', id: string, job: string, epoch: number): Promise<Answer> {
    const {machine} = this;
    if (epoch < (machine.epochs.get(job) ?? 0)) throw new CetusError('stale', 'an older epoch');
    machine.epochs.set(job, epoch);
    const key = `${job}/${step}`;
    const known = machine.ledger.get(key);
    if (known) return known;
    await this.perform(step, id);
    machine.ledger.set(key, {ok: true});
    return {ok: true};
  }

  ended(id: string): void {
    const unit = this.machine.units.get(id);
    if (unit?.desired && !unit.launching) this.again(unit);
  }

  private async perform(step: 'create' | 'start' | 'remove', id: string): Promise<void> {
    const {machine} = this;
    const unit = machine.units.get(id);
    switch (step) {
      case 'create':
        this.fencing.mark(id);
        if (!unit) machine.units.set(id, {id, marked: true, desired: false, process: 'none', launching: false});
        return;
      case 'start':
        if (!unit) throw new CetusError('notFound', `no such container ${id}`);
        this.fencing.mustPermit(id);
        unit.desired = true;
        if (unit.process !== 'running') await this.launch(unit);
        return;
      case 'remove':
        if (!unit) return;
        unit.desired = false;
        await machine.kill([id]);
        // One that was being made meanwhile.
        while (unit.launching || unit.process !== 'none') {
          await this.clock.sleep(50);
          if (unit.process !== 'none') await machine.kill([id]);
        }
        machine.units.delete(id);
        this.fencing.unmark(id);
        return;
    }
  }

  private async launch(unit: Unit): Promise<void> {
    const {machine, fencing} = this;
    if (unit.launching) throw new CetusError('unavailable', 'it is being started');
    unit.launching = true;
    try {
      await machine.createTask(unit.id);
      if (!unit.desired) throw new CetusError('conflict', 'it was removed');
      fencing.mustPermit(unit.id);
      await machine.startTask(unit.id);
    } catch (err) {
      if (unit.process === 'created') await machine.kill([unit.id]);
      throw err;
    } finally {
      unit.launching = false;
    }
  }

  /** The restart policy. */
  private again(unit: Unit): void {
    const {machine, fencing} = this;
    const blind = machine.world.mutant.bootStarts;
    void this.clock.sleep(BACKOFF_MS).then(() => (blind ? undefined : fencing.permitted(unit.id, this.never))).then(async () => {
      if (!unit.desired || unit.process !== 'none' || unit.launching || !machine.units.has(unit.id)) return;
      await (blind ? this.launchBlindly(unit) : this.launch(unit)).catch(() => this.again(unit));
    });
  }

  private async launchBlindly(unit: Unit): Promise<void> {
    await this.machine.createTask(unit.id);
    await this.machine.startTask(unit.id);
  }

  private async assign(): Promise<void> {
    const {machine} = this;
    const known = [...machine.units.keys()];
    if (!known.length || machine.world.mutant.noAssignments) return this.fencing.assignedTo([]);
    const {own, moved} = await this.sink().assignments!({nodeId: machine.name, bootGeneration: this.facts.bootGeneration, containers: known});
    for (const id of moved) await this.perform('remove', id);
    const settled = new Set([...own, ...moved]);
    this.fencing.assignedTo(known.filter((id) => !settled.has(id)));
  }

  private guard(): Guard {
    const {machine} = this;
    return {
      left: () => machine.lease, extend: (untilMs, guardAtMs) => {
        machine.world.trace(machine.name, () => `lease for another ${Math.round(untilMs - machine.bootTimeMs())} ms`);
        machine.lease = {untilMs, guardAtMs};
      },
      mark: (id) => void machine.marks.add(id), unmark: (id) => void machine.marks.delete(id), marked: () => [...machine.marks], close: () => undefined,
    };
  }

  /** As control-plane.ts: one endpoint until it does not answer, then the next. */
  private sink(): ReportSink {
    const {world, name} = this.machine;
    const turn = async <T>(call: (endpoint: typeof world.endpoints[number]) => Promise<T>): Promise<T> => {
      for (let tries = 1; ; tries += 1) {
        const asked = this.endpoint % world.endpoints.length;
        try {
          return await ask(world.ways, {name, life: this.life}, world.endpoints[asked]!, CALL_MS, () => call(world.endpoints[asked]!));
        } catch (err) {
          const {kind} = err as CetusError;
          if (kind !== 'unavailable' && kind !== 'timeout') throw err;
          this.endpoint = asked + 1;
          if (tries >= world.endpoints.length) throw err;
        }
      }
    };
    return {
      join: (facts) => turn((endpoint) => endpoint.registry.join(structuredClone(facts))),
      heartbeat: (beat) => turn((endpoint) => endpoint.review.heartbeat(beat)),
      assignments: (question) => turn((endpoint) => endpoint.assignments(question)),
      reports: async () => ({ackedSeq: 0}),
      close: async () => undefined,
    };
  }
}
