/** lib/manatee/zookeeper while real servers are killed, stopped and cut off. */
import {silentLog} from '../../lib/base/log';
import type {Announcement, Coordination} from '../../lib/manatee/coordination';
import {monotonic} from '../../lib/manatee/monotonic';
import {adoptedState, withAsync, type Peer} from '../../lib/manatee/state';
import {createCoordination, type ZooKeeperCoordination} from '../../lib/manatee/zookeeper/coordination';
import {Session} from '../../lib/manatee/zookeeper/session';
import {Cut} from '../harness/cut';
import {until} from '../harness/wait';
import {ZooKeeper} from '../harness/zookeeper';

const SESSION_TIMEOUT_MS = 3000;
/** Where a test is about a session that lives on, however slow the machine. */
const LONG_SESSION_MS = 12_000;
let zookeeper: ZooKeeper;
let path: string;
let paths = 0;
const opened: {close(): Promise<void>}[] = [];

// A follower serves reads for ten seconds after it last heard of its leader.
beforeAll(async () => { zookeeper = await ZooKeeper.start({servers: 3, syncTicks: 50}); }, 120_000);
afterAll(async () => { await zookeeper?.stop(); });
beforeEach(() => { path = `/cetus/faults-${(paths += 1)}`; });
afterEach(async () => {
  await zookeeper.heal();
  await Promise.all(opened.splice(0).reverse().map((one) => one.close()));
}, 120_000);

const peer = (id: string): Peer => ({id, host: '127.0.0.1', port: 5432, statusUrl: 'http://127.0.0.1:1'});
const announcement = (id: string, more: Partial<Announcement> = {}): Announcement => ({...peer(id), systemId: null, ready: false, restoredIn: 0, ...more});
const entry = (reason: string) => ({at: '2026-01-02T03:04:05Z', by: 'a', reason});
const state = adoptedState(peer('a'), '7000000000000000001', '0/3000000');
const seen = async (c: Coordination) => c.view().catch(() => undefined);

async function make(id: string, servers = zookeeper.address, sessionTimeoutMs = SESSION_TIMEOUT_MS, historyKept?: number): Promise<ZooKeeperCoordination> {
  const coordination = createCoordination({servers, path, id, sessionTimeoutMs, clock: monotonic, log: silentLog(), ...(historyKept === undefined ? {} : {historyKept})});
  opened.push(coordination);
  await coordination.ready(30_000);
  return coordination;
}

async function cuts(): Promise<{cuts: Cut[]; servers: string}> {
  const all = await Promise.all(zookeeper.servers.map((server) => Cut.open(server)));
  opened.push(...all);
  return {cuts: all, servers: all.map((cut) => cut.address).join(',')};
}

test('a write whose answer is lost says so, and a look tells whether it happened; nothing comes of it later', async () => {
  const [cut] = (await cuts()).cuts;
  const [a, b] = [await make('a', cut!.address), await make('b')];
  await a.declare({next: state, entry: entry('first'), version: -1, absent: []});

  cut!.hold('answers');
  const happened = a.declare({next: withAsync(state, peer('b')), entry: entry('answer lost'), version: 0, absent: []});
  const lost = expect(happened).rejects.toMatchObject({kind: 'unavailable', info: {outcome: 'unknown'}});
  await until('the write to happen', async () => (await b.view()).version === 1);
  cut!.sever();
  await lost;
  cut!.restore();
  expect((await until('a to be back', () => seen(a))).version).toBe(1);

  cut!.hold('questions');
  const never = a.declare({next: state, entry: entry('question lost'), version: 1, absent: []});
  const lostToo = expect(never).rejects.toMatchObject({kind: 'unavailable', info: {outcome: 'unknown'}});
  await until('the question to be on its way', () => cut!.heldBytes('questions') > 0);
  cut!.sever();
  await lostToo;
  cut!.restore();
  expect((await until('a to be back', () => seen(a))).version).toBe(1);
  await a.declare({next: state, entry: entry('third'), version: 1, absent: []});
  expect((await b.history(10)).map(({reason}) => reason)).toEqual(['first', 'answer lost', 'third']);
});

test('without a server nothing hangs and nothing is in doubt', async () => {
  const nobody = await Cut.open({host: '127.0.0.1', port: 1});
  const silent = await Cut.open(zookeeper.servers[0]!);
  silent.hold('answers');
  opened.push(nobody, silent);
  for (const cut of [nobody, silent]) {
    const coordination = createCoordination({servers: cut.address, path, id: 'a', sessionTimeoutMs: 600, clock: monotonic, log: silentLog()});
    opened.push(coordination);
    await expect(coordination.ready(500)).rejects.toMatchObject({kind: 'unavailable'});
    const refused = {kind: 'unavailable', info: {}};
    await expect(coordination.view()).rejects.toMatchObject(refused);
    await expect(coordination.declare({next: state, entry: entry(''), version: -1, absent: []})).rejects.toMatchObject(refused);
    expect(coordination.leaseUntilMs()).toBe(-Infinity);
    await until('another connection to be tried', () => cut.accepted > 1);
  }
});

