/**
 * What agent and guard share, in one directory: until when what is marked may run, what is marked, and who guards. Times are CLOCK_BOOTTIME of this boot of the kernel, in
 * milliseconds: the same in every process, never set, and going on while the machine is suspended.
 */
import {closeSync, mkdirSync, openSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync, writeSync} from 'node:fs';
import {uptime} from 'node:os';
import {join} from 'node:path';

export interface LeaseUntil {
  bootId: string;
  /** Who renews it. */
  agentPid: number;
  /** From here on the agent does it. */
  untilMs: number;
  /** From here on the guard does. */
  guardAtMs: number;
}

export const bootTimeMs = (): number => uptime() * 1000;

/** A line of fixed length, written over the last one: no other block, no rename, no moment without it. */
const LINE_BYTES = 160;

export class LeaseFiles {
  private fd: number | undefined;

  constructor(readonly directory: string) {}

  write(lease: LeaseUntil): void {
    if (this.fd === undefined) {
      mkdirSync(this.directory, {recursive: true, mode: 0o700});
      this.fd = openSync(join(this.directory, 'lease'), 'a+', 0o600);
      closeSync(this.fd);
      this.fd = openSync(join(this.directory, 'lease'), 'r+');
    }
    writeSync(this.fd, `${JSON.stringify({...lease, untilMs: finite(lease.untilMs), guardAtMs: finite(lease.guardAtMs)})}`.padEnd(LINE_BYTES - 1).concat('\n'), 0);
  }

  /** undefined: there is none, or half of one. */
  read(): LeaseUntil | undefined {
    try {
      return JSON.parse(readFileSync(join(this.directory, 'lease'), 'utf8')) as LeaseUntil;
    } catch {
      return undefined;
    }
  }

  /** On disk before anything of the container runs. */
  mark(id: string): void {
    mkdirSync(join(this.directory, 'marked'), {recursive: true, mode: 0o700});
    writeFileSync(join(this.directory, 'marked', id), '');
  }

  unmark(id: string): void {
    rmSync(join(this.directory, 'marked', id), {force: true});
  }

  marked(): string[] {
    try {
      return readdirSync(join(this.directory, 'marked'));
    } catch {
      return [];
    }
  }

  guard(pid: number): void {
    writeFileSync(join(this.directory, 'guard.tmp'), String(pid));
    renameSync(join(this.directory, 'guard.tmp'), join(this.directory, 'guard'));
  }

  /** 0: nobody. */
  guardPid(): number {
    try {
      return Number(readFileSync(join(this.directory, 'guard'), 'utf8')) || 0;
    } catch {
      return 0;
    }
  }

  close(): void {
    if (this.fd !== undefined) closeSync(this.fd);
    this.fd = undefined;
  }
}

/** JSON has no infinity. */
const finite = (ms: number): number => (Number.isFinite(ms) ? ms : ms > 0 ? Number.MAX_SAFE_INTEGER : -1);

export function kernelBootId(): string {
  return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
}
