/**
 * The HTTP edge: a restify server that mounts every row of operations.ts. A request passes: request id -> version prefix -> operation ->
 * handler, and is answered once, by an Exchange. What is not in the API is the Engine's "page not found". No body parser, no query
 * plugin: endpoints read what they need, so that streams stay streams and /_ping stays fast.
 */
import {randomUUID} from 'node:crypto';
import type {IncomingMessage, Server as HttpServer, ServerResponse} from 'node:http';
import type {Socket} from 'node:net';
import {CetusError} from '../base/errors';
import {type Log, redactHeaders} from '../base/log';
import {type Server, restify} from '../base/restify';
import type {Datacenter} from '../datacenter/verbs';
import {checkQuery} from './body';
import {buildHandlers} from './endpoints/build';
import {containerHandlers} from './endpoints/containers';
import {execHandlers} from './endpoints/exec';
import {fileHandlers} from './endpoints/files';
import {imageHandlers} from './endpoints/images';
import {networkHandlers} from './endpoints/networks';
import {pluginHandlers} from './endpoints/plugins';
import {registryHandlers} from './endpoints/registry';
import {streamHandlers} from './endpoints/streams';
import {swarmHandlers} from './endpoints/swarm';
import {systemHandlers} from './endpoints/system';
import {volumeHandlers} from './endpoints/volumes';
import {errorBody} from './errors';
import {type DockerConfig, type Edge, Exchange, type Handler, type Handlers} from './exchange';
import {claimHijacks, closeGently} from './hijack';
import {type ListenAddress, requireTlsUnlessLoopback} from './listen';
import {type Match, OPERATIONS, type Operation, matchOperation, refuseImpossibleNames} from './operations';
import {cleanTarget} from './paths';
import {Query} from './query';
import {HttpTransport, RawTransport, type Transport} from './transport';
import {MAX_API, MAX_API_TEXT, parseVersion, splitVersion} from './version';

export interface TlsOptions {
  cert: string | Buffer;
  key: string | Buffer;
  /** Where given, clients must show a certificate signed by it. */
  ca?: string | Buffer;
}

export interface DockerServerOptions {
  datacenter: Datacenter;
  log: Log;
  config: DockerConfig;
  tls?: TlsOptions;
  /** Who calls; without TLS identities everybody is the default account. */
  accountOf?: (req: IncomingMessage) => string;
}

export interface DockerServer {
  server: Server;
  /** Resolves with the address really listened on (port 0 asks for any). */
  listen(address: ListenAddress): Promise<ListenAddress>;
  /** Serves a connection that came another way, for this account: nothing that is sent on it says otherwise. Not for a server with TLS. */
  adopt(socket: Socket, account: string): void;
  /** Stops accepting, ends every connection, hijacked ones included. Containers never notice. */
  close(): Promise<void>;
}

/** Headers must arrive within this time; bodies have bounds of their own (transport.ts), streams have none. */
const HEADERS_TIMEOUT_MS = 30_000;
/** Half-open, a connection whose client left amid the handshake stays until then; Node's own is two minutes. */
const HANDSHAKE_MS = 30_000;
/** Of a request's line and headers: build arguments and filters are in the one, the credentials of all registries of a client in the other. Node's own is 16 KiB. */
const MAX_HEAD_BYTES = 128 * 1024;
/** Clients keep pools of idle connections; the Engine never closes them, a bounded time is close enough. */
const KEEP_ALIVE_MS = 300_000;
const REQUEST_ID = /^[\w.:-]{1,128}$/;

/** What the pre handler found out, for the route that follows. */
interface Routed { match: Match; version: string; rawQuery: string; path: string; requestId: string; startedAt: bigint }

const allHandlers = (): Handlers => ({
  ...systemHandlers, ...containerHandlers, ...streamHandlers, ...fileHandlers, ...execHandlers, ...imageHandlers, ...registryHandlers, ...buildHandlers, ...volumeHandlers, ...networkHandlers,
  ...pluginHandlers, ...swarmHandlers,
});

