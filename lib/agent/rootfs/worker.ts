/**
 * A process of its own for one order on a container's files: it reads and writes synchronously, may be held up by a file system that hangs, and can be
 * killed; what it mounts for its view of them goes with it. Started by helper.ts; ends by itself, or with the agent.
 */
import fs from 'node:fs';
import {posix} from 'node:path';
import {CetusError, unreachable} from '../../base/errors';
import {Unframer} from '../../base/framing';
import {type LoanOffer, LOAN_GOOD} from '../../schema/agent';
import {resolveUser} from '../spec/user';
import {changesBetween} from './changes';
import {UNEXPECTED_END, failed, missing, systemFailure, wireOf} from './failures';
import {packPlace} from './pack';
import {askedPath, nameAsked, statPlace, textOf} from './path-stat';
import {CONTROL_FD, type WorkerAnswer, type WorkerOrder} from './protocol';
import {O_PATH, awaitReadable, dieWithParent, openInRoot, pathBelow, peerPid, takeDescriptor} from './syscalls';
import {type Source, TarReader} from './tar-reader';
import {TarWriter} from './tar-writer';
import {Tree, codeOf, isMissing} from './tree';
import {unpackInto} from './unpack';
import {type Opened, mergedTree, openView} from './view';

const [STDIN, STDOUT] = [0, 1];
const MAX_PASSWD_BYTES = 1 << 20;
const {O_RDONLY, O_NONBLOCK} = fs.constants;

function answer(line: WorkerAnswer): void {
  writeAll(CONTROL_FD, Buffer.from(`${JSON.stringify(line)}\n`));
}

function writeAll(fd: number, bytes: Buffer): void {
  for (let at = 0; at < bytes.length;) at += fs.writeSync(fd, bytes, at, bytes.length - at);
}

function readOrder(): WorkerOrder {
  const parts: Buffer[] = [];
  const chunk = Buffer.alloc(64 * 1024);
  for (;;) {
    const length = fs.readSync(CONTROL_FD, chunk, 0, chunk.length, null);
    if (length === 0) process.exit(0);
    parts.push(Buffer.from(chunk.subarray(0, length)));
    if (chunk[length - 1] === 0x0a) return JSON.parse(Buffer.concat(parts).toString('utf8')) as WorkerOrder;
  }
}

const bytesOf = (text: string): string => Buffer.from(text, 'utf8').toString('latin1');

function perform(order: WorkerOrder): void {
  switch (order.kind) {
    case 'stat': case 'pack': return pack(order);
    case 'export': {
      const {tree} = openView(order.view);
      answer({ready: true});
      const tar = new TarWriter((bytes) => writeAll(STDOUT, bytes));
      packPlace(tree.place('/'), tar, {name: '', oneFileSystem: true});
      return tar.finish();
    }
    case 'unpack': return unpack(order);
    case 'changes': {
      const upper = Tree.open(order.upper);
      return answer({changes: changesBetween(upper, mergedTree(order.lower, order.place), order.made)});
    }
    default: return unreachable(order);
  }
}

function pack({kind, view, path, container}: Extract<WorkerOrder, {kind: 'stat' | 'pack'}>): void {
  const {tree} = openView(view);
  const asked = askedPath(path);
  const place = found(() => tree.place(bytesOf(asked)), path, container);
  const stat = statPlace(tree, place, nameAsked(asked));
  if (!stat) throw missing(path, container);
  answer({stat});
  if (kind === 'stat') return;
  const tar = new TarWriter((bytes) => writeAll(STDOUT, bytes));
  packPlace(place, tar, {name: bytesOf(stat.name)});
  tar.finish();
}

function unpack(order: Extract<WorkerOrder, {kind: 'unpack'}>): void {
  const opened = openView(order.view);
  const {tree} = opened;
  const directory = extractionPoint(tree, order.path, order.container);
  mustBeWritable(opened, directory, order.readOnlyRoot);
  const owner = order.user ? ownerOf(tree, order.user) : undefined;
  const archive = new TarReader(sourceOf(order.descriptor, order.loan));
  unpackInto(tree, archive, {directory, noOverwriteDirNonDir: order.noOverwriteDirNonDir, ...(owner ? {owner} : {})});
  archive.drain();
}

/** Answers that it can be read. A descriptor that cannot be had (no ptrace here, for whatever reason) is no failure: then stdin has the same. */
function sourceOf(descriptor: number | undefined, loan: LoanOffer | undefined): Source {
  const taken = descriptor === undefined ? undefined : takeDescriptor(process.ppid, descriptor);
  const lent = taken === undefined || !loan ? undefined : takeLent(taken, loan.descriptor);
  answer({ready: true, ...(taken === undefined ? {} : {taken: true}), ...(lent === undefined ? {} : {lent: true})});
  if (taken === undefined) return (into, offset, length) => fs.readSync(STDIN, into, offset, length, null);
  if (fs.readSync(CONTROL_FD, Buffer.alloc(1), 0, 1, null) === 0) process.exit(0);
  // They do not block, and must not: others have them, too.
  const near: Source = (into, offset, length) => {
    awaitReadable(taken);
    return fs.readSync(taken, into, offset, length, null);
  };
  return lent === undefined ? near : lentSource(near, lent, loan!);
}

