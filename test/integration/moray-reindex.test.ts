import pg from 'pg';
import {isCetusError} from '../../lib/base/errors';
import {ALL, eq} from '../../lib/moray/filter';
import type {Moray} from '../../lib/moray/moray';
import {createMoray} from '../../lib/moray/postgres';
import {LOCK_CLASS} from '../../lib/moray/store';
import type {BucketDefinition} from '../../lib/schema/bucket';
import {usePostgres} from '../harness/postgres';
import {until} from '../harness/wait';
import {rejection} from '../moray/conformance';

const V1: BucketDefinition = {name: 'things', version: 1, fields: {name: {type: 'string'}}};
const V2: BucketDefinition = {name: 'things', version: 2, fields: {...V1.fields, size: {type: 'number'}, tags: {type: 'string[]'}}};
const V3: BucketDefinition = {name: 'things', version: 3, fields: {...V2.fields, serial: {type: 'string', unique: true}}};
interface Thing { name: string; size: number; tags: string[]; serial: string }
const thing = (n: number): Thing => ({name: `n${n}`, size: n % 100, tags: [`t${n % 7}`], serial: `s${n}`});

let stores: Moray[] = [];
afterEach(async () => {
  await Promise.all(stores.map((store) => store.close()));
  stores = [];
});
const postgres = usePostgres();

async function open(url: string, definition: BucketDefinition): Promise<Moray> {
  const moray = createMoray({url});
  stores.push(moray);
  await moray.open(definition);
  return moray;
}
async function fill(moray: Moray, count: number): Promise<void> {
  for (let n = 0; n < count; n += 1000) await moray.batch(Array.from({length: Math.min(1000, count - n)}, (_, i) => ({op: 'put' as const, bucket: 'things', key: `k${n + i}`, value: thing(n + i)})));
}
/** The answer once the field is ready. Until then it must be refused, never wrong. */
async function whenReady(moray: Moray, filter: string, expected: number | (() => number)): Promise<void> {
  await until(`${filter} to be ready`, async () => {
    try {
      expect(await moray.count('things', filter)).toBe(typeof expected === 'number' ? expected : expected());
      return true;
    } catch (err) {
      if (!isCetusError(err, 'unavailable')) throw err;
      expect(err.info).toMatchObject({bucket: 'things'});
      return false;
    }
  });
}
async function sql<T extends pg.QueryResultRow>(url: string, text: string): Promise<T[]> {
  const client = new pg.Client({connectionString: url});
  await client.connect();
  try {
    return (await client.query<T>(text)).rows;
  } finally {
    await client.end();
  }
}

test('a new field is refused until it is complete, while writers of both versions go on; then it is right', async () => {
  const url = await postgres.freshDatabase();
  const old = await open(url, V1);
  await fill(old, 5000);
  const before = await old.get('things', 'k17');
  let writing = true;
  let extra = 0;
  const wrong: unknown[] = [];
  const writer = (moray: Moray, name: string): Promise<void> => (async () => {
    for (let n = 0; writing; n += 1) {
      await moray.put('things', `${name}${n}`, {name: 'extra', size: 1000, tags: ['extra'], serial: `${name}${n}`});
      extra += 1;
    }
  })();
  const reader = async (moray: Moray): Promise<void> => {
    while (writing) {
      // Everything of size 5 was there from the start, so any other number would be a lie.
      const count = await moray.count('things', eq('size', 5)).catch((err: unknown) => (isCetusError(err, 'unavailable') ? 50 : Promise.reject(err as Error)));
      if (count !== 50) wrong.push(count);
    }
  };
  const older = writer(old, 'old');
  const [left, right] = await Promise.all([open(url, V2), open(url, V2)]);
  const others = [writer(left!, 'new'), reader(left!), reader(right!)];
  await whenReady(left!, eq('size', 5), 50);
  await whenReady(right!, eq('tags', 't3'), 714);
  writing = false;
  await Promise.all([older, ...others]);
  expect(wrong).toEqual([]);
  await whenReady(left!, eq('size', 1000), extra);
  await whenReady(right!, eq('tags', 'extra'), extra);
  // Reindexing is no write: neither etag nor feed know of it.
  expect(await left!.get('things', 'k17')).toEqual(before);
  await rejection(old.count('things', eq('size', 5)), 'invalid');
  expect(await old.count('things', eq('name', 'n17'))).toBe(1);
});

