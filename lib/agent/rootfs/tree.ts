/**
 * A foreign file tree behind one open directory. Whoever owns the tree may rewrite its links at any moment: every look-up goes through the kernel's own
 * confinement (openat2, RESOLVE_IN_ROOT), and whatever is done to an entry is done relative to a directory that is held open, without following the
 * entry itself. Nothing here ever uses a path from the node's root.
 *
 * Paths and names are byte strings (see syscalls). All calls are synchronous: this runs in a process of its own.
 */
import fs from 'node:fs';
import {CetusError} from '../../base/errors';
import {O_PATH, bytes, entryOf, openInRoot, pathBelow} from './syscalls';

const {O_RDONLY, O_DIRECTORY, O_NOFOLLOW, O_NONBLOCK} = fs.constants;
/** Directories inside one another; each holds a descriptor while it is walked. */
export const MAX_DEPTH = 2_000;

/** A name in an open directory. The directory belongs to whoever asked: close(). */
export interface Place {
  dirfd: number;
  name: string;
  /** The directory as the tree's owner would write it, links resolved; undefined where it was removed meanwhile. */
  directory: string | undefined;
}

export function codeOf(err: unknown): string | undefined {
  return (err as NodeJS.ErrnoException | undefined)?.code;
}

export const isMissing = (err: unknown): boolean => codeOf(err) === 'ENOENT' || codeOf(err) === 'ENOTDIR';

/** As `join` of path.posix without resolving anything: what lies behind a link must not be computed from the text. */
export function splitLast(path: string): {directory: string; name: string} {
  const trimmed = path.replace(/\/+$/, '');
  const at = trimmed.lastIndexOf('/');
  return {directory: at < 0 ? '.' : trimmed.slice(0, at) || '/', name: trimmed.slice(at + 1)};
}

export class Tree {
  constructor(readonly rootFd: number) {}

  static open(root: string): Tree {
    return new Tree(fs.openSync(root, O_RDONLY | O_DIRECTORY));
  }

  close(): void {
    fs.closeSync(this.rootFd);
  }

  /** A descriptor that reads nothing and waits for nothing (O_PATH). A last component that is a link is followed where `follow` is set. */
  look(path: string, follow: boolean): number {
    return openInRoot(this.rootFd, path, O_PATH | (follow ? 0 : O_NOFOLLOW));
  }

  /**
   * The entry that `path` names, its own link not followed. A path that ends in `/`, `/.` or `..` names what the directory is: then the entry is
   * `.` in that directory, which is followed.
   */
  place(path: string): Place {
    const {directory, name} = splitLast(path);
    const itself = name === '' || name === '.' || name === '..' || /\/$/.test(path);
    const dirfd = openInRoot(this.rootFd, itself ? path : directory, O_PATH | O_DIRECTORY);
    return {dirfd, name: itself ? '.' : name, directory: pathBelow(this.rootFd, dirfd)};
  }

  /** Opens the directory `path`; what is missing of it is made (mode 0755, for `owner`), as the Engine does on its way to an entry. Closed by the caller. */
  makeParents(path: string, owner: {uid: number; gid: number}): number {
    let dirfd = openInRoot(this.rootFd, '/', O_PATH | O_DIRECTORY);
    let made = '';
    for (const part of path.split('/')) {
      if (part === '' || part === '.') continue;
      made += `/${part}`;
      let next: number;
      try {
        next = openInRoot(this.rootFd, made, O_PATH | O_DIRECTORY);
      } catch (err) {
        if (codeOf(err) !== 'ENOENT') {
          fs.closeSync(dirfd);
          throw err;
        }
        try {
          next = this.makeOne(dirfd, part, made, owner);
        } catch (failed) {
          fs.closeSync(dirfd);
          throw failed;
        }
      }
      fs.closeSync(dirfd);
      dirfd = next;
    }
    return dirfd;
  }

  private makeOne(dirfd: number, part: string, path: string, owner: {uid: number; gid: number}): number {
    if (part === '..') throw new CetusError('invalid', `${path} leads through a directory that does not exist`);
    try {
      fs.mkdirSync(bytes(entryOf(dirfd, part)), 0o755);
      fs.lchownSync(bytes(entryOf(dirfd, part)), owner.uid, owner.gid);
    } catch (err) {
      // A link that dangles stands there, or somebody made it at the same moment: the second look decides.
      if (codeOf(err) !== 'EEXIST') throw err;
    }
    return openInRoot(this.rootFd, path, O_PATH | O_DIRECTORY);
  }
}

export function lstatAt(dirfd: number, name: string): fs.Stats | undefined {
  return fs.lstatSync(bytes(entryOf(dirfd, name)), {throwIfNoEntry: false});
}

export function readlinkAt(dirfd: number, name: string): string {
  return fs.readlinkSync(bytes(entryOf(dirfd, name)), 'latin1');
}

/** Refuses a link in its place. */
export function openDirectoryAt(dirfd: number, name: string): number {
  return fs.openSync(bytes(entryOf(dirfd, name)), O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
}

/** For reading; a link, or anything that is no regular file by now, is refused. Does not wait for the writer of a FIFO. */
export function openFileAt(dirfd: number, name: string): {fd: number; stat: fs.Stats} {
  const fd = fs.openSync(bytes(entryOf(dirfd, name)), O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
  const stat = fs.fstatSync(fd);
  if (stat.isFile()) return {fd, stat};
  fs.closeSync(fd);
  throw Object.assign(new Error(`EINVAL: no regular file any more, '${name}'`), {code: 'EINVAL'});
}

/** Sorted, so that the same tree gives the same archive. */
export function namesIn(dirfd: number): string[] {
  return fs.readdirSync(bytes(`/proc/self/fd/${dirfd}`), 'latin1').sort();
}

/** As `rm -rf`, without ever following a link. A missing entry is none of its business. */
export function removeAt(dirfd: number, name: string, depth = 0): void {
  if (depth > MAX_DEPTH) throw new CetusError('invalid', `directories more than ${MAX_DEPTH} deep`);
  const path = bytes(entryOf(dirfd, name));
  try {
    fs.unlinkSync(path);
    return;
  } catch (err) {
    if (codeOf(err) === 'ENOENT') return;
    if (codeOf(err) !== 'EISDIR' && codeOf(err) !== 'EPERM') throw err;
  }
  const inner = openDirectoryAt(dirfd, name);
  try {
    for (const child of namesIn(inner)) removeAt(inner, child, depth + 1);
  } finally {
    fs.closeSync(inner);
  }
  fs.rmdirSync(path);
}
