/** What every PostgresServer must do: the tests of the one over real servers and of the simulated one are these. Facts after each verb. */
import {reached} from '../../lib/manatee/lsn';
import type {PostgresServer, ServerFacts} from '../../lib/manatee/server';
import type {Peer} from '../../lib/manatee/state';

export interface ServerPeer {
  peer: Peer;
  server: PostgresServer;
  /** A client's commit, of which one hears when it is acknowledged. */
  commit(): Promise<{acknowledged(): boolean}>;
  /** kill -9 of the server. */
  kill(): Promise<void> | void;
}

export interface ServerWorld {
  /** A peer without data. */
  make(id: string): Promise<ServerPeer>;
  /** The clock that permits count by. */
  nowMs(): number;
  until<T>(what: string, probe: () => Promise<T | undefined | false>): Promise<T>;
  close(): Promise<void>;
}

export function serverConformance(open: () => Promise<ServerWorld>): void {
  let world: ServerWorld;
  beforeEach(async () => { world = await open(); });
  afterEach(async () => world.close());

  const sees = (peer: ServerPeer, what: string, condition: (facts: ServerFacts) => boolean): Promise<ServerFacts> =>
    world.until(`${peer.peer.id}: ${what}`, async () => {
      const facts = await peer.server.facts();
      return condition(facts) && facts;
    });
  async function primary(): Promise<ServerPeer> {
    const a = await world.make('a');
    await a.server.initialise();
    await a.server.start('primary', null);
    return a;
  }
  async function standby(id: string, of: ServerPeer): Promise<ServerPeer> {
    const b = await world.make(id);
    await b.server.restore(of.peer, 'copy', 1);
    await b.server.start('standby', of.peer);
    await sees(b, 'receives', (f) => f.receiving);
    await sees(of, 'it streams', (f) => f.standbys.some((s) => s.id === id && s.state === 'streaming'));
    return b;
  }
  const rejects = (verb: Promise<unknown>, kind: string): Promise<void> => expect(verb).rejects.toMatchObject({kind});

  test('from nothing to a primary and down again', async () => {
    const a = await world.make('a');
    expect(await a.server.facts()).toMatchObject({data: 'none', systemId: null, process: 'stopped', ran: 'never', wal: null, inRecovery: null, downSinceMs: null, generation: 0, restoredIn: 0});
    await a.server.initialise();
    expect(await a.server.facts()).toMatchObject({data: 'present', systemId: expect.any(String), process: 'stopped', ran: 'never', downSinceMs: null});
    await a.server.start('primary', null);
    expect(await a.server.facts()).toMatchObject({process: 'running', ran: 'primary', inRecovery: false, wal: expect.any(String), upstream: null, receiving: false, standbys: [], gate: 'closed', acknowledger: {kind: 'nobody'}});
    await a.server.stop('fast');
    expect(await a.server.facts()).toMatchObject({data: 'present', process: 'stopped', ran: 'primary', inRecovery: null, wal: null, downSinceMs: null, gate: 'closed', acknowledger: {kind: 'nobody'}});
    await a.server.stop('immediate');
  });

  test('a copy is a standby\'s, and follows', async () => {
    const a = await primary();
    const b = await world.make('b');
    await b.server.restore(a.peer, 'copy', 3);
    const {systemId} = await a.server.facts();
    expect(await b.server.facts()).toMatchObject({data: 'present', systemId, process: 'stopped', ran: 'standby', restoredIn: 3, generation: 0});
    await b.server.start('standby', a.peer);
    expect(await sees(b, 'receives', (f) => f.receiving && f.wal !== null)).toMatchObject({process: 'running', inRecovery: true, upstream: 'a', diverged: false, gate: 'closed', standbys: []});
    await rejects(b.server.openGate(1), 'conflict');
    await rejects(b.server.promote(2), 'conflict');
    await rejects(b.server.restore(a.peer, 'copy', 4), 'conflict');
  });

  test('a commit is acknowledged by whom the rule names, and the rule changes by way of nobody', async () => {
    const a = await primary();
    const b = await standby('b', a);
    await a.server.acknowledge({kind: 'nobody'});
    await a.server.openGate(1);
    const commit = await a.commit();
    const {wal} = await a.server.facts();
    await sees(b, 'has it', (f) => f.wal !== null && reached(f.wal, wal!));
    expect(commit.acknowledged()).toBe(false);
    await a.server.acknowledge({kind: 'peer', id: 'b'});
    expect((await a.server.facts()).acknowledger).toEqual({kind: 'peer', id: 'b'});
    await world.until('the commit to be acknowledged', async () => commit.acknowledged());
    await rejects(a.server.acknowledge({kind: 'peer', id: 'c'}), 'conflict');
    await rejects(a.server.acknowledge({kind: 'alone'}), 'conflict');
    await a.server.acknowledge({kind: 'nobody'});
    const second = await a.commit();
    await sees(b, 'has that too', (f) => f.receiving);
    expect(second.acknowledged()).toBe(false);
    await a.server.acknowledge({kind: 'alone'});
    await world.until('the second to be acknowledged', async () => second.acknowledged());
    await rejects(a.server.acknowledge({kind: 'peer', id: 'b'}), 'conflict');
  });

  test('the gate, and the generation that outlives a restart', async () => {
    const a = await primary();
    await a.server.acknowledge({kind: 'alone'});
    await a.server.openGate(4);
    expect(await a.server.facts()).toMatchObject({gate: 'open', generation: 4});
    await a.server.closeGate();
    await a.server.closeGate();
    expect(await a.server.facts()).toMatchObject({gate: 'closed', generation: 4, process: 'running'});
    await a.server.openGate(5);
    await a.server.stop('fast');
    await a.server.start('primary', null);
    expect(await a.server.facts()).toMatchObject({gate: 'closed', generation: 5, acknowledger: {kind: 'nobody'}});
  });

  test('a standby stops receiving, is promoted, and has what it said it has; the former primary has diverged and is rewound', async () => {
    const a = await primary();
    const b = await standby('b', a);
    await a.server.acknowledge({kind: 'alone'});
    await a.server.openGate(1);
    await b.server.follow(null);
    const {wal} = await sees(b, 'its end', (f) => f.wal !== null);
    expect(await b.server.facts()).toMatchObject({upstream: null, receiving: false, inRecovery: true});
    const alone = await a.commit();
    await world.until('a commit that b has not', async () => alone.acknowledged());
    await b.server.promote(2);
    await b.server.promote(2);
    const promoted = await b.server.facts();
    expect(promoted).toMatchObject({inRecovery: false, ran: 'primary', gate: 'closed', acknowledger: {kind: 'nobody'}});
    expect(reached(promoted.wal!, wal!)).toBe(true);
    await a.server.stop('fast');
    await a.server.restore(b.peer, 'rewind', 2);
    expect(await a.server.facts()).toMatchObject({data: 'present', ran: 'standby', restoredIn: 2, generation: 0, diverged: false, systemId: promoted.systemId});
    await a.server.start('standby', b.peer);
    await sees(a, 'receives from b', (f) => f.receiving && f.upstream === 'b');
  });

  test('a server that dies is down since then, and begins closed', async () => {
    const a = await primary();
    await a.server.acknowledge({kind: 'alone'});
    await a.server.openGate(1);
    let told = false;
    a.server.onChange(() => { told = true; });
    await a.kill();
    expect(await sees(a, 'it is down', (f) => f.process === 'stopped')).toMatchObject({downSinceMs: expect.any(Number), inRecovery: null, wal: null, gate: 'closed', acknowledger: {kind: 'nobody'}});
    await world.until('to be told', async () => told);
    await rejects(a.server.acknowledge({kind: 'alone'}), 'unavailable');
    await rejects(a.server.openGate(1), 'unavailable');
    await a.server.start('primary', null);
    expect(await sees(a, 'it runs', (f) => f.process === 'running')).toMatchObject({downSinceMs: null, gate: 'closed'});
  });

  test('a permit that runs out ends the server', async () => {
    const a = await primary();
    a.server.permitUntil(world.nowMs() + 3_600_000);
    expect((await a.server.facts()).process).toBe('running');
    a.server.permitUntil(world.nowMs() + 100);
    await sees(a, 'it is ended', (f) => f.process === 'stopped' && f.downSinceMs !== null);
  });
}
