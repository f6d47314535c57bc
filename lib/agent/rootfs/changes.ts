/**
 * What a container changed of its image, from the two sides of its overlay: the writable layer and the merged layers below it. Overlayfs marks a removal by
 * a character device 0:0 and a directory that hides all below it by an attribute.
 */
import fs from 'node:fs';
import {CetusError} from '../../base/errors';
import type {ChangeKind, FilesystemChange} from '../../schema/rootfs';
import {textOf} from './path-stat';
import {getXattr} from './syscalls';
import {MAX_DEPTH, type Tree, codeOf, lstatAt, namesIn, openDirectoryAt} from './tree';

const MODIFIED: ChangeKind = 0;
const ADDED: ChangeKind = 1;
const DELETED: ChangeKind = 2;

/**
 * Parents before their children, names in byte order. `made` are the places that the runtime makes in every container to mount something there: where
 * they are empty they are no change of the container's (the Engine has them in a layer below), nor are their directories for that alone.
 */
export function changesBetween(upper: Tree, lower: Tree | undefined, made: string[] = []): FilesystemChange[] {
  return new Comparison(new Set(made)).run(upper.rootFd, lower?.rootFd);
}

class Comparison {
  private readonly found: FilesystemChange[] = [];

  constructor(private readonly made: ReadonlySet<string>) {}

  run(upper: number, lower: number | undefined): FilesystemChange[] {
    this.directory(upper, lower, '', 0);
    return this.found;
  }

  /** Answers whether all that is in it is of the runtime's making. */
  private directory(upper: number, lower: number | undefined, path: string, depth: number): boolean {
    if (depth > MAX_DEPTH) throw new CetusError('invalid', `directories more than ${MAX_DEPTH} deep`);
    const names = namesIn(upper);
    let made = 0;
    for (const name of names) {
      const stat = lstatAt(upper, name);
      if (!stat) continue;
      const below = lower === undefined ? undefined : lstatAt(lower, name);
      if (this.entry({upper, lower, name, stat, below, path: `${path}/${name}`, depth})) made += 1;
    }
    return names.length > 0 && made === names.length;
  }

  /** Answers whether it is of the runtime's making. */
  private entry({upper, lower, name, stat, below, path, depth}: {upper: number; lower: number | undefined; name: string; stat: fs.Stats; below: fs.Stats | undefined; path: string; depth: number}): boolean {
    // A removal of what is not below either is left by something that came and went.
    if (stat.isCharacterDevice() && stat.rdev === 0) {
      if (below) this.found.push({Path: textOf(path), Kind: DELETED});
      return false;
    }
    const made = !below && this.made.has(path);
    if (!stat.isDirectory()) {
      if (made && stat.size === 0) return true;
      this.found.push({Path: textOf(path), Kind: below ? MODIFIED : ADDED});
      return false;
    }
    // A directory is there also when only something in it changed, and is then named, too, as the Engine does.
    const at = this.found.push({Path: textOf(path), Kind: below ? MODIFIED : ADDED});
    const inner = openDirectoryAt(upper, name);
    const opaque = getXattr(upper, name, 'trusted.overlay.opaque')?.toString() === 'y';
    const merged = below?.isDirectory() ? below : undefined;
    const innerLower = merged && lower !== undefined ? openLower(lower, name) : undefined;
    try {
      const onlyMade = this.directory(inner, opaque ? undefined : innerLower, path, depth + 1);
      if (opaque && innerLower !== undefined) this.hidden(inner, innerLower, path);
      if (this.found.length > at) return false;
      const untouched = merged ? sameOwner(stat, merged) && (onlyMade || stat.mtimeMs === merged.mtimeMs) : onlyMade || made;
      if (untouched) this.found.pop();
      return untouched && (onlyMade || made);
    } finally {
      fs.closeSync(inner);
      if (innerLower !== undefined) fs.closeSync(innerLower);
    }
  }

  private hidden(upper: number, lower: number, path: string): void {
    for (const name of namesIn(lower))
      if (!lstatAt(upper, name)) this.found.push({Path: textOf(`${path}/${name}`), Kind: DELETED});
  }
}

function openLower(lower: number, name: string): number | undefined {
  try {
    return openDirectoryAt(lower, name);
  } catch (err) {
    if (['ENOENT', 'ENOTDIR', 'ELOOP'].includes(codeOf(err) ?? '')) return undefined;
    throw err;
  }
}

const sameOwner = (a: fs.Stats, b: fs.Stats): boolean => a.mode === b.mode && a.uid === b.uid && a.gid === b.gid;
