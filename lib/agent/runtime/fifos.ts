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
 * A fork costs milliseconds, so one keeper holds the sets that were made together, and ends with the last of them. How many there are says the
 * number of links of the file with its pid, which each of its sets has: also to the next agent.
 *
 * Sets are made ahead of need, in a moment when there is nothing to do but wait, and renamed into place.
 */
import {spawn} from 'node:child_process';
import {randomBytes} from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import {CetusError} from '../../base/errors';
import type {Log} from '../../base/log';
import {makeFifo} from './make-fifo';

const {O_RDONLY, O_WRONLY, O_NONBLOCK} = fs.constants;
const NAMES = ['stdin', 'stdout', 'stderr'] as const;
const KEEPER = 'keeper';
const FIFO_MODE = 0o600;
const SPARE_SETS = 16;
/** A keeper's. What it costs to share one: the FIFOs of a set that is gone, empty as a rule, take room in the kernel until the last of its fellows goes. */
const KEPT_TOGETHER = 16;
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
    if (pool.length === 0) pool.push(...(execId ? [this.make()] : this.makeKept()));
    const set = pool.pop()!;
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
    if (this.filling || this.closed || (this.plain.length >= SPARE_SETS / 2 && this.kept.length >= KEPT_TOGETHER / 4)) return;
    // Not before the caller's order is with the shim, for which there is nothing to do but wait.
    this.filling = new Promise<void>(resolve => { setTimeout(resolve, pauseMs); })
      .then(async () => {
        while (this.plain.length < SPARE_SETS) this.plain.push(await this.makeInTurn());
        if (this.kept.length < KEPT_TOGETHER / 4) {
          const sets: string[] = [];
          while (sets.length < KEPT_TOGETHER) sets.push(await this.makeInTurn());
          keepOutputs(sets);
          this.kept.push(...sets);
        }
      })
      .catch((err: unknown) => this.log.error({err}, 'FIFOs cannot be made'))
      .finally(() => { this.filling = undefined; });
  }

  private make(): string {
    const set = path.join(this.spare, `${process.pid}-${randomBytes(6).toString('hex')}`);
    fs.mkdirSync(set, {mode: 0o700});
    for (const name of NAMES) makeFifo(path.join(set, name), FIFO_MODE);
    return set;
  }

  /** A busy disk takes a millisecond and more for one: everybody else has a turn in between. */
  private async makeInTurn(): Promise<string> {
    await new Promise(resolve => { setImmediate(resolve); });
    return this.make();
  }

  private makeKept(): string[] {
    const sets = Array.from({length: KEPT_TOGETHER}, () => this.make());
    keepOutputs(sets);
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

function keepOutputs(sets: string[]): void {
  const ends: number[] = [];
  try {
    for (const set of sets) ends.push(openRead(path.join(set, 'stdout')), openRead(path.join(set, 'stderr')));
    const [first, ...others] = sets.map(set => path.join(set, KEEPER));
    fs.writeFileSync(first!, String(startKeeper(ends)));
    for (const other of others) fs.linkSync(first!, other);
  } finally {
    for (const end of ends) fs.closeSync(end);
  }
}

function startKeeper(ends: number[]): number {
  const child = spawn('sleep', [FOREVER_SECONDS], {detached: true, stdio: ends, cwd: '/'});
  child.on('error', () => undefined);
  child.unref();
  if (child.pid === undefined) throw new CetusError('unavailable', 'no keeper for FIFOs can be started');
  return child.pid;
}

/** That it holds this very FIFO proves that a pid is still our keeper and not a stranger's. */
function endKeeper(pidFile: string, fifo: string): void {
  try {
    if (fs.statSync(pidFile).nlink === 1) {
      const pid = Number(fs.readFileSync(pidFile, 'utf8'));
      if (holds(pid, fs.statSync(fifo))) process.kill(pid, 'SIGKILL');
    }
    fs.unlinkSync(pidFile);
  } catch (err) {
    const {code} = err as NodeJS.ErrnoException;
    if (code !== 'ENOENT' && code !== 'ESRCH') throw err;
  }
}

function holds(pid: number, file: fs.Stats): boolean {
  return fs.readdirSync(`/proc/${pid}/fd`).some(fd => {
    const held = fs.statSync(`/proc/${pid}/fd/${fd}`);
    return held.ino === file.ino && held.dev === file.dev;
  });
}

function discard(set: string): void {
  endKeeper(path.join(set, KEEPER), path.join(set, 'stdout'));
  fs.rmSync(set, {recursive: true, force: true});
}
