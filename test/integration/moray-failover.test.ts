import net from 'node:net';
import {isCetusError} from '../../lib/base/errors';
import {ALL} from '../../lib/moray/filter';
import type {Change, Moray} from '../../lib/moray/moray';
import {createMoray} from '../../lib/moray/postgres';
import type {BucketDefinition} from '../../lib/schema/bucket';
import {usePair, Told, type Peer} from '../harness/postgres-pair';
import {until} from '../harness/wait';
import {rejection} from '../moray/conformance';

const THINGS: BucketDefinition = {name: 'things', version: 1, fields: {n: {type: 'number'}}};

let stores: Moray[] = [];
afterEach(async () => {
  await Promise.all(stores.map((store) => store.close()));
  stores = [];
});
const pair = usePair();

async function open(discovery: Told, poolSize?: number): Promise<Moray> {
  const moray = createMoray({url: discovery, poolSize});
  stores.push(moray);
  await moray.open(THINGS);
  return moray;
}

async function promote(peer: Peer, generation: number): Promise<void> {
  await peer.query('SELECT pg_promote()');
  await until('the end of recovery', async () => !(await peer.query<{r: boolean}>('SELECT pg_is_in_recovery() AS r'))[0]!.r);
  await peer.set('cetus.generation', String(generation));
}

const caughtUp = async (a: Peer, b: Peer): Promise<unknown> => {
  const [{at}] = await a.query<{at: string}>('SELECT pg_current_wal_lsn()::text AS at') as [{at: string}];
  return until('b to have it all', async () => (await b.query<{is: boolean}>('SELECT pg_last_wal_replay_lsn() >= $1::pg_lsn AS is', [at]))[0]!.is);
};

