/** How processes end: a child of ours, and, by their command lines, those that have no parent of ours any more. */
import type {ChildProcess} from 'node:child_process';
import {once} from 'node:events';
import fs from 'node:fs';

const POLL_MS = 20;

/** This process excepted. */
export function processesWith(test: (words: string[]) => boolean): number[] {
  return fs.readdirSync('/proc').filter((p) => /^\d+$/.test(p) && Number(p) !== process.pid).flatMap((pid) => {
    try {
      return test(fs.readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0')) ? [Number(pid)] : [];
    } catch {
      return []; // it ended meanwhile
    }
  });
}

export function signalAll(pids: Iterable<number>, signal: NodeJS.Signals): void {
  for (const pid of pids)
    try { process.kill(pid, signal); } catch { /* it ended meanwhile */ }
}

/** False where some are left after that time. */
export async function untilGone(pids: () => number[], withinMs: number): Promise<boolean> {
  const deadline = Date.now() + withinMs;
  while (pids().length) {
    if (Date.now() > deadline) return false;
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
  return true;
}

/** SIGTERM, then SIGKILL; returns when it has ended. One that never came to be has. */
export async function endChild(child: ChildProcess, patienceMs: number): Promise<void> {
  if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
  const gone = once(child, 'exit');
  child.kill('SIGTERM');
  const killer = setTimeout(() => child.kill('SIGKILL'), patienceMs);
  await gone;
  clearTimeout(killer);
}
