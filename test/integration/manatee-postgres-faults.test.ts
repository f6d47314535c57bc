/** lib/manatee/postgres where things end badly: sitters that are killed or stand still, watchdogs that are killed, disks that are full. */
import {execFileSync, spawn, type ChildProcess} from 'node:child_process';
import {closeSync, mkdirSync, openSync, readFileSync, rmSync, statfsSync, writeSync} from 'node:fs';
import path from 'node:path';
import {createInterface} from 'node:readline';
import {monotonic} from '../../lib/manatee/monotonic';
import {processesOf, signal} from '../../lib/manatee/postgres/processes';
import {usePeers, type TestPeer} from '../harness/postgres-peers';
import {until} from '../harness/wait';

const world = usePeers();

interface Sitter { child: ChildProcess; line(): Promise<string> }

/** A process of its own that keeps the peer's server. */
async function sitterOf(peer: TestPeer): Promise<Sitter> {
  const {clock: _clock, log: _log, ...options} = peer.options;
  const child = spawn(process.execPath, [path.join(__dirname, '../harness/sitter-driver.cjs'), JSON.stringify(options)], {stdio: ['pipe', 'pipe', 'inherit']});
  world.after(() => child.kill('SIGKILL'));
  const lines = createInterface({input: child.stdout!})[Symbol.asyncIterator]();
  const line = async (): Promise<string> => String((await lines.next()).value);
  expect(await line()).toBe('up');
  return {child, line};
}

const bashes = new Set(['bash']);
/** Watchdogs of this peer: by what they were told to watch. */
function watchdogsOf(peer: TestPeer): number[] {
  return processesOf('/', bashes).map((p) => p.pid).filter((pid) => {
    try {
      return readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0').slice(-3).join(' ').trim() === `cetus-watchdog ${path.join(peer.dir, 'data')}`;
    } catch {
      return false;
    }
  });
}
const nothingLeft = (peer: TestPeer): Promise<unknown> => until('no process of the server to be left', () => processesOf(path.join(peer.dir, 'data')).length === 0);

test('kill -9 of the sitter ends its server with all clients, and then its watchdog; the next one finds what was committed', async () => {
  const a = await world.peer('a', 'empty');
  const sitter = await sitterOf(a);
  await a.query('CREATE TABLE t AS SELECT 42 AS n');
  const client = await a.client();
  const lost = client.query('SELECT pg_sleep(600)').then(() => 'ended', () => 'lost');
  const stuck = await a.client();
  const {rows: [{pid}]} = await stuck.query<{pid: number}>('SELECT pg_backend_pid() AS pid');
  // One that no signal reaches but the last.
  signal(pid, 'SIGSTOP');
  sitter.child.kill('SIGKILL');
  await nothingLeft(a);
  expect(await lost).toBe('lost');
  await until('the watchdog to go', () => watchdogsOf(a).length === 0);
  await a.server.start('primary', null);
  await a.server.acknowledge({kind: 'alone'});
  await a.server.openGate(2);
  expect(await a.query('SELECT n FROM t')).toEqual([{n: 42}]);
});

test('a sitter that stands still longer than its server was permitted loses it, and not before', async () => {
  const a = await world.peer('a', 'empty');
  const sitter = await sitterOf(a);
  sitter.child.stdin!.write('3600000\n');
  expect(await sitter.line()).toBe('permitted');
  sitter.child.stdin!.write('1500\n');
  expect(await sitter.line()).toBe('permitted');
  const permitted = monotonic.nowMs();
  sitter.child.kill('SIGSTOP');
  expect(await a.query('SELECT 1 AS one')).toEqual([{one: 1}]);
  await nothingLeft(a);
  expect(monotonic.nowMs() - permitted).toBeGreaterThan(1400);
  sitter.child.kill('SIGCONT');
  // It fires once: what the sitter starts when it wakes is not ended by an old order.
  sitter.child.kill('SIGKILL');
});

test('permits move on; one that has passed ends the server, and the next server has none', async () => {
  const a = await world.peer('a', 'empty');
  await a.server.start('primary', null);
  for (let n = 0; n < 20; n += 1) {
    a.server.permitUntil(monotonic.nowMs() + 5000);
    await monotonic.sleep(20);
  }
  a.server.permitUntil(Infinity);
  expect((await a.facts()).process).toBe('running');
  a.server.permitUntil(monotonic.nowMs() - 1);
  await a.sees('it is ended', (f) => f.process === 'stopped' && f.downSinceMs !== null);
  await a.server.start('primary', null);
  // A second of looking: an order that came back would have fired at once.
  for (let n = 0; n < 10; n += 1) {
    expect((await a.facts()).process).toBe('running');
    await monotonic.sleep(100);
  }
});

