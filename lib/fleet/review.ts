/**
 * Whether nodes live: heartbeats come in, verdicts are written when they change, all of a pass in few batches.
 *
 * A node behind our unix socket is known by its heartbeats here, which no write stands for; it is judged by the endpoint that it joined at, and never fenced.
 * All others renew leases in the store, which every endpoint watches and one at a time judges (the reviewer). Where there are none of those, nothing is written at all.
 */
import {type Clock, formatNs} from '../base/clock';
import {CetusError, isCetusError} from '../base/errors';
import type {Log} from '../base/log';
import {ALL} from '../moray/filter';
import type {BatchOp, Change, Etag, Moray, Stored} from '../moray/moray';
import type {Heartbeat, HeartbeatAnswer} from '../schema/agent';
import {BUCKETS} from '../schema/buckets';
import {type LeaseRow, type Node, REVIEWER, type ReviewerLock} from '../schema/node';
import {type Doomed, fenceAll} from './fencing';
import {Leases} from './leases';
import {fenceDelayMs, judge, type LivenessVerdict} from './liveness';
import {isLocal, type Registry} from './registry';
import {Renewals} from './renewals';

const NODES = BUCKETS.nodes.name;
const LEASES = BUCKETS.leases.name;
const BATCH = 200;
const FENCE_BATCH = 50;
const FEED_RETRY_MS = 1_000;
/** A row that nobody wrote for so many fence delays is a former endpoint's. */
const ROW_GONE_DELAYS = 10;

export interface ReviewOptions {
  moray: Moray;
  log: Log;
  clock: Clock;
  registry: Registry;
  endpoint: string;
  leaseMs: number;
  graceMs: number;
  fenceAfterMs: number;
  /** Never set, never back; a suspended machine's time may be left out. */
  nowMs(): number;
}

export class Review {
  readonly leases: Leases;
  private readonly renewals: Renewals;
  /** Of the nodes behind our own socket. */
  private readonly heartbeats = new Map<string, number>();
  private readonly stopped = new AbortController();
  private readonly fenceDelayMs: number;
  private listeningSinceMs = 0;
  private rowsSinceMs = 0;
  private loops: Promise<void>[] = [];
  private watching = false;
  private turn: {etag: Etag | null; holder: string; turns: number; seenMs: number} | undefined;
  private readonly rowSeen = new Map<string, {etag: Etag; atMs: number}>();

  constructor(private readonly options: ReviewOptions) {
    const {moray, log, registry, endpoint, leaseMs, nowMs, clock} = options;
    this.fenceDelayMs = fenceDelayMs(options.fenceAfterMs, leaseMs);
    this.renewals = new Renewals(nowMs);
    this.leases = new Leases({moray, log, nodes: registry, endpoint, leaseMs, fenceDelayMs: this.fenceDelayMs, nowMs, sleep: (ms, signal) => clock.sleep(ms, signal)});
  }

  async start(): Promise<void> {
    await this.leases.start();
    this.listeningSinceMs = this.options.nowMs();
    this.loops = [this.tick()];
    this.watchRows();
  }

  async stop(): Promise<void> {
    this.leases.stop();
    this.stopped.abort(new CetusError('canceled', 'fleet stops'));
    await Promise.all(this.loops);
  }

  /** Of the registry: joins and entries into rows are signs of life. */
  nodeChanged(nodeId: string, node: Node | undefined, before: Node | undefined): void {
    if (!node) {
      this.heartbeats.delete(nodeId);
      this.renewals.forget(nodeId);
      return;
    }
    if (before && before.facts.bootGeneration === node.facts.bootGeneration && before.lease?.row === node.lease?.row) return;
    if (isLocal(node)) {
      // At our own start the stored ones are only known, not heard.
      if (this.listeningSinceMs && this.isOurs(node)) this.heartbeats.set(nodeId, this.options.nowMs());
      return;
    }
    if (this.listeningSinceMs) this.renewals.alive(nodeId);
    this.watchRows();
  }

  /** Whose turn it is, as far as is known here. Where no node renews leases nobody takes turns, and everybody may act. */
  reviews(): boolean {
    return !this.watching || this.turn?.holder === this.options.endpoint;
  }

