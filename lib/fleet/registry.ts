/**
 * The nodes as this process knows them: a copy of the bucket, fed by the change feed, so that a task costs no look-up; and joins. Whether they live
 * is the business of review.ts.
 */
import {type Clock, formatNs} from '../base/clock';
import {CetusError, isCetusError} from '../base/errors';
import type {Log} from '../base/log';
import {ALL} from '../moray/filter';
import type {Change, Moray, Stored} from '../moray/moray';
import type {NodeIdentity} from '../schema/authority';
import {BUCKETS} from '../schema/buckets';
import type {Node, NodeFacts} from '../schema/node';
import {type KnownNodes, refusalOf} from './leases';

const BUCKET = BUCKETS.nodes.name;
const JOIN_TRIES = 5;
const FEED_RETRY_MS = 1_000;

export interface RegistryOptions {
  moray: Moray;
  log: Log;
  clock: Clock;
  /** Of this process, by which nodes behind its unix socket are known to be its own. */
  endpoint: string;
  /** A version of a node that was not known before; undefined: it is gone. */
  changed?(nodeId: string, node: Node | undefined, before: Node | undefined): void;
}

/** Reached by a socket of its endpoint's own machine: there is no network between the two that could part them, and nowhere else to go. */
export function isLocal(node: Node): boolean {
  return node.facts.agentUrl.startsWith('unix:');
}

/** For so long not heard of that what it has is shown as lost. */
export function isAway(node: Node | undefined): boolean {
  return node?.liveness === 'lost' || node?.liveness === 'fenced';
}

export class Registry implements KnownNodes {
  private readonly known = new Map<string, Stored<Node>>();
  /** Of the known ones those that nobody can reach. */
  readonly away = new Map<string, Node>();
  private readonly stopped = new AbortController();
  private loop: Promise<void> = Promise.resolve();
  /** By name, while nothing changes: heartbeats do not. Putting 10,000 in order takes 10 ms. */
  private sorted: readonly Node[] | undefined;

  constructor(private readonly options: RegistryOptions) {}

  async start(): Promise<void> {
    await this.options.moray.open(BUCKETS.nodes, BUCKETS.identities);
    this.loop = this.follow(await this.load());
  }

  async stop(): Promise<void> {
    this.stopped.abort(new CetusError('canceled', 'fleet stops'));
    await this.loop;
  }

  /** What the operator gave the node with its token; later they are the operator's to change. */
  private async tokenLabels(nodeId: string): Promise<Record<string, string>> {
    return (await this.options.moray.peek<NodeIdentity>(BUCKETS.identities.name, nodeId))?.value.labels ?? {};
  }

  async join(facts: NodeFacts): Promise<{nodeId: string}> {
    const {moray, clock, log, endpoint} = this.options;
    for (let attempt = 1; ; attempt += 1) {
      const before = await moray.peek<Node>(BUCKET, facts.nodeId);
      const fencedGeneration = before?.value.fencedGeneration;
      if (before?.value.removing) throw new CetusError('unauthorized', `node ${facts.name} is being removed`);
      if (before && before.value.facts.bootGeneration > facts.bootGeneration)
        throw new CetusError('stale', `node ${facts.name} joined with boot generation ${facts.bootGeneration}, ${before.value.facts.bootGeneration} has been seen`);
      if (fencedGeneration !== undefined && facts.bootGeneration <= fencedGeneration)
        throw new CetusError('stale', `node ${facts.name} was fenced: its boot generation ${facts.bootGeneration} is over`, {info: {fenced: true}});
      const now = formatNs(clock.nowNs());
      const node: Node = {
        id: facts.nodeId, name: facts.name, facts, availability: before?.value.availability ?? 'active', ...said(before?.value), liveness: 'alive', livenessReason: 'joined',
        livenessAt: now, labels: before?.value.labels ?? (await this.tokenLabels(facts.nodeId)), joinedAt: before?.value.joinedAt ?? now,
        ...(fencedGeneration === undefined ? {} : {fencedGeneration}), ...(before?.value.drift ? {drift: before.value.drift} : {}),
        ...(facts.agentUrl.startsWith('unix:') ? {lease: {row: endpoint, bootGeneration: facts.bootGeneration}} : {}),
      };
      try {
        this.remember(await moray.put(BUCKET, node.id, node, {etag: before?.etag ?? null}));
        log.info({nodeId: node.id, node: node.name, agentUrl: facts.agentUrl, bootGeneration: facts.bootGeneration}, 'node joined');
        return {nodeId: node.id};
      } catch (err) {
        if (isCetusError(err, 'conflict')) throw new CetusError('conflict', `another node is called ${facts.name}`, {cause: err});
        if (!isCetusError(err, 'etagConflict') || attempt >= JOIN_TRIES) throw err;
      }
    }
  }

