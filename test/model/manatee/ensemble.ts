/**
 * The simulated ZooKeeper ensemble: one linearizable store, sessions that its leader expires, and connections that break. What a peer sees of it
 * is coordination.ts. Everything that is proposed is committed; what can get lost is the question, the answer, or the connection.
 */
import {CetusError} from '../../../lib/base/errors';
import type {Announcement, ClusterView, Declaration} from '../../../lib/manatee/coordination';
import type {ClusterState, HistoryEntry} from '../../../lib/manatee/state';
import type {Network} from './network';
import type {Random} from './random';
import type {Timeline} from './timeline';

export const ZK = 'zk';
/** The leader looks for sessions to expire this often. */
const TICK_MS = 200;

export interface Session {
  id: number;
  endpoint: string;
  timeoutMs: number;
  heardAt: number;
  expired: boolean;
  connection: Connection | null;
}

/** One TCP connection of a client to one server. `open`: as that server sees it. */
export interface Connection {
  endpoint: string;
  open: boolean;
  session: Session | null;
  hinted: boolean;
  /** The session spoke here, and the leader has yet to hear of it. */
  reporting: boolean;
  /** With its server goes what that one had yet to report. A client that merely goes takes nothing back. */
  serverDied: boolean;
  /** At the client's end. */
  onHint: () => void;
  onBroken: () => void;
}

export interface UnderWay { connection: Connection; arrived: boolean }

export type Operation =
  | {kind: 'view'}
  /** A write that changes nothing. */
  | {kind: 'beat'}
  | {kind: 'declare'; declaration: Declaration}
  | {kind: 'announce'; announcement: Announcement}
  | {kind: 'withdraw'; id: string}
  | {kind: 'orderRebuild'; id: string; wanted: boolean}
  | {kind: 'history'; limit: number};

export interface EnsembleWatcher {
  declared(before: ClusterState | null, after: ClusterState, by: string, reason: string): void;
  trace(who: string, what: () => string): void;
}

export class Ensemble {
  up = true;
  /** What a commit takes beyond the usual: disks of the ensemble. */
  slowMs = 0;
  state: ClusterState | null = null;
  version = -1;
  readonly history: HistoryEntry[] = [];
  /** How long a hint may take beyond the usual, by endpoint: a follower that is behind. */
  readonly staleMs = new Map<string, number>();
  private readonly ephemerals = new Map<string, {announcement: Announcement; session: Session; order: number}>();
  private readonly rebuild = new Set<string>();
  private readonly sessions = new Set<Session>();
  private readonly connections = new Set<Connection>();
  private readonly underWay = new Set<UnderWay>();
  private serial = 0;
  /** What stands there now, as each session that looked since it changed has read it. */
  private readonly views = new Map<Session | null, ClusterView>();
  /** Commits are in order. */
  private lastCommit = 0;

  constructor(private readonly timeline: Timeline, private readonly network: Network, private readonly random: Random, private readonly watcher: EnsembleWatcher) {}

  /** As if somebody had declared it long ago. */
  begin(state: ClusterState): void {
    this.views.clear();
    this.state = state;
    this.version = 0;
    this.history.push({at: 'long ago', by: 'world', reason: 'the beginning', state});
  }

  alive(id: string): boolean {
    return this.ephemerals.has(id);
  }

  /** Opens a session or takes an old one along; the answer is null where the old one has expired. */
  connect(connection: Connection, old: Session | null, timeoutMs: number): Session | null {
    this.connections.add(connection);
    if (old?.expired) {
      this.connections.delete(connection);
      return null;
    }
    const session = old ?? {id: ++this.serial, endpoint: connection.endpoint, timeoutMs, heardAt: this.timeline.nowMs, expired: false, connection: null};
    if (!old) {
      this.sessions.add(session);
      this.watchSession(session);
    }
    if (session.connection && session.connection !== connection) this.closeAtServer(session.connection);
    session.connection = connection;
    session.heardAt = this.timeline.nowMs;
    connection.session = session;
    connection.open = true;
    return session;
  }

  /**
   * The session has spoken to its server. The leader hears of it with the server's next answer to its pings, half a tick later at most (a tick is half the least
   * session timeout, or less), or never, where the server dies before. A committed write by itself tells the leader nothing.
   */
  private spoke(connection: Connection, session: Session): void {
    if (connection.reporting) return;
    connection.reporting = true;
    this.timeline.after(this.random.between(0, session.timeoutMs / 4), () => {
      connection.reporting = false;
      if (this.up && !connection.serverDied && !session.expired) session.heardAt = this.timeline.nowMs;
    });
  }

  /** A declaration leaves its sitter: it counts as under way until it was carried out or cannot be any more. */
  sends(connection: Connection): UnderWay {
    const declaration = {connection, arrived: false};
    this.underWay.add(declaration);
    return declaration;
  }
  hasUnderWay(endpoint: string): boolean {
    return [...this.underWay].some(({connection}) => connection.endpoint === endpoint);
  }

  /** A question has arrived at a server. `answer` is called when it has been committed, unless the server goes before it can send it. */
  submit(connection: Connection, operation: Operation, answer: (result: {value: unknown} | {error: CetusError}) => void, declaration?: UnderWay): void {
    const session = connection.session;
    if (!this.up || !connection.open || !session) return void (declaration && this.underWay.delete(declaration));
    if (declaration) declaration.arrived = true;
    this.spoke(connection, session);
    const due = Math.max(this.timeline.nowMs + this.random.latency(0.6) + this.random.between(0, this.slowMs), this.lastCommit);
    this.lastCommit = due;
    this.timeline.after(due - this.timeline.nowMs, () => {
      if (declaration) this.underWay.delete(declaration);
      if (!this.up) return;
      if (session.expired) return this.breakConnection(connection);
      let result: {value: unknown} | {error: CetusError};
      try {
        result = {value: this.execute(session, operation)};
      } catch (err) {
        if (!(err instanceof CetusError)) throw err;
        result = {error: err};
      }
      if (operation.kind === 'view' && 'value' in result && this.random.chance(0.2)) return this.tornView(result.value as ClusterView, session, connection, answer);
      if (connection.open) answer(result);
    });
  }

