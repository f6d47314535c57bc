/**
 * Reads small files inside a container's root file system without mounting it and without ever leaving it: links are resolved inside the root,
 * step by step, each directory held open while the next is looked up below it (/proc/self/fd/N/name), so that whoever rewrites links meanwhile
 * gains nothing. Works on the layers of a snapshot (topmost first, whiteouts honoured) and on /proc/PID/root of a running container.
 */
import fs from 'node:fs';
import {CetusError} from '../../base/errors';
import type {SnapshotMount} from '../runtime/runtime';

const MAX_LINKS = 40;
const {O_RDONLY, O_DIRECTORY, O_NOFOLLOW, O_NONBLOCK} = fs.constants;

/** Directories that lie over each other, topmost first. */
export function layersOf(mounts: SnapshotMount[]): string[] {
  const mount = mounts[mounts.length - 1];
  if (!mount) return [];
  if (mount.type !== 'overlay') return [mount.source];
  const option = (name: string): string[] => mount.options.find((o) => o.startsWith(`${name}=`))?.slice(name.length + 1).split(':') ?? [];
  return [...option('upperdir'), ...option('lowerdir')];
}

/** undefined where there is no such file; `invalid` where it is no regular file or larger than `maxBytes`. */
export function readInside(layers: string[], path: string, maxBytes = 1 << 20): string | undefined {
  const open: number[] = [];
  const directory = (at: string, flags = 0): number => {
    const fd = fs.openSync(at, O_RDONLY | O_DIRECTORY | flags);
    open.push(fd);
    return fd;
  };
  try {
    const root = layers.map((layer) => directory(layer));
    let stack: number[][] = [root];
    let names = path.split('/');
    for (let links = 0; names.length;) {
      const name = names.shift()!;
      if (name === '' || name === '.') continue;
      if (name === '..') {
        if (stack.length > 1) stack.pop();
        continue;
      }
      const found = look(stack[stack.length - 1], name);
      if (!found) return undefined;
      if (found.stat.isSymbolicLink()) {
        links += 1;
        if (links > MAX_LINKS) return undefined;
        const target = fs.readlinkSync(found.at[0]);
        if (target.startsWith('/')) stack = [root];
        names = [...target.split('/'), ...names];
      } else if (found.stat.isDirectory()) {
        stack.push(found.at.map((at) => directory(at, O_NOFOLLOW)));
      } else {
        if (names.some((n) => n !== '' && n !== '.')) return undefined;
        return readFile(found.at[0], path, maxBytes);
      }
    }
    return undefined;
  } finally {
    for (const fd of open) fs.closeSync(fd);
  }
}

/** The topmost entry of that name; of a directory, all those that it merges with. */
function look(layers: number[], name: string): {stat: fs.Stats; at: string[]} | undefined {
  let first: fs.Stats | undefined;
  const at: string[] = [];
  for (const fd of layers) {
    const file = `/proc/self/fd/${fd}/${name}`;
    const stat = fs.lstatSync(file, {throwIfNoEntry: false});
    if (!stat) continue;
    // overlayfs marks a deletion with a character device 0:0.
    if (stat.isCharacterDevice() && stat.rdev === 0) break;
    if (first && !stat.isDirectory()) break;
    first ??= stat;
    at.push(file);
    if (!stat.isDirectory()) break;
  }
  return first && {stat: first, at};
}

function readFile(at: string, path: string, maxBytes: number): string {
  // O_NONBLOCK: a FIFO put in the place of the file must not hold us.
  const fd = fs.openSync(at, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
  try {
    const stat = fs.fstatSync(fd);
    if (!stat.isFile()) throw new CetusError('invalid', `${path} in the container's root is not a regular file`);
    if (stat.size > maxBytes) throw new CetusError('invalid', `${path} in the container's root is larger than ${maxBytes} bytes`);
    const buffer = Buffer.alloc(Number(stat.size));
    const length = fs.readSync(fd, buffer, 0, buffer.length, 0);
    return buffer.subarray(0, length).toString('utf8');
  } finally {
    fs.closeSync(fd);
  }
}
