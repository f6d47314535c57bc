/**
 * A statement's rows page by page through a cursor, for readers that take their time. Guarantees: memory is bounded by a page; a reader holds a
 * connection only while more is to come, one that stays away longer than IDLE_READER_MS loses it; at most half of the connections
 * are held by readers, so that writers always find one; one that leaves in the middle gives its connection back.
 */
import {CetusError, isCetusError} from '../base/errors';
import {Deadline, DEFAULT_DEADLINE_MS, type Connection, type Connections} from './connections';
import {isConnectionFailure, translate} from './failures';
import type {CallOptions} from './moray';
import type {Row, Statement} from './pipeline';

export const FIND_PAGE = 250;
const IDLE_READER_MS = 60_000;

/** Around the statement, on its connection. */
export interface Transaction { begin(connection: Connection, deadline: Deadline): Promise<void>; end: string }

export class Pages {
  private readonly places: Semaphore;

  constructor(private readonly connections: Connections, poolSize: number, private readonly closing: AbortSignal) {
    this.places = new Semaphore(Math.max(1, Math.floor(poolSize / 2)));
  }

  /**
   * The deadline holds for each page. A last page frees the connection before it is handed on. Where the connection is lost before the first page was,
   * the same is tried on another one.
   */
  async *read(doing: string, statement: Statement, options: CallOptions, transaction?: Transaction): AsyncGenerator<Row[]> {
    const deadline = new Deadline(options.deadlineMs, options.signal);
    for (let delayMs = 2; ; delayMs = Math.min(delayMs * 2, 200)) {
      let handedOn = false;
      try {
        for await (const rows of this.once(doing, statement, options, deadline, transaction)) {
          handedOn = true;
          yield rows;
        }
        return;
      } catch (err) {
        if (handedOn || !(err instanceof CetusError) || !isConnectionFailure(err.cause) || deadline.leftMs() < delayMs || this.closing.aborted) throw err;
        await new Promise((resolve) => setTimeout(resolve, delayMs));
      }
    }
  }

  private async *once(doing: string, statement: Statement, options: CallOptions, deadline: Deadline, transaction: Transaction | undefined): AsyncGenerator<Row[]> {
    const leave = await this.places.enter(deadline);
    let connection: Connection | undefined;
    let idle: NodeJS.Timeout | undefined;
    let letGo: (() => void) | undefined;
    const stay = (): void => {
      clearTimeout(idle);
      if (letGo) this.closing.removeEventListener('abort', letGo);
    };
    const free = (): void => {
      stay();
      if (connection) this.connections.release(connection);
      connection = undefined;
      leave();
    };
    try {
      connection = await this.connections.acquire(deadline);
      // Longer than the server would otherwise allow for one page.
      const patient = deadline.totalMs > DEFAULT_DEADLINE_MS;
      if (patient) await connection.script(`SET statement_timeout = ${Math.round(Math.min(deadline.totalMs, 2 ** 31 - 1))}`, deadline);
      await transaction?.begin(connection, deadline);
      const cursor = connection.cursor(statement);
      const finish = async (): Promise<void> => {
        await new Deadline(options.deadlineMs).bound(cursor.close(), doing);
        if (transaction) await connection!.script(transaction.end, new Deadline(options.deadlineMs));
        if (patient) await connection!.script('RESET statement_timeout', new Deadline(options.deadlineMs));
        free();
      };
      let last = false;
      try {
        while (!last) {
          const rows = await new Deadline(options.deadlineMs, options.signal).bound(cursor.read(FIND_PAGE), doing);
          last = rows.length < FIND_PAGE;
          if (last) await finish();
          else {
            const held = connection;
            idle = setTimeout(() => held.destroy(), IDLE_READER_MS);
            idle.unref();
            letGo = () => held.destroy();
            this.closing.addEventListener('abort', letGo, {once: true});
          }
          yield rows;
          stay();
          if (!last && connection.broken) throw new CetusError('unavailable', `${doing}: the reader was away too long, or the connection was lost`);
          if (!last && this.closing.aborted) throw new CetusError('unavailable', 'the store is closed');
        }
      } catch (err) {
        if (connection) connection.broken = true;
        throw translate(err, doing);
      } finally {
        // The reader left in the middle.
        if (connection && !connection.broken) await finish().catch(() => { if (connection) connection.broken = true; });
      }
    } catch (err) {
      // Also one whose transaction did not begin: nobody knows what it is amid of.
      if (connection) connection.broken = true;
      throw translate(err, doing);
    } finally {
      free();
    }
  }
}

class Semaphore {
  private readonly waiting: (() => void)[] = [];

  constructor(private free: number) {}

  /** Resolves to the function that leaves again (once). */
  async enter(deadline: Deadline): Promise<() => void> {
    if (this.free > 0) this.free -= 1;
    else {
      let turn!: () => void;
      const come = new Promise<void>((resolve) => { turn = resolve; });
      this.waiting.push(turn);
      try {
        await deadline.bound(come, 'waiting for the store');
      } catch (err) {
        const at = this.waiting.indexOf(turn);
        if (at >= 0) this.waiting.splice(at, 1);
        else this.leave();
        throw isCetusError(err, 'timeout') ? new CetusError('unavailable', 'too many streams are open', {cause: err}) : err;
      }
    }
    let left = false;
    return () => {
      if (!left) this.leave();
      left = true;
    };
  }

  private leave(): void {
    const next = this.waiting.shift();
    if (next) next();
    else this.free += 1;
  }
}
