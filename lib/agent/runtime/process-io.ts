/**
 * Our ends of one process's FIFOs as streams. Output streams end when the last writer in the container is gone and every byte has been
 * read; while nobody reads, the writer blocks. Called by containerd.ts only.
 */
import fs from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import {Writable} from 'node:stream';
import {CetusError} from '../../base/errors';
import {openRead, openWrite} from './fifos';
import type {IoRequest, ProcessIo} from './runtime';

const PROBE_MS = 1;
const PROBE_TRIES = 10_000;

export interface OpenedIo extends ProcessIo {
  /** The shim has been told to open its ends: the stand-ins that kept ours from seeing an early end go away. */
  shimReady(): void;
  /** Destroys streams that nobody ever read; the others end by themselves. */
  release(): void;
}

export interface OpenOptions {
  /** Directory of the set. */
  set: string;
  io: IoRequest;
  /** The shim's ends are not open yet. */
  fresh: boolean;
  /** Lets the shim let go of its own write end of stdin. */
  closeIo(): Promise<void>;
}

export function openIo({set, io, fresh, closeIo}: OpenOptions): OpenedIo {
  const standIns: number[] = [];
  const output = (name: string): net.Socket => {
    const file = path.join(set, name);
    const end = openRead(file);
    // Without any writer the very first read would already be the end of file; and if the shim has left already, only a writer that
    // comes and goes makes the kernel report that end to a reader that was late.
    const standIn = openWrite(file);
    if (fresh) standIns.push(standIn);
    else fs.closeSync(standIn);
    return new net.Socket({fd: end, readable: true, writable: false});
  };
  const stdin = io.stdin ? openInput(path.join(set, 'stdin'), fresh) : undefined;
  const stdout = output('stdout');
  const stderr = io.terminal ? undefined : output('stderr');
  const outputs = stderr ? [stdout, stderr] : [stdout];
  // A reader that leaves early is not an accident of ours.
  for (const stream of outputs) stream.on('error', () => undefined);
  stdin?.on('error', () => undefined);

  return {
    stdin, stdout, stderr,
    shimReady: () => {
      for (const end of standIns.splice(0)) fs.closeSync(end);
      stdin?.shimReady();
    },
    closeStdin: async () => {
      // With a terminal the shim would take the end of stdin for a hang-up; the Engine does not pass it on either.
      if (!stdin || io.terminal) return;
      await new Promise<void>(resolve => {
        if (stdin.destroyed || stdin.writableFinished) return resolve();
        stdin.once('close', resolve);
        stdin.end();
      });
      await closeIo();
    },
    detach: () => {
      for (const end of standIns.splice(0)) fs.closeSync(end);
      stdin?.destroy();
      for (const stream of outputs) stream.destroy();
    },
    release: () => {
      for (const end of standIns.splice(0)) fs.closeSync(end);
      stdin?.destroy();
      for (const stream of outputs) if (stream.readableFlowing === null && stream.listenerCount('readable') === 0) stream.destroy();
    },
  };
}

function openInput(file: string, fresh: boolean): FifoInput {
  let standIn: number | undefined;
  let end: number | undefined;
  try {
    if (fresh) standIn = openRead(file);
    end = openWrite(file);
  } catch (err) {
    // Nobody reads any more: the process has closed its stdin, or ended.
    if ((err as NodeJS.ErrnoException).code !== 'ENXIO') throw err;
  }
  return new FifoInput(file, standIn, end);
}

/** The shim opens stdin on its own time, so the first bytes wait until it has. */
class FifoInput extends Writable {
  private socket: net.Socket | undefined;
  private ready: () => void = () => undefined;
  private readonly begun: Promise<void>;

  constructor(private readonly file: string, private standIn: number | undefined, end: number | undefined) {
    // Several times what the FIFO holds: when it has room, there is something to write, and the source is not stopped after each chunk.
    super({highWaterMark: 512 * 1024});
    this.begun = new Promise(resolve => { this.ready = resolve; });
    if (standIn === undefined) this.ready();
    if (end === undefined) return;
    this.socket = new net.Socket({fd: end, readable: false, writable: true});
    this.socket.on('error', err => this.destroy(err));
  }

  shimReady(): void {
    this.ready();
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, callback: (err?: Error | null) => void): void {
    this.shimReads().then(() => {
      if (!this.socket) return callback(new CetusError('conflict', 'the process has closed its stdin'));
      this.socket.write(chunk, callback);
    }).catch(callback);
  }

  override _final(callback: (err?: Error | null) => void): void {
    // Not before the shim has opened the FIFO: bytes in a FIFO that nobody has open are lost.
    this.shimReads().then(() => {
      this.socket?.destroy();
      callback();
    }).catch(callback);
  }

  override _destroy(err: Error | null, callback: (err?: Error | null) => void): void {
    this.dropStandIn();
    this.ready();
    this.socket?.destroy();
    callback(err);
  }

  private async shimReads(): Promise<void> {
    await this.begun;
    if (this.standIn === undefined) return;
    this.dropStandIn();
    for (let tries = 0; tries < PROBE_TRIES && !this.destroyed; tries += 1) {
      try {
        fs.closeSync(openWrite(this.file));
        return;
      } catch (err) {
        const {code} = err as NodeJS.ErrnoException;
        if (code !== 'ENXIO') throw err;
      }
      await new Promise(resolve => { setTimeout(resolve, PROBE_MS); });
    }
    throw new CetusError('conflict', 'the process does not take stdin');
  }

  private dropStandIn(): void {
    if (this.standIn !== undefined) fs.closeSync(this.standIn);
    this.standIn = undefined;
  }
}
