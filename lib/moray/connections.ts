/**
 * Connections to the primary, wherever it is now. `discover` says where (a fixed URL, or manatee's answer); each new connection is asked
 * whether its server is in recovery before it is used (once is enough: a primary becomes a standby only by a restart, which ends the
 * connection). Nobody hangs: waiting for a connection, connecting and every statement end at the call's deadline, and a connection
 * whose answer did not come in time is thrown away.
 */
import pg from 'pg';
import {CetusError, isCetusError} from '../base/errors';
import type {Log} from '../base/log';
import {checkSignal} from './checks';
import {isConnectionFailure} from './failures';
import {Cursor, Prepared, runPipeline, StatementError, type Row, type Statement} from './pipeline';

export const DEFAULT_DEADLINE_MS = 10_000;
const CONNECT_TIMEOUT_MS = 3000;
const MAX_WAITING = 10_000;

export type Discover = () => string | Promise<string>;

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
        timer = setTimeout(() => reject(new CetusError('timeout', `${what} took longer than ${this.totalMs} ms`)), Math.max(0, Math.min(this.leftMs(), 2 ** 31 - 1)));
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

  private constructor(private readonly client: pg.Client) {}

  /** Throws a connection failure where the server is unreachable or no primary. */
  static async open(url: string, timeoutMs: number): Promise<Connection> {
    const client = new pg.Client({
      connectionString: url, connectionTimeoutMillis: Math.max(1, Math.round(timeoutMs)), keepAlive: true, application_name: 'cetus',
      statement_timeout: DEFAULT_DEADLINE_MS, idle_in_transaction_session_timeout: 60_000,
    });
    const connection = new Connection(client);
    client.on('error', () => { connection.broken = true; });
    client.on('end', () => { connection.broken = true; });
    try {
      await client.connect();
      const [[row]] = await connection.run([{text: 'SELECT pg_is_in_recovery()', values: []}], new Deadline(timeoutMs)) as [[Row]];
      if (row[0] === 't') throw new CetusError('unavailable', 'the server is not the primary');
      return connection;
    } catch (err) {
      connection.destroy();
      throw err;
    }
  }

  /** Rejects with StatementError, or `timeout`, or `canceled`. After the latter two the connection is of no more use. */
  async run(statements: Statement[], deadline: Deadline): Promise<Row[][]> {
    // The server gives up by itself when we do; its own default needs no telling.
    const told = deadline.totalMs === DEFAULT_DEADLINE_MS ? statements
      : [{name: 'deadline', text: `SELECT set_config('statement_timeout', $1, true)`, values: [String(Math.max(1, Math.round(Math.min(deadline.leftMs(), 2 ** 31 - 1))))]}, ...statements];
    const extra = told.length - statements.length;
    try {
      const rows = await deadline.bound(this.inTurn(() => runPipeline(this.client, this.prepared, told)), 'a call to the store');
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
      await deadline.bound(this.inTurn(() => this.client.query(sql)), 'a call to the store');
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

export interface ConnectionsOptions { discover: Discover; size: number; log: Log }

export class Connections {
  private readonly idle: Connection[] = [];
  private readonly busy = new Set<Connection>();
  private readonly waiters = new Set<Waiter>();
  private total = 0;
  private closed = false;
  private lastFailure: unknown;

  constructor(private readonly options: ConnectionsOptions) {}

  /** Opens one that belongs to the caller alone and does not count. */
  async dedicated(timeoutMs = CONNECT_TIMEOUT_MS): Promise<Connection> {
    this.assertOpen();
    const connection = await Connection.open(await this.options.discover(), timeoutMs);
    if (this.closed) {
      connection.destroy();
      this.assertOpen();
    }
    return connection;
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
      if (isCetusError(err, 'timeout') && this.lastFailure !== undefined)
        throw new CetusError('unavailable', 'the store cannot be reached', {cause: this.lastFailure, info: {outcome: 'none'}});
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

  /** Connects while more callers wait than connections are on their way. */
  private connecting = 0;
  private grow(): void {
    while (!this.closed && this.total < this.options.size && this.connecting < this.waiters.size) {
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
        const connection = await Connection.open(await this.options.discover(), CONNECT_TIMEOUT_MS);
        this.lastFailure = undefined;
        this.connecting -= 1;
        this.release(connection);
        return;
      } catch (err) {
        if (this.lastFailure === undefined) this.options.log.warn({err}, 'the store cannot be reached; trying again');
        this.lastFailure = err;
        await new Promise((resolve) => setTimeout(resolve, delayMs / 2 + Math.random() * delayMs / 2));
        delayMs = Math.min(delayMs * 2, 500);
      }
    }
    this.connecting -= 1;
    this.total -= 1;
  }

  private assertOpen(): void {
    if (this.closed) throw new CetusError('unavailable', 'the store is closed');
  }

  /** Calls that are under way have `graceMs` to end. */
  async close(graceMs = 2000): Promise<void> {
    this.closed = true;
    for (const waiter of this.waiters) waiter.reject(new CetusError('unavailable', 'the store is closed'));
    this.waiters.clear();
    for (const connection of this.idle.splice(0)) connection.destroy();
    for (const until = performance.now() + graceMs; this.busy.size > 0 && performance.now() < until;) await new Promise((resolve) => setTimeout(resolve, 5));
    for (const connection of this.busy) connection.destroy();
  }
}
