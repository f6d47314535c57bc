/**
 * Our end of a process's stdin FIFO as a stream. Promises: no byte is written before the shim has opened its end, none is lost between our
 * end's closing and the shim's reading, and a process that does not read holds the source back and nothing else.
 *
 * A FIFO holds 64 KiB and the shim reads 4 KiB at a time: written to whenever it has room, each read wakes us for 4 KiB more, which costs
 * more than the bytes. So a stream that brings much gets a FIFO of 1 MiB, and a full one is left alone for a millisecond, in which the shim
 * works off what is there. Node cannot ask for the size (fcntl); perl can, which every Debian and Ubuntu has. Without it, or where the
 * kernel refuses, the small FIFO is polled.
 */
import {spawn} from 'node:child_process';
import fs from 'node:fs';
import net from 'node:net';
import {Writable} from 'node:stream';
import {CetusError} from '../../base/errors';
import {openRead, openWrite} from './fifos';

const PROBE_MS = 1;
const PROBE_TRIES = 10_000;
/** Several times what the FIFO first holds: when it has room there is something to write, and the source is not stopped after each chunk. */
const GATHER_BYTES = 512 * 1024;
/** A stream that has brought so much is worth a fork. */
const MUCH_BYTES = 1024 * 1024;
const WIDE_BYTES = 1024 * 1024;
const FULL_PAUSE_MS = 1;
/** Less than the kernel takes or refuses whole. */
const PROBE_BYTES = 4096;
const F_SETPIPE_SZ = 1031;
const WIDEN_TIMEOUT_MS = 5_000;

type Done = (err?: Error | null) => void;

/** The shim opens stdin on its own time, so the first bytes wait until it has. */
export class FifoInput extends Writable {
  private socket: net.Socket | undefined;
  private ready: () => void = () => undefined;
  private readonly begun: Promise<void>;
  private width: 'small' | 'asked' | 'wide' = 'small';
  private taken = 0;
  private pause: NodeJS.Timeout | undefined;

  /** `fd` undefined: nobody reads any more. `standIn`: a read end of ours, until the shim has been told to open its own. */
  constructor(private readonly file: string, private standIn: number | undefined, private readonly fd: number | undefined) {
    super({highWaterMark: GATHER_BYTES});
    this.begun = new Promise(resolve => { this.ready = resolve; });
    if (standIn === undefined) this.ready();
    if (fd === undefined) return;
    this.socket = new net.Socket({fd, readable: false, writable: true});
    this.socket.on('error', err => this.destroy(err));
  }

  shimReady(): void {
    this.ready();
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, callback: Done): void {
    this.take([chunk], chunk.length, callback);
  }

  override _writev(items: {chunk: Buffer}[], callback: Done): void {
    const chunks = items.map(({chunk}) => chunk);
    this.take(chunks, chunks.reduce((sum, {length}) => sum + length, 0), callback);
  }

  override _final(callback: Done): void {
    // Not before the shim has opened the FIFO: bytes in a FIFO that nobody has open are lost.
    this.shimReads().then(() => {
      this.socket?.destroy();
      callback();
    }).catch(callback);
  }

  override _destroy(err: Error | null, callback: Done): void {
    this.dropStandIn();
    this.ready();
    clearTimeout(this.pause);
    this.socket?.destroy();
    callback(err);
  }

  private take(chunks: Buffer[], bytes: number, callback: Done): void {
    this.shimReads().then(() => {
      if (!this.socket) return callback(new CetusError('conflict', 'the process has closed its stdin'));
      this.taken += bytes;
      if (this.width === 'small' && this.taken >= MUCH_BYTES) this.widen();
      if (this.width === 'wide') return this.fill(chunks, callback);
      for (const chunk of chunks.slice(0, -1)) this.socket.write(chunk);
      this.socket.write(chunks[chunks.length - 1]!, callback);
    }).catch(callback);
  }

  /** As much as there is room for, at once; then a pause, in which the shim makes room for many reads of its. */
  private fill(chunks: Buffer[], callback: Done): void {
    if (this.destroyed || !this.socket || this.fd === undefined) return callback(new CetusError('conflict', 'the process has closed its stdin'));
    let written: number;
    try {
      written = fs.writevSync(this.fd, chunks);
    } catch (err) {
      if ((err as NodeJS.ErrnoException).code !== 'EAGAIN') return callback(err as Error);
      return this.poll(chunks, callback);
    }
    const rest = after(chunks, written);
    if (rest.length === 0) return callback();
    this.pause = setTimeout(() => this.fill(rest, callback), FULL_PAUSE_MS);
  }

  /** Nothing was read in the whole pause: the kernel tells when that changes. */
  private poll(chunks: Buffer[], callback: Done): void {
    const first = chunks[0]!.subarray(0, PROBE_BYTES);
    this.socket!.write(first, (err) => {
      if (err) return callback(err);
      const rest = after(chunks, first.length);
      if (rest.length === 0) return callback();
      this.pause = setTimeout(() => this.fill(rest, callback), FULL_PAUSE_MS);
    });
  }

  private widen(): void {
    this.width = 'asked';
    // Its descriptor 0 is an end opened for it alone: Node makes what a child inherits blocking, and our own end would become so with it.
    let end: number;
    try {
      end = openWrite(this.file);
    } catch {
      return; // nobody reads any more, or the container is being taken away
    }
    const child = spawn('perl', ['-e', `exit(fcntl(STDIN, ${F_SETPIPE_SZ}, ${WIDE_BYTES}) ? 0 : 1)`], {stdio: [end, 'ignore', 'ignore'], cwd: '/', timeout: WIDEN_TIMEOUT_MS});
    fs.closeSync(end);
    child.on('error', () => undefined);
    child.on('exit', (code) => {
      if (code === 0) this.width = 'wide';
    });
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

export function openInput(file: string, fresh: boolean): FifoInput {
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

/** What is left of `chunks` behind their first bytes. */
function after(chunks: Buffer[], bytes: number): Buffer[] {
  let skip = bytes;
  for (let i = 0; i < chunks.length; i += 1) {
    const chunk = chunks[i]!;
    if (skip < chunk.length) return [chunk.subarray(skip), ...chunks.slice(i + 1)];
    skip -= chunk.length;
  }
  return [];
}
