/**
 * Compares nodes with the store: each once it is (again) alive, and from time to time. What differs is written into the node, for operators (`cetus node inspect`), and leaves it with the first
 * comparison that does not find it any more.
 *
 * Mended is only what is nobody's guess:
 *  - a transition that the node knows and the store does not is recorded;
 *  - a container that is another node's by now is taken away here (container.clear, which looks once more under its lock);
 *  - one that ran and that its node says it does not have is shown as exited, with that reason, and lets go of its places;
 *  - an image that others have too does not count as held here any more: who needs it fetches it, the keeper of images makes the copies that must be.
 * All else is reported and left alone: files that are gone come back from nowhere, and what the store does not know may be the store's own loss.
 *
 * Every endpoint has one; only the one that reviews the nodes acts.
 */
import {repeat} from '../base/background';
import {formatNs, systemClock, type Clock} from '../base/clock';
import {isCetusError} from '../base/errors';
import type {Log} from '../base/log';
import {disconnectEvents, putEvent} from '../fleet/events';
import type {Fleet} from '../fleet/fleet';
import {isWanted} from '../fleet/movable';
import {applyObservation, letsGo, releaseLeases} from '../fleet/observe';
import {eq} from '../moray/filter';
import type {BatchOp, Moray} from '../moray/moray';
import type {Inventory} from '../schema/agent';
import {BUCKETS} from '../schema/buckets';
import type {Container} from '../schema/container';
import {type DriftFinding, type Node, type Remains, remainsKey} from '../schema/node';
import type {Image, Volume} from '../schema/objects';
import {type Assigned, compare, confirmed} from './drift';

export interface DriftKeeperOptions {
  moray: Moray;
  fleet: Fleet;
  log: Log;
  clock?: Clock;
  nodes(): Iterable<Node>;
  /** Whether it is this process's turn. */
  acts(): boolean;
  /** How often a node is compared of which there is no news. Default 5 min. */
  periodMs?: number;
  /** How soon after it is alive. Default 3 s: it has its reports to tell first. */
  settleMs?: number;
  /** Between the two comparisons that make a finding. Default 3 s. */
  confirmMs?: number;
}

export interface DriftKeeper {
  start(): void;
  stop(): Promise<void>;
  /** One node, now; what differs is in the store when it resolves. */
  compare(node: Node): Promise<DriftFinding[]>;
}

const {containers: {name: CONTAINERS}, nodes: {name: NODES}, remains: {name: REMAINS}} = BUCKETS;
const LOOK_MS = 1_000;
const AGAIN_MS = 15_000;
const PARALLEL = 4;
/** After an endpoint's start all of a large fleet is due: it is worked off at this rate, beside what others want of the store. */
const AT_A_LOOK = 10;
const TRIES = 5;
const GONE = 'its node does not have it any more';

export function createDriftKeeper(options: DriftKeeperOptions): DriftKeeper {
  return new Keeper(options);
}

class Keeper implements DriftKeeper {
  private readonly clock: Clock;
  private readonly stopping = new AbortController();
  private loop: Promise<void> = Promise.resolve();
  /** By node: as what it was compared last, and when it is to be again. */
  private readonly seen = new Map<string, {life: string; dueMs: number}>();

  constructor(private readonly options: DriftKeeperOptions) {
    this.clock = options.clock ?? systemClock;
  }

  start(): void {
    const {clock, stopping: {signal}, options: {log}} = this;
    this.loop = repeat({clock, signal, pauseMs: LOOK_MS, work: () => this.look(), failed: (err) => log.warn({err}, 'a comparison of nodes with the store failed; trying again')});
  }

  async stop(): Promise<void> {
    this.stopping.abort(new Error('the comparisons stop'));
    await this.loop;
  }

  private async look(): Promise<void> {
    const {acts, nodes, log, periodMs = 300_000, settleMs = 3_000} = this.options;
    if (!acts()) return;
    const due: Node[] = [];
    const now = this.clock.now();
    for (const node of nodes()) {
      if (node.liveness !== 'alive' || node.removing) continue;
      const life = `${node.facts.bootGeneration} ${node.livenessAt}`;
      const before = this.seen.get(node.id);
      if (before?.life !== life) this.seen.set(node.id, {life, dueMs: now + settleMs});
      else if (before.dueMs <= now) due.push(node);
    }
    // Those that have waited longest; the others wait for the next looks.
    const some = due.sort((a, b) => this.seen.get(a.id)!.dueMs - this.seen.get(b.id)!.dueMs).slice(0, AT_A_LOOK);
    for (const {id} of some) this.seen.get(id)!.dueMs = now + periodMs;
    const queue = some.values();
    await Promise.all(Array.from({length: Math.min(PARALLEL, some.length)}, async () => {
      for (const node of queue) {
        if (this.stopping.signal.aborted) return;
        const findings = await this.compare(node).catch((err: unknown) => {
          if (!this.stopping.signal.aborted) log.warn({err, nodeId: node.id, node: node.name}, 'a node could not be compared with the store');
          return undefined;
        });
        // What is amiss is looked at more often: an operator mends it and wants to see that.
        const seen = this.seen.get(node.id);
        if (seen && (findings === undefined || findings.length)) seen.dueMs = Math.min(seen.dueMs, this.clock.now() + AGAIN_MS);
      }
    }));
  }

  async compare(node: Node): Promise<DriftFinding[]> {
    const {confirmMs = 3_000} = this.options;
    let findings = await this.differences(node);
    if (findings.length) {
      await this.clock.sleep(confirmMs, this.stopping.signal);
      findings = confirmed(findings, await this.differences(node));
    }
    for (const finding of findings) finding.done = await this.mend(node, finding);
    await this.record(node, findings);
    return findings;
  }

