/**
 * ajv schemas of the request bodies that clients send, beside their types in docker.ts. They check shapes and types only: unknown fields
 * pass (the Engine ignores them), null stands for "not given" as in Go, and what an option means is decided by lib/docker/options.ts and the
 * verbs. Limits on lengths keep absurd input out of the store.
 */
const nullable = <T extends {type: string | string[]}>(schema: T): T => ({...schema, type: [schema.type, 'null'].flat()});
const text = {type: ['string', 'null'], maxLength: 65_536};
const bool = {type: ['boolean', 'null']};
// Go's int64; JavaScript's safe range is narrower, which no real limit reaches.
const int = {type: ['integer', 'null'], minimum: -(2 ** 63), maximum: 2 ** 63};
const list = (items: object) => ({type: ['array', 'null'], maxItems: 10_000, items});
const map = (values: object) => ({type: ['object', 'null'], maxProperties: 10_000, additionalProperties: values});
const object = (properties: Record<string, object>) => nullable({type: 'object', properties});
const strings = list({type: 'string', maxLength: 262_144});
// Go's strslice: one string or a list.
const words = {type: ['array', 'string', 'null'], maxItems: 10_000, maxLength: 262_144, items: {type: 'string', maxLength: 262_144}};
const stringMap = map({type: 'string', maxLength: 262_144});
const emptyObjects = map({type: 'object'});
const consoleSize = {type: ['array', 'null'], minItems: 2, maxItems: 2, items: {type: 'integer', minimum: 0}};
const throttle = list(object({Path: text, Rate: int}));

const health = object({Test: strings, Interval: int, Timeout: int, Retries: int, StartPeriod: int, StartInterval: int});

const config = {
  Hostname: text, Domainname: text, User: text, AttachStdin: bool, AttachStdout: bool, AttachStderr: bool, ExposedPorts: emptyObjects, Tty: bool,
  OpenStdin: bool, StdinOnce: bool, Env: strings, Cmd: words, Healthcheck: health, ArgsEscaped: bool, Image: text, Volumes: emptyObjects, WorkingDir: text,
  Entrypoint: words, NetworkDisabled: bool, MacAddress: text, OnBuild: strings, Labels: stringMap, StopSignal: text, StopTimeout: int, Shell: words,
};

const resources = {
  CpuShares: int, Memory: int, CgroupParent: text, BlkioWeight: int, BlkioWeightDevice: list(object({Path: text, Weight: int})), BlkioDeviceReadBps: throttle,
  BlkioDeviceWriteBps: throttle, BlkioDeviceReadIOps: throttle, BlkioDeviceWriteIOps: throttle, CpuPeriod: int, CpuQuota: int, CpuRealtimePeriod: int,
  CpuRealtimeRuntime: int, CpusetCpus: text, CpusetMems: text, Devices: list(object({PathOnHost: text, PathInContainer: text, CgroupPermissions: text})),
  DeviceCgroupRules: strings, DeviceRequests: list({type: 'object'}), KernelMemoryTCP: int, MemoryReservation: int, MemorySwap: int, MemorySwappiness: int,
  NanoCpus: int, OomKillDisable: bool, PidsLimit: int, Ulimits: list(object({Name: text, Soft: int, Hard: int})),
};

const restartPolicy = object({Name: text, MaximumRetryCount: int});

const mount = {
  type: 'object',
  properties: {
    Type: text, Source: text, Target: text, ReadOnly: bool, Consistency: text,
    BindOptions: object({Propagation: text, NonRecursive: bool, CreateMountpoint: bool, ReadOnlyNonRecursive: bool, ReadOnlyForceRecursive: bool}),
    VolumeOptions: object({NoCopy: bool, Labels: stringMap, DriverConfig: object({Name: text, Options: stringMap}), Subpath: text}),
    TmpfsOptions: object({SizeBytes: int, Mode: int, Options: list(strings)}),
  },
};

