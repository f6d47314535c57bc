/**
 * Bucket definitions in the database: who may open what, and the background work that makes a new field usable.
 *
 * A field is *ready* when its column holds the right value in every row and its index is built; only then may a filter name it
 * (`unavailable` until then). Fields are added, never changed or dropped: an endpoint of an older version goes on filtering by what it
 * knows. Everything here may be run by any number of processes at once and may crash anywhere: definitions change in one transaction
 * under an advisory lock; reindexing is held by a session lock, starts over from the catalogue, and repeats nothing that is done.
 */
import {CetusError, INTERNAL} from '../base/errors';
import type {Log} from '../base/log';
import type {BucketDefinition, IndexedField} from '../schema/bucket';
import {Deadline, type Connection, type Connections} from './connections';
import {DEFAULT_TOMBSTONE_RETENTION_MS} from './fields';
import {isConnectionFailure, isRolledBack} from './failures';
import {addColumns, createIndex, createTables, functions, indexName, LOCK_CLASS, refill, SCHEMA} from './store';
import {quote} from './sql';

interface KnownField { type: IndexedField['type']; unique: boolean; path: string; ready: boolean }
interface Entry { version: number; fields: Record<string, KnownField>; retentionMs: number }

const DDL_DEADLINE_MS = 60_000;
const REINDEX_PAGE = 500;
const REINDEX_DEADLINE_MS = 600_000;

export class Catalogue {
  private readonly ready = new Map<string, Set<string>>();
  private readonly reindexing = new Map<string, Promise<void>>();
  private closed = false;

  constructor(private readonly connections: Connections, private readonly log: Log) {}

  /** Throws `unavailable` while a field that the filter or sort needs is not ready. */
  async assertReady(bucket: string, fields: Iterable<string>): Promise<void> {
    const missing = (): string | undefined => [...fields].find((field) => !this.ready.get(bucket)?.has(field));
    if (missing() === undefined) return;
    await this.connections.with(new Deadline(), async (connection) => this.remember(bucket, await read(connection, bucket)));
    const field = missing();
    if (field !== undefined) throw new CetusError('unavailable', `bucket ${bucket}: the index on field ${field} is still being built`, {shown: 'the store of the datacenter is being brought up to date; try again', info: {bucket, field}});
  }

  private remember(bucket: string, entry: Entry | undefined): void {
    this.ready.set(bucket, new Set(Object.entries(entry?.fields ?? {}).filter(([, field]) => field.ready).map(([name]) => name)));
  }

  async open(definition: BucketDefinition): Promise<void> {
    const deadline = new Deadline(DDL_DEADLINE_MS);
    const opened = async (): Promise<Entry> => this.connections.with(deadline, async (connection) => {
      const found = (await hasSchema(connection)) ? await read(connection, definition.name) : undefined;
      if (found && isCurrent(found, definition)) return found;
      await ensureSchema(connection, deadline);
      for (;;) {
        try {
          return await this.define(connection, definition, deadline);
        } catch (err) {
          // Another writer holds the table: we stand aside so that the writers behind us do not wait, and ask again.
          if (!isRolledBack(err) || isConnectionFailure(err) || deadline.leftMs() < 0) throw err;
        }
      }
    });
    let entry: Entry | undefined;
    while (!entry) {
      entry = await opened().catch((err: unknown) => {
        // Found half done or done, it is the same to do again.
        if (!isConnectionFailure(err) || deadline.leftMs() < 0) throw err;
        return undefined;
      });
    }
    this.remember(definition.name, entry);
    if (Object.values(entry.fields).some((field) => !field.ready)) this.startReindex(definition.name);
  }

