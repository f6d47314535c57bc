/**
 * Paths inside a foreign root file system: links are followed as the container would follow them, never out of the root. Nothing runs in
 * that root while this is used (a created container, a mounted snapshot); for live ones this is not race-free and must not be used.
 */
import {lstat, readlink} from 'node:fs/promises';
import {join} from 'node:path';
import {CetusError} from '../../base/errors';

const MAX_LINKS = 40;

/** The host path of `path` under `root`; undefined where it does not exist. */
export async function resolveInRoot(root: string, path: string): Promise<string | undefined> {
  let pending = path.split('/').filter((part) => part && part !== '.');
  let resolved: string[] = [];
  let links = 0;
  while (pending.length) {
    const part = pending.shift()!;
    if (part === '..') {
      resolved.pop();
      continue;
    }
    const here = join(root, ...resolved, part);
    const stat = await lstat(here).catch((err: NodeJS.ErrnoException) => {
      if (err.code === 'ENOENT' || err.code === 'ENOTDIR') return undefined;
      throw err;
    });
    if (!stat) return undefined;
    if (!stat.isSymbolicLink()) {
      resolved.push(part);
      continue;
    }
    links += 1;
    if (links > MAX_LINKS) throw new CetusError('invalid', `too many links in ${path}`);
    const target = await readlink(here);
    if (target.startsWith('/')) resolved = [];
    pending = [...target.split('/').filter((p) => p && p !== '.'), ...pending];
  }
  return join(root, ...resolved);
}
