/** Rejects a node where a fixed host port is taken: same protocol, same port, and either address is a wildcard or both are equal. */
import type {PlacementRequest} from '../../schema/placement';
import type {NodeEntry} from '../node-entry';

const WILDCARDS: ReadonlySet<string> = new Set(['', '0.0.0.0', '::']);
export const portKey = (protocol: string, hostPort: number): string => `${protocol}/${hostPort}`;

export function takenPort(entry: NodeEntry, ports: PlacementRequest['ports']): string | undefined {
  for (const {protocol, hostIp, hostPort} of ports) {
    if (hostPort === 0) continue;
    const holders = entry.ports.get(portKey(protocol, hostPort));
    if (!holders) continue;
    if (WILDCARDS.has(hostIp) || holders.has(hostIp) || [...WILDCARDS].some((ip) => holders.has(ip))) return portKey(protocol, hostPort);
  }
  return undefined;
}
