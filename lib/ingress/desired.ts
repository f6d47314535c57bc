/**
 * Which ports an endpoint opens, and where each leads: from the leases of ports, in whatever order they come. Pure.
 *
 * A listener is known by what it listens on (`tcp/0.0.0.0/8080`), not by who is behind it: a container that moves, or another one that takes the port over, changes where
 * it leads and never closes it.
 */
import type {Publication} from '../datacenter/verbs';

export interface Place { protocol: 'tcp' | 'udp'; address: string; port: number }

/** `node`: to the port that the node has open, at `host`. `agent`: through the node's agent, for what the node opens to nobody, or to its own loopback only. */
export type Way = {kind: 'node'; host: string} | {kind: 'agent'};
export interface Target { publication: Publication; way: Way }
export interface Wanted { place: Place; target: Target }

/** What an endpoint knows of where it is. */
export interface Here {
  /** Of this machine. */
  addresses: ReadonlySet<string>;
  /** Where a node is reached; undefined: it is on this machine, behind a unix socket. null: nobody knows the node. */
  hostOf(nodeId: string): string | undefined | null;
}

export const ANY = '0.0.0.0';
const isAny = (address: string): boolean => address === '' || address === ANY || address === '::';
const isLoopback = (address: string): boolean => address.startsWith('127.');

export function placeOf({protocol, hostIp, hostPort}: Publication): Place {
  return {protocol, address: isAny(hostIp) ? ANY : hostIp, port: hostPort};
}
export function placeKey({protocol, address, port}: Place): string {
  return `${protocol}/${address}/${port}`;
}

/** undefined: nothing is to be opened here for it. */
export function wantedFor(publication: Publication, here: Here): Wanted | undefined {
  const {atEndpoints, nodeId} = publication;
  const place = placeOf(publication);
  const {address} = place;
  // IPv6 is nobody's yet; what is to be had at one address is another endpoint's, or a node's own.
  if (address.includes(':')) return undefined;
  if (!isAny(address) && !isLoopback(address) && (!atEndpoints || !here.addresses.has(address))) return undefined;
  if (atEndpoints) return {place, target: {publication, way: {kind: 'agent'}}};
  const host = here.hostOf(nodeId);
  // The node has it open on this very machine.
  if (host === null || host === undefined || here.addresses.has(host) || isLoopback(host)) return undefined;
  return {place, target: {publication, way: isLoopback(address) ? {kind: 'agent'} : {kind: 'node', host}}};
}

/** Would a connection that was made to the one be wrong at the other? */
export function sameTarget(a: Target, b: Target): boolean {
  const [p, q] = [a.publication, b.publication];
  return p.containerId === q.containerId && p.containerPort === q.containerPort && p.nodeId === q.nodeId && p.proxyProtocol === q.proxyProtocol
    && a.way.kind === b.way.kind && (a.way.kind !== 'node' || b.way.kind !== 'node' || a.way.host === b.way.host);
}

/** The leases there are, by place. Of two that claim one place (an earlier version's, which were per node) the first key has it. */
export class Desired {
  private readonly rows = new Map<string, Publication>();
  private readonly places = new Map<string, Set<string>>();

  /** Answers the places that are to be looked at again. */
  put(key: string, publication: Publication): string[] {
    const before = this.drop(key);
    const place = placeKey(placeOf(publication));
    this.rows.set(key, publication);
    this.places.set(place, (this.places.get(place) ?? new Set()).add(key));
    return [...new Set([...before, place])];
  }

  drop(key: string): string[] {
    const publication = this.rows.get(key);
    if (!publication) return [];
    this.rows.delete(key);
    const place = placeKey(placeOf(publication));
    const keys = this.places.get(place)!;
    keys.delete(key);
    if (keys.size === 0) this.places.delete(place);
    return [place];
  }

  all(): IterableIterator<string> { return this.places.keys(); }

  at(place: string, here: Here): Wanted | undefined {
    const [first] = [...this.places.get(place) ?? []].sort();
    return first === undefined ? undefined : wantedFor(this.rows.get(first)!, here);
  }
}

export type Action = {kind: 'open'; wanted: Wanted} | {kind: 'lead'; target: Target} | {kind: 'close'} | {kind: 'none'};

/** What is to be done at one place. `open`: where the listener there leads, undefined where there is none. */
export function decide(open: Target | undefined, wanted: Wanted | undefined): Action {
  if (!open) return wanted ? {kind: 'open', wanted} : {kind: 'none'};
  if (!wanted) return {kind: 'close'};
  return sameTarget(open, wanted.target) ? {kind: 'none'} : {kind: 'lead', target: wanted.target};
}
