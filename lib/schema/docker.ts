/**
 * Docker wire types: the parts of the Engine API (1.51) that Cetus keeps and passes between rooms, spelled as on the wire.
 * Source: the Engine API's public description. Requests are checked against lib/docker's ajv schemas before they become these types.
 */

/** Container Config: the portable part of a container's definition, also found in image configs. */
export interface Config {
  Hostname?: string;
  Domainname?: string;
  User?: string;
  AttachStdin?: boolean;
  AttachStdout?: boolean;
  AttachStderr?: boolean;
  ExposedPorts?: Record<string, object> | null;
  Tty?: boolean;
  OpenStdin?: boolean;
  StdinOnce?: boolean;
  Env?: string[] | null;
  Cmd?: string[] | null;
  Healthcheck?: HealthConfig | null;
  ArgsEscaped?: boolean;
  Image?: string;
  Volumes?: Record<string, object> | null;
  WorkingDir?: string;
  Entrypoint?: string[] | null;
  NetworkDisabled?: boolean;
  MacAddress?: string;
  OnBuild?: string[] | null;
  Labels?: Record<string, string> | null;
  StopSignal?: string;
  /** Seconds. */
  StopTimeout?: number;
  Shell?: string[] | null;
}

/** Durations in nanoseconds. */
export interface HealthConfig {
  Test?: string[];
  Interval?: number;
  Timeout?: number;
  Retries?: number;
  StartPeriod?: number;
  StartInterval?: number;
}

export type RestartPolicyName = '' | 'no' | 'always' | 'unless-stopped' | 'on-failure';
export interface RestartPolicy { Name?: RestartPolicyName; MaximumRetryCount?: number }
export interface PortBinding { HostIp?: string; HostPort?: string }
export interface DeviceMapping { PathOnHost?: string; PathInContainer?: string; CgroupPermissions?: string }
export interface ThrottleDevice { Path?: string; Rate?: number }
export interface Ulimit { Name: string; Soft: number; Hard: number }
export interface LogConfig { Type?: string; Config?: Record<string, string> | null }

export interface Mount {
  Type: 'bind' | 'volume' | 'tmpfs' | 'npipe' | 'cluster' | 'image';
  Source?: string;
  Target: string;
  ReadOnly?: boolean;
  Consistency?: string;
  BindOptions?: {Propagation?: string; NonRecursive?: boolean; CreateMountpoint?: boolean; ReadOnlyNonRecursive?: boolean; ReadOnlyForceRecursive?: boolean};
  VolumeOptions?: {NoCopy?: boolean; Labels?: Record<string, string>; DriverConfig?: {Name?: string; Options?: Record<string, string>}; Subpath?: string};
  TmpfsOptions?: {SizeBytes?: number; Mode?: number; Options?: string[][]};
}

/** Limits that `docker update` may change while the container runs. */
export interface Resources {
  CpuShares?: number;
  Memory?: number;
  CgroupParent?: string;
  BlkioWeight?: number;
  BlkioWeightDevice?: {Path?: string; Weight?: number}[] | null;
  BlkioDeviceReadBps?: ThrottleDevice[] | null;
  BlkioDeviceWriteBps?: ThrottleDevice[] | null;
  BlkioDeviceReadIOps?: ThrottleDevice[] | null;
  BlkioDeviceWriteIOps?: ThrottleDevice[] | null;
  CpuPeriod?: number;
  CpuQuota?: number;
  CpuRealtimePeriod?: number;
  CpuRealtimeRuntime?: number;
  CpusetCpus?: string;
  CpusetMems?: string;
  Devices?: DeviceMapping[] | null;
  DeviceCgroupRules?: string[] | null;
  DeviceRequests?: object[] | null;
  KernelMemoryTCP?: number;
  MemoryReservation?: number;
  MemorySwap?: number;
  MemorySwappiness?: number | null;
  NanoCpus?: number;
  OomKillDisable?: boolean | null;
  PidsLimit?: number | null;
  Ulimits?: Ulimit[] | null;
}

