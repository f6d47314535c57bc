/**
 * An append-only file of JSON lines, for the two ledgers. Guarantees: a line is in the file when `append` returns; a line torn by a power
 * cut is dropped at the next reading and does not swallow its successor; `rewrite` replaces the file whole or not at all.
 *
 * Where the disk takes nothing (full, or broken) a line waits in memory, in its place, and is written as soon as the disk takes it: what has
 * happened on the node has happened, and whoever learns of it must not fail, or do it again, because it could not be noted. An agent that is
 * killed meanwhile forgets those lines; the control plane compares at its next start. Bounded: beyond MAX_WAITING_BYTES `append` throws.
 */
import {closeSync, existsSync, fstatSync, openSync, readFileSync} from 'node:fs';
import {CetusError} from '../../base/errors';
import {appendWhole} from '../append';
import {writeWhole} from '../store';

const MAX_WAITING_BYTES = 16 * 1024 * 1024;
const AGAIN_MS = 1_000;

export class JsonLines<Line> {
  private fd: number;
  /** Length of the file in characters; the owner decides by it when to rewrite. */
  size = 0;
  /** Lines that the disk has not taken yet. */
  private waiting = '';
  private again: NodeJS.Timeout | undefined;

  /** Hands every whole line of an earlier life to `each`, in order. `trouble` hears of the first line that has to wait. */
  constructor(private readonly path: string, each: (line: Line) => void, private readonly trouble: (err: unknown) => void = () => undefined) {
    const text = existsSync(path) ? readFileSync(path, 'utf8') : '';
    for (const raw of text.split('\n')) {
      const line = parse<Line>(raw);
      if (line) each(line);
    }
    this.size = text.length;
    this.fd = this.open();
    if (text && !text.endsWith('\n')) this.put('\n');
  }

  append(line: Line): void {
    const text = encode(line);
    if (this.waiting.length + text.length > MAX_WAITING_BYTES) throw new CetusError('unavailable', `${this.path}: the disk takes nothing, and too much waits for it`);
    this.put(text);
    this.size += text.length;
  }

  /** What waited is part of what is written now, or told anew by `lines`. */
  rewrite(lines: Iterable<Line>): void {
    const text = Array.from(lines, encode).join('');
    try {
      writeWhole(this.path, text);
    } catch {
      return; // the file stays as it was, only longer; the owner comes back with its next line
    }
    closeSync(this.fd);
    this.fd = this.open();
    this.size = text.length;
    this.waiting = '';
  }

  /** A last try: what the disk does not take now is forgotten. */
  close(): void {
    this.put('');
    clearTimeout(this.again);
    closeSync(this.fd);
  }

  private put(text: string): void {
    this.waiting += text;
    clearTimeout(this.again);
    if (!this.waiting) return;
    try {
      appendWhole(this.fd, Buffer.from(this.waiting), fstatSync(this.fd).size);
      this.waiting = '';
    } catch (err) {
      if (this.waiting === text) this.trouble(err);
      this.again = setTimeout(() => this.put(''), AGAIN_MS);
      this.again.unref();
    }
  }

  private open(): number {
    return openSync(this.path, 'a', 0o640);
  }
}

const encode = (line: unknown): string => `${JSON.stringify(line)}\n`;

function parse<Line>(raw: string): Line | undefined {
  if (!raw) return undefined;
  try {
    return JSON.parse(raw) as Line;
  } catch {
    return undefined;
  }
}
