/**
 * Orders to workers: a process for each, since what a worker does may hang in a foreign file system and must not hang the agent. A process takes 60 ms of a
 * processor to start, and `docker cp` asks twice. So where the last spare is taken the next one is started; and once nobody has ordered anything for a
 * moment there are two of them for a while, which were started while nothing else was to be done.
 */
import {type ChildProcess, spawn} from 'node:child_process';
import {join} from 'node:path';
import {type Duplex, type Readable, Transform} from 'node:stream';
import {finished} from 'node:stream/promises';
import {CetusError, fromWire, isCetusError} from '../../base/errors';
import type {FilesystemChange, PathStat} from '../../schema/rootfs';
import {CONTROL_FD, type View, type WorkerAnswer, type WorkerOrder} from './protocol';

const SPARE_MS = 20_000;
const SPARES = 2;
/** `docker cp` follows its question with its order within some ten. */
const REST_MS = 300;
const MAX_ANSWER_BYTES = 256 * 1024 * 1024;
/** For what gives no bytes on its way: a stat, a list of changes. */
const ANSWER_MS = 120_000;

export interface HelperOptions {
  /** The worker's program; tests run from sources name the built one. */
  worker?: string;
}

/** Where an archive goes, and how. */
export type UnpackTarget = Omit<Extract<WorkerOrder, {kind: 'unpack'}>, 'kind' | 'view'>;

/** What of it the worker has as descriptors of its own. */
export interface WorkerReads { descriptor: boolean; loan: boolean }

interface Worker { child: ChildProcess; control: Duplex }

/** One order under way. Answers end after the last one; the process is gone then. */
class Errand {
  /** Of the line that is on its way. */
  private parts: Buffer[] = [];
  private bytes = 0;
  private readonly seen: WorkerAnswer[] = [];
  private wake: (() => void) | undefined;
  private over = false;
  /** The process has gone, and its mounts with it. */
  readonly gone: Promise<void>;

  constructor(readonly worker: Worker, order: WorkerOrder, private readonly signal: AbortSignal) {
    const {child, control} = worker;
    const kill = (): void => void child.kill('SIGKILL');
    signal.addEventListener('abort', kill, {once: true});
    control.on('data', (chunk: Buffer) => this.take(chunk));
    this.gone = new Promise((resolve) => {
      child.once('close', () => {
        signal.removeEventListener('abort', kill);
        this.over = true;
        this.wake?.();
        resolve();
      });
    });
    if (signal.aborted) kill();
    control.write(`${JSON.stringify(order)}\n`);
  }

  /** The next answer; throws the failure, why it was broken off, or that the worker ended without a word. */
  async next(): Promise<WorkerAnswer> {
    while (!this.seen.length && !this.over) await new Promise<void>((resolve) => (this.wake = resolve));
    const answer = this.seen.shift();
    if (!answer) throw isCetusError(this.signal.reason) ? this.signal.reason : new CetusError('unavailable', 'the work on the container\'s files was broken off');
    if ('failure' in answer) throw fromWire(answer.failure);
    return answer;
  }

  private take(chunk: Buffer): void {
    let rest = chunk;
    for (let at; (at = rest.indexOf(0x0a)) >= 0; rest = rest.subarray(at + 1)) {
      this.seen.push(JSON.parse(Buffer.concat([...this.parts, rest.subarray(0, at)]).toString('utf8')) as WorkerAnswer);
      [this.parts, this.bytes] = [[], 0];
    }
    this.parts.push(rest);
    this.bytes += rest.length;
    if (this.bytes > MAX_ANSWER_BYTES) return void this.worker.child.kill('SIGKILL');
    this.wake?.();
  }
}

/** What is told of an order under way, beside what it answers. */
export interface Watch {
  /** The worker has its view of the files: what was only needed to make it may go. Called once. */
  opened?(): void;
  /** The process, once it is there. */
  started?(gone: Promise<void>): void;
}

export class RootfsHelper {
  private readonly spares: Worker[] = [];
  private busy = 0;
  private rest: NodeJS.Timeout | undefined;
  private leave: NodeJS.Timeout | undefined;
  private closed = false;
  private readonly program: string;

  constructor(options: HelperOptions = {}) {
    this.program = options.worker ?? join(__dirname, 'worker.js');
  }

  async stat(view: View, path: string, container: string, signal: AbortSignal, watch: Watch = {}): Promise<PathStat> {
    const errand = this.start({kind: 'stat', view, path, container}, AbortSignal.any([signal, AbortSignal.timeout(ANSWER_MS)]), watch);
    const answer = await errand.next().finally(() => watch.opened?.());
    if ('stat' in answer) return answer.stat;
    throw new CetusError('internal', 'a stat was answered without one');
  }

