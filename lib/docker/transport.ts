/**
 * How an answer reaches the wire: through Node's HTTP response, or, on a connection that was taken for hijacking, as bytes of our own.
 * Endpoints do not see the difference, except that only a raw transport can hand over its socket.
 */
import {type IncomingMessage, STATUS_CODES, type ServerResponse} from 'node:http';
import type {Socket} from 'node:net';
import {Readable, type Writable} from 'node:stream';
import type {WebSocket} from 'ws';
import {CetusError} from '../base/errors';
import {framingOf} from '../base/framing';
import {noticeHangUp} from '../base/hang-up';
import {uploadBody} from '../base/upload';
import {closeGently, readRawBody, welcome} from './hijack';
import {RawBody} from './raw-body';
import {acceptWebSocket} from './websocket';

export type Headers = Record<string, string>;

export interface Transport {
  /** Status and headers are on their way: errors can only be told in the body, or by cutting it. */
  readonly started: boolean;
  readonly status: number;
  readBody(limitBytes: number): Promise<Buffer>;
  /** The request body as it arrives; ends with an error where the client stalls or leaves. */
  bodyStream(): Readable;
  /** A whole answer. */
  complete(status: number, headers: Headers, body: string | Buffer): void;
  /** Status and headers at once, the body by and by. */
  begin(status: number, headers: Headers): Writable;
  /** Where something went wrong after `begin`: the client must notice that the body is not whole. */
  cut(): void;
  /** Calls back once when the client has left before the answer was complete. */
  onGone(left: () => void): void;
  takeOver(status: number, reason: string, headers: Headers): Socket;
  takeOverWebSocket(headers: Headers): Promise<WebSocket>;
}

const BODY_DEADLINE_MS = 60_000;
const BODY_IDLE_MS = 10 * 60_000;

const tooLarge = (limit: number): CetusError => new CetusError('invalid', `request body is larger than ${limit} bytes`);

export class HttpTransport implements Transport {
  /** A body that was refused or not wanted is never read to its end: the connection is closed behind the answer instead. */
  private abandonBody = false;
  private readonly socket: Socket;

  constructor(private readonly req: IncomingMessage, private readonly res: ServerResponse) {
    this.socket = req.socket;
  }

  get started(): boolean {
    return this.res.headersSent;
  }

  get status(): number {
    return this.res.statusCode;
  }

  readBody(limitBytes: number): Promise<Buffer> {
    const {req} = this;
    return new Promise((resolve, reject) => {
      const chunks: Buffer[] = [];
      let size = 0;
      const refuse = (err: CetusError): void => {
        this.abandonBody = true;
        settle();
        req.pause();
        reject(err);
      };
      const settle = (): void => {
        clearTimeout(timer);
        req.off('data', onData).off('end', onEnd).off('close', onClose).off('error', onClose);
      };
      const onData = (chunk: Buffer): void => {
        size += chunk.length;
        if (size > limitBytes) refuse(tooLarge(limitBytes));
        else chunks.push(chunk);
      };
      const onEnd = (): void => {
        settle();
        resolve(Buffer.concat(chunks));
      };
      const onClose = (): void => refuse(new CetusError('canceled', 'the client left before its request was complete'));
      const timer = setTimeout(() => refuse(new CetusError('timeout', 'the request body did not arrive in time')), BODY_DEADLINE_MS);
      if (Number(req.headers['content-length'] ?? 0) > limitBytes) return refuse(tooLarge(limitBytes));
      req.on('data', onData).on('end', onEnd).on('close', onClose).on('error', onClose);
    });
  }

  bodyStream(): Readable {
    const {req} = this;
    // Silence counts from the last byte, not from the start: a load may take hours. A reader of ours that is busy is silence as well,
    // so the bound is generous.
    const timer = setTimeout(() => body.destroy(new CetusError('timeout', 'the request body stalled')), BODY_IDLE_MS);
    const body = uploadBody(req, () => void timer.refresh());
    body.once('close', () => {
      clearTimeout(timer);
      if (!req.complete) this.abandonBody = true;
    });
    // A verb that refuses before it has read anything leaves the body alone.
    this.res.once('close', () => clearTimeout(timer));
    return body;
  }

