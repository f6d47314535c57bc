import {silentLog} from '../../lib/base/log';
import {copyStore} from '../../lib/moray/copy';
import {ALL} from '../../lib/moray/filter';
import type {Moray} from '../../lib/moray/moray';
import {createMoray} from '../../lib/moray/postgres';
import type {Discovery} from '../../lib/moray/primary';
import type {BucketDefinition} from '../../lib/schema/bucket';
import {usePostgres} from '../harness/postgres';
import {usePeers, type TestPeer} from '../harness/postgres-peers';
import {until} from '../harness/wait';
import {rejection} from '../moray/conformance';

const THINGS: BucketDefinition = {
  name: 'things', version: 1,
  fields: {n: {type: 'number'}, name: {type: 'string', unique: true}, tags: {type: 'string[]'}, at: {type: 'date'}, from: {type: 'ip'}, deep: {type: 'boolean', path: 'a.b'}},
};
const EMPTY: BucketDefinition = {name: 'empty', version: 3, fields: {}};

let stores: Moray[] = [];
afterEach(async () => {
  await Promise.all(stores.map((store) => store.close()));
  stores = [];
});
// The embedded server, of one version, and the distribution's, of another: nothing but rows can go from one to the other.
const postgres = usePostgres();
const peers = usePeers();

async function open(url: string | Discovery): Promise<Moray> {
  const moray = createMoray({url});
  stores.push(moray);
  await moray.open(THINGS, EMPTY);
  return moray;
}

async function primary(): Promise<{peer: TestPeer; discovery: Discovery}> {
  const peer = await peers.peer('a', 'empty');
  await peer.server.start('primary', null);
  await peer.server.acknowledge({kind: 'alone'});
  await peer.server.openGate(3);
  const {host, port} = peer.peer;
  const {password} = await peer.client().then(async (client) => { await client.end(); return client as unknown as {password: string}; });
  return {peer, discovery: {primary: () => ({url: `postgres://cetus:${encodeURIComponent(password)}@${host}:${port}/cetus`, generation: 3})}};
}

const thing = (n: number): Record<string, unknown> => ({n: `${n}.50`, name: `name ${n} "é\u2028`, tags: ['a', `t${n % 7}`], at: '2026-01-02T03:04:05.123456789Z', from: n % 2 ? '10.0.0.1' : '2001:db8::1', a: {b: n % 3 === 0}, more: {text: 'x'.repeat(n % 900)}});

test('a store goes to another database whole: objects, etags, times, indexes; cursors of before are stale; the feed goes on', async () => {
  const oldUrl = await postgres.freshDatabase();
  const old = await open(oldUrl);
  await old.batch(Array.from({length: 1300}, (_, n) => ({op: 'put' as const, bucket: 'things', key: `k${n}`, value: thing(n)})));
  await old.put('things', 'sparse', {});
  await old.delete('things', 'k7');
  const stop = new AbortController();
  const cursors: string[] = [];
  const watching = await old.watch('things', ALL, {signal: stop.signal});
  const reading = (async () => { for await (const change of watching) cursors.push(change.cursor); })();
  for (let n = 0; n < 300; n += 1) await old.put('things', 'k1', thing(1), {});
  await until('the feed', () => cursors.length === 300);
  for await (const change of await old.watch('things', '(name=name 1*)', {since: 'beginning'})) {
    if (!change.cursor.startsWith('@')) continue;
    cursors.push(change.cursor);
    break;
  }
  stop.abort();
  await reading;
  const before = (await old.list<Record<string, unknown>>('things', ALL)).sort((a, b) => (a.key < b.key ? -1 : 1));

  const {discovery, peer} = await primary();
  const copied = await copyStore({from: oldUrl, to: discovery, log: silentLog()});
  expect(copied).toEqual({already: false, buckets: [{name: 'empty', objects: 0}, {name: 'things', objects: 1300}]});

  const moray = await open(discovery);
  expect((await moray.list('things', ALL)).sort((a, b) => (a.key < b.key ? -1 : 1))).toEqual(before);
  expect(await moray.count('things', '(&(tags=t3)(from=10.0.0.1)(deep=true)(n>=100))')).toBe(before.filter(({value}) => Number(value.n) >= 100 && (value.tags as string[] | undefined)?.includes('t3') && value.from === '10.0.0.1' && (value.a as {b: boolean}).b).length);
  await rejection(moray.put('things', 'twin', {name: thing(5).name}), 'conflict');
  // Etags are the old ones, and none is used again.
  const one = before.find(({key}) => key === 'k9')!;
  const {etag} = await moray.put('things', 'k9', thing(9), {etag: one.etag});
  expect(before.every((other) => BigInt(other.etag) < BigInt(etag))).toBe(true);
  // No cursor of before means anything here, now or when its id would be due.
  for (const cursor of [cursors[0]!, cursors[299]!, cursors.at(-1)!]) {
    const late = (async () => { for await (const change of await moray.watch('things', ALL, {since: cursor})) return change; return undefined; })();
    await rejection(late, 'stale');
  }
  const changes = await moray.watch('things', ALL, {since: 'now', signal: AbortSignal.timeout(60_000)});
  await moray.put('things', 'k10', thing(10));
  for await (const change of changes) {
    expect(change.key).toBe('k10');
    const more = await moray.watch('things', ALL, {since: change.cursor, signal: AbortSignal.timeout(60_000)});
    await moray.delete('things', 'k11');
    for await (const next of more) { expect([next.kind, next.key]).toEqual(['delete', 'k11']); break; }
    break;
  }
  await rejection(copyStore({from: oldUrl, to: discovery, log: silentLog()}), 'conflict');
  await peer.server.stop('fast');
});

test('a copy that was broken off leaves nothing and is made again; one that is whole is recognised; one of another store is refused', async () => {
  const oldUrl = await postgres.freshDatabase();
  const old = await open(oldUrl);
  await old.batch(Array.from({length: 700}, (_, n) => ({op: 'put' as const, bucket: 'things', key: `k${n}`, value: thing(n)})));
  const {peer, discovery} = await primary();
  // The first bucket has been told of, the second one is under way.
  const broken = copyStore({from: oldUrl, to: discovery, log: silentLog(), tell: (text) => { if (text.startsWith('empty')) process.kill(peer.postmaster(), 'SIGQUIT'); }});
  await expect(broken).rejects.toThrow();
  await peer.sees('the end of the server', ({process: now}) => now === 'stopped');
  await peer.server.start('primary', null);
  await peer.server.acknowledge({kind: 'alone'});
  await peer.server.openGate(3);
  expect(await peer.query(`SELECT to_regclass('moray.buckets') AS t`)).toEqual([{t: null}]);
  expect(await copyStore({from: oldUrl, to: discovery, log: silentLog()})).toMatchObject({already: false});
  expect(await copyStore({from: oldUrl, to: discovery, log: silentLog()})).toMatchObject({already: true, buckets: [{name: 'empty'}, {name: 'things', objects: 700}]});
  const other = await postgres.freshDatabase();
  await rejection(copyStore({from: other, to: discovery, log: silentLog()}), 'notFound');
  await old.delete('things', 'k1');
  await rejection(copyStore({from: oldUrl, to: discovery, log: silentLog()}), 'conflict');
  await peer.server.stop('fast');
});
