/**
 * The kernel lets a process move between control groups only after an RCU grace period: 6 to 16 ms, on idle processors too, unless the last
 * move of any process was less than some 10 ms ago. runc moves one in the middle of every create and exec, and everybody waits for
 * it. `open` asks for the same wait beforehand, beside the work that comes first, and keeps the gate open until it is let go: by moving
 * this process to where it is. That changes nothing, costs 0.04 ms while the gate is open, and never fails: where it cannot be done
 * (no cgroup file system, a read-only one), runc waits as it always did.
 */
import fs from 'node:fs';
import path from 'node:path';

/** Safely below the time after which the kernel shuts the gate. */
const KEEP_OPEN_MS = 6;
/** Nobody's process takes longer to reach its group; whoever does pays the wait. */
const MAX_OPEN_MS = 200;

export interface CgroupGateOptions {
  /** /proc/self. */
  proc?: string;
}

export class CgroupGate {
  private readonly proc: string;
  private group: {text: string; fd: number} | undefined;
  private openUntil = 0;
  private holders = 0;
  private moving = false;
  private closed = false;
  private timer: NodeJS.Timeout | undefined;

  constructor(options: CgroupGateOptions = {}) {
    this.proc = options.proc ?? '/proc/self';
  }

  /** A process is about to be made. The answer says that it has been, or that nothing will come of it; repeatable. */
  open(): () => void {
    this.holders += 1;
    this.openUntil = performance.now() + MAX_OPEN_MS;
    this.move();
    let left = false;
    return () => {
      if (left) return;
      left = true;
      this.holders -= 1;
    };
  }

  close(): void {
    clearTimeout(this.timer);
    this.closed = true;
    // One that waits for the kernel keeps its descriptor until it is through.
    if (!this.moving) this.forget();
  }

  private move(): void {
    if (this.moving || this.closed) return;
    clearTimeout(this.timer);
    const fd = this.descriptor();
    if (fd === undefined) return;
    this.moving = true;
    // "0" is the writer itself. On a thread of its own: this is the call that waits.
    fs.write(fd, '0', () => {
      this.moving = false;
      if (this.closed) this.forget();
      else if (this.holders > 0 && performance.now() < this.openUntil) {
        this.timer = setTimeout(() => this.move(), KEEP_OPEN_MS);
        this.timer.unref();
      }
    });
  }

  /** Looked up each time: whoever moved us meanwhile (a service manager, an operator) must not see us go back. */
  private descriptor(): number | undefined {
    try {
      const text = fs.readFileSync(`${this.proc}/cgroup`, 'utf8');
      if (this.group?.text === text) return this.group.fd;
      this.forget();
      const file = procsFile(text, fs.readFileSync(`${this.proc}/mountinfo`, 'utf8'));
      if (file === undefined) return undefined;
      this.group = {text, fd: fs.openSync(file, 'w')};
      return this.group.fd;
    } catch {
      return undefined;
    }
  }

  private forget(): void {
    if (this.group) fs.closeSync(this.group.fd);
    this.group = undefined;
  }
}

/** The cgroup.procs of this process's own group: of the unified hierarchy where it is mounted, else of the first that is. */
export function procsFile(cgroup: string, mountinfo: string): string | undefined {
  const mounts = mountinfo.split('\n').flatMap((line) => {
    const [before, after] = line.split(' - ');
    const [, , , root, point] = before?.split(' ') ?? [];
    const [kind, , options] = after?.split(' ') ?? [];
    return root !== undefined && point !== undefined && (kind === 'cgroup' || kind === 'cgroup2') ? [{root, point, kind, options: (options ?? '').split(',')}] : [];
  });
  const groups = cgroup.split('\n').flatMap((line) => {
    const [, id, controllers, at] = /^(\d+):([^:]*):(.*)$/.exec(line) ?? [];
    return id === undefined ? [] : [{unified: id === '0' && controllers === '', controllers: controllers!.split(','), at: at!}];
  }).sort((a, b) => Number(b.unified) - Number(a.unified));
  for (const {unified, controllers, at} of groups) {
    const mount = mounts.find((m) => (unified ? m.kind === 'cgroup2' : m.kind === 'cgroup' && controllers.every((c) => m.options.includes(c))));
    if (!mount) continue;
    // A mount may show only a part of the hierarchy; a group outside of it cannot be reached.
    const below = mount.root === '/' ? at : at === mount.root ? '/' : at.startsWith(`${mount.root}/`) ? at.slice(mount.root.length) : undefined;
    if (below !== undefined && !below.startsWith('/..')) return path.join(mount.point, below, 'cgroup.procs');
  }
  return undefined;
}
