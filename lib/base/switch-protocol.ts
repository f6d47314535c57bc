/**
 * A protocol switch on a node, as the one who asks: a POST with an Upgrade over a connection made for it, and the raw duplex behind the 101.
 * Half-open both ways where `socket` is: the end of one direction leaves the other as it is. undici's upgrade does not offer that, hence
 * node:http. What was refused rejects with the other side's own error; the rest in the caller's words.
 */
import http from 'node:http';
import type {Socket} from 'node:net';
import type {Duplex} from 'node:stream';
import {CetusError, fromWire} from './errors';

const MAX_ERROR_BYTES = 64 * 1024;

export interface SwitchRequest {
  /** Connecting, or connected. Destroyed where the switch fails. */
  socket: Socket;
  path: string;
  host?: string;
  protocol: string;
  headers?: Record<string, string | string[]>;
  deadlineMs: number;
  timedOut(): CetusError;
  /** It answered, and neither switched nor refused. */
  notSwitched(): CetusError;
  failed(err: unknown): CetusError;
  /** The error in a refusal's body; where nothing is said, a WireError's. */
  refused?(status: number, body: string): CetusError;
}

export function switchProtocol(ask: SwitchRequest): Promise<Duplex> {
  return new Promise((resolve, reject) => {
    const {socket, refused = (_status, body) => fromWire(parse(body))} = ask;
    const request = http.request({
      method: 'POST', path: ask.path, host: ask.host, createConnection: () => socket,
      headers: {...ask.headers, connection: 'Upgrade', upgrade: ask.protocol, 'content-length': '0'},
    });
    const fail = (err: CetusError): void => {
      clearTimeout(timer);
      request.destroy();
      socket.destroy();
      reject(err);
    };
    const timer = setTimeout(() => fail(ask.timedOut()), ask.deadlineMs);
    request.on('upgrade', (_answer, upgraded, head) => {
      clearTimeout(timer);
      if (head.length) upgraded.unshift(head);
      (upgraded as Socket).setNoDelay(true);
      resolve(upgraded);
    });
    request.on('response', answer => {
      collect(answer).then(text => fail(answer.statusCode! >= 400 ? refused(answer.statusCode!, text) : ask.notSwitched()), (err: unknown) => fail(ask.failed(err)));
    });
    request.on('error', err => fail(ask.failed(err)));
    request.end();
  });
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