test('a server that stalls is left for another one within the session, which lives on', async () => {
  const {cuts: all, servers} = await cuts();
  const a = await make('a', servers, LONG_SESSION_MS);
  await a.announce(announcement('a'));
  const {order} = (await a.view()).peers[0]!;
  const stalled = all.find((cut) => cut.open > 0)!;
  stalled.hold('questions', 'answers');
  const from = monotonic.nowMs();
  await expect(a.view()).rejects.toMatchObject({kind: 'unavailable'});
  expect(monotonic.nowMs() - from).toBeLessThan(LONG_SESSION_MS);
  expect(await until('a to be back', () => seen(a))).toMatchObject({peers: [{id: 'a', order, mine: true}]});
});

test('whoever sleeps through its session has no lease when others see it gone, and begins another session when it wakes', async () => {
  const {cuts: all, servers} = await cuts();
  const [a, b] = [await make('a', servers), await make('b')];
  await a.announce(announcement('a'));
  await b.view();
  for (const cut of all) cut.hold('questions', 'answers');
  await until('a to be gone', async () => {
    const {peers} = await b.view();
    // Asked before the next look: the lease has to have run out by the time anybody can see the node gone.
    if (peers.length === 0) expect(a.leaseUntilMs()).toBeLessThan(monotonic.nowMs());
    return peers.length === 0;
  });
  for (const cut of all) cut.restore();
  await until('a to be back', () => seen(a));
  expect((await b.view()).peers).toEqual([]);
  await a.announce(announcement('a', {ready: true}));
  expect(await b.view()).toMatchObject({peers: [{id: 'a', ready: true}]});
});

test('a process that was stopped for less than its session reads first what came meanwhile, and loses nothing', async () => {
  const a = await make('a');
  await a.announce(announcement('a'));
  let told = 0;
  a.onChange(() => { told += 1; });
  const view = a.view();
  // Longer than a call may take; the answer lies in the socket when the deadline is found to have passed.
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, SESSION_TIMEOUT_MS / 2);
  expect((await view).peers).toMatchObject([{id: 'a', mine: true}]);
  expect(told).toBe(0);
});

test('servers are restarted one by one, the leader among them: a peer keeps its place', async () => {
  const [a, b] = [await make('a', zookeeper.address, LONG_SESSION_MS), await make('b')];
  await a.announce(announcement('a'));
  await a.declare({next: state, entry: entry('first'), version: -1, absent: []});
  const before = await b.view();
  for (const server of zookeeper.servers) {
    await server.kill('SIGTERM');
    await until('both to see', async () => await seen(a) && await seen(b));
    server.spawn();
    await server.waitUntilServing();
  }
  await until('both to see', async () => await seen(a) && await seen(b));
  expect(await b.view()).toEqual(before);
  expect((await a.view()).peers).toMatchObject([{id: 'a', mine: true}]);
});

test('the leader is killed: the others go on, watches fire as before', async () => {
  const [a, b] = [await make('a'), await make('b')];
  await a.declare({next: state, entry: entry('first'), version: -1, absent: []});
  await (await zookeeper.leader()).kill();
  await until('both to see', async () => await seen(a) && await seen(b));
  await until('a lease', () => a.leaseUntilMs() > monotonic.nowMs());
  let told = 0;
  b.onChange(() => { told += 1; });
  await b.view();
  await a.announce(announcement('a'));
  await until('b to be told', () => told > 0);
  expect((await b.view()).peers.map(({id}) => id)).toEqual(['a']);
});

test('all servers die and come back: what was written stands, and nobody had a lease in between', async () => {
  const a = await make('a');
  await a.announce(announcement('a'));
  await a.declare({next: state, entry: entry('first'), version: -1, absent: []});
  await Promise.all(zookeeper.servers.map((server) => server.kill()));
  await expect(a.view()).rejects.toMatchObject({kind: 'unavailable'});
  await until('the lease to run out', () => a.leaseUntilMs() < monotonic.nowMs());
  await zookeeper.heal();
  expect(await until('a to see', () => seen(a))).toMatchObject({state, version: 0});
  await until('a lease', () => a.leaseUntilMs() > monotonic.nowMs());
  await a.announce(announcement('a', {ready: true}));
  expect((await a.view()).peers).toMatchObject([{id: 'a', ready: true, mine: true}]);
  await a.declare({next: withAsync(state, peer('b')), entry: entry('second'), version: 0, absent: []});
});