  /** A view is several reads: some of it is later than the rest. */
  private tornView(early: ClusterView, session: Session, connection: Connection, answer: (result: {value: unknown}) => void): void {
    const stateFirst = this.random.chance(0.5);
    this.timeline.after(this.random.latency(1), () => {
      if (!this.up || !connection.open || session.expired) return;
      const late = this.view(session);
      answer({value: stateFirst ? {...late, state: early.state, version: early.version} : {...early, state: late.state, version: late.version}});
    });
  }

  closeSession(session: Session): void {
    if (!session.expired) this.expire(session, 'closed');
  }

  /** The client's end is gone; the session lives on until it expires. */
  closeAtServer(connection: Connection): void {
    connection.open = false;
    this.connections.delete(connection);
    for (const declaration of this.underWay) if (declaration.connection === connection && !declaration.arrived) this.underWay.delete(declaration);
    if (connection.session?.connection === connection) connection.session.connection = null;
  }

  breakConnection(connection: Connection): void {
    if (!connection.open) return;
    this.closeAtServer(connection);
    this.network.send(ZK, connection.endpoint, () => connection.onBroken());
  }

  /** The server that this client is connected to dies. */
  dropServerOf(endpoint: string): void {
    for (const connection of [...this.connections]) {
      if (connection.endpoint !== endpoint) continue;
      connection.serverDied = true;
      this.breakConnection(connection);
    }
  }

  /** As if nobody had heard of it for too long. */
  expireSessionOf(endpoint: string): void {
    for (const session of [...this.sessions]) if (session.endpoint === endpoint) this.expire(session, 'expired');
  }

  down(): void {
    this.up = false;
    for (const connection of [...this.connections]) this.breakConnection(connection);
  }
  /** A new leader gives every session its whole timeout again. */
  comeBack(): void {
    this.up = true;
    for (const session of this.sessions) session.heardAt = this.timeline.nowMs;
  }

  /** The view as it is now. For the simulator's own actors as well. */
  view(mine: Session | null = null): ClusterView {
    let view = this.views.get(mine);
    if (!view) {
      const peers = [...this.ephemerals.values()].sort((a, b) => a.order - b.order).map(({announcement, order, session}) => ({...announcement, order, mine: session === mine}));
      this.views.set(mine, (view = {state: this.state, version: this.version, peers, rebuild: [...this.rebuild].sort()}));
    }
    return view;
  }

  private execute(session: Session, operation: Operation): unknown {
    switch (operation.kind) {
      case 'beat':
        return undefined;
      case 'view':
        return this.view(session);
      case 'history':
        return this.history.slice(-operation.limit);
      case 'declare':
        return this.declare(operation.declaration);
      case 'announce': {
        const {announcement} = operation;
        const mine = this.ephemerals.get(announcement.id);
        this.ephemerals.set(announcement.id, {announcement, session, order: mine?.session === session ? mine.order : ++this.serial});
        return this.changed();
      }
      case 'withdraw':
        if (this.ephemerals.delete(operation.id)) this.changed();
        return undefined;
      case 'orderRebuild':
        if (operation.wanted) this.rebuild.add(operation.id);
        else this.rebuild.delete(operation.id);
        return this.changed();
    }
  }

  private declare({next, entry, version, absent}: Declaration): void {
    if (version !== this.version) throw new CetusError('etagConflict', `the state has version ${this.version}, not ${version}`);
    for (const id of absent) if (this.ephemerals.has(id)) throw new CetusError('etagConflict', `${id} is alive`);
    const before = this.state;
    this.state = next;
    this.version += 1;
    this.history.push({...entry, state: next});
    this.changed();
    this.watcher.declared(before, next, entry.by, entry.reason);
  }

  private watchSession(session: Session): void {
    const due = Math.ceil((session.heardAt + session.timeoutMs) / TICK_MS + 0.001) * TICK_MS;
    // Overdue: the ensemble is down.
    this.timeline.after(due > this.timeline.nowMs ? Math.max(due - this.timeline.nowMs, 1) : TICK_MS, () => {
      if (session.expired) return;
      if (this.up && this.timeline.nowMs >= session.heardAt + session.timeoutMs) this.expire(session, 'expired');
      else this.watchSession(session);
    });
  }

  private expire(session: Session, how: string): void {
    session.expired = true;
    this.sessions.delete(session);
    this.watcher.trace(ZK, () => `session ${session.id} of ${session.endpoint} ${how}`);
    if (session.connection) this.breakConnection(session.connection);
    let gone = false;
    for (const [id, ephemeral] of this.ephemerals)
      if (ephemeral.session === session) {
        this.ephemerals.delete(id);
        gone = true;
      }
    if (gone) this.changed();
  }

  private changed(): void {
    this.views.clear();
    for (const connection of this.connections) {
      if (connection.hinted) continue;
      connection.hinted = true;
      const late = this.random.between(0, this.staleMs.get(connection.endpoint) ?? 1);
      this.timeline.after(late, () => {
        connection.hinted = false;
        if (connection.open) this.network.send(ZK, connection.endpoint, () => connection.onHint());
      });
    }
  }
}
