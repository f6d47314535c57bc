/**
 * The nftables rules of one agent instance: one table, fixed chains, and everything that changes kept in sets and maps, so that a container
 * costs elements and never a rule, and a packet costs a look-up and never a walk. Pure: text out, nothing executed.
 */
import type {NodeNetwork} from '../../schema/agent';
import {UNDERLAY_PORT} from '../../schema/node';
import {optionsOf} from './names';
import {isAnyAddress, type HostPort} from './ports';
import {bridgeTableText, peerCommands, type TunnelsView, underlayRules} from './tunnel';

/** A published port and the container's address and port behind it. */
export interface Publication extends HostPort { address: string; containerPort: number }
/** Where questions to a network's gateway, port 53, are answered: at a port of ours, so that 53 stays free for whoever publishes it. */
export interface Resolver { bridgeName: string; gateway: string; protocol: 'udp' | 'tcp'; port: number }
export interface RulesView { networks: NodeNetwork[]; publications: Publication[]; resolvers: Resolver[]; /** Absent: networks end at the node. */ tunnels?: TunnelsView | undefined }

interface Element { set: string; key: string; value?: string }

function networkElements(network: NodeNetwork): Element[] {
  const {icc, masquerade} = optionsOf(network);
  const bridge = `"${network.bridgeName}"`;
  return [
    {set: 'bridges', key: bridge},
    ...(icc ? [{set: 'same', key: `${bridge} . ${bridge}`}] : []),
    ...(network.internal ? [{set: 'internal', key: bridge}] : []),
    ...(masquerade && !network.internal ? [{set: 'masqueraded', key: network.subnet}] : []),
    {set: 'hairpin', key: `${network.subnet} . ${network.subnet}`},
  ];
}

function publicationElement(p: Publication): Element {
  const value = `${p.address} . ${p.containerPort}`;
  return isAnyAddress(p.hostIp)
    ? {set: 'published', key: `${p.protocol} . ${p.hostPort}`, value}
    : {set: 'published_at', key: `${p.hostIp} . ${p.protocol} . ${p.hostPort}`, value};
}

function resolverElement(r: Resolver): Element {
  return {set: 'resolvers', key: `"${r.bridgeName}" . ${r.gateway} . ${r.protocol} . 53`, value: `${r.gateway} . ${r.port}`};
}

function command(verb: 'add' | 'delete', table: string, element: Element): string {
  const content = verb === 'add' && element.value ? `${element.key} : ${element.value}` : element.key;
  return `${verb} element ip ${table} ${element.set} { ${content} }`;
}

export function networkCommands(verb: 'add' | 'delete', table: string, network: NodeNetwork): string[] {
  return networkElements(network).map(element => command(verb, table, element));
}

export function publicationCommands(verb: 'add' | 'delete', table: string, publications: Publication[]): string[] {
  return publications.map(p => command(verb, table, publicationElement(p)));
}

export function resolverCommands(verb: 'add' | 'delete', table: string, resolvers: Resolver[]): string[] {
  return resolvers.map(r => command(verb, table, resolverElement(r)));
}

/** The whole table, and that of the tunnels where there are some, replaced in one transaction: no packet sees it half made. */
export function tableText(table: string, view: RulesView): string {
  const elements = [...view.networks.flatMap(networkElements), ...view.publications.map(publicationElement), ...view.resolvers.map(resolverElement)];
  const underlay = view.tunnels ? underlayRules(view.tunnels.underlay) : {sets: '', chains: '', forwarding: ''};
  const peers = view.tunnels ? peerCommands('add', table, [...view.tunnels.remotes.map(({remote}) => remote), {node: view.tunnels.underlay.address, port: view.tunnels.underlay.port ?? UNDERLAY_PORT}]) : [];
  return `table ip ${table}
delete table ip ${table}
table ip ${table} {
  set bridges { type ifname; }
  set same { type ifname . ifname; }
  set internal { type ifname; }
  set masqueraded { type ipv4_addr; flags interval; }
  map resolvers { type ifname . ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }
  set hairpin { type ipv4_addr . ipv4_addr; flags interval; }
  map published { type inet_proto . inet_service : ipv4_addr . inet_service; }
  map published_at { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }${underlay.sets}

  # route_localnet lets 127.0.0.1 reach published ports; a container must not reach the host's loopback the same way.
  chain guard {
    type filter hook prerouting priority raw; policy accept;
    iifname @bridges ip daddr 127.0.0.0/8 drop
  }${underlay.chains}
  chain publish {
    meta l4proto { tcp, udp, sctp } dnat ip to ip daddr . meta l4proto . th dport map @published_at
    meta l4proto { tcp, udp, sctp } dnat ip to meta l4proto . th dport map @published
  }
  chain arriving {
    type nat hook prerouting priority dstnat; policy accept;
    # Whoever publishes port 53 does not become the resolver of every container.
    meta l4proto { tcp, udp } dnat ip to iifname . ip daddr . meta l4proto . th dport map @resolvers
    fib daddr type local jump publish
  }
  chain local {
    type nat hook output priority -100; policy accept;
    fib daddr type local jump publish
  }
  chain leaving {
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr @masqueraded oifname != @bridges masquerade
    ip saddr . ip daddr @hairpin ct status dnat masquerade
    ip saddr 127.0.0.0/8 oifname @bridges masquerade
  }
  # A published port may be reached from everywhere, also from another bridge; anything else does not cross.
  chain forwarding {
    type filter hook forward priority filter; policy accept;${underlay.forwarding}
    ct state established,related accept
    iifname . oifname @same accept
    iifname @internal drop
    oifname @bridges ct status dnat accept
    oifname @bridges drop
  }
}
${[...elements.map(element => command('add', table, element)), ...peers].join('\n')}
${bridgeTableText(table, view.tunnels)}`;
}
