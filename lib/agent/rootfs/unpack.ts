/**
 * A tar into a directory of a tree, as the Engine does it: what stands in the way is replaced (a directory merges with a directory), missing parents
 * are made, owners, modes, times and extended attributes are the archive's. Links are made as they are written; where they lead is the
 * container's affair, since every look-up ends below the tree's root.
 */
import fs from 'node:fs';
import {posix} from 'node:path';
import type {Readable} from 'node:stream';
import {type Header, extract} from 'tar-stream';
import {CetusError} from '../../base/errors';
import {textOf} from './path-stat';
import {O_PATH, bytes, entryOf, makeNode, openInRoot, setXattr} from './syscalls';
import {type Tree, codeOf, lstatAt, removeAt, splitLast} from './tree';

const {O_WRONLY, O_CREAT, O_EXCL, O_NOFOLLOW, O_DIRECTORY} = fs.constants;
const XATTR = 'SCHILY.xattr.';
const MAX_ENTRIES = 10_000_000;

export interface UnpackOptions {
  /** Directory in the tree, existing. */
  directory: string;
  /** Refuse to replace a directory by something else, and something else by a directory. */
  noOverwriteDirNonDir: boolean;
  /** Everything belongs to this one, whatever the archive says. */
  owner?: {uid: number; gid: number};
}

export async function unpackInto(tree: Tree, archive: Readable, options: UnpackOptions): Promise<void> {
  const entries = extract({filenameEncoding: 'latin1'} as Parameters<typeof extract>[0]);
  archive.on('error', (err) => entries.destroy(err));
  archive.pipe(entries);
  const unpacker = new Unpacker(tree, options);
  let count = 0;
  try {
    for await (const entry of entries) {
      if (++count > MAX_ENTRIES) throw new CetusError('invalid', `the archive has more than ${MAX_ENTRIES} entries`);
      await unpacker.entry(entry.header, entry as unknown as AsyncIterable<Buffer>);
      entry.resume();
    }
  } catch (err) {
    throw archiveError(err);
  }
  unpacker.finish();
}

function archiveError(err: unknown): unknown {
  const {message} = err as Error;
  if (/Unexpected end of data/i.test(message)) return new CetusError('invalid', 'unexpected EOF', {cause: err});
  if (/Invalid tar header|Invalid pax|Maybe the tar is corrupted/i.test(message)) return new CetusError('invalid', 'archive/tar: invalid tar header', {cause: err});
  return err;
}

interface Times { path: string; mtime: Date }

class Unpacker {
  private readonly directories: Times[] = [];

  constructor(private readonly tree: Tree, private readonly options: UnpackOptions) {}

