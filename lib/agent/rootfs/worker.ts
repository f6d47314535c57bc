/**
 * A process of its own for one order on a container's files: it reads and writes synchronously, may be held up by a file system that hangs, and can be
 * killed. Started by helper.ts; ends by itself.
 */
import fs from 'node:fs';
import {asCetusError, CetusError, type WireError} from '../../base/errors';
import {changesBetween} from './changes';
import {packPlace} from './pack';
import {statPlace} from './path-stat';
import {CONTROL_FD, type WorkerAnswer, type WorkerOrder} from './protocol';
import {O_PATH, openInRoot, pathBelow} from './syscalls';
import {TarWriter} from './tar-writer';
import {Tree, codeOf} from './tree';
import {unpackInto} from './unpack';

const STDOUT = 1;

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

/** What the caller called it: `/a/b/` is b, `/a/.` is the directory itself, `/` the root. */
function nameAsked(path: string): string {
  if (/(^|\/)\.$/.test(path) && path !== '.') return '.';
  const trimmed = path.replace(/\/+$/, '');
  return trimmed === '' || trimmed === '.' ? '/' : trimmed.slice(trimmed.lastIndexOf('/') + 1);
}

async function perform(order: WorkerOrder): Promise<void> {
  switch (order.kind) {
    case 'stat': case 'pack': return pack(order);
    case 'export': {
      const tree = Tree.open(order.root);
      const tar = new TarWriter((bytes) => writeAll(STDOUT, bytes));
      packPlace(tree.place('/'), tar, {name: '', oneFileSystem: true});
      return tar.finish();
    }
    case 'unpack': {
      const tree = Tree.open(order.root);
      const directory = realDirectory(tree, bytesOf(order.path));
      return unpackInto(tree, process.stdin, {...order, directory});
    }
    case 'changes': return answer({changes: changesBetween(Tree.open(order.upper), order.lower === undefined ? undefined : Tree.open(order.lower))});
    default: throw new CetusError('internal', 'an unknown order');
  }
}

function pack(order: {kind: 'stat' | 'pack'; root: string; path: string}): void {
  const tree = Tree.open(order.root);
  const place = tree.place(bytesOf(order.path));
  const stat = statPlace(tree, place, nameAsked(order.path));
  if (!stat) throw Object.assign(new Error(`ENOENT: ${order.path}`), {code: 'ENOENT'});
  answer({stat});
  if (order.kind === 'stat') return;
  const tar = new TarWriter((bytes) => writeAll(STDOUT, bytes));
  packPlace(place, tar, {name: bytesOf(stat.name)});
  tar.finish();
}

/** Where the archive goes must be there, and a directory. */
function realDirectory(tree: Tree, path: string): string {
  const fd = openInRoot(tree.rootFd, path, O_PATH);
  try {
    if (!fs.fstatSync(fd).isDirectory()) throw new CetusError('invalid', 'extraction point is not a directory');
    return pathBelow(tree.rootFd, fd) ?? path;
  } finally {
    fs.closeSync(fd);
  }
}

function failureOf(err: unknown, order: WorkerOrder | undefined): WireError {
  const code = codeOf(err);
  const path = order && 'path' in order ? order.path : '/';
  if (err instanceof CetusError) return err.toWire();
  if (code === 'ENOENT' || code === 'ENOTDIR') return {kind: 'notFound', message: `no such file or directory: ${path}`};
  if (code === 'ELOOP') return {kind: 'invalid', message: `too many levels of symbolic links: ${path}`};
  if (code === 'EROFS') return {kind: 'forbidden', message: 'container rootfs is marked read-only'};
  if (code === 'ENOSPC' || code === 'EDQUOT') return {kind: 'noSpace', message: `no space left on device: ${path}`};
  if (code === 'ENAMETOOLONG') return {kind: 'invalid', message: `file name too long: ${path}`};
  return asCetusError(err).toWire();
}

async function main(): Promise<void> {
  let order: WorkerOrder | undefined;
  try {
    order = readOrder();
    await perform(order);
    answer({done: true});
  } catch (err) {
    // Nobody reads any more: there is nobody to tell either.
    if (codeOf(err) !== 'EPIPE') answer({failure: failureOf(err, order)});
  }
  process.exit(0);
}

void main();
