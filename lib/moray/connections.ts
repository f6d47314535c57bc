/**
 * Connections to the primary, wherever it is now (primary.ts). Each new connection's server is asked whether it is in recovery and which
 * generation it serves before it is used (once is enough: a primary becomes a standby only by a restart, which ends the connection); a standby, or
 * one that has not heard of the generation that was discovered, is refused. When another primary is told of, every connection to the old one is
 * thrown away in that moment, also those amid a call: its answer would be worth nothing.
 *
 * Nobody hangs: waiting for a connection, connecting and every statement end at the call's deadline, and a connection whose answer did not come in
 * time is thrown away.
 */
import pg from 'pg';
import {CetusError, isCetusError} from '../base/errors';
import type {Log} from '../base/log';
import {checkSignal} from './checks';
import {isConnectionFailure, LATE, unreachable, unreplicated} from './failures';
import {Cursor, Prepared, runPipeline, StatementError, type Row, type Statement} from './pipeline';
import {Whereabouts, type Discovery, type Primary} from './primary';

export const DEFAULT_DEADLINE_MS = 10_000;
const CONNECT_TIMEOUT_MS = 3000;
const MAX_WAITING = 10_000;
/** Between two tries to find a primary: a failover is over sooner than the next of longer ones would come. */
const MAX_RETRY_MS = 100;
/** Where Postgres waits for its synchronous standby, as its notices name it in every language. */
const REPLICATION_WAIT = 'SyncRepWaitForLSN';

/** What is said at the beginning of a connection outranks what somebody has set for the role or the database: a commit waits, and its warning that it did not comes through. */
const REPLICATED = '-c synchronous_commit=on -c client_min_messages=notice';

/** A moment of the monotonic clock by which a call must have ended, and the caller's own signal. */
export class Deadline {
  readonly atMs: number;

  constructor(readonly totalMs = DEFAULT_DEADLINE_MS, readonly signal?: AbortSignal) {
    if (!(totalMs > 0)) throw new CetusError('invalid', 'a deadline is a positive number of milliseconds');
    this.atMs = performance.now() + totalMs;
  }

  leftMs(): number {
    return this.atMs - performance.now();
  }

  /** Waits for `promise`, or rejects: `timeout` at the deadline, `canceled` when the caller's signal says so. */
  async bound<T>(promise: Promise<T>, what: string): Promise<T> {
    if (this.signal?.aborted) promise.catch(() => undefined);
    checkSignal(this.signal);
    let timer: NodeJS.Timeout | undefined;
    let onAbort: (() => void) | undefined;
    try {
      return await new Promise<T>((resolve, reject) => {
        timer = setTimeout(() => reject(new CetusError('timeout', `${what} took longer than ${this.totalMs} ms`, LATE)), Math.max(0, Math.min(this.leftMs(), 2 ** 31 - 1)));
        if (this.signal) {
          onAbort = () => reject(new CetusError('canceled', 'the caller gave up', {cause: this.signal!.reason}));
          this.signal.addEventListener('abort', onAbort, {once: true});
        }
        promise.then(resolve, reject);
      });
    } finally {
      clearTimeout(timer);
      if (onAbort) this.signal!.removeEventListener('abort', onAbort);
    }
  }
}

/** One connection, used by one call at a time. */
export class Connection {
  private readonly prepared = new Prepared();
  broken = false;
  private committedHereOnly = false;

  private constructor(readonly primary: Primary, private readonly client: pg.Client) {
    client.on('error', () => { this.broken = true; });
    client.on('end', () => { this.broken = true; });
    // Somebody canceled the wait for the standby: the server goes on to say that all is well, and the next failover may prove it wrong.
    client.on('notice', (notice) => { if (notice.routine === REPLICATION_WAIT) this.committedHereOnly = true; });
  }

  /** Throws a connection failure where the server is unreachable, no primary, or of an older generation. `begun` gets the connection before it is open. */
  static async open(primary: Primary, timeoutMs: number, begun: (connection: Connection) => void = () => undefined): Promise<Connection> {
    // statement_timeout ends a statement, never the wait of its commit: Postgres disarms it before it commits.
    const client = new pg.Client({
      connectionString: primary.url, connectionTimeoutMillis: Math.max(1, Math.round(timeoutMs)), keepAlive: true, application_name: 'cetus',
      statement_timeout: DEFAULT_DEADLINE_MS, idle_in_transaction_session_timeout: 60_000,
      // Behind a fixed URL there may be a pooler, which takes no options.
      ...(primary.generation > 0 ? {options: REPLICATED} : {}),
    });
    const connection = new Connection(primary, client);
    try {
      // pg never settles a connect whose client is destroyed meanwhile, as happens when the primary moves.
      const ended = new Promise<never>((_, reject) => { client.once('end', () => reject(new CetusError('unavailable', 'the connection ended while it was being opened'))); });
      begun(connection);
      await Promise.race([client.connect(), ended]);
      const [[row]] = await connection.run([{text: `SELECT pg_is_in_recovery(), current_setting('cetus.generation', true)`, values: []}], new Deadline(timeoutMs)) as [[Row]];
      if (row[0] === 't') throw new CetusError('unavailable', 'the server is not the primary');
      // One that knows a newer one than we do is ahead of what we were told, which is no fault of its.
      if (Number(row[1] ?? 0) < primary.generation) throw new CetusError('unavailable', `the server is of generation ${row[1] || 'none'}, and ${primary.generation} is wanted`);
      return connection;
    } catch (err) {
      connection.destroy();
      throw err;
    }
  }

