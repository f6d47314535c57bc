/** lib/manatee/postgres over real servers of the distribution: chains of two and three peers, without ZooKeeper or sitter. */
import type {TestPeer} from '../harness/postgres-peers';
import {usePeers} from '../harness/postgres-peers';

const world = usePeers();

/** A primary, alone and open. */
async function primary(id = 'a'): Promise<TestPeer> {
  const a = await world.peer(id);
  await a.server.initialise();
  await a.server.start('primary', null);
  return a;
}

async function standbyOf(from: TestPeer, id: string, upstream = from): Promise<TestPeer> {
  const b = await world.peer(id);
  await b.server.restore(from.peer, 'copy', 1);
  await b.server.start('standby', upstream.peer);
  await b.sees('receives', (f) => f.receiving);
  return b;
}

test('a start lets nothing through; acknowledge and openGate do', async () => {
  const a = await world.peer('a');
  expect(await a.facts()).toMatchObject({data: 'none', systemId: null, process: 'stopped', ran: 'never', wal: null, downSinceMs: null});
  await a.server.initialise();
  await a.server.start('primary', null);
  expect(await a.facts()).toMatchObject({data: 'present', process: 'running', ran: 'primary', inRecovery: false, gate: 'closed', acknowledger: {kind: 'nobody'}, generation: 0});
  await expect(a.query('SELECT 1')).rejects.toMatchObject({code: '28000'});
  await a.server.acknowledge({kind: 'alone'});
  await a.server.openGate(7);
  expect(await a.query(`SELECT current_setting('cetus.generation') AS g`)).toEqual([{g: '7'}]);
  await a.query('CREATE TABLE t AS SELECT 1 AS n');
  await a.server.stop('fast');
});

test('the sync takes over, and the former primary comes back by a rewind', async () => {
  const a = await primary();
  const b = await standbyOf(a, 'b');
  await a.server.acknowledge({kind: 'peer', id: 'b'});
  await a.server.openGate(1);
  await a.query('CREATE TABLE t AS SELECT 1 AS n');
  await b.server.follow(null);
  await b.server.promote();
  await b.server.acknowledge({kind: 'alone'});
  await b.server.openGate(2);
  await b.query('INSERT INTO t VALUES (2)');
  expect(await b.query('SELECT n FROM t ORDER BY n')).toEqual([{n: 1}, {n: 2}]);
  await a.server.stop('immediate');
  await a.server.restore(b.peer, 'rewind', 2);
  await a.server.start('standby', b.peer);
  await a.sees('receives', (f) => f.receiving);
});
