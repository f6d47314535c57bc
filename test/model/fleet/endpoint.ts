/**
 * An endpoint: the real registry, leases, review and assignments over its own way to the store, and a few lines in place of the chains: a container is assigned in a batch that checks that its former node is fenced, or after what was
 * done on the node before has been taken back; made, then started; each job in one endpoint's hands until it stands still.
 */
import {isCetusError} from '../../../lib/base/errors';
import {silentLog} from '../../../lib/base/log';
import {assignments} from '../../../lib/fleet/assignments';
import {Registry} from '../../../lib/fleet/registry';
import {Review} from '../../../lib/fleet/review';
import type {BatchOp, Moray, Stored} from '../../../lib/moray/moray';
import type {AssignmentAnswer, AssignmentQuestion} from '../../../lib/schema/agent';
import {BUCKETS} from '../../../lib/schema/buckets';
import type {LeaseRow} from '../../../lib/schema/node';
import {Life} from '../manatee/life';
import {ask, ProcessClock, type Quartz} from './process';
import {storeOf} from './store';
import type {World} from './world';

const CONTAINERS = BUCKETS.containers.name;
const NODES = BUCKETS.nodes.name;
const LOOK_MS = 1_000;
const TASK_MS = 6_000;
/** A job whose row has not changed for so long is taken over. */
const STILL_MS = 30_000;

/** What is stored of a container here. `run`, `undo`: a job is at it. */
export interface Assigned { id: string; name: string; account: string; accountName: string; nodeId: string; phase: 'run' | 'undo' | 'up'; job: string; epoch: number; owner: string }

export class Endpoint {
  life: Life;
  registry!: Registry;
  review!: Review;
  private moray!: Moray;
  readonly quartz: Quartz;
  /** Wall clocks are somebody's setting. */
  readonly wallMs: number;
  private readonly under = new Set<string>();
  private readonly seen = new Map<string, {etag: string; atMs: number}>();
  private clock!: ProcessClock;
  private jobs = 0;

  constructor(readonly world: World, readonly name: string) {
    this.quartz = {rate: 1 + world.random.between(-0.004, 0.004), offsetMs: world.random.between(1e6, 1e7)};
    this.wallMs = world.random.between(-20_000, 20_000);
    this.life = new Life(world.timeline);
  }

  start(): void {
    const {world, name} = this;
    if (!this.life.dead && this.registry) return;
    if (this.life.dead) this.life = new Life(world.timeline);
    const {life} = this;
    this.clock = new ProcessClock(life, this.quartz);
    this.under.clear();
    const log = silentLog();
    const clock = this.clock;
    this.moray = storeOf(world.store, world.ways, this, {batch: (ops) => (world.mutant.unguardedFence ? withoutRows(ops) : ops), wrote: (ops) => world.wrote(this, ops)});
    const registry = new Registry({moray: this.moray, log, clock, endpoint: name, changed: (...of) => review.nodeChanged(...of)});
    const review: Review = new Review({
      moray: this.moray, log, clock, registry, endpoint: name, leaseMs: world.leaseMs, graceMs: 2 * world.leaseMs, fenceAfterMs: world.fenceAfterMs,
      nowMs: world.mutant.wallClocks ? () => world.timeline.nowMs + 1e6 + this.wallMs : () => clock.now(),
    });
    if (world.mutant.wallClocks) this.plantWallClocks(review);
    Object.assign(this, {registry, review});
    void this.begin(life);
  }

  kill(): void {
    this.life.die();
  }

  assignments(question: AssignmentQuestion): Promise<AssignmentAnswer> {
    return assignments(this.moray, question);
  }

  private async begin(life: Life): Promise<void> {
    for (;;) {
      try {
        await this.registry.start();
        await this.review.start();
        break;
      } catch {
        await this.clock.sleep(500);
      }
    }
    this.world.trace(this.name, () => 'serves');
    while (!life.dead) {
      await this.clock.sleep(LOOK_MS);
      if (this.review.reviews()) await this.look().catch(() => undefined);
    }
  }

  /** The evacuator, and the runner of jobs. */
  private async look(): Promise<void> {
    const {world} = this;
    for (const stored of await this.moray.list<Assigned>(CONTAINERS, '(&)')) {
      const c = stored.value;
      const known = this.seen.get(c.id);
      if (known?.etag !== stored.etag) this.seen.set(c.id, {etag: stored.etag, atMs: this.clock.now()});
      if (this.under.has(c.id)) continue;
      if (c.phase === 'up') {
        const {liveness} = this.registry.stored(c.nodeId)?.value ?? {};
        if (liveness === 'fenced' || (world.mutant.evacuateLost && liveness === 'lost')) this.hold(c.id, () => this.assign(stored, 'fenced'));
      } else if (c.owner === this.name || (known?.etag === stored.etag && this.clock.now() - known.atMs > STILL_MS)) this.hold(c.id, () => this.work(stored));
    }
  }

