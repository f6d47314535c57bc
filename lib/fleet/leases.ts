/**
 * Leases of the nodes that beat at this endpoint, renewed in batches: rows of up to 200 nodes, each row written at most every leaseMs/6, and every heartbeat
 * answered once the row that counts it is durable. 10,000 nodes cost 20 writes a second.
 *
 * What fencing rests upon (README):
 *  - a renewal is a write of a row under its etag: whoever takes a node out of a row makes us read it again;
 *  - a node that is not in the row, or was there in an earlier life, enters it only together with a write of the node under its etag, in which it is not fenced.
 * What is in memory is only a copy: where it is wrong, the etags say so.
 */
import {setMaxListeners} from 'node:events';
import {CetusError, asCetusError, isCetusError} from '../base/errors';
import type {Log} from '../base/log';
import type {BatchOp, Etag, Moray, Stored} from '../moray/moray';
import {ALL} from '../moray/filter';
import {BUCKETS} from '../schema/buckets';
import {type LeaseRow, type Node, type NodeLease, REVIEWER} from '../schema/node';

export const ROW_NODES = 200;
const LEASES = BUCKETS.leases.name;
const NODES = BUCKETS.nodes.name;
/** Conflicts in one write; beyond it the heartbeats fail, and the agents come again. */
const TRIES = 20;

/** The nodes as this process knows them. */
export interface KnownNodes {
  stored(nodeId: string): Stored<Node> | undefined;
  /** From the store itself. */
  refresh(nodeId: string): Promise<Stored<Node> | undefined>;
  remember(stored: Stored<Node>): void;
}

export interface LeasesOptions {
  moray: Moray;
  log: Log;
  nodes: KnownNodes;
  endpoint: string;
  leaseMs: number;
  fenceDelayMs: number;
  nowMs(): number;
  sleep(ms: number, signal: AbortSignal): Promise<void>;
}

interface Waiting { bootGeneration: number; done: ((err?: CetusError) => void)[] }
interface Row { key: string; shard: number; etag: Etag | null; renewals: Record<string, number>; waiting: Map<string, Waiting>; /** of both */ nodes: Set<string>; writtenMs: number; writing: boolean }

export class Leases {
  private readonly rows: Row[] = [];
  private readonly rowOf = new Map<string, Row>();
  /** When each node of our rows last beat here: who beats elsewhere leaves. */
  private readonly beatMs = new Map<string, number>();
  private readonly stopped = new AbortController();
  private readonly periodMs: number;
  writes = 0;

  constructor(private readonly options: LeasesOptions) {
    this.periodMs = options.leaseMs / 6;
    setMaxListeners(0, this.stopped.signal); // one for each row that waits
  }

  /** Takes up the rows of an earlier life of this endpoint. */
  async start(): Promise<void> {
    const {moray, endpoint, nowMs} = this.options;
    await moray.open(BUCKETS.leases);
    for await (const {key, etag, value} of moray.find<LeaseRow>(LEASES, ALL)) {
      if (key === REVIEWER || value.endpoint !== endpoint) continue;
      const row = this.row(key, value.shard);
      this.know(row, {etag, value});
      for (const id of Object.keys(value.renewals)) this.beatMs.set(id, nowMs());
    }
  }

  stop(): void {
    const err = new CetusError('unavailable', 'this endpoint ends');
    this.stopped.abort(err);
    for (const row of this.rows) this.answer(row.waiting, err);
  }

  /** Resolves when it is durable. `stale`, `notFound`: not this life any more. */
  renew(nodeId: string, bootGeneration: number): Promise<void> {
    return new Promise((resolve, reject) => {
      if (this.stopped.signal.aborted) return reject(this.stopped.signal.reason as Error);
      const row = this.rowOf.get(nodeId) ?? this.freeRow(nodeId);
      let waiting = row.waiting.get(nodeId);
      if (waiting && waiting.bootGeneration !== bootGeneration) {
        // The newer life counts; of the older nobody is left to hear it.
        if (waiting.bootGeneration > bootGeneration) return reject(stale(nodeId, bootGeneration));
        for (const done of waiting.done) done(stale(nodeId, waiting.bootGeneration));
        waiting = undefined;
      }
      if (!waiting) row.waiting.set(nodeId, waiting = {bootGeneration, done: []});
      waiting.done.push((err) => (err ? reject(err) : resolve()));
      this.beatMs.set(nodeId, this.options.nowMs());
      void this.write(row);
    });
  }

  private freeRow(nodeId: string): Row {
    const free = this.rows.find((row) => row.nodes.size < ROW_NODES);
    const row = free ?? this.row(`${this.options.endpoint}/${this.rows.length}`, this.rows.length);
    this.rowOf.set(nodeId, row);
    row.nodes.add(nodeId);
    return row;
  }

  private row(key: string, shard: number): Row {
    const row: Row = {key, shard, etag: null, renewals: {}, waiting: new Map(), nodes: new Set(), writtenMs: -Infinity, writing: false};
    this.rows.push(row);
    return row;
  }

