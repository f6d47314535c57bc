/** decide: what each peer does on each transition, by name; and what holds for every situation there can be. */
import fc from 'fast-check';
import type {LivePeer} from '../../lib/manatee/coordination';
import type {Action, Step} from '../../lib/manatee/decide/action';
import {decide} from '../../lib/manatee/decide/decide';
import type {Situation} from '../../lib/manatee/decide/situation';
import type {ServerFacts} from '../../lib/manatee/server';
import {illegalStep, type ClusterState, type Peer} from '../../lib/manatee/state';

const peer = (id: string): Peer => ({id, host: '127.0.0.1', port: 5000 + id.charCodeAt(0), statusUrl: `http://127.0.0.1/${id}`});
const [a, b, c, d] = ['a', 'b', 'c', 'd'].map(peer) as [Peer, Peer, Peer, Peer];
const SYSTEM = '7000';
const alive = (p: Peer, over: Partial<LivePeer> = {}): LivePeer => ({...p, systemId: SYSTEM, ready: true, restoredIn: 0, order: p.id.charCodeAt(0), mine: false, ...over});
const state = (over: Partial<ClusterState> = {}): ClusterState =>
  ({generation: 3, primary: a, sync: b, async: [c], deposed: [], initWal: '0/300', systemId: SYSTEM, freeze: null, oneNodeWriteMode: false, promote: null, ...over});
const serving: ServerFacts = {
  data: 'present', systemId: SYSTEM, process: 'running', downSinceMs: null, ran: 'primary', inRecovery: false, wal: '0/500', upstream: null, receiving: false, diverged: false,
  acknowledger: {kind: 'peer', id: 'b'}, standbys: [{id: 'b', state: 'streaming', flushed: '0/500'}], gate: 'open', generation: 3, restoredIn: 0,
};
const following = (upstream: Peer, over: Partial<ServerFacts> = {}): ServerFacts =>
  ({...serving, ran: 'standby', inRecovery: true, upstream: upstream.id, receiving: true, acknowledger: {kind: 'nobody'}, standbys: [], gate: 'closed', generation: 0, ...over});
const stopped: Partial<ServerFacts> = {process: 'stopped', inRecovery: null, receiving: false, wal: null, gate: 'closed', standbys: [], acknowledger: {kind: 'nobody'}};
const nothing: Partial<ServerFacts> = {...stopped, data: 'none', systemId: null, ran: 'never', upstream: null};

function situation(self: Peer, facts: ServerFacts, at: ClusterState | null, peers: LivePeer[], over: Partial<Situation> = {}, rebuild: string[] = []): Situation {
  return {
    self, facts, policy: {oneNodeWriteMode: false, restartGraceMs: 1000}, nowMs: 1000, leaseUntilMs: 2000,
    view: {state: at, version: 7, peers: peers.map((p) => (p.id === self.id ? {...p, mine: true} : p)), rebuild}, ...over,
  };
}
const all = [alive(a), alive(b), alive(c)];
const step = (s: Situation): Step => decide(s).step;
const declared = (action: Action): ClusterState => {
  if (action.step.kind !== 'declare') throw new Error(`${action.step.kind}: ${action.reason}`);
  return action.step.next;
};

describe('founding', () => {
  const empty = {...serving, ...nothing};
  const idle = (p: Peer): LivePeer => alive(p, {systemId: null, ready: false});
  test('a peer says that it is there, and waits for a second one', () => {
    expect(step(situation(a, empty, null, []))).toMatchObject({kind: 'announce', announcement: {id: 'a', systemId: null, ready: false}});
    expect(step(situation(a, empty, null, [idle(a)])).kind).toBe('wait');
  });
  test('the first one founds, the others wait', () => {
    expect(declared(decide(situation(a, empty, null, [idle(a), idle(b), idle(c)])))).toMatchObject({generation: 1, primary: {id: 'a'}, sync: {id: 'b'}, async: [{id: 'c'}], systemId: null});
    expect(step(situation(b, empty, null, [idle(a), idle(b)])).kind).toBe('wait');
  });
  test('nobody founds where somebody has data', () => {
    expect(step(situation(a, empty, null, [idle(a), alive(b, {ready: false})])).kind).toBe('wait');
    expect(step(situation(b, {...serving, ...stopped} as ServerFacts, null, [idle(a), alive(b, {ready: false})])).kind).toBe('wait');
  });
  test('the first primary makes the database and says whose it is', () => {
    const first = state({generation: 1, systemId: null, initWal: '0/0'});
    expect(step(situation(a, empty, first, [idle(a), idle(b)])).kind).toBe('initialise');
    expect(declared(decide(situation(a, {...serving, gate: 'closed', acknowledger: {kind: 'nobody'}}, first, [idle(a), idle(b)])))).toMatchObject({generation: 1, systemId: SYSTEM});
    expect(step(situation(b, empty, first, [idle(a), idle(b)])).kind).toBe('wait');
  });
});

