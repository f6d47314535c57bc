/** Values for options.test.ts: for each field and parameter one that is right and says something, with what else it needs to be right. */
import type {BodyKind} from '../../lib/schema/options/bodies';

export type Json = Record<string, unknown>;

/** The operation that takes a body, where it is sent, and the least body that is right. `undo`: requests that let the next one begin anew. */
export interface Use { operation: string; path: string; body: Json; undo?: string[]; undoBody?: Json }

export const BODY_USES: Record<string, Use> & Partial<Record<BodyKind, Use>> = {
  containerCreate: {operation: 'ContainerCreate', path: '/containers/create', body: {Image: 'busybox'}},
  containerUpdate: {operation: 'ContainerUpdate', path: '/containers/{id}/update', body: {}},
  execCreate: {operation: 'ContainerExec', path: '/containers/{id}/exec', body: {Cmd: ['x']}},
  execStart: {operation: 'ExecStart', path: '/exec/{id}/start', body: {Detach: true}},
  imageCommit: {operation: 'ImageCommit', path: '/commit?container={id}', body: {}},
  systemAuth: {operation: 'SystemAuth', path: '/auth', body: {}},
  networkCreate: {operation: 'NetworkCreate', path: '/networks/create', body: {Name: 'made'}, undo: ['DELETE /networks/made', 'DELETE /networks/zz2']},
  networkConnect: {operation: 'NetworkConnect', path: '/networks/zz/connect', body: {Container: 'web'}, undo: ['POST /networks/zz/disconnect', 'POST /networks/zz/disconnect'], undoBody: {Container: 'web', Force: true}},
  networkDisconnect: {operation: 'NetworkDisconnect', path: '/networks/bridge/disconnect', body: {Container: 'other'}, undo: ['POST /networks/bridge/connect'], undoBody: {Container: 'other'}},
  volumeCreate: {operation: 'VolumeCreate', path: '/volumes/create', body: {Name: 'made'}, undo: ['DELETE /volumes/made', 'DELETE /volumes/zz']},
};

/** `with` is in both requests, the one with the field and the one without. `fails`: the only other value is one that the verb answers about. */
export interface BodySample { value?: unknown; with?: Json; fails?: RegExp }

const MB64 = 64 * 2 ** 20;
const host = (HostConfig: Json): Json => ({HostConfig});
const mount = (over: Json): Json => host({Mounts: [{Target: '/zz', Type: 'volume', ...over}]});
const onNetwork = {HostConfig: {NetworkMode: 'zz'}, NetworkingConfig: {EndpointsConfig: {zz: {}}}};
const ulimit = {Ulimits: [{Name: 'nofile', Soft: 1, Hard: 9}]};