test('a watchdog that is killed is replaced, and its successor knows the order', async () => {
  const a = await world.peer('a', 'empty');
  await a.server.start('primary', null);
  const [first] = watchdogsOf(a);
  a.server.permitUntil(monotonic.nowMs() + 3_600_000);
  signal(first!, 'SIGKILL');
  const second = await until('another', () => watchdogsOf(a).find((pid) => pid !== first));
  expect((await a.facts()).process).toBe('running');
  expect(Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${second}/status`, 'utf8'))![1])).toBeLessThan(8 << 10);
  a.server.permitUntil(monotonic.nowMs());
  await a.sees('it is ended', (f) => f.process === 'stopped');
  await a.server.close();
  await until('the watchdog to go', () => watchdogsOf(a).length === 0);
});

test('a server that an earlier sitter has left without a watchdog is ended by the next sitter, orphans without a postmaster too', async () => {
  const a = await world.peer('a', 'empty');
  for (const orphans of [false, true]) {
    const sitter = await sitterOf(a);
    const client = await a.client();
    void client.query('SELECT pg_sleep(600)').catch(() => undefined);
    const sleeper = (await until('it to sleep', async () => (await a.asSitter<{pid: number}>(`SELECT pid FROM pg_stat_activity WHERE wait_event = 'PgSleep'`))[0])).pid;
    signal(sleeper, 'SIGSTOP');
    for (const pid of watchdogsOf(a)) signal(pid, 'SIGSTOP');
    const dogs = watchdogsOf(a);
    if (orphans) signal(a.postmaster(), 'SIGKILL');
    sitter.child.kill('SIGKILL');
    await new Promise((resolve) => { sitter.child.once('close', resolve); });
    expect(processesOf(path.join(a.dir, 'data')).map((p) => p.pid)).toContain(sleeper);
    await a.reopen();
    expect(processesOf(path.join(a.dir, 'data'))).toEqual([]);
    expect(await a.facts()).toMatchObject({process: 'stopped', gate: 'closed', downSinceMs: null, generation: 1});
    for (const pid of dogs) signal(pid, 'SIGKILL');
  }
});

describe('a full disk', () => {
  const settings = {wal_keep_size: '0', max_wal_size: '32MB', min_wal_size: '32MB'};
  let ballast: string;

  async function small(): Promise<TestPeer> {
    const dir = path.join(world.dir, 'disk');
    mkdirSync(dir);
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=140m,mode=755', 'tmpfs', dir]);
    world.after(() => execFileSync('umount', ['-l', dir]));
    ballast = path.join(dir, 'ballast');
    const a = await world.peer('a', 'empty', {dataDir: path.join(dir, 'a'), settings});
    await a.server.start('primary', null);
    await a.server.acknowledge({kind: 'alone'});
    await a.server.openGate(1);
    return a;
  }
  function fill(): void {
    const fd = openSync(ballast, 'a');
    const page = Buffer.alloc(4096);
    const {dir} = path.parse(ballast);
    try {
      while (statfsSync(dir).bavail > 0) writeSync(fd, page);
    } catch (err) {
      if ((err as NodeJS.ErrnoException).code !== 'ENOSPC') throw err; // somebody was faster with the last page
    } finally {
      closeSync(fd);
    }
  }

  test('ends the server or refuses; a start says why; with room again all that was acknowledged is there', async () => {
    const a = await small();
    await a.query('CREATE TABLE t (n int, filling text)');
    const client = await a.client();
    let acknowledged = 0;
    fill();
    let why = '';
    for (let n = 1; why === ''; n += 1)
      await client.query(`INSERT INTO t SELECT $1::int, repeat(md5(random()::text), 200) FROM generate_series(1, 20)`, [n]).then(() => { acknowledged = n; }, (err: Error) => { why = err.message; });
    await client.end().catch(() => undefined);
    expect(why).toMatch(/No space left|terminat|connection/i);
    await a.server.closeGate();
    await a.server.stop('immediate');
    // What it has tidied up.
    fill();
    await expect(a.server.start('primary', null)).rejects.toMatchObject({kind: 'unavailable', message: expect.stringMatching(/no space left|ENOSPC/i)});
    expect(await a.facts()).toMatchObject({process: 'stopped', data: 'present', downSinceMs: expect.any(Number)});
    rmSync(ballast);
    await a.server.start('primary', null);
    const rows = await a.asSitterOf<{n: number; count: string}>('cetus', 'SELECT n, count(*) FROM t GROUP BY n ORDER BY n');
    expect(rows.filter((row) => row.n <= acknowledged)).toEqual(Array.from({length: acknowledged}, (_, i) => ({n: i + 1, count: '20'})));
  });

  test('no gate stays open because its closing cannot be written', async () => {
    const a = await small();
    const client = await a.client();
    fill();
    await a.server.closeGate();
    expect(await a.facts()).toMatchObject({gate: 'closed'});
    await expect(client.query('SELECT 1')).rejects.toThrow();
    await expect(a.client()).rejects.toThrow();
    rmSync(ballast);
  });

  test('a copy that finds no room beside the data takes their place', async () => {
    const a = await world.peer('a', 'empty');
    await a.server.start('primary', null);
    await a.server.acknowledge({kind: 'alone'});
    const dir = path.join(world.dir, 'disk');
    mkdirSync(dir);
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=150m,mode=755', 'tmpfs', dir]);
    world.after(() => execFileSync('umount', ['-l', dir]));
    ballast = path.join(dir, 'ballast');
    const b = await world.peer('b', 'none', {dataDir: path.join(dir, 'b'), settings});
    await b.server.restore(a.peer, 'copy', 1);
    await b.server.restore(a.peer, 'copy', 2);
    expect(await b.facts()).toMatchObject({data: 'present', restoredIn: 2});
    // Not even the old data's room is enough.
    await b.server.stop('fast');
    fill();
    await expect(b.server.restore(a.peer, 'copy', 3)).rejects.toMatchObject({kind: 'unavailable'});
    rmSync(ballast);
    await b.server.restore(a.peer, 'copy', 4);
    await b.server.start('standby', a.peer);
    await b.sees('receives', (f) => f.receiving && f.restoredIn === 4);
  });
});
