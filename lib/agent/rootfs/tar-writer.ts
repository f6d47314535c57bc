/**
 * Writes a tar (POSIX.1-2001, pax), synchronously. tar-stream makes text of names and attributes, and these are bytes: a file capability or a name
 * in another encoding would come out as another one. Reading is tar-stream's. Format: ustar(5) of the POSIX description of pax.
 */
const BLOCK = 512;
const NAME_BYTES = 100;
const MAX_OCTAL_7 = 0o7777777;
const MAX_OCTAL_11 = 0o77777777777;
const XATTR = 'SCHILY.xattr.';
/** typeflag */
const TYPES = {file: '0', link: '1', symlink: '2', character: '3', block: '4', directory: '5', fifo: '6', pax: 'x'} as const;

export interface TarEntry {
  type: Exclude<keyof typeof TYPES, 'pax'>;
  /** Byte strings (latin1). */
  name: string;
  linkname?: string;
  mode: number;
  uid: number;
  gid: number;
  /** Of the content that follows. */
  size: number;
  /** Seconds. */
  mtime: number;
  major?: number;
  minor?: number;
  xattrs?: Map<string, Buffer>;
}

export class TarWriter {
  private padding = 0;

  constructor(private readonly write: (bytes: Buffer) => void) {}

  /** `entry.size` bytes of content must follow, by `content`. */
  entry(entry: TarEntry): void {
    const records = paxRecords(entry);
    if (records.length) {
      const body = Buffer.concat(records);
      this.write(header({...entry, type: 'file', name: 'PaxHeaders/entry', linkname: '', size: body.length, mode: 0o644}, TYPES.pax));
      this.write(body);
      this.pad(body.length);
    }
    this.write(header(entry, TYPES[entry.type]));
    this.padding = padded(entry.size) - entry.size;
    if (entry.size === 0) this.end();
  }

  content(bytes: Buffer): void {
    this.write(bytes);
  }

  /** After the last byte of an entry's content. */
  end(): void {
    if (this.padding) this.write(Buffer.alloc(this.padding));
    this.padding = 0;
  }

  finish(): void {
    this.write(Buffer.alloc(2 * BLOCK));
  }

  private pad(size: number): void {
    const padding = padded(size) - size;
    if (padding) this.write(Buffer.alloc(padding));
  }
}

const padded = (size: number): number => Math.ceil(size / BLOCK) * BLOCK;
const isPlain = (name: string): boolean => name.length <= NAME_BYTES && /^[\x20-\x7e]*$/.test(name);

function paxRecords(entry: TarEntry): Buffer[] {
  const records: Buffer[] = [];
  const add = (key: string, value: Buffer): void => void records.push(record(key, value));
  if (!isPlain(entry.name)) add('path', Buffer.from(entry.name, 'latin1'));
  if (entry.linkname && !isPlain(entry.linkname)) add('linkpath', Buffer.from(entry.linkname, 'latin1'));
  if (entry.size > MAX_OCTAL_11) add('size', Buffer.from(String(entry.size)));
  if (entry.uid > MAX_OCTAL_7) add('uid', Buffer.from(String(entry.uid)));
  if (entry.gid > MAX_OCTAL_7) add('gid', Buffer.from(String(entry.gid)));
  if (entry.mtime < 0 || entry.mtime > MAX_OCTAL_11) add('mtime', Buffer.from(String(entry.mtime)));
  for (const [key, value] of entry.xattrs ?? []) add(XATTR + key, value);
  return records;
}

/** "LENGTH KEY=VALUE\n", where the length counts its own digits. */
export function record(key: string, value: Buffer): Buffer {
  const rest = Buffer.concat([Buffer.from(` ${key}=`), value, Buffer.from('\n')]);
  let length = rest.length + 1;
  while (String(length).length + rest.length !== length) length = String(length).length + rest.length;
  return Buffer.concat([Buffer.from(String(length)), rest]);
}

function header(entry: TarEntry, typeflag: string): Buffer {
  const block = Buffer.alloc(BLOCK);
  block.write(abridged(entry.name, entry.type === 'directory'), 0, NAME_BYTES, 'latin1');
  octal(block, 100, 7, entry.mode & 0o7777);
  octal(block, 108, 7, clamp(entry.uid, MAX_OCTAL_7));
  octal(block, 116, 7, clamp(entry.gid, MAX_OCTAL_7));
  octal(block, 124, 11, clamp(entry.size, MAX_OCTAL_11));
  octal(block, 136, 11, clamp(entry.mtime, MAX_OCTAL_11));
  block.write(typeflag, 156, 'latin1');
  block.write(abridged(entry.linkname ?? '', false), 157, NAME_BYTES, 'latin1');
  block.write('ustar\x0000', 257, 'latin1');
  octal(block, 329, 7, entry.major ?? 0);
  octal(block, 337, 7, entry.minor ?? 0);
  block.fill(' ', 148, 156);
  let sum = 0;
  for (const byte of block) sum += byte;
  block.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
  return block;
}

function octal(block: Buffer, at: number, digits: number, value: number): void {
  block.write(value.toString(8).padStart(digits, '0'), at, digits, 'latin1');
}

/** What does not fit stands in the pax record; 0 is what remains for readers that know none. */
const clamp = (value: number, max: number): number => (value >= 0 && value <= max ? value : 0);

/** For readers that know no pax: as much as fits. */
function abridged(name: string, directory: boolean): string {
  if (isPlain(name)) return name;
  const ascii = name.replace(/[^\x20-\x7e]/g, '_').slice(0, NAME_BYTES - 1);
  return directory && !ascii.endsWith('/') ? `${ascii}/` : ascii;
}
