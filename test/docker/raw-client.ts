/** A client that sees every byte: for hijacked streams no HTTP library may stand between the test and the socket. */
import net from 'node:net';
import tls from 'node:tls';
import type {ListenAddress} from '../../lib/docker/listen';
import {until} from './world';

/** A server's end alone does not end a client that may still speak: forgotten, it would keep the tests' process. */
const open = new Set<net.Socket>();
afterAll(() => {
  for (const socket of open) socket.destroy();
});

export interface RawAnswer { status: number; reason: string; headers: Record<string, string> }

export class RawClient {
  private chunks: Buffer[] = [];
  received = 0;
  ended = false;
  /** Switch off to count bytes without keeping them. */
  keep = true;

  private constructor(readonly socket: net.Socket) {
    open.add(socket.once('close', () => open.delete(socket)));
    socket.on('data', (chunk: Buffer) => {
      this.received += chunk.length;
      if (this.keep) this.chunks.push(chunk);
    });
    socket.on('end', () => { this.ended = true; }).on('close', () => { this.ended = true; }).on('error', () => { this.ended = true; });
  }

  static async connect(address: ListenAddress, secure = false): Promise<RawClient> {
    const to = {...address, allowHalfOpen: true} as net.NetConnectOpts;
    const socket = secure ? tls.connect({...(to as tls.ConnectionOptions), rejectUnauthorized: false}) : net.connect(to);
    await new Promise<void>((resolve, reject) => { socket.once(secure ? 'secureConnect' : 'connect', () => resolve()).once('error', reject); });
    return new RawClient(socket);
  }

  send(...parts: (string | Buffer)[]): void {
    this.socket.write(Buffer.concat(parts.map((part) => (typeof part === 'string' ? Buffer.from(part, 'latin1') : part))));
  }

  get bytes(): Buffer {
    const all = Buffer.concat(this.chunks);
    this.chunks = [all];
    return all;
  }

  /** Takes one answer's head off the received bytes. */
  async head(): Promise<RawAnswer> {
    await until('the head of an answer', () => this.bytes.includes('\r\n\r\n') || this.ended);
    const end = this.bytes.indexOf('\r\n\r\n');
    if (end < 0) throw new Error(`no answer, only ${JSON.stringify(this.bytes.toString('latin1'))}`);
    const [first, ...lines] = this.bytes.subarray(0, end).toString('latin1').split('\r\n');
    this.chunks = [this.bytes.subarray(end + 4)];
    const [, status, reason] = /^HTTP\/1\.1 (\d+) (.*)$/.exec(first!)!;
    return {status: Number(status), reason: reason!, headers: Object.fromEntries(lines.map((l) => [l.slice(0, l.indexOf(':')).toLowerCase(), l.slice(l.indexOf(':') + 2)]))};
  }

  /** Takes `length` bytes of a body. */
  async body(length: number): Promise<Buffer> {
    await until(`${length} bytes`, () => this.bytes.length >= length || this.ended);
    const body = this.bytes.subarray(0, length);
    this.chunks = [this.bytes.subarray(length)];
    return body;
  }

  async rest(boundMs?: number): Promise<Buffer> {
    await until('the end of the stream', () => this.ended, boundMs);
    return this.bytes;
  }

  close(): void {
    this.socket.destroy();
  }
}

/** The payloads of multiplexed frames, by stream. */
export function unframe(bytes: Buffer): {out: Buffer; err: Buffer} {
  const streams: [Buffer[], Buffer[]] = [[], []];
  for (let at = 0; at < bytes.length;) {
    const length = bytes.readUInt32BE(at + 4);
    streams[bytes[at] === 2 ? 1 : 0].push(bytes.subarray(at + 8, at + 8 + length));
    at += 8 + length;
  }
  return {out: Buffer.concat(streams[0]), err: Buffer.concat(streams[1])};
}
