import {setMaxListeners} from 'node:events';
import pg from 'pg';
import {isCetusError} from '../../lib/base/errors';
import {ALL, eq} from '../../lib/moray/filter';
import type {BatchOp, Change, Moray} from '../../lib/moray/moray';
import {createMoray} from '../../lib/moray/postgres';
import type {BucketDefinition} from '../../lib/schema/bucket';
import {usePostgres} from '../harness/postgres';
import {until} from '../harness/wait';
import {rejection, take} from '../moray/conformance';

const COUNTERS: BucketDefinition = {name: 'counters', version: 1, fields: {writer: {type: 'string'}, n: {type: 'number'}}};
interface Counter { writer: string; n: number }

let stores: Moray[] = [];
let stop: AbortController;
beforeEach(() => { stop = new AbortController(); });
afterEach(async () => {
  stop.abort();
  await Promise.all(stores.map((store) => store.close()));
  stores = [];
});
const postgres = usePostgres();

async function open(url: string, bucket: BucketDefinition = COUNTERS): Promise<Moray> {
  const moray = createMoray({url});
  stores.push(moray);
  await moray.open(bucket);
  return moray;
}

/** Reads in the background until told; what it has read so far is in `seen`. */
function follow<T>(changes: AsyncIterable<Change<T>>): {seen: Change<T>[]; ended: Promise<void>} {
  const seen: Change<T>[] = [];
  const ended = (async () => { for await (const change of changes) seen.push(change); })();
  ended.catch(() => undefined);
  return {seen, ended};
}

async function statement(url: string, sql: string): Promise<void> {
  const client = new pg.Client({connectionString: url});
  await client.connect();
  try {
    await client.query(sql);
  } finally {
    await client.end();
  }
}

test('many concurrent writers in several processes: nothing missed, nothing twice, each object in its order, for every reader', async () => {
  const url = await postgres.freshDatabase();
  const [first, second, third] = await Promise.all([open(url), open(url), open(url)]);
  const readers = [follow(await first!.watch<Counter>('counters', ALL, {signal: stop.signal})), follow(await third!.watch<Counter>('counters', ALL, {signal: stop.signal})), follow(await third!.watch<Counter>('counters', ALL, {since: 'beginning', signal: stop.signal}))];
  const WRITERS = 16;
  const ROUNDS = 60;
  const SHARED = 5;
  // Every version that any writer was told is committed, by its etag.
  const acknowledged = new Map<string, {key: string; value: Counter}>();
  const deleted = {count: 0};
  await Promise.all(Array.from({length: WRITERS}, async (_, w) => {
    const moray = [first, second][w % 2]!;
    for (let n = 0; n < ROUNDS; n += 1) {
      const value = {writer: `w${w}`, n};
      // Own keys, and a few that all fight over: written singly, in batches of several buckets' worth of locks, and deleted.
      const shared = (at: number): string => `shared${(w * 7 + n + at) % SHARED}`;
      const ops: BatchOp[] = [{op: 'put', bucket: 'counters', key: `w${w}-${n % 10}`, value}];
      if (n % 3 === 0) ops.push({op: 'put', bucket: 'counters', key: shared(0), value}, {op: 'put', bucket: 'counters', key: shared(2), value});
      if (n % 5 === 0) ops.push({op: 'delete', bucket: 'counters', key: shared(1)});
      const results = await moray.batch(ops);
      results.forEach((result, i) => {
        const op = ops[i]!;
        if (op.op === 'put') acknowledged.set(result.etag!, {key: op.key, value});
        else deleted.count += result.count!;
      });
    }
  }));
  const total = acknowledged.size + deleted.count;
  for (const {seen} of readers) {
    await until('every change to arrive', () => seen.length >= total);
    const puts = seen.filter((c) => c.kind === 'put');
    expect(new Set(seen.map((c) => c.cursor)).size).toBe(seen.length);
    expect(new Map(puts.map((c) => [c.etag, {key: c.key, value: c.value}]))).toEqual(acknowledged);
    expect(seen.length).toBe(total);
    // In each object's own order, which its etags tell, and the last word is what the store holds.
    const state = new Map<string, Change<Counter>>();
    for (const change of seen) {
      const before = state.get(change.key);
      if (before) expect(BigInt(change.etag)).toBeGreaterThan(BigInt(before.etag));
      if (change.kind === 'delete') expect(change.value).toEqual(before!.value);
      state.set(change.key, change);
    }
    const live = (await first!.list<Counter>('counters', ALL)).map((row) => [row.key, row.etag]).sort();
    expect([...state.values()].filter((c) => c.kind === 'put').map((c) => [c.key, c.etag]).sort()).toEqual(live);
  }
});

