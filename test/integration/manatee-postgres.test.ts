/** lib/manatee/postgres over real servers of the distribution: one server, its rules and its gate. */
import {readFile} from 'node:fs/promises';
import path from 'node:path';
import pg from 'pg';
import {processesOf, signal} from '../../lib/manatee/postgres/processes';
import {createPostgresServer} from '../../lib/manatee/postgres/server';
import {PASSWORDS, usePeers, type TestPeer} from '../harness/postgres-peers';
import {until} from '../harness/wait';

const world = usePeers();

async function primary(id = 'a'): Promise<TestPeer> {
  const a = await world.peer(id, 'empty');
  await a.server.start('primary', null);
  return a;
}

async function served(): Promise<TestPeer> {
  const a = await primary();
  await a.server.acknowledge({kind: 'alone'});
  await a.server.openGate(1);
  return a;
}

const waitsForSync = async (peer: TestPeer): Promise<number> => (await peer.asSitter<{n: string}>(`SELECT count(*) AS n FROM pg_stat_activity WHERE wait_event = 'SyncRep'`)).map((r) => Number(r.n))[0]!;

test('a database is made once; a start lets nothing through; acknowledge and openGate do', async () => {
  const a = await world.peer('a');
  expect(await a.facts()).toMatchObject({data: 'none', systemId: null, process: 'stopped', ran: 'never', wal: null, downSinceMs: null, generation: 0});
  await expect(a.server.start('primary', null)).rejects.toMatchObject({kind: 'conflict'});
  await a.server.initialise();
  const made = await a.facts();
  expect(made).toMatchObject({data: 'present', process: 'stopped', ran: 'never', restoredIn: 0});
  await a.server.initialise();
  expect((await a.facts()).systemId).toBe(made.systemId);

  await a.server.start('primary', null);
  expect(await a.facts()).toMatchObject({process: 'running', ran: 'primary', inRecovery: false, gate: 'closed', acknowledger: {kind: 'nobody'}, standbys: [], upstream: null, receiving: false});
  await expect(a.client()).rejects.toMatchObject({code: '28000'});
  await a.server.acknowledge({kind: 'alone'});
  await a.server.openGate(7);
  expect(await a.facts()).toMatchObject({gate: 'open', generation: 7, acknowledger: {kind: 'alone'}});
  expect(await a.query(`SELECT current_setting('cetus.generation') AS g, usesuper AS super FROM pg_user WHERE usename = current_user`)).toEqual([{g: '7', super: false}]);
  // What moray makes for itself.
  await a.query('CREATE SCHEMA moray; CREATE SEQUENCE moray.etag; CREATE FUNCTION moray.one() RETURNS int LANGUAGE plpgsql AS $$ BEGIN RETURN 1; END $$');
  await expect(a.client({password: 'wrong'})).rejects.toMatchObject({code: '28P01'});
  await expect(a.client({database: 'postgres'})).rejects.toMatchObject({code: '28000'});
  await expect(a.client({user: 'cetus_sitter', database: 'postgres'})).rejects.toMatchObject({code: '28000'});

  await a.server.stop('fast');
  expect(await a.facts()).toMatchObject({process: 'stopped', downSinceMs: null, gate: 'closed', acknowledger: {kind: 'nobody'}, generation: 7, ran: 'primary', wal: null});
  await a.server.start('primary', null);
  await expect(a.client()).rejects.toMatchObject({code: '28000'});
  const passwords = Object.values(PASSWORDS).map((word) => word.replace(/['\\]/g, ''));
  for (const word of passwords) expect(await readFile(path.join(a.dir, 'data', 'postgresql.auto.conf'), 'utf8')).not.toContain(word);
});

test('what cannot work is said before it is tried', async () => {
  const a = await world.peer('a');
  for (const id of ['A', 'cetus_x', 'x y', '', 'x'.repeat(51)]) await expect(createPostgresServer({...a.options, self: {...a.peer, id}})).rejects.toMatchObject({kind: 'invalid'});
  await expect(createPostgresServer({...a.options, binDir: '/nowhere'})).rejects.toMatchObject({kind: 'unavailable', message: expect.stringContaining('/nowhere')});
  await expect(createPostgresServer({...a.options, socketDir: path.join(world.dir, 'x'.repeat(120))})).rejects.toMatchObject({kind: 'invalid'});
  const b = await world.peer('b', 'empty', {settings: {shared_buffers: 'plenty'}});
  await expect(b.server.start('primary', null)).rejects.toMatchObject({kind: 'unavailable', message: expect.stringContaining('shared_buffers')});
  expect(await b.facts()).toMatchObject({process: 'stopped', downSinceMs: expect.any(Number)});
});

test('while nobody acknowledges commits wait, in every way a session may ask; alone lets them go on', async () => {
  const a = await served();
  await a.query('CREATE TABLE t (n int)');
  await a.server.acknowledge({kind: 'nobody'});
  const clients = await Promise.all(Array.from({length: 4}, () => a.client()));
  let done = 0;
  const commits = clients.map((client, n) => client.query('INSERT INTO t VALUES ($1)', [n]).then(() => { done += 1; }));
  await until('four commits to wait', async () => (await waitsForSync(a)) === 4);
  expect(done).toBe(0);
  await expect(a.server.acknowledge({kind: 'peer', id: 'b'})).resolves.toBeUndefined();
  await expect(a.server.acknowledge({kind: 'peer', id: 'c'})).rejects.toMatchObject({kind: 'conflict'});
  await expect(a.server.acknowledge({kind: 'alone'})).rejects.toMatchObject({kind: 'conflict'});
  expect(done).toBe(0);
  await a.server.acknowledge({kind: 'nobody'});
  await a.server.acknowledge({kind: 'alone'});
  await Promise.all(commits);
  // And as soon as it has been said that they wait again, they do.
  for (let round = 0; round < 5; round += 1) {
    await a.server.acknowledge({kind: 'nobody'});
    let acknowledged = false;
    const client = await a.client();
    const commit = client.query('INSERT INTO t VALUES (9)').then(() => { acknowledged = true; });
    await until('the commit to wait', async () => acknowledged || (await waitsForSync(a)) === 1);
    expect(acknowledged).toBe(false);
    await a.server.acknowledge({kind: 'alone'});
    await commit;
    await client.end();
  }
  await Promise.all(clients.map((client) => client.end()));
});

test('the gate under fifty clients that hammer it: closed is closed, whatever they set, and what waited was not acknowledged', async () => {
  const a = await served();
  await a.query('CREATE TABLE t (n int)');
  const owner = await a.client();
  for (const sql of [`ALTER ROLE cetus SET default_transaction_read_only = off`, `ALTER DATABASE cetus SET default_transaction_read_only = off`, 'SET default_transaction_read_only = off', `SET authentication_timeout = '10min'`])
    await owner.query(sql).catch((err: unknown) => { if (!(err instanceof pg.DatabaseError)) throw err; });
  await owner.end();
  // These wait for a standby while they are sent away.
  await a.server.acknowledge({kind: 'nobody'});
  const waiting = await Promise.all(Array.from({length: 5}, () => a.client()));
  const outcomes = waiting.map((client, n) => client.query('INSERT INTO t VALUES ($1)', [n]).then(() => 'acknowledged', (err: Error) => err.message));
  await until('five commits to wait', async () => (await waitsForSync(a)) === 5);

  let hammering = true;
  /** Counts the times that it was closed; 0 while it is open, or about to be. */
  let closed = 0;
  let inWhileClosed = 0;
  let served_ = 0;
  const hammer = async (): Promise<void> => {
    while (hammering) {
      const before = closed;
      const client = await a.client().catch(() => undefined);
      if (!client) continue;
      if (before !== 0 && before === closed) inWhileClosed += 1;
      await client.query('SET default_transaction_read_only = off').then(() => client.query('SELECT 1')).then(() => { served_ += 1; }, () => undefined);
      await client.end().catch(() => undefined);
    }
  };
  const hammers = Array.from({length: 50}, hammer);
  try {
    for (let generation = 2; generation <= 4; generation += 1) {
      const before = served_;
      await until('clients to be served', () => served_ > before + 20);
      await a.server.closeGate();
      closed = generation;
      expect(await a.facts()).toMatchObject({process: 'running', gate: 'closed'});
      const clients = await a.asSitter<{n: string}>(`SELECT count(*) AS n FROM pg_stat_activity WHERE backend_type = 'client backend' AND usename IS DISTINCT FROM 'cetus_sitter'`);
      expect(clients).toEqual([{n: '0'}]);
      const socket = new pg.Client({host: a.options.socketDir, port: a.peer.port, user: 'cetus', database: 'cetus', password: PASSWORDS.client});
      await expect(socket.connect()).rejects.toMatchObject({code: '28000'});
      closed = 0;
      await a.server.openGate(generation);
    }
  } finally {
    // Else they would go on for ever where something of this failed.
    hammering = false;
    await Promise.all(hammers);
  }
  expect(inWhileClosed).toBe(0);
  expect(await Promise.all(outcomes)).toEqual(Array(5).fill(expect.stringMatching(/terminat/)));
  expect(await a.query(`SELECT current_setting('cetus.generation') AS g`)).toEqual([{g: '4'}]);
});

test('a gate that cannot be proven to be closed ends the server', async () => {
  const a = await served();
  const client = await a.client();
  const {rows: [{pid}]} = await client.query<{pid: number}>('SELECT pg_backend_pid() AS pid');
  // A client that hears no signal.
  signal(pid, 'SIGSTOP');
  await a.server.closeGate();
  expect(await a.facts()).toMatchObject({process: 'stopped', gate: 'closed', downSinceMs: expect.any(Number)});
  expect(processesOf(path.join(a.dir, 'data'))).toEqual([]);
  await a.server.start('primary', null);
  expect(await a.facts()).toMatchObject({process: 'running', gate: 'closed', downSinceMs: null});
});

test('kill -9 of the postmaster is noticed, its backends go with it, and what was acknowledged is there after the next start', async () => {
  const a = await served();
  await a.query('CREATE TABLE t AS SELECT 42 AS n');
  const told = new Promise<void>((resolve) => { a.server.onChange(resolve); });
  const busy = await a.client();
  const lost = busy.query('SELECT pg_sleep(600)').then(() => 'ended', () => 'lost');
  signal(a.postmaster(), 'SIGKILL');
  await told;
  expect(await a.facts()).toMatchObject({process: 'stopped', downSinceMs: expect.any(Number), gate: 'closed', acknowledger: {kind: 'nobody'}, wal: null});
  expect(await lost).toBe('lost');
  await a.server.start('primary', null);
  expect(await a.asSitter(`SELECT 1 AS one`)).toEqual([{one: 1}]);
  await a.server.acknowledge({kind: 'alone'});
  await a.server.openGate(2);
  expect(await a.query('SELECT n FROM t')).toEqual([{n: 42}]);
});

test('a server that is stopped is hung, which facts say, and can be ended', async () => {
  const a = await served();
  expect(await a.facts()).toMatchObject({process: 'running'});
  signal(a.postmaster(), 'SIGSTOP');
  expect(await a.sees('it is hung', (f) => f.process === 'hung')).toMatchObject({downSinceMs: expect.any(Number), inRecovery: null, gate: 'open'});
  await a.server.stop('immediate');
  expect(await a.facts()).toMatchObject({process: 'stopped', downSinceMs: null});
});