  complete(status: number, headers: Headers, body: string | Buffer): void {
    const bodiless = status === 204 || status === 304;
    const all = bodiless ? headers : {...headers, 'Content-Length': String(Buffer.byteLength(body))};
    this.res.writeHead(status, this.closing(all));
    this.dropBody();
    this.res.end(bodiless || this.req.method === 'HEAD' ? undefined : body);
  }

  begin(status: number, headers: Headers): Writable {
    this.res.writeHead(status, this.closing(headers));
    this.res.flushHeaders();
    // Where the body is still being read (load answers while it reads), only its rest is dropped.
    this.res.once('prefinish', () => this.dropBody());
    return this.res;
  }

  cut(): void {
    this.res.destroy();
  }

  onGone(left: () => void): void {
    this.res.once('close', () => { if (!this.res.writableFinished) left(); });
  }

  takeOverWebSocket(): Promise<WebSocket> {
    throw new CetusError('internal', 'only a hijacked request can be taken over');
  }

  takeOver(): Socket {
    throw new CetusError('invalid', 'this connection cannot be taken over: another answer is still being sent on it');
  }

  private closing(headers: Headers): Headers {
    return this.abandonBody || (!this.req.complete && this.hasBody()) ? {...headers, Connection: 'close'} : headers;
  }

  private hasBody(): boolean {
    return this.req.headers['transfer-encoding'] !== undefined || Number(this.req.headers['content-length'] ?? 0) > 0;
  }

  /**
   * A body that nobody wanted to its end: Node would either read all of it, however long, or reset the connection before the client has
   * read the answer. Instead the answer goes out, and what still comes is dropped for a short while.
   */
  private dropBody(): void {
    const {req, socket} = this;
    if (req.complete || !this.hasBody()) return;
    socket.destroySoon = () => closeGently(socket);
    req.resume();
  }
}

export class RawTransport implements Transport {
  started = false;
  status = 0;
  private gone: (() => void) | undefined;

  constructor(private readonly req: IncomingMessage, private readonly socket: Socket, head: Buffer) {
    if (head.length) socket.unshift(head);
    socket.setTimeout(0);
    socket.setNoDelay(true);
    // Without a listener a reset by the client would end the process.
    socket.on('error', () => { /* 'close' follows and is what everybody waits for */ });
    socket.once('close', () => this.gone?.());
  }

  readBody(limitBytes: number): Promise<Buffer> {
    return readRawBody(this.req, this.socket, limitBytes);
  }

  bodyStream(): Readable {
    const framing = framingOf(this.req.headers);
    if (!framing) return Readable.from([]);
    welcome(this.req, this.socket);
    // Who looks away while another process reads must be told that the client has left.
    noticeHangUp(this.socket, true);
    return new RawBody(this.socket, framing, BODY_IDLE_MS);
  }

  complete(status: number, headers: Headers, body: string | Buffer): void {
    const bodiless = status === 204 || status === 304;
    this.head(status, STATUS_CODES[status] ?? 'Unknown', {
      ...headers, Date: new Date().toUTCString(), Connection: 'close',
      ...(bodiless ? {} : {'Content-Length': String(Buffer.byteLength(body))}),
    });
    if (!bodiless) this.socket.write(body);
    closeGently(this.socket);
  }

  begin(): Writable {
    throw new CetusError('internal', 'a hijacked request is answered whole or taken over');
  }

  cut(): void {
    this.socket.destroy();
  }

  onGone(left: () => void): void {
    this.gone = left;
    if (this.socket.destroyed) left();
  }

  takeOverWebSocket(headers: Headers): Promise<WebSocket> {
    this.started = true;
    this.status = 101;
    return acceptWebSocket(this.req, this.socket, headers);
  }

  takeOver(status: number, reason: string, headers: Headers): Socket {
    this.head(status, reason, headers);
    return this.socket;
  }

  private head(status: number, reason: string, headers: Headers): void {
    this.started = true;
    this.status = status;
    const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
    this.socket.write(`HTTP/1.1 ${status} ${reason}\r\n${lines.join('')}\r\n`);
  }
}
