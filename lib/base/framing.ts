/**
 * Where a request's body ends on its connection, for whoever reads the connection itself: after so many bytes, or behind the last of its chunks
 * (RFC 9112, 7.1). What is known between two reads is plain data, so that one process can go on where another one stopped.
 */
import type {IncomingHttpHeaders} from 'node:http';
import {CetusError} from './errors';

export type Framing =
  | {kind: 'sized'; left: number}
  | {kind: 'chunked'; at: Place; /** Of the chunk's content. */ left: number; /** What was read of a line so far. */ line: string};

/** `gap` is the empty line behind a chunk's content, `trailer` what comes behind the last chunk. */
type Place = 'size' | 'content' | 'gap' | 'trailer' | 'end';
const PLACES: ReadonlySet<unknown> = new Set<Place>(['size', 'content', 'gap', 'trailer', 'end']);

const MAX_LINE = 4096;
const MAX_TRAILER_LINES = 128;
const LINE_END = 0x0a;
const SIZE = /^([0-9a-fA-F]{1,12})[ \t]*(;.*)?$/;

/** undefined where no body follows. */
export function framingOf(headers: IncomingHttpHeaders): Framing | undefined {
  if (/\bchunked\b/i.test(String(headers['transfer-encoding'] ?? ''))) return {kind: 'chunked', at: 'size', left: 0, line: ''};
  const left = Number(headers['content-length'] ?? 0);
  return left > 0 ? {kind: 'sized', left} : undefined;
}

/** Of what another process says. */
export function isFraming(given: unknown): given is Framing {
  const {kind, left, at, line} = (given ?? {}) as Record<string, unknown>;
  if (!Number.isSafeInteger(left) || (left as number) < 0) return false;
  return kind === 'sized' || (kind === 'chunked' && PLACES.has(at) && typeof line === 'string');
}

export class Unframer {
  /** Where the last `take` stopped reading: behind the body's end lies what does not belong to it. */
  spent = 0;
  private trailerLines = 0;

  constructor(private framing: Framing) {}

  get state(): Framing {
    return {...this.framing};
  }

  /** How much is sure to come still: of a chunk no more than its own. */
  get left(): number {
    return this.framing.left;
  }

  get done(): boolean {
    return this.framing.kind === 'sized' ? this.framing.left === 0 : this.framing.at === 'end';
  }

  /** Moves the content of what lies from `start` to `end` together at `start`, and answers where it ends now. */
  take(buffer: Buffer, start: number, end: number): number {
    const {framing} = this;
    if (framing.kind === 'sized') {
      const length = Math.min(framing.left, end - start);
      framing.left -= length;
      this.spent = start + length;
      return this.spent;
    }
    let to = start;
    let from = start;
    while (from < end && framing.at !== 'end') {
      if (framing.at === 'content') {
        const length = Math.min(framing.left, end - from);
        if (to !== from) buffer.copyWithin(to, from, from + length);
        [to, from] = [to + length, from + length];
        framing.left -= length;
        if (framing.left === 0) framing.at = 'gap';
        continue;
      }
      const found = buffer.indexOf(LINE_END, from);
      const stop = found < 0 || found >= end ? end : found;
      if (framing.line.length + stop - from > MAX_LINE) throw malformed();
      framing.line += buffer.toString('latin1', from, stop);
      from = stop;
      if (stop === end) break;
      from += 1;
      this.lineOf(framing, framing.line.replace(/\r$/, ''));
      framing.line = '';
    }
    this.spent = from;
    return to;
  }

  private lineOf(framing: Extract<Framing, {kind: 'chunked'}>, line: string): void {
    if (framing.at === 'size') {
      const size = SIZE.exec(line)?.[1];
      if (size === undefined) throw malformed();
      framing.left = parseInt(size, 16);
      framing.at = framing.left === 0 ? 'trailer' : 'content';
    } else if (framing.at === 'gap') {
      if (line !== '') throw malformed();
      framing.at = 'size';
    } else {
      if ((this.trailerLines += 1) > MAX_TRAILER_LINES) throw malformed();
      if (line === '') framing.at = 'end';
    }
  }
}

const malformed = (): CetusError => new CetusError('invalid', 'malformed chunked body');
