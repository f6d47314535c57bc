/**
 * Host ports of the datacenter: which are free, and the Engine's words where one is not. Pure. The lease's key (protocol, address, port) keeps two from the
 * same port, on whichever nodes they are; a wildcard against a single address is seen here, and in a race by what both write beside their leases (publish.ts).
 */
import {CetusError} from '../base/errors';
import type {PublishedPort, RequestedPort} from '../schema/container';
import type {PortLease} from '../schema/objects';

export interface PortQuestion {
  requested: readonly RequestedPort[];
  /** What it had where it comes from: kept where it was ours to choose. */
  before?: readonly PublishedPort[];
  held: readonly Pick<PortLease, 'protocol' | 'hostIp' | 'hostPort'>[];
  ephemeral: {from: number; to: number};
  /** Keys of ports that a foreign program held a moment ago: the last ones that are tried where there is a choice. */
  shunned?: ReadonlySet<string>;
  /** Where the search for a free port begins, 0..1: spreads processes that ask at the same time. */
  start: number;
  /** For the text. */
  endpoint: {name: string; id: string};
}

export function choosePorts(question: PortQuestion): PublishedPort[] {
  const held = [...question.held];
  return question.requested.map((port) => {
    const {protocol, containerPort, hostIp, proxyProtocol} = port;
    const hostPort = port.hostPort || formerPort(port, held, question) || freePort(port, held, question);
    const published: PublishedPort = {protocol, containerPort, hostIp, hostPort, ...(proxyProtocol ? {proxyProtocol} : {})};
    if (held.some((h) => collide(h, published))) throw taken(published, question.endpoint);
    held.push(published);
    return published;
  });
}

function formerPort(port: RequestedPort, held: PortQuestion['held'], {before = []}: PortQuestion): number | undefined {
  return before.find((b) => b.protocol === port.protocol && b.containerPort === port.containerPort && b.hostIp === port.hostIp && !held.some((h) => collide(h, b)))?.hostPort;
}

/** A range that a person gave is used from its beginning, as the Engine does. */
function freePort(port: RequestedPort, held: PortQuestion['held'], {ephemeral, shunned, start, endpoint}: PortQuestion): number {
  const {from, to} = port.hostPortRange ?? ephemeral;
  const count = to - from + 1;
  const offset = port.hostPortRange ? 0 : Math.floor(start * count) % count;
  let second: number | undefined;
  for (let n = 0; n < count; n += 1) {
    const hostPort = from + (offset + n) % count;
    if (held.some((h) => collide(h, {...port, hostPort}))) continue;
    if (!shunned?.has(portKey({...port, hostPort}))) return hostPort;
    second ??= hostPort;
  }
  if (second !== undefined) return second;
  throw new CetusError('internal', `driver failed programming external connectivity on endpoint ${endpoint.name} (${endpoint.id}): all ports are allocated`);
}

export function collide(a: PortQuestion['held'][number], b: PortQuestion['held'][number]): boolean {
  return a.hostPort === b.hostPort && a.protocol === b.protocol && (isWildcard(a.hostIp) || isWildcard(b.hostIp) || a.hostIp === b.hostIp);
}

export function isWildcard(hostIp: string): boolean {
  return hostIp === '' || hostIp === '0.0.0.0' || hostIp === '::';
}

function taken(port: PublishedPort, endpoint: {name: string; id: string}): CetusError {
  const hostIp = port.hostIp || '0.0.0.0';
  return new CetusError('conflict', `driver failed programming external connectivity on endpoint ${endpoint.name} (${endpoint.id}): `
    + `Bind for ${hostIp.includes(':') ? `[${hostIp}]` : hostIp}:${port.hostPort} failed: port is already allocated`, {info: {hostIp, hostPort: port.hostPort, protocol: port.protocol}});
}

/** "tcp/0.0.0.0/8080": the lease's key, and the `port` of a node's refusals. */
export function portKey(port: Pick<PublishedPort, 'protocol' | 'hostIp' | 'hostPort'>): string {
  return `${port.protocol}/${isWildcard(port.hostIp) ? '0.0.0.0' : port.hostIp}/${port.hostPort}`;
}

/** What all addresses of a port have in common, "tcp/8080". */
export function numberKey(port: Pick<PublishedPort, 'protocol' | 'hostPort'>): string {
  return `${port.protocol}/${port.hostPort}`;
}

/**
 * Does its node open it? Not where endpoints write a header before what the client says, for whoever came another way would come without; nor where
 * the address is an endpoint's. An address that is nobody's is the node's to refuse, in the Engine's words. `endpointAddresses`: of endpoints on other machines.
 */
export function opensAtNode({hostIp, proxyProtocol}: PublishedPort, endpointAddresses: ReadonlySet<string>): boolean {
  return !proxyProtocol && (isWildcard(hostIp) || isLoopback(hostIp) || !endpointAddresses.has(hostIp));
}

export function namesAnAddress(hostIp: string): boolean {
  return !isWildcard(hostIp) && !isLoopback(hostIp);
}

function isLoopback(hostIp: string): boolean {
  return hostIp.startsWith('127.') || hostIp === '::1';
}

/** What a node is told of the ports that it opens. */
export function nodePorts(ports: readonly PublishedPort[]): PublishedPort[] {
  return ports.filter((p) => !p.atEndpoints).map(({protocol, containerPort, hostIp, hostPort}) => ({protocol, containerPort, hostIp, hostPort}));
}

/** In `recent`: ports of a node that it could not bind a moment ago, because a foreign program holds them. */
export function refusedPorts(nodeId: string): string {
  return `refused-ports:${nodeId}`;
}
