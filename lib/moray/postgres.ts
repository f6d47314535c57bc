/**
 * moray on Postgres 14 or later: the contract of moray.ts. store.ts says how buckets lie in the database, catalogue.ts how they are defined,
 * feed.ts how changes are read, connections.ts how the primary is found and deadlines are kept.
 *
 * Reads are tried again after a lost connection, until their deadline. A write is tried again when it cannot have happened (it was
 * not sent, or Postgres rolled it back: deadlock); when its answer was lost it fails `unavailable` with info.outcome 'unknown': repeating
 * a conditional write by ourselves could report a conflict with our own success.
 */
import {CetusError, isCetusError} from '../base/errors';
import {silentLog, type Log} from '../base/log';
import type {BucketDefinition} from '../schema/bucket';
import {Catalogue} from './catalogue';
import {checkOp, checkPage, tooMany} from './checks';
import {Connections, Deadline} from './connections';
import {isConnectionFailure, isRolledBack, notFound, staleCursor, translate} from './failures';
import {Feed} from './feed';
import {checkDefinition, checkKey, encodeValue, extract} from './fields';
import {KEY_FIELD} from './filter';
import {Hints} from './hints';
import {bindFilter, type BoundFilter} from './match';
import {LIST_LIMIT, type BatchOp, type BatchResult, type CallOptions, type Change, type Condition, type Etag, type FindOptions, type Moray, type Stored, type WatchOptions} from './moray';
import {FIND_PAGE, Pages} from './pages';
import {StatementError, type Row, type Statement} from './pipeline';
import {afterSnapshot, BARRIER, comparePlaces, parseCursor, type Position} from './position';
import {discoveryOf, type Discover, type Discovery} from './primary';
import {apart, joinPuts} from './puts';
import {Retention} from './retention';
import {orderBy, Parameters, where} from './sql';
import {table, writer} from './store';

export interface MorayOptions {
  /** The primary's URL, a function that finds it (called for each new connection), or who tells of its moves. */
  url: string | Discover | Discovery;
  log?: Log;
  /** Connections for calls; one more is for the change feed. Default 10. */
  poolSize?: number;
}

export function createMoray(options: MorayOptions): Moray {
  return new PostgresMoray(options);
}

const MAX_SHAPES = 500;
const MAX_BATCH = 10_000;

interface Open { definition: BucketDefinition; feed: Feed }

class PostgresMoray implements Moray {
  private readonly connections: Connections;
  private readonly catalogue: Catalogue;
  private readonly retention: Retention;
  private readonly log: Log;
  private readonly buckets = new Map<string, Open>();
  private readonly closing = new AbortController();
  private readonly shapes = new Map<string, string>();
  private readonly pages: Pages;
  private readonly hints: Hints;

  constructor(options: MorayOptions) {
    const {url, poolSize = 10} = options;
    this.log = (options.log ?? silentLog()).child({component: 'moray'});
    this.connections = new Connections({discovery: discoveryOf(url), size: poolSize, log: this.log});
    this.catalogue = new Catalogue(this.connections, this.log);
    this.retention = new Retention(this.connections, this.log);
    this.pages = new Pages(this.connections, poolSize, this.closing.signal);
    const wake = (bucket?: string): void => {
      if (bucket !== undefined) this.buckets.get(bucket)?.feed.hint();
      else for (const {feed} of this.buckets.values()) feed.hint();
    };
    this.hints = new Hints(this.connections, wake, this.closing.signal, this.log);
  }

  async open(...definitions: BucketDefinition[]): Promise<void> {
    this.assertOpen();
    for (const definition of definitions) {
      checkDefinition(definition);
      await this.catalogue.open(definition).catch((err: unknown) => { throw translate(err, `open bucket ${definition.name}`); });
      const old = this.buckets.get(definition.name);
      if (old && old.definition.version >= definition.version) continue;
      this.buckets.set(definition.name, {definition, feed: new Feed(definition, this.connections, () => this.hints.connection, this.log)});
      this.retention.add(definition);
    }
    this.hints.begin();
  }

  private assertOpen(): void {
    if (this.closing.signal.aborted) throw new CetusError('unavailable', 'the store is closed');
  }

  private bucket(name: string): Open {
    this.assertOpen();
    const open = this.buckets.get(name);
    if (!open) throw new CetusError('invalid', `bucket ${name} is not open`);
    return open;
  }

  // ---- calls ----

