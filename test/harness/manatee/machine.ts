/**
 * One peer as a machine that can die: a namespace of its own on the network, a small filesystem of its own (so that it fills), a sitter as a process with
 * what that starts. "The machine" is every process in the namespace.
 */
import {type ChildProcess, execFileSync, spawn} from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import pg from 'pg';
import {processesOf} from '../../../lib/manatee/postgres/processes';
import type {Peer} from '../../../lib/manatee/state';
import {until} from '../wait';
import type {Direction, From, Network} from './network';

const CETUS = path.join(__dirname, '../../../dist/main/cetus.js');
const STATUS_PORT = 8432;
const PORT = 5432;
const DISK_MB = 640;
/** WAL that is kept must not fill a small disk, and three of these share two cores with everything else. */
const SETTINGS = {wal_keep_size: '128MB', max_wal_size: '128MB', min_wal_size: '32MB', shared_buffers: '16MB', max_connections: '60'};

export interface MachineOptions {
  network: Network;
  dir: string;
  zookeeper: {servers: string; path: string; ports: number[]};
  sessionTimeoutMs: number;
  restartGraceMs: number;
  passwordFiles: {client: string; replication: string};
  clientPassword: string;
}

export class Machine {
  readonly peer: Peer;
  readonly dir: string;
  private readonly data: string;
  private readonly run: string;
  private readonly config: string;
  private sitter: ChildProcess | undefined;
  /** Its processes are stopped, or were until this moment (performance.now()): what it answers then is of its former life. */
  sleptUntilMs = -Infinity;

  constructor(readonly id: string, private readonly options: MachineOptions) {
    const address = options.network.join(id);
    this.peer = {id, host: address, port: PORT, statusUrl: `http://${address}:${STATUS_PORT}/`};
    this.dir = path.join(options.dir, id);
    this.data = path.join(this.dir, 'pg');
    this.run = path.join(options.dir, `${id}-run`);
    this.config = path.join(options.dir, `${id}.json`);
    for (const dir of [this.dir, this.run]) fs.mkdirSync(dir, {recursive: true, mode: 0o755});
    execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${DISK_MB}m,mode=755`, options.network.tag, this.dir]);
    const {zookeeper: {servers, path: node}, sessionTimeoutMs, restartGraceMs, passwordFiles} = options;
    fs.writeFileSync(this.config, JSON.stringify({
      id, host: address, port: PORT, statusListen: `${address}:${STATUS_PORT}`, dataDir: this.data, socketDir: this.run, zookeeper: {servers, path: node, sessionTimeoutMs},
      passwordFiles, oneNodeWriteMode: false, restartGraceMs, settings: SETTINGS, logLevel: 'debug',
    }));
  }

  get logFile(): string { return path.join(this.options.dir, `${this.id}.log`); }
  get isUp(): boolean { return this.sitter !== undefined; }

  start(): void {
    if (this.sitter) return;
    const out = fs.openSync(this.logFile, 'a');
    // It dies with us, and its watchdog sees to its Postgres.
    const child = spawn('nsenter', [`--net=${this.options.network.path(this.id)}`, 'setpriv', '--pdeathsig', 'KILL', process.execPath, CETUS, 'sitter', '--config', this.config], {stdio: ['ignore', out, out]});
    fs.closeSync(out);
    this.sitter = child;
    child.on('exit', () => { if (this.sitter === child) this.sitter = undefined; });
  }

  // ---- ends ----

  killPostgres(): void {
    process.kill(this.postmaster(), 'SIGKILL');
  }

  /** The sitter alone; its watchdog then ends Postgres. */
  async killSitter(): Promise<void> {
    this.sitter?.kill('SIGKILL');
    await until(`${this.id}'s sitter to end`, () => !this.isUp);
  }

  /** Everything at once; `silently`: nobody hears of it, as of a machine without power. Not restarted by itself. */
  async kill(silently = false): Promise<void> {
    if (silently) this.cut('everything', 'both');
    // Stopped first: nothing of it reacts to the end of something else.
    this.signal('SIGSTOP');
    await until(`${this.id} to be dead`, () => {
      this.signal('SIGKILL');
      return this.processes().length === 0 && !this.isUp;
    });
    this.sleptUntilMs = -Infinity;
  }

  /** As after power returns: what lay in memory alone is gone. */
  boot(): void {
    fs.rmSync(this.run, {recursive: true, force: true});
    fs.mkdirSync(this.run, {mode: 0o755});
    fs.rmSync(path.join(this.data, 'data', 'postmaster.pid'), {force: true});
    this.mend();
    this.start();
  }

  // ---- sleep ----

  pausePostgres(): () => void {
    const pids = processesOf(path.join(this.data, 'data')).map(({pid}) => pid);
    signalAll(pids, 'SIGSTOP');
    return () => signalAll(pids, 'SIGCONT');
  }

  pauseSitter(): () => void {
    const {sitter} = this;
    sitter?.kill('SIGSTOP');
    return () => { sitter?.kill('SIGCONT'); };
  }

  pause(): () => void {
    this.sleptUntilMs = Infinity;
    this.signal('SIGSTOP');
    return () => {
      this.signal('SIGCONT');
      this.sleptUntilMs = performance.now();
    };
  }

  // ---- network and disk ----

  cut(from: From, direction: Direction): void { this.options.network.cut(this.id, from, direction, this.options.zookeeper.ports); }
  mend(): void { this.options.network.mend(this.id); }

  /** Leaves not one byte. */
  fill(): void {
    const file = fs.openSync(path.join(this.dir, 'ballast'), 'w');
    try {
      for (let size = 16 << 20; size >= 4096;) {
        try {
          fs.writeSync(file, Buffer.alloc(size));
        } catch {
          size >>= 1;
        }
      }
    } finally {
      fs.closeSync(file);
    }
  }

  free(): void { fs.rmSync(path.join(this.dir, 'ballast'), {force: true}); }

  // ---- looks ----

  processes(): number[] { return this.options.network.processes(this.id); }

  postmaster(): number {
    const all = processesOf(path.join(this.data, 'data'));
    const found = all.find((one) => !all.some((other) => other.pid === one.parent));
    if (!found) throw new Error(`${this.id} has no Postgres`);
    return found.pid;
  }

  /** As a client through its own door, whatever has become of the network; or as its sitter. */
  local(as: 'client' | 'sitter', timeoutMs = 10_000): pg.Client {
    const client = new pg.Client(as === 'client'
      ? {host: this.run, port: PORT, user: 'cetus', database: 'cetus', password: this.options.clientPassword, connectionTimeoutMillis: timeoutMs, application_name: 'probe'}
      : {host: this.run, port: PORT, user: 'cetus_sitter', database: 'cetus', connectionTimeoutMillis: timeoutMs, application_name: 'cetus_test'});
    client.on('error', () => undefined);
    return client;
  }

  /** Its last words. */
  log(lines: number): string[] {
    return fs.readFileSync(this.logFile, 'utf8').trim().split('\n').slice(-lines);
  }

  async remove(): Promise<void> {
    await this.kill();
    execFileSync('umount', ['-l', this.dir]);
  }

  private signal(name: NodeJS.Signals): void {
    signalAll(this.processes(), name);
  }
}

function signalAll(pids: number[], name: NodeJS.Signals): void {
  for (const pid of pids) {
    try {
      process.kill(pid, name);
    } catch {
      // it has ended
    }
  }
}
