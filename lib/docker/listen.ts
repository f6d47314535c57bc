/**
 * Where an endpoint may listen. Whoever reaches the Docker API without TLS is root on every node, so only this machine may: loopback
 * addresses and unix sockets. lib/main refuses to start otherwise; createDockerServer refuses as well, so that no wiring can forget it.
 */
import {CetusError} from '../base/errors';
import {isLoopback} from '../base/loopback';

export type ListenAddress = {host: string; port: number} | {path: string};

export function requireTlsUnlessLoopback(address: ListenAddress, hasTls: boolean): void {
  if (hasTls || 'path' in address || isLoopback(address.host)) return;
  throw new CetusError('forbidden', `refusing to listen on ${address.host || 'all addresses'} without TLS: only loopback addresses and unix sockets may be served in the clear`);
}
