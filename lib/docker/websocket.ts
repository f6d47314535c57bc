/**
 * Attach over a WebSocket, for clients that cannot take a connection over (browsers' terminals, docker-py). Guarantees, as the Engine's:
 *  - output comes as it is, both streams in one, without Docker's frames; in binary messages for API 1.28 and newer, in text before;
 *  - what the client's messages hold is stdin, and its closing handshake the end of stdin;
 *  - backpressure both ways: output is read as the client takes it, and a client is not read while stdin takes nothing;
 *  - the end of the output is a closing handshake with status 1000.
 * What is not a WebSocket's handshake is refused before anything is attached, with an answer of HTTP.
 */
import type {IncomingMessage} from 'node:http';
import type {Socket} from 'node:net';
import type {Duplex} from 'node:stream';
import {StringDecoder} from 'node:string_decoder';
import {WebSocket, WebSocketServer} from 'ws';
import {CetusError} from '../base/errors';

/** The Engine's bound of a message. */
const MAX_MESSAGE_BYTES = 32 * 1024 * 1024;
const LINGER_MS = 5_000;
const KEEP_ALIVE_MS = 5_000;
const HEADER_BYTES = 8;
const KEY = /^[+/0-9A-Za-z]{22}==$/;
const PROTOCOL = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/;

const server = new WebSocketServer({noServer: true, clientTracking: false, perMessageDeflate: false, maxPayload: MAX_MESSAGE_BYTES, skipUTF8Validation: true});

/** Does the request ask for a WebSocket at all? */
export const asksForWebSocket = (req: Pick<IncomingMessage, 'headers'>): boolean => /\bwebsocket\b/i.test(req.headers.upgrade ?? '');

/** The handshake's own faults, in the words of the Engine's library. */
export function checkHandshake({headers}: Pick<IncomingMessage, 'headers'>): void {
  if (headers.upgrade?.toLowerCase() !== 'websocket') throw new CetusError('invalid', 'not websocket protocol');
  if (!/\bupgrade\b/i.test(headers.connection ?? '')) throw new CetusError('invalid', 'missing or bad upgrade');
  if (headers['sec-websocket-version'] !== '13' && headers['sec-websocket-version'] !== '8') throw new CetusError('invalid', 'missing or bad WebSocket Version');
  if (!KEY.test(headers['sec-websocket-key'] ?? '')) throw new CetusError('invalid', 'mismatch challenge/response');
  const protocols = headers['sec-websocket-protocol']?.split(',').map((protocol) => protocol.trim()) ?? [];
  if (new Set(protocols).size < protocols.length || !protocols.every((protocol) => PROTOCOL.test(protocol))) throw new CetusError('invalid', 'missing or bad WebSocket-Protocol');
}

/** Answers the handshake, which has been checked. The bytes behind the request head must be back in the socket. Rejects where nobody is there any more. */
export function acceptWebSocket(req: IncomingMessage, socket: Socket, headers: Record<string, string>): Promise<WebSocket> {
  return new Promise((resolve, reject) => {
    const add = (lines: string[], of: IncomingMessage): void => {
      if (of === req) lines.push(...Object.entries(headers).map(([name, value]) => `${name}: ${value}`));
    };
    server.on('headers', add);
    // Answered within the call: no other request comes in between.
    server.handleUpgrade(req, socket, Buffer.alloc(0), resolve);
    server.off('headers', add);
    // Said to none that has ended its side already, and then nothing is called back. Changes nothing where it was.
    reject(new CetusError('canceled', 'the client left'));
    // A peer that is gone without a word is found out by the kernel.
    socket.setKeepAlive(true, KEEP_ALIVE_MS);
  });
}

/** Joins a client's WebSocket and a container's stream until one side ends. Never throws: a client that leaves is the normal end of an attach. */
export async function joinWebSocket(ws: WebSocket, stream: Duplex, options: {binary: boolean; framed: boolean}): Promise<void> {
  const over = new Promise<void>((resolve) => ws.once('close', () => resolve()));
  ws.on('error', () => { /* 'close' follows */ });
  stream.on('error', () => { /* the reading below ends */ });
  ws.on('message', (data: Buffer) => {
    // What had arrived before the pause comes all the same, and may be thousands of messages.
    if (stream.writable && !stream.write(data) && !ws.isPaused) ws.pause();
  });
  stream.on('drain', () => ws.resume());
  stream.once('close', () => ws.resume());
  ws.once('close', (code) => {
    // Cut off, not closed: nobody has said that no stdin will follow.
    if (code === 1006) return void stream.destroy();
    stream.end();
    // Output that comes meanwhile is dropped; unread it would reset the connection, and overtake the last of stdin.
    const timer = setTimeout(() => stream.destroy(), LINGER_MS);
    stream.once('close', () => clearTimeout(timer));
  });
  await passOutput(ws, stream, options).catch(() => undefined);
  stream.destroy();
  ws.close(1000);
  const timer = setTimeout(() => ws.terminate(), LINGER_MS);
  await over;
  clearTimeout(timer);
}

async function passOutput(ws: WebSocket, stream: Duplex, {binary, framed}: {binary: boolean; framed: boolean}): Promise<void> {
  // Text must not be cut within a character, and the two streams are cut apart from each other.
  const decoders = [new StringDecoder('utf8'), new StringDecoder('utf8')] as const;
  const frames = new Unframer();
  for await (const chunk of stream as AsyncIterable<Buffer>) {
    const payloads = framed ? frames.take(chunk) : [{stream: 1, bytes: chunk}];
    for (const payload of payloads) await send(ws, binary ? payload.bytes : decoders[payload.stream === 2 ? 1 : 0].write(payload.bytes));
  }
}

/** Resolves when the kernel has it; to a client that has left nothing is sent. */
function send(ws: WebSocket, data: Buffer | string): Promise<void> {
  if (ws.readyState !== WebSocket.OPEN || data.length === 0) return Promise.resolve();
  return new Promise((resolve) => ws.send(data, () => resolve()));
}

/** Docker's frames taken off a stream, without waiting for the end of any. */
export class Unframer {
  private header = Buffer.alloc(0);
  private left = 0;
  private stream = 1;

  take(chunk: Buffer): {stream: number; bytes: Buffer}[] {
    const found: {stream: number; bytes: Buffer}[] = [];
    for (let rest = chunk; rest.length > 0;) {
      if (this.left === 0) {
        const missing = HEADER_BYTES - this.header.length;
        this.header = Buffer.concat([this.header, rest.subarray(0, missing)]);
        rest = rest.subarray(missing);
        if (this.header.length < HEADER_BYTES) break;
        this.stream = this.header[0]!;
        this.left = this.header.readUInt32BE(4);
        this.header = Buffer.alloc(0);
        continue;
      }
      const bytes = rest.subarray(0, this.left);
      this.left -= bytes.length;
      rest = rest.subarray(bytes.length);
      found.push({stream: this.stream, bytes});
    }
    return found;
  }
}
