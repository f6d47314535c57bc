/**
 * Every field and query parameter of the covered operations, as data: honoured, refused, or ignored because it cannot mean anything here.
 * The promise "no silent option" hangs on this table: a field that is not honoured is refused by name unless its value is the one that
 * changes nothing. A field that the Engine itself does not know is ignored, as the Engine does; one spelled in another case is taken,
 * as Go's decoder does. The verbs check values again (they know nodes, networks and volumes); this is the first gate.
 */
export type Disposition =
  | 'honoured'
  /** 400 naming it, unless the value is one of `neutral` or empty (null, "", 0, false, [], {}). */
  | {refused: string; neutral?: readonly unknown[]}
  /** Accepted whatever it says. */
  | {ignored: string};

export type Options = Readonly<Record<string, Disposition>>;

const honoured = (...names: string[]): Options => Object.fromEntries(names.map((name) => [name, 'honoured' as const]));
const refused = (why: string, ...names: string[]): Options => Object.fromEntries(names.map((name) => [name, {refused: why}]));
const ignored = (why: string, ...names: string[]): Options => Object.fromEntries(names.map((name) => [name, {ignored: why}]));

const WINDOWS = 'it exists only on Windows';
const ANSWER = 'it is a field of the answer; clients send back what inspect showed them';

export const CONFIG: Options = {
  ...honoured('Hostname', 'Domainname', 'User', 'AttachStdin', 'AttachStdout', 'AttachStderr', 'ExposedPorts', 'Tty', 'OpenStdin', 'StdinOnce', 'Env', 'Cmd',
    'Healthcheck', 'Image', 'Volumes', 'WorkingDir', 'Entrypoint', 'NetworkDisabled', 'MacAddress', 'Labels', 'StopSignal', 'StopTimeout', 'Shell'),
  ...refused('triggers belong to images', 'OnBuild'),
  ...ignored(WINDOWS, 'ArgsEscaped'),
};

/** What an image is to say; a container's host has no part in it. */
export const COMMIT: Options = {
  ...CONFIG, OnBuild: 'honoured', ArgsEscaped: 'honoured',
  ...ignored('an image has no host; clients send back what inspect showed them', 'HostConfig', 'NetworkingConfig'),
};

export const RESOURCES: Options = {
  ...honoured('CpuShares', 'Memory', 'BlkioWeight', 'BlkioWeightDevice', 'BlkioDeviceReadBps', 'BlkioDeviceWriteBps', 'BlkioDeviceReadIOps',
    'BlkioDeviceWriteIOps', 'CpuPeriod', 'CpuQuota', 'CpuRealtimePeriod', 'CpuRealtimeRuntime', 'CpusetCpus', 'CpusetMems', 'Devices', 'DeviceCgroupRules',
    'MemoryReservation', 'MemorySwap', 'MemorySwappiness', 'NanoCpus', 'OomKillDisable', 'PidsLimit', 'Ulimits'),
  ...refused('the node decides where its containers are accounted', 'CgroupParent'),
  ...refused('device requests (GPUs, CDI) are not supported yet', 'DeviceRequests'),
  ...refused('the kernel memory limits were removed from Linux', 'KernelMemory', 'KernelMemoryTCP'),
  ...refused(WINDOWS, 'CpuCount', 'CpuPercent', 'IOMaximumIOps', 'IOMaximumBandwidth'),
};

export const HOST_CONFIG: Options = {
  ...RESOURCES,
  ...honoured('Binds', 'LogConfig', 'NetworkMode', 'PortBindings', 'RestartPolicy', 'AutoRemove', 'VolumesFrom', 'Mounts', 'Annotations', 'CapAdd', 'CapDrop',
    'CgroupnsMode', 'Dns', 'DnsOptions', 'DnsSearch', 'ExtraHosts', 'GroupAdd', 'IpcMode', 'OomScoreAdj', 'PidMode', 'Privileged', 'PublishAllPorts',
    'ReadonlyRootfs', 'SecurityOpt', 'Tmpfs', 'UTSMode', 'ShmSize', 'Sysctls', 'MaskedPaths', 'ReadonlyPaths', 'Init', 'ConsoleSize',
    'UsernsMode'),
  ...honoured('VolumeDriver'),
  Links: {refused: 'legacy links do not exist: on a network of their own, containers find each other by name'},
  Runtime: {refused: 'only the runtime "runc" exists', neutral: ['runc', 'io.containerd.runc.v2']},
  Isolation: {refused: WINDOWS, neutral: ['default']},
  Cgroup: {refused: 'joining the cgroup of another container is not supported'},
  StorageOpt: {refused: 'the overlay snapshotter has no per-container storage options'},
  ...ignored('the client writes this file, not the server', 'ContainerIDFile'),
};

export const ENDPOINT: Options = {
  ...honoured('IPAMConfig', 'Aliases', 'MacAddress', 'GwPriority'),
  ...refused('legacy links do not exist: on a network of their own, containers find each other by name', 'Links'),
  ...refused('networks have no options per container', 'DriverOpts'),
  ...ignored(ANSWER, 'NetworkID', 'EndpointID', 'Gateway', 'IPAddress', 'IPPrefixLen', 'IPv6Gateway', 'GlobalIPv6Address', 'GlobalIPv6PrefixLen', 'DNSNames'),
};

