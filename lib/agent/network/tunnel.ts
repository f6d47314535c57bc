/**
 * A network's tunnel to other nodes, as lines for `ip -batch` and `bridge -batch`, and as nft text. A vxlan device is one more port of the network's bridge, which learns nothing
 * and is sent nothing that is for everybody: what is behind it is written down, each MAC with its node, each address with its MAC, from which the
 * bridge answers ARP itself. Pure.
 */
import type {NodeNetwork} from '../../schema/agent';
import {type Underlay, UNDERLAY_PORT} from '../../schema/node';
import type {Plug} from './links';
import {optionsOf} from './names';
import type {Remote} from './tables';

/** Outer IPv4, UDP and VXLAN headers, and the inner Ethernet header. */
export const TUNNEL_BYTES = 50;
/** A limit of its own would drop in silence what is too long; as it is the kernel tells the sender, or divides the outer packet. */
const DEVICE_MTU = 65_000;

/** What of it is in the kernel: by MAC "NODE PORT", by address the MAC. */
export interface Forwarding { fdb: Map<string, string>; neighbours: Map<string, string> }

export function forwardingOf(remotes: Remote[]): Forwarding {
  const fdb = new Map<string, string>();
  // Of two containers that somebody gave one MAC the first has it.
  for (const {mac, node, port} of remotes) if (!fdb.has(mac)) fdb.set(mac, `${node} ${port}`);
  return {fdb, neighbours: new Map(remotes.map(({address, mac}) => [address, mac]))};
}

export function tunnelLines(tunnel: string, network: NodeNetwork, underlay: Underlay, aliasPrefix: string, exists: boolean): string[] {
  return [
    ...(exists ? [] : [`link add ${tunnel} type vxlan id ${network.vni} local ${underlay.address} dstport ${underlay.port ?? UNDERLAY_PORT} nolearning`]),
    `link set ${tunnel} alias ${aliasPrefix}${network.id}`,
    `link set ${tunnel} mtu ${DEVICE_MTU} master ${network.bridgeName} up`,
    // `isolated` is what containers' ports are where they must not talk: then they do not talk through the tunnel either.
    `link set ${tunnel} type bridge_slave learning off flood off mcast_flood off bcast_flood off neigh_suppress on isolated ${optionsOf(network).icc ? 'off' : 'on'}`,
  ];
}

/** From what is in the kernel to what should be: for `bridge`, and for `ip`. Sticky: no frame of a container moves the entry to its own port. */
export function forwardingLines(tunnel: string, bridge: string, from: Forwarding, to: Forwarding): {bridge: string[]; ip: string[]} {
  const lines = {bridge: [] as string[], ip: [] as string[]};
  for (const mac of from.fdb.keys()) if (!to.fdb.has(mac)) lines.bridge.push(`fdb del ${mac} dev ${tunnel} self`, `fdb del ${mac} dev ${tunnel} master`);
  for (const [mac, place] of to.fdb) {
    if (from.fdb.get(mac) === place) continue;
    const [node, port] = place.split(' ');
    lines.bridge.push(`fdb replace ${mac} dev ${tunnel} dst ${node} port ${port} self static`);
    if (!from.fdb.has(mac)) lines.bridge.push(`fdb replace ${mac} dev ${tunnel} master static sticky`);
  }
  for (const address of from.neighbours.keys()) if (!to.neighbours.has(address)) lines.ip.push(`neigh del ${address} dev ${bridge}`);
  for (const [address, mac] of to.neighbours) if (from.neighbours.get(address) !== mac) lines.ip.push(`neigh replace ${address} lladdr ${mac} dev ${bridge} nud permanent`);
  return lines;
}

/** Out of `bridge -j fdb show dev TUNNEL` and `ip -j neigh show dev BRIDGE nud permanent`. */
export function forwardingIn(fdb: string, neighbours: string): Forwarding {
  const entries = JSON.parse(fdb || '[]') as {mac: string; dst?: string; port?: number}[];
  const known = JSON.parse(neighbours || '[]') as {dst?: string; lladdr?: string}[];
  return {
    fdb: new Map(entries.flatMap(({mac, dst, port}) => (dst ? [[mac, `${dst} ${port ?? UNDERLAY_PORT}`] as const] : []))),
    neighbours: new Map(known.flatMap(({dst, lladdr}) => (dst && lladdr ? [[dst, lladdr] as const] : []))),
  };
}

/** A tunnel of ours as the kernel has it. */
export interface Device { name: string; networkId: string; vni: number; local: string; port: number }