const hostConfig = object({
  ...resources, Binds: strings, ContainerIDFile: text, LogConfig: object({Type: text, Config: stringMap}), NetworkMode: text,
  PortBindings: map(list(object({HostIp: text, HostPort: text}))), RestartPolicy: restartPolicy, AutoRemove: bool, VolumeDriver: text, VolumesFrom: strings,
  Mounts: list(mount), ConsoleSize: consoleSize, Annotations: stringMap, CapAdd: words, CapDrop: words, CgroupnsMode: text, Cgroup: text, Dns: strings, DnsOptions: strings,
  DnsSearch: strings, ExtraHosts: strings, GroupAdd: strings, IpcMode: text, Links: strings, OomScoreAdj: int, PidMode: text, Privileged: bool,
  PublishAllPorts: bool, ReadonlyRootfs: bool, SecurityOpt: strings, StorageOpt: stringMap, Tmpfs: stringMap, UTSMode: text, UsernsMode: text, ShmSize: int,
  Sysctls: stringMap, Runtime: text, Isolation: text, MaskedPaths: strings, ReadonlyPaths: strings, Init: bool,
});

const endpointSettings = object({
  IPAMConfig: object({IPv4Address: text, IPv6Address: text, LinkLocalIPs: strings}), Links: strings, Aliases: strings, MacAddress: text, DriverOpts: stringMap,
  GwPriority: int, NetworkID: text, EndpointID: text, Gateway: text, IPAddress: text, IPPrefixLen: int, IPv6Gateway: text, GlobalIPv6Address: text,
  GlobalIPv6PrefixLen: int, DNSNames: strings,
});

const body = (properties: Record<string, object>, required: string[] = []) => ({type: 'object', properties, required});

export const DOCKER_SCHEMAS = {
  containerCreate: body({...config, HostConfig: hostConfig, NetworkingConfig: object({EndpointsConfig: map(endpointSettings)})}),
  imageCommit: body(config),
  containerUpdate: body({...resources, RestartPolicy: restartPolicy}),
  execCreate: body({
    AttachStdin: bool, AttachStdout: bool, AttachStderr: bool, DetachKeys: text, Tty: bool, Env: strings, Cmd: words, ConsoleSize: consoleSize, Privileged: bool,
    User: text, WorkingDir: text,
  }),
  execStart: body({Detach: bool, Tty: bool, ConsoleSize: consoleSize}),
  networkCreate: body({
    Name: {type: 'string', maxLength: 65_536}, Driver: text, Internal: bool, Attachable: bool, Ingress: bool, EnableIPv4: bool, EnableIPv6: bool, Scope: text, ConfigOnly: bool,
    ConfigFrom: object({Network: text}), CheckDuplicate: bool, Options: stringMap, Labels: stringMap,
    IPAM: object({Driver: text, Options: stringMap, Config: list(object({Subnet: text, Gateway: text, IPRange: text, AuxiliaryAddresses: stringMap}))}),
  }, ['Name']),
  networkConnect: body({Container: {type: 'string', maxLength: 65_536}, EndpointConfig: endpointSettings}, ['Container']),
  networkDisconnect: body({Container: {type: 'string', maxLength: 65_536}, Force: bool}, ['Container']),
  volumeCreate: body({Name: text, Driver: text, DriverOpts: stringMap, Labels: stringMap, ClusterVolumeSpec: {type: ['object', 'null']}}),
} as const;

/** What an image's builder said of it; whoever reads the image reads this. `created` is a time by its own rules. */
export const IMAGE_CONFIG_SCHEMA = body({
  created: text, author: text, architecture: {type: 'string', maxLength: 256}, os: {type: 'string', maxLength: 256}, variant: text, 'os.version': text, docker_version: text,
  config: object(config), rootfs: {type: 'object'},
  history: list({type: 'object', properties: {created: text, created_by: {type: ['string', 'null'], maxLength: 1_048_576}, author: text, comment: text, empty_layer: bool}}),
}, ['architecture', 'os', 'rootfs']);

export type DockerBody = keyof typeof DOCKER_SCHEMAS;
