/** The bodies that clients send, by what they are for. */
import {CONFIG, HOST_CONFIG, RESOURCES, RESTART_POLICY} from './container';
import {anyObject, bool, honoured, ignored, int, list, map, pair, refused, stringMap, strings, struct, text, uint32} from './field';

const IMAGE = 'an image has no host; clients send back what inspect showed them';
const ANSWER = 'it is a field of the answer; clients send back what inspect showed them';

const ENDPOINT = struct('network.EndpointSettings', {
  IPAMConfig: struct('network.EndpointIPAMConfig', {
    IPv4Address: text(), IPv6Address: refused(text(), 'networks are IPv4 in this version'), LinkLocalIPs: refused(strings, 'networks have no link-local addresses'),
  }),
  Links: strings,
  Aliases: strings, MacAddress: text(), DriverOpts: refused(stringMap, 'networks have no options per container'), GwPriority: int,
  NetworkID: ignored(text(), ANSWER), EndpointID: ignored(text(), ANSWER), Gateway: ignored(text(), ANSWER), IPAddress: ignored(text(), ANSWER), IPPrefixLen: ignored(int, ANSWER),
  IPv6Gateway: ignored(text(), ANSWER), GlobalIPv6Address: ignored(text(), ANSWER), GlobalIPv6PrefixLen: ignored(int, ANSWER), DNSNames: ignored(strings, ANSWER),
}, {pointer: true});

const NETWORKING_CONFIG = struct('network.NetworkingConfig', {EndpointsConfig: map(ENDPOINT, 'map[string]*network.EndpointSettings')});

const consoleSize = pair(uint32('uint'));

const IPAM_CONFIG = struct('network.IPAMConfig', {Subnet: text(), IPRange: text(), Gateway: text(), AuxiliaryAddresses: stringMap});

export const BODIES = {
  containerCreate: struct('runconfig.ContainerConfigWrapper', {...CONFIG.fields, HostConfig: HOST_CONFIG, NetworkingConfig: NETWORKING_CONFIG}),
  containerUpdate: struct('container.UpdateConfig', {
    ...RESOURCES.fields, RestartPolicy: RESTART_POLICY, Init: ignored(bool, 'it is chosen at create; the Engine does not read it here either'),
  }),
  execCreate: struct('types.ExecConfig', {
    AttachStdin: bool, AttachStdout: bool, AttachStderr: bool, DetachKeys: text(), Tty: bool, Env: strings, Cmd: strings, ConsoleSize: consoleSize, Privileged: bool, User: text(),
    WorkingDir: text(), Detach: ignored(bool, 'the start of the exec says it'),
  }),
  execStart: struct('types.ExecStartCheck', {Detach: bool, Tty: bool, ConsoleSize: consoleSize}),
  networkCreate: struct('types.NetworkCreateRequest', {
    Name: text(), Driver: text(), Internal: bool, Attachable: honoured(bool, 'kept and shown'), Labels: stringMap, Options: stringMap,
    IPAM: struct('network.IPAM', {Driver: refused(text(), 'addresses are given by the datacenter', 'default'), Options: honoured(stringMap, 'kept and shown'), Config: list(IPAM_CONFIG)}),
    EnableIPv4: honoured(bool, 'false is refused: networks are IPv4 in this version'), EnableIPv6: refused(bool, 'networks are IPv4 in this version'),
    Ingress: refused(bool, 'it belongs to swarm mode'), ConfigOnly: refused(bool, 'it belongs to swarm mode'),
    ConfigFrom: refused(struct('network.ConfigReference', {Network: text()}), 'it belongs to swarm mode'),
    Scope: refused(text(), 'every network reaches every node and is shown as local', 'local'), CheckDuplicate: ignored(bool, 'names are always unique here'),
  }),
  imageCommit: struct('runconfig.ContainerConfigWrapper', {
    ...CONFIG.fields, ArgsEscaped: bool, HostConfig: ignored(HOST_CONFIG, IMAGE), NetworkingConfig: ignored(NETWORKING_CONFIG, IMAGE),
  }),
  systemAuth: struct('registry.AuthConfig', {
    username: text(), password: text(), auth: text(), email: ignored(text(), 'registries have long stopped to ask for it'), serveraddress: text(), identitytoken: text(), registrytoken: text(),
  }),
  networkConnect: struct('types.NetworkConnect', {Container: text(), EndpointConfig: ENDPOINT}),
  networkDisconnect: struct('types.NetworkDisconnect', {Container: text(), Force: bool}),
  volumeCreate: struct('volume.VolumeCreateBody', {
    Name: text(), Driver: text(), DriverOpts: stringMap, Labels: stringMap, ClusterVolumeSpec: refused(anyObject('volume.ClusterVolumeSpec'), 'cluster volumes need swarm mode'),
  }),
} as const;

export type BodyKind = keyof typeof BODIES;