/** Out of `ip -j -d link show type vxlan`. */
export function devicesIn(listing: string, aliasPrefix: string): Device[] {
  const links = JSON.parse(listing || '[]') as {ifname?: string; ifalias?: string; linkinfo?: {info_data?: {id?: number; local?: string; port?: number}}}[];
  return links.flatMap(({ifname, ifalias, linkinfo}) => (ifname && ifalias?.startsWith(aliasPrefix)
    ? [{name: ifname, networkId: ifalias.slice(aliasPrefix.length), vni: linkinfo?.info_data?.id ?? 0, local: linkinfo?.info_data?.local ?? '', port: linkinfo?.info_data?.port ?? 0}] : []));
}

// ---- rules

/** Everything that the rules of tunnels are made of. */
export interface TunnelsView {
  underlay: Underlay;
  tunnels: string[];
  /** Of networks with a tunnel. */
  plugs: Plug[];
  remotes: {tunnel: string; remote: Remote}[];
}

type Verb = 'add' | 'delete';

function element(verb: Verb, family: 'ip' | 'bridge', table: string, set: string, key: string): string {
  return `${verb} element ${family} ${table} ${set} { ${key} }`;
}

export function tunnelCommands(verb: Verb, table: string, tunnel: string): string[] {
  return [element(verb, 'bridge', table, 'tunnels', `"${tunnel}"`)];
}

/** What this container may say into a tunnel. */
export function plugCommands(verb: Verb, table: string, plugs: Plug[]): string[] {
  return plugs.map(({outside, attachment}) => element(verb, 'bridge', table, 'own', `"${outside}" . ${attachment.mac.toLowerCase()} . ${attachment.address}`));
}

/** What may come out of a tunnel. */
export function remoteCommands(verb: Verb, table: string, tunnel: string, remotes: Remote[]): string[] {
  return remotes.map(({mac, address}) => element(verb, 'bridge', table, 'remote', `"${tunnel}" . ${mac} . ${address}`));
}

/** Nodes that may send to us, and ports that only the kernel may send to. A port stays where another node has it too, or one of another network. */
export function peerCommands(verb: Verb, table: string, peers: readonly {node: string; port: number}[]): string[] {
  return [
    ...[...new Set(peers.map(({node}) => node))].map((node) => element(verb, 'ip', table, 'peers', node)),
    ...(verb === 'add' ? [...new Set(peers.map(({port}) => port))].map((port) => element('add', 'ip', table, 'peer_ports', String(port))) : []),
  ];
}

/**
 * Into the instance's own table. Packets between nodes are tracked by nobody, so that no published port and no foreign translation takes them; from a
 * container none is let through, nor from a program of the node: the kernel's own belong to no user.
 */
export function underlayRules({address, port = UNDERLAY_PORT}: Underlay): {sets: string; chains: string; forwarding: string} {
  return {
    sets: `
  set peers { type ipv4_addr; }
  set peer_ports { type inet_service; }`,
    chains: `
  chain tunnelled {
    iifname @bridges drop
    ip saddr @peers notrack accept
    drop
  }
  chain underlay {
    type filter hook prerouting priority raw; policy accept;
    ip daddr ${address} udp dport ${port} jump tunnelled
  }
  chain spoken {
    meta skuid 0-4294967295 drop
    notrack
  }
  chain speaking {
    type filter hook output priority raw; policy accept;
    ip daddr @peers udp dport @peer_ports jump spoken
  }`,
    forwarding: '\n    iifname @bridges oifname != @bridges udp dport @peer_ports drop',
  };
}

/** A table of its own, which sees what crosses the bridges. ARP and IPv4 of those who are where they say, and nothing to or from the node itself: its gateway is there on every node. */
export function bridgeTableText(table: string, view: TunnelsView | undefined): string {
  if (!view) return '';
  const elements = [
    ...view.tunnels.flatMap((tunnel) => tunnelCommands('add', table, tunnel)), ...plugCommands('add', table, view.plugs),
    ...view.remotes.flatMap(({tunnel, remote}) => remoteCommands('add', table, tunnel, [remote])),
  ];
  return `table bridge ${table}
delete table bridge ${table}
table bridge ${table} {
  set tunnels { type ifname; }
  set own { type ifname . ether_addr . ipv4_addr; }
  set remote { type ifname . ether_addr . ipv4_addr; }
  chain into_tunnel {
    iifname . ether saddr . ip saddr @own accept
    ether type arp iifname . ether saddr . arp saddr ip @own accept
    drop
  }
  chain out_of_tunnel {
    iifname . ether saddr . ip saddr @remote accept
    ether type arp iifname . ether saddr . arp saddr ip @remote accept
    drop
  }
  chain crossing {
    type filter hook forward priority filter; policy accept;
    oifname @tunnels jump into_tunnel
    iifname @tunnels jump out_of_tunnel
  }
  chain to_node {
    type filter hook input priority filter; policy accept;
    iifname @tunnels drop
  }
  chain from_node {
    type filter hook output priority filter; policy accept;
    oifname @tunnels drop
  }
}
${elements.join('\n')}
`;
}
