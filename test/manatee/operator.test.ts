import {CetusError, isCetusError, type ErrorKind} from '../../lib/base/errors';
import {Operator} from '../../lib/manatee/operator';
import {illegalStep, takenOver, withAsync, withoutAsync, type ClusterState, type Peer} from '../../lib/manatee/state';
import type {StatusDocument} from '../../lib/manatee/status';
import type {ServerFacts} from '../../lib/manatee/server';
import {allLive, documentOf, FakeTime, live, MemoryCoordination, peer, three} from './cluster';

let time: FakeTime;
let zk: MemoryCoordination;
let facts: Record<string, Partial<ServerFacts>>;
let told: string[];

function world(state: ClusterState | null, peers = state ? allLive(state) : []): Operator {
  time = new FakeTime();
  zk = new MemoryCoordination(state, peers);
  facts = {};
  told = [];
  const ask = async ({id}: Peer): Promise<StatusDocument> => {
    if (!zk.peers.some((one) => one.id === id)) throw new CetusError('unavailable', `${id} is silent`);
    return Promise.resolve(documentOf(zk.state ?? three({primary: peer(id)}), id, facts[id]));
  };
  return new Operator({coordination: zk, by: 'jill', clock: time, wallClock: () => '2026-01-02T03:04:05Z', ask});
}
const waiting = {deadlineMs: 5000, tell: (text: string) => void told.push(text)};

async function refused(promise: Promise<unknown>, kind: ErrorKind, text: RegExp): Promise<void> {
  const err = await promise.then(() => undefined, (thrown: unknown) => thrown);
  expect(isCetusError(err) && err.kind).toBe(kind);
  expect((err as Error).message).toMatch(text);
}

afterEach(() => {
  // Whatever was ordered: each step was a legal one.
  for (let at = 1; at < zk.entries.length; at += 1) expect(illegalStep(zk.entries[at - 1]!.state, zk.entries[at]!.state)).toBeUndefined();
});

test('freeze and unfreeze are written with their reason and by whom, against what was read; a second time writes nothing', async () => {
  const operator = world(three());
  // Two others are faster, with something else.
  let others = 2;
  zk.before = () => { if (others-- > 0) zk.write(withAsync(zk.state!, peer(`d${others}`))); };
  await operator.freeze('the network is being rebuilt');
  expect(zk.state).toMatchObject({freeze: {reason: 'the network is being rebuilt', by: 'jill'}, async: [{id: 'c'}, {id: 'd1'}, {id: 'd0'}]});
  expect(zk.entries.at(-1)).toMatchObject({by: 'jill', reason: 'frozen: the network is being rebuilt'});
  const {version} = zk;
  await operator.freeze('the network is being rebuilt');
  expect(zk.version).toBe(version);
  await operator.unfreeze();
  await operator.unfreeze();
  expect(zk.state!.freeze).toBeNull();
  expect(zk.version).toBe(version + 1);
});

test('a write whose answer was lost is looked for, not repeated', async () => {
  const operator = world(three());
  const declare = zk.declare.bind(zk);
  zk.declare = async (declaration) => {
    await declare(declaration);
    throw new CetusError('unavailable', 'the answer was lost', {info: {outcome: 'unknown'}});
  };
  await operator.freeze('x');
  expect(zk.entries).toHaveLength(2);
});

test('promote waits until the peer is primary and lets clients in', async () => {
  const operator = world(three());
  const steps: (() => void)[] = [
    () => zk.write(takenOver(zk.state!, '0/6000000', peer('c')), 'b'),
    () => { zk.peers = zk.peers.filter(({id}) => id !== 'a'); },
    () => { facts.b = {gate: 'closed'}; },
    () => { facts.b = {gate: 'open'}; },
  ];
  facts.b = {gate: 'closed'};
  time.onSleep = () => steps.shift()?.();
  const state = await operator.promote('b', waiting);
  expect(state).toMatchObject({generation: 4, primary: {id: 'b'}});
  expect(steps).toEqual([]);
  expect(zk.entries[1]).toMatchObject({reason: 'b shall be primary', state: {promote: {peer: 'b', generation: 3, by: 'jill'}}});
  expect(told[0]).toMatch(/b to take over/);
  expect(told.at(-1)).toMatch(/lets clients in after/);
});

