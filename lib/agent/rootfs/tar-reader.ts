/**
 * Reads a tar (v7, ustar, GNU, pax), synchronously and by blocks from one buffer: content goes on to where it belongs without being copied. Names,
 * attributes and link targets stay bytes. As lenient as the Engine's reader: the end may come at any block's boundary and in the last padding; and
 * as strict: everything else that is not as it says is `archive/tar: invalid tar header`, and an end in between is `unexpected EOF`.
 *
 * Formats: POSIX.1-2001 (pax), and GNU tar's manual for long names and sparse files.
 */
import {UNEXPECTED_END, failed} from './failures';
import {invalidHeader, number, whole} from './tar-fields';
import {type Sparse, oldSparse, paxSparse} from './tar-sparse';

const BLOCK = 512;
/** Of what describes the next entry: longer ones the Engine refuses, too. */
const MAX_META_BYTES = 1024 * 1024;
const BUFFER = 1024 * 1024;
const XATTR = 'SCHILY.xattr.';
const META = new Set(['L', 'K', 'x', 'g']);

/** Byte strings (latin1) throughout. */
export interface TarHeader {
  /** As it stands in the header: '0' a file, '5' a directory, ... */
  type: string;
  name: string;
  linkname: string;
  mode: number;
  uid: number;
  gid: number;
  /** Of the file; what the archive holds of a sparse one is less. */
  size: number;
  /** Seconds, with a fraction. */
  mtime: number;
  major: number;
  minor: number;
  xattrs: Map<string, Buffer>;
  sparse?: Sparse;
}

/** Fills the buffer's part and answers how much; 0 at the end. */
export type Source = (into: Buffer, offset: number, length: number) => number;

export class TarReader {
  private readonly buffer = Buffer.allocUnsafeSlow(BUFFER);
  private start = 0;
  private end = 0;
  /** Of the current entry: bytes of content not read yet, and of padding behind them. */
  private left = 0;
  private padding = 0;

  constructor(private readonly source: Source) {}

  /** The next entry, whatever is left of the last one being passed over; undefined at the end. */
  next(): TarHeader | undefined {
    let records = new Map<string, Buffer>();
    let sparseNumbers: string[] = [];
    let longName: string | undefined;
    let longLink: string | undefined;
    for (;;) {
      const block = this.nextBlock();
      if (!block) return undefined;
      const header = parseHeader(block);
      this.expect(header.size);
      if (META.has(header.type)) {
        const body = this.meta();
        if (header.type === 'L') longName = cut(body);
        else if (header.type === 'K') longLink = cut(body);
        else if (header.type === 'x') [records, sparseNumbers] = parsePax(body);
        continue;
      }
      if (longName !== undefined) header.name = longName;
      if (longLink !== undefined) header.linkname = longLink;
      const oldMap = header.type === 'S' ? oldSparse(block, () => this.wholeBlock()) : undefined;
      applyPax(header, records);
      // What a link or a directory claims to contain is not there.
      this.expect(hasContent(header.type) ? header.size : 0);
      header.sparse = oldMap ?? paxSparse(records, sparseNumbers, header, () => this.contentBlock());
      if (header.sparse) header.size = header.sparse.size;
      if (header.type === 'S') header.type = '0';
      return header;
    }
  }

  /** Gives what there is of the content, as it lies in the buffer, until all of it was given. */
  content(take: (buffer: Buffer, offset: number, length: number) => void): void {
    while (this.left > 0) {
      if (this.start === this.end && !this.fill()) throw failed(UNEXPECTED_END);
      const length = Math.min(this.left, this.end - this.start);
      take(this.buffer, this.start, length);
      this.start += length;
      this.left -= length;
    }
  }

  /** Reads to the source's end, past the archive's: whoever sends wants to get rid of all of it. */
  drain(): void {
    do this.start = this.end; while (this.fill());
  }

  private expect(size: number): void {
    this.left = size;
    this.padding = (BLOCK - (size % BLOCK)) % BLOCK;
  }

  private nextBlock(): Buffer | undefined {
    this.content(() => undefined);
    this.pass(this.padding);
    const block = this.block();
    if (!block) return undefined;
    if (!isZero(block)) return block;
    const second = this.block();
    if (second && !isZero(second)) throw invalidHeader();
    return undefined;
  }

  private meta(): Buffer {
    if (this.left > MAX_META_BYTES) throw failed('archive/tar: header field too long');
    const parts: Buffer[] = [];
    this.content((buffer, offset, length) => void parts.push(Buffer.from(buffer.subarray(offset, offset + length))));
    return Buffer.concat(parts);
  }

  /** A block of the entry's content. */
  private contentBlock(): Buffer {
    const block = this.wholeBlock();
    this.left -= BLOCK;
    if (this.left < 0) throw invalidHeader();
    return block;
  }

  private wholeBlock(): Buffer {
    const block = this.block();
    if (!block) throw failed(UNEXPECTED_END);
    return block;
  }

