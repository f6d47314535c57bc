/**
 * How a bucket lies in Postgres: its table, its log, and the functions through which every write goes.
 *
 *   moray.BUCKET       _key, _value jsonb, _etag, _mtime, _txid, _rv, and one typed column per indexed field
 *   moray.BUCKET__log  (txid, seq) -> every version written and every deletion, until the retention is over: the change feed
 *
 * Writes are functions in the database, made from the stored definition, because an endpoint of the version before must fill the columns
 * that the newer version added: it calls the same function. They also make a batch one round trip: each operation is one prepared
 * statement, and a failed condition aborts the transaction by itself.
 *
 * The order of the log. A reader takes everything below pg_snapshot_xmin, so an entry may not sort before one that was already read, and two
 * entries of one key must sort as they happened. Transaction ids alone do not give the latter: 5 may write a key after 6 has written it
 * and committed. So an entry's txid is the greatest of its own transaction's and of the key's entry before (in _txid of the row, or, after a
 * deletion, in the log); both are finished when that id lies below xmin. `seq` is drawn after the row is locked.
 */
import type {BucketDefinition, IndexedField} from '../schema/bucket';
import {elementType, isArrayType, pathOf} from './fields';
import {ETAG_CONFLICT} from './failures';
import {COLUMN_TYPE, quote} from './sql';

export const SCHEMA = `
CREATE SCHEMA IF NOT EXISTS moray;
CREATE SEQUENCE IF NOT EXISTS moray.etag;
CREATE TABLE IF NOT EXISTS moray.buckets (
  name text PRIMARY KEY,
  version integer NOT NULL,
  -- every field of every version so far: {name: {type, unique, path, ready}}
  fields jsonb NOT NULL,
  retention_ms bigint NOT NULL,
  -- the last log entry that retention has taken
  trimmed_txid xid8 NOT NULL DEFAULT '0',
  trimmed_seq bigint NOT NULL DEFAULT 0
);
CREATE OR REPLACE FUNCTION moray.now_ms() RETURNS bigint LANGUAGE sql VOLATILE AS $$ SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint $$;
CREATE OR REPLACE FUNCTION moray.conflict(bucket text, key text, expected bigint, actual bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'etag conflict' USING ERRCODE = '${ETAG_CONFLICT}',
    DETAIL = json_build_object('bucket', bucket, 'key', key, 'expected', expected::text, 'actual', actual::text)::text;
END $$;
`;

/** One of moray's advisory locks: (class, hash of what it guards). */
export const LOCK_CLASS = {schema: 1_297_043_801, definition: 1_297_043_802, reindex: 1_297_043_803, trim: 1_297_043_804} as const;

export function table(bucket: string): string {
  return `moray.${quote(bucket)}`;
}
export function logTable(bucket: string): string {
  return `moray.${quote(`${bucket}__log`)}`;
}
export function writer(bucket: string, verb: 'put' | 'delete' | 'check'): string {
  return `moray.${quote(`${bucket}__${verb}`)}`;
}

type Fields = Record<string, IndexedField>;

/** The SQL of the column's value, given the object as `_v`. */
function columnValue(name: string, field: IndexedField): string {
  const path = `'{${pathOf(name, field).join(',')}}'`;
  const type = elementType(field.type);
  // Postgres would round the seventh digit; the fields' own rule cuts it off.
  const cast = (text: string): string => (type === 'date' ? `regexp_replace(${text}, '(\\.\\d{6})\\d+', '\\1')::timestamptz` : `(${text})::${COLUMN_TYPE[type]}`);
  if (!isArrayType(field.type)) return cast(`_v #>> ${path}`);
  return `CASE jsonb_typeof(_v #> ${path}) WHEN 'array' THEN ARRAY(SELECT ${cast('_element')} FROM jsonb_array_elements_text(_v #> ${path}) _element) END`;
}

export function columnType(field: IndexedField): string {
  const type = `${COLUMN_TYPE[elementType(field.type)]}${isArrayType(field.type) ? '[]' : ''}`;
  // Order and prefixes by code point, whatever the database's locale.
  return elementType(field.type) === 'string' ? `${type} COLLATE "C"` : type;
}

export function indexName(bucket: string, name: string, field: IndexedField): string {
  return `${bucket}__${name}${field.unique ? '__unique' : ''}`;
}