  /** What `call` committed may be lost with this server: that is no success. */
  private async replicated<T>(call: () => Promise<T>): Promise<T> {
    this.committedHereOnly = false;
    const result = await call();
    if (this.committedHereOnly) throw unreplicated();
    return result;
  }

  /** Rejects with StatementError, or `timeout`, or `canceled`. After the latter two the connection is of no more use. */
  async run(statements: Statement[], deadline: Deadline): Promise<Row[][]> {
    // The server gives up by itself when we do; its own default needs no telling.
    const told = deadline.totalMs === DEFAULT_DEADLINE_MS ? statements
      : [{name: 'deadline', text: `SELECT set_config('statement_timeout', $1, true)`, values: [String(Math.max(1, Math.round(Math.min(deadline.leftMs(), 2 ** 31 - 1))))]}, ...statements];
    const extra = told.length - statements.length;
    try {
      const rows = await deadline.bound(this.inTurn(() => this.replicated(() => runPipeline(this.client, this.prepared, told))), 'a call to the store');
      return extra ? rows.slice(extra) : rows;
    } catch (err) {
      if (err instanceof StatementError && !isConnectionFailure(err)) throw extra ? new StatementError(err.cause, err.index - extra) : err;
      this.broken = true;
      throw err;
    }
  }

  /** The feed's connection is used by several calls: one after the other. */
  private inTurn<T>(call: () => Promise<T>): Promise<T> {
    const mine = this.busy ? this.busy.then(call) : call();
    const done = mine.then(() => undefined, () => undefined).then(() => { if (this.busy === done) this.busy = undefined; });
    this.busy = done;
    return mine;
  }
  private busy: Promise<void> | undefined;

  /** Several statements without parameters, by the simple protocol; one transaction unless they say otherwise. */
  async script(sql: string, deadline: Deadline): Promise<void> {
    try {
      await deadline.bound(this.inTurn(() => this.replicated(() => this.client.query(sql))), 'a call to the store');
    } catch (err) {
      if (isCetusError(err) || isConnectionFailure(err)) this.broken = true;
      throw err;
    }
  }

  cursor(statement: Statement): Cursor {
    return new Cursor(this.client, this.prepared, statement);
  }

  /** Of other connections than this one. */
  onNotification(listener: (payload: string) => void): void {
    const {processID} = this.client as unknown as {processID: number};
    this.client.on('notification', (message) => { if (message.processId !== processID) listener(message.payload ?? ''); });
  }

  onEnd(listener: () => void): void {
    this.client.once('end', listener);
  }

  destroy(): void {
    this.broken = true;
    // Not only asked to end: where the server has stopped reading, the question would never arrive.
    const {stream} = (this.client as unknown as {connection: {stream: {destroy(): void}}}).connection;
    this.client.end().catch(() => undefined).finally(() => stream.destroy());
    setTimeout(() => stream.destroy(), 200).unref();
  }
}

interface Waiter { resolve(connection: Connection): void; reject(err: unknown): void }

export interface ConnectionsOptions { discovery: Discovery; size: number; log: Log }

export class Connections {
  private readonly idle: Connection[] = [];
  private readonly busy = new Set<Connection>();
  private readonly waiters = new Set<Waiter>();
  /** All that are open or being opened, dedicated ones too. */
  private readonly all = new Set<Connection>();
  private readonly whereabouts: Whereabouts;
  private total = 0;
  private closed = false;
  private lastFailure: unknown;
  private hurry: (() => void) | undefined;

  constructor(private readonly options: ConnectionsOptions) {
    this.whereabouts = new Whereabouts(options.discovery, (primary) => this.moved(primary), () => this.hurry?.(), options.log);
  }

  /** Opens one that belongs to the caller alone and does not count. */
  async dedicated(timeoutMs = CONNECT_TIMEOUT_MS): Promise<Connection> {
    this.assertOpen();
    return this.open(timeoutMs);
  }