  private async differences(node: Node): Promise<DriftFinding[]> {
    const {fleet, moray} = this.options;
    // In this order: what is removed in the store between the two is not on the node any more either, or will not be at the second look.
    const has = await (await fleet.agent(node.id)).inventory();
    return compare(node, has, await assignedTo(moray, node.id, has));
  }

  /** What was done about it, in words; '' where that is an operator's business. */
  private async mend(node: Node, {kind, id}: DriftFinding): Promise<string> {
    switch (kind) {
      case 'container.state': return this.changed(id, async (c) => {
        const seen = c.nodeId === node.id ? await (await this.options.fleet.agent(node.id)).observe(id) : undefined;
        const after = seen && applyObservation(c, seen);
        return after && {after, released: letsGo(c, seen)};
      }, 'recorded');
      case 'container.missing': return this.changed(id, async (c) => {
        if (c.nodeId !== node.id || c.moving) return undefined;
        if (c.status === 'exited' && c.observation.error.endsWith(GONE)) return 'done';
        if (!isWanted(c)) return undefined;
        const observation = {...c.observation, status: 'exited' as const, pid: 0, exitCode: 255, error: `node ${node.name}: ${GONE}`, finishedAt: formatNs(this.clock.nowNs()), wantsStart: undefined, health: undefined};
        return {after: {...c, status: 'exited', observation, attachments: [], publishedPorts: []}, released: true};
      }, 'shown as exited');
      case 'container.moved': {
        const remains: Remains = {nodeId: node.id, containerId: id, volumeIds: [], at: formatNs(this.clock.nowNs())};
        await this.options.moray.put(REMAINS, remainsKey(node.id, id), remains);
        return 'it is taken away there';
      }
      case 'image.missing': return await this.letImageGo(node, id);
      default: return '';
    }
  }

  /** On the etag; whoever writes meanwhile knows better. `next`: what becomes of it, `done` where that is so already, undefined where nothing is to be done. */
  private async changed(id: string, next: (c: Container) => Promise<{after: Container; released: boolean} | 'done' | undefined>, done: string): Promise<string> {
    const {moray} = this.options;
    const stored = await moray.peek<Container>(CONTAINERS, id);
    const step = stored && await next(stored.value);
    if (!stored || !step) return '';
    if (step === 'done') return done;
    const events = step.released ? disconnectEvents(stored.value, this.clock.nowNs()).map((event, n) => putEvent(event, `drift-${id.slice(0, 12)}-${n}`)) : [];
    return this.unlessOvertaken([{op: 'put', bucket: CONTAINERS, key: id, value: step.after, etag: stored.etag}, ...(step.released ? releaseLeases(id) : []), ...events], done);
  }

  private async letImageGo(node: Node, key: string): Promise<string> {
    const stored = await this.options.moray.peek<Image>(BUCKETS.images.name, key);
    const others = stored?.value.nodes.filter((id) => id !== node.id) ?? [];
    if (!stored || !others.length) return '';
    return this.unlessOvertaken([{op: 'put', bucket: BUCKETS.images.name, key, value: {...stored.value, nodes: others}, etag: stored.etag}], 'it is taken from other nodes when it is needed');
  }

  private async unlessOvertaken(writes: BatchOp[], done: string): Promise<string> {
    try {
      await this.options.moray.batch(writes);
      return done;
    } catch (err) {
      if (!isCetusError(err, 'etagConflict')) throw err;
      return '';
    }
  }

  private async record({id, name}: Node, findings: DriftFinding[]): Promise<void> {
    const {moray, log} = this.options;
    for (let tries = 1; ; tries += 1) {
      const stored = await moray.peek<Node>(NODES, id);
      if (!stored || JSON.stringify(stored.value.drift?.findings ?? []) === JSON.stringify(findings)) return;
      const {drift: _before, ...node} = stored.value;
      try {
        await moray.put<Node>(NODES, id, findings.length ? {...node, drift: {at: formatNs(this.clock.nowNs()), findings}} : node, {etag: stored.etag});
        if (findings.length) log.warn({nodeId: id, node: name, findings}, 'a node differs from what the store says of it');
        else log.info({nodeId: id, node: name}, 'a node has what the store says of it, again');
        return;
      } catch (err) {
        if (!isCetusError(err, 'etagConflict') || tries >= TRIES) throw err;
      }
    }
  }
}

async function assignedTo(moray: Moray, nodeId: string, has: Inventory): Promise<Assigned> {
  const of = async <T>(bucket: string, field: string): Promise<T[]> => (await moray.list<T>(bucket, eq(field, nodeId))).map((row) => row.value);
  const [containers, volumes, images, remains] = await Promise.all([
    of<Container>(CONTAINERS, 'nodeId'), of<Volume>(BUCKETS.volumes.name, 'nodeId'), of<Image>(BUCKETS.images.name, 'nodes'), of<Remains>(REMAINS, 'nodeId'),
  ]);
  const own = new Set(containers.map(({id}) => id));
  const elsewhere = new Map<string, Container>();
  for (const {id} of has.containers) {
    const stored = own.has(id) ? undefined : await moray.peek<Container>(CONTAINERS, id);
    if (stored) elsewhere.set(id, stored.value);
  }
  return {containers, volumes, images, elsewhere, noted: new Set(remains.flatMap((r) => [...(r.containerId === undefined ? [] : [r.containerId]), ...r.volumeIds]))};
}