describe('the primary', () => {
  test('goes on while all is well, also without an async', () => {
    expect(step(situation(a, serving, state(), all)).kind).toBe('wait');
    expect(step(situation(a, serving, state({async: []}), [alive(a), alive(b)])).kind).toBe('wait');
  });
  test('keeps clients in while its sync is away and nobody can replace it: commits wait', () => {
    expect(step(situation(a, {...serving, standbys: []}, state({async: []}), [alive(a)])).kind).toBe('wait');
  });
  test('replaces a sync that is gone: first nobody acknowledges, then the WAL is read and declared', () => {
    const peers = [alive(a), alive(c)];
    expect(step(situation(a, serving, state(), peers))).toEqual({kind: 'acknowledge', by: {kind: 'nobody'}});
    const action = decide(situation(a, {...serving, acknowledger: {kind: 'nobody'}, wal: '0/777'}, state(), peers));
    expect(declared(action)).toMatchObject({generation: 4, primary: {id: 'a'}, sync: {id: 'c'}, async: [], initWal: '0/777'});
    expect(action.step).toMatchObject({version: 7, absent: ['b']});
  });
  test('lets clients in only when the sync streams and has all that was acknowledged', () => {
    const closed: ServerFacts = {...serving, gate: 'closed'};
    const at = (standbys: ServerFacts['standbys']): Step => step(situation(a, {...closed, standbys}, state(), all));
    expect(at([]).kind).toBe('wait');
    expect(at([{id: 'b', state: 'catchup', flushed: '0/500'}]).kind).toBe('wait');
    expect(at([{id: 'b', state: 'streaming', flushed: '0/2FF'}]).kind).toBe('wait');
    expect(at([{id: 'c', state: 'streaming', flushed: '0/500'}]).kind).toBe('wait');
    expect(at([{id: 'b', state: 'streaming', flushed: '0/300'}])).toEqual({kind: 'openGate', generation: 3});
  });
  test('sends clients away when the lease ends, whatever else there is', () => {
    expect(step(situation(a, serving, state(), all, {nowMs: 2000})).kind).toBe('closeGate');
    expect(step(situation(a, serving, state(), all, {nowMs: 2000, view: null})).kind).toBe('closeGate');
    expect(step(situation(a, {...serving, gate: 'closed'}, state(), all, {nowMs: 2000})).kind).toBe('wait');
  });
  test('sends clients away where its node is none of the present session: its lease is not about it', () => {
    const earlier = {...situation(a, serving, state(), all)};
    const view = {...earlier.view!, peers: [alive(a, {mine: false}), alive(b), alive(c)]};
    expect(step({...earlier, view}).kind).toBe('closeGate');
    expect(step({...earlier, view: {...view, peers: [alive(b), alive(c)]}}).kind).toBe('closeGate');
    expect(step({...earlier, view, facts: {...serving, gate: 'closed'}}).kind).toBe('announce');
  });
  test('comes back by itself after a crash, and gives its place away where it does not', () => {
    const crashed = {...serving, ...stopped, downSinceMs: 500} as ServerFacts;
    expect(step(situation(a, crashed, state(), all))).toEqual({kind: 'start', as: 'primary', upstream: null});
    expect(step(situation(a, crashed, state(), all, {nowMs: 1501})).kind).toBe('withdraw');
    expect(step(situation(a, crashed, state(), [alive(a), alive(c)], {nowMs: 1501})).kind).toBe('start');
  });
  test('is promoted, not just started, where its data are a standby\'s', () => {
    expect(step(situation(a, {...serving, ...stopped, ran: 'standby'} as ServerFacts, state(), all))).toEqual({kind: 'start', as: 'standby', upstream: null});
    expect(step(situation(a, following(b), state(), all))).toEqual({kind: 'follow', upstream: null});
    expect(step(situation(a, following(b, {upstream: null, receiving: false}), state(), all))).toEqual({kind: 'promote', generation: expect.any(Number)});
  });
  test('without its data never makes a new database', () => {
    const lost = {...serving, ...nothing} as ServerFacts;
    expect(step(situation(a, lost, state(), all)).kind).toBe('withdraw');
    expect(step(situation(a, lost, state(), [alive(b), alive(c)])).kind).toBe('wait');
  });
  test('keeps the chain: who is gone leaves it, who is ready joins it, who was deposed joins when it was restored', () => {
    expect(declared(decide(situation(a, serving, state(), [alive(a), alive(b)]))).async).toEqual([]);
    expect(declared(decide(situation(a, serving, state(), [...all, alive(d)]))).async.map((p) => p.id)).toEqual(['c', 'd']);
    const deposed = state({deposed: [{...d, deposedIn: 3}]});
    expect(step(situation(a, serving, deposed, [...all, alive(d, {restoredIn: 2})])).kind).toBe('wait');
    expect(declared(decide(situation(a, serving, deposed, [...all, alive(d, {restoredIn: 3})])))).toMatchObject({generation: 3, deposed: [], async: [{id: 'c'}, {id: 'd'}]});
  });
  test('hands over to its sync: clients out, everything sent, an orderly end, its place given free', () => {
    const wish = state({promote: {peer: 'b', generation: 3, by: 'op'}});
    expect(step(situation(a, serving, wish, all)).kind).toBe('closeGate');
    const closed: ServerFacts = {...serving, gate: 'closed', wal: '0/600'};
    expect(step(situation(a, closed, wish, all)).kind).toBe('wait');
    expect(step(situation(a, {...closed, wal: '0/500'}, wish, all))).toEqual({kind: 'stop', how: 'fast'});
    expect(step(situation(a, {...serving, ...stopped} as ServerFacts, wish, all)).kind).toBe('withdraw');
    expect(step(situation(a, {...serving, ...stopped} as ServerFacts, wish, [alive(b), alive(c)])).kind).toBe('wait');
    // The sync died meanwhile: it is the primary still.
    expect(step(situation(a, {...serving, ...stopped} as ServerFacts, wish, [alive(c)])).kind).toBe('start');
  });
  test('makes an async the sync first, where that one is to be promoted', () => {
    const wish = state({promote: {peer: 'c', generation: 3, by: 'op'}});
    const next = declared(decide(situation(a, {...serving, acknowledger: {kind: 'nobody'}}, wish, all)));
    expect(next).toMatchObject({generation: 4, sync: {id: 'c'}, async: [{id: 'b'}], promote: {peer: 'c', generation: 4}});
  });
  test('does nothing of itself while frozen', () => {
    const frozen = state({freeze: {reason: 'maintenance', by: 'op'}});
    expect(step(situation(a, serving, frozen, [alive(a), alive(c)])).kind).toBe('wait');
    expect(step(situation(b, following(a), frozen, [alive(b), alive(c)])).kind).toBe('wait');
  });
});

