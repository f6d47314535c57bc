/** NetworkMode and EndpointsConfig into the networks that the container asks for, by name. Throws the Engine's texts. */
import {isIPv4} from 'node:net';
import {CetusError} from '../../base/errors';
import type {NetworkRequest} from '../../schema/container';
import type {Config, CreateContainerBody, EndpointSettings, HostConfig} from '../../schema/docker';
import type {Network} from '../../schema/objects';
import {asksNothing, gate, unsupported} from './options';
import {parseLink} from './links';
import type {Context} from '../context';
import {resolveContainer} from '../containers/resolve';
import {resolveNetwork} from '../networks-resolve';
import type {PredefinedNetworks} from '../networks-predefined';
import type {Caller} from '../verbs';

export interface Networking {
  /** What HostConfig.NetworkMode becomes. */
  networkMode: string;
  /** ContainerSpec.networkMode. */
  specMode: string;
  networks: Record<string, NetworkRequest>;
  /** Id of the node of the container whose network is shared, and that container's names: both bear them. */
  sharedNode?: string;
  sharedNames?: {Hostname: string; Domainname: string};
}

const invalid = (message: string): CetusError => new CetusError('invalid', message);
const MAC = /^[0-9a-fA-F]{2}([:-][0-9a-fA-F]{2}){5}$/;
const SETTINGS = new Set(['IPAMConfig', 'Links', 'Aliases', 'MacAddress', 'NetworkID', 'EndpointID', 'Gateway', 'IPAddress', 'IPPrefixLen', 'IPv6Gateway', 'GlobalIPv6Address', 'GlobalIPv6PrefixLen', 'DNSNames', 'GwPriority']);

function inSubnet(address: string, subnet: string): boolean {
  const number = (ip: string): number => ip.split('.').reduce((n, part) => n * 256 + Number(part), 0);
  const [base, length] = subnet.split('/') as [string, string];
  const size = 2 ** (32 - Number(length));
  return Math.floor(number(address) / size) === Math.floor(number(base) / size);
}

/** Also for `network connect`. */
export function checkEndpointSettings(network: Network, settings: EndpointSettings): void {
  for (const [name, value] of Object.entries(settings))
    if (!SETTINGS.has(name) && !asksNothing(value)) throw unsupported(`EndpointsConfig.${network.name}.${name}`, 'this version does not know it');
  if (settings.MacAddress && !MAC.test(settings.MacAddress)) throw invalid(`invalid MAC address: ${settings.MacAddress}`);
  const ipam = settings.IPAMConfig;
  if (ipam?.IPv6Address) throw unsupported('IPAMConfig.IPv6Address', 'networks are IPv4 in this version');
  if (ipam?.LinkLocalIPs?.length) throw unsupported('IPAMConfig.LinkLocalIPs', 'this version does not know it');
  if (ipam?.IPv4Address) {
    if (!isIPv4(ipam.IPv4Address)) throw invalid(`invalid IPv4 address: ${ipam.IPv4Address}`);
    if (network.predefined) throw invalid('user specified IP address is supported on user defined networks only');
    if (network.subnetOfPool) throw invalid('user specified IP address is supported only when connecting to networks with user configured subnets');
    if (!inSubnet(ipam.IPv4Address, network.subnet)) throw invalid(`no configured subnet or ip-range contain the IP address ${ipam.IPv4Address}`);
  }
  for (const link of settings.Links ?? []) parseLink(link);
  if (settings.Aliases?.length && network.predefined) throw invalid('network-scoped alias is supported only for containers in user defined networks');
}

export async function settleNetworking(context: Context, predefined: PredefinedNetworks, caller: Caller, config: Config, host: HostConfig, body: CreateContainerBody): Promise<Networking> {
  const mode = config.NetworkDisabled ? 'none' : host.NetworkMode || 'default';
  const endpoints = Object.entries(body.NetworkingConfig?.EndpointsConfig ?? {});
  const publishing = Object.keys(host.PortBindings ?? {}).length > 0;

  if (host.UTSMode === 'host' && config.Hostname) throw invalid('conflicting options: hostname and the UTS mode');
  if (mode.startsWith('container:')) {
    const other = mode.slice('container:'.length);
    if (!other) throw invalid('Invalid network mode: invalid container format container:<name|id>');
    if (config.Hostname) throw invalid('conflicting options: hostname and the network mode');
    if (publishing || host.PublishAllPorts) throw invalid('conflicting options: port publishing and the container type network mode');
    if (Object.keys(body.ExposedPorts ?? {}).length) throw invalid('conflicting options: port exposing and the container type network mode');
    if (host.Dns?.length) throw invalid('conflicting options: dns and the network mode');
    if (host.ExtraHosts?.length) throw invalid('conflicting options: custom host-to-IP mapping and the network mode');
    if (config.MacAddress) throw invalid('conflicting options: mac-address and the network mode');
    if (endpoints.length > 0) throw invalid('conflicting options: cannot attach both user-defined and non-user-defined network-modes');
    const found = await resolveContainer(context, caller.account, other);
    const {Hostname = '', Domainname = ''} = found.spec.config;
    return {networkMode: `container:${found.id}`, specMode: `container:${found.id}`, networks: {}, sharedNode: found.nodeId, sharedNames: {Hostname, Domainname}};
  }
  if (mode === 'host' || mode === 'none') {
    if (mode === 'host') gate('HostConfig.NetworkMode host', 'allowHostNetwork', context.config);
    if (mode === 'host' && config.MacAddress) throw invalid('conflicting options: mac-address and the network mode');
    if (endpoints.some(([name]) => name !== mode)) throw invalid('conflicting options: cannot attach both user-defined and non-user-defined network-modes');
    const network = (await predefined.of(caller))[mode];
    return {networkMode: mode, specMode: mode, networks: {[mode]: {networkId: network.id, settings: {}}}};
  }

  const networks: Record<string, NetworkRequest> = {};
  const first = await resolveNetwork(context, predefined, caller, mode === 'default' ? 'bridge' : mode);
  const add = (network: Network, settings: EndpointSettings): void => {
    if (network.removing) throw new CetusError('notFound', `network ${network.name} not found`);
    if (network.driver !== 'bridge') throw invalid('conflicting options: cannot attach both user-defined and non-user-defined network-modes');
    checkEndpointSettings(network, settings);
    if (networks[network.name]) throw invalid(`network ${network.name} is given twice`);
    networks[network.name] = {networkId: network.id, settings};
  };
  const resolved = await Promise.all(endpoints.map(async ([name, settings]) => {
    const network = name === 'default' ? (await predefined.of(caller)).bridge : await resolveNetwork(context, predefined, caller, name);
    return {network, settings: settings ?? {}};
  }));
  const own = resolved.find((r) => r.network.id === first.id);
  add(first, {...own?.settings, ...(config.MacAddress && !own?.settings.MacAddress ? {MacAddress: config.MacAddress} : {})});
  for (const {network, settings} of resolved) if (network.id !== first.id) add(network, settings);
  return {networkMode: mode === 'default' ? 'bridge' : mode, specMode: 'networks', networks};
}