  async heartbeat(beat: Heartbeat): Promise<HeartbeatAnswer> {
    const {registry, leaseMs, fenceAfterMs, nowMs} = this.options;
    const node = await registry.speaker(beat.nodeId, beat.bootGeneration);
    if (isLocal(node)) {
      this.heartbeats.set(beat.nodeId, nowMs());
      return {leaseMs};
    }
    await this.leases.renew(beat.nodeId, beat.bootGeneration);
    return {leaseMs, fenceAfterMs};
  }

  /** Writes what is known now; the timer calls it, and tests do. */
  async review(): Promise<void> {
    const {registry, log, clock, moray} = this.options;
    const reviews = await this.holdsTurn();
    const changes: Stored<Node>[] = [];
    const doomed: Doomed[] = [];
    for (const stored of registry.all()) {
      const verdict = this.verdict(stored.value, reviews);
      if (!verdict) continue;
      const at = formatNs(clock.nowNs());
      log.warn({nodeId: stored.key, node: stored.value.name, from: stored.value.liveness, to: verdict.liveness, reason: verdict.reason}, 'node liveness changes');
      if (verdict.liveness === 'fenced') doomed.push({node: stored, seenMs: this.renewals.atMs(stored.key), reason: verdict.reason, at});
      else changes.push({...stored, value: {...stored.value, liveness: verdict.liveness, livenessReason: verdict.reason, livenessAt: at}});
    }
    for (let i = 0; i < changes.length; i += BATCH) await this.write(changes.slice(i, i + BATCH));
    const view = {moray, renewals: this.renewals, remember: (node: Stored<Node>) => registry.remember(node)};
    for (let i = 0; i < doomed.length; i += FENCE_BATCH)
      for (const node of await fenceAll(view, doomed.slice(i, i + FENCE_BATCH))) registry.remember(node);
    if (reviews) await this.dropFormerRows();
  }

  private verdict(node: Node, reviews: boolean): LivenessVerdict | undefined {
    const {leaseMs, graceMs, nowMs} = this.options;
    const times = {stored: node.liveness, nowMs: nowMs(), leaseMs, graceMs};
    if (isLocal(node)) return this.isOurs(node) ? judge({...times, lastHeartbeatMs: this.heartbeats.get(node.id), listeningSinceMs: this.listeningSinceMs}) : undefined;
    if (!reviews || !this.rowsSinceMs) return undefined;
    return judge({...times, lastHeartbeatMs: this.renewals.atMs(node.id), listeningSinceMs: this.rowsSinceMs, fenceDelayMs: Math.max(node.lease?.fenceDelayMs ?? 0, this.fenceDelayMs)});
  }

  /** Stores of before do not say; then there is one endpoint. */
  private isOurs(node: Node): boolean {
    return node.lease === undefined || node.lease.row === this.options.endpoint;
  }

  private async write(changes: Stored<Node>[]): Promise<void> {
    const {moray, registry} = this.options;
    const put = (s: Stored<Node>): BatchOp => ({op: 'put', bucket: NODES, key: s.key, value: s.value, etag: s.etag});
    try {
      const results = await moray.batch(changes.map(put));
      changes.forEach((s, i) => registry.remember({...s, etag: results[i]!.etag!}));
    } catch (err) {
      if (!isCetusError(err, 'etagConflict')) throw err;
      // Somebody changed one of them; the feed brings it, and the next review judges it afresh.
      if (changes.length > 1) for (const change of changes) await this.write([change]);
    }
  }

  // ---- whose turn it is

  /** Only an economy: two who review at once are refused by each other's etags. */
  private async holdsTurn(): Promise<boolean> {
    if (!this.watching || !this.rowsSinceMs) return false;
    const {moray, endpoint, leaseMs, nowMs, log} = this.options;
    const {turn} = this;
    if (turn && turn.holder !== endpoint && nowMs() - turn.seenMs <= leaseMs) return false;
    if (!turn && nowMs() - this.rowsSinceMs < leaseMs / 4) return false;
    const next: ReviewerLock = {holder: endpoint, turns: (turn?.turns ?? 0) + 1};
    try {
      const {etag} = await moray.put<ReviewerLock>(LEASES, REVIEWER, next, {etag: turn?.etag ?? null});
      if (turn?.holder !== endpoint) log.info({before: turn?.holder}, 'this endpoint reviews the nodes from now on');
      this.turn = {...next, etag, seenMs: nowMs()};
      return true;
    } catch (err) {
      if (!isCetusError(err, 'etagConflict')) throw err;
      const found = await moray.peek<ReviewerLock>(LEASES, REVIEWER);
      if (found) this.seenTurn(found.etag, found.value);
      else this.turn = undefined;
      return false;
    }
  }

