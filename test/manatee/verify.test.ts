import type {ServerFacts} from '../../lib/manatee/server';
import {adopted, report, type ClusterReport, type StatusDocument} from '../../lib/manatee/status';
import {takenOver, withSync, type ClusterState, type HistoryEntry} from '../../lib/manatee/state';
import {lasting, verify, type Collected, type Finding} from '../../lib/manatee/verify';
import {allLive, documentOf, live, peer, three} from './cluster';

const entry = (state: ClusterState, reason = 'r'): HistoryEntry => ({at: '2026-01-01T00:00:00Z', by: 'a', reason, state});

interface Bent { state?: ClusterState; history?: HistoryEntry[]; facts?: Record<string, Partial<ServerFacts>>; documents?: Record<string, Partial<StatusDocument>>; silent?: string[]; gone?: string[]; peers?: Parameters<typeof live>[] }

/** A sound cluster, bent as the test says. */
async function collected({state = three(), history = [entry(state)], facts = {}, documents = {}, silent = [], gone = [], peers = []}: Bent = {}): Promise<Collected> {
  const there = [...allLive(state).filter(({id}) => !gone.includes(id) && !peers.some(([other]) => other === id)), ...peers.map((args) => live(...args))];
  const found: ClusterReport = await report({state, version: 7, peers: there, rebuild: []}, async ({id}) => {
    if (silent.includes(id) || gone.includes(id)) throw new Error(`${id} says nothing`);
    return Promise.resolve(documentOf(state, id, facts[id], documents[id]));
  });
  return {...found, history};
}
const rules = async (bent: Bent): Promise<string[]> => verify(await collected(bent)).map(({kind, rule, subject}) => `${kind} ${rule} ${subject}`);

test('of a sound cluster nothing is found', async () => {
  expect(await rules({})).toEqual([]);
  const second = withSync(three({async: [peer('c'), peer('d')]}), peer('d'), '0/5000000', true);
  expect(await rules({state: second, history: [entry(three({async: [peer('c'), peer('d')]})), entry(second)]})).toEqual([]);
});

test('what an operator adopted follows from nothing, and all that comes after it does', async () => {
  const before = three({generation: 2, primary: peer('d'), sync: peer('c'), async: [], deposed: [{...peer('a'), deposedIn: 2}], initWal: '0/9000000'});
  expect(await rules({history: [entry(before), entry(three(), adopted('a'))]})).toEqual([]);
  expect(await rules({history: [entry(before), entry(three({generation: 1}), adopted('a')), entry(three())]})).toEqual(['broken I1 history']);
});

test.each<[string, Bent, string[]]>([
  ['a generation that was skipped', {history: [entry(three({generation: 1})), entry(three())]}, ['broken I1 history']],
  ['a primary that changed within a generation', {history: [entry(three({primary: peer('c'), async: []})), entry(three())]}, ['broken I2 history']],
  ['an async that became primary', {history: [entry(three({generation: 2, primary: peer('d'), sync: peer('c'), async: [peer('a'), peer('b')]})), entry(three({deposed: []}))]}, ['broken I3 history']],
  ['an initWal that fell', {history: [entry(three({generation: 2, initWal: '0/9000000'})), entry(three())]}, ['broken I5 history']],
  ['a state that no entry led to', {history: [entry(three({initWal: '0/3000000', async: []}))]}, ['broken history history']],
  ['a peer with two places', {state: three({async: [peer('b')]})}, ['broken state state', 'broken address b']],
  ['two open gates', {facts: {b: {gate: 'open'}}}, ['broken gate state', 'broken gate b', 'broken gate b', 'degraded generation b']],
  ['clients at a primary whose session may have ended', {documents: {a: {leaseLeftMs: 0}}}, ['broken lease a']],
  ['a primary that acknowledges alone', {facts: {a: {acknowledger: {kind: 'alone'}}}}, ['broken I4 a']],
  ['a primary that acknowledges by another than its sync', {facts: {a: {acknowledger: {kind: 'peer', id: 'c'}}}}, ['broken I4 a']],
  ['a primary with less than all that was acknowledged', {facts: {a: {wal: '0/2000000'}, b: {wal: '0/1'}, c: {wal: '0/1'}}}, ['broken I5 a', 'degraded behind b']],
  ['a sync out of recovery', {facts: {b: {inRecovery: false}}}, ['broken role b']],
  ['an async with WAL that the primary has not', {facts: {c: {wal: '0/6000000'}}}, ['broken ahead c']],
  ['data of another database', {peers: [['c', {systemId: '1'}]]}, ['broken systemId c']],
  ['a role that does not wait for the sync', {documents: {a: {overrides: [{role: 'cetus', database: '', name: 'synchronous_commit', value: 'local'}]}}}, ['broken settings role cetus']],
  ['a database that does not', {documents: {a: {overrides: [{role: '', database: 'cetus', name: 'synchronous_commit', value: 'off'}]}, b: {overrides: [{role: '', database: 'cetus', name: 'synchronous_commit', value: 'off'}]}}}, ['broken settings database cetus']],
  ['a server without fsync', {documents: {b: {overrides: [{role: '', database: '', name: 'fsync', value: 'off'}]}}}, ['broken settings the server of b']],
  ['an async that is gone', {gone: ['c']}, ['degraded missing c']],
  ['a sitter that does not answer', {silent: ['c']}, ['degraded silent c']],
  ['a sync that does not stream', {facts: {a: {standbys: []}}}, ['degraded sync b']],
  ['a closed gate', {facts: {a: {gate: 'closed'}}}, ['degraded closed a']],
  ['an async behind another than its place says', {facts: {c: {upstream: 'a'}}}, ['degraded upstream c']],
  ['one-node-write mode', {state: three({oneNodeWriteMode: true, sync: null, async: []})}, ['degraded one-node-write state']],
  ['no sync', {state: three({sync: null, async: []})}, ['degraded no-sync state', 'degraded waiting a']],
])('%s is found', async (_what, bent, expected) => {
  expect(await rules(bent)).toEqual(expected);
});

test('I6: who was taken over from and follows with data that were not restored is found, in the chain and beside it', async () => {
  const before = three({generation: 2});
  const after = takenOver(before, '0/4000000', peer('c')); // a is deposed in 3
  const history = [entry(before), entry(after)];
  expect(await rules({state: after, history, facts: {a: {receiving: false, gate: 'closed', inRecovery: null, process: 'stopped'}}})).toEqual([]);
  expect(await rules({state: after, history, facts: {a: {receiving: true}}})).toEqual(['broken I6 a']);
  const back: ClusterState = {...after, deposed: [], async: [peer('a')]};
  const whole = [...history, entry(back)];
  expect(await rules({state: back, history: whole})).toEqual(['broken I6 a']);
  expect(await rules({state: back, history: whole, facts: {a: {restoredIn: 3}}})).toEqual([]);
});

test('what is not there a moment later was no finding', () => {
  const [one, two]: Finding[] = [{kind: 'degraded', rule: 'closed', subject: 'a', text: '1'}, {kind: 'broken', rule: 'gate', subject: 'b', text: '2'}];
  expect(lasting([[one!, two!], [{...one!, text: 'later'}]])).toEqual([{...one!, text: 'later'}]);
  expect(lasting([[one!], [two!]])).toEqual([]);
});

test('without a state there is nothing to verify, and that is wrong', () => {
  expect(verify({view: {state: null, version: -1, peers: [], rebuild: []}, peers: [], history: []})).toMatchObject([{kind: 'broken', rule: 'state'}]);
});
