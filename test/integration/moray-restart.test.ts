import net from 'node:net';
import {isCetusError} from '../../lib/base/errors';
import {ALL} from '../../lib/moray/filter';
import type {Change, Moray} from '../../lib/moray/moray';
import {createMoray} from '../../lib/moray/postgres';
import type {BucketDefinition} from '../../lib/schema/bucket';
import {usePostgres} from '../harness/postgres';
import {until} from '../harness/wait';
import {rejection} from '../moray/conformance';

const THINGS: BucketDefinition = {name: 'things', version: 1, fields: {n: {type: 'number'}}};

let stores: Moray[] = [];
afterEach(async () => {
  await Promise.all(stores.map((store) => store.close()));
  stores = [];
});
// These tests kill the server, so what it acknowledged must be on the disk.
const postgres = usePostgres({settings: {fsync: 'on'}});

async function open(url: string | (() => string), poolSize?: number): Promise<Moray> {
  const moray = createMoray({url, poolSize});
  stores.push(moray);
  await moray.open(THINGS);
  return moray;
}

test.each(['SIGKILL', 'SIGINT'] as const)('Postgres ends by %s under load: nothing acknowledged is lost, the feed goes on without a gap, nobody hangs', async (signal) => {
  const moray = await open(await postgres.freshDatabase());
  const stop = new AbortController();
  const seen: Change<{n: number}>[] = [];
  const changes = await moray.watch<{n: number}>('things', ALL, {signal: stop.signal});
  const reading = (async () => { for await (const change of changes) seen.push(change); })();
  let running = true;
  const acknowledged = new Map<string, string>();
  const unknown = new Set<string>();
  const kinds = new Set<string>();
  let reads = 0;
  const writers = Array.from({length: 8}, async (_, w) => {
    for (let n = 0; running; n += 1) {
      const key = `w${w}-${n}`;
      try {
        acknowledged.set(key, (await moray.put('things', key, {n}, {etag: null})).etag);
      } catch (err) {
        if (!isCetusError(err)) throw err;
        kinds.add(err.kind);
        unknown.add(key);
      }
    }
  });
  const readers = Array.from({length: 2}, async () => {
    while (running) {
      await moray.count('things', ALL); // must not fail: it is tried again until its deadline
      reads += 1;
    }
  });
  for (let round = 0; round < 2; round += 1) {
    const before = acknowledged.size;
    await until('writes', () => acknowledged.size > before + 100);
    await postgres.restart(signal);
    const after = acknowledged.size;
    const readsBefore = reads;
    await until('writes to go on', () => acknowledged.size > after + 100 && reads > readsBefore + 5);
  }
  running = false;
  await Promise.all([...writers, ...readers]);
  expect([...kinds].filter((kind) => kind !== 'unavailable')).toEqual([]);
  const rows = new Map((await moray.list('things', ALL, {limit: 1_000_000})).map((row) => [row.key, row.etag]));
  for (const [key, etag] of acknowledged) expect([key, rows.get(key)]).toEqual([key, etag]);
  for (const key of rows.keys()) expect(acknowledged.has(key) || unknown.has(key)).toBe(true);
  await until('the feed to have them all', () => seen.length >= rows.size);
  expect(new Map(seen.map((c) => [c.key, c.etag]))).toEqual(rows);
  expect(seen.length).toBe(rows.size);
  stop.abort();
  await reading;
});

test('while the store is down calls end at their deadline, and those that wait long enough succeed when it is back', async () => {
  const moray = await open(await postgres.freshDatabase());
  await moray.put('things', 'a', {n: 1});
  await postgres.stop('SIGINT');
  const started = performance.now();
  await rejection(moray.get('things', 'a', {deadlineMs: 300}), 'unavailable');
  expect(await rejection(moray.put('things', 'b', {n: 1}, {deadlineMs: 300}), 'unavailable')).toMatchObject({});
  expect(performance.now() - started).toBeLessThan(3_000);
  const waiting = [moray.get('things', 'a', {deadlineMs: 20_000}), moray.put('things', 'b', {n: 2}, {deadlineMs: 20_000, etag: null})];
  await postgres.start();
  await Promise.all(waiting);
});

test('a server that stops answering does not hold anybody past the deadline', async () => {
  const url = new URL(await postgres.freshDatabase());
  const target = `${decodeURIComponent(url.hostname)}/.s.PGSQL.${url.port}`;
  // A line to the server that can be made to carry nothing.
  let frozen = false;
  const sockets = new Set<net.Socket>();
  const proxy = net.createServer((inner) => {
    const outer = net.connect(target);
    for (const [from, to] of [[inner, outer], [outer, inner]] as const) {
      sockets.add(from);
      from.on('data', (chunk) => { if (!frozen) to.write(chunk); });
      from.on('close', () => to.destroy());
      from.on('error', () => to.destroy());
    }
  });
  await new Promise<void>((resolve) => { proxy.listen(0, '127.0.0.1', resolve); });
  try {
    const moray = await open(`postgres://cetus@127.0.0.1:${(proxy.address() as net.AddressInfo).port}${url.pathname}`);
    await moray.put('things', 'a', {n: 1});
    frozen = true;
    const started = performance.now();
    expect(await rejection(moray.put('things', 'a', {n: 2}, {deadlineMs: 200}), 'timeout')).toMatchObject({outcome: 'unknown'});
    await rejection(moray.get('things', 'a', {deadlineMs: 200}), 'timeout');
    expect(performance.now() - started).toBeLessThan(2_000);
    for (const socket of sockets) socket.destroy();
    frozen = false;
    expect((await moray.get<{n: number}>('things', 'a')).value.n).toBe(1);
  } finally {
    for (const socket of sockets) socket.destroy();
    await new Promise((resolve) => proxy.close(resolve));
  }
});

test('a slow statement is ended by the server too; a caller that gives up is let go at once', async () => {
  const moray = await open(await postgres.freshDatabase(), 4);
  await moray.put('things', 'a', {n: 1});
  const stop = new AbortController();
  const gone = rejection(moray.get('things', 'a', {signal: stop.signal}), 'canceled');
  stop.abort();
  await gone;
  // Streams left half-read in numbers do not starve the others.
  await moray.batch(Array.from({length: 2000}, (_, n) => ({op: 'put' as const, bucket: 'things', key: `k${n}`, value: {n}})));
  const streams = Array.from({length: 6}, () => moray.find('things', ALL, {deadlineMs: 3_000})[Symbol.asyncIterator]());
  const firsts = await Promise.allSettled(streams.map((stream) => stream.next()));
  expect(firsts.filter((f) => f.status === 'fulfilled')).toHaveLength(2);
  for (const f of firsts) if (f.status === 'rejected') expect(isCetusError(f.reason, 'unavailable')).toBe(true);
  await moray.put('things', 'b', {n: 2});
  for (const stream of streams) await stream.return!();
  let count = 0;
  for await (const _ of moray.find('things', ALL)) count += 1;
  expect(count).toBe(2002);
  for await (const _ of moray.find('things', ALL, {deadlineMs: 30_000})) count += 1;
  expect(count).toBe(4004);
  expect(await moray.count('things', ALL, {deadlineMs: 30_000})).toBe(2002);
});

test('the primary is asked for anew on each new connection', async () => {
  const url = await postgres.freshDatabase();
  let asked = 0;
  let answer = 'postgres://cetus@%2Fnowhere:5432/none';
  const opening = open(() => {
    asked += 1;
    return answer;
  });
  await until('some tries', () => asked > 3);
  answer = url;
  const moray = await opening;
  await moray.put('things', 'a', {n: 1});
});
