/** lib/manatee/postgres over real servers: chains of two and three peers, without ZooKeeper or sitter. What is asked of each is what was acknowledged. */
import {rm} from 'node:fs/promises';
import path from 'node:path';
import {reached} from '../../lib/manatee/lsn';
import {processesOf, signal} from '../../lib/manatee/postgres/processes';
import {usePeers, type TestPeer} from '../harness/postgres-peers';
import {until} from '../harness/wait';

const world = usePeers();

async function primary(): Promise<TestPeer> {
  const a = await world.peer('a', 'empty');
  await a.server.start('primary', null);
  return a;
}

async function standby(id: string, of: TestPeer, upstream = of): Promise<TestPeer> {
  const b = await world.peer(id);
  await b.server.restore(of.peer, 'copy', 1);
  await b.server.start('standby', upstream.peer);
  await b.sees('receives', (f) => f.receiving);
  return b;
}

/** A chain, served: a -> b [-> c]. */
async function chain(length: 2 | 3): Promise<TestPeer[]> {
  const a = await primary();
  const b = await standby('b', a);
  await a.server.acknowledge({kind: 'peer', id: 'b'});
  await a.sees('b streams', (f) => f.standbys.some((s) => s.id === 'b' && s.state === 'streaming'));
  await a.server.openGate(1);
  await a.query('CREATE TABLE t (n int PRIMARY KEY)');
  return length === 2 ? [a, b] : [a, b, await standby('c', a, b)];
}

/** The sync's part of a takeover. */
async function takeOver(peer: TestPeer, generation: number, by: Parameters<TestPeer['server']['acknowledge']>[0]): Promise<void> {
  await peer.server.follow(null);
  const end = (await peer.sees('its end', (f) => f.wal !== null)).wal!;
  await peer.server.promote(generation);
  const facts = await peer.facts();
  expect(facts).toMatchObject({inRecovery: false, ran: 'primary', acknowledger: {kind: 'nobody'}, gate: 'closed'});
  expect(reached(facts.wal!, end)).toBe(true);
  await peer.server.acknowledge(by);
  await peer.server.openGate(generation);
}

const receiverOf = (peer: TestPeer): Promise<number> => until(`${peer.peer.id}'s receiver`, async () => (await peer.asSitter<{pid: number}>(`SELECT pid FROM pg_stat_activity WHERE backend_type = 'walreceiver'`))[0]?.pid);
const numbers = async (peer: TestPeer): Promise<Set<number>> => new Set((await peer.asSitterOf<{n: number}>('cetus', 'SELECT n FROM t')).map((r) => r.n));

/** Clients that insert numbers until they are told to end, and remember which were acknowledged. */
function writers(count: number, open: () => ReturnType<TestPeer['client']>): {acknowledged: number[]; end(): Promise<void>; next(): Promise<void>} {
  const acknowledged: number[] = [];
  let going = true;
  let n = 0;
  const write = async (): Promise<void> => {
    while (going) {
      const client = await open().catch(() => undefined);
      if (!client) continue;
      try {
        while (going) {
          const mine = (n += 1);
          await client.query('INSERT INTO t VALUES ($1)', [mine]);
          acknowledged.push(mine);
        }
      } catch {
        // The connection broke: whether that one is there is unknown.
      }
      await client.end().catch(() => undefined);
    }
  };
  const all = Array.from({length: count}, write);
  return {
    acknowledged,
    async end() {
      going = false;
      await Promise.all(all);
    },
    async next() {
      const before = acknowledged.length;
      await until('more to be acknowledged', () => acknowledged.length > before + 20);
    },
  };
}

