/**
 * One request and its answer, as endpoints see it: what was asked, who asks, and the few ways in which the Engine answers. Every answer
 * goes through here, so every answer carries Api-Version, Server and X-Request-Id, and is sent exactly once.
 */
import type {IncomingHttpHeaders} from 'node:http';
import type {Socket} from 'node:net';
import type {Readable, Writable} from 'node:stream';
import {finished, pipeline} from 'node:stream/promises';
import type {WebSocket} from 'ws';
import {CetusError, asCetusError, isCetusError} from '../base/errors';
import {STREAM, parseJson} from '../base/json-syntax';
import type {Log} from '../base/log';
import type {Caller, Datacenter} from '../datacenter/verbs';
import type {ProgressMessage} from '../schema/docker';
import {errorAnswer, errorBody, errorLine} from './errors';
import type {Operation} from './operations';
import type {Query} from './query';
import type {Headers, Transport} from './transport';
import {type ApiVersion, atLeast} from './version';

export interface DockerConfig {
  /** Cetus's own version. */
  version: string;
  gitCommit?: string;
  buildTime?: string;
  /** What `info` tells of the nodes' registries without TLS, beside loopback's: hosts and CIDRs. */
  insecureRegistries?: string[];
  /** Limit of JSON bodies. */
  maxJsonBytes?: number;
}

export interface Edge {
  datacenter: Datacenter;
  config: DockerConfig;
  /** The fixed headers of every answer. */
  headers: Headers;
}

export interface Request {
  operation: Operation;
  params: Record<string, string>;
  query: Query;
  version: ApiVersion;
  headers: IncomingHttpHeaders;
}

const MAX_JSON_BYTES = 4 * 1024 * 1024;
const JSON_TYPE = 'application/json';

export class Exchange {
  readonly datacenter: Datacenter;
  readonly config: DockerConfig;
  private readonly abort = new AbortController();
  readonly caller: Caller;

  constructor(readonly edge: Edge, readonly request: Request, account: string, requestId: string, readonly log: Log, private readonly transport: Transport) {
    this.datacenter = edge.datacenter;
    this.config = edge.config;
    this.caller = {account, requestId, signal: this.abort.signal};
    transport.onGone(() => this.abort.abort(new CetusError('canceled', 'the client left')));
  }

  get query(): Query {
    return this.request.query;
  }

  /** A path parameter; the route guarantees that it is there. */
  param(name: 'id' | 'name'): string {
    return this.request.params[name] ?? '';
  }

  /** Does the client speak API 1.`minor` or newer? */
  speaks(minor: number): boolean {
    return atLeast(this.request.version, minor);
  }

  get gone(): boolean {
    return this.abort.signal.aborted;
  }

  get status(): number {
    return this.transport.status;
  }

  /** The JSON body, or undefined where there is none. Errors as the Engine's. */
  async readJson(): Promise<unknown> {
    const type = String(this.request.headers['content-type'] ?? '');
    const body = await this.transport.readBody(this.config.maxJsonBytes ?? MAX_JSON_BYTES);
    if (!body.length) return undefined;
    const mime = type.split(';', 1)[0]!.trim().toLowerCase();
    if (mime !== JSON_TYPE)
      throw new CetusError('invalid', mime ? `unsupported Content-Type header (${type}): must be 'application/json'` : 'malformed Content-Type header (): mime: no media type');
    try {
      return parseJson(body.toString('utf8'), STREAM);
    } catch (err) {
      throw new CetusError('invalid', `invalid JSON: ${(err as Error).message}`, {cause: err});
    }
  }

  async readJsonRequired(): Promise<unknown> {
    const value = await this.readJson();
    if (value === undefined) throw new CetusError('invalid', 'invalid JSON: got EOF while reading request body');
    // As in Go: null changes nothing of what is read into.
    return value ?? {};
  }

  /** Takes a body of announced length off the connection, where it has no meaning and a stream follows. */
  async skipBody(): Promise<void> {
    if (this.request.headers['transfer-encoding'] === undefined) await this.transport.readBody(this.config.maxJsonBytes ?? MAX_JSON_BYTES);
  }

  bodyStream(): Readable {
    return this.transport.bodyStream();
  }

  json(status: number, value: unknown): void {
    this.jsonText(status, JSON.stringify(value));
  }

  /** For documents whose numbers JavaScript cannot hold: the text is already JSON. */
  jsonText(status: number, text: string): void {
    this.transport.complete(status, {...this.edge.headers, 'X-Request-Id': this.caller.requestId, 'Content-Type': JSON_TYPE}, `${text}\n`);
  }

