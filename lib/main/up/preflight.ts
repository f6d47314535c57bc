/**
 * What would end `cetus up` later is found, and said in the person's own terms, before anything has been started: no root, a data directory
 * that is none, an address that another program holds, a Postgres that does not answer. Nothing is changed by looking.
 */
import fs from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import {CetusError} from '../../base/errors';
import type {Log} from '../../base/log';
import type {Discovery} from '../../moray/primary';
import {formatListen, type ListenAddress} from '../address';
import type {EndpointConfig} from '../config';
import {storeOf} from '../store';

const POSTGRES_TIMEOUT_MS = 5_000;
const OLDEST_POSTGRES = 140_000;
/** A cluster that has just been started finds its primary within this; so does one amid a failover. */
const CLUSTER_TIMEOUT_MS = 40_000;
const CLUSTER_RETRY_MS = 200;

export function requireRoot(verb: string, uid: number | undefined = process.geteuid?.()): void {
  if (uid !== 0) throw new CetusError('forbidden', `cetus ${verb} wants root: it makes namespaces, bridges and mounts`);
}

export function makeDirectories(dir: string, more: string[] = ['agent']): void {
  for (const below of ['', 'run', 'log', ...more]) {
    const wanted = path.join(dir, below);
    try {
      fs.mkdirSync(wanted, {recursive: true, mode: 0o711});
    } catch (err) {
      const code = (err as NodeJS.ErrnoException).code;
      const why = code === 'EEXIST' || code === 'ENOTDIR' ? 'there is a file in its place' : (err as Error).message;
      throw new CetusError('invalid', `--data ${dir}: ${wanted} cannot be made: ${why}`, {cause: code === 'EEXIST' || code === 'ENOTDIR' ? undefined : err});
    }
  }
}

/** A directory is one machine's or a fleet's, for ever: the store of the one names nodes that the other does not have. */
export function requireKind(dir: string, kind: 'machine' | 'fleet'): void {
  const isFleet = fs.existsSync(path.join(dir, 'fleet.json'));
  if (kind === 'machine' && isFleet) throw new CetusError('conflict', `${dir} is a fleet's: \`cetus fleet\` runs it; give another --data`);
  if (kind === 'fleet' && !isFleet && fs.existsSync(path.join(dir, 'instance.json'))) throw new CetusError('conflict', `${dir} is a datacenter of one machine, run by \`cetus up\` or \`cetus cluster\`; give another --data`);
}

/** 'all', 'off' or absolute prefixes: a relative one would match nothing and so refuse every bind without a word. */
export function requireBinds(binds: string): void {
  if (binds === 'all' || binds === 'off') return;
  for (const prefix of binds.split(','))
    if (!path.isAbsolute(prefix)) throw new CetusError('invalid', `--binds ${binds}: expected all, off, or absolute paths separated by commas; "${prefix}" is none`);
}

/** Held for a moment: whoever takes it between this and the endpoint's start is still found, only later and with a longer message. */
export async function requireFree(address: ListenAddress): Promise<void> {
  if (address.kind === 'unix') return requireOurs(address.path);
  const server = net.createServer();
  await new Promise<void>((resolve, reject) => server.once('error', reject).listen({host: address.host, port: address.port}, resolve)).catch((err: unknown) => {
    const code = (err as NodeJS.ErrnoException).code;
    const why = code === 'EADDRINUSE' ? 'another program listens there' : code === 'EADDRNOTAVAIL' ? 'this machine has no such address' : (err as Error).message;
    throw new CetusError('conflict', `cannot listen on ${formatListen(address)}: ${why}; choose another with --listen (make run LISTEN=...)`);
  });
  await new Promise((resolve) => server.close(resolve));
}

/** A socket's file is replaced where nobody answers on it any more; never another program's, and never a file of another kind. */
async function requireOurs(file: string): Promise<void> {
  const found = fs.lstatSync(file, {throwIfNoEntry: false});
  if (!found) return;
  if (!found.isSocket()) throw new CetusError('conflict', `cannot listen on unix://${file}: there is something else than a socket in its place`);
  const answered = await new Promise<boolean>((resolve) => {
    const socket = net.connect(file, () => resolve(true)).once('error', () => resolve(false));
    socket.once('close', () => undefined).setTimeout(1_000, () => resolve(true));
    socket.once('connect', () => socket.destroy());
  });
  if (answered) throw new CetusError('conflict', `cannot listen on unix://${file}: another program listens there; choose another with --listen`);
}

/** One that is there and of an age that the store can use. The password is never part of what is said. */
export async function requirePostgres(url: string): Promise<void> {
  const where = ((): string => {
    try {
      const {protocol, host, pathname} = new URL(url);
      if (!/^postgres(ql)?:$/.test(protocol)) throw new Error('another protocol');
      return `${host}${pathname}`;
    } catch {
      throw new CetusError('invalid', '--postgres: expected postgres://USER:PASSWORD@HOST:PORT/DATABASE');
    }
  })();
  await askVersion(url).catch((err: unknown) => { throw new CetusError('unavailable', `--postgres ${where}: ${firstReason(err)}`); });
}

async function askVersion(url: string): Promise<void> {
  // Only where it is asked for: the client costs `cetus up` memory for all its life.
  const {default: pg} = await import('pg');
  const client = new pg.Client({connectionString: url, connectionTimeoutMillis: POSTGRES_TIMEOUT_MS, query_timeout: POSTGRES_TIMEOUT_MS});
  client.on('error', () => undefined);
  try {
    await client.connect();
    const {rows} = await client.query<{server_version_num: string}>('SHOW server_version_num');
    const version = Number(rows[0]?.server_version_num);
    if (version < OLDEST_POSTGRES) throw new CetusError('invalid', `it is version ${Math.floor(version / 10_000)}, 14 or later is wanted`);
  } finally {
    await client.end().catch(() => undefined);
  }
}

/** A primary that lets clients in: a failover that is under way is waited for. */
export async function requireCluster(config: Pick<EndpointConfig, 'store'>, log: Log, timeoutMs = CLUSTER_TIMEOUT_MS): Promise<void> {
  const store = await storeOf(config, log);
  const until = Date.now() + timeoutMs;
  try {
    for (;;) {
      try {
        return await askVersion((await (store.url as Discovery).primary()).url);
      } catch (err) {
        if (Date.now() > until) throw new CetusError('unavailable', `--zookeeper ${config.store!.zookeeper.servers}: ${firstReason(err)}; \`cetus db status\` says more`, {cause: err});
      }
      await new Promise((resolve) => setTimeout(resolve, CLUSTER_RETRY_MS));
    }
  } finally {
    await store.close();
  }
}

/** Of a name with several addresses Node.js makes one error without a text, which bears the real ones. */
function firstReason(err: unknown): string {
  const inner = err instanceof AggregateError ? (err.errors[0] as unknown) : err;
  return inner instanceof Error && inner.message ? inner.message : String(inner);
}
