/** What `docker cp` asks before it copies. */
import fs from 'node:fs';
import {posix} from 'node:path';
import {formatNs} from '../../base/clock';
import type {PathStat} from '../../schema/rootfs';
import {failed} from './failures';
import {bytes, entryOf, pathBelow} from './syscalls';
import {type Place, type Tree, codeOf, isMissing, readlinkAt} from './tree';

/** Go's os.FileMode, in which the Engine speaks of modes: its own bits for types, the nine permission bits as everywhere. */
const GO_MODE = {dir: 2 ** 31, symlink: 2 ** 27, device: 2 ** 26, fifo: 2 ** 25, socket: 2 ** 24, setuid: 2 ** 23, setgid: 2 ** 22, character: 2 ** 21, sticky: 2 ** 20};

function goMode(stat: fs.BigIntStats): number {
  const bits = Number(stat.mode);
  let mode = bits & 0o777;
  if (stat.isDirectory()) mode += GO_MODE.dir;
  else if (stat.isSymbolicLink()) mode += GO_MODE.symlink;
  else if (stat.isBlockDevice()) mode += GO_MODE.device;
  else if (stat.isCharacterDevice()) mode += GO_MODE.device + GO_MODE.character;
  else if (stat.isFIFO()) mode += GO_MODE.fifo;
  else if (stat.isSocket()) mode += GO_MODE.socket;
  if (bits & 0o4000) mode += GO_MODE.setuid;
  if (bits & 0o2000) mode += GO_MODE.setgid;
  if (bits & 0o1000) mode += GO_MODE.sticky;
  return mode;
}

/** File names are bytes; a person reads them as UTF-8. */
export const textOf = (path: string): string => Buffer.from(path, 'latin1').toString('utf8');

/** As the Engine reads it: absolute, `..` taken back by the text alone, and of a `/` or `/.` at the end it is kept that they were there. */
export function askedPath(path: string): string {
  const clean = posix.resolve('/', path);
  const itself = posix.basename(path) === '.';
  if (itself) return `${clean === '/' ? '' : clean}/.`;
  return path.endsWith('/') && clean !== '/' ? `${clean}/` : clean;
}

/** What the caller called it: `/a/b/` is b, `/a/.` is the directory itself. */
export const nameAsked = (asked: string): string => (asked.endsWith('/.') ? '.' : posix.basename(asked) || '/');

/** undefined where there is no such entry. `name` (text) is what the caller called it. */
export function statPlace(tree: Tree, place: Place, name: string): PathStat | undefined {
  const stat = fs.lstatSync(bytes(entryOf(place.dirfd, place.name)), {bigint: true, throwIfNoEntry: false});
  if (!stat) return undefined;
  return {
    name, size: Number(stat.size), mode: goMode(stat), mtime: formatNs(stat.mtimeNs).replace(/\.?0*Z$/, 'Z'),
    linkTarget: stat.isSymbolicLink() ? textOf(targetOf(tree, place)) : '',
  };
}

/** Where the link leads in the end, from the tree's root. One that leads nowhere: what it says, read in its own directory. */
function targetOf(tree: Tree, place: Place): string {
  const directory = place.directory ?? '/';
  try {
    const fd = tree.look(`${directory}/${place.name}`, true);
    try {
      const found = pathBelow(tree.rootFd, fd);
      if (found !== undefined) return found;
    } finally {
      fs.closeSync(fd);
    }
  } catch (err) {
    if (codeOf(err) === 'ELOOP') throw failed(`evalSymlinksInScope: too many links in ${textOf(`${directory === '/' ? '' : directory}/${place.name}`)}`);
    if (!isMissing(err)) throw err;
  }
  return posix.resolve('/', directory, readlinkAt(place.dirfd, place.name));
}
