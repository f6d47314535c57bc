/**
 * The protocol switch of attach and exec: a raw duplex to the agent, half-open both ways. The caller's end() reaches the agent as the end of
 * stdin while output goes on; the agent's end of output leaves the caller's side writable until it ends it.
 */
import net from 'node:net';
import tls from 'node:tls';
import type {Duplex} from 'node:stream';
import {CetusError, INTERNAL} from '../base/errors';
import {switchProtocol} from '../base/switch-protocol';
import {type AgentAddress, type AgentTls, clientTls, unreachableNode} from './address';

export function upgrade(address: AgentAddress, certificates: AgentTls | undefined, path: string, node: string, deadlineMs: number, headers: Record<string, string | string[]> = {}): Promise<Duplex> {
  return switchProtocol({
    socket: connect(address, certificates), path, host: address.host, protocol: 'cetus-stream', headers, deadlineMs,
    timedOut: () => new CetusError('timeout', `node ${node} did not answer ${path} within ${deadlineMs} ms`, {shown: `node ${node} did not answer within ${deadlineMs / 1000} s`}),
    notSwitched: () => new CetusError('internal', `node ${node} did not switch protocols for ${path}`, {shown: INTERNAL}),
    failed: (err) => unreachableNode(node, err),
  });
}

function connect(address: AgentAddress, certificates: AgentTls | undefined): net.Socket {
  if (address.socketPath !== undefined) return net.connect({path: address.socketPath, allowHalfOpen: true});
  // Documented for tls.connect and missing in its types.
  const halfOpen = {allowHalfOpen: true} as tls.ConnectionOptions;
  return tls.connect({host: address.host, port: address.port, servername: net.isIP(address.host) ? '' : address.host, ...(certificates && clientTls(certificates)), ...halfOpen});
}
