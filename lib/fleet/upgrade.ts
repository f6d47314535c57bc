/**
 * The protocol switch of attach and exec: a raw duplex to the agent, half-open both ways. The caller's end() reaches the agent as the end of
 * stdin while output goes on; the agent's end of output leaves the caller's side writable until it ends it. undici's upgrade does not offer
 * allowHalfOpen, hence node:http with a connection made here.
 */
import http from 'node:http';
import net from 'node:net';
import tls from 'node:tls';
import type {Duplex} from 'node:stream';
import {CetusError, fromWire, INTERNAL} from '../base/errors';
import {type AgentAddress, type AgentTls, unreachableNode} from './address';

const MAX_ERROR_BYTES = 64 * 1024;

export function upgrade(address: AgentAddress, certificates: AgentTls | undefined, path: string, node: string, deadlineMs: number): Promise<Duplex> {
  return new Promise((resolve, reject) => {
    const socket = connect(address, certificates);
    const request = http.request({
      method: 'POST', path, host: address.host, createConnection: () => socket,
      headers: {connection: 'Upgrade', upgrade: 'cetus-stream', 'content-length': '0'},
    });
    const timer = setTimeout(() => fail(new CetusError('timeout', `node ${node} did not answer ${path} within ${deadlineMs} ms`, {shown: `node ${node} did not answer within ${deadlineMs / 1000} s`})), deadlineMs);
    const fail = (err: CetusError): void => {
      clearTimeout(timer);
      request.destroy();
      socket.destroy();
      reject(err);
    };
    request.on('upgrade', (_answer, upgraded, head) => {
      clearTimeout(timer);
      if (head.length) upgraded.unshift(head);
      (upgraded as net.Socket).setNoDelay(true);
      resolve(upgraded);
    });
    request.on('response', answer => {
      collect(answer).then(
        text => fail(answer.statusCode! >= 400 ? fromWire(parse(text)) : new CetusError('internal', `node ${node} did not switch protocols for ${path}`, {shown: INTERNAL})),
        (err: unknown) => fail(unreachableNode(node, err)),
      );
    });
    request.on('error', err => fail(unreachableNode(node, err)));
    request.end();
  });
}

function connect(address: AgentAddress, certificates: AgentTls | undefined): net.Socket {
  if (address.socketPath !== undefined) return net.connect({path: address.socketPath, allowHalfOpen: true});
  // Documented for tls.connect and missing in its types.
  const halfOpen = {allowHalfOpen: true} as tls.ConnectionOptions;
  return tls.connect({host: address.host, port: address.port, servername: net.isIP(address.host) ? '' : address.host, ...certificates, ...halfOpen});
}

async function collect(answer: http.IncomingMessage): Promise<string> {
  let text = '';
  for await (const chunk of answer.setEncoding('utf8') as AsyncIterable<string>) {
    text += chunk;
    if (text.length > MAX_ERROR_BYTES) break;
  }
  return text;
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