  /** Runs statements as one transaction in one round trip; `ops[i]` is what statement i came from, for errors. */
  private async call(doing: string, statements: Statement[], options: CallOptions, kind: 'read' | 'write', ops?: readonly BatchOp[]): Promise<Row[][]> {
    this.assertOpen();
    const deadline = new Deadline(options.deadlineMs, options.signal);
    for (let delayMs = 2; ; delayMs = Math.min(delayMs * 2, 200)) {
      let sent = false;
      try {
        return await this.connections.with(deadline, (connection) => {
          sent = true;
          return connection.run(statements, deadline);
        });
      } catch (err) {
        const again = isRolledBack(err) || (isConnectionFailure(err) && (!sent || kind === 'read')) || (kind === 'read' && isCetusError(err) && err.info.outcome === 'unknown');
        if (!again || deadline.leftMs() < delayMs || this.closing.signal.aborted) {
          const failure = translate(err, doing, err instanceof StatementError ? ops?.[err.index] : undefined);
          if (kind === 'write' && sent && (failure.kind === 'unavailable' || failure.kind === 'timeout' || failure.kind === 'canceled') && !isRolledBack(err))
            throw new CetusError(failure.kind, failure.message, {cause: failure.cause ?? failure, shown: failure.shown, info: {...failure.info, outcome: 'unknown'}});
          throw failure;
        }
        await new Promise((resolve) => setTimeout(resolve, delayMs / 2 + Math.random() * delayMs / 2));
      }
    }
  }

  /** A statement's name: the same text is prepared once per connection, and texts without number are not prepared at all. */
  private shape(text: string): string | undefined {
    let name = this.shapes.get(text);
    if (name === undefined && this.shapes.size < MAX_SHAPES) this.shapes.set(text, (name = `q${this.shapes.size}`));
    return name;
  }

  async peek<T>(bucket: string, key: string, options: CallOptions = {}): Promise<Stored<T> | undefined> {
    this.bucket(bucket);
    checkKey(key);
    const [rows] = await this.call(`get ${bucket}/${key}`, [{name: `get_${bucket}`, text: `SELECT _key, _value, _etag, _mtime FROM ${table(bucket)} WHERE _key = $1`, values: [key]}], options, 'read');
    return rows![0] && stored<T>(bucket, rows![0]);
  }

  async get<T>(bucket: string, key: string, options?: CallOptions): Promise<Stored<T>> {
    const found = await this.peek<T>(bucket, key, options);
    if (!found) throw notFound(bucket, key);
    return found;
  }

  async put<T>(bucket: string, key: string, value: T, condition: Condition & CallOptions = {}): Promise<Stored<T>> {
    const op: BatchOp = {op: 'put', bucket, key, value, ...('etag' in condition ? {etag: condition.etag} : {})};
    const [rows] = await this.write([op], condition, `put ${bucket}/${key}`);
    const [etag, mtime] = rows![0]![0]!.split(' ');
    return {bucket, key, value, etag: etag!, mtime: Number(mtime)};
  }

  async delete(bucket: string, key: string, condition: {etag?: Etag} & CallOptions = {}): Promise<void> {
    await this.write([{op: 'delete', bucket, key, ...('etag' in condition ? {etag: condition.etag} : {})}], condition, `delete ${bucket}/${key}`);
  }

  async update(bucket: string, filter: string, patch: Record<string, unknown>, options: CallOptions = {}): Promise<number> {
    const [rows] = await this.write([{op: 'update', bucket, filter, patch}], options, `update ${bucket}`);
    return Number(rows![0]![0]);
  }

  async deleteMany(bucket: string, filter: string, options: CallOptions = {}): Promise<number> {
    const [rows] = await this.write([{op: 'deleteMany', bucket, filter}], options, `delete from ${bucket}`);
    return Number(rows![0]![0]);
  }

  async batch(ops: BatchOp[], options: CallOptions = {}): Promise<BatchResult[]> {
    this.assertOpen();
    if (ops.length === 0) return [];
    if (ops.length > MAX_BATCH) throw new CetusError('invalid', `a batch has at most ${MAX_BATCH} operations`);
    const rows = await this.write(ops, options, `batch of ${ops.length}`);
    return ops.map((op, n) => {
      const answer = rows[n]![0]![0]!;
      switch (op.op) {
        case 'put': return {etag: answer.split(' ')[0]!};
        case 'check': return {};
        default: return {count: Number(answer)};
      }
    });
  }

  private async write(ops: readonly BatchOp[], options: CallOptions, doing: string): Promise<Row[][]> {
    const statements: Statement[] = [];
    for (const op of ops) statements.push(await this.statement(op));
    const joined = joinPuts(ops, statements);
    const rows = apart(await this.call(doing, joined.statements, options, 'write', joined.ops), joined);
    for (const op of ops) if (op.op !== 'check') this.hints.committed(op.bucket);
    return rows;
  }