export interface HostConfig extends Resources {
  Binds?: string[] | null;
  ContainerIDFile?: string;
  LogConfig?: LogConfig;
  NetworkMode?: string;
  PortBindings?: Record<string, PortBinding[] | null> | null;
  RestartPolicy?: RestartPolicy;
  AutoRemove?: boolean;
  VolumeDriver?: string;
  VolumesFrom?: string[] | null;
  Mounts?: Mount[] | null;
  ConsoleSize?: [number, number] | null;
  Annotations?: Record<string, string> | null;
  CapAdd?: string[] | null;
  CapDrop?: string[] | null;
  CgroupnsMode?: '' | 'private' | 'host';
  Cgroup?: string;
  Dns?: string[] | null;
  DnsOptions?: string[] | null;
  DnsSearch?: string[] | null;
  ExtraHosts?: string[] | null;
  GroupAdd?: string[] | null;
  IpcMode?: string;
  Links?: string[] | null;
  OomScoreAdj?: number;
  PidMode?: string;
  Privileged?: boolean;
  PublishAllPorts?: boolean;
  ReadonlyRootfs?: boolean;
  SecurityOpt?: string[] | null;
  StorageOpt?: Record<string, string> | null;
  Tmpfs?: Record<string, string> | null;
  UTSMode?: string;
  UsernsMode?: string;
  ShmSize?: number;
  Sysctls?: Record<string, string> | null;
  Runtime?: string;
  Isolation?: string;
  MaskedPaths?: string[] | null;
  ReadonlyPaths?: string[] | null;
  Init?: boolean | null;
}

export interface EndpointIPAMConfig { IPv4Address?: string; IPv6Address?: string; LinkLocalIPs?: string[] }

/** What a client asks of one network at create or connect, and (the rest of the fields) what inspect shows of it. */
export interface EndpointSettings {
  IPAMConfig?: EndpointIPAMConfig | null;
  Links?: string[] | null;
  Aliases?: string[] | null;
  MacAddress?: string;
  DriverOpts?: Record<string, string> | null;
  GwPriority?: number;
  NetworkID?: string;
  EndpointID?: string;
  Gateway?: string;
  IPAddress?: string;
  IPPrefixLen?: number;
  IPv6Gateway?: string;
  GlobalIPv6Address?: string;
  GlobalIPv6PrefixLen?: number;
  DNSNames?: string[] | null;
}

export interface NetworkingConfig { EndpointsConfig?: Record<string, EndpointSettings | null> | null }

export interface CreateContainerBody extends Config {
  HostConfig?: HostConfig | null;
  NetworkingConfig?: NetworkingConfig | null;
}

export interface ExecConfig {
  AttachStdin?: boolean;
  AttachStdout?: boolean;
  AttachStderr?: boolean;
  DetachKeys?: string;
  Tty?: boolean;
  Env?: string[] | null;
  Cmd?: string[] | null;
  ConsoleSize?: [number, number] | null;
  Privileged?: boolean;
  User?: string;
  WorkingDir?: string;
}

/** `X-Registry-Auth`, decoded. Lives only as long as the request; never stored, logged or put into a job. */
export interface RegistryAuth {
  username?: string;
  password?: string;
  auth?: string;
  email?: string;
  serveraddress?: string;
  identitytoken?: string;
  registrytoken?: string;
}

/** One line of the progress streams of pull, push, load, import and build. */
export interface ProgressMessage {
  status?: string;
  id?: string;
  progress?: string;
  progressDetail?: {current?: number; total?: number; units?: string; hidecounts?: boolean};
  stream?: string;
  error?: string;
  errorDetail?: {code?: number; message?: string};
  aux?: unknown;
}

/** OCI/Docker image config: what `docker inspect IMAGE` and `docker history` are made from. */
export interface ImageConfigFile {
  created?: string;
  author?: string;
  architecture: string;
  os: string;
  variant?: string;
  'os.version'?: string;
  config?: Config;
  /** The container that was committed. */
  container?: string;
  comment?: string;
  container_config?: Config;
  docker_version?: string;
  rootfs: {type: string; diff_ids: string[]};
  history?: {created?: string; created_by?: string; author?: string; comment?: string; empty_layer?: boolean}[];
}

export interface Descriptor {
  mediaType: string;
  /** "sha256:..." */
  digest: string;
  /** Bytes. */
  size: number;
  platform?: {architecture: string; os: string; variant?: string; 'os.version'?: string};
  annotations?: Record<string, string>;
}
