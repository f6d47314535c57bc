/** `docker version` and `docker info`: the datacenter as one host. Its nodes appear among the driver's facts, as Swarm classic showed them. */
import {formatMemory} from '../../base/units';
import type {SystemFacts} from '../../datacenter/verbs';
import type {Node} from '../../schema/node';
import type {DockerConfig} from '../exchange';
import {MAX_API_TEXT, MIN_API_TEXT, engineVersion} from '../version';

const UNKNOWN = 'unknown';

/** The Go name of an architecture: "x86_64" -> "amd64". */
const goArch = (architecture: string): string => ({x86_64: 'amd64', aarch64: 'arm64'})[architecture] ?? architecture;
export const machineArch = (architecture: string): string => ({amd64: 'x86_64', arm64: 'aarch64'})[architecture] ?? architecture;

export function versionView(config: DockerConfig, nodes: readonly Node[]): object {
  const facts = nodes[0]?.facts;
  const common = {
    ApiVersion: MAX_API_TEXT, MinAPIVersion: MIN_API_TEXT, GitCommit: config.gitCommit ?? UNKNOWN, GoVersion: `node ${process.version}`,
    Os: 'linux', Arch: goArch(facts?.architecture ?? process.arch), KernelVersion: facts?.kernelVersion ?? '', BuildTime: config.buildTime ?? '',
  };
  const component = (Name: string, Version: string): object => ({Name, Version, Details: {}});
  return {
    Platform: {Name: 'Cetus'},
    Version: engineVersion(config.version),
    ...common,
    Components: [
      {Name: 'Engine', Version: engineVersion(config.version), Details: {...common, Experimental: 'false'}},
      component('Cetus', config.version),
      ...(facts ? [component('containerd', facts.containerdVersion), component('runc', facts.runcVersion)] : []),
      ...(facts?.initBinary ? [{Name: 'docker-init', Version: facts.initVersion ?? '', Details: {GitCommit: facts.initCommit ?? ''}}] : []),
    ],
  };
}

export function infoView(config: DockerConfig, facts: SystemFacts, now: string, speaks: (minor: number) => boolean): object {
  // Until 1.48 a client compares the tools with those that the daemon was built for.
  const commit = (ID: string): object => (speaks(49) ? {ID} : {ID, Expected: ID});
  const first = facts.nodes[0]?.facts;
  return {
    ID: facts.id,
    Containers: facts.containers.total,
    ContainersRunning: facts.containers.running,
    ContainersPaused: facts.containers.paused,
    ContainersStopped: facts.containers.stopped,
    Images: facts.images,
    Driver: first?.snapshotter ?? 'overlayfs',
    DriverStatus: driverStatus(facts),
    Plugins: {Volume: ['local'], Network: ['bridge', 'host', 'null'], Authorization: null, Log: ['json-file', 'local', 'none', 'syslog']},
    MemoryLimit: true,
    SwapLimit: true,
    CpuCfsPeriod: true,
    CpuCfsQuota: true,
    CPUShares: true,
    CPUSet: true,
    PidsLimit: true,
    IPv4Forwarding: true,
    OomKillDisable: first?.cgroupVersion !== 2,
    Debug: false,
    NFd: 0,
    NGoroutines: 0,
    SystemTime: now,
    LoggingDriver: 'json-file',
    CgroupDriver: first?.cgroupDriver === 'systemd' ? 'systemd' : 'cgroupfs',
    CgroupVersion: String(first?.cgroupVersion ?? 1),
    NEventsListener: 0,
    KernelVersion: first?.kernelVersion ?? '',
    OperatingSystem: first?.operatingSystem ?? 'Cetus',
    OSVersion: '',
    OSType: 'linux',
    Architecture: machineArch(first?.architecture ?? process.arch),
    IndexServerAddress: 'https://index.docker.io/v1/',
    RegistryConfig: registryConfig(config.insecureRegistries ?? []),
    NCPU: facts.totalCpus,
    MemTotal: facts.totalMemoryBytes,
    GenericResources: null,
    // Each node has its own (DriverStatus); here is, as with the other facts of a machine, the first one's.
    DockerRootDir: first?.rootDir ?? '',
    HttpProxy: '',
    HttpsProxy: '',
    NoProxy: '',
    Name: facts.name,
    Labels: [],
    ExperimentalBuild: false,
    ServerVersion: engineVersion(config.version),
    Runtimes: {runc: {path: 'runc'}, 'io.containerd.runc.v2': {path: 'runc'}},
    DefaultRuntime: 'runc',
    // Inactive: clients look here for whether they may make services. The nodes are counted all the same.
    Swarm: {NodeID: '', NodeAddr: '', LocalNodeState: 'inactive', ControlAvailable: false, Error: '', RemoteManagers: null, Nodes: facts.nodes.length},
    LiveRestoreEnabled: true,
    Isolation: '',
    InitBinary: first?.initBinary || 'docker-init',
    ContainerdCommit: commit(first?.containerdVersion ?? ''),
    RuncCommit: commit(first?.runcVersion ?? ''),
    // dockerd has "N/A" where there is none. Distributions build it without its commit; then the version says more than nothing.
    InitCommit: commit(first?.initBinary === undefined ? '' : first.initCommit || first.initVersion || 'N/A'),
    SecurityOptions: speaks(25) ? ['name=seccomp,profile=builtin'] : ['seccomp'],
    ...(speaks(25) ? {} : {ExecutionDriver: '<not supported>'}),
    // The nodes' bridges need neither; a client that is told "off" warns its user.
    ...(speaks(50) ? {} : {BridgeNfIptables: true, BridgeNfIp6tables: true}),
    ProductLicense: '',
    Warnings: facts.nodes.length ? null : ['WARNING: no compute node has joined'],
    CDISpecDirs: [],
  };
}

/** Registries without TLS: blocks of addresses in one list, hosts in another, as an Engine sorts what its daemon.json says. */
function registryConfig(insecure: readonly string[]): object {
  const hosts = insecure.filter((entry) => !entry.includes('/'));
  const index = (Name: string, Secure: boolean, Official: boolean): [string, object] => [Name, {Name, Mirrors: [], Secure, Official}];
  return {
    InsecureRegistryCIDRs: [...insecure.filter((entry) => entry.includes('/')), '127.0.0.0/8'],
    IndexConfigs: Object.fromEntries([...hosts.map((host) => index(host, false, false)), index('docker.io', true, true)]),
    Mirrors: [],
  };
}

function driverStatus(facts: SystemFacts): [string, string][] {
  const rows: [string, string][] = [['Store', `PostgreSQL ${facts.postgresVersion}`.trimEnd()], ['Nodes', String(facts.nodes.length)]];
  for (const node of facts.nodes) {
    rows.push([` ${node.name}`, `${node.liveness}, ${node.availability}`]);
    rows.push(['  Resources', `${node.facts.cpus} CPUs, ${formatMemory(node.facts.memoryBytes)} memory`]);
    if (node.facts.rootDir) rows.push(['  Root Dir', node.facts.rootDir]);
    rows.push(['  Runtime', `containerd ${node.facts.containerdVersion}, runc ${node.facts.runcVersion}, kernel ${node.facts.kernelVersion}`]);
  }
  return rows;
}