  /** A copy: the buffer goes on. undefined at the end. */
  private block(): Buffer | undefined {
    while (this.end - this.start < BLOCK)
      if (!this.fill()) {
        if (this.start === this.end) return undefined;
        throw failed(UNEXPECTED_END);
      }
    const block = Buffer.from(this.buffer.subarray(this.start, this.start + BLOCK));
    this.start += BLOCK;
    return block;
  }

  private pass(bytes: number): void {
    while (bytes > 0) {
      if (this.start === this.end && !this.fill()) return;
      const length = Math.min(bytes, this.end - this.start);
      this.start += length;
      bytes -= length;
    }
  }

  private fill(): boolean {
    if (this.start === this.end) this.start = this.end = 0;
    else if (this.end === BUFFER) {
      this.buffer.copy(this.buffer, 0, this.start, this.end);
      [this.start, this.end] = [0, this.end - this.start];
    }
    const length = this.source(this.buffer, this.end, BUFFER - this.end);
    this.end += length;
    return length > 0;
  }
}

const isZero = (block: Buffer): boolean => block.every((byte) => byte === 0);
const cut = (bytes: Buffer): string => bytes.toString('latin1').split('\0', 1)[0]!;
/** Links, devices, directories and FIFOs have none, whatever they claim. */
const hasContent = (type: string): boolean => !/[1-6]/.test(type);

function parseHeader(block: Buffer): TarHeader {
  checkSum(block);
  const magic = block.toString('latin1', 257, 263);
  const version = block.toString('latin1', 263, 265);
  const ustar = magic === 'ustar\0' && version === '00';
  const gnu = magic === 'ustar ' && version === ' \0';
  const text = (at: number, length: number): string => cut(block.subarray(at, at + length));
  let name = text(0, 100);
  const prefix = ustar ? text(345, 155) : '';
  if (prefix) name = `${prefix}/${name}`;
  const type = String.fromCharCode(block[156]!);
  const header: TarHeader = {
    // Of old a directory is told by its name alone.
    type: type === '\0' ? (name.endsWith('/') ? '5' : '0') : type, name, linkname: text(157, 100),
    mode: number(block, 100, 8), uid: number(block, 108, 8), gid: number(block, 116, 8), size: number(block, 124, 12), mtime: number(block, 136, 12),
    major: ustar || gnu ? number(block, 329, 8) : 0, minor: ustar || gnu ? number(block, 337, 8) : 0, xattrs: new Map(),
  };
  if (header.size < 0) throw invalidHeader();
  return header;
}

/** Over the block with its own field as blanks; some old writers took bytes for signed. */
function checkSum(block: Buffer): void {
  let unsigned = 0;
  let signed = 0;
  for (let i = 0; i < BLOCK; i += 1) {
    const byte = i >= 148 && i < 156 ? 0x20 : block[i]!;
    unsigned += byte;
    signed += byte > 127 ? byte - 256 : byte;
  }
  const said = number(block, 148, 8);
  if (said !== unsigned && said !== signed) throw invalidHeader();
}

/** "LENGTH KEY=VALUE\n" ... The numbers of a sparse map come as one key over and over. */
function parsePax(body: Buffer): [Map<string, Buffer>, string[]] {
  const records = new Map<string, Buffer>();
  const sparse: string[] = [];
  for (let at = 0; at < body.length;) {
    const blank = body.indexOf(0x20, at);
    const digits = blank < 0 ? '' : body.toString('latin1', at, blank);
    const length = Number(digits);
    if (!/^\d{1,9}$/.test(digits) || at + length > body.length || at + length <= blank || body[at + length - 1] !== 0x0a) throw invalidHeader();
    const line = body.subarray(blank + 1, at + length - 1);
    const equals = line.indexOf(0x3d);
    if (equals <= 0) throw invalidHeader();
    const key = line.toString('latin1', 0, equals);
    const value = Buffer.from(line.subarray(equals + 1));
    if (key === 'GNU.sparse.offset' || key === 'GNU.sparse.numbytes') sparse.push(value.toString('latin1'));
    else records.set(key, value);
    at += length;
  }
  return [records, sparse];
}

const PLAIN = {path: 'name', linkpath: 'linkname'} as const;

function applyPax(header: TarHeader, records: Map<string, Buffer>): void {
  for (const [key, value] of records) {
    const text = value.toString('latin1');
    if (key.startsWith(XATTR)) header.xattrs.set(key.slice(XATTR.length), value);
    // An empty value takes the record back.
    else if (text === '') continue;
    else if (key === 'path' || key === 'linkpath') {
      if (text.includes('\0')) throw invalidHeader();
      header[PLAIN[key]] = text;
    } else if (key === 'size' || key === 'uid' || key === 'gid') header[key] = whole(text);
    else if (key === 'mtime') {
      if (!/^-?\d+(\.\d*)?$/.test(text)) throw invalidHeader();
      header.mtime = Number(text);
    }
  }
  if (header.size < 0) throw invalidHeader();
}
