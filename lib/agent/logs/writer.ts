/**
 * Writes one container's log. Guarantees: every byte handed to `write` is on disk (in the page cache) when `write` returns; timestamps
 * rise strictly; files are rotated between entries; a line that is still open when the agent dies is completed by the next agent.
 * Refuses nothing: log options were checked before. One writer per container, called by its stdio hub only.
 *
 * Writes are synchronous on purpose: they go to the page cache (30 us for 64 KiB), and nothing may be read from the container before
 * what was read is written. The window that a kill -9 can lose is therefore the one chunk between read(2) and write(2).
 */
import {closeSync, createReadStream, createWriteStream, existsSync, fstatSync, openSync, readFileSync, readSync, renameSync, rmSync, writeSync} from 'node:fs';
import {pipeline} from 'node:stream/promises';
import {createGzip} from 'node:zlib';
import type {Clock} from '../../base/clock';
import {EntryEncoder, runeSize, type StreamNumber} from './encode';
import type {LogOptions} from './options';

/** The Engine's copier cuts longer lines into pieces of this size. */
export const MAX_LINE = 16 * 1024;
const SIDECAR_HEADER = 24;

export class LogWriter {
  private fd: number;
  private size: number;
  private inode: number;
  private readonly encoder: EntryEncoder;
  private readonly pending: Record<StreamNumber, Buffer> = {1: Buffer.alloc(0), 2: Buffer.alloc(0)};
  private sidecar = -1;
  private sidecarUsed = false;
  private lastNs: bigint;
  private waiters: (() => void)[] = [];
  private compressing: Promise<void> = Promise.resolve();
  /** Rises with each rotation; readers that follow find "their" file again by it. */
  rotations = 0;
  closed = false;

  constructor(readonly path: string, private readonly options: LogOptions, private readonly clock: Clock) {
    this.encoder = new EntryEncoder(options.attrs);
    this.fd = openSync(path, 'a+', 0o640);
    const stat = fstatSync(this.fd);
    this.size = stat.size;
    this.inode = stat.ino;
    this.size = this.cutTornLine();
    this.lastNs = 0n;
    this.restorePending();
  }

  /** Bytes in the current file that readers may take. */
  get bytes(): number {
    return this.size;
  }

  /** The open lines' bytes: part of the output, not yet of the log. */
  open(stream: StreamNumber): Buffer {
    return this.pending[stream];
  }

  write(stream: StreamNumber, chunk: Buffer): void {
    if (this.closed || chunk.length === 0) return;
    const [seconds, nanos] = this.stamp();
    let at = 0;
    let tick = nanos;
    let open = this.pending[stream];
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
        this.entry(open, 0, cut, complete, stream, seconds, tick++);
        open = open.subarray(cut);
        if (complete) at += 1;
        continue;
      }
      if (end - at > MAX_LINE || (newline < 0 && end - at === MAX_LINE)) {
        const cut = runeBoundary(chunk, at, at + MAX_LINE);
        this.entry(chunk, at, cut, false, stream, seconds, tick++);
        at = cut;
      } else if (newline < 0) {
        open = Buffer.from(chunk.subarray(at));
        break;
      } else {
        this.entry(chunk, at, newline, true, stream, seconds, tick++);
        at = newline + 1;
      }
    }
    this.pending[stream] = open;
    this.lastNs = BigInt(seconds) * 1_000_000_000n + BigInt(tick);
    this.flush();
    this.savePending();
    this.wake();
  }

  /** The stream's end: an open line is logged without a newline, as the Engine does. */
  end(stream: StreamNumber): void {
    if (this.closed) return;
    const open = this.pending[stream];
    if (!open.length) return;
    const [seconds, nanos] = this.stamp();
    this.entry(open, 0, open.length, false, stream, seconds, nanos);
    this.pending[stream] = Buffer.alloc(0);
    this.flush();
    this.savePending();
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
    if (this.sidecar >= 0) closeSync(this.sidecar);
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

  private entry(source: Uint8Array, start: number, end: number, newline: boolean, stream: StreamNumber, seconds: number, nanos: number): void {
    if (this.size + this.encoder.size >= this.options.maxBytes) {
      this.flush();
      this.rotate();
    }
    // A chunk's entries are a nanosecond apart; the carry matters only in the last microseconds of a second.
    const carry = nanos >= 1_000_000_000 ? 1 : 0;
    this.encoder.add(source, start, end, newline, stream, seconds + carry, nanos - carry * 1_000_000_000);
  }

  private flush(): void {
    const bytes = this.encoder.take();
    let at = 0;
    while (at < bytes.length) at += writeSync(this.fd, bytes, at, bytes.length - at);
    this.size += bytes.length;
  }

  private rotate(): void {
    closeSync(this.fd);
    const {maxFiles} = this.options;
    if (maxFiles > 1) {
      for (let i = maxFiles - 1; i >= 1; i -= 1) {
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
    this.fd = openSync(this.path, 'a+', 0o640);
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
    // Opened for appending: the tear is closed with a newline, and readers skip what is no entry.
    return this.size + writeSync(this.fd, '\n');
  }

  /**
   * The open lines are kept in a side file, valid only together with the log size it names: if the agent died between the two
   * writes, the entry that closed the line is already in the log, and the side file's copy must not appear a second time.
   */
  private savePending(): void {
    const one = this.pending[1];
    const two = this.pending[2];
    if (!one.length && !two.length && !this.sidecarUsed) return;
    if (this.sidecar < 0) this.sidecar = openSync(`${this.path}.open`, 'w', 0o640);
    const record = Buffer.allocUnsafe(SIDECAR_HEADER + one.length + two.length);
    record.writeDoubleBE(this.size, 0);
    record.writeDoubleBE(this.inode, 8);
    record.writeUInt32BE(one.length, 16);
    record.writeUInt32BE(two.length, 20);
    one.copy(record, SIDECAR_HEADER);
    two.copy(record, SIDECAR_HEADER + one.length);
    writeSync(this.sidecar, record, 0, record.length, 0);
    this.sidecarUsed = one.length + two.length > 0;
  }

  private restorePending(): void {
    const path = `${this.path}.open`;
    if (!existsSync(path)) return;
    const record = readFileSync(path);
    if (record.length < SIDECAR_HEADER || record.readDoubleBE(0) !== this.size || record.readDoubleBE(8) !== this.inode) return;
    const one = record.readUInt32BE(16);
    const two = record.readUInt32BE(20);
    if (record.length < SIDECAR_HEADER + one + two) return;
    this.pending[1] = Buffer.from(record.subarray(SIDECAR_HEADER, SIDECAR_HEADER + one));
    this.pending[2] = Buffer.from(record.subarray(SIDECAR_HEADER + one, SIDECAR_HEADER + one + two));
    this.sidecarUsed = one + two > 0;
    // Opened again only by the next save, which rewrites the whole record in place.
    this.sidecar = openSync(path, 'r+');
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
