/**
 * Ways to a syslog server, one interface over streams (tcp, TLS, unix) and datagrams (udp, unixgram). Making one fails in the Engine's words, which
 * are Go's: "dial tcp 127.0.0.1:514: connect: connection refused".
 */
import dgram from 'node:dgram';
import dns from 'node:dns/promises';
import fs from 'node:fs';
import net from 'node:net';
import tls from 'node:tls';
import {CetusError} from '../../../base/errors';
import {UnixDatagrams} from './datagrams';
import type {SyslogOptions} from './options';

export interface Carrier {
  /** Takes the message, now or when there is room; the memory is its own from then on. */
  send(message: Buffer): void;
  /** Bytes taken and not yet given to the kernel. */
  readonly waiting: number;
  /** There is room again. */
  onDrain?: () => void;
  /** It is over; called once, never after `close`. */
  onBroken?: (err: Error) => void;
  /** What waits is still sent, for a bounded time. */
  close(graceMs: number): Promise<void>;
}

const CONNECT_MS = 10_000;
const LOCAL = ['/dev/log', '/var/run/syslog', '/var/run/log'];
const RETRY_MS = 20;
const WORDS: Record<string, string> = {
  ECONNREFUSED: 'connection refused', ENOENT: 'no such file or directory', ETIMEDOUT: 'i/o timeout', EHOSTUNREACH: 'no route to host', ENETUNREACH: 'network is unreachable',
  EACCES: 'permission denied', EPROTOTYPE: 'protocol wrong type for socket', ENAMETOOLONG: 'invalid argument',
};
const failed = (message: string, cause?: unknown): CetusError => new CetusError('internal', `failed to initialize logging driver: ${message}`, {cause, shown: `failed to initialize logging driver: ${message}`});

export async function connectSyslog({address, tls: files}: Pick<SyslogOptions, 'address' | 'tls'>): Promise<Carrier> {
  switch (address.proto) {
    case 'local': return connectLocal();
    case 'unixgram': return new DatagramCarrier(dialUnixgram(address.path));
    case 'unix': return await stream(`dial unix ${address.path}`, net.connect({path: address.path}), 'connect');
    case 'tcp': return await stream(dialling('tcp', address), net.connect({host: address.host, port: address.port}), 'connect');
    case 'tcp+tls': {
      const secure = tls.connect({host: address.host, port: address.port, ...readTls(files), ...(net.isIP(address.host) ? {} : {servername: address.host})});
      return await stream(dialling('tcp', address), secure, 'secureConnect');
    }
    case 'udp': {
      const found = await dns.lookup(address.host).catch((err: unknown) => { throw failed(`dial udp: lookup ${address.host}: no such host`, err); });
      return new UdpCarrier(found.family === 6 ? 'udp6' : 'udp4', found.address, address.port);
    }
  }
}

const dialling = (proto: string, {host, port}: {host: string; port: number}): string => `dial ${proto} ${net.isIPv6(host) ? `[${host}]` : host}:${port}`;
const word = (err: NodeJS.ErrnoException): string => (err.code && WORDS[err.code] ? `connect: ${WORDS[err.code]}` : err.message);

/** As the Engine without an address: whoever collects the machine's own log. */
async function connectLocal(): Promise<Carrier> {
  for (const path of LOCAL.filter((name) => fs.existsSync(name))) {
    try {
      return new DatagramCarrier(new UnixDatagrams(path));
    } catch { /* one that takes streams, or nobody */ }
    const carrier = await stream('', net.connect({path}), 'connect').catch(() => undefined);
    if (carrier) return carrier;
  }
  throw failed('Unix syslog delivery error');
}

function dialUnixgram(path: string): UnixDatagrams {
  try {
    return new UnixDatagrams(path);
  } catch (err) {
    throw failed(`dial unixgram ${path}: ${word(err as NodeJS.ErrnoException)}`, err);
  }
}

