/**
 * The HTTP server that agents talk to: join, heartbeat, reports, assignments, and connections of containers to the Docker API. A unix socket on one machine (its directory is the wall), mutual TLS in a
 * fleet. Bodies are bounded and checked before anything looks at them; every answer that is not a success is a WireError.
 */
import http from 'node:http';
import https from 'node:https';
import type {Socket} from 'node:net';
import Ajv, {type ValidateFunction} from 'ajv';
import {readJson} from '../base/body';
import {asCetusError, CetusError} from '../base/errors';
import {currentOf} from '../base/credentials';
import {type InternalAddress, listenAt} from '../base/listen';
import type {Log} from '../base/log';
import type {AssignmentAnswer, AssignmentQuestion, Heartbeat, HeartbeatAnswer, ReportBatch} from '../schema/agent';
import {ASSIGNMENT_SCHEMA, HEARTBEAT_SCHEMA, NODE_FACTS_SCHEMA, REPORT_BATCH_SCHEMA} from '../schema/agent-messages';
import type {NodeFacts} from '../schema/node';
import {statusOf} from '../schema/wire';

export interface AgentCalls {
  join(facts: NodeFacts): Promise<{nodeId: string}>;
  heartbeat(beat: Heartbeat): Promise<HeartbeatAnswer>;
  reports(batch: ReportBatch): Promise<{ackedSeq: number}>;
  /** Which of these are the node's own, as of its present life. */
  assignments(question: AssignmentQuestion): Promise<AssignmentAnswer>;
  /** Who takes connections of this container; throws where nobody may or can. */
  docker(containerId: string): Promise<(socket: Socket) => void>;
}

const MAX_CONNECTIONS = 20_000;
/** Bodies being read or applied at once; an agent that meets more is told to come again. */
const MAX_UNDER_WAY = 1_000;
const KEEP_ALIVE_MS = 60_000;

interface Route { validate: ValidateFunction; answer(body: never): unknown }

export class Listener {
  private readonly server: http.Server;
  private readonly routes: Map<string, Route>;
  private underWay = 0;
  /** What an agent is configured with; '' before `listen`. */
  url = '';

  constructor(private readonly at: InternalAddress, private readonly calls: AgentCalls, private readonly log: Log) {
    const ajv = new Ajv({discriminator: true, allErrors: false, strictTypes: false, strictRequired: false});
    this.routes = new Map<string, Route>([
      ['/v1/join', {validate: ajv.compile(NODE_FACTS_SCHEMA), answer: (facts: NodeFacts) => calls.join(facts)}],
      ['/v1/heartbeat', {validate: ajv.compile(HEARTBEAT_SCHEMA), answer: (beat: Heartbeat) => calls.heartbeat(beat)}],
      ['/v1/assignments', {validate: ajv.compile(ASSIGNMENT_SCHEMA), answer: (question: AssignmentQuestion) => calls.assignments(question)}],
      ['/v1/reports', {validate: ajv.compile(REPORT_BATCH_SCHEMA), answer: (batch: ReportBatch) => calls.reports(batch)}],
    ]);
    const handle = (req: http.IncomingMessage, res: http.ServerResponse): void => void this.handle(req, res);
    const options = {keepAliveTimeout: KEEP_ALIVE_MS, requestTimeout: 60_000, headersTimeout: 20_000, noDelay: true};
    this.server = 'socketPath' in at
      ? http.createServer(options, handle)
      : https.createServer({...options, ...currentOf(at.tls), requestCert: true, rejectUnauthorized: true}, handle);
    this.server.maxConnections = MAX_CONNECTIONS;
    this.server.on('upgrade', (req, socket, head) => void this.upgrade(req, socket as Socket, head));
  }

  async listen(): Promise<void> {
    this.url = await listenAt(this.server, this.at);
    this.server.on('error', err => this.log.error({err}, 'the listener for agents failed'));
  }

  async close(): Promise<void> {
    this.server.closeIdleConnections();
    const closed = new Promise<void>(resolve => this.server.close(() => resolve()));
    const timer = setTimeout(() => this.server.closeAllConnections(), 2_000);
    await closed;
    clearTimeout(timer);
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
      const take = await this.calls.docker(String(req.headers['x-cetus-container'] ?? ''));
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
    if (this.underWay >= MAX_UNDER_WAY) throw new CetusError('unavailable', 'too many agents report at once');
    this.underWay += 1;
    try {
      const message = await readJson(req);
      if (!route.validate(message)) {
        const first = route.validate.errors?.[0];
        throw new CetusError('invalid', `${req.url}: ${first?.instancePath || 'the body'} ${first?.message ?? 'is not as the protocol says'}`);
      }
      return await route.answer(message as never);
    } finally {
      this.underWay -= 1;
    }
  }
}
