/**
 * Starts elsewhere what cannot or must not stay: containers of fenced nodes, those that were taken from their node and have not arrived anywhere, and those of nodes that are being drained, a few at a
 * time from each. And takes away what nodes that are back still have of what was forgotten meanwhile. Takes no input but what the store says, so a restart, another endpoint or a failed job goes on where it was. A failure is tried again after a while, for as long as it takes;
 * an uncordoned node is drained no further.
 *
 * Every endpoint has one; only the one that reviews the nodes acts, and the containers' locks keep two from the same one.
 */
import {repeat} from '../base/background';
import {systemClock, type Clock} from '../base/clock';
import {isCetusError} from '../base/errors';
import type {Log} from '../base/log';
import {ALL, eq, present} from '../moray/filter';
import type {Moray} from '../moray/moray';
import {BUCKETS} from '../schema/buckets';
import type {Container} from '../schema/container';
import type {MovedResult} from '../schema/chains';
import type {Node, Remains} from '../schema/node';
import {DEFAULT_ACCOUNT} from '../schema/objects';
import type {RunRequest, Workflow} from '../workflow/chain';
import {goesElsewhere, pinnedBy} from '../fleet/movable';

export interface EvacuatorOptions {
  moray: Moray;
  workflow: Workflow;
  log: Log;
  clock?: Clock;
  nodes(): Iterable<Node>;
  /** Whether it is this process's turn. */
  acts(): boolean;
  /** How soon a fence is seen. Default 250 ms. */
  lookMs?: number;
  /** How many of a draining node's containers move at once. Default 2. */
  drainParallel?: number;
}

export interface Evacuator {
  start(): void;
  stop(): Promise<void>;
  /** One look; resolves when the jobs that it began are over. */
  look(): Promise<void>;
}

const CONTAINERS = BUCKETS.containers.name;
const PARALLEL = 32;
const FIRST_RETRY_MS = 2_000;
const MAX_RETRY_MS = 60_000;
/** Between two looks at nodes that have been looked at. */
const AGAIN_MS = 1_000;
/** Without news of nodes: for what a failed job left. */
const SWEEP_MS = 15_000;

/** Nodes whose containers are begun in turn. */
const NODES_IN_TURN = 64;

interface Work { workflow: 'container.evacuate' | 'container.move'; container: Pick<Container, 'id' | 'account' | 'name'>; from: string }

export function createEvacuator(options: EvacuatorOptions): Evacuator {
  return new Mover(options);
}

class Mover implements Evacuator {
  private readonly clock: Clock;
  private readonly stopping = new AbortController();
  /** What is under way, by what it is about; `from`: which node it leaves, or left, for another. */
  private readonly under = new Map<string, {from?: string; over: Promise<void>}>();
  private readonly failed = new Map<string, {untilMs: number; delayMs: number}>();
  private loop: Promise<void> = Promise.resolve();
  private sweptMs = -Infinity;
  private lookedMs = -Infinity;
  /** Fenced nodes as they were looked at, and whether nothing was found on them that has to move. */
  private readonly seen = new Map<string, {node: Node; empty: boolean}>();
  /** Containers are on their way, or have failed to get there. */
  private restless = false;
  /** Nodes that have, as of the last look, something of what was forgotten. */
  private littered = new Set<string>();

  constructor(private readonly options: EvacuatorOptions) {
    this.clock = options.clock ?? systemClock;
  }

  start(): void {
    const {clock, stopping: {signal}, options: {log, lookMs = 250}} = this;
    this.loop = repeat({
      clock, signal, pauseMs: lookMs, failed: (err) => log.warn({err}, 'a look at what has to move failed; trying again'),
      work: async () => {
        if (!this.options.acts()) return;
        const sweeps = this.clock.now() - this.sweptMs >= SWEEP_MS;
        if (sweeps || this.somethingToDo()) await this.begin(sweeps);
      },
    });
  }

  async stop(): Promise<void> {
    this.stopping.abort(new Error('the evacuator stops'));
    await this.loop;
    await Promise.allSettled(this.overs());
  }

  async look(): Promise<void> {
    await this.begin(true);
    await Promise.all(this.overs());
  }

  /** A fleet in which all is well costs one question to the store now and then, and so does a rack that has been gone for days. */
  private somethingToDo(): boolean {
    let again = this.restless;
    for (const node of this.options.nodes()) {
      const seen = node.liveness === 'fenced' ? this.seen.get(node.id) : undefined;
      if (node.liveness === 'fenced' && seen?.node !== node) return true;
      again ||= node.availability === 'draining' || seen?.empty === false || (node.liveness === 'alive' && this.littered.has(node.id));
    }
    return again && this.clock.now() - this.lookedMs >= AGAIN_MS;
  }

  /** `sweeps`: also at nodes on which nothing was found. */
  private async begin(sweeps: boolean): Promise<void> {
    const {moray, nodes, drainParallel = 2} = this.options;
    this.lookedMs = this.clock.now();
    if (sweeps) {
      this.sweptMs = this.lookedMs;
      this.seen.clear();
    }
    // Whoever was not tried again for so long is gone, or has its place.
    for (const [id, {untilMs}] of this.failed) if (untilMs + MAX_RETRY_MS < this.lookedMs) this.failed.delete(id);
    this.restless = this.failed.size > 0;
    const byId = new Map<string, Node>();
    for (const node of nodes()) byId.set(node.id, node);
    // Those that nobody has come before those that somebody still has.
    for await (const {value: c} of moray.find<Container>(CONTAINERS, present('movingFrom'))) {
      if (!c.moving || c.status === 'removing') continue;
      this.restless = true;
      const fenced = byId.get(c.moving.from)?.liveness === 'fenced';
      await this.run({workflow: c.moving.leaving && !fenced ? 'container.move' : 'container.evacuate', container: c, from: c.moving.from});
    }
    await this.clear(byId);
    const fenced: Node[] = [];
    for (const node of byId.values()) {
      if (node.liveness === 'fenced') {
        const seen = this.seen.get(node.id);
        if (seen?.node !== node || !seen.empty) fenced.push(node);
      } else if (node.availability === 'draining' && node.liveness === 'alive') await this.drain(node, drainParallel);
    }
    for (let n = 0; n < fenced.length; n += NODES_IN_TURN) await this.evacuate(fenced.slice(n, n + NODES_IN_TURN));
  }

