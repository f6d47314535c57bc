/**
 * Whether what an engine wrote has reached the disk. It never waits for that (no-sync.ts), so while it runs its directory bears the name of this boot
 * of the machine; after an orderly end all is written out and the name goes. A directory with another boot's name holds what nobody can trust.
 */
import {execFile} from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import {promisify} from 'node:util';

const BOOT = '/proc/sys/kernel/random/boot_id';
const SYNC_MS = 20_000;

const mark = (directory: string): string => path.join(directory, 'unsynced');
const boot = (): string => fs.readFileSync(BOOT, 'utf8').trim();

export function isLost(directory: string, now = boot()): boolean {
  try {
    return fs.readFileSync(mark(directory), 'utf8') !== now;
  } catch (err) {
    if ((err as NodeJS.ErrnoException).code === 'ENOENT') return false;
    throw err;
  }
}

/** Before it writes anything: the mark itself is on the disk. */
export function beginUnsynced(directory: string, now = boot()): void {
  fs.writeFileSync(mark(directory), now, {mode: 0o600, flush: true});
  const fd = fs.openSync(directory, 'r');
  try {
    fs.fsyncSync(fd);
  } finally {
    fs.closeSync(fd);
  }
}

/** After its end. A disk that is too slow for this leaves the mark: the cache is then given up at the next boot, not before. */
export async function writtenOut(directory: string): Promise<void> {
  if (!fs.existsSync(mark(directory))) return;
  try {
    await promisify(execFile)('sync', ['--file-system', directory], {timeout: SYNC_MS});
    fs.rmSync(mark(directory), {force: true});
  } catch { /* the mark stays */ }
}
