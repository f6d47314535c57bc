/**
 * Postgres' extended protocol as moray needs it, on top of pg's client: k prepared statements in one network round trip and one
 * transaction (one Sync ends both), and a cursor that reads page by page. pg's own queries cost a round trip each, and BEGIN and COMMIT
 * two more.
 *
 * Rows are arrays of texts: moray knows the types of its own columns and parses nothing twice.
 */
import type pg from 'pg';

/** `name`: prepared once per connection under it. Values are texts, as Postgres' input functions read them. */
export interface Statement { name?: string; text: string; values: (string | null)[] }
export type Row = (string | null)[];

interface Wire {
  stream: {cork(): void; uncork(): void};
  parse(message: {name?: string; text: string; types?: number[]}): void;
  bind(message: {portal?: string; statement?: string; values: (string | null)[]}): void;
  execute(message: {portal?: string; rows?: number}): void;
  close(message: {type: 'S' | 'P'; name: string}): void;
  flush(): void;
  sync(): void;
}

/** What a connection has prepared. A name whose Parse may or may not have happened (an error came in between) is closed first. */
export class Prepared {
  private readonly known = new Set<string>();
  private readonly doubtful = new Set<string>();

  send(wire: Wire, statement: Statement): void {
    const {name} = statement;
    if (name === undefined) return wire.parse({text: statement.text});
    if (this.known.has(name)) return undefined;
    if (this.doubtful.delete(name)) wire.close({type: 'S', name});
    wire.parse({name, text: statement.text});
    this.known.add(name);
    return undefined;
  }

  failed(statements: Statement[], at: number): void {
    for (const {name} of statements.slice(at)) {
      if (name === undefined || !this.known.delete(name)) continue;
      this.doubtful.add(name);
    }
  }
}

/** Which statement of the pipeline an error belongs to. */
export class StatementError extends Error {
  constructor(override readonly cause: unknown, readonly index: number) {
    super((cause as {message?: string} | null)?.message ?? String(cause));
  }
}

/** Runs the statements in order; the rows of each. Rejects with StatementError, and then none of them happened. */
export function runPipeline(client: pg.Client, prepared: Prepared, statements: Statement[]): Promise<Row[][]> {
  return new Promise((resolve, reject) => {
    const rows: Row[][] = statements.map(() => []);
    let at = 0;
    const query = {
      submit(wire: Wire) {
        wire.stream.cork();
        for (const statement of statements) {
          prepared.send(wire, statement);
          wire.bind({statement: statement.name ?? '', values: statement.values});
          wire.execute({});
        }
        wire.sync();
        wire.stream.uncork();
        return null;
      },
      handleDataRow(message: {fields: Row}) { rows[at]!.push(message.fields); },
      handleCommandComplete() { at += 1; },
      handleEmptyQuery() { at += 1; },
      handleRowDescription() { /* columns are known */ },
      handlePortalSuspended() { /* no row limit is given */ },
      handleReadyForQuery() { resolve(rows); },
      handleError(err: unknown) {
        prepared.failed(statements, at);
        reject(new StatementError(err, at));
      },
    };
    client.query(query as never);
  });
}

/** Reads one statement's rows page by page, in a transaction of its own. The connection is busy until `done`. */
export class Cursor {
  private wire: Wire | undefined;
  private page: Row[] = [];
  private waiting: {resolve(rows: Row[]): void; reject(err: unknown): void} | undefined;
  private error: unknown;
  private ended = false;
  /** Resolves when the connection may be used again. */
  readonly done: Promise<void>;
  private finished!: () => void;

  constructor(client: pg.Client, private readonly prepared: Prepared, private readonly statement: Statement) {
    this.done = new Promise((resolve) => { this.finished = resolve; });
    const query = {
      submit: (wire: Wire) => {
        this.wire = wire;
        wire.stream.cork();
        prepared.send(wire, statement);
        wire.bind({portal: 'page', statement: statement.name ?? '', values: statement.values});
        wire.flush();
        wire.stream.uncork();
        return null;
      },
      handleDataRow: (message: {fields: Row}) => { this.page.push(message.fields); },
      handlePortalSuspended: () => this.deliver(),
      handleCommandComplete: () => {
        this.end();
        this.deliver();
      },
      handleEmptyQuery: () => undefined,
      handleRowDescription: () => undefined,
      handleReadyForQuery: () => this.finished(),
      handleError: (err: unknown) => this.fail(err),
    };
    client.query(query as never);
  }

  /** The next rows, at most `count`; fewer than that: these were the last. */
  read(count: number): Promise<Row[]> {
    if (this.error !== undefined) return Promise.reject(this.error as Error);
    if (this.ended) return Promise.resolve([]);
    return new Promise((resolve, reject) => {
      this.waiting = {resolve, reject};
      this.wire!.execute({portal: 'page', rows: count});
      this.wire!.flush();
    });
  }

  /** Leaves the rest unread. */
  close(): Promise<void> {
    this.end();
    return this.done;
  }

  private deliver(): void {
    const page = this.page;
    this.page = [];
    this.waiting?.resolve(page);
    this.waiting = undefined;
  }

  private end(): void {
    if (this.ended) return;
    this.ended = true;
    this.wire!.close({type: 'P', name: 'page'});
    this.wire!.sync();
  }

  private fail(err: unknown): void {
    this.prepared.failed([this.statement], 0);
    this.error = new StatementError(err, 0);
    // pg forgets the query after an error, so nobody would say when the server is ready again: the Sync makes it so, pg's queue waits for it.
    if (!this.ended) {
      this.ended = true;
      this.wire?.sync();
    }
    this.finished();
    this.waiting?.reject(this.error);
    this.waiting = undefined;
  }
}
