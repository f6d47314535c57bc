/**
 * Real Postgres peers for one test: each a directory, a port and a PostgresServer of lib/manatee, without ZooKeeper or sitter. Everything is gone after
 * the test, processes included, and a process that is not is an error.
 */
import {execFileSync} from 'node:child_process';
import {chmod, mkdir, mkdtemp, rm, writeFile} from 'node:fs/promises';
import {existsSync} from 'node:fs';
import {tmpdir} from 'node:os';
import path from 'node:path';
import pg from 'pg';
import {createLog, silentLog} from '../../lib/base/log';
import {monotonic} from '../../lib/manatee/monotonic';
import {endAll, processesOf} from '../../lib/manatee/postgres/processes';
import {createPostgresServer, type PostgresServerOptions} from '../../lib/manatee/postgres/server';
import type {PostgresServer, ServerFacts} from '../../lib/manatee/server';
import type {Peer} from '../../lib/manatee/state';
import {freePort} from './ports';
import {until} from './wait';

export const PASSWORDS = {client: `cl'ie:nt\\`, replication: `rep'li:ca\\tion`};

export interface TestPeer {
  peer: Peer;
  /** Its directory; Postgres' own is `data` in it. */
  dir: string;
  options: PostgresServerOptions;
  server: PostgresServer;
  facts(): Promise<ServerFacts>;
  /** Waits for facts. */
  sees(what: string, condition: (facts: ServerFacts) => boolean): Promise<ServerFacts>;
  /** As a client over TCP. */
  client(config?: pg.ClientConfig): Promise<pg.Client>;
  query<R extends pg.QueryResultRow>(sql: string, values?: unknown[]): Promise<R[]>;
  /** As the sitter does, over the socket. */
  asSitter<R extends pg.QueryResultRow>(sql: string): Promise<R[]>;
  asSitterOf<R extends pg.QueryResultRow>(database: string, sql: string): Promise<R[]>;
  postmaster(): number;
  /** The server object anew, as after a restart of the sitter. */
  reopen(): Promise<void>;
}

export interface PeerWorld {
  dir: string;
  /** `data`: whether it has an empty database already; the same for all of a file's tests, because making one takes its time. */
  peer(id: string, data?: 'none' | 'empty', more?: Partial<PostgresServerOptions>): Promise<TestPeer>;
  /** After the test, in the reverse order of their coming. */
  after(cleanUp: () => Promise<unknown> | unknown): void;
}

export function usePeers(): PeerWorld {
  const world = {dir: ''} as PeerWorld;
  let cleanUps: (() => Promise<unknown> | unknown)[] = [];
  world.after = (cleanUp) => { cleanUps.push(cleanUp); };

  // The tests pull no plug: memory will do, and does not wait for everybody's disk.
  const base = existsSync('/dev/shm') ? '/dev/shm' : tmpdir();
  const make = async (): Promise<string> => {
    const dir = await mkdtemp(path.join(base, 'cetus-peers-'));
    await chmod(dir, 0o755);
    return dir;
  };
  let template: string | undefined;
  afterAll(async () => {
    if (template) await rm(template, {recursive: true, force: true});
  });
  beforeEach(async () => {
    world.dir = await make();
    for (const [name, word] of Object.entries(PASSWORDS)) await writeFile(path.join(world.dir, name), `${word}\n`, {mode: 0o600});
  });
  afterEach(async () => {
    const failures: unknown[] = [];
    for (const cleanUp of cleanUps.reverse()) await Promise.resolve().then(cleanUp).catch((err: unknown) => failures.push(err));
    cleanUps = [];
    await rm(world.dir, {recursive: true, force: true});
    if (failures.length) throw failures[0];
  });

  world.peer = async (id, data = 'none', more = {}) => {
    const port = await freePort();
    const dir = more.dataDir ?? path.join(world.dir, id);
    const options: PostgresServerOptions = {
      self: {id, host: '127.0.0.1', port, statusUrl: ''}, dataDir: dir, socketDir: path.join(world.dir, 'run'), listenHost: '127.0.0.1',
      passwordFiles: {client: path.join(world.dir, 'client'), replication: path.join(world.dir, 'replication')}, clock: monotonic,
      log: process.env.CETUS_TEST_LOG ? createLog({name: id, level: 'debug'}) : silentLog(), ...more,
    };
    if (data === 'empty' && template === undefined) {
      template = await make();
      const first = await createPostgresServer({...options, dataDir: template});
      await first.initialise();
      await first.close();
    }
    await mkdir(dir, {recursive: true});
    const dataDir = path.join(dir, 'data');
    if (data === 'empty') execFileSync('cp', ['-a', path.join(template!, 'data'), path.join(template!, 'peer.json'), dir]);
    const peer: TestPeer = {
      peer: options.self, dir, options, server: await createPostgresServer(options),
      facts: () => peer.server.facts(),
      sees: (what, condition) => until(`${id}: ${what}`, async () => {
        const facts = await peer.server.facts();
        if (!condition(facts)) throw new Error(JSON.stringify(facts));
        return facts;
      }),
      async client(config = {}) {
        const client = new pg.Client({host: '127.0.0.1', port, user: 'cetus', database: 'cetus', password: PASSWORDS.client, connectionTimeoutMillis: 10_000, ...config});
        client.on('error', () => undefined);
        await client.connect();
        return client;
      },
      async query<R extends pg.QueryResultRow>(sql: string, values?: unknown[]) {
        const client = await peer.client();
        try {
          return (await client.query<R>(sql, values)).rows;
        } finally {
          await client.end();
        }
      },
      asSitter: (sql) => peer.asSitterOf('postgres', sql),
      async asSitterOf<R extends pg.QueryResultRow>(database: string, sql: string) {
        const client = new pg.Client({host: options.socketDir, port, user: 'cetus_sitter', database});
        await client.connect();
        try {
          return (await client.query<R>(sql)).rows;
        } finally {
          await client.end();
        }
      },
      postmaster() {
        const all = processesOf(dataDir);
        const found = all.find((p) => !all.some((other) => other.pid === p.parent));
        if (!found) throw new Error(`${id} has no server`);
        return found.pid;
      },
      async reopen() {
        peer.server = await createPostgresServer(options);
      },
    };
    cleanUps.push(async () => {
      await peer.server.close();
      const left = processesOf(dataDir);
      if (left.length === 0) return;
      await endAll(dataDir, monotonic);
      throw new Error(`${id} was closed and ${left.length} processes of its server were left`);
    });
    return peer;
  };
  return world;
}
