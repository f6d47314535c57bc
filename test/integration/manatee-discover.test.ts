/** What clients are told of the primary, over a real ZooKeeper that stalls, dies and forgets sessions. */
import {silentLog} from '../../lib/base/log';
import {createDiscovery, watchState, type Discovery, type PrimaryAddress} from '../../lib/manatee/discover';
import {monotonic} from '../../lib/manatee/monotonic';
import {adoptedState, takenOver, withAsync, withSync, type ClusterState, type Peer} from '../../lib/manatee/state';
import {createCoordination, type ZooKeeperCoordination} from '../../lib/manatee/zookeeper/coordination';
import {Session} from '../../lib/manatee/zookeeper/session';
import {Cut} from '../harness/cut';
import {until} from '../harness/wait';
import {ZooKeeper} from '../harness/zookeeper';

let zookeeper: ZooKeeper;
let path: string;
let paths = 0;
let writer: ZooKeeperCoordination;
const opened: {close(): Promise<void>}[] = [];

beforeAll(async () => { zookeeper = await ZooKeeper.start(); }, 120_000);
afterAll(async () => { await zookeeper?.stop(); });
beforeEach(async () => {
  path = `/cetus/discover-${(paths += 1)}`;
  writer = createCoordination({servers: zookeeper.address, path, sessionTimeoutMs: 10_000, clock: monotonic, log: silentLog()});
  opened.push(writer);
  await writer.ready(30_000);
});
afterEach(async () => {
  await zookeeper.heal();
  await Promise.all(opened.splice(0).reverse().map((one) => one.close()));
}, 120_000);

const peer = (id: string, port: number): Peer => ({id, host: '127.0.0.1', port, statusUrl: ''});
const [a, b] = [peer('a', 5001), peer('b', 5002)];
const states = (() => {
  const one = adoptedState(a, '7', '0/3000000');
  const two = withSync(one, b, '0/4000000', false);
  return {one, two, three: takenOver(two, '0/5000000', null)};
})();
const write = async (next: ClusterState) => until('a write', async () => {
  const view = await writer.view().catch(() => undefined);
  return view && writer.declare({next, entry: {at: '', by: 'a test', reason: ''}, version: view.version, absent: []}).then(() => true);
});

function discover(servers = zookeeper.address, waitMs = 30_000): Discovery {
  const discovery = createDiscovery({servers, path, sessionTimeoutMs: 1500, log: silentLog(), waitMs});
  opened.push(discovery);
  return discovery;
}
const proxy = async () => {
  const cut = await Cut.open(zookeeper.servers[0]!);
  opened.push(cut);
  return cut;
};

test('before anything is known it says what is missing', async () => {
  const nobody = await Cut.open({host: '127.0.0.1', port: 1});
  opened.push(nobody);
  await expect(discover(nobody.address, 50).primary()).rejects.toMatchObject({kind: 'unavailable', message: expect.stringContaining('ZooKeeper')});
  const early = discover(zookeeper.address, 0);
  await until('contact', async () => early.primary().catch((err: Error) => err.message.includes('no database cluster')));
  const waiting = discover().primary();
  await write(states.one);
  expect(await waiting).toEqual({host: '127.0.0.1', port: 5001, generation: 1});
});

test('a takeover is told; what else changes within a generation is not', async () => {
  await write(states.one);
  const discovery = discover();
  const told: PrimaryAddress[] = [];
  discovery.onChange((primary) => { told.push(primary); });
  await discovery.primary();
  await write(withAsync(states.one, b));
  await write(states.two);
  await write(states.three);
  await until('the takeover to be told', () => told.at(-1)?.generation === 3);
  expect(told.map(({generation}) => generation)).toEqual([...new Set(told.map(({generation}) => generation))].sort());
  expect(await discovery.primary()).toEqual({host: '127.0.0.1', port: 5002, generation: 3});
});

test('without ZooKeeper the last known primary is answered at once; afterwards the newer one', async () => {
  await write(states.two);
  const contacts: boolean[] = [];
  const watch = watchState({servers: zookeeper.address, path, sessionTimeoutMs: 1500, log: silentLog()}, () => undefined, (inContact) => { contacts.push(inContact); });
  opened.push(watch);
  const discovery = discover();
  expect(await discovery.primary()).toMatchObject({port: 5001, generation: 2});
  await until('contact', () => watch.known() && watch.inContact());
  await zookeeper.servers[0]!.kill();
  await until('the loss to be told', () => contacts.at(-1) === false);
  const from = monotonic.nowMs();
  expect(await discovery.primary()).toMatchObject({port: 5001, generation: 2});
  // It would wait for half a minute if it waited.
  expect(monotonic.nowMs() - from).toBeLessThan(10_000);
  expect(watch.known()).toEqual({state: states.two, version: 0});
  await zookeeper.heal();
  await write(states.three);
  await until('the newer one', async () => (await discovery.primary()).generation === 3);
  await until('the watch to know as well', () => watch.known()?.version === 1);
  await until('contact', () => contacts.at(-1) === true);
  // Each change is told once; a slow machine may make more of them.
  expect(contacts).toEqual(contacts.map((_, i) => i % 2 === 0));
});

test('a server that stalls is a lost contact, and a session that it expires no end', async () => {
  await write(states.two);
  const cut = await proxy();
  let inContact = false;
  const generations: number[] = [];
  const watch = watchState({servers: cut.address, path, sessionTimeoutMs: 1500, log: silentLog()}, ({state}) => { generations.push(state.generation); }, (now) => { inContact = now; });
  opened.push(watch);
  await until('contact', () => inContact && generations.length === 1);
  const sessions = async () => (await zookeeper.servers[0]!.ask('dump')).match(/0x[0-9a-f]{6,}/g)?.length ?? 0;
  const before = await sessions();
  cut.hold('questions', 'answers');
  await until('the loss to be noticed', () => !inContact);
  await until('the session to expire', async () => await sessions() < before);
  await write(states.three);
  expect(generations).toEqual([2]);
  cut.restore();
  await until('contact', () => inContact && generations.length === 2);
  expect(generations).toEqual([2, 3]);
});

test('an older generation is never followed, not even where the state was made anew; nor is garbage', async () => {
  await write(states.three);
  const discovery = discover();
  const watched: KnownVersions = [];
  const watch = watchState({servers: zookeeper.address, path, sessionTimeoutMs: 1500, log: silentLog()}, ({state, version}) => { watched.push([state.generation, version]); });
  opened.push(watch);
  expect(await discovery.primary()).toMatchObject({generation: 3});
  await until('the watch to know', () => watch.known());
  const hand = new Session({servers: zookeeper.address, sessionTimeoutMs: 10_000, clock: monotonic, log: silentLog(), changed: () => undefined, expired: () => undefined});
  opened.push(hand);
  await until('a hand to connect', () => hand.connected());
  const anew = async (text: string) => hand.transact([{op: 'remove', path: `${path}/state`, version: -1}, {op: 'create', path: `${path}/state`, data: Buffer.from(text), kind: 'persistent'}]);
  expect(await anew(JSON.stringify(states.one))).toEqual({done: true});
  expect(await anew('garbage')).toEqual({done: true});
  // Behind both of them, and the next that is told.
  await anew(JSON.stringify({...states.three, freeze: {reason: 'x', by: 'x'}}));
  await until('the watch to know the newest', () => watch.known()?.state.freeze);
  expect(watched.map(([generation]) => generation)).toEqual([3, 3]);
  expect(await discovery.primary()).toMatchObject({port: 5002, generation: 3});
});

type KnownVersions = [generation: number, version: number][];
