/**
 * HostConfig as inspect shows it: every field of the API present, with the Engine's normalised defaults where nothing was asked. Values that
 * the API's description does not allow (an empty CgroupnsMode, say) never appear.
 */
import type {Container} from '../../schema/container';
import type {HostConfig} from '../../schema/docker';
import {networkMode} from './container';

const MASKED = ['/proc/asound', '/proc/acpi', '/proc/interrupts', '/proc/kcore', '/proc/keys', '/proc/latency_stats', '/proc/timer_list', '/proc/timer_stats',
  '/proc/sched_debug', '/proc/scsi', '/sys/firmware', '/sys/devices/virtual/powercap'];
const READONLY = ['/proc/bus', '/proc/fs', '/proc/irq', '/proc/sys', '/proc/sysrq-trigger'];
const DEFAULT_SHM_BYTES = 64 * 1024 * 1024;

export function hostConfigView(container: Container): object {
  const h: HostConfig = container.spec.hostConfig;
  const unconfined = h.Privileged === true;
  return {
    Binds: h.Binds ?? null,
    ContainerIDFile: '',
    LogConfig: {Type: container.spec.logConfig.Type || 'json-file', Config: container.spec.logConfig.Config ?? {}},
    NetworkMode: networkMode(container),
    PortBindings: portBindings(h),
    RestartPolicy: {Name: h.RestartPolicy?.Name || 'no', MaximumRetryCount: h.RestartPolicy?.MaximumRetryCount ?? 0},
    AutoRemove: h.AutoRemove ?? false,
    VolumeDriver: h.VolumeDriver ?? '',
    VolumesFrom: h.VolumesFrom ?? null,
    ConsoleSize: h.ConsoleSize ?? [0, 0],
    ...(h.Annotations && Object.keys(h.Annotations).length ? {Annotations: h.Annotations} : {}),
    ...(h.Mounts?.length ? {Mounts: h.Mounts.map(mountView)} : {}),
    CapAdd: h.CapAdd ?? null,
    CapDrop: h.CapDrop ?? null,
    CgroupnsMode: h.CgroupnsMode || 'host',
    Dns: h.Dns ?? null,
    DnsOptions: h.DnsOptions ?? null,
    DnsSearch: h.DnsSearch ?? null,
    ExtraHosts: h.ExtraHosts ?? null,
    GroupAdd: h.GroupAdd ?? null,
    IpcMode: h.IpcMode || 'private',
    Cgroup: '',
    Links: container.links?.length ? container.links.map(({name, alias}) => `/${name}:/${container.name}/${alias}`) : null,
    OomScoreAdj: h.OomScoreAdj ?? 0,
    PidMode: h.PidMode ?? '',
    Privileged: h.Privileged ?? false,
    PublishAllPorts: h.PublishAllPorts ?? false,
    ReadonlyRootfs: h.ReadonlyRootfs ?? false,
    SecurityOpt: h.SecurityOpt ?? null,
    ...(h.Tmpfs && Object.keys(h.Tmpfs).length ? {Tmpfs: h.Tmpfs} : {}),
    UTSMode: h.UTSMode ?? '',
    UsernsMode: h.UsernsMode ?? '',
    ShmSize: h.ShmSize || DEFAULT_SHM_BYTES,
    ...(h.Sysctls && Object.keys(h.Sysctls).length ? {Sysctls: h.Sysctls} : {}),
    Runtime: h.Runtime || 'runc',
    Isolation: '',
    ...resources(h),
    ...(h.Init === undefined || h.Init === null ? {} : {Init: h.Init}),
    MaskedPaths: unconfined ? null : h.MaskedPaths ?? MASKED,
    ReadonlyPaths: unconfined ? null : h.ReadonlyPaths ?? READONLY,
  };
}

function resources(h: HostConfig): object {
  return {
    CpuShares: h.CpuShares ?? 0,
    Memory: h.Memory ?? 0,
    NanoCpus: h.NanoCpus ?? 0,
    CgroupParent: h.CgroupParent ?? '',
    BlkioWeight: h.BlkioWeight ?? 0,
    BlkioWeightDevice: h.BlkioWeightDevice ?? null,
    BlkioDeviceReadBps: h.BlkioDeviceReadBps ?? null,
    BlkioDeviceWriteBps: h.BlkioDeviceWriteBps ?? null,
    BlkioDeviceReadIOps: h.BlkioDeviceReadIOps ?? null,
    BlkioDeviceWriteIOps: h.BlkioDeviceWriteIOps ?? null,
    CpuPeriod: h.CpuPeriod ?? 0,
    CpuQuota: h.CpuQuota ?? 0,
    CpuRealtimePeriod: h.CpuRealtimePeriod ?? 0,
    CpuRealtimeRuntime: h.CpuRealtimeRuntime ?? 0,
    CpusetCpus: h.CpusetCpus ?? '',
    CpusetMems: h.CpusetMems ?? '',
    Devices: h.Devices ?? null,
    DeviceCgroupRules: h.DeviceCgroupRules ?? null,
    DeviceRequests: h.DeviceRequests ?? null,
    MemoryReservation: h.MemoryReservation ?? 0,
    MemorySwap: h.MemorySwap ?? 0,
    // The CLI sends -1 for "not set".
    MemorySwappiness: h.MemorySwappiness === -1 ? null : h.MemorySwappiness ?? null,
    OomKillDisable: h.OomKillDisable ?? false,
    // Nor is 0 or -1 a limit: the CLI sends 0 always.
    PidsLimit: h.PidsLimit && h.PidsLimit > 0 ? h.PidsLimit : null,
    Ulimits: h.Ulimits ?? null,
    CpuCount: 0,
    CpuPercent: 0,
    IOMaximumIOps: 0,
    IOMaximumBandwidth: 0,
  };
}

function portBindings(h: HostConfig): object | null {
  return !h.PortBindings ? null : Object.fromEntries(Object.entries(h.PortBindings ?? {}).map(([port, bindings]) =>
    [port, bindings?.map((b) => ({HostIp: b.HostIp ?? '', HostPort: b.HostPort ?? ''})) ?? null]));
}

function mountView(mount: NonNullable<HostConfig['Mounts']>[number]): object {
  const {BindOptions, ...rest} = mount;
  if (!BindOptions) return rest;
  const {Propagation, ...options} = BindOptions;
  return {...rest, BindOptions: {...(Propagation ? {Propagation} : {}), ...options}};
}
