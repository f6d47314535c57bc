/**
 * The FIFOs between a container's shim and the agent, kept so that an agent's death costs no byte and no half of a stream.
 *
 * Who holds what, and why:
 * - The agent holds read ends of stdout/stderr and the write end of stdin, never both ends: so the end of output is a true end of file
 *   (the shim closes its ends once the last writer in the container is gone).
 * - The shim holds a write end of stdin beside its read end, until CloseIO: our end's closing, or our death, ends nobody's stdin.
 * - A keeper (`sleep`, nothing but open descriptors, in a session of its own) holds read ends of stdout/stderr for as long as the container's
 *   task exists. Without it, output that the shim writes and closes while no agent runs would be dropped by the kernel with the last end.
 *   Execs have none: whoever would have read them is gone.
 *
 * Node cannot make FIFOs and a fork costs 2 ms, so sets are made ahead of need and renamed into place.
 */
import {type ChildProcess, spawn} from 'node:child_process';
import {randomBytes} from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import {CetusError} from '../../base/errors';
import type {Log} from '../../base/log';

const {O_RDONLY, O_WRONLY, O_NONBLOCK} = fs.constants;
const NAMES = ['stdin', 'stdout', 'stderr'] as const;
const SPARE_SETS = 16;
const SPARE_KEPT_SETS = 4;
const REFILL_PAUSE_MS = 15;
const FOREVER_SECONDS = '2147483647';

export class Fifos {
  private readonly live: string;
  private readonly spare: string;
  private readonly plain: string[] = [];
  private readonly kept: string[] = [];
  private filling: Promise<void> | undefined;
  private readonly going = new Set<Promise<void>>();
  private closed = false;

  constructor(directory: string, private readonly log: Log) {
    this.live = path.join(directory, 'io');
    this.spare = path.join(directory, 'spare');
  }

  /** Throws away the spare sets of agents that are gone; live ones stay. */
  async open(): Promise<void> {
    fs.mkdirSync(this.live, {recursive: true, mode: 0o700});
    fs.mkdirSync(this.spare, {recursive: true, mode: 0o700});
    for (const name of fs.readdirSync(this.spare)) if (!fs.existsSync(`/proc/${name.split('-')[0]}`)) discard(path.join(this.spare, name));
    this.refill(0);
    await this.filling;
  }

  async close(): Promise<void> {
    this.closed = true;
    await Promise.all([this.filling?.catch(() => undefined), ...this.going]);
    for (const set of [...this.plain.splice(0), ...this.kept.splice(0)]) discard(set);
  }

  directoryOf(id: string, execId: string): string {
    return execId ? path.join(this.live, id, `exec-${execId}`) : path.join(this.live, id);
  }

  exists(id: string, execId: string): boolean {
    return fs.existsSync(this.directoryOf(id, execId));
  }

  /** A fresh set at its final place. `conflict` where there is one already. */
  async claim(id: string, execId: string): Promise<string> {
    const pool = execId ? this.plain : this.kept;
    const set = pool.pop() ?? (await this.make(1, !execId))[0]!;
    const target = this.directoryOf(id, execId);
    try {
      fs.renameSync(set, target);
    } catch (err) {
      pool.push(set);
      const {code} = err as NodeJS.ErrnoException;
      if (code === 'ENOTEMPTY' || code === 'EEXIST') throw new CetusError('conflict', `process ${execId || id} has its FIFOs already`, {cause: err});
      if (code === 'ENOENT') throw new CetusError('notFound', `container ${id} has no task`, {cause: err});
      throw err;
    }
    this.refill();
    return target;
  }

  /** Ends the keeper and takes the FIFOs away; what our open ends have not read yet stays readable. Repeatable. */
  remove(id: string, execId: string): void {
    discard(this.directoryOf(id, execId));
  }

  /**
   * As remove, for an exec, whose id nobody uses again: behind the caller's back. Removing a directory of a disk that others flush took the agent
   * 1.5 ms of every exec.
   */
  discardExec(id: string, execId: string): void {
    const going = fs.promises.rm(this.directoryOf(id, execId), {recursive: true, force: true})
      .catch((err: unknown) => this.log.warn({err, id, execId}, 'FIFOs of an exec cannot be removed; its container\'s removal takes them'))
      .finally(() => this.going.delete(going));
    this.going.add(going);
  }