  /** `tar` is destroyed with an error where it would end short. Whoever drops it ends the worker. */
  async pack(view: View, path: string, container: string, signal: AbortSignal, watch: Watch = {}): Promise<{stat: PathStat; tar: Readable}> {
    const errand = this.start({kind: 'pack', view, path, container}, signal, watch);
    const answer = await errand.next().finally(() => watch.opened?.());
    if (!('stat' in answer)) throw new CetusError('internal', 'a tar was answered without a stat');
    return {stat: answer.stat, tar: this.output(errand)};
  }

  /** As `pack`. */
  async export(view: View, signal: AbortSignal, watch: Watch = {}): Promise<Readable> {
    const errand = this.start({kind: 'export', view}, signal, watch);
    await errand.next().finally(() => watch.opened?.());
    return this.output(errand);
  }

  /** `archive` is asked for once the worker can take it, and told what it reads by itself. Resolves when the worker has gone. */
  async unpack(view: View, target: UnpackTarget, archive: (reads: WorkerReads) => Promise<Readable>, signal: AbortSignal, watch: Watch = {}): Promise<void> {
    const errand = this.start({kind: 'unpack', view, ...target}, signal, watch);
    const {child} = errand.worker;
    let source: Readable | undefined;
    // The worker that has refused reads no more: its answer says why, not the broken pipe.
    child.stdin!.on('error', () => undefined);
    try {
      const ready = await errand.next().finally(() => watch.opened?.());
      source = await archive({descriptor: 'taken' in ready, loan: 'lent' in ready});
      source.once('error', () => child.kill('SIGKILL'));
      if (source.errored) throw source.errored;
      // A number is another connection's once its own is closed. Whoever has closed it has aborted this order, too.
      if (source.destroyed) throw new CetusError('canceled', 'the archive was given up before it was read');
      if ('taken' in ready) errand.worker.control.write('\n');
      else source.pipe(child.stdin!);
      await errand.next();
    } catch (err) {
      if (source?.errored) throw source.errored;
      throw err;
    } finally {
      source?.unpipe(child.stdin!);
      child.kill('SIGKILL');
      await errand.gone;
    }
  }

  async changes(layers: Pick<Extract<WorkerOrder, {kind: 'changes'}>, 'upper' | 'lower' | 'made' | 'place'>, signal: AbortSignal, watch: Watch = {}): Promise<FilesystemChange[]> {
    const errand = this.start({kind: 'changes', ...layers}, AbortSignal.any([signal, AbortSignal.timeout(ANSWER_MS)]), watch);
    const answer = await errand.next();
    if ('changes' in answer) return answer.changes;
    throw new CetusError('internal', 'changes were answered without any');
  }

  close(): void {
    this.closed = true;
    clearTimeout(this.rest);
    this.dropSpares();
  }

  private output(errand: Errand): Readable {
    const tar = errand.worker.child.stdout!;
    const {child} = errand.worker;
    void finished(tar, {writable: false}).catch(() => undefined).finally(() => child.kill('SIGKILL'));
    // Its end is no proof that all is in it: the worker's last word is. So the end is held back until that word.
    return guarded(tar, () => errand.next().then(() => undefined));
  }

  private start(order: WorkerOrder, signal: AbortSignal, watch: Watch): Errand {
    if (this.closed) throw new CetusError('canceled', 'the agent closes');
    signal.throwIfAborted();
    const worker = this.spares.shift() ?? this.launch();
    if (!this.spares.length) this.addSpare();
    clearTimeout(this.rest);
    this.busy += 1;
    const errand = new Errand(worker, order, signal);
    void errand.gone.then(() => this.ended());
    watch.started?.(errand.gone);
    return errand;
  }

  private ended(): void {
    this.busy -= 1;
    if (this.busy || this.closed) return;
    clearTimeout(this.rest);
    this.rest = setTimeout(() => {
      while (this.spares.length < SPARES) this.addSpare();
    }, REST_MS).unref();
  }

  private addSpare(): void {
    const worker = this.launch();
    this.spares.push(worker);
    worker.child.once('close', () => {
      const at = this.spares.indexOf(worker);
      if (at >= 0) this.spares.splice(at, 1);
    });
    clearTimeout(this.leave);
    this.leave = setTimeout(() => this.dropSpares(), SPARE_MS).unref();
  }

  private dropSpares(): void {
    clearTimeout(this.leave);
    for (const {control, child} of this.spares.splice(0)) {
      // Its order never comes: it ends by itself.
      control.end();
      child.kill('SIGKILL');
    }
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
