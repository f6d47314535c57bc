/**
 * The agent's HTTP server: a unix socket (its directory is the wall) or mutual TLS. Plain node:http, not restify: half of the calls are
 * upgrades or raw streams, the other callers are our own processes, and a layer less is 0.1 ms less on the way of each start.
 *
 * Every error is a WireError; a HEAD's goes into X-Cetus-Error. Bodies are bounded and checked (body.ts). allowHalfOpen everywhere: the end
 * of a client's bytes is the end of stdin, and output goes on.
 */
import http from 'node:http';
import https from 'node:https';
import type {Socket} from 'node:net';
import type {Duplex} from 'node:stream';
import {currentOf} from '../../base/credentials';
import {asCetusError, CetusError} from '../../base/errors';
import {noticeHangUp} from '../../base/hang-up';
import {type InternalAddress, listenAt} from '../../base/listen';
import type {Log} from '../../base/log';
import {type Peer, peerOf} from '../../base/peer';
import type {Task, TaskAnswer} from '../../schema/agent';
import type {NodeFacts} from '../../schema/node';
import {statusOf} from '../../schema/wire';
import type {BuildEngines} from '../build/engines';
import type {Execs} from '../exec/execs';
import type {StatsCollector} from '../stats/collector';
import type {Supervisor, SupervisorParts} from '../supervisor';
import {dropRest, Query} from './body';
import {mayOrder} from './caller';
import {findRoute, type Route} from './routes';
import {findUpgrade, type Accept} from './upgrades';

export interface ServerParts {
  supervisor: Supervisor;
  execs: Execs;
  stats: StatsCollector;
  task(task: Task): Promise<TaskAnswer>;
  parts: SupervisorParts;
  facts(): NodeFacts;
  /** The last life that was fenced, with what was ordered in it: an order of that one, or of one before, comes too late. */
  fencedLife?(): number;
  /** Where the node builds images. */
  build?: BuildEngines;
  log: Log;
  /** Refuses a caller whose certificate is trusted no more. */
  admit?(peer: Peer): void;
}

const MAX_CONNECTIONS = 10_000;
/** Above the client's own, so that it closes first. */
const KEEP_ALIVE_MS = 60_000;
/** A client's request to a build engine, whose line is a parameter here and so written once more. */
const MAX_HEAD_BYTES = 512 * 1024;
const HANDSHAKE_MS = 10_000;
const SWITCHING = 'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: cetus-stream\r\n\r\n';

export class AgentServer {
  private server: http.Server | undefined;
  /** Upgraded sockets, which the http server no longer knows. */
  private readonly upgraded = new Set<Duplex>();
  /** As they were accepted. Who leaves in the middle of a TLS handshake is in no other list, and half-open as all are here his end is not ours. */
  private readonly connections = new Set<Socket>();

  constructor(private readonly parts: ServerParts) {}

  async listen(at: InternalAddress): Promise<string> {
    const options = {keepAliveTimeout: KEEP_ALIVE_MS, requestTimeout: 0, headersTimeout: 20_000, noDelay: true, maxHeaderSize: MAX_HEAD_BYTES};
    const server = 'socketPath' in at
      ? http.createServer(options)
      : https.createServer({...options, ...currentOf(at.tls), minVersion: 'TLSv1.3', requestCert: true, rejectUnauthorized: true, handshakeTimeout: HANDSHAKE_MS, allowHalfOpen: true} as https.ServerOptions);
    this.server = server;
    server.maxConnections = MAX_CONNECTIONS;
    server.on('connection', (socket: Socket) => {
      this.connections.add(socket);
      socket.once('close', () => this.connections.delete(socket));
    });
    server.on('request', (req: http.IncomingMessage, res: http.ServerResponse) => void this.answer(req, res));
    server.on('upgrade', (req: http.IncomingMessage, socket: Duplex, head: Buffer) => void this.upgrade(req, socket, head));
    const url = await listenAt(server, at);
    server.on('error', (err) => this.parts.log.error({err}, 'the agent\'s server failed'));
    return url;
  }

  async close(): Promise<void> {
    const {server} = this;
    if (!server) return;
    const closed = new Promise<void>((resolve) => server.close(() => resolve()));
    for (const socket of this.upgraded) socket.destroy();
    server.closeAllConnections();
    for (const socket of this.connections) socket.destroy();
    await closed;
  }

  private async answer(req: http.IncomingMessage, res: http.ServerResponse): Promise<void> {
    const gone = new AbortController();
    res.once('close', () => gone.abort(new CetusError('canceled', 'the caller hung up')));
    try {
      const url = new URL(req.url ?? '/', 'http://agent');
      this.admit(req, url.pathname);
      const route: Route = findRoute(req.method ?? '', url.pathname);
      await route({...this.parts, req, res, query: new Query(url.searchParams), signal: gone.signal});
    } catch (err) {
      this.refuse(req, res, err);
    }
  }

  /** Orders are an endpoint's to give; another node may ask for blobs. */
  private admit(req: http.IncomingMessage, pathname: string): void {
    const peer = peerOf(req.socket);
    if (!peer) return;
    this.parts.admit?.(peer);
    if (peer.role === 'node' && !pathname.startsWith('/v1/blobs/')) throw new CetusError('forbidden', `node ${peer.id} gives no orders here`);
  }

  private refuse(req: http.IncomingMessage, res: http.ServerResponse, err: unknown): void {
    const error = asCetusError(err);
    const expected = error.kind !== 'internal' || error.info['ofRequest'] === true;
    this.parts.log[expected ? 'debug' : 'error']({err, method: req.method, path: req.url?.split('?')[0], requestId: req.headers['x-request-id']}, 'a call was refused');
    if (res.destroyed || res.writableEnded) return;
    if (res.headersSent) {
      // A stream that broke after its beginning is cut off: the caller must not take it for whole.
      res.destroy();
      return;
    }
    const text = JSON.stringify(error.toWire());
    if (!req.complete) {
      res.setHeader('connection', 'close');
      dropRest(req);
    }
    if (req.method === 'HEAD') res.writeHead(statusOf(error.kind), {'x-cetus-error': Buffer.from(text).toString('base64')}).end();
    else res.writeHead(statusOf(error.kind), {'content-type': 'application/json', 'content-length': Buffer.byteLength(text)}).end(text);
  }

  private async upgrade(req: http.IncomingMessage, socket: Duplex, head: Buffer): Promise<void> {
    this.upgraded.add(socket);
    socket.once('close', () => this.upgraded.delete(socket));
    socket.on('error', () => socket.destroy());
    (socket as Socket).setNoDelay?.(true);
    let accepted = false;
    const accept: Accept = () => {
      accepted = true;
      if (head.length) socket.unshift(head);
      socket.write(SWITCHING);
      noticeHangUp(socket);
      return socket;
    };
    try {
      mayOrder(req);
      const url = new URL(req.url ?? '/', 'http://agent');
      this.admit(req, url.pathname);
      await findUpgrade(req.method ?? '', url.pathname)({...this.parts, query: new Query(url.searchParams), headers: req.headers, accept});
    } catch (err) {
      const error = asCetusError(err);
      this.parts.log.debug({err, path: req.url?.split('?')[0]}, 'a stream was refused');
      if (accepted) return void socket.destroy();
      const text = JSON.stringify(error.toWire());
      socket.end(`HTTP/1.1 ${statusOf(error.kind)} Refused\r\nContent-Type: application/json\r\nContent-Length: ${Buffer.byteLength(text)}\r\nConnection: close\r\n\r\n${text}`);
    }
  }
}