test('the order of one object holds when a transaction with an older id writes it last', async () => {
  const url = await postgres.freshDatabase();
  const moray = await open(url);
  const slow = new pg.Client({connectionString: url});
  const hold = new pg.Client({connectionString: url});
  await Promise.all([slow.connect(), hold.connect()]);
  try {
    await moray.put('counters', 'gone', {n: 0});
    const {seen} = follow(await moray.watch<{n: number}>('counters', ALL, {signal: stop.signal}));
    // Takes its id first...
    await slow.query('BEGIN; SELECT pg_current_xact_id()');
    await moray.put('counters', 'k', {n: 1});
    await moray.delete('counters', 'gone');
    // ...and a third, younger than both, keeps the horizon between them for a while.
    await hold.query('BEGIN; SELECT pg_current_xact_id()');
    await slow.query(`SELECT moray.counters__put('k', '{"n": 2}', 0, NULL), moray.counters__put('gone', '{"n": 3}', 0, NULL)`);
    await slow.query('COMMIT');
    await hold.query('COMMIT');
    await until('four changes', () => seen.length >= 4);
    expect(seen.filter((c) => c.key === 'k').map((c) => [c.kind, c.value.n])).toEqual([['put', 1], ['put', 2]]);
    expect(seen.filter((c) => c.key === 'gone').map((c) => [c.kind, c.value.n])).toEqual([['delete', 0], ['put', 3]]);
  } finally {
    await Promise.all([slow.end(), hold.end()]);
  }
});

test('what commits late is not passed over: an open transaction holds the feed, and then comes in its place', async () => {
  const url = await postgres.freshDatabase();
  const moray = await open(url);
  const slow = new pg.Client({connectionString: url});
  await slow.connect();
  try {
    const {seen} = follow(await moray.watch('counters', ALL, {signal: stop.signal}));
    await slow.query('BEGIN');
    await slow.query(`SELECT moray.counters__put('late', '{}', 0, NULL)`);
    const since = await moray.watch('counters', ALL, {signal: stop.signal});
    await moray.put('counters', 'early', {});
    expect(await moray.count('counters', ALL)).toBe(1);
    await slow.query('COMMIT');
    await until('both', () => seen.length === 2);
    // The second watch began while the first write was open: it was committed afterwards, so it belongs to it.
    expect((await take(since, 2)).map((c) => c.key).sort()).toEqual(['early', 'late']);
  } finally {
    await slow.end();
  }
});

test('now means now: what was committed before is not delivered, also when an older transaction is still open', async () => {
  const url = await postgres.freshDatabase();
  const moray = await open(url);
  const slow = new pg.Client({connectionString: url});
  await slow.connect();
  try {
    await slow.query('BEGIN; SELECT pg_current_xact_id()');
    await moray.put('counters', 'before', {});
    const now = await moray.watch('counters', ALL, {signal: stop.signal});
    const beginning = await moray.watch('counters', ALL, {since: 'beginning', signal: stop.signal});
    await moray.put('counters', 'after', {});
    await slow.query('COMMIT');
    expect((await take(now, 1)).map((c) => c.key)).toEqual(['after']);
    expect((await take(beginning, 2)).map((c) => c.key)).toEqual(['before', 'after']);
  } finally {
    await slow.end();
  }
});

