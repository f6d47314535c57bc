/**
 * What a `network create` asks, judged before anything is looked up: honoured, or refused in the Engine's words. Pure. Whether the subnet is free
 * only the chain can say.
 */
import {BlockList, isIPv4, isIPv6} from 'node:net';
import {CetusError} from '../base/errors';
import type {Network} from '../schema/objects';
import {unsupported} from './create/options';
import {PREDEFINED} from './networks-predefined';
import type {NetworkVerbs} from './verbs';

type Body = Parameters<NetworkVerbs['create']>[1];
type IpamConfig = NonNullable<NonNullable<Body['IPAM']>['Config']>[number];

const invalid = (message: string): CetusError => new CetusError('invalid', message);
const IPV4_ONLY = 'networks are IPv4 in this version';

/** Go's ParseBool and Atoi. */
const BOOL = /^(1|t|T|TRUE|true|True|0|f|F|FALSE|false|False)$/;
const INTEGER = /^[+-]?\d+$/;
const PREFIX = 'com.docker.network.';

/** What nodes honour, and what a value must be; any other com.docker.network.* option is refused, other names are the caller's own. */
const DRIVER_OPTIONS: Record<string, (value: string, option: string) => void> = {
  'bridge.enable_icc': bool, 'bridge.enable_ip_masquerade': bool,
  'bridge.host_binding_ipv4': (value, option) => {
    if (value && !isIPv4(value)) throw unparsed(option, value, 'nil ip');
  },
  'bridge.name': (value) => {
    if (!/^[A-Za-z0-9_][A-Za-z0-9_.-]{0,14}$/.test(value)) throw invalid(`invalid bridge name: ${value}`);
  },
  'bridge.gateway_mode_ipv4': (value, option) => {
    if (value !== '' && value !== 'nat') throw unsupported(`network option ${option} ${value}`, 'nodes translate addresses');
  },
  'driver.mtu': (value, option) => {
    if (!INTEGER.test(value)) throw unparsed(option, value, `strconv.Atoi: parsing ${JSON.stringify(value)}: invalid syntax`);
    if (Number(value) < 0 || (Number(value) > 0 && (Number(value) < 68 || Number(value) > 65_535))) throw invalid(`invalid MTU number: ${Number(value)}`);
  },
};

const unparsed = (option: string, value: string, why: string): CetusError => invalid(`failed to parse ${option} value: ${value} (${why})`);

function bool(value: string, option: string): void {
  if (!BOOL.test(value)) throw unparsed(option, value, `strconv.ParseBool: parsing ${JSON.stringify(value)}: invalid syntax`);
}

const BRIDGE_NAME = `${PREFIX}bridge.name`;

/** The parts of the network's draft that the request decides. */
export function networkRequest(body: Body): Partial<Network> {
  checkName(body.Name ?? '');
  checkDriver(body);
  for (const [option, value] of Object.entries(body.Options ?? {})) {
    if (!option.startsWith(PREFIX)) continue;
    const name = option.slice(PREFIX.length);
    if (!Object.hasOwn(DRIVER_OPTIONS, name)) throw unsupported(`network option ${option}`, 'nodes do not honour it');
    DRIVER_OPTIONS[name]!(value, option);
  }
  const ipam = ipamOf(body.IPAM?.Config ?? []);
  return {
    internal: body.Internal ?? false, attachable: body.Attachable ?? false, labels: body.Labels ?? {}, options: body.Options ?? {}, ipamOptions: body.IPAM?.Options ?? {},
    subnet: ipam.Subnet ?? '', gateway: ipam.Gateway ?? '', ipRange: ipam.IPRange ?? '', auxAddresses: ipam.AuxiliaryAddresses ?? {},
    ...(ipam.Subnet ? {} : {subnetOfPool: true}), ...(body.Options?.[BRIDGE_NAME] ? {bridgeName: body.Options[BRIDGE_NAME]} : {}),
  };
}

function checkName(name: string): void {
  if (!name.trim()) throw invalid(`invalid name: ${name}`);
  if (name.trim() !== name || !/^[^/\s][^/]*$/.test(name)) throw invalid(`invalid network name: ${name}`);
  // The blank at the end is the Engine's.
  if ((PREDEFINED as readonly string[]).includes(name) || name === 'default') throw new CetusError('forbidden', `operation is not permitted on predefined ${name} network `);
  if (name.startsWith('container:')) throw invalid(`invalid network name: ${name}`);
}