export const BODY_SAMPLES: Record<string, BodySample> = {
  ExposedPorts: {value: {'81/udp': {}}},
  Env: {value: ['ZZ=1']},
  'Healthcheck.Test': {value: ['CMD', 'zz']},
  'Healthcheck.Interval': {value: 7e9, with: {Healthcheck: {Test: ['CMD', 'x']}}},
  'Healthcheck.Timeout': {value: 7e9, with: {Healthcheck: {Test: ['CMD', 'x']}}},
  'Healthcheck.StartPeriod': {value: 7e9, with: {Healthcheck: {Test: ['CMD', 'x']}}},
  'Healthcheck.StartInterval': {value: 7e9, with: {Healthcheck: {Test: ['CMD', 'x']}}},
  'Healthcheck.Retries': {value: 7, with: {Healthcheck: {Test: ['CMD', 'x']}}},
  Image: {value: 'other'},
  Volumes: {value: {'/zz': {}}},
  WorkingDir: {value: '/zz'},
  MacAddress: {value: '02:42:00:00:00:07'},
  StopSignal: {value: 'SIGINT'},
  'HostConfig.Memory': {value: MB64}, Memory: {value: 2 * MB64},
  'HostConfig.NanoCpus': {value: 5e8}, NanoCpus: {value: 5e8},
  'HostConfig.BlkioWeight': {value: 100}, BlkioWeight: {value: 100},
  'HostConfig.CpuPeriod': {value: 50_000}, CpuPeriod: {value: 50_000},
  'HostConfig.CpuQuota': {value: 50_000}, CpuQuota: {value: 50_000},
  'HostConfig.CpusetCpus': {value: '0'}, CpusetCpus: {value: '0'},
  'HostConfig.CpusetMems': {value: '0'}, CpusetMems: {value: '0'},
  'HostConfig.MemoryReservation': {value: MB64}, MemoryReservation: {value: MB64 / 2},
  'HostConfig.MemorySwap': {value: 3 * MB64, with: host({Memory: MB64})}, MemorySwap: {value: 3 * MB64},
  'HostConfig.Ulimits[].Name': {value: 'core', with: host(ulimit)}, 'Ulimits[].Name': {value: 'core', with: ulimit},
  'HostConfig.Ulimits[].Soft': {with: host(ulimit)}, 'Ulimits[].Soft': {with: ulimit},
  'HostConfig.Ulimits[].Hard': {with: host(ulimit)}, 'Ulimits[].Hard': {with: ulimit},
  'HostConfig.Devices[].PathOnHost': {value: '/dev/zz', with: host({Devices: [{PathOnHost: '/dev/null', PathInContainer: '/dev/yy', CgroupPermissions: 'r'}]})},
  'HostConfig.Devices[].PathInContainer': {value: '/dev/zz', with: host({Devices: [{PathOnHost: '/dev/null', CgroupPermissions: 'r'}]})},
  'HostConfig.Devices[].CgroupPermissions': {value: 'rw', with: host({Devices: [{PathOnHost: '/dev/null', PathInContainer: '/dev/yy', CgroupPermissions: 'r'}]})},
  'HostConfig.DeviceCgroupRules': {value: ['c 1:3 r']},
  'HostConfig.Binds': {value: ['/zz:/zz:ro']},
  'HostConfig.LogConfig.Type': {value: 'local'},
  'HostConfig.LogConfig.Config': {value: {'max-size': '7m'}},
  'HostConfig.NetworkMode': {value: 'none'},
  'HostConfig.PortBindings{}[].HostIp': {value: '127.0.0.7', with: host({PortBindings: {'80/tcp': [{}]}})},
  'HostConfig.PortBindings{}[].HostPort': {value: '8077', with: host({PortBindings: {'80/tcp': [{}]}})},
  'HostConfig.RestartPolicy.Name': {value: 'always'},
  'HostConfig.RestartPolicy.MaximumRetryCount': {with: host({RestartPolicy: {Name: 'on-failure'}})},
  'RestartPolicy.Name': {value: 'always'},
  'RestartPolicy.MaximumRetryCount': {with: {RestartPolicy: {Name: 'on-failure'}}},
  'HostConfig.VolumesFrom': {value: ['other:ro']},
  'HostConfig.Links': {value: ['other:zz']},
  'HostConfig.VolumeDriver': {with: host({Binds: ['zz:/zz']}), fails: /zz/},
  'HostConfig.Mounts[].Type': {value: 'tmpfs', with: mount({})},
  'HostConfig.Mounts[].Source': {with: mount({})},
  'HostConfig.Mounts[].Target': {value: '/yy', with: mount({})},
  'HostConfig.Mounts[].ReadOnly': {with: mount({Source: 'zz'})},
  'HostConfig.Mounts[].BindOptions.Propagation': {value: 'rslave', with: mount({Type: 'bind', Source: '/srv'})},
  'HostConfig.Mounts[].Consistency': {with: mount({})},
  'HostConfig.Mounts[].BindOptions.ReadOnlyNonRecursive': {with: mount({Type: 'bind', Source: '/srv', ReadOnly: true})},
  'HostConfig.Mounts[].BindOptions.ReadOnlyForceRecursive': {with: mount({Type: 'bind', Source: '/srv', ReadOnly: true})},
  'HostConfig.Mounts[].BindOptions.NonRecursive': {with: mount({Type: 'bind', Source: '/srv'})},
  'HostConfig.Mounts[].BindOptions.CreateMountpoint': {with: mount({Type: 'bind', Source: '/srv'})},
  'HostConfig.Mounts[].VolumeOptions.NoCopy': {with: mount({})},
  'HostConfig.Mounts[].VolumeOptions.Labels': {with: mount({})},
  'HostConfig.Mounts[].VolumeOptions.Subpath': {with: mount({})},
  'HostConfig.Mounts[].VolumeOptions.DriverConfig.Name': {with: mount({}), fails: /zz/},
  'HostConfig.Mounts[].VolumeOptions.DriverConfig.Options': {value: {type: 'tmpfs', device: 'tmpfs'}, with: mount({})},
  'HostConfig.Mounts[].TmpfsOptions.SizeBytes': {with: mount({Type: 'tmpfs'})},
  'HostConfig.Mounts[].TmpfsOptions.Mode': {with: mount({Type: 'tmpfs'})},
  'HostConfig.Mounts[].TmpfsOptions.Options': {value: [['noexec']], with: mount({Type: 'tmpfs'})},
  'HostConfig.CapAdd': {value: ['NET_ADMIN']},
  'HostConfig.CapDrop': {value: ['CHOWN']},
  'HostConfig.CgroupnsMode': {value: 'host'},
  'HostConfig.Dns': {value: ['192.0.2.7']},
  'HostConfig.ExtraHosts': {value: ['zz:192.0.2.7']},
  'HostConfig.IpcMode': {value: 'host'},
  'HostConfig.PidMode': {value: 'host'},
  'HostConfig.UTSMode': {value: 'host'},
  'HostConfig.UsernsMode': {value: 'host'},
  'HostConfig.SecurityOpt': {value: ['no-new-privileges']},
  'HostConfig.Tmpfs': {value: {'/zz': 'size=1m'}},
  'HostConfig.Sysctls': {value: {'net.core.somaxconn': '77'}},
  'HostConfig.MaskedPaths': {value: ['/proc/zz']},
  'HostConfig.ReadonlyPaths': {value: ['/proc/zz']},
  'NetworkingConfig.EndpointsConfig{}.IPAMConfig.IPv4Address': {value: '10.77.0.77', with: onNetwork},
  'NetworkingConfig.EndpointsConfig{}.Aliases': {with: onNetwork},
  'NetworkingConfig.EndpointsConfig{}.MacAddress': {value: '02:42:00:00:00:07', with: onNetwork},
  'NetworkingConfig.EndpointsConfig{}.GwPriority': {with: onNetwork},
  'ExecStart Detach': {value: false},
  'NetworkConnect Container': {value: 'nobody', fails: /nobody/},
  'EndpointConfig.IPAMConfig.IPv4Address': {value: '10.77.0.77'},
  'EndpointConfig.MacAddress': {value: '02:42:00:00:00:07'},
  'NetworkDisconnect Container': {value: 'nobody', fails: /nobody/},
  'NetworkCreate Name': {value: 'zz2'},
  'NetworkCreate Driver': {fails: /zz/},
  'NetworkCreate Options': {value: {'com.docker.network.bridge.enable_icc': 'false'}},
  'NetworkCreate EnableIPv4': {value: false, fails: /EnableIPv4/},
  'NetworkCreate IPAM.Config[].Subnet': {value: '10.78.0.0/24'},
  'NetworkCreate IPAM.Config[].IPRange': {value: '10.78.0.0/25', with: {IPAM: {Config: [{Subnet: '10.78.0.0/24'}]}}},
  'NetworkCreate IPAM.Config[].Gateway': {value: '10.78.0.77', with: {IPAM: {Config: [{Subnet: '10.78.0.0/24'}]}}},
  'NetworkCreate IPAM.Config[].AuxiliaryAddresses': {value: {zz: '10.78.0.77'}, with: {IPAM: {Config: [{Subnet: '10.78.0.0/24'}]}}},
  'VolumeCreate Driver': {fails: /zz/},
  'VolumeCreate DriverOpts': {value: {type: 'tmpfs', device: 'tmpfs'}},
};

