/**
 * The nodes as this process knows them: a copy of the bucket, fed by the change feed, so that a task costs no look-up; joins; and the heartbeats,
 * which live in memory only. Liveness is written when it changes, all changes of a tick in one batch.
 */
import {type Clock, formatNs} from '../base/clock';
import {CetusError, isCetusError} from '../base/errors';
import type {Log} from '../base/log';
import {ALL} from '../moray/filter';
import type {BatchOp, Change, Moray, Stored} from '../moray/moray';
import type {Heartbeat} from '../schema/agent';
import {BUCKETS} from '../schema/buckets';
import type {Node, NodeFacts} from '../schema/node';
import {judge} from './liveness';

const BUCKET = BUCKETS.nodes.name;
const BATCH = 200;
const JOIN_TRIES = 5;
const FEED_RETRY_MS = 1_000;

export interface RegistryOptions { moray: Moray; log: Log; clock: Clock; leaseMs: number; graceMs: number; amongOthers?: boolean }

export class Registry {
  private readonly known = new Map<string, Stored<Node>>();
  private readonly heartbeats = new Map<string, number>();
  private readonly stopped = new AbortController();
  private listeningSinceMs = 0;
  private loops: Promise<void>[] = [];

  constructor(private readonly options: RegistryOptions) {}

  async start(): Promise<void> {
    const {moray, clock} = this.options;
    await moray.open(BUCKETS.nodes);
    this.listeningSinceMs = clock.now();
    this.loops = [this.follow(await this.load()), this.tick()];
  }

  async stop(): Promise<void> {
    this.stopped.abort(new CetusError('canceled', 'fleet stops'));
    await Promise.all(this.loops);
  }

  async join(facts: NodeFacts): Promise<{nodeId: string}> {
    const {moray, clock, log} = this.options;
    for (let attempt = 1; ; attempt += 1) {
      const before = await moray.peek<Node>(BUCKET, facts.nodeId);
      if (before && before.value.facts.bootGeneration > facts.bootGeneration)
        throw new CetusError('stale', `node ${facts.name} joined with boot generation ${facts.bootGeneration}, ${before.value.facts.bootGeneration} has been seen`);
      const now = formatNs(clock.nowNs());
      const node: Node = {
        id: facts.nodeId, name: facts.name, facts, availability: before?.value.availability ?? 'active', liveness: 'alive', livenessReason: 'joined',
        livenessAt: now, labels: before?.value.labels ?? {}, joinedAt: before?.value.joinedAt ?? now,
      };
      try {
        this.remember(await moray.put(BUCKET, node.id, node, {etag: before?.etag ?? null}));
        this.heartbeats.set(node.id, clock.now());
        log.info({nodeId: node.id, node: node.name, agentUrl: facts.agentUrl, bootGeneration: facts.bootGeneration}, 'node joined');
        return {nodeId: node.id};
      } catch (err) {
        if (isCetusError(err, 'conflict')) throw new CetusError('conflict', `another node is called ${facts.name}`, {cause: err});
        if (!isCetusError(err, 'etagConflict') || attempt >= JOIN_TRIES) throw err;
      }
    }
  }

  /** `notFound`: the node must join (again). `stale`: an older life of the agent speaks. */
  heartbeat(beat: Heartbeat): {leaseMs: number} {
    const node = this.known.get(beat.nodeId);
    if (!node) throw new CetusError('notFound', `node ${beat.nodeId} has not joined`);
    this.refuseStale(node.value, beat.bootGeneration);
    if (node.value.liveness === 'fenced') throw new CetusError('notFound', `node ${node.value.name} was fenced and must join again`);
    this.heartbeats.set(beat.nodeId, this.options.clock.now());
    return {leaseMs: this.options.leaseMs};
  }

  /** Of a node that may report: known, and in its newest life. */
  reporter(nodeId: string, bootGeneration: number): void {
    const node = this.known.get(nodeId);
    if (!node) throw new CetusError('notFound', `node ${nodeId} has not joined`);
    this.refuseStale(node.value, bootGeneration);
  }

  async find(idOrName: string): Promise<Node> {
    const byId = this.known.get(idOrName);
    if (byId) return byId.value;
    for (const {value} of this.known.values()) if (value.name === idOrName) return value;
    // A node that joined through another endpoint a moment ago may not have come through the feed yet.
    const stored = await this.options.moray.peek<Node>(BUCKET, idOrName);
    if (!stored) throw new CetusError('notFound', `node ${idOrName} not found`);
    this.remember(stored);
    return stored.value;
  }