test('a follower that has lost its leader and still answers reads gives neither a lease nor a view', async () => {
  const follower = (await zookeeper.followers())[0]!;
  const a = await make('a', follower.address);
  await a.declare({next: state, entry: entry('first'), version: -1, absent: []});
  const reader = new Session({servers: follower.address, sessionTimeoutMs: 30_000, clock: monotonic, log: silentLog(), changed: () => undefined, expired: () => undefined});
  opened.push(reader);
  await until('the reader to connect', () => reader.connected());
  for (const server of zookeeper.servers) if (server !== follower) server.pause();
  // Whatever is answered by a quorum was sent before now.
  const latestMs = monotonic.nowMs() + SESSION_TIMEOUT_MS * 2 / 3;
  await until('the lease to run out while reads are answered', async () => {
    expect(await reader.read(`${path}/state`, false)).toMatchObject({version: 0});
    expect(a.leaseUntilMs()).toBeLessThanOrEqual(latestMs);
    return monotonic.nowMs() > latestMs + 500;
  });
  expect(a.leaseUntilMs()).toBeLessThan(monotonic.nowMs());
  await expect(a.view()).rejects.toMatchObject({kind: 'unavailable'});
  await zookeeper.heal();
  await until('a to see', () => seen(a));
  await until('a lease', () => a.leaseUntilMs() > monotonic.nowMs());
});

test('of two processes with one id the later has the place; the earlier is told, and leaves it alone', async () => {
  const earlier = await make('a');
  await earlier.announce(announcement('a', {restoredIn: 1}));
  const later = await make('a');
  expect((await later.view()).peers).toMatchObject([{id: 'a', mine: false}]);
  await later.announce(announcement('a', {restoredIn: 2}));
  await expect(earlier.announce(announcement('a', {restoredIn: 1}))).rejects.toMatchObject({kind: 'conflict'});
  await earlier.withdraw();
  await earlier.close();
  expect((await later.view()).peers).toMatchObject([{id: 'a', restoredIn: 2, mine: true}]);
  await later.announce(announcement('a', {restoredIn: 3}));
  expect((await later.view()).peers).toMatchObject([{restoredIn: 3}]);
});

test('the history keeps the newest entries, however often the state is written', async () => {
  const a = await make('a', zookeeper.address, SESSION_TIMEOUT_MS, 5);
  for (let version = -1; version < 20; version += 1) await a.declare({next: state, entry: entry(`write ${version}`), version, absent: []});
  await until('the oldest to be gone', async () => (await a.history(100)).length === 5);
  expect((await a.history(100)).map(({reason}) => reason)).toEqual([15, 16, 17, 18, 19].map((version) => `write ${version}`));
});

test('what is not ours in a node is an error that names the node', async () => {
  const a = await make('a');
  await a.announce(announcement('a'));
  await a.declare({next: state, entry: entry('first'), version: -1, absent: []});
  const hand = new Session({servers: zookeeper.address, sessionTimeoutMs: 10_000, clock: monotonic, log: silentLog(), changed: () => undefined, expired: () => undefined});
  opened.push(hand);
  await until('a hand to connect', () => hand.connected());
  const put = async (node: string, text: string) => hand.transact([{op: 'set', path: `${path}/${node}`, data: Buffer.from(text), version: -1}]);
  for (const [node, text, why] of [
    ['state', 'not json', 'no JSON'], ['state', JSON.stringify({...state, generation: 0}), '/generation'], ['state', JSON.stringify({...state, initWal: 'x'}), '/initWal'],
  ] as const) {
    await put('state', JSON.stringify(state));
    expect(await put(node, text)).toEqual({done: true});
    await expect(a.view()).rejects.toMatchObject({kind: 'invalid', message: expect.stringContaining(why), info: {node: `${path}/${node}`}});
  }
  await put('state', JSON.stringify(state));
  // One peer's does not blind the others: it is alive, of no use, and says itself anew.
  const b = await make('b');
  await b.announce(announcement('b', {ready: true}));
  for (const text of ['not json', JSON.stringify(announcement('b')), '{"id":"a"}']) {
    await put('peers/a', text);
    expect((await a.view()).peers).toMatchObject([{id: 'a', ready: false, systemId: 'illegible', mine: true}, {id: 'b', ready: true, mine: false}]);
  }
  await a.announce(announcement('a', {ready: true}));
  expect((await b.view()).peers).toMatchObject([{id: 'a', ready: true, systemId: null}, {id: 'b'}]);
  await put('history/n-0000000000', '{}');
  await expect(a.history(1)).rejects.toMatchObject({kind: 'invalid', info: {node: `${path}/history/n-0000000000`}});
  expect(() => createCoordination({servers: 'nowhere', path, id: 'a', sessionTimeoutMs: 1000, clock: monotonic, log: silentLog()})).toThrow('host:port');
  expect(() => createCoordination({servers: '127.0.0.1:1', path: 'db/', id: 'a', sessionTimeoutMs: 1000, clock: monotonic, log: silentLog()})).toThrow('path');
  expect(() => createCoordination({servers: '127.0.0.1:1', path, id: '../a', sessionTimeoutMs: 1000, clock: monotonic, log: silentLog()})).toThrow('name of a peer');
});
