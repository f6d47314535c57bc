import {chmod, mkdtemp, readFile, rm, writeFile} from 'node:fs/promises';
import {tmpdir} from 'node:os';
import path from 'node:path';
import pg from 'pg';
import {silentLog} from '../../lib/base/log';
import {endPostgres, startPostgres, type PostgresOptions, type RunningPostgres} from '../../lib/main/postgres';
import {freePort} from '../harness/ports';

let dir: string;
let running: RunningPostgres[] = [];
beforeEach(async () => {
  dir = await mkdtemp(path.join(tmpdir(), 'cetus-main-pg-'));
  await chmod(dir, 0o755);
});
afterEach(async () => {
  for (const server of running) await server.stop(5000);
  running = [];
  await rm(dir, {recursive: true, force: true});
});

async function start(more: Partial<PostgresOptions> = {}): Promise<RunningPostgres> {
  const server = await startPostgres({dataDir: path.join(dir, 'data'), socketDir: path.join(dir, 'run'), log: silentLog(), ...more});
  running.push(server);
  return server;
}

async function query<T extends pg.QueryResultRow>(url: string, sql: string): Promise<T[]> {
  const client = new pg.Client({connectionString: url});
  await client.connect();
  try {
    return (await client.query<T>(sql)).rows;
  } finally {
    await client.end();
  }
}

test('a new database is durable, speaks over its socket only, and stops', async () => {
  const server = await start();
  expect(server.adopted).toBe(false);
  expect(await query(server.url, `SELECT current_setting('fsync') AS fsync, current_setting('synchronous_commit') AS sync, current_setting('listen_addresses') AS listen, current_setting('server_encoding') AS encoding`))
    .toEqual([{fsync: 'on', sync: 'on', listen: '', encoding: 'UTF8'}]);
  const ended = new Promise<void>((resolve) => { server.onExit(resolve); });
  await server.stop();
  await ended;
  expect(() => process.kill(server.pid, 0)).toThrow();
});

test('kill -9 of the server: the next start recovers what was committed', async () => {
  const first = await start();
  await query(first.url, 'CREATE TABLE t AS SELECT 42 AS n');
  const ended = new Promise<void>((resolve) => { first.onExit(resolve); });
  process.kill(first.pid, 'SIGKILL');
  await ended;
  const second = await start();
  expect(second.adopted).toBe(false);
  expect(await query(second.url, 'SELECT n FROM t')).toEqual([{n: 42}]);
});

test('a server that still runs is adopted; with other settings it is restarted', async () => {
  const first = await start();
  const second = await start();
  expect(second).toMatchObject({adopted: true, pid: first.pid});
  const third = await start({settings: {work_mem: '16MB'}});
  expect(third.adopted).toBe(false);
  expect(third.pid).not.toBe(first.pid);
  expect(await query(third.url, `SELECT current_setting('work_mem') AS m`)).toEqual([{m: '16MB'}]);
  const ended = new Promise<void>((resolve) => { second.onExit(resolve); });
  await ended;
});

test('one that nobody wants any more is ended; where none is, nothing happens', async () => {
  await endPostgres(path.join(dir, 'data'), silentLog());
  const first = await start();
  await query(first.url, 'CREATE TABLE t AS SELECT 42 AS n');
  const ended = new Promise<void>((resolve) => { first.onExit(resolve); });
  await endPostgres(path.join(dir, 'data'), silentLog());
  await ended;
  await endPostgres(path.join(dir, 'data'), silentLog());
  expect(await query((await start()).url, 'SELECT n FROM t')).toEqual([{n: 42}]);
});

test('a postmaster.pid whose number now belongs to another program is stale', async () => {
  const first = await start();
  process.kill(first.pid, 'SIGKILL');
  await new Promise<void>((resolve) => { first.onExit(resolve); });
  const file = path.join(dir, 'data', 'postmaster.pid');
  const lines = (await readFile(file, 'utf8')).split('\n');
  await writeFile(file, [String(process.pid), ...lines.slice(1)].join('\n'));
  const second = await start();
  expect(await query(second.url, 'SELECT 1 AS one')).toEqual([{one: 1}]);
});

test('a port is on loopback, with a password', async () => {
  const server = await start({port: await freePort()});
  expect(await query(server.tcpUrl!, 'SELECT 1 AS one')).toEqual([{one: 1}]);
  await expect(query(server.tcpUrl!.replace(/:[^:@]+@/, ':wrong@'), 'SELECT 1')).rejects.toThrow(/password/);
});

test('what cannot work is said before it is tried', async () => {
  await expect(start({socketDir: path.join(dir, 'x'.repeat(120))})).rejects.toMatchObject({kind: 'invalid'});
  if (process.getuid?.() === 0) {
    await chmod(dir, 0o700);
    await expect(start()).rejects.toThrow(/may not enter/);
  }
  await chmod(dir, 0o755);
  await expect(start({settings: {shared_buffers: 'plenty'}})).rejects.toThrow(/shared_buffers/);
});
