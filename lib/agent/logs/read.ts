/**
 * Reads one container's log as frames: from the end backwards for `tail`, forwards otherwise, through rotated and compressed files,
 * and on with `follow` until the writer closes. Yields large buffers; memory is bounded by a block and one entry.
 * `tail` counts entries of both streams before streams and times are filtered, as the Engine does.
 */
import {type FileHandle, open, readFile} from 'node:fs/promises';
import {promisify} from 'node:util';
import {gunzip} from 'node:zlib';
import {CetusError} from '../../base/errors';
import type {LogsQuery} from '../../schema/agent';
import {rotatedFiles} from './rotated';
import {EntryScanner} from './scan';
import type {LogWriter} from './writer';

/** What a follower that stands still holds, three times over: a thousand of them must not be felt. */
const BLOCK = 64 * 1024;
/** Room for the rest of a usual last line; longer ones make more. */
const REST = 16 * 1024;
/** An entry is at most 16 KiB of text, six bytes each, plus attributes: what is longer is no entry. */
const MAX_ENTRY = 1024 * 1024;

export interface LogSource {
  path: string;
  maxFiles: number;
  /** Present while the container runs. */
  writer?: LogWriter;
}

export type ReadQuery = Pick<LogsQuery, 'stdout' | 'stderr' | 'timestamps' | 'details' | 'sinceNs' | 'untilNs' | 'tail'> & {follow: boolean; multiplex: boolean};

export async function* readLogs(source: LogSource, query: ReadQuery, signal?: AbortSignal): AsyncGenerator<Buffer> {
  const scanner = new EntryScanner({
    stdout: query.stdout, stderr: query.stderr, timestamps: query.timestamps, details: query.details, multiplex: query.multiplex,
    sinceNs: parseBound(query.sinceNs), untilNs: parseBound(query.untilNs),
  });
  const {writer} = source;
  // Everything up to here is read now; what comes later is `follow`'s. Taken in one tick, so that no rotation lies between.
  const rotations = writer?.rotations ?? 0;
  const end = writer ? writer.bytes : undefined;
  const current = await openIfThere(source.path);
  const older = await openRotated(source);
  try {
    // A rotation while the files were being opened moved them by one: start again.
    if (writer && writer.rotations !== rotations) {
      yield* readLogs(source, query, signal);
      return;
    }
    const files: LogFile[] = [...older, ...(current ? [{handle: current, size: end ?? (await current.stat()).size}] : [])];
    let skip: {file: number; offset: number} = {file: 0, offset: 0};
    if (query.tail >= 0) skip = await findTail(files, query.tail);
    for (let i = skip.file; i < files.length && !signal?.aborted && !scanner.pastUntil; i += 1)
      yield* scanFile(files[i]!, i === skip.file ? skip.offset : 0, scanner, signal);
    if (query.follow && writer && current) yield* follow(source, writer, current, end!, rotations, scanner, signal);
  } finally {
    await current?.close().catch(() => undefined);
    for (const file of older) if ('handle' in file) await file.handle.close().catch(() => undefined);
  }
}

type LogFile = {handle: FileHandle; size: number} | {bytes: Buffer; size: number};

async function openRotated(source: LogSource): Promise<LogFile[]> {
  const files: LogFile[] = [];
  for (const i of rotatedFiles(source.path).filter((number) => number < source.maxFiles).reverse()) {
    const file = await openOne(`${source.path}.${i}`);
    if (file) files.push('handle' in file ? {handle: file.handle, size: (await file.handle.stat()).size} : file);
  }
  return files;
}

