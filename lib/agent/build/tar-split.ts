/**
 * A layer's tar again, byte for byte, from its files and the recipe that the engine keeps beside them (tar-split's format: lines of JSON, of
 * which one kind carries headers and padding, the other stands for a file's content). Whoever uses the bytes checks their digest; here it is
 * only seen to that nothing outside of the layer's directory is read, whatever a recipe or a link in the layer says.
 */
import fs from 'node:fs';
import path from 'node:path';
import readline from 'node:readline';
import zlib from 'node:zlib';
import {CetusError} from '../../base/errors';

const FILE = 1;
const SEGMENT = 2;
const BLOCK = 256 * 1024;
interface Entry { type: number; name?: string; name_raw?: string; size?: number; payload?: string | null }

/** The length of the tar. */
export async function tarLength(recipe: string): Promise<number> {
  let length = 0;
  for await (const entry of entries(recipe)) length += entry.type === SEGMENT ? segment(entry).length : contentSize(entry);
  return length;
}

export async function* tarBytes(recipe: string, directory: string): AsyncGenerator<Buffer> {
  const files = new Files(directory);
  for await (const entry of entries(recipe)) {
    if (entry.type === SEGMENT) yield segment(entry);
    else if (contentSize(entry) > 0) yield* files.content(nameOf(entry), contentSize(entry));
  }
}

async function* entries(recipe: string): AsyncGenerator<Entry> {
  const input = fs.createReadStream(recipe).pipe(zlib.createGunzip());
  for await (const line of readline.createInterface({input, crlfDelay: Infinity})) {
    if (line === '') continue;
    const entry = JSON.parse(line) as Entry;
    if (entry.type !== FILE && entry.type !== SEGMENT) throw new CetusError('internal', `${recipe}: an entry of type ${entry.type}`);
    yield entry;
  }
}

const segment = (entry: Entry): Buffer => Buffer.from(entry.payload ?? '', 'base64');
const contentSize = (entry: Entry): number => entry.size ?? 0;
const nameOf = (entry: Entry): Buffer => (entry.name_raw ? Buffer.from(entry.name_raw, 'base64') : Buffer.from(entry.name ?? ''));

class Files {
  private readonly root: string;
  /** The last directory that was found to lie inside: entries of one follow each other. */
  private inside: Buffer | undefined;

  constructor(directory: string) {
    this.root = fs.realpathSync(directory);
  }

  async *content(name: Buffer, size: number): AsyncGenerator<Buffer> {
    const file = Buffer.concat([Buffer.from(`${this.root}/`), name]);
    this.checkDirectory(file.subarray(0, file.lastIndexOf(0x2f)));
    // No link is followed, and a FIFO in a file's place does not hold us up.
    const handle = await fs.promises.open(file, fs.constants.O_RDONLY | fs.constants.O_NOFOLLOW | fs.constants.O_NONBLOCK);
    try {
      if (!(await handle.stat()).isFile()) throw new CetusError('invalid', `${printable(name)} of a built layer is no file`);
      for (let left = size; left > 0;) {
        const {bytesRead, buffer} = await handle.read(Buffer.allocUnsafe(Math.min(left, BLOCK)), 0, Math.min(left, BLOCK));
        if (bytesRead === 0) throw new CetusError('internal', `${printable(name)} of a built layer is shorter than it was`);
        left -= bytesRead;
        yield buffer.subarray(0, bytesRead);
      }
    } finally {
      await handle.close();
    }
  }

  private checkDirectory(directory: Buffer): void {
    if (this.inside?.equals(directory)) return;
    const real = fs.realpathSync.native(directory as unknown as string, {encoding: 'buffer'}) as unknown as Buffer;
    const root = Buffer.from(this.root);
    if (!real.equals(root) && !real.subarray(0, root.length + 1).equals(Buffer.from(`${this.root}/`)))
      throw new CetusError('invalid', `${printable(directory)} leads out of a built layer`);
    this.inside = Buffer.from(directory);
  }
}

const printable = (name: Buffer): string => path.basename(name.toString('utf8')).slice(0, 200);
