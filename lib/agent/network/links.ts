/** What makes a bridge, plugs a container in, and takes both away: lines for `ip -batch` on the host, commands inside a namespace. Pure. */
import type {NodeNetwork} from '../../schema/agent';
import type {NetworkAttachment} from '../../schema/container';
import {optionsOf} from './names';
import type {LinkCommand} from './netlink';

/** One interface of a sandbox, as it was made. */
export interface Plug {
  networkId: string;
  bridge: string;
  /** In the container: eth0, eth1... */
  inside: string;
  /** On the host. */
  outside: string;
  attachment: NetworkAttachment;
}

/** Fixed, so that it does not change with the first and last port and confuse the containers' ARP tables: 02:42 and the gateway's bytes, as the Engine's. */
export function bridgeMac(gateway: string): string {
  return ['02', '42', ...gateway.split('.').map(byte => Number(byte).toString(16).padStart(2, '0'))].join(':');
}

export function bridgeLines(network: NodeNetwork, aliasPrefix: string, mtu: number, exists: boolean): string[] {
  const {bridgeName: bridge} = network;
  const length = network.subnet.split('/')[1];
  return [
    ...(exists ? [] : [`link add ${bridge} address ${bridgeMac(network.gateway)} type bridge`]),
    `link set ${bridge} alias ${aliasPrefix}${network.id}`,
    `addr replace ${network.gateway}/${length} dev ${bridge}`,
    `link set ${bridge} mtu ${mtu} up`,
  ];
}

/** In the container's namespace; `make`: the pair was not prepared. */
export function insideCommands(plug: Plug, mtu: number, {make}: {make: boolean}): LinkCommand[] {
  const {attachment, inside} = plug;
  return [
    ...(make ? [{do: 'pair', name: inside, peer: plug.outside} as const] : []),
    {do: 'set', name: inside, mac: attachment.mac, mtu},
    {do: 'address', name: inside, address: attachment.address, prefixLength: attachment.prefixLength},
    ...(attachment.isDefaultRoute && !attachment.internal && attachment.gateway ? [{do: 'defaultRoute', name: inside, gateway: attachment.gateway} as const] : []),
  ];
}

/** On the host. The neighbour entry saves the first packet a round of ARP, and the last holder of the address is forgotten. */
export function outsideLines(plug: Plug, network: NodeNetwork, mtu: number, publishes: boolean): string[] {
  return [
    `link set ${plug.outside} mtu ${mtu} master ${plug.bridge} up`,
    // Without inter-container traffic the ports see only the bridge itself. Unlike a filter rule this holds without br_netfilter too.
    ...(optionsOf(network).icc ? [] : [`link set ${plug.outside} type bridge_slave isolated on`]),
    // A container that calls its own published port: with br_netfilter the frame turns round inside the bridge, into the port it came from.
    ...(publishes ? [`link set ${plug.outside} type bridge_slave hairpin on`] : []),
    `neigh replace ${plug.attachment.address} lladdr ${plug.attachment.mac} dev ${plug.bridge} nud reachable`,
  ];
}

/**
 * The pair dies with the namespace, which the kernel takes apart in the background; deleting the pair would cost 20 ms here. Down first: the
 * bridge forgets the address at once, so that the next holder is not shadowed.
 */
export function removeLines(namespace: string, plugs: Plug[]): string[] {
  return [...plugs.map(plug => `link set ${plug.outside} down`), `netns del ${namespace}`];
}
