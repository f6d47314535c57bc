/**
 * A whole store from one Postgres to another, of any two versions from 14 on: for moving into a cluster. Both are ours alone meanwhile: nobody else
 * writes. The target gets everything in one transaction, checked before its end, so that there is all of it or nothing; where the answer was lost, the same
 * call says which. A target that holds anything else is refused.
 *
 * Objects keep key, value, etag and time; indexed columns are computed anew from the value, which is what they are. The log of changes is not carried over: it
 * is ordered by transaction ids, which mean something in one database only. Every cursor of before is `stale` in the target: ids up to the source's
 * newest are used up there first, and each bucket is marked as trimmed up to the transaction that copies.
 */
import pg from 'pg';
import {CetusError} from '../base/errors';
import type {Log} from '../base/log';
import type {IndexedField} from '../schema/bucket';
import {discoveryOf, type Discover, type Discovery} from './primary';
import {createTables, importPage, LOCK_CLASS, SCHEMA, table} from './store';
import {quote} from './sql';

export interface CopyOptions {
  from: string;
  to: string | Discover | Discovery;
  log: Log;
  tell?: (text: string) => void;
}

/** `already`: it was all there. */
export interface Copied { already: boolean; buckets: {name: string; objects: number}[] }

interface Bucket { name: string; version: number; fields: Record<string, IndexedField & {ready: boolean}>; retentionMs: string }
interface Digest { objects: number; sum: string }

const PAGE = 500;
const CONNECT_TIMEOUT_MS = 5000;
/** Of ids that one transaction uses up: each is a subtransaction, whose id its end writes down. */
const IDS_AT_ONCE = 20_000;
/** More than this would take the better part of an hour. */
const MAX_IDS = 100_000_000n;
const ETAG_GAP = 1000n;
/** Texts of both servers are compared, so they have to be spelt alike; and whatever is set for the role, the copy is the standby's too, or is warned of. */
const SESSION = `SET synchronous_commit = on; SET client_min_messages = notice; SET TimeZone = 'UTC'; SET DateStyle = 'ISO'; SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0`;

export async function copyStore(options: CopyOptions): Promise<Copied> {
  const source = await open(options.from, 'the old store');
  try {
    await source.client.query(`${SESSION}; BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY`);
    const buckets = await catalogue(source.client);
    if (!buckets) throw new CetusError('notFound', 'there is no store of Cetus in the old database');
    const {url, generation} = await discoveryOf(options.to).primary();
    const target = await open(url, 'the new store', generation);
    try {
      await target.client.query(SESSION);
      return await fill(source.client, target, buckets, options);
    } finally {
      await target.client.end().catch(() => undefined);
    }
  } finally {
    await source.client.end().catch(() => undefined);
  }
}

interface Opened { client: pg.Client; /** Commits that the standby need not have. */ doubtful(): boolean }

async function open(url: string, what: string, generation = 0): Promise<Opened> {
  const client = new pg.Client({connectionString: url, connectionTimeoutMillis: CONNECT_TIMEOUT_MS, application_name: 'cetus_import', keepAlive: true});
  let doubtful = false;
  client.on('error', () => undefined);
  client.on('notice', (notice) => { doubtful ||= notice.routine === 'SyncRepWaitForLSN'; });
  try {
    await client.connect();
    const {rows} = await client.query<{standby: boolean; generation: string | null}>(`SELECT pg_is_in_recovery() AS standby, current_setting('cetus.generation', true) AS generation`);
    if (rows[0]!.standby || Number(rows[0]!.generation ?? 0) < generation) throw new CetusError('unavailable', 'it is not the primary');
  } catch (err) {
    await client.end().catch(() => undefined);
    throw new CetusError('unavailable', `${what} cannot be reached: ${(err as Error).message}`, {cause: err});
  }
  return {client, doubtful: () => doubtful};
}

/** undefined: no store was ever made there. */
async function catalogue(client: pg.Client): Promise<Bucket[] | undefined> {
  const {rows: [found]} = await client.query<{there: string | null}>(`SELECT to_regclass('moray.buckets')::text AS there`);
  if (found!.there === null) return undefined;
  const {rows} = await client.query<{name: string; version: number; fields: Bucket['fields']; retention_ms: string}>('SELECT name, version, fields, retention_ms FROM moray.buckets ORDER BY name');
  return rows.map(({name, version, fields, retention_ms}) => ({name, version, fields, retentionMs: retention_ms}));
}

