/** Names inside an archive: what one means, resolved within the archive and nowhere else. Pure. */
import path from 'node:path';
import {CetusError} from '../../../base/errors';

const MAX_NAME_LENGTH = 4096;
const MAX_LINKS = 16;

/** "./a//b/" -> "a/b"; '' is the root itself. Refuses whatever would leave the archive. */
export function entryName(name: string): string {
  if (name.length > MAX_NAME_LENGTH || name.includes('\0')) throw outside(name);
  const normal = path.posix.normalize(name).replace(/\/+$/, '');
  if (normal.startsWith('/') || normal === '..' || normal.startsWith('../') || name.split('/').includes('..')) throw outside(name);
  return normal === '.' ? '' : normal;
}

/** Where a link at `from` leads; old `docker save` links one layer.tar to another with `../ID/layer.tar`. */
export function linkTarget(from: string, target: string, kind: 'symlink' | 'link'): string {
  if (target === '' || target.length > MAX_NAME_LENGTH || target.includes('\0') || target.startsWith('/')) throw outside(target);
  // A hard link's target is a name of the archive, a symbolic link's is relative to where it stands.
  const normal = path.posix.normalize(kind === 'link' ? target : path.posix.join(path.posix.dirname(from), target));
  if (normal === '..' || normal.startsWith('../') || normal.startsWith('/')) throw outside(target);
  return normal;
}

/** Follows links among the archive's own entries; undefined where nothing is there. */
export function follow<T>(name: string, files: ReadonlyMap<string, T>, links: ReadonlyMap<string, string>): T | undefined {
  let at = name;
  for (let hops = 0; hops <= MAX_LINKS; hops += 1) {
    const file = files.get(at);
    if (file !== undefined) return file;
    const next = links.get(at) ?? throughDirectoryLink(at, links);
    if (next === undefined) return undefined;
    at = next;
  }
  throw new CetusError('invalid', `invalid archive: too many links at ${JSON.stringify(name.slice(0, 200))}`);
}

function throughDirectoryLink(name: string, links: ReadonlyMap<string, string>): string | undefined {
  for (let dir = path.posix.dirname(name); dir !== '.'; dir = path.posix.dirname(dir)) {
    const target = links.get(dir);
    if (target !== undefined) return path.posix.join(target, name.slice(dir.length + 1));
  }
  return undefined;
}

function outside(name: string): CetusError {
  return new CetusError('invalid', `invalid archive: the name ${JSON.stringify(name.slice(0, 200))} leads out of it`);
}
