/**
 * The other direction: entries of a json-file log back into Docker's multiplexed frames (or plain bytes for a terminal), by a scanner
 * over buffers. JSON.parse of each line costs ten times as much. A line that is not an entry of ours is skipped, as the Engine does
 * with a torn last line.
 */
export interface ScanOptions {
  stdout: boolean;
  stderr: boolean;
  timestamps: boolean;
  details: boolean;
  /** undefined = no bound. */
  sinceNs?: bigint;
  untilNs?: bigint;
  /** Frame headers, or the bytes as they are (terminal). */
  multiplex: boolean;
}

const LOG = Buffer.from('{"log":"');
const STREAM = Buffer.from('","stream":"std');
const QUOTE = 0x22;
const BACKSLASH = 0x5c;

export class EntryScanner {
  private out: Buffer;
  private length = 0;
  /** Set once an entry after `untilNs` has been seen: nothing that follows matters. */
  pastUntil = false;

  constructor(private readonly options: ScanOptions) {
    this.out = Buffer.allocUnsafe(64 * 1024);
  }

  get size(): number {
    return this.length;
  }

  /** The collected output; the scanner never touches it again. */
  take(): Buffer {
    const taken = this.out.subarray(0, this.length);
    this.out = Buffer.allocUnsafe(Math.max(64 * 1024, Math.min(this.out.length, 1024 * 1024)));
    this.length = 0;
    return taken;
  }

  /** Entry in [start, end) of `buf`, `end` exclusive of the newline. */
  add(buf: Buffer, start: number, end: number): void {
    if (end - start < 40 || !matches(buf, start, LOG)) return;
    const { options } = this;
    // Decoded text is never longer than its encoding; 256 leaves room for header, time and the like.
    this.reserve(end - start + 256);
    const out = this.out;
    const header = options.multiplex ? 8 : 0;
    const textStart = this.length + header;
    let o = textStart;
    let i = start + LOG.length;
    for (;;) {
      if (i >= end) return;
      const b = buf[i]!;
      if (b === QUOTE) break;
      if (b !== BACKSLASH) {
        out[o++] = b;
        i += 1;
        continue;
      }
      const escape = buf[i + 1]!;
      i += 2;
      if (escape === 0x6e) out[o++] = 0x0a;
      else if (escape === 0x75) {
        const code = parseInt(buf.toString('latin1', i, i + 4), 16);
        if (Number.isNaN(code)) return;
        i += 4;
        if (code < 0x80) out[o++] = code;
        else o += out.write(String.fromCharCode(code), o, 'utf8');
      } else if (escape === 0x72) out[o++] = 0x0d;
      else if (escape === 0x74) out[o++] = 0x09;
      else if (escape === 0x62) out[o++] = 0x08;
      else if (escape === 0x66) out[o++] = 0x0c;
      else out[o++] = escape;
    }
    if (!matches(buf, i, STREAM)) return;
    const isStdout = buf[i + STREAM.length] === 0x6f;
    if (isStdout ? !options.stdout : !options.stderr) return;
    let textEnd = o;
    if (options.timestamps || options.details || options.sinceNs !== undefined || options.untilNs !== undefined) {
      const shifted = this.decorate(buf, i + STREAM.length, end, textStart, textEnd);
      if (shifted < 0) return;
      textEnd = shifted;
    }
    if (header) {
      const size = textEnd - textStart;
      const at = this.length;
      this.out[at] = isStdout ? 1 : 2;
      this.out[at + 1] = 0;
      this.out[at + 2] = 0;
      this.out[at + 3] = 0;
      this.out[at + 4] = size >>> 24;
      this.out[at + 5] = size >>> 16;
      this.out[at + 6] = size >>> 8;
      this.out[at + 7] = size;
    }
    this.length = textEnd;
  }

  /** Applies the time bounds and puts timestamp and details before the text. Answers the text's new end, or -1 to drop the entry. */
  private decorate(buf: Buffer, from: number, end: number, textStart: number, textEnd: number): number {
    // The time is the entry's last field and at most 30 bytes long: `"time":"..."}`.
    const rest = buf.toString('latin1', Math.max(from, end - 42), end);
    const timeAt = rest.indexOf('"time":"');
    if (timeAt < 0) return -1;
    const time = rest.slice(timeAt + 8, -2);
    const { sinceNs, untilNs } = this.options;
    if (sinceNs !== undefined || untilNs !== undefined) {
      const ns = parseTimeNs(time);
      if (ns === undefined || (sinceNs !== undefined && ns < sinceNs)) return -1;
      if (untilNs !== undefined && ns > untilNs) {
        this.pastUntil = true;
        return -1;
      }
    }
    let prefix = this.options.timestamps ? `${fixedTime(time)} ` : '';
    if (this.options.details) prefix += `${detailsOf(buf, from, end)} `;
    if (!prefix) return textEnd;
    const length = Buffer.byteLength(prefix);
    this.reserve(textEnd - this.length + length);
    this.out.copyWithin(textStart + length, textStart, textEnd);
    this.out.write(prefix, textStart, 'utf8');
    return textEnd + length;
  }

  private reserve(bytes: number): void {
    const needed = this.length + bytes;
    if (needed <= this.out.length) return;
    const grown = Buffer.allocUnsafe(Math.max(needed, this.out.length * 2));
    this.out.copy(grown, 0, 0, this.out.length);
    this.out = grown;
  }
}

function matches(buf: Buffer, at: number, text: Uint8Array): boolean {
  for (let k = 0; k < text.length; k += 1) if (buf[at + k] !== text[k]) return false;
  return true;
}

/** Nine digits of fraction, so that the columns of `docker logs -t` stand below each other. */
function fixedTime(time: string): string {
  const dot = time.indexOf('.');
  return dot < 0 ? `${time.slice(0, 19)}.000000000Z` : `${time.slice(0, dot + 1)}${time.slice(dot + 1, -1).padEnd(9, '0')}Z`;
}

function parseTimeNs(time: string): bigint | undefined {
  const dot = time.indexOf('.');
  const seconds = Date.parse(`${time.slice(0, 19)}Z`);
  if (Number.isNaN(seconds)) return undefined;
  return BigInt(seconds) * 1_000_000n + (dot < 0 ? 0n : BigInt(time.slice(dot + 1, -1).padEnd(9, '0').slice(0, 9)));
}

/** The Engine's form of attributes: sorted, k=v joined by commas, query-escaped. */
function detailsOf(buf: Buffer, from: number, end: number): string {
  const text = buf.toString('utf8', from, end);
  const at = text.indexOf('"attrs":');
  if (at < 0) return '';
  const until = text.lastIndexOf(',"time":"');
  try {
    const attrs = JSON.parse(text.slice(at + 8, until)) as Record<string, string>;
    return Object.keys(attrs).sort().map((k) => `${encodeURIComponent(k)}=${encodeURIComponent(attrs[k]!)}`).join(',');
  } catch {
    return '';
  }
}