/** Plain or compressed. A rotated file is at most max-size long, so it is unpacked whole. */
async function openOne(path: string): Promise<LogFile | undefined> {
  const handle = await openIfThere(path);
  if (handle) return {handle, size: Infinity};
  try {
    const bytes = await promisify(gunzip)(await readFile(`${path}.gz`), {maxOutputLength: 1024 ** 3});
    return {bytes, size: bytes.length};
  } catch (err) {
    if ((err as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw err;
  }
}

async function openIfThere(path: string): Promise<FileHandle | undefined> {
  try {
    return await open(path, 'r');
  } catch (err) {
    if ((err as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw err;
  }
}

async function readBlock(file: LogFile, buffer: Buffer, at: number, position: number, length: number): Promise<number> {
  if ('bytes' in file) return file.bytes.copy(buffer, at, position, position + length);
  return (await file.handle.read(buffer, at, length, position)).bytesRead;
}

async function* scanFile(file: LogFile, from: number, scanner: EntryScanner, signal?: AbortSignal): AsyncGenerator<Buffer> {
  const lines = new LineSplitter(scanner);
  let position = from;
  while (position < file.size && !signal?.aborted && !scanner.pastUntil) {
    const room = lines.room();
    const got = await readBlock(file, room.buffer, room.at, position, Math.min(BLOCK, file.size - position));
    if (got === 0) break;
    position += got;
    lines.filled(got);
    if (scanner.size) yield scanner.take();
  }
}

/** Cuts blocks into lines for the scanner and keeps the rest of the last line for the next block. */
class LineSplitter {
  private buffer = Buffer.allocUnsafe(BLOCK + REST);
  private rest = 0;

  constructor(private readonly scanner: EntryScanner) {}

  room(): {buffer: Buffer; at: number} {
    if (this.rest > MAX_ENTRY) this.rest = 0;
    if (this.buffer.length - this.rest < BLOCK) {
      const grown = Buffer.allocUnsafe(this.rest + BLOCK);
      this.buffer.copy(grown, 0, 0, this.rest);
      this.buffer = grown;
    }
    return {buffer: this.buffer, at: this.rest};
  }

  filled(bytes: number): void {
    const {buffer} = this;
    const end = this.rest + bytes;
    let line = 0;
    let search = this.rest;
    while (!this.scanner.pastUntil) {
      const newline = buffer.indexOf(0x0a, search);
      if (newline < 0 || newline >= end) break;
      this.scanner.add(buffer, line, newline);
      line = newline + 1;
      search = line;
    }
    buffer.copyWithin(0, line, end);
    this.rest = end - line;
  }
}

/** Where the last `n` entries begin: newlines are counted from the end backwards, block by block. */
async function findTail(files: LogFile[], n: number): Promise<{file: number; offset: number}> {
  if (n === 0) return {file: files.length, offset: 0};
  const block = Buffer.allocUnsafe(64 * 1024);
  let left = n;
  for (let i = files.length - 1; i >= 0; i -= 1) {
    const file = files[i]!;
    let end = file.size;
    while (end > 0) {
      const length = Math.min(block.length, end);
      const got = await readBlock(file, block, 0, end - length, length);
      let at = got;
      for (;;) {
        // The newline that ends the file's last entry begins nothing.
        const from = end === file.size && at === got ? at - 2 : at - 1;
        at = from < 0 ? -1 : block.lastIndexOf(0x0a, from);
        if (at < 0) break;
        left -= 1;
        if (left === 0) return {file: i, offset: end - length + at + 1};
      }
      end -= length;
    }
    if (file.size > 0) {
      left -= 1;
      if (left === 0) return {file: i, offset: 0};
    }
  }
  return {file: 0, offset: 0};
}

async function* follow(source: LogSource, writer: LogWriter, first: FileHandle, from: number, born: number, scanner: EntryScanner, signal?: AbortSignal): AsyncGenerator<Buffer> {
  let file: LogFile = {handle: first, size: Infinity};
  let position = from;
  let mine = born;
  let lines = new LineSplitter(scanner);
  const aborted = signal && new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve(), {once: true}));
  try {
    while (!signal?.aborted && !scanner.pastUntil) {
      // Taken before the read: if nothing is read although the file was already rotated away, nothing more will come from it.
      const changed = writer.changed();
      const rotated = writer.rotations !== mine;
      const closed = writer.closed;
      const room = lines.room();
      const got = await readBlock(file, room.buffer, room.at, position, BLOCK);
      if (got > 0) {
        position += got;
        lines.filled(got);
        if (scanner.size) yield scanner.take();
      } else if (rotated) {
        const next = await openGeneration(source, writer, mine + 1);
        if ('handle' in file && file.handle !== first) await file.handle.close();
        file = next.file;
        mine = next.generation;
        position = 0;
        lines = new LineSplitter(scanner);
      } else if (closed) {
        return;
      } else {
        await (aborted ? Promise.race([changed, aborted]) : changed);
      }
    }
  } finally {
    if ('handle' in file && file.handle !== first) await file.handle.close().catch(() => undefined);
  }
}

/** The file that was current after `generation` rotations, or the oldest that is left of those after it. */
async function openGeneration(source: LogSource, writer: LogWriter, generation: number): Promise<{file: LogFile; generation: number}> {
  for (let tries = 0; tries < 100; tries += 1) {
    for (let g = generation; g <= writer.rotations; g += 1) {
      const before = writer.rotations;
      const age = before - g;
      const file = await openOne(age === 0 ? source.path : `${source.path}.${age}`);
      if (!file) continue;
      if (writer.rotations === before) return {file, generation: g};
      if ('handle' in file) await file.handle.close();
      break;
    }
  }
  throw new CetusError('unavailable', 'the log is rotated faster than it can be read');
}

/** Nanoseconds since the epoch; undefined for ''. */
export function parseBound(ns: string): bigint | undefined {
  if (ns === '') return undefined;
  if (!/^\d{1,20}$/.test(ns)) throw new CetusError('invalid', `invalid time "${ns}"`);
  return BigInt(ns);
}
