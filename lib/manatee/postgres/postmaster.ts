/**
 * The server as a process: begun, ended, and noticed when it ends by itself. It never outlives us: whoever finds one of this directory that he did not start
 * ends it, because nobody knows which configuration its processes go by, and the watchdog ends it anyway when its sitter is gone.
 */
import {spawn, type ChildProcess} from 'node:child_process';
import {constants} from 'node:fs';
import {open, readFile, rm, stat, truncate} from 'node:fs/promises';
import path from 'node:path';
import {CetusError} from '../../base/errors';
import type {Log} from '../../base/log';
import type {Monotonic} from '../coordination';
import type {Binaries} from './binaries';
import type {Home} from './home';
import {endAll, processesOf, signal} from './processes';

const MAX_LOG_BYTES = 10 << 20;
/** A shutdown waits for what the standbys have not got yet; for one that does not answer, no longer than this. */
const FAST_MS = 5000;
const IMMEDIATE_MS = 1000;

export const environment = (): NodeJS.ProcessEnv => ({PATH: process.env.PATH, LC_ALL: 'C', TZ: 'UTC', HOME: '/nonexistent'});

export class Postmaster {
  private child: ChildProcess | undefined;
  /** Why the last one ended. */
  private ended: string | undefined;
  private going: Promise<void> | undefined;
  private logFrom = 0;

  constructor(private readonly binaries: Binaries, private readonly home: Home, private readonly clock: Monotonic, private readonly log: Log, private readonly onEnd: () => void) {}

  /** undefined: none. One that is dead, but whose last processes are not gone yet, is still there. */
  get pid(): number | undefined {
    return this.child?.pid;
  }

  get alive(): boolean {
    return this.child !== undefined;
  }

  /** Ends what an earlier sitter has left. */
  async clear(): Promise<void> {
    const left = processesOf(this.home.data);
    if (left.length === 0) return;
    this.log.warn({processes: left.length}, 'a server of an earlier sitter, or what is left of it, still runs; ending it');
    const parents = new Set(left.map((p) => p.parent));
    for (const {pid} of left) if (parents.has(pid)) signal(pid, 'SIGQUIT');
    const until = this.clock.nowMs() + IMMEDIATE_MS;
    while (processesOf(this.home.data).length > 0 && this.clock.nowMs() < until) await this.clock.sleep(10);
    await endAll(this.home.data, this.clock);
  }

  async start(): Promise<void> {
    if (this.child) throw new CetusError('internal', 'a second server of one directory');
    await this.clear();
    // Its number may belong to another program by now, over which Postgres would refuse to start. Nothing of ours runs: we have just looked.
    await rm(path.join(this.home.data, 'postmaster.pid'), {force: true});
    await this.shortenLog();
    const out = await open(this.home.log, constants.O_WRONLY | constants.O_APPEND | constants.O_CREAT | constants.O_NOFOLLOW, 0o600);
    await out.chown(this.home.user.uid, this.home.user.gid);
    this.logFrom = (await out.stat()).size;
    this.ended = undefined;
    const binary = path.join(await this.binaries.of(await this.home.version()), 'postgres');
    const {uid, gid} = this.home.user;
    // Its output is a file: a pipe would fill, and stop it, while we are stopped. Detached: Ctrl-C reaches us, and we end it last.
    const child = spawn(binary, ['-D', this.home.data], {
      stdio: ['ignore', out.fd, out.fd], detached: true, env: environment(), cwd: this.home.data, ...(process.getuid!() === 0 ? {uid, gid} : {}),
    });
    this.child = child;
    this.going = new Promise<void>((resolve) => {
      const gone = (why: string): void => {
        if (this.ended !== undefined) return;
        this.ended = why;
        // Backends of a postmaster that was killed go on until they notice.
        void endAll(this.home.data, this.clock).then(() => {
          this.child = undefined;
          resolve();
          this.onEnd();
        });
      };
      child.once('error', (err) => gone(err.message));
      child.once('exit', (code, name) => gone(`it exited with ${name ?? code}`));
    });
    child.unref();
    await out.close();
  }

  /** Why it is not running, with what it said last; undefined while it does. */
  async failure(): Promise<string | undefined> {
    if (this.child && this.ended === undefined) return undefined;
    await this.going;
    const said = (await this.said(this.logFrom)).split('\n').map((line) => line.replace(/^[\d-]+ [\d:.]+ \w+ \[\d+\] /, '').trim()).filter((line) => line !== '');
    return [this.ended ?? 'it was not started', ...said.slice(-6)].join('; ');
  }

  /**
   * By what it says of itself in the eighth line of postmaster.pid, as pg_ctl has it: answers connections. Asked often; a connection that is refused would
   * cost the server that is to come up a process each time.
   */
  async answers(): Promise<boolean> {
    const lines = (await readFile(path.join(this.home.data, 'postmaster.pid'), 'utf8').catch(() => '')).split('\n');
    return Number(lines[0]) === this.child?.pid && /^ready/.test(lines[7] ?? '');
  }

  async logEnd(): Promise<number> {
    return (await stat(this.home.log).catch(() => undefined))?.size ?? 0;
  }

  /** What was said from there on, the last 64 KiB of it. */
  async said(since: number): Promise<string> {
    const size = await this.logEnd();
    const from = Math.max(since > size ? 0 : since, size - 65_536);
    const handle = await open(this.home.log, 'r').catch(() => undefined);
    if (!handle) return '';
    try {
      const buffer = Buffer.alloc(Math.max(0, size - from));
      await handle.read(buffer, 0, buffer.length, from);
      return buffer.toString();
    } finally {
      await handle.close();
    }
  }

  /** A standby whose upstream is away says so ten times a second. */
  async shortenLog(): Promise<void> {
    if ((await this.logEnd()) > MAX_LOG_BYTES) await truncate(this.home.log, 0);
  }

  reload(): void {
    if (!this.child?.pid) throw new CetusError('unavailable', 'our Postgres is not running');
    signal(this.child.pid, 'SIGHUP');
  }

  async stop(how: 'fast' | 'immediate'): Promise<void> {
    const pid = this.child?.pid;
    if (pid !== undefined && this.ended === undefined) {
      if (how === 'fast') {
        signal(pid, 'SIGINT');
        await this.endsWithin(FAST_MS);
      }
      if (this.ended === undefined) {
        signal(pid, 'SIGQUIT');
        await this.endsWithin(IMMEDIATE_MS);
      }
      if (this.ended === undefined) signal(pid, 'SIGKILL');
    }
    await endAll(this.home.data, this.clock);
    await this.going;
  }

  private async endsWithin(ms: number): Promise<void> {
    const waiting = new AbortController();
    await Promise.race([this.going, this.clock.sleep(ms, waiting.signal)]);
    waiting.abort();
  }
}