  private async clear(byId: ReadonlyMap<string, Node>): Promise<void> {
    const {moray, log} = this.options;
    this.littered = new Set();
    for await (const {key, value: {nodeId, containerId}} of moray.find<Remains>(BUCKETS.remains.name, ALL)) {
      this.littered.add(nodeId);
      const id = key.slice(nodeId.length + 1);
      if (byId.get(nodeId)?.liveness !== 'alive') continue;
      const kind = containerId === undefined ? 'volume' as const : 'container' as const;
      await this.begun(id, {workflow: 'container.clear', account: DEFAULT_ACCOUNT, params: {nodeId, id, kind}}, {
        done: () => log.info({nodeId, [`${kind}Id`]: id}, 'what was forgotten while its node was away is taken away there'),
        failed: (err, againInMs) => log.warn({err, nodeId, [`${kind}Id`]: id, againInMs}, 'what was forgotten while its node was away could not be taken away there; trying again'),
      });
    }
  }

  /** One of each node, then the next of each: those of one node wait for each other, for each gives its capacity back in the same row. */
  private async evacuate(nodes: readonly Node[]): Promise<void> {
    const lists = await Promise.all(nodes.map((node) => this.toEvacuate(node)));
    for (let n = 0, more = true; more; n += 1) {
      more = false;
      for (const [i, list] of lists.entries()) {
        const container = list[n];
        if (container) await this.run({workflow: 'container.evacuate', container, from: nodes[i]!.id});
        more ||= container !== undefined;
      }
    }
  }

  private async toEvacuate(node: Node): Promise<Work['container'][]> {
    const list: Work['container'][] = [];
    for await (const {value: c} of this.options.moray.find<Container>(CONTAINERS, eq('nodeId', node.id))) if (goesElsewhere(c)) list.push({id: c.id, account: c.account, name: c.name});
    this.seen.set(node.id, {node, empty: list.length === 0});
    return list;
  }

  private async drain(node: Node, most: number): Promise<void> {
    // Also those that have left and not arrived yet.
    const moving = [...this.under.values()].filter(({from}) => from === node.id).length;
    const ready: Container[] = [];
    for await (const {value: c} of this.options.moray.find<Container>(CONTAINERS, eq('nodeId', node.id))) {
      // Of those that nobody can take just now none must stand before the others.
      if (!this.under.has(c.id) && goesElsewhere(c) && c.status !== 'paused' && pinnedBy(c) === undefined && !this.rests(c.id) && ready.length < most) ready.push(c);
    }
    for (const container of ready.slice(0, Math.max(0, most - moving))) await this.run({workflow: 'container.move', container, from: node.id});
  }

  /** It has just failed, and is tried again later. */
  private rests(id: string): boolean {
    return (this.failed.get(id)?.untilMs ?? 0) > this.clock.now();
  }

  private run({workflow, container: {id, account, name}, from}: Work): Promise<void> {
    return this.begun(id, {workflow, account, params: {containerId: id, from}, from}, {
      done: ({node}: MovedResult) => this.options.log.info({containerId: id, container: name, from, to: node}, `a container of ${workflow === 'container.move' ? 'a node that is drained' : 'a fenced node'} runs elsewhere`),
      failed: (err, againInMs) => this.options.log.warn({err, containerId: id, container: name, from, againInMs}, 'a container could not be started elsewhere; trying again'),
    });
  }

  private overs(): Promise<void>[] {
    return [...this.under.values()].map(({over}) => over);
  }

  /** Begins it, unless it is under way or has just failed. Memory stays bounded whatever the number: the next ones wait for these. */
  private async begun<R>(id: string, {from, ...job}: Pick<RunRequest, 'workflow' | 'account' | 'params'> & {from?: string}, told: {done(result: R): void; failed(err: unknown, againInMs: number): void}): Promise<void> {
    const before = this.failed.get(id);
    if (this.under.has(id) || this.stopping.signal.aborted || this.rests(id)) return;
    const work = this.options.workflow.run<R>({...job, requestId: `${job.workflow.slice('container.'.length)}-${id.slice(0, 12)}`, lockWaitMs: 0})
      .then((result) => {
        this.failed.delete(id);
        told.done(result);
      }, (err: unknown) => {
        const delayMs = Math.min((before?.delayMs ?? FIRST_RETRY_MS / 2) * 2, MAX_RETRY_MS);
        this.failed.set(id, {untilMs: this.clock.now() + delayMs, delayMs});
        // Another job has it, it has moved by now, or its node is back: all of it somebody else's decision.
        if (!isCetusError(err, 'conflict') && !isCetusError(err, 'notFound')) told.failed(err, delayMs);
      })
      .finally(() => this.under.delete(id));
    this.under.set(id, {from, over: work});
    if (this.under.size >= PARALLEL) await Promise.race(this.overs());
  }
}