  nodes(): Node[] {
    return [...this.known.values()].map(s => s.value).sort((a, b) => a.name.localeCompare(b.name));
  }

  /** Writes what the heartbeats say now; the timer calls it, and tests do. */
  async review(): Promise<void> {
    const {moray, clock, leaseMs, graceMs, log, amongOthers} = this.options;
    const changes: Stored<Node>[] = [];
    for (const stored of this.known.values()) {
      if (amongOthers && !this.heartbeats.has(stored.key)) continue;
      const verdict = judge({
        stored: stored.value.liveness, lastHeartbeatMs: this.heartbeats.get(stored.key), listeningSinceMs: this.listeningSinceMs,
        nowMs: clock.now(), leaseMs, graceMs,
      });
      if (!verdict) continue;
      log.warn({nodeId: stored.key, node: stored.value.name, from: stored.value.liveness, to: verdict.liveness, reason: verdict.reason}, 'node liveness changes');
      changes.push({...stored, value: {...stored.value, liveness: verdict.liveness, livenessReason: verdict.reason, livenessAt: formatNs(clock.nowNs())}});
    }
    for (let i = 0; i < changes.length; i += BATCH) await this.write(moray, changes.slice(i, i + BATCH));
  }

  private async write(moray: Moray, changes: Stored<Node>[]): Promise<void> {
    const put = (s: Stored<Node>): BatchOp => ({op: 'put', bucket: BUCKET, key: s.key, value: s.value, etag: s.etag});
    try {
      const results = await moray.batch(changes.map(put));
      changes.forEach((s, i) => this.remember({...s, etag: results[i]!.etag!}));
    } catch (err) {
      if (!isCetusError(err, 'etagConflict')) throw err;
      // Somebody changed one of them; the feed brings it, and the next review judges it afresh.
      if (changes.length > 1) for (const change of changes) await this.write(moray, [change]);
    }
  }

  private refuseStale(node: Node, bootGeneration: number): void {
    if (bootGeneration < node.facts.bootGeneration)
      throw new CetusError('stale', `boot generation ${bootGeneration} of node ${node.name} is over, ${node.facts.bootGeneration} has been seen`);
  }

  private remember(stored: Stored<Node>): void {
    const old = this.known.get(stored.key);
    // Etags come from one sequence, so of two copies the higher one is the newer; the feed may bring what a write here overtook.
    if (!old || BigInt(old.etag) <= BigInt(stored.etag)) this.known.set(stored.key, stored);
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
    for (const id of this.known.keys()) if (!listed.has(id)) this.known.delete(id);
    return changes;
  }

  private async follow(first: AsyncIterable<Change<Node>>): Promise<void> {
    const {log, clock} = this.options;
    let changes: AsyncIterable<Change<Node>> | undefined = first;
    while (!this.stopped.signal.aborted) {
      try {
        changes ??= await this.load();
        for await (const change of changes) {
          if (change.kind === 'put') {
            // Another endpoint says that it lives: it beats there, and silence here is none. A beat that comes here after all says otherwise.
            const before = this.known.get(change.key);
            if (this.options.amongOthers && before && BigInt(before.etag) < BigInt(change.etag) && change.value.liveness === 'alive') this.heartbeats.delete(change.key);
            this.remember(change);
          }
          else this.known.delete(change.key);
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

  /**
   * This process stood still (a suspended machine, a stopped process, a clock set forward): the silence was its own. Heartbeats of that time are
   * still to be read, and whoever judged first would find every node dead.
   */
  private excuse(lateMs: number, toleratedMs: number): void {
    if (lateMs <= toleratedMs) return;
    this.options.log.warn({lateMs}, 'this process stood still: no node is blamed for that time');
    const nowMs = this.options.clock.now();
    this.listeningSinceMs = Math.min(nowMs, this.listeningSinceMs + lateMs);
    for (const [id, heardMs] of this.heartbeats) this.heartbeats.set(id, Math.min(nowMs, heardMs + lateMs));
  }

  private async tick(): Promise<void> {
    const {clock, log, leaseMs} = this.options;
    while (!this.stopped.signal.aborted) {
      const periodMs = leaseMs / 4;
      const fromMs = clock.now();
      await clock.sleep(periodMs, this.stopped.signal).catch(() => undefined);
      if (this.stopped.signal.aborted) return;
      this.excuse(clock.now() - fromMs - periodMs, periodMs);
      await this.review().catch((err: unknown) => log.warn({err}, 'liveness could not be written; the next review tries again'));
    }
  }
}