  /** Of a node that may speak here: known, and in its newest life. `notFound`: it must join (again). `stale`: an older life of the agent speaks. */
  async speaker(nodeId: string, bootGeneration: number): Promise<Node> {
    let node = this.known.get(nodeId);
    // It may have joined through another endpoint a moment ago.
    if (!node || node.value.facts.bootGeneration < bootGeneration) node = await this.refresh(nodeId);
    const refusal = refusalOf(node, nodeId, bootGeneration);
    if (refusal) throw refusal;
    return node!.value;
  }

  /** As `speaker`, but what a fenced life has seen is history that is heard. */
  async reporter(nodeId: string, bootGeneration: number): Promise<void> {
    await this.speaker(nodeId, bootGeneration).catch((err: unknown) => {
      if (!isCetusError(err, 'stale') || !err.info['fenced']) throw err;
    });
  }

  async find(idOrName: string): Promise<Node> {
    const byId = this.known.get(idOrName);
    if (byId) return byId.value;
    for (const {value} of this.known.values()) if (value.name === idOrName) return value;
    // A node that joined through another endpoint a moment ago may not have come through the feed yet.
    const stored = await this.refresh(idOrName);
    if (!stored) throw new CetusError('notFound', `node ${idOrName} not found`);
    return stored.value;
  }

  nodes(): Node[] {
    this.sorted ??= [...this.known.values()].map(s => s.value).sort((a, b) => a.name.localeCompare(b.name));
    return [...this.sorted];
  }

  all(): IterableIterator<Stored<Node>> {
    return this.known.values();
  }

  stored(nodeId: string): Stored<Node> | undefined {
    return this.known.get(nodeId);
  }

  async refresh(nodeId: string): Promise<Stored<Node> | undefined> {
    const stored = await this.options.moray.peek<Node>(BUCKET, nodeId);
    if (stored) this.remember(stored);
    else this.forget(nodeId);
    return stored;
  }

  remember(stored: Stored<Node>): void {
    const old = this.known.get(stored.key);
    // Etags come from one sequence, so of two copies the higher one is the newer; the feed may bring what a write here overtook.
    if (old && BigInt(old.etag) >= BigInt(stored.etag)) return;
    this.known.set(stored.key, stored);
    this.sorted = undefined;
    if (isAway(stored.value)) this.away.set(stored.key, stored.value);
    else this.away.delete(stored.key);
    this.options.changed?.(stored.key, stored.value, old?.value);
  }

  private forget(nodeId: string): void {
    const old = this.known.get(nodeId);
    this.away.delete(nodeId);
    if (!old || !this.known.delete(nodeId)) return;
    this.sorted = undefined;
    this.options.changed?.(nodeId, undefined, old.value);
  }

  /** Everything afresh: first the feed, then the list, so that no change falls between. */
  private async load(): Promise<AsyncIterable<Change<Node>>> {
    const {moray} = this.options;
    const changes = await moray.watch<Node>(BUCKET, ALL, {signal: this.stopped.signal});
    const listed = new Set<string>();
    for await (const stored of moray.find<Node>(BUCKET, ALL)) {
      this.remember(stored);
      listed.add(stored.key);
    }
    for (const id of this.known.keys()) if (!listed.has(id)) this.forget(id);
    return changes;
  }

  private async follow(first: AsyncIterable<Change<Node>>): Promise<void> {
    const {log, clock} = this.options;
    let changes: AsyncIterable<Change<Node>> | undefined = first;
    while (!this.stopped.signal.aborted) {
      try {
        changes ??= await this.load();
        for await (const change of changes) {
          if (change.kind === 'put') this.remember(change);
          else this.forget(change.key);
        }
        throw new CetusError('unavailable', 'the change feed of nodes ended');
      } catch (err) {
        if (this.stopped.signal.aborted) return;
        log.warn({err}, 'the change feed of nodes broke; it is opened again');
        changes = undefined;
        await clock.sleep(FEED_RETRY_MS, this.stopped.signal).catch(() => undefined);
      }
    }
  }
}

/** What an operator said of the node stays when it joins again. */
function said(before: Node | undefined): Partial<Node> {
  if (!before) return {};
  const {availabilityReason, availabilityAt, removing} = before;
  return {...(availabilityReason === undefined ? {} : {availabilityReason}), ...(availabilityAt === undefined ? {} : {availabilityAt}), ...(removing ? {removing} : {})};
}