  /** One at a time for each row; whoever comes meanwhile is in the next. */
  private async write(row: Row): Promise<void> {
    if (row.writing) return;
    row.writing = true;
    const {signal} = this.stopped;
    while (row.waiting.size && !signal.aborted) {
      const waitMs = row.writtenMs + this.periodMs - this.options.nowMs();
      // Also where nothing is to be waited for: all that came in this turn share the write.
      await (waitMs > 0 ? this.options.sleep(waitMs, signal).catch(() => undefined) : Promise.resolve());
      if (signal.aborted) break;
      const waiting = row.waiting;
      row.waiting = new Map();
      row.writtenMs = this.options.nowMs();
      await this.renewAll(row, waiting).catch((err: unknown) => this.answer(waiting, asCetusError(err, 'renew leases')));
    }
    row.writing = false;
  }

  private async renewAll(row: Row, waiting: Map<string, Waiting>): Promise<void> {
    const {moray, nodes} = this.options;
    for (let attempt = 1; ; attempt += 1) {
      const entering = await this.admit(row, waiting);
      if (!waiting.size) return;
      const renewals = this.remaining(row);
      for (const id of waiting.keys()) renewals[id] = (row.renewals[id] ?? 0) + 1;
      const value: LeaseRow = {endpoint: this.options.endpoint, shard: row.shard, renewals};
      const ops: BatchOp[] = [
        {op: 'put', bucket: LEASES, key: row.key, value, etag: row.etag},
        ...entering.map((node): BatchOp => ({op: 'put', bucket: NODES, key: node.key, value: node.value, etag: node.etag})),
      ];
      try {
        this.writes += 1;
        const results = await moray.batch(ops);
        this.know(row, {etag: results[0]!.etag!, value});
        entering.forEach((node, i) => nodes.remember({...node, etag: results[i + 1]!.etag!}));
        this.answer(waiting);
        return;
      } catch (err) {
        if (!isCetusError(err, 'etagConflict') || attempt >= TRIES) throw err;
        if (err.info['bucket'] === NODES) await nodes.refresh(String(err.info['key']));
        else this.know(row, await moray.peek<LeaseRow>(LEASES, row.key));
      }
    }
  }

  /** Answers those that have no lease to renew; of the others, the nodes that have yet to enter the row, as they are to be written. */
  private async admit(row: Row, waiting: Map<string, Waiting>): Promise<Stored<Node>[]> {
    const {nodes, fenceDelayMs} = this.options;
    const entering: Stored<Node>[] = [];
    for (const [id, {bootGeneration, done}] of waiting) {
      let node = nodes.stored(id);
      // A join through another endpoint may not have come through the feed yet.
      if (!node || node.value.facts.bootGeneration < bootGeneration) node = await nodes.refresh(id);
      const refusal = refusalOf(node, id, bootGeneration);
      if (refusal) {
        waiting.delete(id);
        for (const answer of done) answer(refusal);
        continue;
      }
      const lease: NodeLease = {row: row.key, bootGeneration, fenceDelayMs};
      if (!Object.hasOwn(row.renewals, id) || !sameLease(node!.value.lease, lease)) entering.push({...node!, value: {...node!.value, lease}});
    }
    return entering;
  }

  /** Without those that have not beaten here for long: they beat elsewhere, or nowhere. To come back they have to enter. */
  private remaining(row: Row): Record<string, number> {
    const sinceMs = this.options.nowMs() - 2 * this.options.fenceDelayMs;
    return Object.fromEntries(Object.entries(row.renewals).filter(([id]) => {
      if ((this.beatMs.get(id) ?? -Infinity) >= sinceMs) return true;
      this.beatMs.delete(id);
      return false;
    }));
  }

  private know(row: Row, stored: {etag: Etag; value: LeaseRow} | undefined): void {
    row.etag = stored?.etag ?? null;
    const renewals = stored?.value.renewals ?? {};
    for (const id of Object.keys(row.renewals)) if (!Object.hasOwn(renewals, id) && this.rowOf.get(id) === row && !row.waiting.has(id)) this.rowOf.delete(id);
    for (const id of Object.keys(renewals)) this.rowOf.set(id, row);
    row.renewals = renewals;
    row.nodes = new Set([...Object.keys(renewals), ...row.waiting.keys()]);
  }

  private answer(waiting: Map<string, Waiting>, err?: CetusError): void {
    for (const {done} of waiting.values()) for (const answer of done) answer(err);
    waiting.clear();
  }
}

function sameLease(a: NodeLease | undefined, b: NodeLease): boolean {
  return a?.row === b.row && a.bootGeneration === b.bootGeneration && a.fenceDelayMs === b.fenceDelayMs;
}

/** Why the node in this life has no lease to renew. */
export function refusalOf(node: Stored<Node> | undefined, nodeId: string, bootGeneration: number): CetusError | undefined {
  if (!node) return new CetusError('notFound', `node ${nodeId} has not joined`);
  const {liveness, name, facts, fencedGeneration = -1} = node.value;
  if (liveness === 'fenced' || bootGeneration <= fencedGeneration)
    return new CetusError('stale', `node ${name} was fenced: its boot generation ${bootGeneration} is over`, {info: {fenced: true}});
  if (bootGeneration < facts.bootGeneration)
    return new CetusError('stale', `boot generation ${bootGeneration} of node ${name} is over, ${facts.bootGeneration} has been seen`);
  if (bootGeneration > facts.bootGeneration) return new CetusError('notFound', `node ${name} has not joined with boot generation ${bootGeneration}`);
  return undefined;
}

function stale(nodeId: string, bootGeneration: number): CetusError {
  return new CetusError('stale', `boot generation ${bootGeneration} of node ${nodeId} is over`);
}
