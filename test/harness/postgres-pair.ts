/**
 * A primary and its streaming standby, real ones, and a discovery that says what the test wants: for moray's following of a primary, without ZooKeeper
 * or sitters. Made anew for each test.
 */
import {appendFile, chmod, cp, mkdtemp, rm, writeFile} from 'node:fs/promises';
import {execFile} from 'node:child_process';
import {tmpdir} from 'node:os';
import path from 'node:path';
import {promisify} from 'node:util';
import pg from 'pg';
import {silentLog} from '../../lib/base/log';
import {startPostgres, type RunningPostgres} from '../../lib/main/postgres';
import type {Discovery, Primary} from '../../lib/moray/primary';
import {until} from './wait';

const run = promisify(execFile);

export class Peer {
  running!: RunningPostgres;
  constructor(readonly name: string, readonly dir: string) {}

  get dataDir(): string {
    return path.join(this.dir, this.name, 'data');
  }

  async start(settings: Record<string, string> = {}): Promise<void> {
    this.running = await startPostgres({dataDir: this.dataDir, socketDir: path.join(this.dir, this.name), log: silentLog(), settings: {autovacuum: 'off', ...settings}});
  }

  async query<T extends pg.QueryResultRow>(sql: string, values: unknown[] = []): Promise<T[]> {
    const client = new pg.Client({connectionString: this.running.url, application_name: 'test'});
    client.on('error', () => undefined);
    await client.connect();
    try {
      return (await client.query<T>(sql, values)).rows;
    } finally {
      await client.end();
    }
  }

  /** Of new connections and of all that are there. */
  async set(setting: string, value: string): Promise<void> {
    await this.query(`ALTER SYSTEM SET ${setting} = '${value}'`);
    await this.query('SELECT pg_reload_conf()');
    await until(`${setting} = ${value}`, async () => (await this.query<{value: string}>('SELECT current_setting($1, true) AS value', [setting]))[0]!.value === value);
  }

  async clients(): Promise<{pid: number; wait_event: string | null; query: string; query_start: Date}[]> {
    return this.query(`SELECT pid, wait_event, query, query_start FROM pg_stat_activity WHERE application_name = 'cetus' AND backend_type = 'client backend'`);
  }

  async kill(): Promise<void> {
    const gone = new Promise<void>((resolve) => { this.running.onExit(resolve); });
    process.kill(this.running.pid, 'SIGKILL');
    await gone;
  }
}

export class Told implements Discovery {
  private readonly listeners = new Set<() => void>();
  constructor(public now: Primary) {}

  primary(): Primary {
    return this.now;
  }

  onChange(listener: () => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  tell(peer: Peer, generation: number): void {
    this.now = {url: peer.running.url, generation};
    for (const listener of this.listeners) listener();
  }
}

/** Registers its hooks with jest; call it after the file's own afterEach. */
export function usePair(): () => {a: Peer; b: Peer; discovery: Told} {
  let dir: string;
  let template: string;
  let a: Peer;
  let b: Peer;
  let discovery: Told;
  beforeAll(async () => {
    template = await mkdtemp(path.join(tmpdir(), 'cetus-pair-'));
    await chmod(template, 0o755);
    const first = new Peer('a', template);
    await first.start();
    await first.query('ALTER SYSTEM SET cetus.generation = 1');
    await first.running.stop();
  });
  afterAll(async () => rm(template, {recursive: true, force: true}));
  beforeEach(async () => {
    dir = await mkdtemp(path.join(tmpdir(), 'cetus-pair-'));
    await chmod(dir, 0o755);
    [a, b] = [new Peer('a', dir), new Peer('b', dir)];
    for (const peer of [a, b]) {
      await cp(path.join(template, 'a'), path.join(dir, peer.name), {recursive: true, preserveTimestamps: true, filter: (file) => !path.basename(file).startsWith('.s.PGSQL')});
      await run('chown', ['-R', '--reference', path.join(template, 'a', 'data'), path.join(dir, peer.name)]);
      await run('chmod', ['-R', 'go-rwx', path.join(dir, peer.name, 'data')]);
    }
    await a.start();
    await writeFile(path.join(b.dataDir, 'standby.signal'), '');
    await appendFile(path.join(b.dataDir, 'postgresql.auto.conf'), `primary_conninfo = 'host=${path.join(dir, 'a', 'postgres')} user=cetus application_name=b'\n`);
    await b.start();
    await until('b to stream', async () => (await a.query(`SELECT 1 FROM pg_stat_replication WHERE application_name = 'b' AND state = 'streaming'`)).length > 0);
    discovery = new Told({url: a.running.url, generation: 1});
  });
  afterEach(async () => {
    for (const peer of [a, b]) await peer?.running?.stop(200).catch(() => undefined);
    await rm(dir, {recursive: true, force: true});
  });
  return () => ({a, b, discovery});
}
