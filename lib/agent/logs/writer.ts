/**
 * Writes one container's log. Guarantees: every byte handed to `write` is on disk (in the page cache) when `write` returns; timestamps
 * rise strictly; files are rotated between entries; a line that is still open when the agent dies is completed by the next agent.
 * Refuses nothing: log options were checked before. One writer per container, called by its stdio hub only.
 *
 * Where the disk takes nothing a chunk is left out, as the Engine does, and `trouble` is told: a container does not stand still for its log,
 * nor do clients that are attached. What is in the log stays whole, and the log goes on as soon as the disk takes it.
 *
 * Writes are synchronous on purpose: they go to the page cache (30 us for 64 KiB), and nothing may be read from the container before
 * what was read is written. First of all the raw chunk is written down (redo.ts), before anything is made of it: encoding takes a third of a
 * millisecond for 64 KiB, and many in a process that has just started. What a kill -9 can lose is the one chunk between read(2) and that.
 */
import {closeSync, createReadStream, createWriteStream, existsSync, fstatSync, ftruncateSync, openSync, readSync, renameSync, rmSync} from 'node:fs';
import {pipeline} from 'node:stream/promises';
import {createGzip} from 'node:zlib';
import type {Clock} from '../../base/clock';
import {appendWhole} from '../append';
import {EntryEncoder, runeSize, type StreamNumber} from './encode';
import type {LogOptions} from './options';
import {MAX_STEP_BYTES, RedoFile, type Step} from './redo';
import {rotatedFiles} from './rotated';

/** The Engine's copier cuts longer lines into pieces of this size. */
export const MAX_LINE = 16 * 1024;
const NONE = Buffer.alloc(0);

/** `err`: the first chunk that was left out; without one: the log goes on, and so many bytes are missing. */
export type LogTrouble = (lost: {err: unknown} | {bytes: number}) => void;

export class LogWriter {
  private fd: number;
  private size: number;
  private inode: number;
  private readonly encoder: EntryEncoder;
  private readonly pending: Record<StreamNumber, Buffer> = {1: Buffer.alloc(0), 2: Buffer.alloc(0)};
  private readonly redo: RedoFile;
  private lastNs = 0n;
  private waiters: (() => void)[] = [];
  private compressing: Promise<void> = Promise.resolve();
  /** Bytes left out since the disk took the last. */
  private lost = 0;
  /** Rises with each rotation; readers that follow find "their" file again by it. */
  rotations = 0;
  closed = false;

  constructor(readonly path: string, private readonly options: LogOptions, private readonly clock: Clock, private readonly trouble: LogTrouble = () => undefined) {
    this.encoder = new EntryEncoder(options.attrs);
    this.fd = openSync(path, 'a+', 0o640);
    const stat = fstatSync(this.fd);
    this.size = stat.size;
    this.inode = stat.ino;
    this.redo = new RedoFile(`${path}.open`);
    const last = this.redo.load();
    if (last && (last.rotates || (last.inode === this.inode && last.size <= this.size))) this.again(last);
    else this.size = this.cutTornLine();
  }

  /** Bytes in the current file that readers may take. */
  get bytes(): number {
    return this.size;
  }

  /** The open lines' bytes: part of the output, not yet of the log. */
  open(stream: StreamNumber): Buffer {
    return this.pending[stream];
  }

  /** The chunk is copied: its memory is the caller's again afterwards. */
  write(stream: StreamNumber, chunk: Buffer): void {
    if (this.closed) return;
    for (let at = 0; at < chunk.length; at += MAX_STEP_BYTES) {
      const part = at === 0 && chunk.length <= MAX_STEP_BYTES ? chunk : chunk.subarray(at, at + MAX_STEP_BYTES);
      const [seconds, nanos] = this.stamp();
      this.attempt(part.length, () => {
        this.save('write', stream, seconds, nanos, part);
        this.take(stream, part, seconds, nanos);
      });
    }
  }

  /** The stream's end: an open line is logged without a newline, as the Engine does. */
  end(stream: StreamNumber): void {
    if (this.closed || !this.pending[stream].length) return;
    const [seconds, nanos] = this.stamp();
    this.attempt(this.pending[stream].length, () => {
      this.save('end', stream, seconds, nanos, NONE);
      this.finish(stream, seconds, nanos);
    });
  }