test('promote takes its order back at the deadline; and says why where the sitters dropped it', async () => {
  const operator = world(three());
  await refused(operator.promote('b', waiting), 'timeout', /not done after 5 s; it waits for b to take over/);
  expect(zk.state!.promote).toBeNull();
  time.onSleep = () => zk.write({...zk.state!, promote: null}, 'a');
  await refused(operator.promote('b', waiting), 'conflict', /was not promoted: by a/);
});

test('who cannot be promoted is refused with what to do', async () => {
  const state = three({deposed: [{...peer('d'), deposedIn: 2}], async: [peer('c'), peer('e')]});
  const operator = world(state, [live('a'), live('b'), live('c', {ready: false}), live('d'), live('f')]);
  await refused(operator.promote('d', waiting), 'conflict', /deposed/);
  await refused(operator.promote('c', waiting), 'conflict', /not ready/);
  await refused(operator.promote('e', waiting), 'conflict', /not ready/);
  await refused(operator.promote('f', waiting), 'notFound', /no member/);
  expect(zk.entries).toHaveLength(1);
  await operator.promote('a', waiting); // it is already
  expect(zk.entries).toHaveLength(1);
});

test('rebuild orders it and waits until the peer is a member again', async () => {
  const operator = world(three());
  const steps: (() => void)[] = [
    () => zk.write(withoutAsync(zk.state!, 'c')),
    () => { zk.peers = [...zk.peers.filter(({id}) => id !== 'c'), live('c', {ready: false, systemId: null})]; },
    () => { zk.rebuild.delete('c'); },
    () => { zk.peers = [...zk.peers.filter(({id}) => id !== 'c'), live('c', {restoredIn: 3})]; },
    () => zk.write(withAsync(zk.state!, peer('c'))),
  ];
  time.onSleep = () => steps.shift()?.();
  await operator.rebuild('c', waiting);
  expect(steps).toEqual([]);
  time.onSleep = () => undefined;
  await refused(operator.rebuild('c', {deadlineMs: 1000}), 'timeout', /c: nothing is to be done/);
  expect([...zk.rebuild]).toEqual(['c']); // the order stands
});

test('rebuild refuses what would lose data', async () => {
  const operator = world(three({async: []}), [live('a'), live('b')]);
  await refused(operator.rebuild('a', waiting), 'conflict', /promote another peer first/);
  await refused(operator.rebuild('b', waiting), 'conflict', /only second copy/);
  await refused(operator.rebuild('z', waiting), 'notFound', /no peer z/);
  zk.peers = [live('b')];
  await refused(operator.rebuild('b', waiting), 'conflict', /primary a, to copy from, is not ready/);
  expect(zk.rebuild.size).toBe(0);
});

test('forget takes the place of a deposed peer and of an async that are not there, and of nobody else', async () => {
  const state = three({deposed: [{...peer('d'), deposedIn: 2}]});
  const operator = world(state, [live('a')]);
  zk.rebuild.add('c');
  await operator.forget('d');
  await operator.forget('c');
  await operator.forget('c');
  expect(zk.state).toMatchObject({deposed: [], async: []});
  expect(zk.rebuild.size).toBe(0);
  await refused(operator.forget('cc'), 'notFound', /names a peer cc/);
  await refused(operator.forget('b'), 'conflict', /is the sync/);
  await refused(operator.forget('a'), 'conflict', /stop its sitter first/);
  zk.peers = [];
  await refused(operator.forget('a'), 'conflict', /only the sync b may take its place/);
});

