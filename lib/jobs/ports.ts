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
  /** Where the search for a free port begins, 0..1: spreads processes that ask at the same time. */
  start: number;
  /** For the text. */
  endpoint: {name: string; id: string};
}

export function choosePorts(question: PortQuestion): PublishedPort[] {
  const held = [...question.held];
  return question.requested.map((port) => {
    const hostPort = port.hostPort || freePort(port, held, question);
    const published: PublishedPort = {...port, hostPort};
    if (held.some((h) => collide(h, published))) throw taken(published, question.endpoint);
    held.push(published);
    return published;
  });
}

function freePort(port: RequestedPort, held: PortQuestion['held'], {ephemeral, start, endpoint}: PortQuestion): number {
  const count = ephemeral.to - ephemeral.from + 1;
  const offset = Math.floor(start * count) % count;
  for (let n = 0; n < count; n += 1) {
    const hostPort = ephemeral.from + (offset + n) % count;
    if (!held.some((h) => collide(h, {...port, hostPort}))) return hostPort;
  }
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

export function portKey(nodeId: string, port: Pick<PublishedPort, 'protocol' | 'hostIp' | 'hostPort'>): string {
  return `${nodeId}/${port.protocol}/${isWildcard(port.hostIp) ? '0.0.0.0' : port.hostIp}/${port.hostPort}`;
}