  private refill(pauseMs = REFILL_PAUSE_MS): void {
    if (this.filling || this.closed || (this.plain.length >= SPARE_SETS / 2 && this.kept.length >= SPARE_KEPT_SETS / 2)) return;
    // Each fork holds our process up for milliseconds: not before the caller's order is with the shim, for which there is nothing to do but wait.
    this.filling = new Promise<void>(resolve => { setTimeout(resolve, pauseMs); })
      .then(async () => {
        this.plain.push(...await this.make(SPARE_SETS - this.plain.length, false));
        this.kept.push(...await this.make(SPARE_KEPT_SETS - this.kept.length, true));
      })
      .catch((err: unknown) => this.log.error({err}, 'FIFOs cannot be made'))
      .finally(() => { this.filling = undefined; });
  }

  private async make(count: number, kept: boolean): Promise<string[]> {
    if (count <= 0) return [];
    const sets = Array.from({length: count}, () => path.join(this.spare, `${process.pid}-${randomBytes(6).toString('hex')}`));
    for (const set of sets) fs.mkdirSync(set, {mode: 0o700});
    await finished(spawn('mkfifo', ['-m', '600', ...sets.flatMap(set => NAMES.map(name => path.join(set, name)))], {stdio: 'ignore'}), 'mkfifo');
    if (kept) for (const set of sets) keepOutputs(set);
    return sets;
  }
}

/** For a node whose agent has ended and whose containers are gone: every set, and every keeper, also one whose set is lost. */
export async function purgeFifos(directory: string): Promise<void> {
  for (const pid of await fs.promises.readdir('/proc')) {
    if (!/^\d+$/.test(pid)) continue;
    try {
      const [, seconds] = (await fs.promises.readFile(`/proc/${pid}/cmdline`, 'utf8')).split('\0');
      if (seconds === FOREVER_SECONDS && (await fs.promises.readlink(`/proc/${pid}/fd/0`)).startsWith(`${directory}/`)) process.kill(Number(pid), 'SIGKILL');
    } catch {
      // It ended meanwhile.
    }
  }
  for (const below of ['io', 'spare']) await fs.promises.rm(path.join(directory, below), {recursive: true, force: true});
}

/** Opened without waiting for the other side; ENXIO (a write end without a reader) is the caller's to understand. */
export function openRead(file: string): number {
  return fs.openSync(file, O_RDONLY | O_NONBLOCK);
}

export function openWrite(file: string): number {
  return fs.openSync(file, O_WRONLY | O_NONBLOCK);
}

function keepOutputs(set: string): void {
  const ends = [openRead(path.join(set, 'stdout')), openRead(path.join(set, 'stderr'))];
  try {
    keeper(path.join(set, 'keeper'), ends);
  } finally {
    for (const end of ends) fs.closeSync(end);
  }
}

function keeper(pidFile: string, ends: number[]): void {
  const child = spawn('sleep', [FOREVER_SECONDS], {detached: true, stdio: [ends[0]!, ends[1] ?? 'ignore', 'ignore'], cwd: '/'});
  child.on('error', () => undefined);
  child.unref();
  if (child.pid === undefined) throw new CetusError('unavailable', 'no keeper for FIFOs can be started');
  fs.writeFileSync(pidFile, String(child.pid));
}

/** Its descriptor 0 proves that a pid is still our keeper and not a stranger's. */
function endKeeper(pidFile: string, fifo: string): void {
  try {
    const pid = Number(fs.readFileSync(pidFile, 'utf8'));
    const mine = fs.statSync(fifo);
    const held = fs.statSync(`/proc/${pid}/fd/0`);
    if (held.ino === mine.ino && held.dev === mine.dev) process.kill(pid, 'SIGKILL');
    fs.unlinkSync(pidFile);
  } catch (err) {
    const {code} = err as NodeJS.ErrnoException;
    if (code !== 'ENOENT' && code !== 'ESRCH') throw err;
  }
}

function discard(set: string): void {
  endKeeper(path.join(set, 'keeper'), path.join(set, 'stdout'));
  fs.rmSync(set, {recursive: true, force: true});
}

function finished(child: ChildProcess, name: string): Promise<void> {
  return new Promise((resolve, reject) => {
    child.once('error', err => reject(new CetusError('unavailable', `${name} cannot be started: ${err.message}`, {cause: err})));
    child.once('exit', code => (code === 0 ? resolve() : reject(new CetusError('internal', `${name} ended with ${code}`))));
  });
}