test('an async that lost its place by dying is missed until it is forgotten', async () => {
  const operator = world(three(), [live('a'), live('b')]);
  zk.write(withoutAsync(zk.state!, 'c'), 'a');
  expect((await operator.status()).peers.map(({peer: {id}, role}) => [id, role])).toEqual([['a', 'primary'], ['b', 'sync'], ['c', 'none']]);
  expect((await operator.verify()).findings).toMatchObject([{kind: 'degraded', rule: 'missing', subject: 'c'}]);
  let others = 1;
  zk.before = () => { if (others-- > 0) zk.write(zk.state!); };
  await operator.forget('c');
  await operator.forget('c');
  expect(zk.entries).toHaveLength(4);
  expect((await operator.verify()).findings).toEqual([]);
  zk.write(withAsync(zk.state!, peer('c')), 'a');
  zk.write(withoutAsync(zk.state!, 'c'), 'a');
  expect((await operator.verify()).findings).toMatchObject([{kind: 'degraded', rule: 'missing', subject: 'c'}]);
});

test('one-node-write begins a generation without a sync, only where the primary is there; it ends only where another peer is ready', async () => {
  const operator = world(three(), [live('a')]);
  await operator.oneNodeWrite(true);
  expect(zk.state).toMatchObject({generation: 4, sync: null, oneNodeWriteMode: true, initWal: '0/5000100', async: [{id: 'b'}, {id: 'c'}]});
  await operator.oneNodeWrite(true);
  expect(zk.state!.generation).toBe(4);
  await refused(operator.oneNodeWrite(false), 'conflict', /no other peer that is ready/);
  zk.peers.push(live('c'));
  await operator.oneNodeWrite(false);
  expect(zk.state).toMatchObject({generation: 4, oneNodeWriteMode: false});
  zk.peers = [live('c')];
  await refused(operator.oneNodeWrite(true), 'conflict', /primary a, which would write alone, is not there/);
});

test('adopt makes a cluster of one, in a generation that no client has seen; among several with data it has to be said', async () => {
  const operator = world(null, [live('a', {ready: false})]);
  facts.a = {process: 'stopped', wal: null, generation: 7};
  await refused(operator.adopt('b', false), 'notFound', /there are a/);
  const state = await operator.adopt('a', false);
  expect(state).toMatchObject({generation: 8, primary: {id: 'a'}, sync: null, oneNodeWriteMode: true, initWal: '0/0'});
  await refused(operator.adopt('a', true), 'conflict', /a cluster already/);

  const several = world(null, [live('a'), live('b')]);
  facts.b = {generation: 9, ran: 'standby'};
  await refused(several.adopt('a', false), 'conflict', /b \(database \d+, was standby, generation 9\)/);
  expect(await several.adopt('a', true)).toMatchObject({generation: 10});

  // The primary and the sync are gone for good: a copy remembers only when it was made, the history everything.
  const copy = world(null, [live('a')]);
  facts.a = {generation: 0, restoredIn: 11, ran: 'standby'};
  expect(await copy.adopt('a', false)).toMatchObject({generation: 12});
  const lost = world(three({generation: 20}), [live('a')]);
  facts.a = {generation: 0, restoredIn: 11, ran: 'standby'};
  zk.state = null;
  expect(await lost.adopt('a', true)).toMatchObject({generation: 21});
  zk.entries.shift(); // what led to a state that is lost leads to no other
});

test('an entry of the history that cannot be read does not hide the status', async () => {
  const operator = world(three());
  zk.history = () => Promise.reject(new CetusError('invalid', 'n-0000000007 is not ours to read'));
  expect((await operator.status()).peers.map(({peer: {id}}) => id)).toEqual(['a', 'b', 'c']);
  await refused(operator.verify(), 'invalid', /n-0000000007/);
});

test('without a cluster every order says so', async () => {
  const operator = world(null, [live('a')]);
  for (const order of [operator.freeze('x'), operator.unfreeze(), operator.promote('a', waiting), operator.rebuild('a', waiting), operator.forget('a'), operator.oneNodeWrite(true)])
    await refused(order, 'notFound', /no cluster here/);
});

test('verify believes what stays', async () => {
  const operator = world(three());
  facts.a = {gate: 'closed'};
  let looks = 0;
  time.onSleep = () => { if ((looks += 1) === 2) facts.a = {}; };
  expect((await operator.verify()).findings).toEqual([]);
  facts.c = {inRecovery: false};
  expect((await operator.verify()).findings).toMatchObject([{kind: 'broken', rule: 'role', subject: 'c'}]);
});
