/**
 * Where the control groups of a container are: its own path (spec.linux.cgroupsPath) below each hierarchy's mount, from /proc/self/mountinfo.
 * By the path and not by the process's own group, which a process may leave (an init that makes groups of its own). Pure.
 */
import path from 'node:path';

export type Hierarchies = {version: 1; controllers: ReadonlyMap<string, string>} | {version: 2; mount: string};

const CONTROLLERS = ['cpu', 'cpuacct', 'memory', 'pids', 'blkio'];

/** Version 2 where no controller that is counted has a hierarchy of its own: a hybrid machine mounts the unified one beside them, without controllers. */
export function hierarchies(mountinfo: string): Hierarchies {
  const controllers = new Map<string, string>();
  let unified = '/sys/fs/cgroup';
  for (const line of mountinfo.split('\n')) {
    const [before, after] = line.split(' - ');
    const point = before?.split(' ')[4];
    const [kind, , options] = after?.split(' ') ?? [];
    if (point === undefined) continue;
    if (kind === 'cgroup2') unified = point;
    if (kind !== 'cgroup') continue;
    for (const name of (options ?? '').split(',')) if (CONTROLLERS.includes(name) && !controllers.has(name)) controllers.set(name, point);
  }
  return controllers.size > 0 ? {version: 1, controllers} : {version: 2, mount: unified};
}

/** The directory of a controller's files; undefined where the machine does not mount it. */
export function directoryOf(at: Hierarchies, controller: string, cgroupsPath: string): string | undefined {
  const mount = at.version === 2 ? at.mount : at.controllers.get(controller);
  return mount === undefined ? undefined : path.join(mount, cgroupsPath);
}
