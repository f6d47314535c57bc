/**
 * The HTTP server that agents talk to: join, heartbeat, reports, assignments, and connections of containers to the Docker API. A unix socket on one machine (its directory is the wall), mutual TLS in a
 * fleet: there a node speaks for itself alone, by its certificate, and who has none may do one thing, which is to enrol with a token. Bodies are bounded and checked before anything looks at them; every answer that is not a success is a WireError.
 */
import http from 'node:http';
import https from 'node:https';
import type {Socket} from 'node:net';
import type {TLSSocket} from 'node:tls';
import Ajv from 'ajv';
import {readJson} from '../base/body';
import {asCetusError, CetusError} from '../base/errors';
import {currentOf} from '../base/credentials';
import {type Check, lateCheck} from '../base/late-check';
import {type InternalAddress, listenAt} from '../base/listen';
import type {Log} from '../base/log';
import {type Peer, peerOf} from '../base/peer';
import type {AssignmentAnswer, AssignmentQuestion, Heartbeat, HeartbeatAnswer, ReportBatch} from '../schema/agent';
import {ASSIGNMENT_SCHEMA, ENROLL_SCHEMA, HEARTBEAT_SCHEMA, NODE_FACTS_SCHEMA, RENEW_SCHEMA, REPORT_BATCH_SCHEMA} from '../schema/agent-messages';
import type {CertificateAnswer, EnrollRequest, RenewRequest} from '../schema/authority';
import type {NodeFacts} from '../schema/node';
import {statusOf} from '../schema/wire';

export interface AgentCalls {
  join(facts: NodeFacts): Promise<{nodeId: string}>;
  heartbeat(beat: Heartbeat): Promise<HeartbeatAnswer>;
  reports(batch: ReportBatch): Promise<{ackedSeq: number}>;
  /** Which of these are the node's own, as of its present life. */
  assignments(question: AssignmentQuestion): Promise<AssignmentAnswer>;
  /** Who takes connections of this container; throws where nobody may or can. `nodeId`: by whom it is asked, where that is known. */
  docker(containerId: string, nodeId: string | undefined): Promise<(socket: Socket) => void>;
}

/** What the authority decides (authority/authority.ts). Absent: certificates come from elsewhere, and all that the handshake accepts are good. */
export interface Membership {
  enroll(request: EnrollRequest): Promise<CertificateAnswer>;
  renew(peer: Peer, request: RenewRequest): Promise<CertificateAnswer>;
  admit(peer: Peer): void;
  onRevoked(listener: (serial: string) => void): void;
}

const MAX_CONNECTIONS = 20_000;
/** Bodies being read or applied at once; an agent that meets more is told to come again. */
const MAX_UNDER_WAY = 1_000;
const KEEP_ALIVE_MS = 60_000;

/** For who has no certificate: the whole of a connection, what is read of it, and how many at once. */
const STRANGER_MS = 30_000;
const MAX_STRANGER_BYTES = 16 * 1024;
const MAX_STRANGERS = 16;
/** Half-open, a connection that its client has closed before it was secure stays until then. Not shorter: 10,000 agents that come back at once are shaken hands with for half of it. */
const HANDSHAKE_MS = 60_000;
const ENROLL = '/v1/enroll';

/** `held`: its answer is only waited for, with nothing of it in hand. */
interface Route { validate: Check; held?: boolean; answer(body: never, peer: Peer | undefined): unknown }

export class Listener {
  private readonly server: http.Server;
  private readonly routes: Map<string, Route>;
  private readonly sockets = new Set<Socket>();
  private underWay = 0;
  private strangers = 0;
  /** What an agent is configured with; '' before `listen`. */
  url = '';

