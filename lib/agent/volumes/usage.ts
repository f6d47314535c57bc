/**
 * Bytes of the files below a directory, as `docker system df -v` shows them: apparent sizes, a file with several links once, directories
 * not at all. Bounded: a volume of millions of files must not hold a node for minutes, so after the limit the answer is -1, the Engine's "not known".
 */
import {lstat, opendir} from 'node:fs/promises';
import {join} from 'node:path';

const MAX_ENTRIES = 500_000;
const DEADLINE_MS = 10_000;
const LSTATS_AT_ONCE = 32;

export async function bytesBelow(root: string, signal: AbortSignal, limits: {entries?: number; deadlineMs?: number} = {}): Promise<number> {
  const end = performance.now() + (limits.deadlineMs ?? DEADLINE_MS);
  const maxEntries = limits.entries ?? MAX_ENTRIES;
  const linked = new Set<string>();
  const directories = [root];
  let entries = 0;
  let bytes = 0;
  const count = async (path: string): Promise<void> => {
    const stat = await lstat(path, {bigint: true}).catch(gone);
    if (!stat || stat.isDirectory()) return;
    if (stat.nlink > 1n) {
      const file = `${stat.dev}:${stat.ino}`;
      if (linked.has(file)) return;
      linked.add(file);
    }
    bytes += Number(stat.size);
  };
  for (let directory = directories.pop(); directory !== undefined; directory = directories.pop()) {
    const open = await opendir(directory).catch(gone);
    if (!open) continue;
    let files: string[] = [];
    for await (const entry of open) {
      entries += 1;
      if (entries > maxEntries || signal.aborted || performance.now() > end) return -1;
      const path = join(directory, entry.name);
      if (entry.isDirectory()) directories.push(path);
      else files.push(path);
      if (files.length < LSTATS_AT_ONCE) continue;
      await Promise.all(files.map(count));
      files = [];
    }
    await Promise.all(files.map(count));
  }
  return bytes;
}

/** Containers go on writing while we count. */
function gone(err: NodeJS.ErrnoException): undefined {
  if (err.code !== 'ENOENT' && err.code !== 'ENOTDIR') throw err;
  return undefined;
}