async function fill(source: pg.Client, target: Opened, buckets: Bucket[], {tell = () => undefined, log}: CopyOptions): Promise<Copied> {
  const there = await catalogue(target.client);
  if (there?.length) {
    const differs = await difference(source, target.client, buckets, there);
    if (differs) throw new CetusError('conflict', `the new store is not empty, and not a copy of the old one: ${differs}`);
    return {already: true, buckets: await counts(source, buckets)};
  }
  const {rows: [marks]} = await source.query<{xmax: string; etag: string}>(`SELECT pg_snapshot_xmax(pg_current_snapshot())::text AS xmax, (SELECT last_value::text FROM moray.etag) AS etag`);
  await useUpIds(target.client, BigInt(marks!.xmax), tell);
  await target.client.query(`BEGIN; SELECT pg_advisory_xact_lock(${LOCK_CLASS.schema}, 0)`);
  await target.client.query(SCHEMA);
  const {rows: [own]} = await target.client.query<{txid: string; beyond: boolean}>('SELECT pg_current_xact_id()::text AS txid, pg_current_xact_id() > $1::xid8 AS beyond', [marks!.xmax]);
  if (!own!.beyond) throw new CetusError('internal', 'the new database\'s transaction ids are behind the old one\'s');
  for (const bucket of buckets) {
    await target.client.query(createTables({...bucket, fields: bucket.fields}));
    const objects = await copyRows(source, target.client, bucket);
    const fields = Object.fromEntries(Object.entries(bucket.fields).map(([name, field]) => [name, {...field, ready: true}]));
    await target.client.query('INSERT INTO moray.buckets (name, version, fields, retention_ms, trimmed_txid, trimmed_seq) VALUES ($1, $2, $3, $4, $5, $6)',
      [bucket.name, bucket.version, JSON.stringify(fields), bucket.retentionMs, own!.txid, String((1n << 63n) - 1n)]);
    tell(`${bucket.name}: ${objects} objects`);
  }
  // Etags are never used twice, nor are those that the old store gave out last and nobody has seen.
  await target.client.query(`SELECT setval('moray.etag', $1::bigint)`, [String(BigInt(marks!.etag) + ETAG_GAP)]);
  const differs = await difference(source, target.client, buckets, (await catalogue(target.client))!);
  if (differs) throw new CetusError('internal', `the copy is not what was copied: ${differs}`);
  await target.client.query('COMMIT');
  if (target.doubtful()) throw new CetusError('unavailable', 'the wait for the synchronous standby was canceled: the same command again says whether the copy has lasted', {info: {outcome: 'unknown'}});
  log.info({buckets: buckets.length, txid: own!.txid}, 'store copied');
  await target.client.query('ANALYZE').catch((err: unknown) => log.warn({err}, 'statistics of the copy'));
  return {already: false, buckets: await counts(source, buckets)};
}

async function copyRows(source: pg.Client, target: pg.Client, {name, version, fields}: Bucket): Promise<number> {
  await source.query(`DECLARE copied NO SCROLL CURSOR FOR SELECT _key, _value::text AS _value, _etag::text AS _etag, _mtime::text AS _mtime FROM ${table(name)}`);
  const insert = importPage(name, version, fields);
  let objects = 0;
  for (;;) {
    const {rows} = await source.query<{_key: string; _value: string; _etag: string; _mtime: string}>(`FETCH ${PAGE} FROM copied`);
    if (rows.length === 0) break;
    await target.query({name: `import_${name}`, text: insert, values: [rows.map((r) => r._key), rows.map((r) => r._value), rows.map((r) => r._etag), rows.map((r) => r._mtime)]});
    objects += rows.length;
  }
  await source.query('CLOSE copied');
  return objects;
}

/** Until every id below `beyond` has been given out, so that a cursor of the old database is older than anything here. */
async function useUpIds(target: pg.Client, beyond: bigint, tell: (text: string) => void): Promise<void> {
  for (let told = false; ;) {
    const {rows: [now]} = await target.query<{xmax: string}>('SELECT pg_snapshot_xmax(pg_current_snapshot())::text AS xmax');
    const left = beyond + 1n - BigInt(now!.xmax);
    if (left <= 0n) return;
    if (left > MAX_IDS) throw new CetusError('unsupported', `the old database has used ${beyond} transaction ids, the new one ${now!.xmax}: using up the difference would take too long`);
    if (!told && left > 10n * BigInt(IDS_AT_ONCE)) tell(`using up ${left} transaction ids, so that cursors of before are known as such`);
    told = true;
    const many = Number(left < BigInt(IDS_AT_ONCE) ? left : BigInt(IDS_AT_ONCE));
    await target.query(`DO $$ BEGIN FOR n IN 1..${many} LOOP BEGIN PERFORM pg_logical_emit_message(true, 'moray', ''); EXCEPTION WHEN division_by_zero THEN NULL; END; END LOOP; END $$`);
  }
}

/** What is not the same in both, or undefined. Fields that are still being indexed in the old store are complete in the new one. */
async function difference(source: pg.Client, target: pg.Client, old: Bucket[], copy: Bucket[]): Promise<string | undefined> {
  const [names, others] = [old.map(({name}) => name).join(' '), copy.map(({name}) => name).join(' ')];
  if (names !== others) return `it has buckets ${others || 'none'}, the old one ${names || 'none'}`;
  for (const bucket of old) {
    const ready = Object.entries(bucket.fields).filter(([, field]) => field.ready).map(([name]) => name);
    const [a, b] = [await digest(source, bucket.name, ready), await digest(target, bucket.name, ready)];
    if (a.objects !== b.objects) return `${bucket.name} has ${b.objects} objects, and the old one ${a.objects}`;
    if (a.sum !== b.sum) return `objects of ${bucket.name} differ`;
  }
  return undefined;
}

/** Of everything that a row holds, whatever the order. */
async function digest(client: pg.Client, bucket: string, fields: string[]): Promise<Digest> {
  const parts = ['_key', '_value::text', '_etag::text', '_mtime::text', ...fields.map((name) => `coalesce(${quote(name)}::text, '-')`)];
  const {rows: [row]} = await client.query<{objects: string; sum: string}>(
    `SELECT count(*)::text AS objects, coalesce(sum(('x' || left(md5(concat_ws(E'\\x1f', ${parts.join(', ')})), 15))::bit(60)::bigint::numeric), 0)::text AS sum FROM ${table(bucket)}`);
  return {objects: Number(row!.objects), sum: row!.sum};
}

async function counts(client: pg.Client, buckets: Bucket[]): Promise<Copied['buckets']> {
  const all: Copied['buckets'] = [];
  for (const {name} of buckets) all.push({name, objects: (await digest(client, name, [])).objects});
  return all;
}