test('a commit waits while the sync does not answer, and no longer', async () => {
  const [a, b] = await chain(2) as [TestPeer, TestPeer];
  const receiver = await receiverOf(b);
  signal(receiver, 'SIGSTOP');
  const client = await a.client();
  let acknowledged = false;
  const commit = client.query('INSERT INTO t VALUES (1)').then(() => { acknowledged = true; });
  await until('the commit to wait', async () => (await a.asSitter(`SELECT FROM pg_stat_activity WHERE wait_event = 'SyncRep'`)).length === 1);
  expect(acknowledged).toBe(false);
  signal(receiver, 'SIGCONT');
  await commit;
  await client.end();
  // A copy that is being made streams too, and acknowledges nothing.
  await b.server.stop('immediate');
  const c = await world.peer('c');
  const other = await a.client();
  let alone = false;
  const lonely = other.query('INSERT INTO t VALUES (2)').then(() => { alone = true; }, () => undefined);
  await c.server.restore(a.peer, 'copy', 1);
  expect(alone).toBe(false);
  await b.server.start('standby', a.peer);
  await lonely;
  expect(alone).toBe(true);
  await other.end();
});

test('the rule goes from peer to peer by way of nobody under writers: each change knows all that was acknowledged before it', async () => {
  const [a, b, c] = await chain(3) as [TestPeer, TestPeer, TestPeer];
  await c.server.follow(a.peer);
  await a.sees('c streams', (f) => f.standbys.some((s) => s.id === 'c' && s.state === 'streaming'));
  const w = writers(4, () => a.client());
  for (let round = 0; round < 6; round += 1) {
    const next = round % 2 === 0 ? c : b;
    await w.next();
    const since = w.acknowledged.length;
    const former = round % 2 === 0 ? b : c;
    // A walsender that is stuck keeps nobody from changing the rule, and does not acknowledge by the old one when it wakes.
    const [stuck] = round === 2 ? await a.asSitter<{pid: number}>(`SELECT pid FROM pg_stat_replication WHERE application_name = '${former.peer.id}'`) : [];
    if (stuck) {
      signal(stuck.pid, 'SIGSTOP');
      setTimeout(() => signal(stuck.pid, 'SIGCONT'), 2000);
    }
    await a.server.acknowledge({kind: 'nobody'});
    const settled = w.acknowledged.length;
    const wal = (await a.facts()).wal!;
    // Everything that anybody was told lies at or before this place; whoever has it has all of that.
    await next.sees('the place', (f) => f.wal !== null && reached(f.wal, wal));
    expect(settled).toBeGreaterThanOrEqual(since);
    const told = w.acknowledged.slice();
    await until('the place to be replayed', async () => {
      const has = await numbers(next);
      return told.every((n) => has.has(n));
    });
    expect(w.acknowledged.length - told.length).toBeLessThanOrEqual(0);
    await a.server.acknowledge({kind: 'peer', id: next.peer.id});
  }
  await w.next();
  await w.end();
});

test('a sync takes over under load from a primary that was killed: nothing that was acknowledged is missing; the async follows it; the deposed is rewound', async () => {
  const [a, b, c] = await chain(3) as [TestPeer, TestPeer, TestPeer];
  let current = a;
  const w = writers(6, () => current.client());
  await w.next();
  signal(a.postmaster(), 'SIGKILL');
  current = b;
  await takeOver(b, 2, {kind: 'peer', id: 'c'});
  await w.next();
  expect(await c.facts()).toMatchObject({receiving: true, upstream: 'b', diverged: false});

  await a.sees('it is down', (f) => f.process === 'stopped');
  await a.server.restore(b.peer, 'rewind', 2);
  expect(await a.facts()).toMatchObject({data: 'present', ran: 'standby', restoredIn: 2, generation: 0});
  await a.server.start('standby', c.peer);
  await a.sees('receives from c', (f) => f.receiving);
  await w.next();
  await w.end();
  const told = w.acknowledged;
  for (const peer of [b, c, a]) await until(`${peer.peer.id} to have all`, async () => {
    const has = await numbers(peer);
    const missing = told.filter((n) => !has.has(n));
    if (missing.length) throw new Error(`${missing.length} missing, first ${missing[0]}`);
    return true;
  });
});

