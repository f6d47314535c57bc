/** Whether a host is this machine and nobody else's: what may be served, or asked, without TLS. One rule for endpoints, operators and registries. */
import {BlockList, isIP} from 'node:net';

const loopback = new BlockList();
// Addresses of IPv4 written as IPv6 (::ffff:127.0.0.1) are found by it too.
loopback.addSubnet('127.0.0.0', 8, 'ipv4');
loopback.addAddress('::1', 'ipv6');

/** `host`: an address, in brackets or not, or a name; of names only `localhost` is one, whatever others resolve to today. */
export function isLoopback(host: string): boolean {
  const bare = host.replace(/^\[(.*)\]$/, '$1');
  if (bare.toLowerCase() === 'localhost') return true;
  const family = isIP(bare);
  return family !== 0 && loopback.check(bare, family === 4 ? 'ipv4' : 'ipv6');
}
