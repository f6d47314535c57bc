/** The agent's side of its guard: what it is told, and that it runs. There is none before the first lease that can end, so a node that nobody fences has no guard. */
import {spawn} from 'node:child_process';
import {readFileSync} from 'node:fs';
import {join} from 'node:path';
import type {Log} from '../../base/log';
import {kernelBootId, LeaseFiles, type LeaseUntil} from './lease-file';

/** Where leases and marks are kept, and whether somebody watches them. */
export interface Guard {
  /** What an earlier life of the agent left, of this boot of the kernel. */
  left(): Pick<LeaseUntil, 'untilMs'> | undefined;
  extend(untilMs: number, guardAtMs: number): void;
  mark(id: string): void;
  unmark(id: string): void;
  marked(): string[];
  close(): void;
}

export interface GuardOptions {
  directory: string;
  cgroupParent: string;
  log: Log;
  /** The built program, for tests that run from sources. */
  program?: string;
}

/** Stopped, being traced, a zombie, dead: it guards nothing. */
const USELESS = new Set(['T', 't', 'Z', 'X', 'x']);

export class ProcessGuard implements Guard {
  private readonly files: LeaseFiles;
  private readonly bootId = kernelBootId();

  constructor(private readonly options: GuardOptions) {
    this.files = new LeaseFiles(options.directory);
  }

  left(): Pick<LeaseUntil, 'untilMs'> | undefined {
    const lease = this.files.read();
    return lease?.bootId === this.bootId ? lease : undefined;
  }

  extend(untilMs: number, guardAtMs: number): void {
    this.files.write({bootId: this.bootId, agentPid: process.pid, untilMs, guardAtMs});
    if (Number.isFinite(untilMs)) this.ensure();
  }

  mark(id: string): void {
    this.files.mark(id);
  }

  unmark(id: string): void {
    this.files.unmark(id);
  }

  marked(): string[] {
    return this.files.marked();
  }

  close(): void {
    this.files.close();
  }

  private ensure(): void {
    if (this.guards(this.files.guardPid())) return;
    const {directory, cgroupParent, log, program = join(__dirname, 'guard.js')} = this.options;
    const child = spawn(process.execPath, ['--max-old-space-size=32', program, directory, cgroupParent], {stdio: 'ignore', env: {}, cwd: '/', detached: true});
    child.once('error', (err) => log.error({err}, 'the guard could not be started; the next heartbeat tries again'));
    child.unref();
    if (child.pid === undefined) return;
    // In its name, so that the next heartbeat does not start another before this one has come so far.
    this.files.guard(child.pid);
    log.info({pid: child.pid}, 'a guard watches over what is marked for rescheduling');
  }

  private guards(pid: number): boolean {
    if (pid <= 0) return false;
    try {
      // The name may hold anything, so what follows its last parenthesis; and the pid may be another's by now.
      const state = readFileSync(`/proc/${pid}/stat`, 'latin1').replace(/^.*\) /s, '')[0] ?? 'X';
      return !USELESS.has(state) && readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes(`\0${this.options.directory}\0`);
    } catch {
      return false;
    }
  }
}

/** For a runtime whose containers are in no control groups: kept in memory, and the agent watches alone. */
export function memoryGuard(): Guard {
  const marks = new Set<string>();
  let lease: {untilMs: number} | undefined;
  return {
    left: () => lease, extend: (untilMs) => { lease = {untilMs}; }, mark: (id) => void marks.add(id), unmark: (id) => void marks.delete(id), marked: () => [...marks], close: () => undefined,
  };
}
