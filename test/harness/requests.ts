/** One raw request to an engine, over TCP or a unix socket, with all of its answer; hijacked streams included. */
import http from 'node:http';
import type {Duplex} from 'node:stream';

export type Endpoint = {socketPath: string} | {host: string; port: number};
export interface Sent {
  method: string;
  path: string;
  headers?: Record<string, string>;
  body?: string | Buffer;
  /** Sent behind the head of a hijacked stream, whose other end follows. */
  stdin?: string;
  /** Hang up once this is true of what has come: streams without an end. */
  enough?(body: string): boolean;
  timeoutMs?: number;
}

/** Status of a request that was not answered in time. */
const UNANSWERED = 0;
export interface Received { status: number; headers: http.IncomingHttpHeaders; body: Buffer; /** The connection was cut before its end. */ cut?: true }

export function send(endpoint: Endpoint, {method, path, headers, body, stdin, enough, timeoutMs = 60_000}: Sent): Promise<Received> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    const req = http.request({...endpoint, method, path, agent: false, headers: {...(stdin === undefined ? {} : {Connection: 'Upgrade', Upgrade: 'tcp'}), ...(body === undefined ? {} : {'Content-Length': String(Buffer.byteLength(body))}), ...headers}});
    const timer = setTimeout(() => {
      resolve({status: UNANSWERED, headers: {}, body: Buffer.concat(chunks), cut: true});
      req.destroy();
    }, timeoutMs);
    const collect = (res: http.IncomingMessage, stream: NodeJS.ReadableStream & {destroy(): unknown}): void => {
      const done = (cut?: true): void => {
        clearTimeout(timer);
        resolve({status: res.statusCode!, headers: res.headers, body: Buffer.concat(chunks), ...(cut ? {cut} : {})});
      };
      stream.on('data', (chunk: Buffer) => {
        chunks.push(chunk);
        if (!enough?.(Buffer.concat(chunks).toString())) return;
        stream.destroy();
        done();
      });
      stream.on('end', () => done()).on('error', () => done(true));
    };
    req.on('response', (res) => collect(res, res));
    req.on('upgrade', (res, socket: Duplex, head: Buffer) => {
      if (head.length) chunks.push(head);
      collect(res, socket);
      socket.end(stdin);
    });
    req.on('error', (err) => {
      clearTimeout(timer);
      reject(err);
    });
    req.end(body);
  });
}
