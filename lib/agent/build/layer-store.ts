/**
 * The part of a stopped or running engine's disk that its API does not show, or shows slowly: which layers it has, what they are made of, which names
 * its images have, and (only while it is stopped) layers that it shall find at its next start. The format is Docker's own since 1.10, for the storage driver overlay2.
 *
 * A lent layer is a directory of the engine's whose `diff` is a link to the layer as it lies unpacked elsewhere on this machine: nothing is
 * copied, and the engine, which never writes into a committed layer, removes the link and not what it leads to.
 */
import {randomBytes} from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import {CetusError} from '../../base/errors';

/** One layer, above the layers that `parent` stands for. */
export interface LentLayer { chainId: string; diffId: string; /** '' for the first */ parent: string; size: number; /** where it lies unpacked, as overlayfs wants it */ directory: string }

const DRIVER = 'overlay2';
const hex = (digest: string): string => digest.slice('sha256:'.length);

export class LayerStore {
  constructor(private readonly dataRoot: string) {}

  has(chainId: string): boolean {
    return fs.existsSync(path.join(this.record(chainId), 'cache-id'));
  }

  /** Where the engine keeps the files of a layer. */
  directory(chainId: string): string {
    return path.join(this.dataRoot, DRIVER, this.read(chainId, 'cache-id'), 'diff');
  }

  /** The recipe by which the files become the very tar again that has the layer's digest; absent for a lent layer. */
  recipe(chainId: string): string {
    return path.join(this.record(chainId), 'tar-split.json.gz');
  }

  hasImage(imageId: string): boolean {
    return fs.existsSync(this.image(imageId));
  }

  /**
   * All names, by image: tags, as people write them, and digests. The engine writes this file before it answers whoever set a name, in one rename,
   * and has to look at every image to list them over its API.
   */
  names(): {tags: Map<string, string>; digests: Map<string, string[]>} {
    const tags = new Map<string, string>();
    const digests = new Map<string, string[]>();
    for (const names of Object.values(this.repositories()))
      for (const [name, imageId] of Object.entries(names)) {
        if (!this.hasImage(imageId)) continue;
        if (name.includes('@')) digests.set(imageId, [...(digests.get(imageId) ?? []), name]);
        else tags.set(name, imageId);
      }
    return {tags, digests};
  }

  /** The bytes of an image's config, whose digest is its id; undefined where the engine has no such image. */
  config(imageId: string): Buffer | undefined {
    try {
      return fs.readFileSync(this.image(imageId));
    } catch (err) {
      if ((err as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
      throw err;
    }
  }

  /** Only while the engine is stopped. Bottom first; a layer that is there already is left as it is. */
  lend(layers: readonly LentLayer[]): void {
    for (const layer of layers) if (!this.has(layer.chainId)) this.write(layer);
  }

  /** Only while the engine is stopped: links that lead nowhere any more would break whatever is built on them. */
  isWhole(): boolean {
    const home = path.join(this.dataRoot, DRIVER);
    return list(home).every((id) => id === 'l' || !fs.lstatSync(path.join(home, id, 'diff'), {throwIfNoEntry: false})?.isSymbolicLink() || fs.existsSync(path.join(home, id, 'diff')));
  }

  private write({chainId, diffId, parent, size, directory}: LentLayer): void {
    const cacheId = hex(chainId);
    const home = path.join(this.dataRoot, DRIVER);
    const own = path.join(home, cacheId);
    fs.rmSync(own, {recursive: true, force: true});
    fs.mkdirSync(path.join(own, 'work'), {recursive: true, mode: 0o700});
    fs.mkdirSync(path.join(home, 'l'), {recursive: true, mode: 0o700});
    fs.symlinkSync(directory, path.join(own, 'diff'));
    const link = shortName();
    fs.symlinkSync(path.join('..', cacheId, 'diff'), path.join(home, 'l', link));
    fs.writeFileSync(path.join(own, 'link'), link);
    if (parent !== '') fs.writeFileSync(path.join(own, 'lower'), this.lowersOf(parent));
    const record = this.record(chainId);
    const half = `${record}.new`;
    fs.rmSync(half, {recursive: true, force: true});
    fs.mkdirSync(half, {recursive: true, mode: 0o755});
    for (const [name, text] of Object.entries({'cache-id': cacheId, diff: diffId, size: String(size), ...(parent === '' ? {} : {parent})})) fs.writeFileSync(path.join(half, name), text);
    fs.renameSync(half, record);
  }

  /** The top of the list is the nearest. */
  private lowersOf(chainId: string): string {
    const own = path.join(this.dataRoot, DRIVER, this.read(chainId, 'cache-id'));
    const link = fs.readFileSync(path.join(own, 'link'), 'utf8');
    const lower = path.join(own, 'lower');
    return [`l/${link}`, ...(fs.existsSync(lower) ? [fs.readFileSync(lower, 'utf8')] : [])].join(':');
  }

  private repositories(): Record<string, Record<string, string>> {
    const file = path.join(this.dataRoot, 'image', DRIVER, 'repositories.json');
    try {
      return (JSON.parse(fs.readFileSync(file, 'utf8')) as {Repositories?: Record<string, Record<string, string>> | null}).Repositories ?? {};
    } catch (err) {
      if ((err as NodeJS.ErrnoException).code === 'ENOENT') return {}; // no name yet
      throw new CetusError('internal', 'the names of a build engine\'s images cannot be read', {cause: err});
    }
  }

  private image(imageId: string): string {
    return path.join(this.dataRoot, 'image', DRIVER, 'imagedb', 'content', 'sha256', hex(imageId));
  }

  private record(chainId: string): string {
    return path.join(this.dataRoot, 'image', DRIVER, 'layerdb', 'sha256', hex(chainId));
  }

  private read(chainId: string, name: string): string {
    try {
      return fs.readFileSync(path.join(this.record(chainId), name), 'utf8');
    } catch (cause) {
      throw new CetusError('notFound', `the build engine has no layer ${chainId}`, {cause});
    }
  }
}

/** As long as the driver's own; overlayfs' options must fit into a page, hence so short. */
function shortName(): string {
  const LETTERS = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567';
  return Array.from(randomBytes(26), (byte) => LETTERS[byte % 32]).join('');
}

function list(dir: string): string[] {
  try {
    return fs.readdirSync(dir);
  } catch {
    return [];
  }
}
