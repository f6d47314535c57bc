/**
 * A container's files as `docker cp` shows them: its root, and over it the volumes, binds and files that are mounted in it, in a mount namespace
 * of this process alone. So nobody else sees these mounts, and they are gone with the process, however it ends.
 *
 * Of a container that runs, the mounts are copies of its own, taken inside its namespace: its root as it stands, its tmpfs too. Of one that does
 * not, the root is put together anew from its layers: for writing over its own writable layer (the one who asks sees to it that nobody else has
 * that mounted), for reading over a scratch layer, so that mount points can be made and nothing of the container changes.
 */
import fs from 'node:fs';
import {posix} from 'node:path';
import {CetusError} from '../../base/errors';
import {failed} from './failures';
import type {View, ViewMount} from './protocol';
import {MOUNT, O_PATH, copyMount, enterMountNamespace, mount, openInRoot, ownMountNamespace, pathBelow, placeMount} from './syscalls';
import {Tree, codeOf, isMissing} from './tree';

const {O_RDONLY, O_DIRECTORY, O_CREAT} = fs.constants;
const AT_FDCWD = -100;

export interface Opened {
  tree: Tree;
  /** What lies over the root, by where it is in the end: links in a destination are resolved. */
  mounts: {path: string; readOnly: boolean}[];
}

export function openView(view: View): Opened {
  if (view.kind === 'tree') return {tree: Tree.open(view.path), mounts: []};
  ownMountNamespace();
  return view.kind === 'live' ? openLive(view) : openStill(view);
}

/** Directories that lie over each other, topmost first, as one tree that cannot be written. */
export function mergedTree(layers: string[], place: string): Tree | undefined {
  if (layers.length < 2) return layers[0] === undefined ? undefined : Tree.open(layers[0]);
  mountOverlay(place, [], layers);
  return Tree.open(place);
}

function openLive({pid, containerId, mounts, place}: Extract<View, {kind: 'live'}>): Opened {
  const own = fs.openSync('/proc/self/ns/mnt', O_RDONLY);
  const theirs = openOf(pid, containerId);
  enterMountNamespace(theirs);
  let root: number;
  let found: {mount: ViewMount; copy: number}[];
  try {
    // Its root is the namespace's, whatever its first process has made of its own by chroot.
    root = copyMount(AT_FDCWD, '/', false);
    const rootFd = fs.openSync('/', O_RDONLY | O_DIRECTORY);
    found = mounts.flatMap((each) => copyOf(rootFd, each));
    fs.closeSync(rootFd);
  } finally {
    enterMountNamespace(own);
  }
  const onto = fs.openSync(place, O_PATH | O_DIRECTORY);
  placeMount(root, onto);
  fs.closeSync(onto);
  mount('none', place, '', MOUNT.private | MOUNT.recursive, '');
  return attach(Tree.open(place), found);
}

/**
 * The namespace of the container's process. A pid may be another's by now: opened first and compared afterwards, since a number that is the
 * container's after the opening was the container's during it.
 */
function openOf(pid: number, containerId: string): number {
  try {
    const fd = fs.openSync(`/proc/${pid}/ns/mnt`, O_RDONLY);
    if (fs.readFileSync(`/proc/${pid}/cgroup`, 'utf8').includes(containerId)) return fd;
  } catch (err) {
    if (!isMissing(err) && codeOf(err) !== 'ESRCH' && codeOf(err) !== 'EACCES') throw err;
  }
  throw new CetusError('stale', `the process of container ${containerId} has ended`);
}

function copyOf(rootFd: number, each: ViewMount): {mount: ViewMount; copy: number}[] {
  try {
    const at = openInRoot(rootFd, each.destination, O_PATH);
    const copy = copyMount(at, '', true);
    fs.closeSync(at);
    return [{mount: each, copy}];
  } catch (err) {
    // The container has taken it away, or forbids copies of it (an unbindable mount): it is not shown.
    if (isMissing(err) || codeOf(err) === 'EINVAL') return [];
    throw err;
  }
}