  /** Creates or extends the bucket under its lock; answers what the catalogue says afterwards. */
  private async define(connection: Connection, definition: BucketDefinition, deadline: Deadline): Promise<Entry> {
    const {name, version} = definition;
    try {
      // Within the try: where others hold the lock for too long, this fails with the transaction open.
      await connection.script(`BEGIN; SET LOCAL lock_timeout = '1s'; SET LOCAL statement_timeout = '${DDL_DEADLINE_MS}'; SELECT pg_advisory_xact_lock(${LOCK_CLASS.definition}, hashtext('${name}'))`, deadline);
      const found = await read(connection, name);
      if (found && isCurrent(found, definition)) {
        await connection.script('COMMIT', deadline);
        return found;
      }
      const wanted = known(definition, !found);
      const added = Object.fromEntries(Object.entries(definition.fields).filter(([field]) => !found?.fields[field]));
      const entry: Entry = {version, fields: {...wanted, ...found?.fields}, retentionMs: definition.tombstoneRetentionMs ?? DEFAULT_TOMBSTONE_RETENTION_MS};
      await connection.script(found ? `${addColumns(name, added)}\n${functions(name, version, entry.fields)}` : createTables(definition), deadline);
      await connection.run([{
        text: `INSERT INTO moray.buckets (name, version, fields, retention_ms) VALUES ($1, $2, $3, $4)
          ON CONFLICT (name) DO UPDATE SET version = excluded.version, fields = excluded.fields, retention_ms = excluded.retention_ms`,
        values: [name, String(version), JSON.stringify(entry.fields), String(entry.retentionMs)],
      }], deadline);
      await connection.script('COMMIT', deadline);
      this.log.info({bucket: name, version, added: Object.keys(added)}, found ? 'bucket extended' : 'bucket made');
      return entry;
    } catch (err) {
      await connection.script('ROLLBACK', new Deadline(1000)).catch(() => { connection.broken = true; });
      throw err;
    }
  }

  private startReindex(bucket: string): void {
    if (this.reindexing.has(bucket)) return;
    const work = this.reindex(bucket).finally(() => this.reindexing.delete(bucket));
    this.reindexing.set(bucket, work);
  }

  /** Until every field is ready, by our own work or another process's. */
  private async reindex(bucket: string): Promise<void> {
    let delayMs = 50;
    while (!this.closed) {
      let connection: Connection | undefined;
      try {
        connection = await this.connections.dedicated();
        const entry = await this.reindexOnce(connection, bucket);
        if (entry) {
          this.remember(bucket, entry);
          return;
        }
      } catch (err) {
        if (!this.closed) this.log.error({err, bucket}, 'reindexing failed; it will be tried again');
        delayMs = Math.min(isConnectionFailure(err) ? delayMs * 2 : 30_000, 30_000);
      } finally {
        connection?.destroy();
      }
      await this.pause(delayMs);
    }
  }

