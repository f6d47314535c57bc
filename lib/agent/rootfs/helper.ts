/**
 * Orders to workers: a process for each, since what a worker does may hang in a foreign file system and must not hang the agent. The next one is started
 * when one is taken, and waits a little: `docker cp` asks twice, and a process takes 60 ms to start.
 */
import {type ChildProcess, spawn} from 'node:child_process';
import {join} from 'node:path';
import {type Duplex, type Readable, Transform} from 'node:stream';
import {finished} from 'node:stream/promises';
import {CetusError, fromWire} from '../../base/errors';
import type {FilesystemChange, PathStat} from '../../schema/rootfs';
import {CONTROL_FD, type WorkerAnswer, type WorkerOrder} from './protocol';

const SPARE_MS = 20_000;
const MAX_ANSWER_BYTES = 256 * 1024 * 1024;
/** For what gives no bytes on its way: a stat, a list of changes. */
const ANSWER_MS = 120_000;

export interface HelperOptions {
  /** The worker's program; tests run from sources name the built one. */
  worker?: string;
}

interface Worker { child: ChildProcess; control: Duplex }

/** One order under way. `answers` ends after the last one; the process is gone then. */
class Errand {
  private text = '';
  private readonly seen: WorkerAnswer[] = [];
  private wake: (() => void) | undefined;
  private over = false;

  constructor(readonly worker: Worker, order: WorkerOrder, signal: AbortSignal) {
    const {child, control} = worker;
    const kill = (): void => void child.kill('SIGKILL');
    signal.addEventListener('abort', kill, {once: true});
    control.on('data', (chunk: Buffer) => this.take(chunk));
    child.once('close', () => {
      signal.removeEventListener('abort', kill);
      this.over = true;
      this.wake?.();
    });
    if (signal.aborted) kill();
    control.write(`${JSON.stringify(order)}\n`);
  }

  /** The next answer; throws the failure, or that the worker ended without a word. */
  async next(): Promise<WorkerAnswer> {
    while (!this.seen.length && !this.over) await new Promise<void>((resolve) => (this.wake = resolve));
    const answer = this.seen.shift();
    if (!answer) throw new CetusError('unavailable', 'the reading of the container\'s files was broken off');
    if ('failure' in answer) throw fromWire(answer.failure);
    return answer;
  }

  private take(chunk: Buffer): void {
    this.text += chunk.toString('utf8');
    if (this.text.length > MAX_ANSWER_BYTES) return void this.worker.child.kill('SIGKILL');
    for (let at; (at = this.text.indexOf('\n')) >= 0;) {
      this.seen.push(JSON.parse(this.text.slice(0, at)) as WorkerAnswer);
      this.text = this.text.slice(at + 1);
    }
    this.wake?.();
  }
}

export class RootfsHelper {
  private spare: {worker: Worker; timer: NodeJS.Timeout} | undefined;
  private closed = false;
  private readonly program: string;

  constructor(options: HelperOptions = {}) {
    this.program = options.worker ?? join(__dirname, 'worker.js');
  }

  async stat(root: string, path: string, signal: AbortSignal): Promise<PathStat> {
    const errand = this.start({kind: 'stat', root, path}, AbortSignal.any([signal, AbortSignal.timeout(ANSWER_MS)]));
    const answer = await errand.next();
    if ('stat' in answer) return answer.stat;
    throw new CetusError('internal', 'a stat was answered without one');
  }

  /** `tar` is destroyed with an error where it would end short. Whoever drops it ends the worker. */
  async pack(root: string, path: string, signal: AbortSignal): Promise<{stat: PathStat; tar: Readable}> {
    const errand = this.start({kind: 'pack', root, path}, signal);
    const answer = await errand.next();
    if (!('stat' in answer)) throw new CetusError('internal', 'a tar was answered without a stat');
    return {stat: answer.stat, tar: this.output(errand)};
  }

  export(root: string, signal: AbortSignal): Readable {
    return this.output(this.start({kind: 'export', root}, signal));
  }

  async unpack(root: string, path: string, archive: Readable, options: {noOverwriteDirNonDir: boolean; owner?: {uid: number; gid: number}}, signal: AbortSignal): Promise<void> {
    const errand = this.start({kind: 'unpack', root, path, ...options}, signal);
    const stdin = errand.worker.child.stdin!;
    // The worker that has refused reads no more: its answer says why, not the broken pipe.
    stdin.on('error', () => undefined);
    archive.once('error', () => errand.worker.child.kill('SIGKILL'));
    archive.pipe(stdin);
    try {
      await errand.next();
    } catch (err) {
      if (archive.errored) throw archive.errored;
      throw err;
    } finally {
      archive.unpipe(stdin);
      errand.worker.child.kill('SIGKILL');
    }
  }

  async changes(upper: string, lower: string | undefined, signal: AbortSignal): Promise<FilesystemChange[]> {
    const errand = this.start({kind: 'changes', upper, ...(lower === undefined ? {} : {lower})}, AbortSignal.any([signal, AbortSignal.timeout(ANSWER_MS)]));
    const answer = await errand.next();
    if ('changes' in answer) return answer.changes;
    throw new CetusError('internal', 'changes were answered without any');
  }

  close(): void {
    this.closed = true;
    this.dropSpare();
  }

  private output(errand: Errand): Readable {
    const tar = errand.worker.child.stdout!;
    const {child} = errand.worker;
    void finished(tar, {writable: false}).catch(() => undefined).finally(() => child.kill('SIGKILL'));
    // Its end is no proof that all is in it: the worker's last word is. So the end is held back until that word.
    return guarded(tar, () => errand.next().then(() => undefined));
  }

  private start(order: WorkerOrder, signal: AbortSignal): Errand {
    if (this.closed) throw new CetusError('canceled', 'the agent closes');
    signal.throwIfAborted();
    const worker = this.spare?.worker ?? this.launch();
    if (this.spare) clearTimeout(this.spare.timer);
    this.spare = undefined;
    this.keepSpare();
    return new Errand(worker, order, signal);
  }

  private keepSpare(): void {
    const worker = this.launch();
    const timer = setTimeout(() => this.dropSpare(), SPARE_MS).unref();
    this.spare = {worker, timer};
    worker.child.once('close', () => {
      if (this.spare?.worker === worker) this.spare = undefined;
    });
  }

  private dropSpare(): void {
    if (!this.spare) return;
    clearTimeout(this.spare.timer);
    // Its order never comes: it ends by itself.
    this.spare.worker.control.end();
    this.spare.worker.child.kill('SIGKILL');
    this.spare = undefined;
  }

  private launch(): Worker {
    const child = spawn(process.execPath, ['--max-semi-space-size=8', this.program], {stdio: ['pipe', 'pipe', 'ignore', 'pipe'], env: {}});
    child.on('error', () => undefined);
    const control = child.stdio[CONTROL_FD] as Duplex;
    control.on('error', () => undefined);
    return {child, control};
  }
}

/** `source`, which ends well only when `complete` resolves after its last byte. */
function guarded(source: Readable, complete: () => Promise<void>): Readable {
  const out = new Transform({
    highWaterMark: 1024 * 1024,
    transform: (chunk, _encoding, done) => done(null, chunk),
    flush: (done) => void complete().then(() => done(), (err: Error) => done(err)),
  });
  source.once('error', (err) => out.destroy(err));
  out.once('close', () => source.destroy());
  return source.pipe(out);
}
