/**
 * Raw streams on an HTTP connection. Guarantees for `POST .../attach`, `POST /exec/ID/start`, `POST /session` and `POST /grpc` (and hands over
 * `GET .../attach/ws` where it asks for a WebSocket, see websocket.ts), with and without an Upgrade header, with
 * any kind of body, on fresh and on kept-alive connections, over TCP, TLS and unix sockets:
 *  - the socket is handed over whole: no byte that the client sent behind its request head (or body) is lost or parsed as HTTP;
 *  - the client's FIN is the end of stdin only; output flows on; a client that is gone altogether is noticed (base/hang-up.ts);
 *  - both directions have backpressure, nothing is buffered beyond the streams' high-water marks.
 * Requests that are not hijacked answer normally even where they ask for an upgrade (curl --http2 asks on every call).
 *
 * How: Node hands a socket over whole only for requests that it takes for an upgrade. `claimHijacks` makes that decision ours, by
 * wrapping the parser's own `onIncoming` of each connection; README.md tells what was tried instead.
 */
import type {IncomingMessage} from 'node:http';
import type {Socket} from 'node:net';
import type {Duplex} from 'node:stream';
import {TLSSocket} from 'node:tls';
import {CetusError} from '../base/errors';
import {Unframer, framingOf} from '../base/framing';
import {noticeHangUp} from '../base/hang-up';
import {asksForWebSocket} from './websocket';

const BODY_DEADLINE_MS = 30_000;
/** How long a socket may linger after our last byte, so that the client reads it before a reset can overtake it. */
const LINGER_MS = 5_000;
const WEBSOCKET = /^(\/v[0-9.]+)?\/containers\/[^/]+\/attach\/ws(\?.*)?$/;
/** Tars into containers, where they are long: their bytes need not come through this process (raw-body.ts). Short ones keep their connection alive. */
const ARCHIVE = /^(\/v[0-9.]+)?\/containers\/[^/]+\/archive(\?.*)?$/;
const LONG_BODY_BYTES = 1024 * 1024;
const HIJACKED = /^(\/v[0-9.]+)?\/(containers\/[^/]+\/attach|exec\/[^/]+\/start|session|grpc)(\?.*)?$/;

interface ParserSocket extends Socket {
  parser?: {onIncoming?: (req: IncomingMessage, keepAlive: boolean) => number} | null;
  _httpMessage?: unknown;
}

/** llhttp's answer "no body follows, the rest of this connection is another protocol". */
const ANOTHER_PROTOCOL = 2;

/** To be called for every new connection, after Node has set up its parser (that is: from a later 'connection' listener). */
export function claimHijacks(socket: Socket): void {
  const {parser} = socket as ParserSocket;
  const original = parser?.onIncoming;
  if (!parser || !original) throw new CetusError('internal', 'this version of Node.js has no parser.onIncoming: hijacked streams would not work');
  parser.onIncoming = (req, keepAlive) => {
    const hijack = (req.method === 'POST' && HIJACKED.test(req.url ?? '')) || (req.method === 'GET' && WEBSOCKET.test(req.url ?? '') && asksForWebSocket(req));
    // With an answer still owed on this connection (pipelining) there is no moment at which the socket could be ours.
    if (hijack && (socket as ParserSocket)._httpMessage) {
      socket.destroy();
      return ANOTHER_PROTOCOL;
    }
    const taken = hijack || (isLongArchive(req) && !(socket instanceof TLSSocket) && !(socket as ParserSocket)._httpMessage);
    (req as {upgrade?: boolean}).upgrade = taken;
    const verdict = original(req, keepAlive);
    return taken ? ANOTHER_PROTOCOL : verdict;
  };
}

function isLongArchive({method, url, headers}: IncomingMessage): boolean {
  if (method !== 'PUT' || !ARCHIVE.test(url ?? '')) return false;
  const framing = framingOf(headers);
  return framing?.kind === 'chunked' || (framing !== undefined && framing.left > LONG_BODY_BYTES);
}

/** Reads the request body off a hijacked socket, and gives back what came behind it. */
export async function readRawBody(req: IncomingMessage, socket: Socket, limitBytes: number): Promise<Buffer> {
  const framing = framingOf(req.headers);
  if (!framing) return Buffer.alloc(0);
  if (framing.kind === 'sized' && framing.left > limitBytes) throw tooLarge(limitBytes);
  welcome(req, socket);

  const unframer = new Unframer(framing);
  const pieces: Buffer[] = [];
  let size = 0;
  const timer = setTimeout(() => socket.destroy(new CetusError('timeout', 'the request body did not arrive in time')), BODY_DEADLINE_MS);
  try {
    await new Promise<void>((resolve, reject) => {
      const settle = (err?: unknown): void => {
        socket.off('readable', take).off('end', ended).off('close', ended).off('error', settle);
        if (err) reject(err as Error);
        else resolve();
      };
      const ended = (): void => settle(new CetusError('invalid', 'invalid JSON: unexpected EOF'));
      const take = (): void => {
        try {
          for (let chunk = socket.read() as Buffer | null; chunk !== null; chunk = socket.read() as Buffer | null) {
            const piece = chunk.subarray(0, unframer.take(chunk, 0, chunk.length));
            pieces.push(piece);
            if ((size += piece.length) + unframer.left > limitBytes) throw tooLarge(limitBytes);
            if (!unframer.done) continue;
            settle();
            if (unframer.spent < chunk.length) socket.unshift(chunk.subarray(unframer.spent));
            return;
          }
        } catch (err) {
          settle(err);
        }
      };
      socket.on('readable', take).on('end', ended).on('close', ended).on('error', settle);
      take();
    });
  } finally {
    clearTimeout(timer);
  }
  return Buffer.concat(pieces, size);
}

/** Whoever waits to be asked for a body is asked. */
export function welcome(req: IncomingMessage, socket: Socket): void {
  if (/100-continue/i.test(String(req.headers.expect ?? ''))) socket.write('HTTP/1.1 100 Continue\r\n\r\n');
}

const tooLarge = (limit: number): CetusError => new CetusError('invalid', `request body is larger than ${limit} bytes`);

/**
 * Joins a client's socket and a container's stream until both directions have ended or one side broke. Never throws: a client that
 * leaves is the normal end of an attach.
 */
export function joinStreams(socket: Socket, stream: Duplex): Promise<void> {
  return new Promise((resolve) => {
    let done = false;
    const finish = (): void => {
      if (done) return;
      done = true;
      if (!stream.destroyed) stream.destroy();
      resolve();
    };
    // The errors of either side end both; they carry nothing that could still be told to the client.
    socket.on('error', finish).once('close', finish);
    stream.on('error', () => { closeGently(socket); }).once('close', () => { closeGently(socket); });
    stream.pipe(socket, {end: false});
    stream.once('end', () => { closeGently(socket); });
    socket.pipe(stream, {end: true});
    // Output may still flow after stdin was refused: the rest of the client's bytes is read and dropped, as the Engine does.
    stream.once('finish', () => { socket.unpipe(stream); socket.resume(); });
    noticeHangUp(socket);
  });
}

/** FIN after the last byte; then a bounded time in which the client's remaining bytes are dropped unread. */
export function closeGently(socket: Socket): void {
  if (socket.destroyed || socket.writableEnded) return;
  socket.unpipe();
  socket.resume();
  // Counted from the moment the kernel has our last byte: a slow reader loses nothing, a client without a FIN does not stay for ever.
  socket.end(() => {
    const timer = setTimeout(() => socket.destroy(), LINGER_MS);
    timer.unref();
    socket.once('close', () => clearTimeout(timer));
  });
}
