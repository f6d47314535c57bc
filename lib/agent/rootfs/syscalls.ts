/**
 * The system calls that Node.js does not have, over libc. Loaded by the worker process of this room alone: a call into a file system that hangs
 * (NFS, FUSE) holds its thread, which must not be the agent's.
 *
 * Paths are byte strings: one character a byte (latin1), since file names are bytes and not text. Errors are thrown as Node's own are: an Error
 * with `code`, `errno` and `syscall`.
 */
import {closeSync, constants, readlinkSync} from 'node:fs';
import {getSystemErrorName} from 'node:util';
import type * as Koffi from 'koffi' with {'resolution-mode': 'import'};

// Its types call it a module of the other kind; it comes as both.
const koffi = require('koffi') as typeof Koffi;
const libc = koffi.load('libc.so.6');
const syscall = libc.func('long syscall(long number, int dirfd, const void *path, void *how, size_t size)') as (
  number: number, dirfd: number, path: Buffer, how: Buffer, size: number) => number;
const mknodatFn = libc.func('int mknodat(int dirfd, const void *path, unsigned int mode, unsigned long dev)') as (
  dirfd: number, path: Buffer, mode: number, dev: number) => number;
const lsetxattrFn = libc.func('int lsetxattr(const void *path, const void *name, const void *value, size_t size, int flags)') as (
  path: Buffer, name: Buffer, value: Buffer, size: number, flags: number) => number;
const setxattrFn = libc.func('int setxattr(const void *path, const void *name, const void *value, size_t size, int flags)') as typeof lsetxattrFn;
const lgetxattrFn = libc.func('long lgetxattr(const void *path, const void *name, _Out_ void *value, size_t size)') as (
  path: Buffer, name: Buffer, value: Buffer, size: number) => number;

const unshareFn = libc.func('int unshare(int flags)') as (flags: number) => number;
const setnsFn = libc.func('int setns(int fd, int type)') as (fd: number, type: number) => number;
const prctlFn = libc.func('int prctl(int option, unsigned long value)') as (option: number, value: number) => number;
const mountFn = libc.func('int mount(const void *source, const void *target, const void *type, unsigned long flags, const void *data)') as (
  source: Buffer, target: Buffer, type: Buffer, flags: number, data: Buffer) => number;
const openTreeFn = libc.func('syscall', 'long', ['long', 'int', 'const void *', 'unsigned int']) as (number: number, dirfd: number, path: Buffer, flags: number) => number;
const moveMountFn = libc.func('syscall', 'long', ['long', 'int', 'const void *', 'int', 'const void *', 'unsigned int']) as (
  number: number, fromFd: number, from: Buffer, toFd: number, to: Buffer, flags: number) => number;

const numbersFn = libc.func('syscall', 'long', ['long', 'int', 'int', 'int']) as (number: number, a: number, b: number, c: number) => number;
const pollFn = libc.func('int poll(const void *fds, unsigned long count, int timeout)') as (fds: Buffer, count: number, timeout: number) => number;
const getsockoptFn = libc.func('int getsockopt(int fd, int level, int name, void *value, void *length)') as (
  fd: number, level: number, name: number, value: Buffer, length: Buffer) => number;

/** The same on every architecture (since Linux 5.2, 5.3 and 5.6). */
const SYS_OPEN_TREE = 428;
const SYS_MOVE_MOUNT = 429;
const SYS_PIDFD_OPEN = 434;
const SYS_OPENAT2 = 437;
const SYS_PIDFD_GETFD = 438;
const POLLIN = 1;
const SOL_SOCKET = 1;
const SO_PEERCRED = 17;
/** struct ucred: pid, uid, gid. */
const UCRED_BYTES = 12;
const CLONE_NEWNS = 0x20000;
const PR_SET_PDEATHSIG = 1;
const SIGKILL = 9;
const AT_EMPTY_PATH = 0x1000;
const AT_RECURSIVE = 0x8000;
const OPEN_TREE_CLONE = 1;
const MOVE_MOUNT_F_EMPTY_PATH = 0x4;
const MOVE_MOUNT_T_EMPTY_PATH = 0x40;
export const MOUNT = {readOnly: 0x1, remount: 0x20, bind: 0x1000, recursive: 0x4000, private: 0x40000, slave: 0x80000} as const;
const RESOLVE_NO_MAGICLINKS = 0x02n;
const RESOLVE_IN_ROOT = 0x10n;
export const O_PATH = 0o10000000;
const O_CLOEXEC = 0o2000000;
/** While directories are being renamed the kernel cannot always be sure that `..` stayed below the root; it then wants to be asked again. */
const MAX_TRIES = 1_000;
const MAX_XATTR_BYTES = 64 * 1024;