test('a sync that took over and died unheard of, and the next one: two timelines, of which one is rewound', async () => {
  const [a, b, c] = await chain(3) as [TestPeer, TestPeer, TestPeer];
  await a.query('INSERT INTO t VALUES (1)');
  await c.sees('all of it', (f) => f.receiving);
  await until('c to have it', async () => (await numbers(c)).has(1));
  await c.server.follow(null);
  signal(a.postmaster(), 'SIGKILL');
  await takeOver(b, 2, {kind: 'nobody'});
  await b.asSitterOf('cetus', `SET synchronous_commit = local; INSERT INTO t SELECT generate_series(100, 5000)`);
  signal(b.postmaster(), 'SIGKILL');
  await b.sees('it is down', (f) => f.process === 'stopped');
  await takeOver(c, 3, {kind: 'alone'});
  await c.query('INSERT INTO t SELECT generate_series(2, 50)');
  const all = await numbers(c);
  expect(all.size).toBe(50);
  for (const deposed of [b, a]) {
    expect(await deposed.facts()).toMatchObject({ran: 'primary'});
    await deposed.server.restore(c.peer, 'rewind', 3);
    await deposed.server.start('standby', c.peer);
    await deposed.sees('receives', (f) => f.receiving && !f.diverged);
    await until('it to have all', async () => (await numbers(deposed)).size >= 50);
    expect(await numbers(deposed)).toEqual(all);
  }
  // And one that never saw the timeline in between follows through all of them.
  await c.server.acknowledge({kind: 'nobody'});
  const d = await standby('d', c, a);
  await takeOver(a, 4, {kind: 'nobody'});
  await d.sees('it follows', (f) => f.receiving && f.upstream === 'a');
});

test('after a restart a standby knows its end only when it has gone through all that it has flushed', async () => {
  const [a, b] = await chain(2) as [TestPeer, TestPeer];
  const client = await a.client();
  for (let n = 1; n <= 5; n += 1) await client.query('INSERT INTO t SELECT generate_series($1::int, $2::int)', [n * 10_000, n * 10_000 + 9_999]);
  await client.end();
  const told = (await a.facts()).wal!;
  await a.server.stop('immediate');
  signal(b.postmaster(), 'SIGKILL');
  await b.sees('it is down', (f) => f.process === 'stopped');
  await b.server.start('standby', null);
  let wal: string | null = null;
  while ((wal = (await b.facts()).wal) === null);
  expect(reached(wal, told)).toBe(true);
  expect(await b.facts()).toMatchObject({upstream: null, receiving: false});
});

test('follow(null) means what it says, also while the upstream comes and goes', async () => {
  const [a, b] = await chain(2) as [TestPeer, TestPeer];
  await expect(b.server.promote(2)).rejects.toMatchObject({kind: 'conflict'});
  for (let round = 0; round < 5; round += 1) {
    // In the midst of its attempts to come back, every 100 ms.
    const ended = await receiverOf(b);
    signal(ended, 'SIGTERM');
    await b.server.follow(null);
    expect(await b.asSitter(`SELECT FROM pg_stat_activity WHERE backend_type = 'walreceiver'`)).toEqual([]);
    const {wal} = await b.facts();
    await a.asSitter('SELECT pg_switch_wal()');
    await new Promise((resolve) => setTimeout(resolve, 300));
    expect(await b.facts()).toMatchObject({wal, receiving: false, upstream: null});
    await b.server.follow(a.peer);
    await b.sees('receives again', (f) => f.receiving);
  }
});