describe('the sync', () => {
  test('takes over: it stops receiving, knows what it has, and declares', () => {
    const peers = [alive(b), alive(c)];
    expect(step(situation(b, following(a), state(), peers))).toEqual({kind: 'follow', upstream: null});
    expect(step(situation(b, following(a, {upstream: null, receiving: true}), state(), peers))).toEqual({kind: 'follow', upstream: null});
    const quiet = following(a, {upstream: null, receiving: false});
    expect(step(situation(b, {...quiet, wal: null}, state(), peers)).kind).toBe('wait');
    expect(step(situation(b, {...quiet, wal: '0/2FF'}, state(), peers)).kind).toBe('wait');
    const action = decide(situation(b, {...quiet, wal: '0/400'}, state(), peers));
    expect(declared(action)).toMatchObject({generation: 4, primary: {id: 'b'}, sync: {id: 'c'}, async: [], deposed: [{id: 'a', deposedIn: 4}], initWal: '0/400'});
    expect(action.step).toMatchObject({version: 7, absent: ['a']});
  });
  test('says that it is there before it takes over: its own sync would take over from a primary that is not', () => {
    const quiet = following(a, {upstream: null, receiving: false});
    expect(step(situation(b, quiet, state(), [alive(c)]))).toMatchObject({kind: 'announce', announcement: {id: 'b', systemId: SYSTEM, ready: true}});
  });
  test('follows the primary again where that one came back in time', () => {
    expect(step(situation(b, following(a, {upstream: null, receiving: false}), state(), all))).toEqual({kind: 'follow', upstream: a});
  });
  test('takes over although an operator wanted its data thrown away', () => {
    expect(declared(decide(situation(b, following(a, {upstream: null, receiving: false}), state(), [alive(b), alive(c)], {}, ['b']))).primary.id).toBe('b');
  });
  test('is replaced before it throws its data away', () => {
    const s = situation(b, following(a), state(), all, {}, ['b']);
    expect(step(s)).toMatchObject({kind: 'announce', announcement: {systemId: null, ready: true}});
    expect(step(situation(b, following(a), state({async: []}), [alive(a), alive(b)], {}, ['b'])).kind).toBe('wait');
  });
});

