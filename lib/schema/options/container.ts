/** Every field of a container's Config and HostConfig, nested ones too. */
import {
  anyObject, bool, emptyObjects, gated, honoured, ignored, int, int64, list, map, pair, refused, stringMap, strings, struct, text, uint16, uint32, uint64, words,
} from './field';

const WINDOWS = 'it exists only on Windows';

const duration = int64('time.Duration');

const HEALTH_CONFIG = struct('container.HealthConfig', {
  Test: strings, Interval: duration, Timeout: duration, StartPeriod: duration, StartInterval: duration, Retries: int,
});

const config = {
  Hostname: text(), Domainname: text(), User: text(), AttachStdin: bool, AttachStdout: bool, AttachStderr: bool, ExposedPorts: emptyObjects('nat.PortSet'), Tty: bool,
  OpenStdin: bool, StdinOnce: bool, Env: strings, Cmd: words, Healthcheck: HEALTH_CONFIG, ArgsEscaped: ignored(bool, WINDOWS), Image: text(),
  Volumes: emptyObjects('map[string]struct {}'), WorkingDir: text(), Entrypoint: words,
  NetworkDisabled: bool, MacAddress: honoured(text(), 'becomes the MAC address on the first network'),
  OnBuild: honoured(strings, 'kept, shown, and part of the image that a commit makes'),
  Labels: stringMap, StopSignal: text(), StopTimeout: int, Shell: words,
};
export const CONFIG = struct('container.Config', config);

const throttle = list(struct('blkiodev.ThrottleDevice', {Path: text(), Rate: uint64}), '[]*blkiodev.ThrottleDevice');
const DEVICE_REQUEST = struct('container.DeviceRequest', {Driver: text(), Count: int, DeviceIDs: strings, Capabilities: list(strings, '[][]string'), Options: stringMap});

const resources = {
  CpuShares: int64(), Memory: int64(), NanoCpus: int64(),
  CgroupParent: refused(text(), 'the node decides where its containers are accounted'),
  BlkioWeight: uint16,
  BlkioWeightDevice: gated(list(struct('blkiodev.WeightDevice', {Path: text(), Weight: uint16}), '[]*blkiodev.WeightDevice')),
  BlkioDeviceReadBps: gated(throttle), BlkioDeviceWriteBps: gated(throttle), BlkioDeviceReadIOps: gated(throttle), BlkioDeviceWriteIOps: gated(throttle),
  CpuPeriod: int64(), CpuQuota: int64(), CpuRealtimePeriod: gated(int64()), CpuRealtimeRuntime: gated(int64()), CpusetCpus: text(), CpusetMems: text(),
  Devices: gated(list(struct('container.DeviceMapping', {PathOnHost: text(), PathInContainer: text(), CgroupPermissions: text()}))),
  DeviceCgroupRules: gated(strings),
  DeviceRequests: refused(list(DEVICE_REQUEST), 'could not select a device driver: nodes have none for GPUs or CDI devices'),
  KernelMemory: ignored(int64(), 'Linux has no limit of kernel memory any more; up to API 1.41 create warns that it was discarded, as the Engine does'),
  KernelMemoryTCP: refused(int64(), 'runc has not limited the kernel memory of TCP since 1.0'),
  MemoryReservation: int64(), MemorySwap: int64(), MemorySwappiness: int64(), OomKillDisable: bool, PidsLimit: int64(),
  Ulimits: list(struct('units.Ulimit', {Name: text(), Soft: int64(), Hard: int64()}), '[]*units.Ulimit'),
  CpuCount: refused(int64(), WINDOWS), CpuPercent: refused(int64(), WINDOWS), IOMaximumIOps: refused(uint64, WINDOWS), IOMaximumBandwidth: refused(uint64, WINDOWS),
};

export const RESTART_POLICY = struct('container.RestartPolicy', {Name: text(), MaximumRetryCount: int});

export const MOUNT = struct('mount.Mount', {
  Type: honoured(text('mount.Type'), 'bind, volume, tmpfs; others are refused by name'),
  Source: text(), Target: text(), ReadOnly: bool,
  Consistency: honoured(text('mount.Consistency'), 'kept and shown; a hint for file sharing with virtual machines, which means nothing on Linux'),
  BindOptions: struct('mount.BindOptions', {
    Propagation: text('mount.Propagation'), NonRecursive: bool, CreateMountpoint: bool,
    ReadOnlyNonRecursive: bool, ReadOnlyForceRecursive: bool,
  }),
  VolumeOptions: struct('mount.VolumeOptions', {NoCopy: bool, Labels: stringMap, DriverConfig: struct('mount.Driver', {Name: text(), Options: stringMap}), Subpath: text()}),
  ImageOptions: refused(struct('mount.ImageOptions', {Subpath: text()}), 'images cannot be mounted'),
  TmpfsOptions: struct('mount.TmpfsOptions', {SizeBytes: int64(), Mode: uint32('os.FileMode'), Options: list(strings, '[][]string')}),
  ClusterOptions: refused(anyObject('mount.ClusterOptions'), 'cluster volumes need swarm mode'),
});

const hostConfig = {
  ...resources,
  Binds: strings, ContainerIDFile: ignored(text(), 'the client writes this file, not the server'),
  LogConfig: struct('container.LogConfig', {Type: text(), Config: stringMap}), NetworkMode: text('container.NetworkMode'),
  PortBindings: map(list(struct('nat.PortBinding', {HostIp: text(), HostPort: text()})), 'nat.PortMap'), RestartPolicy: RESTART_POLICY, AutoRemove: bool,
  VolumeDriver: honoured(text(), 'of volumes that name none; there is "local"'),
  VolumesFrom: strings, Mounts: list(MOUNT), ConsoleSize: honoured(pair(uint32('uint')), 'the terminal at start'), Annotations: honoured(stringMap, 'kept and shown'),
  CapAdd: words, CapDrop: words, CgroupnsMode: text('container.CgroupnsMode'), Cgroup: refused(text('container.CgroupSpec'), 'joining the cgroup of another container is not supported'),
  Dns: strings, DnsOptions: strings, DnsSearch: strings, ExtraHosts: strings, GroupAdd: strings, IpcMode: text('container.IpcMode'),
  Links: honoured(strings, 'on the default bridge: names in /etc/hosts and variables; on other networks the alias of EndpointSettings'),
  OomScoreAdj: int, PidMode: text('container.PidMode'), Privileged: gated(bool), PublishAllPorts: bool, ReadonlyRootfs: bool, SecurityOpt: strings,
  StorageOpt: refused(stringMap, 'the overlay snapshotter has no storage options per container'),
  Tmpfs: stringMap, UTSMode: text('container.UTSMode'), UsernsMode: text('container.UsernsMode'), ShmSize: int64(), Sysctls: stringMap,
  Runtime: refused(text(), 'unknown or invalid runtime name: nodes run runc', 'runc', 'io.containerd.runc.v2'),
  Isolation: refused(text('container.Isolation'), WINDOWS, 'default'), MaskedPaths: strings, ReadonlyPaths: strings, Init: bool,
};

export const RESOURCES = struct('container.Resources', resources);
export const HOST_CONFIG = struct('container.HostConfig', hostConfig);