const PLATFORM = '{"os":"linux","architecture":"amd64"}';

/** A parameter by itself, or for one operation. `with`: what is in both requests; `api`: the version that has it, where the newest has not. */
export const QUERY_SAMPLES: Record<string, {value: string; with?: string; api?: string}> = {
  all: {value: '1'}, force: {value: '1'}, v: {value: '1'}, link: {value: '1'}, size: {value: '1'}, limit: {value: '7'}, noprune: {value: '1'}, quiet: {value: '0'},
  filters: {value: '{"label":["zz"]}'}, signal: {value: 'SIGINT'}, t: {value: '7'}, name: {value: 'zz'}, path: {value: '/zz'}, h: {value: '7', with: 'w=7'}, w: {value: '7', with: 'h=7'},
  ps_args: {value: 'aux'}, condition: {value: 'removed'}, type: {value: 'image'}, version: {value: '7'}, timeout: {value: '7'}, remote: {value: 'zz'}, names: {value: 'busybox'},
  platform: {value: 'linux/amd64'}, repo: {value: 'zz'}, fromImage: {value: 'busybox'}, stdout: {value: '1', with: 'stderr=1'}, stderr: {value: '1', with: 'stdout=1'},
  'ImageBuild *': {value: 'zz'}, 'BuildCancel id': {value: 'zz'}, 'BuildPrune keep-storage': {value: '7'}, 'BuildPrune reserved-space': {value: '7'},
  'ImageCommit container': {value: 'c'}, 'ImageCommit repo': {value: 'zz', with: 'container=c'}, 'ImageCommit tag': {value: '7', with: 'container=c&repo=zz'}, 'ImageCommit comment': {value: 'zz', with: 'container=c'},
  'ImageCommit author': {value: 'zz', with: 'container=c'}, 'ImageCommit pause': {value: '0', with: 'container=c'}, 'ImageCommit changes': {value: 'USER zz', with: 'container=c'},
  'ImageSearch term': {value: 'zz'}, 'ImageSearch limit': {value: '7', with: 'term=x'}, 'ImageSearch filters': {value: '{"stars":["7"]}', with: 'term=x'},
  'ImageList shared-size': {value: '1'}, 'ImageList manifests': {value: '1'}, 'ImageInspect manifests': {value: '1'}, 'ImageInspect platform': {value: '{"os":"linux"}'},
  'ImageHistory platform': {value: '{"os":"linux"}'}, 'ImageDelete platforms': {value: PLATFORM}, 'ImageGet platform': {value: PLATFORM}, 'ImageGetAll platform': {value: PLATFORM, with: 'names=busybox'}, 'ImageLoad platform': {value: PLATFORM},
  'ImagePush tag': {value: '7'}, 'ImagePush platform': {value: '{"os":"linux","architecture":"amd64"}', with: 'tag=7'},
  'ImageCreate fromSrc': {value: '-'}, 'ImageCreate repo': {value: 'zz', with: 'fromSrc=-'}, 'ImageCreate message': {value: 'zz', with: 'fromSrc=-'}, 'ImageCreate changes': {value: 'USER zz', with: 'fromSrc=-'},
  'ImageCreate platform': {value: 'linux/amd64', with: 'fromImage=busybox&tag=1'}, 'ImageCreate tag': {value: '7', with: 'fromImage=busybox'}, 'ImageTag tag': {value: '7', with: 'repo=zz'},
  'NetworkInspect scope': {value: 'swarm'}, 'ImageList filter': {value: 'busybox', api: '1.40'},
  'SystemEvents since': {value: '5', with: 'until=1800000000'}, 'SystemEvents until': {value: '1800000000'}, 'SystemEvents filters': {value: '{"label":["zz"]}', with: 'until=1800000000'},
  'ContainerLogs since': {value: '5', with: 'stdout=1'}, 'ContainerLogs until': {value: '5', with: 'stdout=1'}, 'ContainerLogs follow': {value: '1', with: 'stdout=1'},
  'ContainerLogs timestamps': {value: '1', with: 'stdout=1'}, 'ContainerLogs tail': {value: '7', with: 'stdout=1'}, 'ContainerLogs details': {value: '1', with: 'stdout=1'},
  'ContainerStats stream': {value: '0'}, 'ContainerStats one-shot': {value: '1', with: 'stream=0'},
  detachKeys: {value: 'ctrl-a'}, logs: {value: '1'}, stream: {value: '1'}, stdin: {value: '1'},
  noOverwriteDirNonDir: {value: '1', with: 'path=/zz'}, copyUIDGID: {value: '1', with: 'path=/zz'},
  'ServiceLogs stdout': {value: '1'}, 'ServiceLogs stderr': {value: '1'}, 'TaskLogs stdout': {value: '1'}, 'TaskLogs stderr': {value: '1'},
  'PluginPull name': {value: 'zz', with: 'remote=yy'}, 'PluginPull remote': {value: 'zz'}, 'PluginList filters': {value: '{"zz":["1"]}'}, 'BuildPrune filters': {value: 'not JSON'},
  'ServiceList filters': {value: 'not JSON'}, 'TaskList filters': {value: 'not JSON'}, 'SecretList filters': {value: 'not JSON'}, 'ConfigList filters': {value: 'not JSON'},
};

/** Objects field by field, lists of objects element by element; of everything else the second. */
export function merged(a: Json, b: Json): Json {
  const out: Json = {...a};
  for (const [key, value] of Object.entries(b)) {
    const old = out[key];
    if (isObject(old) && isObject(value)) out[key] = merged(old, value);
    else if (Array.isArray(old) && Array.isArray(value) && isObject(old[0]) && isObject(value[0])) out[key] = [merged(old[0], value[0])];
    else out[key] = value;
  }
  return out;
}
const isObject = (value: unknown): value is Json => typeof value === 'object' && value !== null && !Array.isArray(value);