  private wakeUp: (() => void) | undefined;
  private pause(ms: number): Promise<void> {
    if (this.closed) return Promise.resolve();
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, ms);
      this.wakeUp = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  /** The entry once everything is ready; undefined while another process does the work. */
  private async reindexOnce(connection: Connection, bucket: string): Promise<Entry | undefined> {
    const deadline = new Deadline(REINDEX_DEADLINE_MS);
    const one = async (text: string, ...values: (string | null)[]): Promise<string | null> => (await connection.run([{text, values}], deadline))[0]![0]?.[0] ?? null;
    await connection.script(`SET statement_timeout = ${REINDEX_DEADLINE_MS}`, deadline);
    const locked = (await one(`SELECT pg_try_advisory_lock(${LOCK_CLASS.reindex}, hashtext($1))`, bucket)) === 't';
    const entry = (await read(connection, bucket))!;
    const pending = Object.entries(entry.fields).filter(([, field]) => !field.ready).map(([name]) => name);
    if (pending.length === 0) return entry;
    if (!locked) return undefined;
    const started = performance.now();

    // A write that began before the fields were added may still run the function as it was: everything that runs now must end first.
    const since = (await one('SELECT clock_timestamp()::text'))!;
    while ((await one(`SELECT count(*)::text FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() AND xact_start < $1::timestamptz AND backend_type = 'client backend'`, since)) !== '0') {
      if (this.closed) return undefined;
      await this.pause(20);
    }
    for (const name of pending) {
      const index = indexName(bucket, name, entry.fields[name]!);
      // What a crash in the middle of CONCURRENTLY leaves is an index that exists and is not valid.
      const valid = await one(`SELECT i.indisvalid::text FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = 'moray' AND c.relname = $1`, index);
      if (valid === 'false') await connection.script(`DROP INDEX CONCURRENTLY moray.${quote(index)}`, deadline);
      if (valid !== 'true') await connection.script(createIndex(bucket, name, entry.fields[name]!, true), deadline);
    }
    const text = refill(bucket, entry.version, entry.fields, REINDEX_PAGE);
    for (let after: string | null = ''; after !== null;) {
      if (this.closed) return undefined;
      after = (await connection.run([{name: 'refill', text, values: [after]}], deadline))[0]![0]![0]!;
    }
    const marks = JSON.stringify(Object.fromEntries(pending.map((name) => [name, {...entry.fields[name]!, ready: true}])));
    // A version that came meanwhile has fields of its own; these are ready in it too, because its functions fill them.
    await one('UPDATE moray.buckets SET fields = fields || $2::jsonb WHERE name = $1', bucket, marks);
    this.log.info({bucket, fields: pending, ms: Math.round(performance.now() - started)}, 'reindexed');
    const after = (await read(connection, bucket))!;
    return Object.values(after.fields).every((field) => field.ready) ? after : undefined;
  }

  async close(): Promise<void> {
    this.closed = true;
    this.wakeUp?.();
    await Promise.allSettled(this.reindexing.values());
  }
}

function known(definition: BucketDefinition, ready: boolean): Record<string, KnownField> {
  return Object.fromEntries(Object.entries(definition.fields).map(([name, field]) => [name, {type: field.type, unique: field.unique ?? false, path: field.path ?? name, ready}]));
}

/** True: nothing is to be done. False: the definition is newer. Throws `invalid` where the two cannot live together. */
function isCurrent(found: Entry, definition: BucketDefinition): boolean {
  for (const [name, field] of Object.entries(known(definition, false))) {
    const old = found.fields[name];
    if (!old && definition.version <= found.version)
      throw new CetusError('invalid', `bucket ${definition.name}: field ${name} is new, so the version must rise above ${found.version}`, {shown: INTERNAL, info: {bucket: definition.name, field: name}});
    if (old && (old.type !== field.type || old.unique !== field.unique || old.path !== field.path))
      throw new CetusError('invalid', `bucket ${definition.name}: field ${name} cannot change its type, path or uniqueness; add a field under another name`, {shown: INTERNAL, info: {bucket: definition.name, field: name}});
  }
  return found.version >= definition.version;
}

async function hasSchema(connection: Connection): Promise<boolean> {
  const [rows] = await connection.run([{text: `SELECT to_regclass('moray.buckets')::text`, values: []}], new Deadline());
  return rows![0]![0] !== null;
}

async function ensureSchema(connection: Connection, deadline: Deadline): Promise<void> {
  if (await hasSchema(connection)) return;
  await connection.script(`BEGIN; SELECT pg_advisory_xact_lock(${LOCK_CLASS.schema}, 0); ${SCHEMA} COMMIT`, deadline);
}

async function read(connection: Connection, bucket: string): Promise<Entry | undefined> {
  const [rows] = await connection.run([{name: 'catalogue', text: 'SELECT version, fields, retention_ms FROM moray.buckets WHERE name = $1', values: [bucket]}], new Deadline());
  const row = rows![0];
  return row && {version: Number(row[0]), fields: JSON.parse(row[1]!) as Entry['fields'], retentionMs: Number(row[2])};
}
