/**
 * A tar into a directory of a tree, as the Engine does it: what stands in the way is replaced (a directory merges with a directory), missing parents
 * are made, owners, modes, times and extended attributes are the archive's. Links are made as they are written, unless they say themselves that they
 * lead out of the directory; where they lead in the end is the container's affair, since every look-up ends below the tree's root.
 */
import fs from 'node:fs';
import {posix} from 'node:path';
import {failed, systemFailure} from './failures';
import {textOf} from './path-stat';
import {O_PATH, bytes, entryOf, makeNode, openInRoot, setXattr} from './syscalls';
import type {TarHeader, TarReader} from './tar-reader';
import {type Tree, codeOf, lstatAt, removeAt, splitLast} from './tree';

const {O_WRONLY, O_CREAT, O_EXCL, O_NOFOLLOW, O_DIRECTORY} = fs.constants;
const GLOBAL = 'g';

export interface UnpackOptions {
  /** Directory in the tree, existing, links resolved. */
  directory: string;
  /** Refuse to replace a directory by something else, and something else by a directory. */
  noOverwriteDirNonDir: boolean;
  /** Everything belongs to this one, whatever the archive says. */
  owner?: {uid: number; gid: number};
}

export function unpackInto(tree: Tree, archive: TarReader, options: UnpackOptions): void {
  const unpacker = new Unpacker(tree, archive, options);
  try {
    for (let header = archive.next(); header; header = archive.next()) if (header.type !== GLOBAL) unpacker.entry(header);
    unpacker.finish();
  } finally {
    unpacker.close();
  }
}

/** An archive of a million directories is to have its times, but not at any price: beyond these the oldest keep the time of their last change. */
const MAX_TIMES = 1_000_000;

class Unpacker {
  private readonly directories: {path: string; mtime: number}[] = [];
  /** The directory of the last entry: archives name them one after the other. What an entry replaces lies in it, and never on the way to it. */
  private held: {path: string; fd: number} | undefined;

  constructor(private readonly tree: Tree, private readonly archive: TarReader, private readonly options: UnpackOptions) {}

  entry(header: TarHeader): void {
    const given = posix.normalize(header.name || '.').replace(/(?<=.)\/+$/, '');
    const path = posix.join(this.root, given);
    if (!this.isInside(path)) throw failed(`"${textOf(given.replace(/^\/+/, ''))}" is outside of "${textOf(this.root)}"`);
    if (given.includes('\0')) throw failed(`open ${textOf(path)}: invalid argument`);
    // The directory itself keeps what it is.
    if (path === this.root) return;
    const {directory, name} = splitLast(path);
    try {
      this.make(this.directoryOf(directory), name, path, header);
    } catch (err) {
      throw systemFailure(err, callOf(header.type), textOf(path));
    }
  }

  /** Times of directories come last: every entry made in one changes it. One that has gone meanwhile has no time. */
  finish(): void {
    for (const {path, mtime} of this.directories.reverse()) {
      try {
        const fd = openInRoot(this.tree.rootFd, path, O_PATH | O_DIRECTORY);
        try {
          fs.utimesSync(`/proc/self/fd/${fd}`, mtime, mtime);
        } finally {
          fs.closeSync(fd);
        }
      } catch (err) {
        if (!['ENOENT', 'ENOTDIR', 'ELOOP'].includes(codeOf(err) ?? '')) throw systemFailure(err, 'utimensat', textOf(path));
      }
    }
  }

  close(): void {
    if (this.held) fs.closeSync(this.held.fd);
    this.held = undefined;
  }

  private get root(): string {
    return this.options.directory;
  }

  /** By the text alone, as the Engine judges it: links are the kernel's part. */
  private isInside(path: string): boolean {
    return this.root === '/' || path === this.root || path.startsWith(`${this.root}/`);
  }

  private directoryOf(path: string): number {
    if (this.held?.path !== path) {
      this.close();
      this.held = {path, fd: this.tree.makeParents(path, this.options.owner ?? {uid: 0, gid: 0})};
    }
    return this.held.fd;
  }

  private make(dirfd: number, name: string, path: string, header: TarHeader): void {
    const directory = header.type === '5';
    const there = lstatAt(dirfd, name);
    if (there) {
      const {noOverwriteDirNonDir} = this.options;
      if (noOverwriteDirNonDir && there.isDirectory() && !directory) throw failed(`cannot overwrite directory "${textOf(path)}" with non-directory "${textOf(this.root)}"`);
      if (noOverwriteDirNonDir && !there.isDirectory() && directory) throw failed(`cannot overwrite non-directory "${textOf(path)}" with directory "${textOf(this.root)}"`);
      if (!(there.isDirectory() && directory)) this.remove(dirfd, name, path);
    }
    const mode = header.mode & 0o7777;
    switch (header.type) {
      case '0': return this.file(dirfd, name, header, mode);
      case '5':
        if (!there?.isDirectory()) fs.mkdirSync(bytes(entryOf(dirfd, name)), mode);
        this.directories.push({path, mtime: header.mtime});
        if (this.directories.length > MAX_TIMES) this.directories.shift();
        break;
      case '2': this.symlink(dirfd, name, path, header.linkname); break;
      case '1': return this.link(dirfd, name, path, header.linkname);
      case '6': makeNode(dirfd, name, fs.constants.S_IFIFO, mode); break;
      case '3': makeNode(dirfd, name, fs.constants.S_IFCHR, mode, header.major, header.minor); break;
      case '4': makeNode(dirfd, name, fs.constants.S_IFBLK, mode, header.major, header.minor); break;
      default: throw failed(`unhandled tar header type ${header.type.charCodeAt(0)}`);
    }
    this.attributes(dirfd, name, header, mode);
  }