/** A path for Node's own functions. */
export const bytes = (path: string): Buffer => Buffer.from(path, 'latin1');
const cString = (path: string): Buffer => Buffer.from(`${path}\0`, 'latin1');

/** An entry of an open directory, for functions that take a path: `name` has no slash and is neither `.` nor `..`. */
export const entryOf = (dirfd: number, name: string): string => `/proc/self/fd/${dirfd}/${name}`;

function failure(call: string, path: string): NodeJS.ErrnoException {
  const errno = koffi.errno();
  const code = getSystemErrorName(-errno);
  return Object.assign(new Error(`${code}: ${call} '${path}'`), {code, errno: -errno, syscall: call});
}

/** Opens `path` below `rootFd` as a process would whose root that is: links, also absolute ones, and `..` never lead out. */
export function openInRoot(rootFd: number, path: string, flags: number, mode = 0): number {
  const how = Buffer.alloc(24);
  how.writeBigUInt64LE(BigInt(flags | O_CLOEXEC), 0);
  how.writeBigUInt64LE(BigInt(flags & constants.O_CREAT ? mode : 0), 8);
  how.writeBigUInt64LE(RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS, 16);
  const wanted = cString(path === '' ? '.' : path);
  for (let tries = 1; ; tries++) {
    const fd = syscall(SYS_OPENAT2, rootFd, wanted, how, how.length);
    if (fd >= 0) return fd;
    const err = failure('openat2', path);
    if (!(err.code === 'EAGAIN' || err.code === 'EINTR') || tries === MAX_TRIES) throw err;
  }
}

/** The parent's end, however it comes, is this process's end. */
export function dieWithParent(): void {
  prctlFn(PR_SET_PDEATHSIG, SIGKILL);
}

/** Another process's descriptor, as one of our own; undefined where the kernel does not give it. */
export function takeDescriptor(pid: number, fd: number): number | undefined {
  const process = numbersFn(SYS_PIDFD_OPEN, pid, 0, 0);
  if (process < 0) return undefined;
  const own = numbersFn(SYS_PIDFD_GETFD, process, fd, 0);
  closeSync(process);
  return own < 0 ? undefined : own;
}

/** Who has connected to the socket, as the kernel knows it; undefined where it does not, or that process is not to be seen from here. */
export function peerPid(socket: number): number | undefined {
  const peer = Buffer.alloc(UCRED_BYTES);
  const length = Buffer.alloc(4);
  length.writeInt32LE(peer.length);
  if (getsockoptFn(socket, SOL_SOCKET, SO_PEERCRED, peer, length) !== 0) return undefined;
  return peer.readInt32LE(0) || undefined;
}

/** Returns when a read of `fd` would not wait; false where nothing came for so long. */
export function awaitReadable(fd: number, patienceMs = -1): boolean {
  const asked = Buffer.alloc(8);
  asked.writeInt32LE(fd, 0);
  asked.writeInt16LE(POLLIN, 4);
  for (;;) {
    const ready = pollFn(asked, 1, patienceMs);
    if (ready >= 0) return ready > 0;
    const err = failure('poll', '');
    if (err.code !== 'EINTR') throw err;
  }
}

