/**
 * Kills everything in control groups, without asking the runtime, which may hang: with cgroup.kill where the kernel has it, else by SIGKILL to every process until none is
 * left, frozen ones thawed behind it (a frozen process dies of it, and runs no instruction of its own before). Needs nothing but file system and kill(2): the guard uses it too.
 */
import {existsSync, readdirSync, readFileSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';

/** Where control groups are: the unified hierarchy if containers are in it, and all hierarchies of version 1. */
export function cgroupMounts(mountinfo: string): string[] {
  return mountinfo.split('\n').flatMap((line) => {
    const [before, after] = line.split(' - ');
    const point = before?.split(' ')[4];
    const kind = after?.split(' ')[0];
    return point !== undefined && (kind === 'cgroup' || kind === 'cgroup2') ? [point] : [];
  });
}

/** `groups`: paths below each hierarchy. Answers those in which something was still found; call again until none is. Never throws. */
export function killGroups(groups: readonly string[], mounts = cgroupMounts(readFileSync('/proc/self/mountinfo', 'utf8'))): string[] {
  return groups.filter((group) => {
    const directories = mounts.map((mount) => join(mount, group)).filter((directory) => existsSync(directory));
    const found = new Set<number>();
    for (const directory of directories) {
      for (const pid of processesIn(directory)) found.add(pid);
      if (existsSync(join(directory, 'cgroup.kill'))) write(join(directory, 'cgroup.kill'), '1');
    }
    for (const pid of found) kill(pid);
    for (const directory of directories) thaw(directory);
    return found.size > 0;
  });
}

/** Of the group and of those that were made below it. */
function processesIn(directory: string): number[] {
  return [
    ...read(join(directory, 'cgroup.procs')).split('\n').map(Number).filter((pid) => pid > 1 && pid !== process.pid),
    ...below(directory).flatMap(processesIn),
  ];
}

function thaw(directory: string): void {
  if (read(join(directory, 'freezer.state')).trim() !== '' && read(join(directory, 'freezer.state')).trim() !== 'THAWED') write(join(directory, 'freezer.state'), 'THAWED');
  if (read(join(directory, 'cgroup.freeze')).trim() === '1') write(join(directory, 'cgroup.freeze'), '0');
  for (const child of below(directory)) thaw(child);
}

function below(directory: string): string[] {
  try {
    return readdirSync(directory, {withFileTypes: true}).filter((entry) => entry.isDirectory()).map((entry) => join(directory, entry.name));
  } catch {
    return [];
  }
}

function read(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}

function write(path: string, text: string): void {
  try {
    writeFileSync(path, text);
  } catch {
    // It has gone, or the kernel has no such thing here: what is left is found by the next look.
  }
}

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // It was faster.
  }
}
