/**
 * What becomes of every field of a create request, as data: honoured, allowed by the operator only, or refused by name (promise 6 of the
 * design: no silent option). A field that is not in this table is refused where it asks for anything. The table can be rendered.
 */
import {CetusError} from '../../base/errors';
import type {DatacenterConfig} from '../context';

export type Support =
  | {row: 'honoured'; note?: string}
  /** Accepted where the configuration says so. */
  | {row: 'gated'; by: 'allowPrivileged' | 'allowHostNetwork' | 'allowBinds'}
  /** Only these values; anything else is refused. */
  | {row: 'only'; values: readonly unknown[]; why: string}
  | {row: 'refused'; why: string};

const honoured = (note?: string): Support => ({row: 'honoured', note});
const refused = (why: string): Support => ({row: 'refused', why});
const only = (why: string, ...values: unknown[]): Support => ({row: 'only', values, why});
const privileged: Support = {row: 'gated', by: 'allowPrivileged'};

const all = (names: string, support: Support = honoured()): Record<string, Support> => Object.fromEntries(names.split(' ').map((name) => [name, support]));

export const CONFIG_OPTIONS: Record<string, Support> = {
  ...all('Hostname Domainname User AttachStdin AttachStdout AttachStderr ExposedPorts Tty OpenStdin StdinOnce Env Cmd Healthcheck Image Volumes WorkingDir '
    + 'Entrypoint Labels StopSignal StopTimeout Shell NetworkDisabled'),
  MacAddress: honoured('becomes the MAC address on the first network'),
  ArgsEscaped: honoured('means nothing on Linux'),
  OnBuild: refused('triggers belong to images'),
};

export const HOST_CONFIG_OPTIONS: Record<string, Support> = {
  ...all('Binds Mounts Tmpfs VolumesFrom NetworkMode PortBindings PublishAllPorts RestartPolicy AutoRemove LogConfig Dns DnsOptions DnsSearch ExtraHosts '
    + 'CapAdd CapDrop GroupAdd OomScoreAdj ReadonlyRootfs SecurityOpt ShmSize Sysctls Init MaskedPaths ReadonlyPaths IpcMode PidMode UTSMode CgroupnsMode UsernsMode'),
  ...all('Memory MemorySwap MemoryReservation MemorySwappiness NanoCpus CpuShares CpuPeriod CpuQuota CpusetCpus CpusetMems PidsLimit Ulimits OomKillDisable BlkioWeight'),
  ...all('CpuRealtimePeriod CpuRealtimeRuntime BlkioWeightDevice BlkioDeviceReadBps BlkioDeviceWriteBps BlkioDeviceReadIOps BlkioDeviceWriteIOps DeviceCgroupRules Devices Privileged', privileged),
  ConsoleSize: honoured('the terminal at start'),
  ContainerIDFile: honoured('written by the client'),
  Annotations: honoured('kept and shown'),
  Runtime: only('nodes run runc', 'runc', 'io.containerd.runc.v2'),
  VolumeDriver: honoured('of volumes that name none; there is "local"'),
  Isolation: only('Linux has one isolation', 'default'),
  CgroupParent: refused('the node decides where its containers are accounted'),
  Cgroup: refused('obsolete in the Engine'),
  Links: refused('legacy links: use a network, where containers find each other by name'),
  DeviceRequests: refused('GPUs and other device drivers'),
  StorageOpt: refused('size limits of the root file system'),
  KernelMemoryTCP: refused('kernel memory limits'),
  KernelMemory: refused('kernel memory limits'),
  ...all('CpuCount CpuPercent IOMaximumIOps IOMaximumBandwidth', refused('it exists only on Windows')),
};

/** Null, and what a client sends when nobody asked for anything. */
export function asksNothing(value: unknown): boolean {
  if (value === undefined || value === null || value === '' || value === 0 || value === false) return true;
  if (Array.isArray(value)) return value.length === 0 || value.every((v) => v === 0);
  return typeof value === 'object' && Object.values(value).every(asksNothing);
}

export const unsupported = (option: string, why: string): CetusError => new CetusError('unsupported', `${option} is not supported: ${why}`, {info: {option}});

export function gate(option: string, by: 'allowPrivileged' | 'allowHostNetwork' | 'allowBinds', config: DatacenterConfig): void {
  const allowed = by === 'allowBinds' ? config.allowBinds !== 'off' : config[by];
  if (!allowed) throw new CetusError('forbidden', `${option} is not allowed on this datacenter (${by} is off)`, {info: {option}});
}

export function checkOptions(where: 'Config' | 'HostConfig', given: object, config: DatacenterConfig): void {
  const table = where === 'Config' ? CONFIG_OPTIONS : HOST_CONFIG_OPTIONS;
  for (const [name, value] of Object.entries(given)) {
    if (asksNothing(value) || (where === 'Config' && (name === 'HostConfig' || name === 'NetworkingConfig'))) continue;
    const option = where === 'Config' ? name : `${where}.${name}`;
    const support = Object.hasOwn(table, name) ? table[name]! : refused('it is unknown to this version');
    switch (support.row) {
      case 'honoured': break;
      case 'gated': gate(option, support.by, config); break;
      case 'only': if (!support.values.includes(value)) throw unsupported(`${option} ${JSON.stringify(value)}`, support.why); break;
      case 'refused': throw unsupported(option, support.why);
    }
  }
}
