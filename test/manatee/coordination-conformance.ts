/** What every Coordination must do: the tests of the one over real ZooKeeper servers and of the simulated one are these. */
import {adoptedState, withAsync, type ClusterState, type Peer} from '../../lib/manatee/state';
import type {Announcement, Coordination} from '../../lib/manatee/coordination';
import {until as pollingUntil} from '../harness/wait';

/** Cluster and peers of one test. */
export interface CoordinationWorld {
  /** A process of the peer, connected. */
  make(id: string): Promise<Coordination>;
  /** Ends the peer's session behind its back, as the servers do that have not heard of it; resolves when they have. */
  expireSession(id: string): Promise<void>;
  /** Nothing reaches the servers from this peer, nor comes back. */
  cutOff(id: string): Promise<void>;
  restore(id: string): Promise<void>;
  /** The clock that leases count by. */
  nowMs(): number;
  sessionTimeoutMs: number;
  /** Where time is simulated, the simulator's. */
  until?(what: string, probe: () => Promise<unknown> | unknown): Promise<unknown>;
  close(): Promise<void>;
}

const peer = (id: string): Peer => ({id, host: '127.0.0.1', port: 5432, statusUrl: 'http://127.0.0.1:1'});
const announcement = (id: string, more: Partial<Announcement> = {}): Announcement => ({...peer(id), systemId: null, ready: false, restoredIn: 0, ...more});
const first = (): ClusterState => adoptedState(peer('a'), '7000000000000000001', '0/3000000');
const entry = (reason: string) => ({at: '2026-01-02T03:04:05Z', by: 'a', reason});

