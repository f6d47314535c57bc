/** What a datacenter must not leave behind on the machine, found by its data directory and its prefix. */
import {execFileSync} from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';

export interface Traces { processes: string[]; mounts: string[]; links: string[]; namespaces: string[]; tables: string[]; cgroups: string[]; fifos: string[] }

/** Once a datacenter is down (`down`) the control groups that held its containers' must be gone as well. `namespace`: of the host whose bridges and rules they are. */
export function traces(dataDir: string, prefix: string, down = false, namespace?: string): Traces {
  const inside = namespace && fs.existsSync(`/run/netns/${namespace}`) ? ['nsenter', `--net=/run/netns/${namespace}`] : [];
  const there = (...command: string[]): string => run([...inside, ...command]);
  return {
    processes: processesOf(dataDir),
    mounts: fs.readFileSync('/proc/self/mountinfo', 'utf8').split('\n').map((l) => l.split(' ')[4] ?? '').filter((m) => m.startsWith(`${dataDir}/`)),
    links: (JSON.parse(there('ip', '-j', 'link') || '[]') as {ifname: string; ifalias?: string}[]).filter((l) => l.ifname.includes(prefix) || l.ifalias?.includes(prefix)).map((l) => l.ifname),
    namespaces: run(['ip', 'netns', 'list']).split('\n').map((l) => l.split(' ')[0]!).filter((n) => n.includes(prefix)),
    tables: there('nft', 'list', 'tables').split('\n').filter((l) => l.includes(prefix)),
    cgroups: cgroupsOf(prefix, down),
    fifos: fifosBelow(path.join(dataDir, 'agent')),
  };
}

export interface FleetNode { number: number; name: string; nodeId: string; prefix: string; address: string; namespace: string }

/** A fleet's own, and each node's: of one that is down, if nothing else is said. */
export function fleetTraces(dataDir: string, prefix: string, nodes: FleetNode[], down = true): Traces {
  const all = traces(dataDir, prefix, down);
  for (const node of nodes) {
    const its = traces(path.join(dataDir, 'nodes', String(node.number)), node.prefix, down, node.namespace);
    for (const kind of Object.keys(all) as (keyof Traces)[]) all[kind].push(...its[kind].filter((one) => !all[kind].includes(one)));
  }
  return all;
}

export function processesOf(dataDir: string): string[] {
  return fs.readdirSync('/proc').filter((p) => /^\d+$/.test(p)).flatMap((pid) => {
    try {
      const command = fs.readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ').trim();
      // A keeper of FIFOs names no file, but holds one.
      const input = command.startsWith('sleep ') ? fs.readlinkSync(`/proc/${pid}/fd/0`) : '';
      return command.includes(dataDir) || input.startsWith(dataDir) ? [`${pid} ${command}`] : [];
    } catch {
      return []; // gone while we looked
    }
  });
}

function cgroupsOf(prefix: string, parents: boolean): string[] {
  const roots = ['/sys/fs/cgroup', ...safeList('/sys/fs/cgroup').map((n) => path.join('/sys/fs/cgroup', n))];
  return roots.flatMap((root) => safeList(root).filter((n) => n.includes(prefix)).flatMap((n) => {
    const parent = path.join(root, n);
    return [...(parents ? [parent] : []), ...safeList(parent).filter((c) => /^[0-9a-f]{64}$/.test(c)).map((c) => path.join(parent, c))];
  }));
}

function fifosBelow(dir: string): string[] {
  return safeList(dir).flatMap((name) => {
    const file = path.join(dir, name);
    try {
      const stat = fs.lstatSync(file);
      if (stat.isDirectory()) return fifosBelow(file);
      return stat.isFIFO() ? [file] : [];
    } catch {
      return [];
    }
  });
}

function safeList(dir: string): string[] {
  try {
    return fs.readdirSync(dir);
  } catch {
    return [];
  }
}

function run([program, ...args]: string[]): string {
  try {
    return execFileSync(program!, args, {encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'], env: {...process.env, PATH: `${process.env.PATH}:/usr/sbin:/sbin`}});
  } catch {
    return '';
  }
}