function readTls({ca, cert, key, skipVerify}: SyslogOptions['tls']): tls.ConnectionOptions {
  const read = (what: string, file: string): Buffer => {
    try {
      return fs.readFileSync(file);
    } catch (err) {
      throw failed(`could not ${what} "${file}": open ${file}: ${WORDS[(err as NodeJS.ErrnoException).code ?? ''] ?? (err as Error).message}`, err);
    }
  };
  return {
    rejectUnauthorized: !skipVerify, ...(ca && !skipVerify ? {ca: read('read CA certificate', ca)} : {}),
    ...(cert && key ? {cert: read('load X509 key pair', cert), key: read('load X509 key pair', key)} : {}),
  };
}

function stream(doing: string, socket: net.Socket, ready: 'connect' | 'secureConnect'): Promise<Carrier> {
  return new Promise((resolve, reject) => {
    const refuse = (err: Error): void => {
      socket.destroy();
      reject(failed(`${doing}: ${word(err)}`, err));
    };
    const timer = setTimeout(() => refuse(Object.assign(new Error('i/o timeout'), {code: 'ETIMEDOUT'})), CONNECT_MS);
    socket.once('error', refuse).once('close', () => clearTimeout(timer)).once(ready, () => {
      clearTimeout(timer);
      socket.off('error', refuse);
      resolve(new StreamCarrier(socket));
    });
  });
}

class StreamCarrier implements Carrier {
  onDrain?: () => void;
  onBroken?: (err: Error) => void;

  constructor(private readonly socket: net.Socket) {
    const broken = (err: Error): void => {
      socket.destroy();
      this.onBroken?.(err);
      this.onBroken = undefined;
    };
    socket.setKeepAlive(true, 30_000);
    // Nothing is expected back; read, so that the server's end is noticed.
    socket.resume().on('drain', () => this.onDrain?.()).on('error', broken).on('close', () => broken(new Error('the server closed the connection')));
  }

  get waiting(): number {
    return this.socket.writableLength;
  }

  send(message: Buffer): void {
    this.socket.write(message);
  }

  close(graceMs: number): Promise<void> {
    this.onBroken = undefined;
    const {socket} = this;
    if (socket.destroyed) return Promise.resolve();
    return new Promise((resolve) => {
      const timer = setTimeout(() => socket.destroy(), graceMs);
      socket.once('close', () => {
        clearTimeout(timer);
        resolve();
      });
      socket.end(() => socket.destroy());
    });
  }
}

class UdpCarrier implements Carrier {
  private readonly socket: dgram.Socket;
  private queued = 0;
  onDrain?: () => void;

  constructor(type: dgram.SocketType, private readonly address: string, private readonly port: number) {
    this.socket = dgram.createSocket(type).on('error', () => undefined);
    this.socket.unref();
  }

  get waiting(): number {
    return this.queued;
  }

  /** What the network loses is lost, as everywhere with datagrams. */
  send(message: Buffer): void {
    this.queued += message.length;
    this.socket.send(message, this.port, this.address, () => {
      this.queued -= message.length;
      if (this.queued === 0) this.onDrain?.();
    });
  }

  async close(): Promise<void> {
    this.socket.close();
  }
}

class DatagramCarrier implements Carrier {
  private queue: Buffer[] = [];
  waiting = 0;
  onDrain?: () => void;
  onBroken?: (err: Error) => void;
  private timer: NodeJS.Timeout | undefined;
  private closed = false;

  constructor(private readonly socket: UnixDatagrams) {}

  send(message: Buffer): void {
    this.queue.push(message);
    this.waiting += message.length;
    if (!this.timer) this.flush();
  }

  async close(): Promise<void> {
    this.onBroken = undefined;
    if (this.closed) return;
    this.flush();
    this.end();
  }

  private flush(): void {
    clearTimeout(this.timer);
    this.timer = undefined;
    try {
      while (!this.closed && this.queue.length > 0) {
        if (!this.socket.send(this.queue[0]!)) {
          // Nobody says when there is room again.
          this.timer = setTimeout(() => this.flush(), RETRY_MS);
          return;
        }
        this.waiting -= this.queue.shift()!.length;
      }
      this.onDrain?.();
    } catch (err) {
      const {onBroken} = this;
      this.end();
      onBroken?.(err as Error);
    }
  }

  private end(): void {
    if (this.closed) return;
    this.closed = true;
    clearTimeout(this.timer);
    this.queue = [];
    this.waiting = 0;
    this.onBroken = undefined;
    this.socket.close();
  }
}