export function createDockerServer(options: DockerServerOptions): DockerServer {
  const {tls} = options;
  const log = options.log.child({component: 'docker'});
  const edge: Edge = {
    datacenter: options.datacenter,
    config: options.config,
    headers: {'Api-Version': MAX_API_TEXT, 'Docker-Experimental': 'false', Ostype: 'linux', Server: `Cetus/${options.config.version} (linux)`},
  };
  const server = restify.createServer({
    name: '',
    log: log as never,
    handleUpgrades: true,
    // Half-close over TLS needs it; over TCP Node's HTTP server does so by itself.
    ...(tls ? {httpsServerOptions: {...tls, allowHalfOpen: true, handshakeTimeout: HANDSHAKE_MS, requestCert: tls.ca !== undefined, rejectUnauthorized: tls.ca !== undefined}} : {}),
  } as Parameters<typeof restify.createServer>[0]);
  const http = (server as unknown as {server: HttpServer}).server;
  tuneTimeouts(http);
  const sockets = trackSockets(http, tls !== undefined);
  const routed = new WeakMap<IncomingMessage, Routed>();
  const adopted = new WeakMap<Socket, string>();
  const accountOf = (req: IncomingMessage): string => adopted.get(req.socket) ?? options.accountOf?.(req) ?? 'default';

  server.pre((req, res, next) => {
    const found = route(req, edge, res);
    if (!found) return next(false);
    routed.set(req, found);
    // restify routes by the operation's name: its own router knows neither slashes in names nor version prefixes.
    (req as {url?: string}).url = `/${found.match.operation.id}`;
    return next();
  });

  const handlers = allHandlers();
  for (const operation of OPERATIONS) {
    const handler = handlerOf(operation, handlers);
    const mount = operation.method === 'DELETE' ? 'del' : (operation.method.toLowerCase() as 'get' | 'head' | 'post' | 'put');
    server[mount]({path: `/${operation.id}`, name: operation.id.toLowerCase()}, (req, res, next) => {
      const at = routed.get(req)!;
      const transport = transportOf(req, res as never);
      void answer(edge, log, at, req, transport, accountOf(req), handler).finally(() => next(false));
    });
  }
  server.on('clientError', onClientError);
  const adopt = (socket: Socket, account: string): void => {
    adopted.set(socket, account);
    http.emit('connection', socket);
  };
  return {server, listen: (address) => listen(http, address, tls !== undefined), close: () => close(http, sockets), adopt};
}

function route(req: IncomingMessage, edge: Edge, res: unknown): Routed | undefined {
  const url = req.url ?? '/';
  const mark = url.indexOf('?');
  const {version, path} = splitVersion(mark < 0 ? url : url.slice(0, mark));
  const match = matchOperation(req.method ?? '', path);
  const given = req.headers['x-request-id'];
  const requestId = typeof given === 'string' && REQUEST_ID.test(given) ? given : randomUUID();
  // Browsers say so on whatever changes something, and no Docker client is one: a page of the web must not command who listens on loopback.
  const foreign = req.headers.origin !== undefined && !(match?.operation.id === 'ContainerAttachWebsocket' && isOwnOrigin(req));
  const clean = cleanTarget(url);
  if (match && !foreign && clean === undefined) return {match, version, path, requestId, rawQuery: mark < 0 ? '' : url.slice(mark + 1), startedAt: process.hrtime.bigint()};
  const transport = transportOf(req, res as never);
  const headers = {...edge.headers, 'X-Request-Id': requestId};
  if (!foreign && clean !== undefined) transport.complete(301, {...headers, Location: clean}, '');
  else {
    const [status, message] = foreign ? [403, 'requests of web pages (with an Origin header) are refused'] as const : [404, 'page not found'] as const;
    transport.complete(status, {...headers, 'Content-Type': 'application/json'}, errorBody(message));
  }
  return undefined;
}

/**
 * WebSocket clients that are no browsers name the endpoint itself as their origin. No page can: the endpoint serves none, and a page under a
 * name that was made to point here has that name for its origin, never an address.
 */
function isOwnOrigin({headers: {origin, host}, socket}: IncomingMessage): boolean {
  if ((socket as {encrypted?: boolean}).encrypted) return origin === `https://${host}`;
  return origin === `http://${host}` && /^(localhost|\d+\.\d+\.\d+\.\d+|\[[0-9a-f:]+\])(:\d+)?$/i.test(host ?? '');
}

function transportOf(req: IncomingMessage, res: ServerResponse & {claimUpgrade?: () => {socket: Socket; head: Buffer}}): Transport {
  if (!res.claimUpgrade) return new HttpTransport(req, res);
  const {socket, head} = res.claimUpgrade();
  return new RawTransport(req, socket, head);
}

