/**
 * Host ports of one node: which are free, and the Engine's words where one is not. Pure. The lease's key (node, protocol, address, port) keeps
 * two from the same port; a wildcard against a single address is seen here, and in a race by the node, which refuses to bind twice.
 */
import {CetusError} from '../base/errors';
import type {PublishedPort, RequestedPort} from '../schema/container';
import type {PortLease} from '../schema/objects';

export interface PortQuestion {
  requested: readonly RequestedPort[];
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
    const {protocol, containerPort, hostIp} = port;
    const published: PublishedPort = {protocol, containerPort, hostIp, hostPort: port.hostPort || freePort(port, held, question)};
    if (held.some((h) => collide(h, published))) throw taken(published, question.endpoint);
    held.push(published);
    return published;
  });
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
    if (!shunned?.has(hostKey({...port, hostPort}))) return hostPort;
    second ??= hostPort;
  }
  if (second !== undefined) return second;
  throw new CetusError('internal', `driver failed programming external connectivity on endpoint ${endpoint.name} (${endpoint.id}): all ports are allocated`);
}

function collide(a: PortQuestion['held'][number], b: PortQuestion['held'][number]): boolean {
  return a.hostPort === b.hostPort && a.protocol === b.protocol && (isWildcard(a.hostIp) || isWildcard(b.hostIp) || a.hostIp === b.hostIp);
}

function isWildcard(hostIp: string): boolean {
  return hostIp === '' || hostIp === '0.0.0.0' || hostIp === '::';
}

function taken(port: PublishedPort, endpoint: {name: string; id: string}): CetusError {
  const hostIp = port.hostIp || '0.0.0.0';
  return new CetusError('internal', `driver failed programming external connectivity on endpoint ${endpoint.name} (${endpoint.id}): `
    + `Bind for ${hostIp.includes(':') ? `[${hostIp}]` : hostIp}:${port.hostPort} failed: port is already allocated`, {info: {hostIp, hostPort: port.hostPort, protocol: port.protocol}});
}

/** "tcp/0.0.0.0/8080": a port within its node, also in the `port` of the node's refusals. */
function hostKey(port: Pick<PublishedPort, 'protocol' | 'hostIp' | 'hostPort'>): string {
  return `${port.protocol}/${isWildcard(port.hostIp) ? '0.0.0.0' : port.hostIp}/${port.hostPort}`;
}

export function portKey(nodeId: string, port: Pick<PublishedPort, 'protocol' | 'hostIp' | 'hostPort'>): string {
  return `${nodeId}/${hostKey(port)}`;
}

/** In `recent`: ports of a node that it could not bind a moment ago, because a foreign program holds them. */
export function refusedPorts(nodeId: string): string {
  return `refused-ports:${nodeId}`;
}