/** A mount namespace of this thread's own, and with it a root and a working directory of its own. What happens outside still shows, nothing here shows outside. */
export function ownMountNamespace(): void {
  if (unshareFn(CLONE_NEWNS) !== 0) throw failure('unshare', '');
  mount('none', '/', '', MOUNT.slave | MOUNT.recursive, '');
}

/** This thread's root and working directory become the namespace's. */
export function enterMountNamespace(fd: number): void {
  if (setnsFn(fd, CLONE_NEWNS) !== 0) throw failure('setns', '');
}

export function mount(source: string, target: string, type: string, flags: number, data: string): void {
  if (mountFn(cString(source), cString(target), cString(type), flags, cString(data)) !== 0) throw failure('mount', target);
}

/** A copy of the mount at `path` (below `dirfd`; '' is dirfd itself), as a descriptor; it is nowhere until it is placed. */
export function copyMount(dirfd: number, path: string, recursive: boolean): number {
  const fd = openTreeFn(SYS_OPEN_TREE, dirfd, cString(path), OPEN_TREE_CLONE | O_CLOEXEC | (path === '' ? AT_EMPTY_PATH : 0) | (recursive ? AT_RECURSIVE : 0));
  if (fd < 0) throw failure('open_tree', path);
  return fd;
}

/** Puts a copied mount onto an open entry. */
export function placeMount(fd: number, onto: number): void {
  const flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH;
  if (moveMountFn(SYS_MOVE_MOUNT, fd, cString(''), onto, cString(''), flags) !== 0) throw failure('move_mount', '');
}

/** `type` is S_IFCHR, S_IFBLK or S_IFIFO. */
export function makeNode(dirfd: number, name: string, type: number, mode: number, major = 0, minor = 0): void {
  if (mknodatFn(dirfd, cString(name), type | mode, deviceNumber(major, minor)) !== 0) throw failure('mknodat', name);
}

/** glibc's makedev for numbers that the kernel takes: 12 bits major, 20 bits minor. */
export function deviceNumber(major: number, minor: number): number {
  return Number((BigInt(minor) & 0xffn) | ((BigInt(major) & 0xfffn) << 8n) | ((BigInt(minor) & ~0xffn) << 12n));
}

export function deviceParts(rdev: number): {major: number; minor: number} {
  return {major: (rdev >>> 8) & 0xfff, minor: (rdev & 0xff) | ((Math.floor(rdev / 4096)) & 0xfff00)};
}

/** Of an open file (/proc/self/fd/N) or of an entry (entryOf), whose link is not followed. */
export function setXattr(path: string, key: string, value: Buffer): void {
  const set = /^\/proc\/self\/fd\/\d+$/.test(path) ? setxattrFn : lsetxattrFn;
  if (set(cString(path), cString(key), value, value.length, 0) !== 0) throw failure('lsetxattr', path);
}

/** undefined where there is none, or the file system knows no such thing. Does not follow a link. */
export function getXattr(dirfd: number, name: string, key: string): Buffer | undefined {
  const value = Buffer.alloc(MAX_XATTR_BYTES);
  const length = lgetxattrFn(cString(entryOf(dirfd, name)), cString(key), value, value.length);
  if (length >= 0) return Buffer.from(value.subarray(0, length));
  const err = failure('lgetxattr', name);
  if (['ENODATA', 'EOPNOTSUPP', 'ENOTSUP'].includes(err.code!)) return undefined;
  throw err;
}

/** Where an open file is, as its own root sees it when `rootFd` is that root. undefined where it lies elsewhere (or was removed). */
export function pathBelow(rootFd: number, fd: number): string | undefined {
  const root = readlinkSync(bytes(`/proc/self/fd/${rootFd}`), 'latin1');
  const path = readlinkSync(bytes(`/proc/self/fd/${fd}`), 'latin1');
  if (path === root) return '/';
  const prefix = root === '/' ? '/' : `${root}/`;
  return path.startsWith(prefix) ? `/${path.slice(prefix.length)}` : undefined;
}