  empty(status: number, headers: Headers = {}): void {
    this.transport.complete(status, {...this.edge.headers, 'X-Request-Id': this.caller.requestId, ...headers}, '');
  }

  text(status: number, body: string, headers: Headers): void {
    this.transport.complete(status, {...this.edge.headers, 'X-Request-Id': this.caller.requestId, ...headers}, body);
  }

  /** Status and headers go out at once; whoever waits for them (`docker run` waits for the wait) sees them before the first byte. */
  begin(status: number, headers: Headers): Writable {
    return this.transport.begin(status, {...this.edge.headers, 'X-Request-Id': this.caller.requestId, ...headers});
  }

  /** Bytes as they come, with backpressure, until the end, the client's departure, or an error (which cuts the body short). */
  async stream(status: number, headers: Headers, body: Readable): Promise<void> {
    const out = this.begin(status, headers);
    this.abort.signal.addEventListener('abort', () => body.destroy(), {once: true});
    try {
      await pipeline(body, out);
    } catch (err) {
      if (!this.gone) {
        this.log.warn({err, operation: this.request.operation.id}, 'a stream broke');
        this.transport.cut();
      }
    }
  }

  /** JSON lines, flushed one by one. The first is awaited before the status is sent, so that early failures have a status of their own. */
  async lines(source: AsyncIterable<ProgressMessage>): Promise<void> {
    const iterator = source[Symbol.asyncIterator]();
    let next = await iterator.next();
    const out = this.begin(200, {'Content-Type': JSON_TYPE});
    try {
      while (!next.done && !this.gone) {
        await this.write(out, `${JSON.stringify(next.value)}\r\n`);
        next = await iterator.next();
      }
    } catch (err) {
      if (!this.gone) {
        const {error} = errorAnswer(err);
        this.log.info({err: error, operation: this.request.operation.id}, 'a progress stream failed');
        await this.write(out, `${JSON.stringify(errorLine(error.shown))}\r\n`);
      }
    } finally {
      await iterator.return?.(undefined)?.catch(() => undefined);
    }
    if (this.gone) return;
    out.end();
    await finished(out).catch(() => undefined);
  }

  /** Waits while the client does not read; returns early when it has left. */
  async write(out: Writable, chunk: string | Buffer): Promise<void> {
    if (this.gone || out.write(chunk)) return;
    await new Promise<void>((resolve) => {
      const go = (): void => {
        out.off('drain', go);
        this.abort.signal.removeEventListener('abort', go);
        resolve();
      };
      out.once('drain', go);
      this.abort.signal.addEventListener('abort', go, {once: true});
    });
  }

  /** The connection itself, after the head of a 101 (where the client asked for an upgrade) or of a 200 without length. */
  /** The handshake must have been checked. */
  takeOverWebSocket(): Promise<WebSocket> {
    return this.transport.takeOverWebSocket(this.edge.headers);
  }

  takeOver(contentType: string, protocol = 'tcp'): Socket {
    if (protocol !== 'tcp') return this.transport.takeOver(101, 'Switching Protocols', {Connection: 'Upgrade', Upgrade: protocol, ...this.edge.headers});
    const upgrade = this.request.headers.upgrade !== undefined;
    return upgrade
      ? this.transport.takeOver(101, 'UPGRADED', {'Content-Type': contentType, Connection: 'Upgrade', Upgrade: 'tcp', ...this.edge.headers})
      : this.transport.takeOver(200, 'OK', {'Content-Type': contentType, ...this.edge.headers});
  }

  /** Any thrown value as the Engine would answer it; after the headers have gone, the answer is cut. `read`: the operation itself had begun. */
  fail(thrown: unknown, read = true): void {
    const {status, error} = errorAnswer(thrown, read ? this.request.operation.id : undefined);
    // What the client is not told is told here, whatever the status.
    const ofRequest = error.info['ofRequest'] === true;
    const told = error.shown === error.message && (status < 500 || ofRequest || !isCetusError(error, 'internal') && status <= 501);
    if (!told && !(this.gone && isCetusError(error, 'canceled'))) this.log.error({err: asCetusError(thrown), operation: this.request.operation.id}, 'request failed');
    if (this.gone) return;
    if (this.transport.started) return this.transport.cut();
    if (status === 304) return this.empty(304);
    this.transport.complete(status, {...this.edge.headers, 'X-Request-Id': this.caller.requestId, 'Content-Type': JSON_TYPE}, errorBody(error.shown));
  }
}

export type Handler = (x: Exchange) => Promise<void> | void;
export type Handlers = Readonly<Record<string, Handler>>;