function openStill({layers, options, writable, readOnlyRoot, mounts, place}: Extract<View, {kind: 'still'}>): Opened {
  // Before anything is mounted over the place: sources may lie there.
  const found = mounts.map((each) => ({mount: each, copy: sourceOf(each)}));
  if (!writable) mountOverlay(place, [], layers);
  else if (options.length) mountOverlay(place, options, layers);
  else mount(layers[0]!, place, '', MOUNT.bind | MOUNT.recursive, '');
  mount('none', place, '', MOUNT.private | MOUNT.recursive, '');
  const opened = attach(Tree.open(place), found);
  if (writable && readOnlyRoot) mount('none', place, '', MOUNT.bind | MOUNT.remount | MOUNT.readOnly, '');
  return opened;
}

function sourceOf(each: ViewMount): number {
  try {
    return copyMount(AT_FDCWD, each.source, !each.nonRecursive);
  } catch (err) {
    if (codeOf(err) === 'ENOENT') throw failed(`bind source path does not exist: ${each.source}`);
    throw err;
  }
}

/**
 * `options` are the writable layer's, which is then the first of `layers`; without any, all layers are only read, below a scratch layer in memory.
 * Layers are named from their common parent: the kernel takes a page of options, and an image has up to 127 layers.
 */
function mountOverlay(place: string, options: string[], layers: string[]): void {
  const parent = commonParent(layers);
  const names = layers.map((layer) => posix.relative(parent, layer) || '.');
  const all = options.length
    ? [...options.filter((o) => !/^(lowerdir|upperdir)=/.test(o)), `upperdir=${names[0]!}`, `lowerdir=${names.slice(1).join(':')}`]
    : [...scratchLayer(place, layers[0]!), `lowerdir=${names.join(':')}`];
  const back = process.cwd();
  process.chdir(parent);
  mount('overlay', place, 'overlay', 0, all.join(','));
  process.chdir(back);
}

/** Lies where the overlay will cover it. Its root is what the tree's root looks like: the top layer's, to the second. */
function scratchLayer(place: string, like: string): string[] {
  mount('tmpfs', place, 'tmpfs', 0, 'mode=700');
  const [upper, work] = [`${place}/upper`, `${place}/work`];
  for (const directory of [upper, work]) fs.mkdirSync(directory);
  const stat = fs.statSync(like);
  fs.chownSync(upper, stat.uid, stat.gid);
  fs.chmodSync(upper, stat.mode & 0o7777);
  fs.utimesSync(upper, stat.atime, stat.mtime);
  return [`upperdir=${upper}`, `workdir=${work}`];
}

function commonParent(paths: string[]): string {
  let parent = posix.dirname(paths[0]!);
  while (!paths.every((path) => path.startsWith(parent === '/' ? '/' : `${parent}/`))) parent = posix.dirname(parent);
  return parent;
}

function attach(tree: Tree, found: {mount: ViewMount; copy: number}[]): Opened {
  const mounts: Opened['mounts'] = [];
  for (const {mount: each, copy} of found) {
    const onto = mountPoint(tree, each, copy);
    placeMount(copy, onto);
    fs.closeSync(onto);
    fs.closeSync(copy);
    const placed = openInRoot(tree.rootFd, each.destination, O_PATH);
    const here = `/proc/self/fd/${placed}`;
    // Nothing that is put over it is to appear where it came from.
    mount('none', here, '', MOUNT.private | MOUNT.recursive, '');
    if (each.readOnly) mount('none', here, '', MOUNT.bind | MOUNT.remount | MOUNT.readOnly, '');
    mounts.push({path: pathBelow(tree.rootFd, placed) ?? each.destination, readOnly: each.readOnly});
    fs.closeSync(placed);
  }
  return {tree, mounts};
}

/** Made where it is missing, as the runtime does before a start: directories for directories, files for everything else. */
function mountPoint(tree: Tree, each: ViewMount, copy: number): number {
  try {
    return openInRoot(tree.rootFd, each.destination, O_PATH);
  } catch (err) {
    if (codeOf(err) !== 'ENOENT') throw err;
  }
  const owner = {uid: 0, gid: 0};
  if (fs.fstatSync(copy).isDirectory()) {
    fs.closeSync(tree.makeParents(each.destination, owner));
  } else {
    fs.closeSync(tree.makeParents(posix.dirname(each.destination), owner));
    fs.closeSync(openInRoot(tree.rootFd, each.destination, O_CREAT | O_RDONLY, 0o755));
  }
  return openInRoot(tree.rootFd, each.destination, O_PATH);
}
