/**
 * Listen addresses as people write them: 127.0.0.1:2375, tcp://[::1]:2375, localhost:0, unix:///path. An address that others can
 * reach is refused without TLS: an open Docker endpoint is root on every node for whoever finds it.
 */
import {CetusError} from '../base/errors';
import {isLoopback} from '../base/loopback';

/** Where an agent of a fleet listens unless told. */
export const AGENT_PORT = 7444;

export type ListenAddress = {kind: 'tcp'; host: string; port: number} | {kind: 'unix'; path: string};

export function parseListen(text: string): ListenAddress {
  if (text.startsWith('unix://')) {
    const path = text.slice('unix://'.length);
    if (!path.startsWith('/')) throw new CetusError('invalid', `listen address ${text}: the socket's path must be absolute`);
    // sun_path is 108 bytes with its terminating zero.
    if (Buffer.byteLength(path) > 107) throw new CetusError('invalid', `listen address ${text}: a socket's path has at most 107 bytes`);
    return {kind: 'unix', path};
  }
  const match = /^(?:tcp:\/\/)?(\[[0-9a-f:.]+\]|[^:/[\]]*):(\d{1,5})$/i.exec(text);
  if (!match) throw new CetusError('invalid', `listen address ${text}: expected HOST:PORT, tcp://HOST:PORT or unix:///PATH`);
  const host = match[1].replace(/^\[|\]$/g, '') || '0.0.0.0';
  const port = Number(match[2]);
  if (port > 65535) throw new CetusError('invalid', `listen address ${text}: port ${port} is above 65535`);
  return {kind: 'tcp', host, port};
}

/** Where others go to reach it: from elsewhere, every address of ours is none. `own`: how they reach this machine. */
export function reachableHost(host: string, own: string): string {
  const name = host === '0.0.0.0' || host === '::' ? own : host;
  return name.includes(':') ? `[${name}]` : name;
}

export function requireSafe(address: ListenAddress, tls: boolean): void {
  if (tls || address.kind === 'unix' || isLoopback(address.host)) return;
  throw new CetusError('forbidden', `refusing to listen on ${formatListen(address)} without TLS: anybody who can reach it would own every node. `
    + 'Give --tls-cert, --tls-key and --tls-ca, or listen on 127.0.0.1 or a unix socket.');
}

export function formatListen(address: ListenAddress): string {
  if (address.kind === 'unix') return `unix://${address.path}`;
  return `tcp://${address.host.includes(':') ? `[${address.host}]` : address.host}:${address.port}`;
}