/** One that is missing is found out at start, not by a client. */
function handlerOf({id}: Operation, handlers: Handlers): Handler {
  const handler = handlers[id];
  if (!handler) throw new CetusError('internal', `operation ${id} has no handler`);
  return handler;
}

/** The Engine does not look at their queries. */
const UNREAD: ReadonlySet<string> = new Set(['SystemPing', 'SystemPingHead', 'SystemInfo', 'SystemVersion']);

async function answer(edge: Edge, log: Log, at: Routed, req: IncomingMessage, transport: Transport, account: string, handler: Handler): Promise<void> {
  const {operation, params} = at.match;
  const request = {operation, params, query: new Query(at.rawQuery), version: MAX_API, headers: req.headers};
  const x = new Exchange(edge, request, account, at.requestId, log, transport);
  let read = false;
  try {
    request.version = parseVersion(at.version);
    if (!UNREAD.has(operation.id)) x.query.check();
    checkQuery(operation.id, x.query);
    refuseImpossibleNames(at.match);
    read = true;
    await handler(x);
  } catch (err) {
    x.fail(err, read);
  }
  const level = operation.id.startsWith('SystemPing') ? 'debug' : 'info';
  log[level]({
    requestId: at.requestId, account: x.caller.account, operation: operation.id, method: req.method, path: at.path, api: at.version, status: x.status,
    ms: Number(process.hrtime.bigint() - at.startedAt) / 1e6, ...(log.debug() ? {headers: redactHeaders(req.headers)} : {}),
  }, 'answered');
}

function tuneTimeouts(http: HttpServer): void {
  http.headersTimeout = HEADERS_TIMEOUT_MS;
  // An option of the server that restify passes to none; Node reads it from here for each connection.
  (http as HttpServer & {maxHeaderSize?: number}).maxHeaderSize = MAX_HEAD_BYTES;
  // Counts the whole request, body included: it would cut `docker load` of a large archive.
  http.requestTimeout = 0;
  http.timeout = 0;
  http.keepAliveTimeout = KEEP_ALIVE_MS;
}

function trackSockets(http: HttpServer, secure: boolean): Set<Socket> {
  const sockets = new Set<Socket>();
  // Of TLS the one below: it is there before the handshake is done, and also where that never is.
  http.on('connection', (socket: Socket) => {
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
  });
  http.on(secure ? 'secureConnection' : 'connection', (socket: Socket) => {
    socket.setNoDelay(true);
    claimHijacks(socket);
  });
  return sockets;
}

/** What is not HTTP gets the Engine's answer to it, in as few bytes as possible. */
function onClientError(err: NodeJS.ErrnoException, socket: Socket): void {
  if (err.code === 'ECONNRESET' || !socket.writable) {
    socket.destroy();
    return;
  }
  const status = err.code === 'HPE_HEADER_OVERFLOW' ? '431 Request Header Fields Too Large'
    : err.code === 'ERR_HTTP_REQUEST_TIMEOUT' ? '408 Request Timeout' : '400 Bad Request';
  socket.write(`HTTP/1.1 ${status}\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n${status}`);
  // The parser has let go of the socket: unread, the client's own end would never be noticed, and the descriptor stay for ever.
  closeGently(socket);
}

function listen(http: HttpServer, address: ListenAddress, hasTls: boolean): Promise<ListenAddress> {
  requireTlsUnlessLoopback(address, hasTls);
  return new Promise((resolve, reject) => {
    const failed = (err: Error): void => reject(new CetusError('unavailable', `cannot listen on ${'path' in address ? address.path : `${address.host}:${address.port}`}: ${err.message}`, {cause: err}));
    http.once('error', failed);
    http.listen('path' in address ? {path: address.path} : {host: address.host, port: address.port}, () => {
      http.off('error', failed);
      const actual = http.address();
      resolve(typeof actual === 'object' && actual && 'host' in address ? {host: address.host, port: actual.port} : address);
    });
  });
}

function close(http: HttpServer, sockets: Set<Socket>): Promise<void> {
  return new Promise((resolve) => {
    if (http.listening) http.close(() => resolve());
    else resolve();
    for (const socket of sockets) socket.destroy();
  });
}
