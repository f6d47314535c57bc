/**
 * A real Postgres for one test file: started before its first test, stopped and removed after its last. `freshDatabase()` gives a test a
 * database of its own, cloned from the template; after each test every connection to it must be gone (a leaked pool fails the test).
 */
import {chmod, mkdtemp, rm} from 'node:fs/promises';
import {tmpdir} from 'node:os';
import path from 'node:path';
import pg from 'pg';
import {silentLog} from '../../lib/base/log';
import {startPostgres, type PostgresOptions, type RunningPostgres} from '../../lib/main/postgres';
import {until} from './wait';

export interface PostgresHarness {
  /** The URL of a new database, dropped after the test. */
  freshDatabase(): Promise<string>;
  server(): RunningPostgres;
  /** Ends the server as the signal does, and starts it again on the same data. */
  restart(signal: NodeJS.Signals): Promise<void>;
  stop(signal: NodeJS.Signals): Promise<void>;
  start(): Promise<void>;
}

/** Registers its hooks with jest; call it after the file's own afterEach, which closes what the leak check would find. `prepare` fills the template once, for instance by opening buckets. */
export function usePostgres(options: {prepare?(url: string): Promise<void>; settings?: Record<string, string>} = {}): PostgresHarness {
  let dir: string;
  let running: RunningPostgres;
  let made: string[] = [];
  let number = 0;
  // The tests do not pull the plug of the machine, so they need not wait for its disk.
  const start = async (): Promise<RunningPostgres> => startPostgres({dataDir: path.join(dir, 'data'), socketDir: path.join(dir, 'run'), log: silentLog(), settings: {fsync: 'off', ...options.settings}} satisfies PostgresOptions);
  const urlOf = (database: string): string => running.url.replace(/\/postgres$/, `/${database}`);
  const admin = async <T extends pg.QueryResultRow>(sql: string, values?: unknown[]): Promise<T[]> => {
    const client = new pg.Client({connectionString: running.url});
    await client.connect();
    try {
      return (await client.query<T>(sql, values)).rows;
    } finally {
      await client.end();
    }
  };

  beforeAll(async () => {
    dir = await mkdtemp(path.join(tmpdir(), 'cetus-pg-'));
    await chmod(dir, 0o755);
    running = await start();
    await admin('CREATE DATABASE cetus_template');
    await options.prepare?.(urlOf('cetus_template'));
  });
  afterAll(async () => {
    await running?.stop(5000);
    await rm(dir, {recursive: true, force: true});
  });
  afterEach(async () => {
    const databases = made;
    made = [];
    try {
      await until('connections to be closed', async () => {
        const left = await admin<{query: string}>(`SELECT query FROM pg_stat_activity WHERE datname = ANY($1) AND backend_type = 'client backend'`, [databases]);
        if (left.length) throw new Error(`${left.length} connections were left open; one of them last said: ${left[0]!.query}`);
        return true;
      });
    } finally {
      for (const name of databases) await admin(`DROP DATABASE ${name} WITH (FORCE)`);
    }
  });

  const harness: PostgresHarness = {
    async freshDatabase() {
      const name = `test_${(number += 1)}`;
      await admin(`CREATE DATABASE ${name} TEMPLATE cetus_template`);
      made.push(name);
      return urlOf(name);
    },
    server: () => running,
    async stop(signal) {
      process.kill(running.pid, signal);
      await new Promise<void>((resolve) => { running.onExit(resolve); });
    },
    async start() {
      running = await start();
    },
    async restart(signal) {
      await harness.stop(signal);
      await harness.start();
    },
  };
  return harness;
}