  constructor(private readonly at: InternalAddress, private readonly calls: AgentCalls, private readonly log: Log, private readonly membership?: Membership) {
    const ajv = new Ajv({discriminator: true, allErrors: false, strictTypes: false, strictRequired: false});
    this.routes = new Map<string, Route>([
      ['/v1/join', {validate: lateCheck(ajv, NODE_FACTS_SCHEMA), answer: (facts: NodeFacts) => calls.join(facts)}],
      // Until its lease's row is written, a fifth of the time between two: of 10,000 nodes 2,000 wait at any moment, each on its one connection.
      ['/v1/heartbeat', {validate: lateCheck(ajv, HEARTBEAT_SCHEMA), held: true, answer: (beat: Heartbeat) => calls.heartbeat(beat)}],
      ['/v1/assignments', {validate: lateCheck(ajv, ASSIGNMENT_SCHEMA), answer: (question: AssignmentQuestion) => calls.assignments(question)}],
      ['/v1/reports', {validate: lateCheck(ajv, REPORT_BATCH_SCHEMA), answer: (batch: ReportBatch) => calls.reports(batch)}],
    ]);
    if (membership) {
      this.routes.set(ENROLL, {validate: lateCheck(ajv, ENROLL_SCHEMA), answer: (request: EnrollRequest) => membership.enroll(request)});
      this.routes.set('/v1/renew', {validate: lateCheck(ajv, RENEW_SCHEMA), answer: (request: RenewRequest, peer) => membership.renew(known(peer), request)});
    }
    const handle = (req: http.IncomingMessage, res: http.ServerResponse): void => void this.handle(req, res);
    const options = {keepAliveTimeout: KEEP_ALIVE_MS, requestTimeout: 60_000, headersTimeout: 20_000, noDelay: true};
    this.server = 'socketPath' in at
      ? http.createServer(options, handle)
      // Half-open, for a container's client that ends its stdin and waits for the rest of the output; over TCP Node's HTTP server does so by itself.
      : https.createServer({...options, ...currentOf(at.tls), allowHalfOpen: true, handshakeTimeout: HANDSHAKE_MS, minVersion: 'TLSv1.3', requestCert: true, rejectUnauthorized: !membership} as https.ServerOptions, handle);
    if (membership) this.watchSockets(membership);
    this.server.maxConnections = MAX_CONNECTIONS;
    // Also those of which Node's HTTP server knows nothing: still shaking hands, or switched to another protocol.
    this.server.on('connection', (socket: Socket) => {
      this.sockets.add(socket);
      socket.once('close', () => this.sockets.delete(socket));
    });
    this.server.on('upgrade', (req, socket, head) => void this.upgrade(req, socket as Socket, head));
  }

  async listen(): Promise<void> {
    this.url = await listenAt(this.server, this.at);
    this.server.on('error', err => this.log.error({err}, 'the listener for agents failed'));
  }

  async close(): Promise<void> {
    this.server.closeIdleConnections();
    const closed = new Promise<void>(resolve => this.server.close(() => resolve()));
    const timer = setTimeout(() => { for (const socket of this.sockets) socket.destroy(); }, 2_000);
    await closed;
    clearTimeout(timer);
  }

  private watchSockets(membership: Membership): void {
    const bySerial = new Map<string, Set<TLSSocket>>();
    this.server.on('secureConnection', (socket: TLSSocket) => {
      let peer: Peer | undefined;
      try {
        peer = peerOf(socket);
      } catch {
        // Each of its calls is told why, and it may make some; but not stay.
        const timer = setTimeout(() => socket.destroy(), STRANGER_MS);
        socket.once('close', () => clearTimeout(timer));
        return;
      }
      const {serial} = peer!;
      const sockets = bySerial.get(serial) ?? new Set();
      bySerial.set(serial, sockets.add(socket));
      socket.once('close', () => {
        sockets.delete(socket);
        if (sockets.size === 0 && bySerial.get(serial) === sockets) bySerial.delete(serial);
      });
    });
    // Also what was switched to another protocol, where no call comes any more to be refused.
    membership.onRevoked((serial) => { for (const socket of bySerial.get(serial) ?? []) socket.destroy(); });
  }

  /** The node at the other end; undefined on a unix socket. */
  private caller(req: http.IncomingMessage): Peer | undefined {
    const peer = peerOf(req.socket);
    if (!peer) return undefined;
    if (peer.role !== 'node') throw new CetusError('forbidden', `${peer.role} ${peer.id} is no node`);
    this.membership?.admit(peer);
    return peer;
  }

