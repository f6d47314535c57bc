/**
 * Where an endpoint may listen. Whoever reaches the Docker API without TLS is root on every node, so only this machine may: loopback
 * addresses and unix sockets. lib/main refuses to start otherwise; createDockerServer refuses as well, so that no wiring can forget it.
 */
import {BlockList, isIP} from 'node:net';
import {CetusError} from '../base/errors';

export type ListenAddress = {host: string; port: number} | {path: string};

const loopback = new BlockList();
loopback.addSubnet('127.0.0.0', 8, 'ipv4');
loopback.addAddress('::1', 'ipv6');

export function isLoopback(host: string): boolean {
  const bare = host.replace(/^\[(.*)\]$/, '$1');
  if (bare.toLowerCase() === 'localhost') return true;
  const family = isIP(bare);
  return family !== 0 && loopback.check(bare, family === 4 ? 'ipv4' : 'ipv6');
}

export function requireTlsUnlessLoopback(address: ListenAddress, hasTls: boolean): void {
  if (hasTls || 'path' in address || isLoopback(address.host)) return;
  throw new CetusError('forbidden', `refusing to listen on ${address.host || 'all addresses'} without TLS: only loopback addresses and unix sockets may be served in the clear`);
}