test('a reader that falls behind reads on from the database, in order, and costs no memory', async () => {
  const url = await postgres.freshDatabase();
  const moray = await open(url);
  const lazy = (await moray.watch<Counter>('counters', ALL, {signal: stop.signal}))[Symbol.asyncIterator]();
  const quick = follow(await moray.watch<Counter>('counters', ALL, {signal: stop.signal}));
  await moray.put('counters', 'first', {writer: 'x', n: -1});
  expect((await lazy.next()).value).toMatchObject({key: 'first'});
  const COUNT = 7000;
  for (let n = 0; n < COUNT; n += 500) await moray.batch(Array.from({length: 500}, (_, i) => ({op: 'put' as const, bucket: 'counters', key: 'hot', value: {writer: 'x', n: n + i}})));
  await until('the quick reader', () => quick.seen.length === COUNT + 1);
  for (let n = 0; n < COUNT; n += 1) expect(((await lazy.next()).value as Change<Counter>).value.n).toBe(n);
  await moray.put('counters', 'last', {writer: 'x', n: 0});
  expect((await lazy.next()).value).toMatchObject({key: 'last'});
});

test('many readers share one poller; a filter is each one\'s own', async () => {
  const url = await postgres.freshDatabase();
  const moray = await open(url);
  setMaxListeners(1000, stop.signal);
  const readers = await Promise.all(Array.from({length: 200}, async (_, n) => moray.watch<Counter>('counters', eq('n', n), {signal: stop.signal})));
  await moray.batch(Array.from({length: 200}, (_, n) => ({op: 'put' as const, bucket: 'counters', key: `k${n}`, value: {writer: 'x', n}})));
  for (const [n, reader] of readers.entries()) expect((await take(reader, 1))[0]!.key).toBe(`k${n}`);
  const client = new pg.Client({connectionString: url});
  await client.connect();
  const {rows} = await client.query(`SELECT count(*)::int AS n FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()`);
  await client.end();
  expect(rows[0].n).toBeLessThanOrEqual(11);
});

test('a cursor that retention has overtaken is stale; a reader that is up to date is not, however quiet the bucket', async () => {
  const url = await postgres.freshDatabase();
  const bucket = {...COUNTERS, tombstoneRetentionMs: 300};
  const moray = await open(url, bucket);
  const retain = (ms: number): Promise<void> => statement(url, `UPDATE moray.buckets SET retention_ms = ${ms}`);
  // Nothing is overtaken yet, however long the next lines take.
  await retain(3_600_000);
  const live = await moray.watch('counters', ALL, {signal: stop.signal});
  await moray.put('counters', 'a', {});
  await moray.put('counters', 'b', {});
  const [first, second] = await take(live, 2);
  const again = await moray.watch('counters', ALL, {since: first!.cursor, signal: stop.signal});
  expect((await take(again, 1))[0]!.key).toBe('b');
  await retain(bucket.tombstoneRetentionMs);
  await until('the first cursor to be stale', async () => moray.watch('counters', ALL, {since: first!.cursor, signal: stop.signal}).then(() => false, (err: unknown) => isCetusError(err, 'stale')));
  const next = await moray.watch('counters', ALL, {since: second!.cursor, signal: stop.signal});
  await moray.put('counters', 'c', {});
  expect((await take(next, 1))[0]!.key).toBe('c');
  expect((await take(live, 1))[0]!.key).toBe('c');
  // One that was too slow is told, too.
  const slow = await moray.watch('counters', ALL, {signal: stop.signal});
  await moray.put('counters', 'd', {});
  const [, cursorOfD] = ['', (await take(live, 1))[0]!.cursor];
  await moray.put('counters', 'e', {});
  await until('d to be taken', async () => moray.watch('counters', ALL, {since: second!.cursor, signal: stop.signal}).then(() => false, (err: unknown) => isCetusError(err, 'stale')));
  expect(cursorOfD).toMatch(/^\d+\.\d+$/);
  await take(slow, 1); // still in the process's memory: no gap
});