  private hold(id: string, work: () => Promise<unknown>): void {
    this.under.add(id);
    void work().catch(() => undefined).then(() => this.under.delete(id));
  }

  private put(stored: Stored<Assigned>, change: Partial<Assigned>): BatchOp {
    return {op: 'put', bucket: CONTAINERS, key: stored.key, value: {...stored.value, ...change}, etag: stored.etag};
  }

  private async write(stored: Stored<Assigned>, change: Partial<Assigned>, checks: BatchOp[] = []): Promise<Stored<Assigned>> {
    const results = await this.moray.batch([...checks, this.put(stored, change)]);
    return {...stored, value: {...stored.value, ...change}, etag: results.at(-1)!.etag!};
  }

  /** `fenced`: from a node that must still be so when it is written. `undone`: nothing of it is anywhere. */
  private async assign(stored: Stored<Assigned>, why: 'fenced' | 'undone'): Promise<void> {
    const {world, registry} = this;
    const checks: BatchOp[] = [];
    if (why === 'fenced') {
      const node = await registry.refresh(stored.value.nodeId);
      if (!node || (node.value.liveness !== 'fenced' && !world.mutant.evacuateLost)) return;
      checks.push({op: 'check', bucket: NODES, key: node.key, etag: node.etag});
    }
    const free = [...registry.all()].filter(({key, value}) => value.liveness === 'alive' && key !== stored.value.nodeId);
    if (!free.length) return;
    const to = world.random.pick(free).key;
    this.jobs += 1;
    const next = await this.write(stored, {nodeId: to, phase: 'run', job: `${this.name}-${this.jobs}-${Math.floor(world.timeline.nowMs)}`, epoch: 1, owner: this.name}, checks);
    world.trace(this.name, () => `${stored.key}: from ${stored.value.nodeId} (${why}) to ${to}`);
    await this.work(next);
  }

  private async work(given: Stored<Assigned>): Promise<void> {
    let stored = given;
    // A claim: agents refuse what an earlier one still has on its way.
    if (stored.value.owner !== this.name) stored = await this.write(stored, {owner: this.name, epoch: stored.value.epoch + 1});
    if (stored.value.phase === 'run') {
      try {
        await this.task(stored.value, 'create');
        await this.task(stored.value, 'start');
        await this.write(stored, {phase: 'up'});
        return;
      } catch (err) {
        if (isCetusError(err, 'etagConflict')) return;
        stored = await this.write(stored, {phase: 'undo', job: stored.value.job});
      }
    }
    for (let tries = 1; ; tries += 1) {
      const node = this.registry.stored(stored.value.nodeId);
      if (node?.value.liveness === 'fenced') return this.assign(stored, 'fenced');
      try {
        await this.task({...stored.value, job: `${stored.value.job}/undo-${stored.value.epoch}-${tries}-${this.name}`}, 'remove');
        return await this.assign(stored, 'undone');
      } catch (err) {
        if (isCetusError(err, 'etagConflict')) return;
        await this.clock.sleep(1_000);
      }
    }
  }

  private async task({nodeId, id, job, epoch}: Assigned, step: 'create' | 'start' | 'remove'): Promise<void> {
    const {world} = this;
    // As fleet.agent: only a node that is alive is given tasks.
    const liveness = this.registry.stored(nodeId)?.value.liveness;
    if (liveness !== 'alive') throw isGone(nodeId, liveness ?? 'unknown');
    const machine = world.machines.find((m) => m.name === nodeId)!;
    const {agent} = machine;
    if (!agent) throw isGone(nodeId, 'dead');
    await ask(world.ways, this, {name: nodeId, life: agent.life}, TASK_MS, () => agent.order(step, id, job, epoch));
  }

  /** The planted mistake: when a renewal was written, by the clock on its writer's wall. */
  private plantWallClocks(review: Review): void {
    const {renewals} = review as unknown as {renewals: {nodes: Map<string, {atMs: number}>; row(key: string, row: LeaseRow): void}};
    const row = renewals.row.bind(renewals);
    renewals.row = (key, value) => {
      const before = new Map([...renewals.nodes].map(([id, {atMs}]) => [id, atMs]));
      row(key, value);
      for (const [id, seen] of renewals.nodes) if (before.get(id) !== seen.atMs && Object.hasOwn(value.renewals, id)) seen.atMs = this.world.rowWallMs.get(key) ?? seen.atMs;
    };
  }
}

const isGone = (nodeId: string, why: string): Error => Object.assign(new Error(`${nodeId} is ${why}`), {kind: 'unavailable'});

/** The planted mistake: a fence that does not hold the rows. */
function withoutRows(ops: BatchOp[]): BatchOp[] {
  const fences = ops.some((op) => op.op === 'put' && op.bucket === NODES && (op.value as {liveness?: string}).liveness === 'fenced');
  return fences ? ops.map((op) => (op.op === 'put' && op.bucket === BUCKETS.leases.name ? {op: 'check', bucket: NODES, key: 'nobody', etag: null} : op)) : ops;
}