  private async handle(req: http.IncomingMessage, res: http.ServerResponse): Promise<void> {
    const started = performance.now();
    let status = 200;
    let body: unknown;
    try {
      body = await this.answer(req);
    } catch (err) {
      const error = asCetusError(err);
      status = statusOf(error.kind);
      body = error.toWire();
      this.log.warn({err: error, path: req.url, requestId: req.headers['x-request-id']}, 'an agent\'s call was refused');
      // What is left of a refused body is not read.
      if (!req.complete) res.setHeader('connection', 'close');
    }
    const text = JSON.stringify(body);
    // Not chained: restify, in the same process, replaces writeHead for everybody with one that returns nothing.
    res.writeHead(status, {'content-type': 'application/json', 'content-length': Buffer.byteLength(text)});
    res.end(text);
    this.log.trace({path: req.url, status, ms: performance.now() - started}, 'agent call');
  }

  /** The agent says for which container, the store says whose it is: nothing that the container sends can claim another account. */
  private async upgrade(req: http.IncomingMessage, socket: Socket, head: Buffer): Promise<void> {
    const stop = (): void => undefined;
    socket.on('error', stop);
    try {
      if (req.url !== '/v1/docker' || req.method !== 'POST' || req.headers.upgrade !== 'cetus-docker') throw new CetusError('notFound', `no such call: ${req.method} ${req.url}`);
      const take = await this.calls.docker(String(req.headers['x-cetus-container'] ?? ''), this.caller(req)?.id);
      if (socket.destroyed) return;
      socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: cetus-docker\r\n\r\n');
      if (head.length) socket.unshift(head);
      take(socket);
      socket.off('error', stop);
    } catch (err) {
      const error = asCetusError(err);
      this.log.warn({err: error, path: req.url}, 'a connection to the Docker API was refused');
      const text = JSON.stringify(error.toWire());
      const status = statusOf(error.kind);
      socket.end(`HTTP/1.1 ${status} ${http.STATUS_CODES[status] ?? 'Error'}\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: ${Buffer.byteLength(text)}\r\n\r\n${text}`);
      socket.resume();
    }
  }

  private async answer(req: http.IncomingMessage): Promise<unknown> {
    const route = this.routes.get(req.url ?? '');
    if (!route) throw new CetusError('notFound', `no such call: ${req.url}`);
    if (req.method !== 'POST') throw new CetusError('invalid', `${req.url} is called with POST`);
    if (req.url === ENROLL) return this.answerStranger(req, route);
    const peer = this.caller(req);
    if (this.underWay >= MAX_UNDER_WAY) throw new CetusError('unavailable', 'too many agents report at once');
    this.underWay += 1;
    let counted = 1;
    try {
      const message = checked(req, route, await readJson(req));
      if (peer && message.nodeId !== peer.id) throw new CetusError('forbidden', `node ${peer.id} may not speak for node ${message.nodeId}`);
      if (route.held) {
        counted = 0;
        this.underWay -= 1;
      }
      return await route.answer(message as never, peer);
    } finally {
      this.underWay -= counted;
    }
  }

  private async answerStranger(req: http.IncomingMessage, route: Route): Promise<unknown> {
    if (this.strangers >= MAX_STRANGERS) throw new CetusError('unavailable', 'too many nodes enrol at once');
    this.strangers += 1;
    try {
      return await route.answer(checked(req, route, await readJson(req, MAX_STRANGER_BYTES)) as never, undefined);
    } finally {
      this.strangers -= 1;
    }
  }
}

/** Everything that a node says to us begins with who it is. */
function checked(req: http.IncomingMessage, route: Route, message: unknown): {nodeId: string} {
  if (route.validate(message)) return message as {nodeId: string};
  const first = route.validate.errors?.[0];
  throw new CetusError('invalid', `${req.url}: ${first?.instancePath || 'the body'} ${first?.message ?? 'is not as the protocol says'}`);
}

function known(peer: Peer | undefined): Peer {
  if (!peer) throw new CetusError('forbidden', 'over a unix socket nobody has a certificate');
  return peer;
}