  private async statement(op: BatchOp): Promise<Statement> {
    checkOp(op);
    const {bucket} = op;
    const {definition} = this.bucket(bucket);
    switch (op.op) {
      case 'put': {
        const json = encodeValue(bucket, op.key, op.value);
        checkFields(definition, op.value, json);
        return {name: `put_${bucket}`, text: `SELECT ${writer(bucket, 'put')}($1, $2, $3, $4)`, values: [op.key, json, op.etag === undefined ? '0' : op.etag === null ? '1' : '2', op.etag ?? null]};
      }
      case 'delete':
        return {name: `delete_${bucket}`, text: `SELECT ${writer(bucket, 'delete')}($1, $2, $3)`, values: [op.key, op.etag === undefined ? '0' : '2', op.etag ?? null]};
      case 'check':
        return {name: `check_${bucket}`, text: `SELECT ${writer(bucket, 'check')}($1, $2)`, values: [op.key, op.etag]};
      case 'update': {
        const json = encodeValue(bucket, 'patch', op.patch);
        for (const [name, field] of Object.entries(definition.fields)) extract(bucket, name, field, flatten(op.patch, name, field.path));
        const parameters = new Parameters();
        const patch = `${parameters.add(json)}::jsonb`;
        return this.each(definition, op.filter, parameters, `${writer(bucket, 'put')}(_key, _value || ${patch}, 0, NULL)`);
      }
      case 'deleteMany':
        return this.each(definition, op.filter, new Parameters(), `${writer(bucket, 'delete')}(_key, 0, NULL)`);
    }
  }

  /** Locks what matches, in the order of keys (so that two of these cannot wait for each other), then calls the writer for each. */
  private async each(definition: BucketDefinition, filter: string, parameters: Parameters, call: string): Promise<Statement> {
    const condition = where(await this.bind(definition, filter), parameters);
    const text = `WITH matched AS MATERIALIZED (SELECT _key, _value FROM ${table(definition.name)} WHERE ${condition} ORDER BY _key FOR UPDATE) SELECT count(${call}) FROM matched`;
    return {name: this.shape(text), text, values: parameters.values};
  }

  private async bind(definition: BucketDefinition, filter: string, sort: FindOptions['sort'] = []): Promise<BoundFilter> {
    const bound = bindFilter(definition, filter);
    const fields = new Set(sort.map(({field}) => field));
    collectFields(bound, fields);
    fields.delete(KEY_FIELD);
    await this.catalogue.assertReady(definition.name, fields);
    return bound;
  }

  async count(bucket: string, filter: string, options: CallOptions = {}): Promise<number> {
    const parameters = new Parameters();
    const text = `SELECT count(*) FROM ${table(bucket)} WHERE ${where(await this.bind(this.bucket(bucket).definition, filter), parameters)}`;
    const [rows] = await this.call(`count ${bucket}`, [{name: this.shape(text), text, values: parameters.values}], options, 'read');
    return Number(rows![0]![0]);
  }

  private async select(bucket: string, filter: string, options: FindOptions): Promise<Statement> {
    const {definition} = this.bucket(bucket);
    checkPage(options);
    const {sort = [], limit, offset} = options;
    // A page needs an order that is the same for the next page.
    const order = orderBy(definition, sort, offset !== undefined || (limit !== undefined && limit <= LIST_LIMIT));
    const parameters = new Parameters();
    let text = `SELECT _key, _value, _etag, _mtime FROM ${table(bucket)} WHERE ${where(await this.bind(definition, filter, sort), parameters)}${order}`;
    // Not parameters: a plan made without knowing them takes a tenth of the table for granted. checkPage has seen that they are numbers.
    if (limit !== undefined) text += ` LIMIT ${limit}`;
    if (offset) text += ` OFFSET ${offset}`;
    return {name: offset ? undefined : this.shape(text), text, values: parameters.values};
  }

  async list<T>(bucket: string, filter: string, options: FindOptions = {}): Promise<Stored<T>[]> {
    const statement = await this.select(bucket, filter, options.limit === undefined ? {...options, limit: LIST_LIMIT + 1} : options);
    const [rows] = await this.call(`list ${bucket}`, [statement], options, 'read');
    if (options.limit === undefined && rows!.length > LIST_LIMIT) throw tooMany(bucket);
    return rows!.map((row) => stored<T>(bucket, row));
  }

  async *find<T>(bucket: string, filter: string, options: FindOptions = {}): AsyncIterable<Stored<T>> {
    const statement = await this.select(bucket, filter, options);
    if (options.limit !== undefined && options.limit <= FIND_PAGE) {
      const [rows] = await this.call(`find ${bucket}`, [statement], options, 'read');
      for (const row of rows!) yield stored<T>(bucket, row);
      return;
    }
    for await (const rows of this.pages.read(`find ${bucket}`, statement, options)) for (const row of rows) yield stored<T>(bucket, row);
  }

