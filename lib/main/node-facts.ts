/** What this machine is, read once at start from the kernel and the distribution. */
import {execFile} from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import {promisify} from 'node:util';
import type {NodeFacts, Underlay} from '../schema/node';
import type {AgentConfig} from './config';
import {VERSION} from './version';

const INIT_DEADLINE_MS = 5000;

/** Go's names, which Docker uses, where they differ from Node's. */
const ARCHITECTURES: Record<string, string> = {x64: 'amd64', arm64: 'arm64', arm: 'arm', ia32: '386', ppc64: 'ppc64le', s390x: 's390x', riscv64: 'riscv64'};

export function nodeFacts(config: AgentConfig, runtime: {version: string; runc: string; init: InitFacts; snapshotter: string; builds: boolean}, underlay?: Underlay): Omit<NodeFacts, 'bootGeneration'> {
  const architecture = ARCHITECTURES[process.arch] ?? process.arch;
  const disk = fs.statfsSync(config.dataDir);
  return {
    nodeId: config.nodeId, name: config.name, platform: `linux/${architecture}`, architecture, osType: 'linux',
    kernelVersion: os.release(), operatingSystem: distribution(), cpus: os.availableParallelism(), memoryBytes: os.totalmem(),
    cpusetCpus: cpuset('cpus', '/sys/devices/system/cpu/online'), cpusetMems: cpuset('mems', '/sys/devices/system/node/online'),
    diskBytes: disk.blocks * disk.bsize, pids: Number(fs.readFileSync('/proc/sys/kernel/pid_max', 'utf8')),
    cgroupVersion: fs.existsSync('/sys/fs/cgroup/cgroup.controllers') ? 2 : 1, cgroupDriver: 'cgroupfs',
    containerdVersion: runtime.version, runcVersion: runtime.runc, ...runtime.init, snapshotter: runtime.snapshotter, builds: runtime.builds, rootDir: config.rootDir ?? config.dataDir,
    agentUrl: config.listen, agentVersion: VERSION, labels: config.labels,
    ...(underlay ? {underlay} : {}),
  };
}

type InitFacts = Required<Pick<NodeFacts, 'initBinary' | 'initVersion' | 'initCommit'>>;

/** What the program for `--init` says of itself: "tini version 0.19.0 - git.de40ad0". One that says something else has no version. */
export async function initFacts(program: string): Promise<InitFacts> {
  const said = program === '' ? '' : await promisify(execFile)(program, ['--version'], {timeout: INIT_DEADLINE_MS}).then(({stdout}) => stdout, () => '');
  const [, initVersion = '', initCommit = ''] = /^tini version (\S+)(?: - git\.(\S+))?/.exec(said) ?? [];
  return {initBinary: path.basename(program), initVersion, initCommit};
}

/** The kernel's list of what there is to bind to, like "0-3". Not what a group may be told to use, but what it would get: the effective one. */
function cpuset(kind: 'cpus' | 'mems', online: string): string {
  for (const file of [`/sys/fs/cgroup/cpuset.${kind}.effective`, `/sys/fs/cgroup/cpuset/cpuset.effective_${kind}`, online]) {
    try {
      return fs.readFileSync(file, 'utf8').trim();
    } catch {
      continue; // the other version of control groups, or none of this controller
    }
  }
  return '0';
}

function distribution(): string {
  try {
    return /^PRETTY_NAME="?([^"\n]*)/m.exec(fs.readFileSync('/etc/os-release', 'utf8'))?.[1] ?? 'Linux';
  } catch {
    return 'Linux';
  }
}