  private async open(timeoutMs: number): Promise<Connection> {
    const primary = await this.whereabouts.find();
    const connection = await Connection.open(primary, timeoutMs, (begun) => {
      this.all.add(begun);
      begun.onEnd(() => this.all.delete(begun));
    });
    if (this.closed || !this.whereabouts.isCurrent(primary)) {
      connection.destroy();
      this.assertOpen();
      throw new CetusError('unavailable', 'the primary has moved');
    }
    return connection;
  }

  private moved(primary: Primary): void {
    const left = [...this.all].filter((connection) => connection.primary.url !== primary.url && connection.primary.generation < primary.generation);
    this.options.log.info({generation: primary.generation, thrownAway: left.length}, 'the store has another primary');
    for (const connection of left) connection.destroy();
  }

  /** Hands a connection to `use` and takes it back; a broken one is replaced when it is needed. */
  async with<T>(deadline: Deadline, use: (connection: Connection) => Promise<T>): Promise<T> {
    const connection = await this.acquire(deadline);
    try {
      return await use(connection);
    } finally {
      this.release(connection);
    }
  }

  acquire(deadline: Deadline): Promise<Connection> {
    this.assertOpen();
    for (let connection = this.idle.pop(); connection; connection = this.idle.pop()) {
      if (!connection.broken) {
        this.busy.add(connection);
        return Promise.resolve(connection);
      }
      this.total -= 1;
    }
    if (this.waiters.size >= MAX_WAITING) return Promise.reject(new CetusError('unavailable', 'too many calls wait for the store'));
    let waiter!: Waiter;
    const connection = new Promise<Connection>((resolve, reject) => {
      waiter = {resolve, reject};
      this.waiters.add(waiter);
    });
    this.grow();
    return deadline.bound(connection, 'waiting for the store').catch((err: unknown) => {
      // If the connection was handed over in the same moment, it goes to the next.
      if (!this.waiters.delete(waiter)) connection.then((late) => this.release(late), () => undefined);
      if (isCetusError(err, 'timeout') && this.lastFailure !== undefined) throw unreachable(this.lastFailure);
      throw err;
    });
  }

  release(connection: Connection): void {
    this.busy.delete(connection);
    if (connection.broken || this.closed) {
      connection.destroy();
      this.total -= 1;
      if (!this.closed) this.grow();
      return;
    }
    const [waiter] = this.waiters;
    if (!waiter) {
      this.idle.push(connection);
      return;
    }
    this.waiters.delete(waiter);
    this.busy.add(connection);
    waiter.resolve(connection);
  }

  /** Connects while more callers wait than connections are on their way. While there is no primary to be had, one asks for all. */
  private connecting = 0;
  private grow(): void {
    while (!this.closed && this.total < this.options.size && this.connecting < (this.lastFailure === undefined ? this.waiters.size : Math.min(1, this.waiters.size))) {
      this.total += 1;
      this.connecting += 1;
      void this.connect();
    }
  }

  /** Tries until it succeeds or nobody waits any more: a primary that moves is found where it went. */
  private async connect(): Promise<void> {
    let delayMs = 10;
    while (!this.closed && this.waiters.size > 0) {
      try {
        const connection = await this.open(CONNECT_TIMEOUT_MS);
        this.lastFailure = undefined;
        this.connecting -= 1;
        this.release(connection);
        this.grow();
        return;
      } catch (err) {
        if (this.closed) break;
        if (this.lastFailure === undefined) this.options.log.warn({err}, 'the store cannot be reached; trying again');
        this.lastFailure = err;
        if (this.connecting > 1) break;
        await this.pause(delayMs / 2 + Math.random() * delayMs / 2);
        delayMs = Math.min(delayMs * 2, MAX_RETRY_MS);
      }
    }
    this.connecting -= 1;
    this.total -= 1;
    // Who came in the moment of our leaving relied on us.
    this.grow();
  }

  /** Ends early when discovery has news. */
  private pause(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const done = (): void => {
        clearTimeout(timer);
        this.hurry = undefined;
        resolve();
      };
      const timer = setTimeout(done, ms);
      this.hurry = done;
    });
  }

  private assertOpen(): void {
    if (this.closed) throw new CetusError('unavailable', 'the store is closed');
  }

  /** Calls that are under way have `graceMs` to end. */
  async close(graceMs = 2000): Promise<void> {
    this.closed = true;
    this.whereabouts.close();
    this.hurry?.();
    for (const waiter of this.waiters) waiter.reject(new CetusError('unavailable', 'the store is closed'));
    this.waiters.clear();
    for (const connection of this.idle.splice(0)) connection.destroy();
    for (const until = performance.now() + graceMs; this.busy.size > 0 && performance.now() < until;) await new Promise((resolve) => setTimeout(resolve, 5));
    for (const connection of this.busy) connection.destroy();
  }
}
