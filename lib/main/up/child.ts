/**
 * One process that `cetus up` keeps alive: started again when it dies by itself (at once where it had served, with a growing delay where it
 * never came so far), ended with SIGTERM and, after a
 * bound, SIGKILL. The child learns of our own death by the closing of its IPC channel and ends as if asked to (see main/lifetime.ts),
 * so that a killed `cetus up` leaves no second endpoint behind.
 */
import {type ChildProcess, spawn} from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import {CetusError} from '../../base/errors';
import type {Log} from '../../base/log';
import {favourSession} from '../priority';
import {endChild} from './processes';

export interface ChildOptions {
  name: string;
  args: string[];
  /** Receives standard output and error, appended. */
  logFile: string;
  log: Log;
  readyTimeoutMs: number;
  /** From SIGTERM to SIGKILL; default 8 s. */
  stopTimeoutMs?: number;
  /** The network namespace in which it lives, as /run/netns/NAME; default: ours. */
  namespace?: string;
}

/**
 * Both hand streams on, in chunks of 64 KiB. V8 frees such chunks each 32 MB, beside the program, and counts what is under way as old generation:
 * with a heap of 20 MB it takes that for its limit and collects the whole heap, ten times in a load of 200 MB, which doubles the CPU of a stream.
 * So nothing of the old generation is collected below 80 MB (but when idle), and chunks are freed at once. A large young generation does not help
 * streams; it is 12 to 27 MB of memory each.
 */
export const NODE_FLAGS = ['--initial-old-space-size=80', '--no-concurrent-array-buffer-sweeping', '--max-semi-space-size=4'];
const READY_TIMEOUT_MS = 30_000;

/** An endpoint or an agent of this program. `name`, where there are several: of its log. */
export function cetusChild(verb: 'endpoint' | 'agent', configFile: string, {dir, log, name = verb, namespace}: {dir: string; log: Log; name?: string; namespace?: string}): SupervisedChild {
  return new SupervisedChild({
    name, log, readyTimeoutMs: READY_TIMEOUT_MS, logFile: path.join(dir, 'log', `${name}.log`),
    args: [...NODE_FLAGS, path.resolve(__dirname, '..', 'cetus.js'), verb, '--config', configFile], ...(namespace ? {namespace} : {}),
  });
}

const FIRST_DELAY_MS = 20;
const MAX_DELAY_MS = 5_000;
/** One that served this long has earned a fresh start: whatever killed it was not its beginning. */
const STEADY_MS = 250;
const STOP_TIMEOUT_MS = 8_000;

export class SupervisedChild {
  private child: ChildProcess | undefined;
  private stopping = false;
  private delayMs = FIRST_DELAY_MS;
  private restartTimer: NodeJS.Timeout | undefined;

  constructor(private readonly options: ChildOptions) {}

  get pid(): number | undefined {
    return this.child?.pid;
  }

  /** Resolves with what the child reported when it was ready to serve. `env`: further variables of this life, not of those that follow it. */
  async start(env: NodeJS.ProcessEnv = {}): Promise<Record<string, unknown>> {
    const {name, args, logFile, log, readyTimeoutMs, namespace} = this.options;
    this.stopping = false;
    const out = fs.openSync(logFile, 'a', 0o600);
    // A session of its own: Ctrl-C at the terminal reaches us alone, and we end the parts in their order.
    // nsenter becomes the program: process id and channel are its own.
    const [program, ...words] = namespace ? ['nsenter', `--net=${namespace}`, process.execPath, ...args] : [process.execPath, ...args];
    const child = spawn(program!, words, {stdio: ['ignore', out, out, 'ipc'], env: {...process.env, ...env}, detached: true});
    fs.closeSync(out);
    if (child.pid !== undefined) favourSession(child.pid);
    this.child = child;
    let readyAt = Infinity;
    child.once('message', () => { readyAt = Date.now(); });
    child.once('exit', (code, signal) => {
      if (this.child === child) this.child = undefined;
      if (this.stopping) return;
      this.delayMs = Date.now() - readyAt > STEADY_MS ? FIRST_DELAY_MS : Math.min(this.delayMs * 2, MAX_DELAY_MS);
      log.warn({name, code, signal, restartInMs: this.delayMs}, 'a process of ours ended by itself');
      this.again();
    });
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        reject(new CetusError('timeout', `${name} was not ready within ${readyTimeoutMs / 1000} s; see ${logFile}`));
        // One that hangs at its beginning would hang for ever: its end brings the next try.
        child.kill('SIGKILL');
      }, readyTimeoutMs);
      child.once('message', (message) => {
        clearTimeout(timer);
        resolve(message as Record<string, unknown>);
      });
      child.once('error', (err) => {
        clearTimeout(timer);
        if (child.pid === undefined && this.child === child) this.child = undefined;
        reject(new CetusError('internal', `start ${name}`, {cause: err}));
      });
      child.once('exit', (code, signal) => {
        clearTimeout(timer);
        reject(new CetusError('internal', `${name} ended (${signal ?? `exit status ${code}`}) before it was ready: ${lastLine(logFile)}`));
      });
    });
  }

  private again(): void {
    const {name, log} = this.options;
    this.restartTimer = setTimeout(() => {
      this.restartTimer = undefined;
      this.start().catch((err: unknown) => {
        log.error({err, name}, 'restart');
        // One that never came to be has no end that would bring the next try: there was no descriptor, no memory, no process for it.
        if (this.child || this.restartTimer || this.stopping) return;
        this.delayMs = Math.min(this.delayMs * 2, MAX_DELAY_MS);
        this.again();
      });
    }, this.delayMs);
  }

  /** With its process by SIGKILL, and no next life until `start`. */
  async kill(): Promise<void> {
    this.child?.kill('SIGKILL');
    await this.stop();
  }

  async stop(): Promise<void> {
    this.stopping = true;
    clearTimeout(this.restartTimer);
    if (this.child) await endChild(this.child, this.options.stopTimeoutMs ?? STOP_TIMEOUT_MS);
  }
}

/** The last thing the child said, so that the reason stands on the person's screen and not only in a file. */
function lastLine(file: string): string {
  const lines = fs.readFileSync(file, 'utf8').slice(-8192).trimEnd().split('\n');
  const last = lines.filter((line) => line.startsWith('cetus: ') || line.startsWith('{')).pop() ?? lines[lines.length - 1] ?? '';
  try {
    const record = JSON.parse(last) as {msg?: string; err?: {message?: string}};
    return [record.msg, record.err?.message].filter(Boolean).join(': ') || last;
  } catch {
    return last;
  }
}
