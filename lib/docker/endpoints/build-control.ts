/**
 * The control API of BuildKit, as buildx' docker driver speaks it: gRPC over a connection that was upgraded to h2c. Each call is passed on as it
 * is, frame by frame, in both directions; only the end of a Solve waits until what it made is an image of the account, and says so where it
 * could not become one. Backpressure is HTTP/2's own on both sides.
 */
import http2, {type ClientHttp2Session, type ServerHttp2Session, type ServerHttp2Stream} from 'node:http2';
import type {Socket} from 'node:net';
import type {Duplex} from 'node:stream';
import {asCetusError} from '../../base/errors';
import type {Log} from '../../base/log';

const SOLVE = '/moby.buildkit.v1.Control/Solve';
/** gRPC's INTERNAL. */
const FAILED = '13';
const WINDOW_BYTES = 1024 * 1024;
const MAX_ANSWER_BYTES = 4 * 1024 * 1024;

/** Node has it since 20.12; its types come later. */
const {performServerHandshake} = http2 as unknown as {performServerHandshake(socket: Duplex, options?: http2.ServerOptions): ServerHttp2Session};

/** Resolves when either side is gone. */
export function proxyControl(client: Socket, engine: Duplex, settle: (imageIds: string[]) => Promise<void>, log: Log): Promise<void> {
  // Before there are sessions: Node's end the process where they are destroyed in the turn in which they were made.
  if ([client, engine].some((socket) => socket.readableEnded || socket.destroyed)) {
    client.destroy();
    engine.destroy();
    return Promise.resolve();
  }
  return new Promise((resolve) => {
    const settings = {settings: {initialWindowSize: WINDOW_BYTES}};
    const inner = http2.connect('http://engine', {createConnection: () => engine, ...settings});
    const outer = performServerHandshake(client, settings);
    const end = (): void => {
      inner.destroy();
      outer.destroy();
      client.destroy();
      engine.destroy();
      resolve();
    };
    // What ends one connection ends the other; a client that leaves is the normal end.
    for (const session of [inner, outer]) session.on('error', (err) => log.debug({err}, 'a connection of the control API broke')).once('close', end);
    // HTTP/2 has no half: who has ended one direction has left. Half-open sockets would stay.
    for (const socket of [client, engine]) socket.once('end', end).once('close', end);
    outer.on('stream', (stream, headers) => passOn(stream, headers, inner, settle, log));
  });
}

function passOn(stream: ServerHttp2Stream, headers: http2.IncomingHttpHeaders, inner: ClientHttp2Session, settle: (imageIds: string[]) => Promise<void>, log: Log): void {
  const request = inner.request({...headers, ':scheme': 'http', ':authority': 'engine'}, {endStream: false});
  const solve = headers[':path'] === SOLVE;
  const answer: Buffer[] = [];
  let answerBytes = 0;
  let trailers: http2.OutgoingHttpHeaders = {};
  stream.on('error', () => request.close(http2.constants.NGHTTP2_CANCEL)).once('aborted', () => request.close(http2.constants.NGHTTP2_CANCEL));
  request.on('error', () => { if (!stream.destroyed) stream.close(http2.constants.NGHTTP2_INTERNAL_ERROR); });
  stream.pipe(request);
  request.once('response', (head, flags) => {
    if (stream.destroyed) return;
    if (flags & http2.constants.NGHTTP2_FLAG_END_STREAM) return void stream.respond(plain(head), {endStream: true});
    stream.respond(plain(head), {waitForTrailers: true});
    stream.once('wantTrailers', () => stream.sendTrailers(trailers));
    if (solve) request.on('data', (chunk: Buffer) => {
      answerBytes += chunk.length;
      if (answerBytes <= MAX_ANSWER_BYTES) answer.push(chunk);
    });
    request.pipe(stream, {end: false});
  });
  request.once('trailers', (sent) => { trailers = plain(sent); });
  request.once('end', () => {
    const finish = (): void => { if (!stream.destroyed) stream.end(); };
    if (!solve || trailers['grpc-status'] !== '0') return finish();
    settle(imageIds(Buffer.concat(answer))).catch((err: unknown) => {
      log.error({err}, 'what a build made could not be taken over');
      trailers = {'grpc-status': FAILED, 'grpc-message': encodeURIComponent(asCetusError(err).shown)};
    }).finally(finish);
  });
}

/** Without the fields that belong to one connection. */
function plain(headers: http2.IncomingHttpHeaders): http2.OutgoingHttpHeaders {
  return Object.fromEntries(Object.entries(headers).filter(([name]) => name !== 'connection' && name !== 'date'));
}

/** A SolveResponse maps words to words; among them are the ids and digests of what was exported. Which of them are images, the engine knows. */
function imageIds(answer: Buffer): string[] {
  return [...new Set(answer.toString('latin1').match(/sha256:[0-9a-f]{64}/g) ?? [])];
}
