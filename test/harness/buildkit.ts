/** The control API of BuildKit as buildx speaks it, as little of it as tests need: gRPC by hand over a connection upgraded to h2c. */
import http from 'node:http';
import http2, {type ClientHttp2Session} from 'node:http2';
import type {Duplex} from 'node:stream';

export interface ControlAnswer { status: string; message: string; body: Buffer }

/** protobuf: a field of bytes, and a map of words. */
const varint = (n: number): Buffer => Buffer.from(n < 128 ? [n] : [(n & 127) | 128, ...varint(n >> 7)]);
export const field = (tag: number, value: Buffer | string): Buffer => Buffer.concat([varint((tag << 3) | 2), varint(Buffer.byteLength(value)), Buffer.from(value)]);
export const words = (tag: number, map: Record<string, string>): Buffer => Buffer.concat(Object.entries(map).map(([key, value]) => field(tag, Buffer.concat([field(1, key), field(2, value)]))));

export class BuildControl {
  private constructor(private readonly session: ClientHttp2Session) {}

  /** `host`: as DOCKER_HOST, over TCP. */
  static async open(host: string): Promise<BuildControl> {
    const {hostname, port} = new URL(host.replace('tcp:', 'http:'));
    const socket = await new Promise<Duplex>((resolve, reject) => {
      const request = http.request({hostname, port, method: 'POST', path: '/grpc', headers: {connection: 'Upgrade', upgrade: 'h2c'}});
      request.once('upgrade', (_answer, upgraded, head) => {
        if (head.length) upgraded.unshift(head);
        resolve(upgraded);
      });
      request.once('response', (answer) => reject(new Error(`/grpc answered ${answer.statusCode}`))).once('error', reject).end();
    });
    return new BuildControl(http2.connect('http://docker', {createConnection: () => socket}));
  }

  call(method: string, message = Buffer.alloc(0)): Promise<ControlAnswer> {
    return new Promise((resolve, reject) => {
      const stream = this.session.request({':method': 'POST', ':path': `/moby.buildkit.v1.Control/${method}`, 'content-type': 'application/grpc', te: 'trailers'});
      const body: Buffer[] = [];
      let head: Record<string, unknown> = {};
      stream.on('response', (headers) => { head = {...head, ...headers}; }).on('trailers', (trailers) => { head = {...head, ...trailers}; });
      stream.on('data', (chunk: Buffer) => body.push(chunk)).once('error', reject);
      stream.once('end', () => resolve({status: String(head['grpc-status']), message: String(head['grpc-message'] ?? ''), body: Buffer.concat(body)}));
      const frame = Buffer.alloc(5);
      frame.writeUInt32BE(message.length, 1);
      stream.end(Buffer.concat([frame, message]));
    });
  }

  /** A build of the Dockerfile in the tar at that address. */
  solve(context: string, attributes: Record<string, string>): Promise<ControlAnswer> {
    return this.call('Solve', Buffer.concat([field(1, `solve-${process.hrtime.bigint()}`), field(3, 'moby'), words(4, attributes), field(6, 'dockerfile.v0'), words(7, {context})]));
  }

  close(): void {
    this.session.destroy();
  }
}