  private remove(dirfd: number, name: string, path: string): void {
    try {
      removeAt(dirfd, name);
    } catch (err) {
      throw systemFailure(err, 'unlinkat', textOf(path));
    }
  }

  private file(dirfd: number, name: string, header: TarHeader, mode: number): void {
    const entry = bytes(entryOf(dirfd, name));
    const fd = fs.openSync(entry, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0o600);
    try {
      if (header.sparse) this.sparse(fd, header.sparse);
      else this.archive.content((buffer, offset, length) => writeAll(fd, buffer, offset, length));
      fs.fchownSync(fd, ...this.owner(header));
      this.xattrs(`/proc/self/fd/${fd}`, header);
      fs.fchmodSync(fd, mode);
      fs.futimesSync(fd, header.mtime, header.mtime);
    } finally {
      fs.closeSync(fd);
    }
  }

  private sparse(fd: number, {size, parts}: NonNullable<TarHeader['sparse']>): void {
    const pending = parts.values();
    let part = pending.next().value as {offset: number; length: number} | undefined;
    let done = 0;
    this.archive.content((buffer, offset, length) => {
      for (let at = 0; at < length && part;) {
        const bytesNow = Math.min(length - at, part.length - done);
        writeAll(fd, buffer, offset + at, bytesNow, part.offset + done);
        at += bytesNow;
        done += bytesNow;
        while (part && done === part.length) [part, done] = [pending.next().value as typeof part, 0];
      }
    });
    fs.ftruncateSync(fd, size);
  }

  private symlink(dirfd: number, name: string, path: string, target: string): void {
    if (!this.isInside(posix.join(posix.dirname(path), target))) throw failed(`invalid symlink "${textOf(path)}" -> "${textOf(target)}"`);
    fs.symlinkSync(bytes(target), bytes(entryOf(dirfd, name)));
  }

  private link(dirfd: number, name: string, path: string, said: string): void {
    const target = posix.join(this.root, said);
    if (!this.isInside(target)) throw failed(`invalid hardlink "${textOf(target)}" -> "${textOf(said)}"`);
    const {directory, name: last} = splitLast(target);
    try {
      const targetDir = openInRoot(this.tree.rootFd, directory, O_PATH | O_DIRECTORY);
      try {
        fs.linkSync(bytes(entryOf(targetDir, last || '.')), bytes(entryOf(dirfd, name)));
      } finally {
        fs.closeSync(targetDir);
      }
    } catch (err) {
      throw systemFailure(err, `link ${textOf(target)}`, textOf(path));
    }
  }

  /** On the very inode that was made (O_PATH): whoever puts a link in its place meanwhile has no say. */
  private attributes(dirfd: number, name: string, header: TarHeader, mode: number): void {
    const entry = entryOf(dirfd, name);
    fs.lchownSync(bytes(entry), ...this.owner(header));
    this.xattrs(entry, header);
    if (header.type === '2') return fs.lutimesSync(bytes(entry), header.mtime, header.mtime);
    const fd = fs.openSync(bytes(entry), O_PATH | O_NOFOLLOW);
    try {
      const itself = `/proc/self/fd/${fd}`;
      if (fs.fstatSync(fd).isSymbolicLink()) throw failed(`${textOf(name)} was replaced while it was written`);
      fs.chmodSync(itself, mode);
      if (header.type !== '5') fs.utimesSync(itself, header.mtime, header.mtime);
    } finally {
      fs.closeSync(fd);
    }
  }

  private owner(header: TarHeader): [number, number] {
    return this.options.owner ? [this.options.owner.uid, this.options.owner.gid] : [header.uid, header.gid];
  }

  private xattrs(path: string, header: TarHeader): void {
    for (const [key, value] of header.xattrs) {
      try {
        setXattr(path, key, value);
      } catch (err) {
        // A file system that knows none, or lets nobody set this one: the Engine goes on, too.
        if (!['EOPNOTSUPP', 'ENOTSUP', 'EPERM'].includes(codeOf(err) ?? '')) throw err;
      }
    }
  }
}

function callOf(type: string): string {
  return {'5': 'mkdir', '2': 'symlink', '3': 'mknod', '4': 'mknod', '6': 'mkfifo'}[type] ?? 'open';
}

function writeAll(fd: number, buffer: Buffer, offset: number, length: number, position: number | null = null): void {
  for (let done = 0; done < length;) done += fs.writeSync(fd, buffer, offset + done, length - done, position === null ? null : position + done);
}