describe('the others', () => {
  test('an async follows the one before it, and never takes over', () => {
    expect(step(situation(c, following(a), state(), all))).toEqual({kind: 'follow', upstream: b});
    expect(step(situation(c, following(b), state(), [alive(c)])).kind).toBe('wait');
  });
  test('a deposed primary closes its gate, stops, is rewound, follows, and says that it is ready', () => {
    const later = state({generation: 4, primary: b, sync: c, async: [], deposed: [{...a, deposedIn: 4}]});
    expect(step(situation(a, serving, later, all)).kind).toBe('closeGate');
    expect(step(situation(a, {...serving, gate: 'closed'}, later, all)).kind).toBe('stop');
    const down = {...serving, ...stopped} as ServerFacts;
    expect(step(situation(a, down, later, [alive(a, {ready: false}), alive(b), alive(c)]))).toEqual({kind: 'restore', from: b, how: 'rewind', generation: 4});
    const restored: Partial<ServerFacts> = {ran: 'standby', restoredIn: 4};
    expect(step(situation(a, {...down, ...restored}, later, [alive(a, {ready: false}), alive(b), alive(c)]))).toEqual({kind: 'start', as: 'standby', upstream: b});
    expect(step(situation(a, following(b, restored), later, [alive(a, {ready: false}), alive(b), alive(c)]))).toMatchObject({kind: 'announce', announcement: {ready: true, restoredIn: 4}});
  });
  test('whoever has left the history is rewound, whose rewind broke is copied', () => {
    expect(step(situation(c, following(b, {diverged: true}), state(), all)).kind).toBe('stop');
    expect(step(situation(c, {...following(b), ...stopped, diverged: true} as ServerFacts, state(), [alive(a), alive(b), alive(c, {ready: false})]))).toMatchObject({kind: 'restore', how: 'rewind', from: {id: 'a'}});
    expect(step(situation(c, {...following(b), ...stopped, data: 'broken'} as ServerFacts, state(), [alive(a), alive(b), alive(c, {ready: false, systemId: null})]))).toMatchObject({kind: 'restore', how: 'copy'});
  });
  test('data of another database are left alone', () => {
    const foreign = {...following(a), ...stopped, systemId: '666', generation: 2} as ServerFacts;
    const action = decide(situation(d, foreign, state(), [...all, alive(d, {systemId: '666', ready: false, mine: true})]));
    expect(action.step.kind).toBe('withdraw');
    expect(decide(situation(d, foreign, state(), all)).reason).toContain('cetus db rebuild d');
    expect(step(situation(d, foreign, state(), [...all, alive(d, {systemId: null, ready: false})], {}, ['d'])).kind).toBe('rebuild');
  });
});