  async entry(header: Header, content: AsyncIterable<Buffer>): Promise<void> {
    const given = nameOf(header.name, pax(header).path);
    const path = this.pathOf(given);
    if (path === undefined) throw new CetusError('invalid', `${textOf(given)} is outside of ${textOf(this.options.directory)}`);
    const {directory, name} = splitLast(path);
    const own = path === this.root;
    const dirfd = own ? this.tree.makeParents(path, this.owner(header, true)) : this.tree.makeParents(directory, this.owner(header, true));
    try {
      await this.make(dirfd, own ? '.' : name, path, given, header, content);
    } finally {
      fs.closeSync(dirfd);
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
        if (!['ENOENT', 'ENOTDIR', 'ELOOP'].includes(codeOf(err) ?? '')) throw err;
      }
    }
  }

  private get root(): string {
    return posix.resolve('/', this.options.directory);
  }

  /** undefined where the name climbs out of the directory. By the text alone, as the Engine judges it: links are the kernel's part. */
  private pathOf(given: string): string | undefined {
    if (given.includes('\0')) return undefined;
    const relative = posix.normalize(given.replace(/^\/+/, '') || '.').replace(/\/+$/, '');
    if (relative === '..' || relative.startsWith('../')) return undefined;
    return relative === '.' || relative === '' ? this.root : posix.join(this.root, relative);
  }

  private async make(dirfd: number, name: string, path: string, given: string, header: Header, content: AsyncIterable<Buffer>): Promise<void> {
    const directory = header.type === 'directory';
    const there = lstatAt(dirfd, name);
    if (there) {
      const {noOverwriteDirNonDir} = this.options;
      if (noOverwriteDirNonDir && there.isDirectory() && !directory) throw new CetusError('invalid', `cannot overwrite directory "${textOf(path)}" with non-directory "${textOf(this.options.directory)}"`);
      if (noOverwriteDirNonDir && !there.isDirectory() && directory) throw new CetusError('invalid', `cannot overwrite non-directory "${textOf(path)}" with directory "${textOf(this.options.directory)}"`);
      if (name === '.') {
        // The directory itself keeps what it is, as with the Engine: only its time is the archive's.
        if (directory) return;
        throw new CetusError('invalid', `cannot overwrite directory "${textOf(path)}" with non-directory "${textOf(given)}"`);
      }
      if (!(there.isDirectory() && directory)) removeAt(dirfd, name);
    }
    const mode = (header.mode ?? 0) & 0o7777;
    switch (header.type) {
      case 'directory':
        if (!there?.isDirectory()) fs.mkdirSync(bytes(entryOf(dirfd, name)), mode);
        this.directories.push({path, mtime: timeOf(header)});
        break;
      case 'file': case 'contiguous-file': await writeFile(dirfd, name, content); break;
      case 'symlink': fs.symlinkSync(bytes(nameOf(header.linkname ?? '', pax(header).linkpath)), bytes(entryOf(dirfd, name))); break;
      case 'link': this.link(dirfd, name, header); break;
      case 'fifo': makeNode(dirfd, name, fs.constants.S_IFIFO, mode); break;
      case 'character-device': makeNode(dirfd, name, fs.constants.S_IFCHR, mode, header.devmajor, header.devminor); break;
      case 'block-device': makeNode(dirfd, name, fs.constants.S_IFBLK, mode, header.devmajor, header.devminor); break;
      default: throw new CetusError('invalid', `unhandled tar header type of ${textOf(given)}`);
    }
    if (header.type !== 'link') this.attributes(dirfd, name, header, mode);
  }

  private link(dirfd: number, name: string, header: Header): void {
    const said = nameOf(header.linkname ?? '', pax(header).linkpath);
    const target = this.pathOf(said);
    if (target === undefined) throw new CetusError('invalid', `invalid hardlink "${textOf(said)}" -> "${textOf(name)}"`);
    const {directory, name: last} = splitLast(target);
    const targetDir = openInRoot(this.tree.rootFd, directory, O_PATH | O_DIRECTORY);
    try {
      fs.linkSync(bytes(entryOf(targetDir, last)), bytes(entryOf(dirfd, name)));
    } finally {
      fs.closeSync(targetDir);
    }
  }

  /** On the very inode that was made (O_PATH): whoever puts a link in its place meanwhile has no say. */
  private attributes(dirfd: number, name: string, header: Header, mode: number): void {
    const entry = bytes(entryOf(dirfd, name));
    const {uid, gid} = this.owner(header, false);
    const mtime = timeOf(header);
    fs.lchownSync(entry, uid, gid);
    for (const [key, value] of this.xattrs(header)) setXattrOf(dirfd, name, key, value);
    if (header.type === 'symlink') return fs.lutimesSync(entry, mtime, mtime);
    const fd = fs.openSync(entry, O_PATH | O_NOFOLLOW);
    try {
      const itself = `/proc/self/fd/${fd}`;
      if (fs.fstatSync(fd).isSymbolicLink()) throw new CetusError('conflict', `${textOf(name)} was replaced while it was written`);
      fs.chmodSync(itself, mode);
      if (header.type !== 'directory') fs.utimesSync(itself, mtime, mtime);
    } finally {
      fs.closeSync(fd);
    }
  }

  private owner(header: Header, parent: boolean): {uid: number; gid: number} {
    if (this.options.owner) return this.options.owner;
    if (parent) return {uid: 0, gid: 0};
    return {uid: Number(pax(header).uid ?? header.uid ?? 0), gid: Number(pax(header).gid ?? header.gid ?? 0)};
  }

  private xattrs(header: Header): [string, Buffer][] {
    return Object.entries(pax(header)).filter(([key]) => key.startsWith(XATTR)).map(([key, value = '']) => {
      // tar-stream has made text of the bytes; what was none cannot be told any more.
      if (value.includes('\ufffd')) throw new CetusError('unsupported', `the extended attribute ${key.slice(XATTR.length)} of ${header.name} has a value that is not UTF-8`);
      return [key.slice(XATTR.length), Buffer.from(value, 'utf8')];
    });
  }
}

function setXattrOf(dirfd: number, name: string, key: string, value: Buffer): void {
  try {
    setXattr(dirfd, name, key, value);
  } catch (err) {
    // A file system that knows none: the Engine goes on, too.
    if (!['EOPNOTSUPP', 'ENOTSUP'].includes(codeOf(err) ?? '')) throw err;
  }
}

const pax = (header: Header): Partial<Record<string, string>> => (header.pax ?? {}) as Partial<Record<string, string>>;

/** The header's own name is bytes already; one from a pax record was read as text. */
const nameOf = (plain: string, pax: string | undefined): string => (pax === undefined ? plain : Buffer.from(pax, 'utf8').toString('latin1'));

function timeOf(header: Header): Date {
  const seconds = pax(header).mtime === undefined ? NaN : Number(pax(header).mtime);
  return Number.isFinite(seconds) ? new Date(seconds * 1000) : header.mtime ?? new Date(0);
}

async function writeFile(dirfd: number, name: string, content: AsyncIterable<Buffer>): Promise<void> {
  const fd = fs.openSync(bytes(entryOf(dirfd, name)), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0o600);
  try {
    for await (const chunk of content)
      for (let at = 0; at < chunk.length;) at += fs.writeSync(fd, chunk, at, chunk.length - at);
  } finally {
    fs.closeSync(fd);
  }
}