export function createIndex(bucket: string, name: string, field: IndexedField, concurrently: boolean): string {
  return `CREATE ${field.unique ? 'UNIQUE ' : ''}INDEX ${concurrently ? 'CONCURRENTLY ' : ''}${quote(indexName(bucket, name, field))} ON ${table(bucket)} ${isArrayType(field.type) ? 'USING gin ' : ''}(${quote(name)})`;
}

export function createTables(definition: BucketDefinition): string {
  const {name, fields} = definition;
  // Objects of a few kilobytes stay in the row, uncompressed: compressing each twice costs more than the disk.
  const storage = 'WITH (toast_tuple_target = 8160, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_insert_scale_factor = 0.2)';
  return `
CREATE TABLE ${table(name)} (
  _key text COLLATE "C" PRIMARY KEY, _value jsonb NOT NULL, _etag bigint NOT NULL, _mtime bigint NOT NULL, _txid xid8 NOT NULL, _rv integer NOT NULL
  ${Object.entries(fields).map(([field, f]) => `, ${quote(field)} ${columnType(f)}`).join('')}
) ${storage};
CREATE TABLE ${logTable(name)} (
  txid xid8 NOT NULL, seq bigint NOT NULL, etag bigint NOT NULL, mtime bigint NOT NULL, deleted boolean NOT NULL, key text COLLATE "C" NOT NULL, value jsonb NOT NULL,
  PRIMARY KEY (txid, seq)
) ${storage};
CREATE INDEX ${quote(`${name}__log__deleted`)} ON ${logTable(name)} (key, txid, seq) WHERE deleted;
${Object.entries(fields).map(([field, f]) => `${createIndex(name, field, f, false)};`).join('\n')}
${functions(name, definition.version, fields)}`;
}

export function addColumns(bucket: string, fields: Fields): string {
  return Object.entries(fields).map(([name, field]) => `ALTER TABLE ${table(bucket)} ADD COLUMN ${quote(name)} ${columnType(field)};`).join('\n');
}

/** Brings one page of rows, those after $1, to version $2; answers the last key of the page. Changes neither etag nor feed. */
export function refill(bucket: string, version: number, fields: Fields, page: number): string {
  const names = Object.keys(fields);
  return `
WITH page AS MATERIALIZED (SELECT _key, _value AS _v FROM ${table(bucket)} WHERE _key > $1 ORDER BY _key LIMIT ${page} FOR UPDATE),
filled AS (UPDATE ${table(bucket)} b SET _rv = ${version}${names.map((name) => `, ${quote(name)} = ${columnValue(name, fields[name]!)}`).join('')} FROM page WHERE b._key = page._key AND b._rv < ${version})
SELECT max(_key) FROM page`;
}

/** Takes a page of rows as another database had them: keys $1, values $2, etags $3, times $4. */
export function importPage(bucket: string, version: number, fields: Fields): string {
  const names = Object.keys(fields);
  return `INSERT INTO ${table(bucket)} (_key, _value, _etag, _mtime, _txid, _rv${names.map((name) => `, ${quote(name)}`).join('')})
SELECT _k, _v, _e, _m, pg_current_xact_id(), ${version}${names.map((name) => `, ${columnValue(name, fields[name]!)}`).join('')}
FROM unnest($1::text[], $2::jsonb[], $3::bigint[], $4::bigint[]) AS page(_k, _v, _e, _m)`;
}

/**
 * Modes of put and delete: 0 whatever is there, 1 nothing may be there, 2 `expected` must be there. Every name of ours begins with an
 * underscore, and no field's does.
 */