describe('in any situation', () => {
  const lsn = fc.integer({min: 0, max: 0x999}).map((n) => `0/${n.toString(16).toUpperCase()}`);
  const id = fc.constantFrom('a', 'b', 'c', 'd');
  const someState = fc.record({
    order: fc.shuffledSubarray(['a', 'b', 'c', 'd'], {minLength: 1}), deposedCount: fc.nat(2), sync: fc.boolean(), alone: fc.boolean(), frozen: fc.boolean(), initWal: lsn,
    wish: fc.option(id), systemId: fc.constantFrom(SYSTEM, SYSTEM, null),
  }).map(({order, deposedCount, sync, alone, frozen, initWal, wish, systemId}): ClusterState => {
    const [primary, ...rest] = order.map(peer);
    const deposed = rest.splice(0, Math.min(deposedCount, rest.length)).map((p) => ({...p, deposedIn: 3}));
    const second = sync && !alone ? rest.shift() ?? null : null;
    return state({primary: primary!, sync: second, async: rest, deposed, initWal, oneNodeWriteMode: alone, freeze: frozen ? {reason: 'r', by: 'o'} : null, promote: wish ? {peer: wish, generation: 3, by: 'o'} : null, systemId});
  });
  const someFacts: fc.Arbitrary<ServerFacts> = fc.record({
    data: fc.constantFrom('present', 'present', 'none', 'broken'), systemId: fc.constantFrom(SYSTEM, SYSTEM, '666', null), process: fc.constantFrom('running', 'running', 'stopped', 'starting', 'hung'),
    downSinceMs: fc.option(fc.constantFrom(100, 900)), ran: fc.constantFrom('primary', 'standby', 'never'), inRecovery: fc.option(fc.boolean()), wal: fc.option(lsn), upstream: fc.option(id),
    receiving: fc.boolean(), diverged: fc.boolean(), acknowledger: fc.oneof(fc.constantFrom({kind: 'nobody' as const}, {kind: 'alone' as const}), id.map((i) => ({kind: 'peer' as const, id: i}))),
    standbys: fc.array(fc.record({id, state: fc.constantFrom('streaming' as const, 'catchup' as const), flushed: lsn}), {maxLength: 2}), gate: fc.constantFrom('open', 'closed'),
    generation: fc.constantFrom(0, 2, 3), restoredIn: fc.constantFrom(0, 2, 3),
  });
  const somePeers = fc.array(fc.record({id, systemId: fc.constantFrom(SYSTEM, SYSTEM, null), ready: fc.boolean(), restoredIn: fc.constantFrom(0, 3), mine: fc.boolean()}), {maxLength: 4})
    .map((list) => [...new Map(list.map((p) => [p.id, alive(peer(p.id), p)])).values()]);
  const some = fc.record({self: id, facts: someFacts, at: fc.option(someState, {freq: 10}), peers: somePeers, nowMs: fc.constantFrom(1000, 2500), rebuild: fc.subarray(['a', 'b', 'c'], {maxLength: 1}), blind: fc.boolean()})
    .map(({self, facts, at, peers, nowMs, rebuild, blind}): Situation => ({
      self: peer(self), facts, policy: {oneNodeWriteMode: false, restartGraceMs: 500}, nowMs, leaseUntilMs: 2000,
      view: blind && nowMs > 2000 ? null : {state: at, version: 7, peers: peers.map((p) => ({...p, mine: p.id === self && p.mine})), rebuild},
    }));

  test('there is an answer, and it keeps the promises', () => {
    fc.assert(fc.property(some, (s) => {
      const {step: next, reason} = decide(s);
      const at = s.view?.state;
      const isPrimary = at?.primary.id === s.self.id;
      expect(reason.length).toBeGreaterThan(0);
      if (s.facts.gate === 'open' && s.nowMs >= s.leaseUntilMs) expect(next.kind).toBe('closeGate');
      if (!isPrimary && s.facts.gate === 'open' && s.view) expect(next.kind).toBe('closeGate');
      if (next.kind === 'openGate') {
        expect(s.nowMs).toBeLessThan(s.leaseUntilMs);
        expect(isPrimary && s.view!.peers.some((p) => p.id === s.self.id && p.mine) && next.generation === at!.generation).toBe(true);
        expect(s.facts.acknowledger).toEqual(at!.oneNodeWriteMode ? {kind: 'alone'} : {kind: 'peer', id: at!.sync!.id});
      }
      if (next.kind === 'promote' || next.kind === 'acknowledge' || next.kind === 'initialise') expect(isPrimary).toBe(true);
      if (next.kind === 'promote') expect(s.facts.receiving).toBe(false);
      if (next.kind === 'acknowledge' && next.by.kind !== 'nobody') expect(s.facts.acknowledger.kind).toBe('nobody');
      if (next.kind === 'restore' || next.kind === 'rebuild') expect(!isPrimary && s.facts.process === 'stopped').toBe(true);
      if (next.kind === 'declare') {
        expect(next.version).toBe(7);
        if (at) expect(illegalStep(at, next.next)).toBeUndefined();
        if (at && next.next.primary.id !== at.primary.id) {
          expect(s.self.id).toBe(at.sync!.id);
          expect(next.absent).toEqual([at.primary.id]);
          if (at.systemId !== null) expect(s.facts.receiving).toBe(false);
        }
        if (at && next.next.generation > at.generation && next.next.primary.id === at.primary.id) expect(s.facts.acknowledger).toEqual({kind: 'nobody'});
      }
    }), {numRuns: 20_000});
  });
});