export const EXEC_CREATE: Options = honoured('AttachStdin', 'AttachStdout', 'AttachStderr', 'DetachKeys', 'Tty', 'Env', 'Cmd', 'ConsoleSize', 'Privileged', 'User', 'WorkingDir');
export const EXEC_START: Options = honoured('Detach', 'Tty', 'ConsoleSize');
export const CONTAINER_UPDATE: Options = {...RESOURCES, ...honoured('RestartPolicy')};

export const NETWORK_CREATE: Options = {
  ...honoured('Name', 'Driver', 'Internal', 'Attachable', 'EnableIPv4', 'IPAM', 'Options', 'Labels', 'EnableIPv6', 'Ingress', 'ConfigOnly', 'ConfigFrom'),
  Scope: {refused: 'every network reaches every node and is shown as local', neutral: ['local']},
  ...ignored('names are always unique here', 'CheckDuplicate'),
};
export const NETWORK_CONNECT: Options = honoured('Container', 'EndpointConfig');
export const NETWORK_DISCONNECT: Options = honoured('Container', 'Force');
export const VOLUME_CREATE: Options = {...honoured('Name', 'Driver', 'DriverOpts', 'Labels'), ...refused('cluster volumes need swarm mode', 'ClusterVolumeSpec')};

/** Query parameters by operation id. Those of the API that are not listed here do not exist for that operation. */
export const QUERIES: Readonly<Record<string, Options>> = {
  SystemEvents: honoured('since', 'until', 'filters'),
  SystemDataUsage: {...honoured('type'), ...ignored('more detail in the answer of newer APIs', 'verbose')},
  ContainerList: {...honoured('all', 'limit', 'size', 'filters'), ...refused('removed from the API with 1.24: use filters', 'since', 'before')},
  ContainerCreate: honoured('name', 'platform'),
  ContainerInspect: honoured('size'),
  ContainerTop: honoured('ps_args'),
  ContainerLogs: honoured('follow', 'stdout', 'stderr', 'since', 'until', 'timestamps', 'tail', 'details'),
  ContainerStats: honoured('stream', 'one-shot'),
  ContainerResize: honoured('h', 'w'),
  ContainerStart: {...ignored('starting attaches nothing', 'detachKeys'), ...refused('checkpoints are not supported', 'checkpoint', 'checkpoint-dir')},
  ContainerStop: honoured('signal', 't'),
  ContainerRestart: honoured('signal', 't'),
  ContainerKill: honoured('signal'),
  ContainerRename: honoured('name'),
  ContainerAttach: honoured('detachKeys', 'logs', 'stream', 'stdin', 'stdout', 'stderr'),
  ContainerAttachWebsocket: honoured('detachKeys', 'logs', 'stream', 'stdin', 'stdout', 'stderr'),
  ContainerWait: honoured('condition'),
  ContainerDelete: honoured('v', 'force', 'link'),
  ContainerArchive: honoured('path'),
  ContainerArchiveInfo: honoured('path'),
  PutContainerArchive: honoured('path', 'noOverwriteDirNonDir', 'copyUIDGID'),
  ContainerPrune: honoured('filters'),
  ImageBuild: {
    ...honoured('dockerfile', 't', 'extrahosts', 'remote', 'q', 'nocache', 'cachefrom', 'pull', 'rm', 'forcerm', 'memory', 'memswap', 'cpushares', 'cpusetcpus', 'cpusetmems', 'cpuperiod',
      'cpuquota', 'buildargs', 'shmsize', 'labels', 'networkmode', 'platform', 'target', 'outputs', 'version', 'session', 'buildid', 'ulimits', 'securityopt', 'squash', 'isolation'),
    ...refused('the node decides where builds are accounted', 'cgroupparent'),
  },
  BuildPrune: {
    ...honoured('filters', 'all', 'keep-storage', 'reserved-space'),
    ...refused('the engine on the nodes knows how much to keep (reserved-space), not how much there may be', 'max-used-space', 'min-free-space'),
  },
  BuildCancel: honoured('id'),
  ImageList: {...honoured('all', 'filters', 'filter'), ...ignored('digests are always in the answer', 'digests'), ...ignored('shown as -1, "not computed"', 'shared-size'), ...ignored('manifest lists are not kept; only the pulled manifest is', 'manifests')},
  ImageCreate: {...honoured('fromImage', 'tag', 'platform'), ...refused('importing an image is not implemented yet', 'fromSrc', 'repo', 'message', 'changes')},
  ImageInspect: {...ignored('manifest lists are not kept; only the pulled manifest is', 'manifests'), ...refused('an image has one platform here', 'platform')},
  ImageHistory: refused('an image has one platform here', 'platform'),
  ImageTag: honoured('repo', 'tag'),
  ImageDelete: {...honoured('force', 'noprune'), ...refused('an image has one platform here', 'platforms')},
  ImagePrune: honoured('filters'),
  ImageGet: refused('an image has one platform here', 'platform'),
  ImageGetAll: {...honoured('names'), ...refused('an image has one platform here', 'platform')},
  ImageLoad: {...honoured('quiet'), ...refused('an image has one platform here', 'platform')},
  ImagePush: honoured('tag', 'platform'),
  ImageCommit: honoured('container', 'repo', 'tag', 'comment', 'author', 'pause', 'changes'),
  ExecResize: honoured('h', 'w'),
  VolumeList: honoured('filters'),
  VolumeDelete: honoured('force'),
  VolumePrune: honoured('filters'),
  NetworkList: honoured('filters'),
  NetworkInspect: {...ignored('adds details of swarm services only', 'verbose'), scope: {refused: 'every network is shown as local', neutral: ['local']}},
  NetworkPrune: honoured('filters'),
};