test('a cursor of another database is refused, not waited for', async () => {
  const moray = await open(await postgres.freshDatabase());
  await rejection(moray.watch('counters', ALL, {since: '999999999999.1'}), 'stale');
});

test('a change is delivered within milliseconds, in this process and in another', async () => {
  const url = await postgres.freshDatabase();
  const [here, there] = [await open(url), await open(url)];
  const near = (await here.watch('counters', ALL, {signal: stop.signal}))[Symbol.asyncIterator]();
  const far = (await there.watch('counters', ALL, {signal: stop.signal}))[Symbol.asyncIterator]();
  const latencies: number[] = [];
  for (let n = 0; n < 40; n += 1) {
    const arrivals = Promise.all([near.next(), far.next()]);
    await here.put('counters', `k${n}`, {});
    const committed = performance.now();
    await arrivals;
    latencies.push(performance.now() - committed);
  }
  // Measured 2 ms on idle cores. The timer alone would need half a second on average.
  expect(latencies.sort((a, b) => a - b)[20]).toBeLessThan(100);
});

test('what is committed and not delivered is named, also where an older transaction hides it from the feed', async () => {
  const url = await postgres.freshDatabase();
  const [reader, writer] = await Promise.all([open(url), open(url)]);
  expect(await reader!.undelivered('counters', 10)).toBeUndefined();
  const {seen} = follow(await reader!.watch<Counter>('counters', ALL, {signal: stop.signal}));
  await writer!.put<Counter>('counters', 'a', {writer: 'w', n: 1});
  await until('a to be delivered', () => seen.length === 1);
  // Whoever was behind the process's own place has read a from the log; the place itself follows in a moment, and until then a is named once too often.
  const named = async (): Promise<string[] | undefined> => reader!.undelivered('counters', 10);
  await until('nothing to be named', async () => (await named())?.length === 0);
  const older = new pg.Client({connectionString: url});
  await older.connect();
  try {
    await older.query('BEGIN');
    await older.query('SELECT pg_current_xact_id()');
    await writer!.put<Counter>('counters', 'b', {writer: 'w', n: 1});
    await writer!.put<Counter>('counters', 'b', {writer: 'w', n: 2});
    await writer!.delete('counters', 'a');
    expect((await named())!.sort()).toEqual(['a', 'b']);
    expect(await reader!.undelivered('counters', 2)).toBeUndefined();
    expect(seen).toHaveLength(1);
  } finally {
    await older.query('ROLLBACK');
    await older.end();
  }
  await until('all to be delivered', () => seen.length === 4);
  await until('nothing to be named at the end', async () => (await named())?.length === 0);
});

test('no poll looks at the whole log, also where its plan was made while that was empty', async () => {
  const url = await postgres.freshDatabase();
  const moray = await open(url);
  const {seen} = follow(await moray.watch<Counter>('counters', ALL, {signal: stop.signal}));
  // Fewer than make the server analyze the table.
  for (let n = 1; n <= 20; n += 1) {
    await moray.put<Counter>('counters', 'a', {writer: 'w', n});
    await until('it to be delivered', () => seen.length === n);
    await moray.undelivered('counters', 10);
  }
  const looker = new pg.Client({connectionString: url});
  await looker.connect();
  try {
    const counted = async (): Promise<{rows: string; scans: string}> =>
      (await looker.query<{rows: string; scans: string}>(`SELECT n_tup_ins AS rows, seq_scan AS scans FROM pg_stat_user_tables WHERE relname = 'counters__log'`)).rows[0]!;
    await until('the server to have counted', async () => Number((await counted()).rows) >= 20);
    // What was told as undelivered comes from another connection, which counts apart.
    await moray.close();
    // The making of its two indexes.
    expect(Number((await counted()).scans)).toBeLessThanOrEqual(2);
  } finally {
    await looker.end();
  }
});