test('a process that dies in the middle leaves it to the next one', async () => {
  const url = await postgres.freshDatabase();
  await fill(await open(url, V1), 3000);
  for (let round = 0; round < 4; round += 1) {
    const dying = createMoray({url});
    await dying.open(V3);
    await dying.close();
  }
  const moray = await open(url, V3);
  await whenReady(moray, eq('size', 5), 30);
  await whenReady(moray, eq('serial', 's77'), 1);
  expect(await rejection(moray.put('things', 'other', {serial: 's77'}), 'conflict')).toMatchObject({field: 'serial', value: 's77'});
});

test('what a crash in CREATE INDEX CONCURRENTLY leaves is made again', async () => {
  const url = await postgres.freshDatabase();
  const old = await open(url, V1);
  await fill(old, 100);
  const dying = createMoray({url});
  await dying.open(V2);
  await dying.close();
  await sql(url, `DROP INDEX IF EXISTS moray.things__size`);
  await sql(url, `CREATE INDEX things__size ON moray.things (size)`);
  await sql(url, `UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'moray.things__size'::regclass`);
  await sql(url, `UPDATE moray.buckets SET fields = jsonb_set(fields, '{size,ready}', 'false')`);
  await whenReady(await open(url, V2), eq('size', 5), 1);
  expect(await sql(url, `SELECT indisvalid FROM pg_index WHERE indexrelid = 'moray.things__size'::regclass`)).toEqual([{indisvalid: true}]);
});

test('objects that do not fit a new field keep it from being used, and say so; nothing else suffers', async () => {
  const url = await postgres.freshDatabase();
  const old = await open(url, V1);
  await old.put('things', 'a', {name: 'x', serial: 'same'});
  await old.put('things', 'b', {name: 'x', serial: 'same'});
  const moray = await open(url, V3);
  await rejection(moray.count('things', eq('serial', 'same')), 'unavailable');
  expect(await moray.count('things', eq('name', 'x'))).toBe(2);
  await moray.put('things', 'b', {name: 'x', serial: 'other'});
  expect(await moray.count('things', ALL)).toBe(2);
});

test('definitions that cannot live together are refused', async () => {
  const url = await postgres.freshDatabase();
  const moray = await open(url, V2);
  await rejection(moray.open({...V2, fields: {...V2.fields, more: {type: 'string'}}}), 'invalid');
  await rejection(moray.open({...V3, fields: {...V3.fields, size: {type: 'string'}}}), 'invalid');
  await rejection(moray.open({...V3, fields: {...V3.fields, name: {type: 'string', unique: true}}}), 'invalid');
  await rejection(moray.open({...V1, name: 'Bad Name'}), 'invalid');
  await rejection(moray.open({name: 'x', version: 1, fields: {'a"; DROP TABLE': {type: 'string'}}}), 'invalid');
  await open(url, V1);
});

test('twenty processes open the same new buckets at once', async () => {
  const url = await postgres.freshDatabase();
  const opened = await Promise.all(Array.from({length: 20}, (_, n) => open(url, n % 2 ? V2 : V1)));
  await Promise.all(opened.map((moray, n) => moray.put('things', `k${n}`, thing(n))));
  await whenReady(opened[1]!, eq('size', 5), 1);
  expect(await opened[0]!.count('things', ALL)).toBe(20);
});

test('another has the bucket\'s lock for longer than one waits for it: it is asked for again, and the connection is good afterwards', async () => {
  const url = await postgres.freshDatabase();
  await open(url, V1);
  const other = new pg.Client({connectionString: url});
  await other.connect();
  try {
    await other.query(`BEGIN; SELECT pg_advisory_xact_lock(${LOCK_CLASS.definition}, hashtext('things'))`);
    const moray = createMoray({url, poolSize: 1});
    stores.push(moray);
    const opening = moray.open(V2);
    opening.catch(() => undefined);
    const waits = new Set<string>();
    await until('it to have given up waiting, and to wait again', async () => {
      for (const {since} of (await other.query<{since: string}>(`SELECT waitstart::text AS since FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND waitstart IS NOT NULL`)).rows) waits.add(since);
      return waits.size >= 2;
    });
    await other.query('COMMIT');
    await opening;
    await moray.put('things', 'k', thing(1));
  } finally {
    await other.end();
  }
});
