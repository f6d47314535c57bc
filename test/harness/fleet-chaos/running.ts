/**
 * Where containers run, by the kernel's word: processes in their control groups, of every node. A sampler looks for such as run on two nodes at once. What is stopped (SIGSTOP: a machine that is frozen)
 * executes nothing; for the moment in which a frozen machine finds out that its time is over see lib/fleet/README.md.
 */
import fs from 'node:fs';
import path from 'node:path';
import type {TestFleet} from '../fleet';

/** What is being killed is given this: SIGKILL is on its way, and a busy machine takes its time. */
const TWICE_RUNNING = 2;
const LOOK_MS = 150;

const list = (dir: string): string[] => {
  try {
    return fs.readdirSync(dir);
  } catch {
    return [];
  }
};

/** Executes: neither stopped nor dead. */
function executes(pid: string): boolean {
  try {
    const stat = fs.readFileSync(`/proc/${pid}/stat`, 'utf8');
    return !/[TtZXx]/.test(stat.slice(stat.lastIndexOf(')') + 2, stat.lastIndexOf(')') + 3));
  } catch {
    return false;
  }
}

/** Container ids with a process that executes, on one node. */
export function runningOn(fleet: TestFleet, number: number): Set<string> {
  const {prefix} = fleet.node(number);
  const found = new Set<string>();
  for (const root of ['/sys/fs/cgroup/pids', '/sys/fs/cgroup/memory', '/sys/fs/cgroup']) {
    const parent = path.join(root, `cetus-${prefix}`);
    for (const id of list(parent)) {
      if (!/^[0-9a-f]{64}$/.test(id) || found.has(id)) continue;
      let pids: string[] = [];
      try {
        pids = fs.readFileSync(path.join(parent, id, 'cgroup.procs'), 'utf8').split('\n').filter(Boolean);
      } catch {
        // gone while we looked
      }
      if (pids.some(executes)) found.add(id);
    }
  }
  return found;
}

export class Watcher {
  readonly twice: string[] = [];
  /** Nodes that have just been woken: what the kernel runs there until their guards have looked is told apart. */
  private readonly woken = new Map<number, number>();
  private readonly suspects = new Map<string, number>();
  private timer: NodeJS.Timeout | undefined;

  constructor(private readonly fleet: TestFleet) {}

  start(): void {
    this.timer = setInterval(() => this.look(), LOOK_MS);
  }

  stop(): void {
    clearInterval(this.timer);
  }

  /** The machine has been frozen until now. */
  wakes(number: number, graceMs = 5_000): void {
    this.woken.set(number, Date.now() + graceMs);
  }

  private look(): void {
    const seen = new Map<string, number[]>();
    for (const {number} of this.fleet.nodes) {
      if ((this.woken.get(number) ?? 0) > Date.now()) continue;
      for (const id of runningOn(this.fleet, number)) seen.set(id, [...seen.get(id) ?? [], number]);
    }
    for (const id of this.suspects.keys()) if ((seen.get(id)?.length ?? 0) < 2) this.suspects.delete(id);
    for (const [id, nodes] of seen) {
      if (nodes.length < 2) continue;
      const times = (this.suspects.get(id) ?? 0) + 1;
      this.suspects.set(id, times);
      if (times === TWICE_RUNNING) this.twice.push(`container ${id.slice(0, 12)} runs on nodes ${nodes.join(' and ')} at once`);
    }
  }
}
