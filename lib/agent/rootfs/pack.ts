/**
 * A tree into a tar, as the Engine writes it: owners as numbers, times in seconds, the names of one inode as one file and links to it, sockets left
 * out, of extended attributes `security.capability`. Synchronous: the reader's pace is the pipe's.
 */
import fs from 'node:fs';
import {CetusError} from '../../base/errors';
import {deviceParts, getXattr} from './syscalls';
import {type TarEntry, type TarWriter} from './tar-writer';
import {MAX_DEPTH, type Place, codeOf, lstatAt, namesIn, openDirectoryAt, openFileAt, readlinkAt} from './tree';

const CHUNK = 1024 * 1024;
const CAPABILITY = 'security.capability';

export interface PackOptions {
  /** The first entry's name in the tar (a byte string); '' leaves that entry out and names its children by themselves. */
  name: string;
  /** Directories on other devices are written empty: what is mounted there is not of this tree. */
  oneFileSystem?: boolean;
}

export function packPlace(place: Place, tar: TarWriter, options: PackOptions): void {
  const stat = lstatAt(place.dirfd, place.name);
  if (!stat) throw Object.assign(new Error(`ENOENT: '${place.name}'`), {code: 'ENOENT'});
  const packer = new Packer(tar, options.oneFileSystem ? stat.dev : undefined);
  if (options.name === '' && stat.isDirectory()) packer.children(place.dirfd, place.name, '', 0);
  else packer.entry(place.dirfd, place.name, options.name, stat, 0);
}

type Common = Pick<TarEntry, 'mode' | 'uid' | 'gid' | 'mtime' | 'size'>;

class Packer {
  /** The name under which an inode with several was written: "device:inode" -> name. */
  private readonly linked = new Map<string, string>();
  private readonly chunk = Buffer.allocUnsafe(CHUNK);

  constructor(private readonly tar: TarWriter, private readonly device: number | undefined) {}

  entry(dirfd: number, file: string, name: string, stat: fs.Stats, depth: number): void {
    const common: Common = {mode: stat.mode, uid: stat.uid, gid: stat.gid, mtime: Math.floor(stat.mtimeMs / 1000), size: 0};
    if (stat.isSocket()) return;
    if (stat.isDirectory()) {
      this.tar.entry({...common, type: 'directory', name: name.endsWith('/') ? name : `${name}/`, xattrs: this.xattrs(dirfd, file)});
      if (this.device === undefined || stat.dev === this.device) this.children(dirfd, file, name, depth + 1);
    } else if (stat.isFile()) {
      this.file(dirfd, file, name);
    } else if (stat.isSymbolicLink()) {
      this.tar.entry({...common, type: 'symlink', name, linkname: readlinkAt(dirfd, file)});
    } else if (stat.isFIFO()) {
      this.tar.entry({...common, type: 'fifo', name});
    } else {
      this.tar.entry({...common, type: stat.isBlockDevice() ? 'block' : 'character', name, ...deviceParts(stat.rdev)});
    }
  }

  children(dirfd: number, file: string, name: string, depth: number): void {
    if (depth > MAX_DEPTH) throw new CetusError('invalid', `directories more than ${MAX_DEPTH} deep`);
    const inner = openDirectoryAt(dirfd, file);
    try {
      const prefix = name === '' || name.endsWith('/') ? name : `${name}/`;
      for (const child of namesIn(inner)) {
        try {
          const stat = lstatAt(inner, child);
          if (stat) this.entry(inner, child, prefix + child, stat, depth);
        } catch (err) {
          // Removed, or another kind of thing by now, before its header was written: what was there is not there any more.
          if (!['ENOENT', 'ENOTDIR', 'ELOOP', 'EINVAL', 'ENXIO'].includes(codeOf(err) ?? '')) throw err;
        }
      }
    } finally {
      fs.closeSync(inner);
    }
  }

  private file(dirfd: number, file: string, name: string): void {
    const {fd, stat} = openFileAt(dirfd, file);
    try {
      const common: Common = {mode: stat.mode, uid: stat.uid, gid: stat.gid, mtime: Math.floor(stat.mtimeMs / 1000), size: 0};
      const inode = `${stat.dev}:${stat.ino}`;
      const first = stat.nlink > 1 ? this.linked.get(inode) : undefined;
      if (first !== undefined) return this.tar.entry({...common, type: 'link', name, linkname: first});
      if (stat.nlink > 1) this.linked.set(inode, name);
      this.tar.entry({...common, type: 'file', name, size: stat.size, xattrs: this.xattrs(dirfd, file)});
      this.content(fd, stat.size, name);
    } finally {
      fs.closeSync(fd);
    }
  }

  /** The header has promised a size: what the file gained since is left out, and that it shrank can only be said by breaking off. */
  private content(fd: number, size: number, name: string): void {
    for (let left = size; left > 0;) {
      const length = fs.readSync(fd, this.chunk, 0, Math.min(CHUNK, left), null);
      if (length === 0) throw new CetusError('conflict', `${name} became shorter while it was read`);
      this.tar.content(this.chunk.subarray(0, length));
      left -= length;
    }
    if (size > 0) this.tar.end();
  }

  private xattrs(dirfd: number, file: string): Map<string, Buffer> | undefined {
    const value = getXattr(dirfd, file, CAPABILITY);
    return value && new Map([[CAPABILITY, value]]);
  }
}