  /** One step, which a disk that takes nothing leaves out. */
  private attempt(bytes: number, step: () => void): void {
    try {
      step();
    } catch (err) {
      this.encoder.take();
      if (this.lost === 0) this.trouble({err});
      this.lost += bytes;
      return;
    }
    if (this.lost) this.trouble({bytes: this.lost});
    this.lost = 0;
  }

  private save(kind: Step['kind'], stream: StreamNumber, seconds: number, nanos: number, chunk: Buffer, rotates = false): void {
    this.redo.save({kind, stream, seconds, nanos, size: rotates ? 0 : this.size, inode: this.inode, rotates, open: this.pending, chunk});
  }

  /** What a killed agent began: done in full or in part, or not at all. */
  private again(step: Step): void {
    if (step.rotates && step.inode === this.inode) this.rotate();
    ftruncateSync(this.fd, step.size);
    this.size = step.size;
    // The bytes are the file's that is written next.
    this.pending[1] = Buffer.from(step.open[1]);
    this.pending[2] = Buffer.from(step.open[2]);
    this.lastNs = BigInt(step.seconds) * 1_000_000_000n + BigInt(step.nanos);
    this.attempt(step.chunk.length, () => {
      if (step.kind === 'write') this.take(step.stream, step.chunk, step.seconds, step.nanos);
      else this.finish(step.stream, step.seconds, step.nanos);
    });
  }

  private take(stream: StreamNumber, chunk: Buffer, seconds: number, nanos: number): void {
    let at = 0;
    let tick = nanos;
    let open = this.pending[stream];
    const entry = (source: Buffer, from: number, to: number, newline: boolean): void => {
      if (this.full) {
        this.pending[stream] = open;
        this.turn('write', stream, seconds, tick, chunk.subarray(at));
      }
      this.encode(source, from, to, newline, stream, seconds, tick++);
    };
    while (at < chunk.length) {
      const newline = chunk.indexOf(0x0a, at);
      const end = newline < 0 ? chunk.length : newline;
      if (open.length) {
        const take = Math.min(end - at, MAX_LINE - open.length);
        open = Buffer.concat([open, chunk.subarray(at, at + take)]);
        at += take;
        const complete = newline >= 0 && at === newline;
        if (!complete && open.length < MAX_LINE) break;
        const cut = complete ? open.length : runeBoundary(open, 0, open.length);
        entry(open, 0, cut, complete);
        open = open.subarray(cut);
        if (complete) at += 1;
        continue;
      }
      if (end - at > MAX_LINE || (newline < 0 && end - at === MAX_LINE)) {
        const cut = runeBoundary(chunk, at, at + MAX_LINE);
        entry(chunk, at, cut, false);
        at = cut;
      } else if (newline < 0) {
        open = Buffer.from(chunk.subarray(at));
        break;
      } else {
        entry(chunk, at, newline, true);
        at = newline + 1;
      }
    }
    this.pending[stream] = open;
    this.lastNs = BigInt(seconds) * 1_000_000_000n + BigInt(tick);
    this.flush();
    this.wake();
  }

  private finish(stream: StreamNumber, seconds: number, nanos: number): void {
    if (this.full) this.turn('end', stream, seconds, nanos, NONE);
    const open = this.pending[stream];
    this.encode(open, 0, open.length, false, stream, seconds, nanos);
    this.pending[stream] = NONE;
    this.flush();
    this.wake();
  }

  /** `suspend`: the agent goes, the container stays; open lines stay open for the next agent. */
  async close(mode: 'end' | 'suspend' = 'end'): Promise<void> {
    if (this.closed) return;
    if (mode === 'end') {
      this.end(1);
      this.end(2);
    }
    this.closed = true;
    closeSync(this.fd);
    this.redo.close();
    if (mode === 'end') rmSync(`${this.path}.open`, {force: true});
    this.wake();
    await this.compressing;
  }

  /** Resolves at the next write, rotation or close. */
  changed(): Promise<void> {
    return this.closed ? Promise.resolve() : new Promise((resolve) => this.waiters.push(resolve));
  }

  private wake(): void {
    if (!this.waiters.length) return;
    const waiters = this.waiters;
    this.waiters = [];
    for (const resolve of waiters) resolve();
  }

  private stamp(): [seconds: number, nanos: number] {
    let ns = this.clock.nowNs();
    if (ns <= this.lastNs) ns = this.lastNs + 1n;
    this.lastNs = ns;
    return [Number(ns / 1_000_000_000n), Number(ns % 1_000_000_000n)];
  }

