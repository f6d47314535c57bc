/**
 * Names of kernel objects, unique per agent instance, and checks of everything that is written into a tool's command line: what does not have
 * the expected shape is refused (`invalid`) before a tool sees it. Pure.
 */
import {isIPv4} from 'node:net';
import {CetusError} from '../../base/errors';
import type {NodeNetwork} from '../../schema/agent';
import type {NetworkAttachment} from '../../schema/container';

export const NETNS_DIR = '/run/netns';
/** The kernel's limit for an interface's name. */
const MAX_INTERFACE = 15;

export class Names {
  private count = 0;

  /**
   * `prefix` tells instances on one machine apart; `life` the lives of one instance, so that a new life never meets a name that an old
   * one left behind.
   */
  constructor(readonly prefix: string, private readonly life: string) {
    if (!/^[a-z0-9]{1,5}$/.test(prefix)) throw new CetusError('invalid', `network prefix ${JSON.stringify(prefix)} is not 1 to 5 lower case letters and digits`);
    if (!/^[a-z0-9]{1,4}$/.test(life)) throw new CetusError('invalid', `life ${JSON.stringify(life)} is not 1 to 4 lower case letters and digits`);
  }

  get table(): string { return `cetus_${this.prefix}`; }
  /** Marks bridges as ours: `ip link` shows it as the alias. */
  get aliasPrefix(): string { return `cetus:${this.prefix}:`; }
  get comment(): string { return `cetus ${this.prefix}`; }
  get namespacePrefix(): string { return `cetus-${this.prefix}-`; }

  /** Of the network with this segment. Five digits of base 36 are more than 24 bits. */
  tunnel(vni: number): string { return `x${this.prefix}${vni.toString(36).padStart(5, '0')}`; }

  /** A fresh pair: the namespace, and the host's end of its first interface. */
  next(): {namespace: string; hostInterface: string} {
    this.count += 1;
    const tail = `${this.life}${this.count.toString(36)}`;
    const hostInterface = `v${this.prefix}${tail}`;
    if (hostInterface.length > MAX_INTERFACE) throw new CetusError('internal', `interface names of instance ${this.prefix} are used up`);
    return {namespace: `${this.namespacePrefix}${tail}`, hostInterface};
  }
}

function checkInterface(name: string): void {
  if (!/^[A-Za-z0-9_][A-Za-z0-9_.-]{0,14}$/.test(name)) throw new CetusError('invalid', `invalid interface name ${JSON.stringify(name)}`);
}

const TRUE = new Set(['1', 't', 'T', 'TRUE', 'true', 'True']);

export interface NetworkOptions { icc: boolean; masquerade: boolean; hostBinding: string; mtu: number | undefined }

/** The options that the node honours; others are refused before they come here. Booleans as Go's ParseBool takes them. */
export function optionsOf(network: NodeNetwork): NetworkOptions {
  const {options} = network;
  const flag = (name: string): boolean => options[name] === undefined || TRUE.has(options[name]);
  const mtuText = options['com.docker.network.driver.mtu'];
  const mtu = Number(mtuText || 0) === 0 ? undefined : Number(mtuText);
  if (mtu !== undefined && !(Number.isInteger(mtu) && mtu >= 68 && mtu <= 65_535)) throw new CetusError('invalid', `invalid MTU ${mtuText} of network ${network.name}`);
  const hostBinding = options['com.docker.network.bridge.host_binding_ipv4'] ?? '';
  if (hostBinding && !isIPv4(hostBinding)) throw new CetusError('invalid', `invalid host binding address ${hostBinding} of network ${network.name}`);
  return {icc: flag('com.docker.network.bridge.enable_icc'), masquerade: flag('com.docker.network.bridge.enable_ip_masquerade'), hostBinding, mtu};
}

export function checkNetwork(network: NodeNetwork): void {
  checkInterface(network.bridgeName);
  const [address = '', length = ''] = network.subnet.split('/');
  if (!isIPv4(address) || !/^\d{1,2}$/.test(length) || Number(length) > 32) throw new CetusError('invalid', `invalid subnet ${network.subnet} of network ${network.name}`);
  if (!isIPv4(network.gateway)) throw new CetusError('invalid', `invalid gateway ${network.gateway} of network ${network.name}`);
  if (!/^[A-Za-z0-9_.-]{1,128}$/.test(network.id)) throw new CetusError('invalid', `invalid network id ${JSON.stringify(network.id)}`);
  if (network.vni !== undefined && !(Number.isInteger(network.vni) && network.vni > 0 && network.vni < 2 ** 24)) throw new CetusError('invalid', `invalid segment ${network.vni} of network ${network.name}`);
  optionsOf(network);
}

export function checkAttachment(attachment: NetworkAttachment): void {
  const where = `of the attachment to network ${attachment.networkName}`;
  if (!isIPv4(attachment.address)) throw new CetusError('invalid', `invalid address ${attachment.address} ${where}`);
  if (attachment.gateway && !isIPv4(attachment.gateway)) throw new CetusError('invalid', `invalid gateway ${attachment.gateway} ${where}`);
  if (!/^([0-9a-f]{2}:){5}[0-9a-f]{2}$/i.test(attachment.mac)) throw new CetusError('invalid', `invalid MAC address ${attachment.mac} ${where}`);
  if (!(Number.isInteger(attachment.prefixLength) && attachment.prefixLength > 0 && attachment.prefixLength <= 32)) throw new CetusError('invalid', `invalid prefix length ${attachment.prefixLength} ${where}`);
}

export function checkContainerId(id: string): void {
  if (!/^[A-Za-z0-9_.-]{1,128}$/.test(id)) throw new CetusError('invalid', `invalid container id ${JSON.stringify(id)}`);
}

/** Bridges with our alias, out of `ip -j link show type bridge`. */
export function ourBridges(listing: string, aliasPrefix: string): {name: string; networkId: string}[] {
  const links = JSON.parse(listing || '[]') as {ifname?: string; ifalias?: string}[];
  return links.flatMap(l => l.ifname && l.ifalias?.startsWith(aliasPrefix) ? [{name: l.ifname, networkId: l.ifalias.slice(aliasPrefix.length)}] : []);
}