function checkDriver(body: Body): void {
  const driver = body.Driver || 'bridge';
  if (driver === 'host' || driver === 'null') throw new CetusError('forbidden', `only one instance of "${driver}" network is allowed`);
  if (driver !== 'bridge') throw new CetusError('notFound', `could not find plugin ${driver} in v1 plugin registry: plugin "${driver}" not found`);
  for (const [option, asked] of [['ConfigOnly', body.ConfigOnly], ['ConfigFrom', body.ConfigFrom && Object.values(body.ConfigFrom).some(Boolean)], ['Ingress', body.Ingress], ['EnableIPv6', body.EnableIPv6]] as const)
    if (asked) throw unsupported(option, option === 'EnableIPv6' ? IPV4_ONLY : 'it belongs to swarm mode');
  if (body.EnableIPv4 === false) throw unsupported('EnableIPv4 false', IPV4_ONLY);
  if (body.Scope && body.Scope !== 'local') throw unsupported(`Scope ${body.Scope}`, 'networks of this datacenter are local');
  if (body.IPAM?.Driver && body.IPAM.Driver !== 'default') throw unsupported(`IPAM.Driver ${body.IPAM.Driver}`, 'addresses are given by the datacenter');
}

/** All that is wrong with it, as the Engine lists it; the one part that a bridge can have. */
function ipamOf(configs: readonly IpamConfig[]): IpamConfig {
  const wrong = configs.flatMap(faultsOf);
  if (wrong.length === 1) throw invalid(`invalid network config:\n${wrong[0]}`);
  if (wrong.length) throw invalid(`invalid network config:\n${wrong.map((fault) => `* ${fault}`).join('\n')}`);
  if (configs.length > 1) throw new CetusError('forbidden', "bridge driver doesn't support multiple subnets");
  const [config = {}] = configs;
  const {Subnet = '', Gateway} = config;
  if (Gateway && isEdge(Subnet, Gateway)) throw new CetusError('internal', `failed to allocate gateway (${Gateway}): Address already in use`);
  return config;
}

function faultsOf(config: IpamConfig): string[] {
  const {Subnet = '', IPRange, Gateway, AuxiliaryAddresses} = config;
  if (isV6Block(Subnet)) throw unsupported(`IPAM.Config.subnet ${Subnet}`, IPV4_ONLY);
  const subnet = block(Subnet);
  if (!subnet) return [`invalid subnet ${Subnet}: invalid CIDR block notation`];
  const faults: string[] = [];
  if (subnet.masked !== Subnet) faults.push(`invalid subnet ${Subnet}: it should be ${subnet.masked}`);
  if (IPRange) faults.push(...rangeFaults(IPRange, subnet, Subnet));
  const address = (text: string | undefined, what: string): void => {
    const fault = text ? addressFault(text, subnet, Subnet) : undefined;
    if (fault) faults.push(`invalid ${what}: ${fault}`);
  };
  address(Gateway, `gateway ${Gateway}`);
  for (const [name, auxiliary] of Object.entries(AuxiliaryAddresses ?? {})) address(auxiliary, `auxiliary address ${name}`);
  return faults;
}

function rangeFaults(text: string, subnet: Block, shown: string): string[] {
  if (isV6Block(text)) return [`invalid ip-range ${text}: parent subnet is an IPv4 block`];
  const range = block(text);
  if (!range) return [`invalid ip-range ${text}: invalid CIDR block notation`];
  const faults: string[] = [];
  if (range.length < subnet.length) faults.push(`invalid ip-range ${text}: CIDR block is bigger than its parent subnet ${shown}`);
  if (range.masked !== text) faults.push(`invalid ip-range ${text}: it should be ${range.masked}`);
  if (!subnet.has(range.base) && !range.has(subnet.base)) faults.push(`invalid ip-range ${text}: parent subnet ${shown} doesn't contain ip-range`);
  return faults;
}

function addressFault(text: string, subnet: Block, shown: string): string | undefined {
  if (isIPv6(text)) return 'parent subnet is an IPv4 block';
  if (!isIPv4(text)) return 'invalid address';
  return subnet.has(text) ? undefined : `parent subnet ${shown} doesn't contain this address`;
}

interface Block { base: string; length: number; masked: string; has(address: string): boolean }

const numberOf = (address: string): number => address.split('.').reduce((sum, part) => sum * 256 + Number(part), 0);
const textOf = (address: number): string => [24, 16, 8, 0].map((shift) => Math.floor(address / 2 ** shift) % 256).join('.');
const isV6Block = (text: string): boolean => isIPv6(text.split('/')[0] ?? '');

function block(text: string): Block | undefined {
  const [address = '', bits = '', ...more] = text.split('/');
  if (!isIPv4(address) || !/^(0|[1-9]\d?)$/.test(bits) || Number(bits) > 32 || more.length) return undefined;
  const length = Number(bits);
  const base = textOf(Math.floor(numberOf(address) / 2 ** (32 - length)) * 2 ** (32 - length));
  const list = new BlockList();
  list.addSubnet(base, length, 'ipv4');
  return {base, length, masked: `${base}/${length}`, has: (other) => list.check(other, 'ipv4')};
}

/** The network's own and its broadcast address are nobody's. */
function isEdge(subnet: string, address: string): boolean {
  const found = block(subnet);
  if (!found || found.length >= 31) return false;
  const offset = numberOf(address) - numberOf(found.base);
  return offset === 0 || offset === 2 ** (32 - found.length) - 1;
}