  // ---- changes ----

  async watch<T>(name: string, filter: string, options: WatchOptions = {}): Promise<AsyncIterable<Change<T>>> {
    const {definition, feed} = this.bucket(name);
    const {since = 'now', signal} = options;
    const bound = await this.bind(definition, filter);
    if (since === 'beginning') return this.fromBeginning<T>(definition, feed, filter, bound, signal);
    const place = since === 'now' ? undefined : parseCursor(since);
    const [rows] = await this.call(`watch ${name}`, [
      {name: 'watch', text: 'SELECT pg_current_snapshot()::text, trimmed_txid, trimmed_seq FROM moray.buckets WHERE name = $1', values: [name]},
      ...(place ? [] : [BARRIER]),
    ], {signal}, 'read');
    const [snapshot, txid, seq] = rows![0]! as [string, string, string];
    const now = afterSnapshot(snapshot);
    if (place && (comparePlaces(place, {txid: BigInt(txid), seq: BigInt(seq)}) < 0 || place.txid > now.seen!.xmax)) throw staleCursor(name);
    return feed.changes<T>(place ?? now, bound, signal);
  }

  async undelivered(name: string, most: number): Promise<string[] | undefined> {
    return this.bucket(name).feed.undelivered(most);
  }

  /** The objects of one snapshot, then what that snapshot did not see. */
  private async fromBeginning<T>(definition: BucketDefinition, feed: Feed, filter: string, bound: BoundFilter, signal: AbortSignal | undefined): Promise<AsyncIterable<Change<T>>> {
    const {name} = definition;
    let snapshot = '';
    const statement = await this.select(name, filter, {});
    const pages = this.pages.read(`watch ${name}`, statement, {signal}, {
      begin: async (connection, deadline) => {
        await connection.script('BEGIN ISOLATION LEVEL REPEATABLE READ', deadline);
        snapshot = (await connection.run([{text: 'SELECT pg_current_snapshot()::text', values: []}], deadline))[0]![0]![0]!;
      },
      // Before anybody can have the last row's cursor.
      end: `${BARRIER.text}; COMMIT`,
    });
    const first = await pages.next();
    const position: Position = afterSnapshot(snapshot);
    const stopped = (): boolean => this.closing.signal.aborted || (signal?.aborted ?? false);
    return (async function* changes(): AsyncGenerator<Change<T>> {
      try {
        for (let page = first; !page.done && !stopped();) {
          // Whether a row is the last of all is known only with the page that follows.
          const next = page.value.length < FIND_PAGE ? undefined : await pages.next();
          const isLast = next === undefined || next.done || next.value.length === 0;
          for (const [n, row] of page.value.entries()) {
            if (stopped()) return;
            yield {kind: 'put', ...stored<T>(name, row), cursor: isLast && n === page.value.length - 1 ? `@${snapshot}` : 'beginning'};
          }
          if (isLast || next === undefined) break;
          page = next;
        }
      } catch (err) {
        if (stopped()) return;
        throw err;
      } finally {
        await pages.return(undefined);
      }
      yield* feed.changes<T>(position, bound, signal);
    })();
  }

  async close(): Promise<void> {
    if (this.closing.signal.aborted) return;
    this.closing.abort();
    this.retention.close();
    for (const {feed} of this.buckets.values()) feed.close();
    await this.catalogue.close();
    await this.connections.close();
    await this.hints.ended();
  }
}

function stored<T>(bucket: string, row: Row): Stored<T> {
  return {bucket, key: row[0]!, value: JSON.parse(row[1]!) as T, etag: row[2]!, mtime: Number(row[3])};
}

/** The part of a patch that decides a field: a path that goes deeper than the patch's own names is replaced as a whole. */
function flatten(patch: Record<string, unknown>, name: string, path: string | undefined): Record<string, unknown> {
  const top = (path ?? name).split('.')[0]!;
  return Object.hasOwn(patch, top) ? patch : {};
}

/** The object as it is, else as its JSON is: a Date is a string only there. */
function checkFields(definition: BucketDefinition, value: unknown, json: string): void {
  const check = (object: unknown): void => { for (const [name, field] of Object.entries(definition.fields)) extract(definition.name, name, field, object); };
  try {
    check(value);
  } catch {
    check(JSON.parse(json));
  }
}

function collectFields(filter: BoundFilter, into: Set<string>): void {
  switch (filter.op) {
    case 'and': case 'or':
      for (const part of filter.of) collectFields(part, into);
      return;
    case 'not':
      collectFields(filter.of, into);
      return;
    default:
      into.add(filter.field);
  }
}