/** Of the process at the other end of the agent's connection. A number that is no connection's there is as good as none. */
function takeLent(connection: number, descriptor: number): number | undefined {
  const pid = peerPid(connection);
  const lent = pid === undefined ? undefined : takeDescriptor(pid, descriptor);
  if (lent === undefined || fs.fstatSync(lent).isSocket()) return lent;
  fs.closeSync(lent);
  return undefined;
}

/** First what its owner had read of it already, then the connection to the body's end: a connection that ends before is an archive that breaks off. */
function lentSource(near: Source, lent: number, {before, framing, silenceMs}: LoanOffer): Source {
  if (near(Buffer.alloc(LOAN_GOOD.length), 0, LOAN_GOOD.length) === 0) process.exit(0);
  const unframer = new Unframer(framing);
  let left = before;
  return (into, offset, length) => {
    if (left > 0) {
      const got = near(into, offset, Math.min(left, length));
      if (got === 0) throw failed(UNEXPECTED_END);
      left -= got;
      return got;
    }
    while (!unframer.done) {
      if (!awaitReadable(lent, silenceMs)) throw new CetusError('timeout', 'the request body stalled');
      const got = fs.readSync(lent, into, offset, length, null);
      if (got === 0) throw failed(UNEXPECTED_END);
      const end = unframer.take(into, offset, offset + got);
      if (end > offset) return end - offset;
    }
    return 0;
  };
}

/** Where the archive goes must be there, and a directory. */
function extractionPoint(tree: Tree, path: string, container: string): string {
  const asked = askedPath(path);
  const fd = found(() => openInRoot(tree.rootFd, bytesOf(posix.resolve('/', path)), O_PATH), path, container);
  try {
    if (!fs.fstatSync(fd).isDirectory()) throw new CetusError('invalid', 'extraction point is not a directory');
    return pathBelow(tree.rootFd, fd) ?? bytesOf(asked);
  } finally {
    fs.closeSync(fd);
  }
}

/** Judged by the innermost mount over the extraction point, else by the root. */
function mustBeWritable({mounts}: Opened, directory: string, readOnlyRoot: boolean): void {
  const over = mounts.filter(({path}) => directory === path || directory.startsWith(`${path}/`)).sort((a, b) => b.path.length - a.path.length)[0];
  if (over?.readOnly) throw new CetusError('invalid', 'mounted volume is marked read-only');
  if (!over && readOnlyRoot) throw new CetusError('invalid', 'container rootfs is marked read-only');
}

function found<T>(look: () => T, path: string, container: string): T {
  // The kernel would read it up to there.
  if (path.includes('\0')) throw failed(`lstat ${path}: invalid argument`);
  try {
    return look();
  } catch (err) {
    if (codeOf(err) === 'ENOENT') throw missing(path, container);
    if (codeOf(err) === 'ELOOP') throw failed(`evalSymlinksInScope: too many links in ${path}`);
    throw isMissing(err) ? systemFailure(err, 'lstat', path) : err;
  }
}

/** By the files of the container itself. */
function ownerOf(tree: Tree, user: string): {uid: number; gid: number} {
  const {uid, gid} = resolveUser(user, [], (path) => smallFile(tree, path));
  return {uid, gid};
}

function smallFile(tree: Tree, path: string): string | undefined {
  let fd: number;
  try {
    fd = openInRoot(tree.rootFd, path, O_RDONLY | O_NONBLOCK);
  } catch (err) {
    if (isMissing(err)) return undefined;
    throw err;
  }
  try {
    const stat = fs.fstatSync(fd);
    if (!stat.isFile() || stat.size > MAX_PASSWD_BYTES) throw failed(`${textOf(path)} is no file of at most ${MAX_PASSWD_BYTES} bytes`);
    return fs.readFileSync(fd, 'utf8');
  } finally {
    fs.closeSync(fd);
  }
}

function main(): void {
  dieWithParent();
  let order: WorkerOrder | undefined;
  try {
    order = readOrder();
    perform(order);
    answer({done: true});
  } catch (err) {
    // Nobody reads any more: there is nobody to tell either.
    if (codeOf(err) !== 'EPIPE') answer({failure: wireOf(err, order && 'path' in order ? order.path : '/')});
  }
  process.exit(0);
}

main();