test('another primary is told of: everything at the old one is let go at once, writes under way are of unknown outcome, reads and the feed go on', async () => {
  const {a, b, discovery} = pair();
  const moray = await open(discovery, 4);
  const stop = new AbortController();
  const seen: Change<{n: number}>[] = [];
  const changes = await moray.watch<{n: number}>('things', ALL, {signal: stop.signal});
  const reading = (async () => { for await (const change of changes) seen.push(change); })();
  for (let n = 0; n < 50; n += 1) await moray.put('things', `k${n}`, {n});
  await until('the feed', () => seen.length === 50);
  await caughtUp(a, b);
  // From here on whoever touches the table at `a` waits for ever: a server that has stopped answering, of which no connection breaks.
  const blocker = a.query('BEGIN; LOCK moray.things IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(300)').catch(() => undefined);
  const waiting = async (): Promise<number> => (await a.query(`SELECT 1 FROM pg_locks WHERE NOT granted`)).length;
  await until('the lock', async () => (await a.query(`SELECT 1 FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND granted AND relation = 'moray.things'::regclass`)).length > 0);
  const write = rejection(moray.put('things', 'k0', {n: 1000}, {deadlineMs: 60_000}), 'unavailable');
  const read = moray.get<{n: number}>('things', 'k1', {deadlineMs: 60_000});
  const many = moray.list<{n: number}>('things', ALL, {deadlineMs: 60_000});
  await until('them to wait', async () => (await waiting()) >= 3);
  await promote(b, 2);
  const moved = performance.now();
  discovery.tell(b, 2);
  expect(await write).toMatchObject({outcome: 'unknown'});
  expect((await read).value.n).toBe(1);
  expect(await many).toHaveLength(50);
  expect(performance.now() - moved).toBeLessThan(10_000);
  await a.query(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%pg_sleep%' AND pid <> pg_backend_pid()`);
  await blocker;
  await until('no connection at a', async () => (await a.clients()).length === 0);
  const etags = new Set(seen.map((change) => change.etag));
  for (let n = 50; n < 60; n += 1) expect(etags.has((await moray.put('things', `k${n}`, {n})).etag)).toBe(false);
  await until('the feed to go on', () => seen.length === 60);
  expect(seen.map((change) => change.key)).toEqual(Array.from({length: 60}, (_, n) => `k${n}`));
  // A cursor from before goes on as well.
  const again: string[] = [];
  for await (const change of await moray.watch('things', ALL, {since: seen[40]!.cursor, signal: AbortSignal.timeout(60_000)})) if (again.push(change.key) === 19) break;
  expect(again).toEqual(Array.from({length: 19}, (_, n) => `k${n + 41}`));
  // An answer that is late speaks of generation 1: nobody goes back.
  discovery.tell(a, 1);
  await moray.put('things', 'late', {n: 1});
  expect(await a.clients()).toEqual([]);
  stop.abort();
  await reading;
});

test('a standby, and a primary that has not heard of the generation, are refused; calls wait as long as they may and say that another try makes sense', async () => {
  const {a, b, discovery} = pair();
  const moray = await open(discovery);
  await moray.put('things', 'a', {n: 1});
  await caughtUp(a, b);
  discovery.tell(b, 2); // still a standby
  const started = performance.now();
  const failure = await moray.get('things', 'a', {deadlineMs: 500}).catch((err: unknown) => err);
  expect(performance.now() - started).toBeLessThan(5_000);
  expect(isCetusError(failure, 'unavailable') && failure.shown).toMatch(/try again/);
  expect(await rejection(moray.put('things', 'b', {n: 2}, {deadlineMs: 300}), 'unavailable')).toEqual({outcome: 'none'});
  await b.query('SELECT pg_promote()');
  await until('the end of recovery', async () => !(await b.query<{r: boolean}>('SELECT pg_is_in_recovery() AS r'))[0]!.r);
  // Out of recovery, and of generation 1 as it knows: a primary, but not yet the one that is meant.
  await rejection(moray.put('things', 'b', {n: 2}, {deadlineMs: 500}), 'unavailable');
  const waiting = moray.put('things', 'b', {n: 3}, {etag: null, deadlineMs: 60_000});
  await b.set('cetus.generation', '2');
  await waiting;
  expect(await a.clients()).toEqual([]);
});

test('connections that are being opened when another primary is told of do not hold up the calls that wait for them, nor the end', async () => {
  const {a} = pair();
  const silent = net.createServer().listen(0, '127.0.0.1');
  const sockets = new Set<net.Socket>();
  silent.on('connection', (socket) => { sockets.add(socket.on('error', () => undefined)); });
  try {
    await until('a listener', () => silent.listening);
    const discovery = new Told({url: `postgres://cetus@127.0.0.1:${(silent.address() as net.AddressInfo).port}/none`, generation: 0});
    // One place in the pool: if it were lost, nothing would come any more.
    const moray = createMoray({url: discovery, poolSize: 1});
    stores.push(moray);
    const opening = moray.open(THINGS);
    await until('a connection on its way', () => sockets.size >= 1);
    discovery.tell(a, 1);
    await opening;
    await moray.put('things', 'a', {n: 1});
  } finally {
    for (const socket of sockets) socket.destroy();
    silent.close();
  }
});

test('the same primary in a new generation keeps its connections', async () => {
  const {a, discovery} = pair();
  const moray = await open(discovery, 3);
  await Promise.all([1, 2, 3].map((n) => moray.put('things', `k${n}`, {n})));
  const pids = async (): Promise<number[]> => (await a.clients()).map(({pid}) => pid).sort();
  const before = await until('all connections', async () => { const all = await pids(); return all.length === 4 && all; });
  await a.set('cetus.generation', '2');
  discovery.tell(a, 2);
  await Promise.all([4, 5, 6].map((n) => moray.put('things', `k${n}`, {n})));
  expect(await pids()).toEqual(before);
});

test.each([['pg_cancel_backend', {outcome: 'unknown'}], ['pg_terminate_backend', {outcome: 'unknown'}]] as const)('a commit whose wait for the sync is ended by %s is not acknowledged', async (how, info) => {
  const {a, discovery} = pair();
  // Whatever somebody has set for the role.
  await a.query(`ALTER ROLE cetus SET synchronous_commit = local`);
  await a.query(`ALTER ROLE cetus SET client_min_messages = error`);
  const moray = await open(discovery);
  await a.set('synchronous_standby_names', 'nobody');
  const write = rejection(moray.put('things', 'a', {n: 1}, {deadlineMs: 60_000}), 'unavailable');
  const batch = rejection(moray.batch([{op: 'put', bucket: 'things', key: 'b', value: {n: 1}}, {op: 'check', bucket: 'things', key: 'c', etag: null}], {deadlineMs: 60_000}), 'unavailable');
  await until('both to wait', async () => (await a.clients()).filter((client) => client.wait_event === 'SyncRep').length >= 2);
  await a.query(`SELECT ${how}(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'`);
  expect(await write).toMatchObject(info);
  expect(await batch).toMatchObject(info);
  await a.set('synchronous_standby_names', '');
  await moray.put('things', 'd', {n: 1});
  await a.query('ALTER ROLE cetus RESET ALL');
});

test('no timeout of ours cancels the wait for the sync: the call ends at its deadline, of unknown outcome, and the server waits on', async () => {
  const {a, b, discovery} = pair();
  const moray = await open(discovery);
  await a.set('synchronous_standby_names', 'nobody');
  // 300 ms are told to the server as statement_timeout, too.
  expect(await rejection(moray.put('things', 'a', {n: 1}, {deadlineMs: 300}), 'timeout')).toMatchObject({outcome: 'unknown'});
  const [waiting] = (await a.clients()).filter((client) => client.wait_event === 'SyncRep');
  await until('a second more', () => Date.now() > waiting!.query_start.getTime() + 1_500);
  expect((await a.clients()).filter((client) => client.wait_event === 'SyncRep').map(({pid}) => pid)).toContain(waiting!.pid);
  // Nobody has seen it; with the sync it appears.
  await expect(moray.peek('things', 'a')).resolves.toBeUndefined();
  await a.set('synchronous_standby_names', 'b');
  await until('it to be there', () => moray.peek('things', 'a'));
  await caughtUp(a, b);
});

test('etags are not used again by a sync that took over, whatever the old primary drew and did not commit', async () => {
  const {a, b, discovery} = pair();
  const moray = await open(discovery);
  await a.set('synchronous_standby_names', 'b');
  const drawn = new Set<string>();
  for (let n = 0; n < 70; n += 1) drawn.add((await moray.put('things', `k${n % 7}`, {n})).etag);
  const last = (await moray.get('things', 'k0')).etag;
  await a.kill();
  await promote(b, 2);
  discovery.tell(b, 2);
  for (let n = 0; n < 40; n += 1) {
    const {etag} = await moray.put('things', `k${n % 7}`, {n});
    expect(drawn.has(etag)).toBe(false);
    drawn.add(etag);
  }
  await rejection(moray.put('things', 'k0', {n: 0}, {etag: last}), 'etagConflict');
  expect(drawn.size).toBe(110);
});

test('transaction ids that are given a second time after a crash do not hide a change from the feed', async () => {
  const {a, discovery} = pair();
  const moray = await open(discovery);
  const stop = new AbortController();
  const seen: string[] = [];
  const changes = await moray.watch('things', ALL, {signal: stop.signal});
  const reading = (async () => { for await (const change of changes) seen.push(change.key); })();
  await moray.put('things', 'first', {n: 0}, {etag: null});
  await until('the feed', () => seen.length === 1);
  // Nothing but a commit writes the WAL out from now on.
  const [{pid}] = await a.query<{pid: number}>(`SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'`) as [{pid: number}];
  process.kill(pid, 'SIGSTOP');
  try {
    for (let n = 0; n < 30; n += 1) await rejection(moray.put('things', 'first', {n}, {etag: null}), 'etagConflict');
    const [{xmin, now}] = await a.query<{xmin: string; now: Date}>('SELECT pg_snapshot_xmin(pg_current_snapshot())::text AS xmin, clock_timestamp() AS now') as [{xmin: string; now: Date}];
    await until('a poll after that', async () => (await a.clients()).some(({query, query_start}) => query.includes('__log') && query_start > now));
    // The store comes back to a server that others have written to meanwhile, as far as to ids beyond those.
    discovery.now = {url: 'postgres://cetus@%2Fnowhere:5432/none', generation: 1};
    await a.kill();
    process.kill(pid, 'SIGKILL');
    await a.start();
    const [{xmax}] = await a.query<{xmax: string}>('SELECT pg_snapshot_xmax(pg_current_snapshot())::text AS xmax') as [{xmax: string}];
    // Else this test shows nothing.
    expect(Number(xmax)).toBeLessThan(Number(xmin));
  } finally {
    try { process.kill(pid, 'SIGKILL'); } catch { /* it has ended */ }
  }
  await a.query(`DO $$ BEGIN FOR n IN 1..60 LOOP PERFORM moray.things__put('k' || n, '{"n": 1}', 0, NULL); COMMIT; END LOOP; END $$`);
  discovery.tell(a, 1);
  await moray.put('things', 'last', {n: 0});
  await until('the feed to come to the end', () => seen.includes('last'));
  expect(seen).toEqual(['first', ...Array.from({length: 60}, (_, n) => `k${n + 1}`), 'last']);
  stop.abort();
  await reading;
});
