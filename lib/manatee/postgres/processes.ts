/**
 * Which processes belong to a data directory's server: those named postgres whose working directory it is, whoever their parent is by now. (Backends make
 * sessions of their own, so no process group holds them; a postmaster that was killed leaves them to init.)
 */
import {readdirSync, readFileSync, readlinkSync, statSync} from 'node:fs';
import path from 'node:path';
import type {Monotonic} from '../coordination';

export interface ServerProcess { pid: number; parent: number }

const SERVER: ReadonlySet<string> = new Set(['postgres']);
/** What works on a directory for us, and would go on when we are gone. */
const TOOLS: ReadonlySet<string> = new Set(['postgres', 'initdb', 'pg_basebackup', 'pg_rewind']);

export function processesOf(dataDir: string, names: ReadonlySet<string> = SERVER): ServerProcess[] {
  const wanted = statSync(dataDir, {throwIfNoEntry: false});
  if (!wanted) return [];
  return readdirSync('/proc').filter((name) => /^\d+$/.test(name)).flatMap((name) => {
    try {
      if (path.basename(readlinkSync(`/proc/${name}/cwd`).replace(/ \(deleted\)$/, '')) !== path.basename(dataDir)) return [];
      const at = statSync(`/proc/${name}/cwd`);
      if (at.ino !== wanted.ino || at.dev !== wanted.dev) return [];
      const [, comm, rest] = /^\d+ \((.*)\) (.*)$/s.exec(readFileSync(`/proc/${name}/stat`, 'utf8'))!;
      const [state, parent] = rest!.split(' ');
      return names.has(comm!) && state !== 'Z' && state !== 'X' ? [{pid: Number(name), parent: Number(parent)}] : [];
    } catch {
      return []; // it has ended, or is none of ours to look at
    }
  });
}

export function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name);
  } catch {
    // It has ended.
  }
}

/** By SIGSTOP, or a debugger. */
export function isStopped(pid: number): boolean {
  try {
    return /^\d+ \(.*\) [Tt]/s.test(readFileSync(`/proc/${pid}/stat`, 'utf8'));
  } catch {
    return false;
  }
}

/** Version 14's collector of statistics: the one child that the server's own views do not show and that ignores SIGTERM. Clients' titles say more than this. */
export function isCollector(pid: number): boolean {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'latin1').replace(/[\0 ]+$/, '') === 'postgres: stats collector';
  } catch {
    return false;
  }
}

/** Ends whatever an earlier sitter has left at work in these directories. */
export async function endTools(dirs: string[], clock: Monotonic): Promise<void> {
  for (const dir of dirs) await endAll(dir, clock, TOOLS);
}

/** Ends whatever is left of the server, and returns when nothing is. */
export async function endAll(dataDir: string, clock: Monotonic, names: ReadonlySet<string> = SERVER): Promise<void> {
  // A process that sleeps in the disk dies when the disk answers; until then it is not gone, and nobody may say so.
  for (let waitMs = 2; ; waitMs = Math.min(50, waitMs * 2)) {
    const left = processesOf(dataDir, names);
    if (left.length === 0) return;
    for (const {pid} of left) signal(pid, 'SIGKILL');
    await clock.sleep(waitMs);
  }
}
