/**
 * An append-only file of JSON lines, for the two ledgers. Guarantees: a line is in the file when `append` returns; a line torn by a power
 * cut is dropped at the next reading and does not swallow its successor; `rewrite` replaces the file whole or not at all.
 */
import {closeSync, existsSync, openSync, readFileSync, writeSync} from 'node:fs';
import {writeWhole} from '../store';

export class JsonLines<Line> {
  private fd: number;
  /** Length of the file in characters; the owner decides by it when to rewrite. */
  size = 0;

  /** Hands every whole line of an earlier life to `each`, in order. */
  constructor(private readonly path: string, each: (line: Line) => void) {
    const text = existsSync(path) ? readFileSync(path, 'utf8') : '';
    for (const raw of text.split('\n')) {
      const line = parse<Line>(raw);
      if (line) each(line);
    }
    this.size = text.length;
    this.fd = this.open();
    if (text && !text.endsWith('\n')) writeSync(this.fd, '\n');
  }

  append(line: Line): void {
    const text = encode(line);
    writeSync(this.fd, text);
    this.size += text.length;
  }

  rewrite(lines: Iterable<Line>): void {
    const text = Array.from(lines, encode).join('');
    writeWhole(this.path, text);
    closeSync(this.fd);
    this.fd = this.open();
    this.size = text.length;
  }

  close(): void {
    closeSync(this.fd);
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