  private seenTurn(etag: Etag, lock: ReviewerLock): void {
    if (this.turn?.etag && BigInt(this.turn.etag) >= BigInt(etag)) return;
    this.turn = {...lock, etag, seenMs: this.options.nowMs()};
  }

  /** Rows of endpoints that are no more; one that sleeps finds its row changed, and its nodes enter again. */
  private async dropFormerRows(): Promise<void> {
    const {moray, nowMs, log} = this.options;
    for (const [key, {etag, atMs}] of this.rowSeen) {
      if (nowMs() - atMs < ROW_GONE_DELAYS * this.fenceDelayMs) continue;
      log.info({key}, 'leases that nobody renews any more are dropped');
      await moray.delete(LEASES, key, {etag}).catch((err: unknown) => {
        if (!isCetusError(err, 'etagConflict') && !isCetusError(err, 'notFound')) throw err;
      });
    }
  }

  // ---- what is seen

  /** From the first node on that renews leases; a fleet of one machine never does. */
  private watchRows(): void {
    if (this.watching || this.stopped.signal.aborted || !this.listeningSinceMs) return;
    if (![...this.options.registry.all()].some((node) => !isLocal(node.value))) return;
    this.watching = true;
    this.loops.push(this.follow());
  }

  private async follow(): Promise<void> {
    const {moray, log, clock} = this.options;
    const {signal} = this.stopped;
    while (!signal.aborted) {
      try {
        // First the feed, then the list, so that no change falls between.
        const changes = await moray.watch<LeaseRow | ReviewerLock>(LEASES, ALL, {signal});
        for await (const stored of moray.find<LeaseRow | ReviewerLock>(LEASES, ALL)) this.see(stored.key, stored.etag, stored.value);
        this.rowsSinceMs ||= this.options.nowMs();
        for await (const change of changes) this.see(change.key, change.etag, change.kind === 'put' ? change.value : undefined, change);
        throw new CetusError('unavailable', 'the change feed of leases ended');
      } catch (err) {
        if (signal.aborted) return;
        log.warn({err}, 'the change feed of leases broke; it is opened again');
        await clock.sleep(FEED_RETRY_MS, signal).catch(() => undefined);
      }
    }
  }

  private see(key: string, etag: Etag, value: LeaseRow | ReviewerLock | undefined, change?: Change<unknown>): void {
    if (key === REVIEWER) {
      if (value) this.seenTurn(etag, value as ReviewerLock);
      else if (change) this.turn = undefined;
      return;
    }
    const seen = this.rowSeen.get(key);
    if (!value) {
      this.rowSeen.delete(key);
      this.renewals.dropRow(key);
    } else if (!seen || BigInt(seen.etag) < BigInt(etag)) {
      this.rowSeen.set(key, {etag, atMs: this.options.nowMs()});
      this.renewals.row(key, value as LeaseRow);
    }
  }

  // ---- time

  /**
   * This process stood still (a suspended machine, a stopped process): the silence was its own. Heartbeats of that time are still to be read, and whoever
   * judged first would find every node dead.
   */
  private excuse(lateMs: number, toleratedMs: number): void {
    if (lateMs <= toleratedMs) return;
    this.options.log.warn({lateMs}, 'this process stood still: no node is blamed for that time');
    const nowMs = this.options.nowMs();
    this.listeningSinceMs = Math.min(nowMs, this.listeningSinceMs + lateMs);
    if (this.rowsSinceMs) this.rowsSinceMs = Math.min(nowMs, this.rowsSinceMs + lateMs);
    for (const [id, heardMs] of this.heartbeats) this.heartbeats.set(id, Math.min(nowMs, heardMs + lateMs));
    this.renewals.excuse(lateMs);
  }

  private async tick(): Promise<void> {
    const {clock, log, leaseMs, nowMs} = this.options;
    const {signal} = this.stopped;
    while (!signal.aborted) {
      const periodMs = leaseMs / 4;
      const fromMs = nowMs();
      await clock.sleep(periodMs, signal).catch(() => undefined);
      if (signal.aborted) return;
      this.excuse(nowMs() - fromMs - periodMs, periodMs);
      await this.review().catch((err: unknown) => log.warn({err}, 'liveness could not be written; the next review tries again'));
    }
  }
}