export function functions(bucket: string, version: number, fields: Fields): string {
  const names = Object.keys(fields);
  const columns = names.map((name) => `, ${quote(name)}`).join('');
  const values = names.map((name) => `, ${columnValue(name, fields[name]!)}`).join('');
  const excluded = names.map((name) => `, ${quote(name)} = excluded.${quote(name)}`).join('');
  const insert = `INSERT INTO ${table(bucket)} AS b (_key, _value, _etag, _mtime, _txid, _rv${columns}) VALUES (_k, _v, nextval('moray.etag'), _m, _t, ${version}${values})`;
  const literal = `'${bucket}'`;
  return `
CREATE OR REPLACE FUNCTION ${writer(bucket, 'put')}(_k text, _v jsonb, _mode integer, _expected bigint) RETURNS text LANGUAGE plpgsql AS $body$
DECLARE
  _t xid8 := pg_current_xact_id();
  _m bigint := moray.now_ms();
  _e bigint; _o xid8; _d xid8; _actual bigint;
BEGIN
  IF _mode = 0 THEN
    ${insert}
    ON CONFLICT (_key) DO UPDATE SET _value = excluded._value, _etag = nextval('moray.etag'), _mtime = _m, _txid = greatest(b._txid, _t), _rv = ${version}${excluded}
    RETURNING _etag, _txid INTO _e, _o;
  ELSIF _mode = 1 THEN
    LOOP
      ${insert} ON CONFLICT (_key) DO NOTHING RETURNING _etag, _txid INTO _e, _o;
      EXIT WHEN FOUND;
      SELECT _etag INTO _actual FROM ${table(bucket)} WHERE _key = _k;
      IF FOUND THEN PERFORM moray.conflict(${literal}, _k, NULL, _actual); END IF;
    END LOOP;
  ELSE
    UPDATE ${table(bucket)} b SET _value = _v, _etag = nextval('moray.etag'), _mtime = _m, _txid = greatest(b._txid, _t), _rv = ${version}
      ${names.map((name) => `, ${quote(name)} = ${columnValue(name, fields[name]!)}`).join('')}
    WHERE _key = _k AND _etag = _expected RETURNING _etag, _txid INTO _e, _o;
    IF NOT FOUND THEN
      SELECT _etag INTO _actual FROM ${table(bucket)} WHERE _key = _k;
      PERFORM moray.conflict(${literal}, _k, _expected, _actual);
    END IF;
  END IF;
  -- An insert may have waited for the end of a transaction that deleted the key, with a higher id than ours or a later etag: we come after it.
  IF _o = _t AND _mode <> 2 THEN
    SELECT txid, etag INTO _d, _actual FROM ${logTable(bucket)} WHERE deleted AND key = _k ORDER BY txid DESC, seq DESC LIMIT 1;
    IF _d > _t OR _actual > _e THEN
      _o := greatest(_d, _t);
      UPDATE ${table(bucket)} SET _txid = _o, _etag = nextval('moray.etag') WHERE _key = _k RETURNING _etag INTO _e;
    END IF;
  END IF;
  INSERT INTO ${logTable(bucket)} (txid, seq, etag, mtime, deleted, key, value) VALUES (_o, nextval('moray.etag'), _e, _m, false, _k, _v);
  RETURN _e || ' ' || _m;
END $body$;

CREATE OR REPLACE FUNCTION ${writer(bucket, 'delete')}(_k text, _mode integer, _expected bigint) RETURNS integer LANGUAGE plpgsql AS $body$
DECLARE
  _t xid8 := pg_current_xact_id();
  _o xid8; _v jsonb; _actual bigint;
BEGIN
  DELETE FROM ${table(bucket)} b WHERE _key = _k AND (_mode = 0 OR _etag = _expected) RETURNING greatest(b._txid, _t), _value INTO _o, _v;
  IF NOT FOUND THEN
    IF _mode = 0 THEN RETURN 0; END IF;
    SELECT _etag INTO _actual FROM ${table(bucket)} WHERE _key = _k;
    PERFORM moray.conflict(${literal}, _k, _expected, _actual);
  END IF;
  INSERT INTO ${logTable(bucket)} (txid, seq, etag, mtime, deleted, key, value) VALUES (_o, nextval('moray.etag'), nextval('moray.etag'), moray.now_ms(), true, _k, _v);
  RETURN 1;
END $body$;

-- Holds what it found until the end of the transaction: an object by a share lock; an absence by a row that comes and goes in this
-- transaction, for which every other writer of the key must wait.
CREATE OR REPLACE FUNCTION ${writer(bucket, 'check')}(_k text, _expected bigint) RETURNS void LANGUAGE plpgsql AS $body$
DECLARE _actual bigint;
BEGIN
  IF _expected IS NULL THEN
    INSERT INTO ${table(bucket)} (_key, _value, _etag, _mtime, _txid, _rv) VALUES (_k, '{}', 0, 0, '0', ${version}) ON CONFLICT (_key) DO NOTHING;
    IF FOUND THEN
      DELETE FROM ${table(bucket)} WHERE _key = _k;
      RETURN;
    END IF;
  END IF;
  SELECT _etag INTO _actual FROM ${table(bucket)} WHERE _key = _k FOR SHARE;
  IF _actual IS DISTINCT FROM _expected THEN PERFORM moray.conflict(${literal}, _k, _expected, _actual); END IF;
END $body$;
`;
}
