/**
 * Ports that a test names itself. Below those that the kernel hands out (/proc/sys/net/ipv4/ip_local_port_range begins at 32768), so that no
 * connection of anybody takes one between our look and its use, as happens to a port that listening on 0 has brought.
 */
import net from 'node:net';

const LOWEST = 20_000;
const HIGHEST = 30_000;
/** Two looks before either is used would else find the same one free. */
const given = new Set<number>();

export function freePort(): Promise<number> {
  return freePorts(1);
}

/** The first of `count` neighbours that are all free. */
export async function freePorts(count: number): Promise<number> {
  for (let first = LOWEST + Math.floor(Math.random() * (HIGHEST - LOWEST)); ; first += count) {
    const free = await Promise.all(Array.from({length: count}, (_, i) => new Promise<boolean>((resolve) => {
      const server = net.createServer().once('error', () => resolve(false)).listen(first + i, '0.0.0.0', () => server.close(() => resolve(true)));
    })));
    if (!free.every(Boolean) || free.some((_, i) => given.has(first + i))) continue;
    for (let i = 0; i < count; i += 1) given.add(first + i);
    return first;
  }
}