export function coordinationConformance(open: () => Promise<CoordinationWorld>): void {
  let world: CoordinationWorld;
  let until: NonNullable<CoordinationWorld['until']>;
  beforeEach(async () => {
    world = await open();
    until = world.until ?? ((what, probe) => pollingUntil(what, async () => (await probe()) as boolean));
  });
  afterEach(async () => world.close());

  const start = async (c: Coordination): Promise<ClusterState> => {
    await c.declare({next: first(), entry: entry('first'), version: -1, absent: []});
    return first();
  };
  /** Nothing, until a view is possible. */
  const seen = async (c: Coordination) => c.view().catch(() => undefined);

  test('before there is a cluster the view is empty', async () => {
    const a = await world.make('a');
    expect(await a.view()).toEqual({state: null, version: -1, peers: [], rebuild: []});
    expect(await a.history(10)).toEqual([]);
    await a.withdraw();
  });

  test('of two that create the state one succeeds, and both see which', async () => {
    const [a, b] = [await world.make('a'), await world.make('b')];
    const results = await Promise.allSettled([a, b].map(async (c, i) => c.declare({next: first(), entry: entry(`by ${i}`), version: -1, absent: []})));
    expect(results.map(({status}) => status).sort()).toEqual(['fulfilled', 'rejected']);
    expect(results.find(({status}) => status === 'rejected')).toMatchObject({reason: {kind: 'etagConflict'}});
    expect(await b.view()).toEqual(await a.view());
    expect(await a.view()).toMatchObject({state: first()});
    expect((await b.history(10)).map(({reason}) => reason)).toEqual([`by ${results.findIndex(({status}) => status === 'fulfilled')}`]);
  });

  test('a write against another version than the present one writes nothing, also where that version is the first', async () => {
    const [a, b] = [await world.make('a'), await world.make('b')];
    const state = await start(a);
    const {version} = await b.view();
    const next = withAsync(state, peer('b'));
    await b.declare({next, entry: entry('b joins'), version, absent: []});
    await expect(a.declare({next: withAsync(state, peer('c')), entry: entry('c joins'), version, absent: []})).rejects.toMatchObject({kind: 'etagConflict'});
    const view = await a.view();
    expect(view.state).toEqual(next);
    expect(view.version).not.toBe(version);
    await expect(a.declare({next: state, entry: entry('from the future'), version: view.version + 1, absent: []})).rejects.toMatchObject({kind: 'etagConflict'});
    expect((await a.history(10)).map(({reason}) => reason)).toEqual(['first', 'b joins']);
  });

  test('a write that takes a living peer for dead writes nothing; once the peer has gone it is taken', async () => {
    const [a, b] = [await world.make('a'), await world.make('b')];
    const state = await start(a);
    await b.announce(announcement('b'));
    const {version} = await a.view();
    const declaration = {next: withAsync(state, peer('c')), entry: entry('without b'), version, absent: ['c', 'b']};
    await expect(a.declare(declaration)).rejects.toMatchObject({kind: 'etagConflict'});
    expect(await a.view()).toMatchObject({state, version, peers: [{id: 'b'}]});
    await b.withdraw();
    await a.declare(declaration);
    expect(await a.view()).toMatchObject({state: declaration.next, peers: []});
    expect(await a.history(10)).toEqual([{...entry('first'), state}, {...entry('without b'), state: declaration.next}]);
  });

  test('peers are seen in the order of their coming, with what they say last', async () => {
    const [a, b] = [await world.make('a'), await world.make('b')];
    await b.announce(announcement('b'));
    await a.announce(announcement('a'));
    await b.announce(announcement('b', {systemId: '7', ready: true, restoredIn: 3}));
    const {peers} = await a.view();
    expect(peers).toMatchObject([announcement('b', {systemId: '7', ready: true, restoredIn: 3}), announcement('a')]);
    expect(peers[0]!.order).toBeLessThan(peers[1]!.order);
    expect(peers.map(({mine}) => mine)).toEqual([false, true]);
    await b.withdraw();
    await b.withdraw();
    expect((await a.view()).peers.map(({id}) => id)).toEqual(['a']);
    await b.announce(announcement('b'));
    expect((await a.view()).peers.map(({id}) => id)).toEqual(['a', 'b']);
  });

  test('a view is no older than its call, whoever wrote', async () => {
    const [a, b] = [await world.make('a'), await world.make('b')];
    await start(a);
    for (let i = 0; i < 20; i += 1) {
      const [writer, reader] = i % 2 ? [a, b] : [b, a];
      const {state, version} = await writer.view();
      const next = {...state!, freeze: {reason: String(i), by: 'a test'}};
      await writer.declare({next, entry: entry(String(i)), version, absent: []});
      expect((await reader.view()).state).toEqual(next);
    }
  });

  test('history gives the newest, newest last', async () => {
    const a = await world.make('a');
    let state = await start(a);
    for (let i = 1; i <= 12; i += 1) {
      state = {...state, freeze: {reason: String(i), by: 'a test'}};
      await a.declare({next: state, entry: entry(String(i)), version: (await a.view()).version, absent: []});
    }
    expect((await a.history(3)).map(({reason}) => reason)).toEqual(['10', '11', '12']);
    expect(await a.history(100)).toHaveLength(13);
  });

  test('an order to rebuild stands until it is taken away', async () => {
    const [a, b] = [await world.make('a'), await world.make('b')];
    await a.orderRebuild('c', true);
    await a.orderRebuild('b', true);
    await b.orderRebuild('b', true);
    expect((await b.view()).rebuild).toEqual(['b', 'c']);
    await b.orderRebuild('b', false);
    await b.orderRebuild('b', false);
    expect((await a.view()).rebuild).toEqual(['c']);
  });

  test('whoever has looked is told of the next change of whatever kind', async () => {
    const [a, b] = [await world.make('a'), await world.make('b')];
    const state = await start(b);
    const changes: [string, () => Promise<void>][] = [
      ['a peer comes', async () => b.announce(announcement('b'))],
      ['a peer says something else', async () => b.announce(announcement('b', {ready: true}))],
      ['the state is written', async () => b.declare({next: withAsync(state, peer('b')), entry: entry('joins'), version: (await b.view()).version, absent: []})],
      ['a rebuild is ordered', async () => b.orderRebuild('b', true)],
      ['a rebuild is done', async () => b.orderRebuild('b', false)],
      ['a peer goes', async () => b.withdraw()],
    ];
    let told = 0;
    const stop = a.onChange(() => { told += 1; });
    for (const [what, change] of changes) {
      await a.view();
      const before = told;
      await change();
      await until(`a to be told that ${what}`, () => told > before);
    }
    stop();
    await a.view();
    const before = told;
    await b.announce(announcement('b'));
    await a.view();
    expect(told).toBe(before);
  });

  test('the lease is at most two thirds of the session, and moves on by itself', async () => {
    const a = await world.make('a');
    await a.view();
    const lease = a.leaseUntilMs();
    expect(lease).toBeGreaterThan(world.nowMs() - world.sessionTimeoutMs);
    expect(lease).toBeLessThanOrEqual(world.nowMs() + world.sessionTimeoutMs * 2 / 3);
    await until('the lease to move on', () => a.leaseUntilMs() > lease);
  });

  test('cut off: everything fails as unavailable, the lease runs out; restored: all is as before, and what was missed is told', async () => {
    const [a, b] = [await world.make('a'), await world.make('b')];
    const state = await start(b);
    await b.view();
    let told = 0;
    await world.cutOff('b');
    await until('b to notice', async () => !await seen(b));
    await expect(b.view()).rejects.toMatchObject({kind: 'unavailable'});
    await expect(b.declare({next: state, entry: entry('never'), version: 0, absent: []})).rejects.toMatchObject({kind: 'unavailable'});
    await expect(b.announce(announcement('b'))).rejects.toMatchObject({kind: 'unavailable'});
    await expect(b.orderRebuild('b', true)).rejects.toMatchObject({kind: 'unavailable'});
    await expect(b.history(1)).rejects.toMatchObject({kind: 'unavailable'});
    await until('the lease to run out', () => b.leaseUntilMs() < world.nowMs());
    b.onChange(() => { told += 1; });
    await a.declare({next: withAsync(state, peer('c')), entry: entry('missed'), version: (await a.view()).version, absent: []});
    await world.restore('b');
    await until('b to be told', () => told > 0);
    await until('b to see what it missed', async () => (await seen(b))?.state?.async.length === 1);
    await until('b to have a lease', () => b.leaseUntilMs() > world.nowMs());
    const before = told;
    await a.declare({next: state, entry: entry('seen'), version: (await a.view()).version, absent: []});
    await until('b to be told as before', () => told > before);
    expect((await b.view()).state).toEqual(state);
    expect((await a.history(10)).map(({reason}) => reason)).toEqual(['first', 'missed', 'seen']);
  });

  test('a session that expires takes the peer away; the next one comes by itself, and the peer by announcing itself', async () => {
    const [a, b] = [await world.make('a'), await world.make('b')];
    await b.announce(announcement('b', {ready: true}));
    expect(await a.view()).toMatchObject({peers: [{id: 'b'}]});
    let told = 0;
    a.onChange(() => { told += 1; });
    await world.expireSession('b');
    await until('a to be told', () => told > 0);
    expect((await a.view()).peers).toEqual([]);
    // Through the next session.
    await until('b to see that it is gone', async () => (await seen(b))?.peers.length === 0);
    await until('b to have a lease again', () => b.leaseUntilMs() > world.nowMs());
    expect((await a.view()).peers).toEqual([]);
    await b.announce(announcement('b', {ready: true}));
    expect(await a.view()).toMatchObject({peers: [announcement('b', {ready: true})]});
  });

  test('nothing is left of a peer that has closed', async () => {
    const [a, b] = [await world.make('a'), await world.make('b')];
    await b.announce(announcement('b'));
    await b.close();
    await until('b to be gone', async () => (await a.view()).peers.length === 0);
    await expect(b.view()).rejects.toMatchObject({kind: 'unavailable'});
  });
}