  private get full(): boolean {
    return this.size + this.encoder.size >= this.options.maxBytes;
  }

  /** Rotates in the middle of a step: what is left of it is written down as a step of its own, which begins with the rotation. */
  private turn(kind: Step['kind'], stream: StreamNumber, seconds: number, nanos: number, rest: Buffer): void {
    this.flush();
    this.save(kind, stream, seconds, nanos, rest, true);
    this.rotate();
  }

  private encode(source: Uint8Array, start: number, end: number, newline: boolean, stream: StreamNumber, seconds: number, nanos: number): void {
    // A chunk's entries are a nanosecond apart; the carry matters only in the last microseconds of a second.
    const carry = nanos >= 1_000_000_000 ? 1 : 0;
    this.encoder.add(source, start, end, newline, stream, seconds + carry, nanos - carry * 1_000_000_000);
  }

  private flush(): void {
    const bytes = this.encoder.take();
    appendWhole(this.fd, bytes, this.size);
    this.size += bytes.length;
  }

  private rotate(): void {
    const {maxFiles} = this.options;
    // A rotation that found no room for the new file has moved the others already.
    if (maxFiles > 1 && existsSync(this.path)) {
      // The first free number is where the moving ends.
      const present = rotatedFiles(this.path);
      const gap = present.findIndex((number, at) => number !== at + 1);
      for (let i = Math.min(maxFiles - 1, (gap < 0 ? present.length : gap) + 1); i >= 1; i -= 1) {
        for (const suffix of ['', '.gz']) {
          const from = i === 1 ? `${this.path}${suffix}` : `${this.path}.${i - 1}${suffix}`;
          if (suffix && i === 1) continue;
          const to = `${this.path}.${i}${suffix}`;
          // The other form of the slot's old owner must not survive beside the new one.
          if (existsSync(from)) {
            rmSync(`${this.path}.${i}${suffix ? '' : '.gz'}`, {force: true});
            renameSync(from, to);
          }
        }
      }
    }
    // A new file instead of a truncated one: a reader in the middle of the old one keeps it.
    if (maxFiles === 1) rmSync(this.path, {force: true});
    const next = openSync(this.path, 'a+', 0o640);
    // Not before there is another: a number that was given back is soon some other file's.
    closeSync(this.fd);
    this.fd = next;
    this.size = 0;
    this.inode = fstatSync(this.fd).ino;
    this.rotations += 1;
    if (this.options.compress && maxFiles > 1) this.compressLater(this.rotations);
  }

  /** Compresses the file that rotation number `born` made, wherever later rotations have moved it by then. */
  private compressLater(born: number): void {
    this.compressing = this.compressing.then(async () => {
      const slot = (): string => `${this.path}.${this.rotations - born + 1}`;
      const temporary = `${this.path}.gz.tmp`;
      try {
        if (!existsSync(slot())) return;
        await pipeline(createReadStream(slot()), createGzip(), createWriteStream(temporary));
        const now = slot();
        if (!existsSync(now)) return;
        renameSync(temporary, `${now}.gz`);
        rmSync(now, {force: true});
      } finally {
        rmSync(temporary, {force: true});
      }
    }).catch(() => undefined); // the plain file stays, which readers take as well
  }

  /** A write cut short by a crash of the machine leaves half an entry: it is taken away. */
  private cutTornLine(): number {
    if (this.size === 0) return 0;
    const window = Math.min(this.size, 256 * 1024);
    const tail = Buffer.allocUnsafe(window);
    const got = readSync(this.fd, tail, 0, window, this.size - window);
    const newline = tail.subarray(0, got).lastIndexOf(0x0a);
    const whole = this.size - window + newline + 1;
    if (whole === this.size) return this.size;
    try {
      // Opened for appending: the tear is closed with a newline, and readers skip what is no entry.
      appendWhole(this.fd, Buffer.from('\n'), this.size);
      return this.size + 1;
    } catch {
      ftruncateSync(this.fd, whole);
      return whole;
    }
  }
}

/** The largest cut in (start, end] that does not split a character; at most three bytes earlier. */
function runeBoundary(bytes: Uint8Array, start: number, end: number): number {
  for (let back = 1; back <= 3 && end - back > start; back += 1) {
    const b = bytes[end - back]!;
    if (b < 0x80) return end;
    if (b >= 0xc0) return runeSize(bytes, end - back, end) === 0 ? end - back : end;
  }
  return end;
}