test('a primary that went on alone has diverged: seen when it cannot stream, cured by a rewind; a rewind that fails leaves broken data, which a copy cures', async () => {
  const [a, b] = await chain(2) as [TestPeer, TestPeer];
  await takeOver(b, 2, {kind: 'alone'});
  await b.query('INSERT INTO t VALUES (1)');
  // Alone, with what nobody else has.
  await a.server.closeGate();
  await a.server.acknowledge({kind: 'nobody'});
  await a.server.acknowledge({kind: 'alone'});
  await a.asSitterOf('cetus', 'INSERT INTO t SELECT generate_series(100, 2000)');
  await a.server.stop('fast');
  await a.server.start('standby', b.peer);
  await a.sees('it has diverged', (f) => f.diverged);
  await expect(a.server.restore(b.peer, 'rewind', 2)).rejects.toMatchObject({kind: 'conflict'});
  await a.server.stop('fast');
  expect(await a.facts()).toMatchObject({diverged: true});
  const nowhere = {...b.peer, id: 'x', port: 1};
  await expect(a.server.restore(nowhere, 'rewind', 2)).rejects.toMatchObject({kind: 'unavailable'});
  expect(await a.facts()).toMatchObject({data: 'present', restoredIn: 0});
  await a.server.restore(b.peer, 'rewind', 2);
  await a.server.start('standby', b.peer);
  await a.sees('receives', (f) => f.receiving && !f.diverged);
  expect(await numbers(a)).toEqual(new Set([1]));

  // The same again, and pg_rewind lacks the WAL that it needs.
  await a.server.follow(null);
  await a.server.promote(3);
  await a.asSitter(`SELECT pg_logical_emit_message(false, 'x', 'x')`);
  await a.server.stop('fast');
  await rm(path.join(a.dir, 'data', 'pg_wal'), {recursive: true});
  await expect(a.server.restore(b.peer, 'rewind', 3)).rejects.toMatchObject({kind: 'unavailable', message: expect.stringContaining('pg_rewind')});
  expect(await a.facts()).toMatchObject({data: 'broken'});
  await expect(a.server.start('standby', b.peer)).rejects.toMatchObject({kind: 'conflict'});
  await a.server.close();
  await a.reopen();
  expect(await a.facts()).toMatchObject({data: 'broken'});
  await a.server.restore(b.peer, 'copy', 3);
  expect(await a.facts()).toMatchObject({data: 'present', restoredIn: 3, ran: 'standby'});
  await a.server.start('standby', b.peer);
  await a.sees('receives', (f) => f.receiving);
  expect(await numbers(a)).toEqual(new Set([1]));
});

test('who was away for longer than the upstream keeps WAL has to be copied, and is told so', async () => {
  const a = await world.peer('a', 'empty', {settings: {wal_keep_size: '8MB', max_wal_size: '8MB', min_wal_size: '8MB'}});
  await a.server.start('primary', null);
  await a.server.acknowledge({kind: 'alone'});
  const b = await standby('b', a);
  await b.server.stop('fast');
  for (let n = 0; n < 6; n += 1) await a.asSitter('SELECT pg_switch_wal()').then(() => a.asSitter('CHECKPOINT'));
  await b.server.start('standby', a.peer);
  await b.sees('it cannot follow', (f) => f.diverged);
});

test('a copy that was broken off leaves the data as they were, and none of its processes outlives the next sitter', async () => {
  const [a, b] = await chain(2) as [TestPeer, TestPeer];
  await b.server.stop('fast');
  const before = await b.facts();
  const copying = b.server.restore(a.peer, 'copy', 2).then(() => 'done', (err: Error) => err.message);
  const names = new Set(['pg_basebackup']);
  await until('pg_basebackup', () => processesOf(b.dir, names).length > 0);
  for (const {pid} of processesOf(b.dir, names)) signal(pid, 'SIGSTOP');
  // What a sitter does that begins while the former one's copy is still at work.
  await b.reopen();
  expect(processesOf(b.dir, names)).toEqual([]);
  expect(await copying).toMatch(/pg_basebackup failed/);
  expect(await b.facts()).toMatchObject({data: 'present', systemId: before.systemId, restoredIn: 1});
  await b.server.start('standby', a.peer);
  await b.sees('receives', (f) => f.receiving);
});
