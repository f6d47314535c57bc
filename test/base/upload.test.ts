import {createHash, randomBytes} from 'node:crypto';
import http from 'node:http';
import type {AddressInfo} from 'node:net';
import type {Readable} from 'node:stream';
import {isCetusError} from '../../lib/base/errors';
import {uploadBody} from '../../lib/base/upload';

describe('uploadBody', () => {
  let server: http.Server;
  let take: (body: Readable, req: http.IncomingMessage, res: http.ServerResponse) => void;
  const agent = new http.Agent({keepAlive: true, maxSockets: 1});
  beforeAll(async () => {
    server = http.createServer((req, res) => take(uploadBody(req), req, res));
    await new Promise<void>((resolve) => { server.listen(0, '127.0.0.1', resolve); });
  });
  afterAll(async () => {
    agent.destroy();
    server.closeAllConnections();
    await new Promise((resolve) => { server.close(resolve); });
  });
  const send = (): {req: http.ClientRequest; answer: Promise<string>} => {
    const req = http.request({port: (server.address() as AddressInfo).port, method: 'POST', agent});
    const answer = new Promise<string>((resolve, reject) => {
      req.once('error', reject);
      req.once('response', (res) => {
        let text = '';
        res.setEncoding('utf8').on('data', (part: string) => { text += part; }).once('end', () => resolve(text));
      });
    });
    return {req, answer};
  };

  test('many small pieces come out whole, in order, and as fewer lumps', async () => {
    let lumps = 0;
    take = (body, _req, res) => {
      const hash = createHash('sha256');
      body.on('data', (lump: Buffer) => {
        lumps += 1;
        hash.update(lump);
      }).once('end', () => res.end(hash.digest('hex')));
    };
    const bytes = randomBytes(8 << 20);
    const {req, answer} = send();
    const PIECE = 4096;
    for (let at = 0; at < bytes.length; at += PIECE) if (!req.write(bytes.subarray(at, at + PIECE))) await new Promise((resolve) => req.once('drain', resolve));
    req.end();
    expect(await answer).toBe(createHash('sha256').update(bytes).digest('hex'));
    expect(lumps).toBeLessThan(bytes.length / PIECE / 4);
  });

  test('what was sent comes out although nothing follows', async () => {
    take = (body, _req, res) => { body.once('data', (lump: Buffer) => res.end(lump)); };
    const {req, answer} = send();
    req.write('first');
    expect(await answer).toBe('first');
    req.end();
  });

  test('who does not read holds the sender back', async () => {
    let read!: () => void;
    let body!: Readable;
    const arrived = new Promise<void>((resolve) => {
      take = (it, _req, res) => {
        body = it;
        read = () => void it.once('end', () => res.end('done')).resume();
        resolve();
      };
    });
    const {req, answer} = send();
    const piece = Buffer.alloc(1 << 20);
    let taken = 0;
    for (let n = 0; n < 64; n += 1) req.write(piece, () => { taken += 1; });
    req.end();
    await arrived;
    const settled = async (): Promise<number> => {
      for (let last = -1, same = 0; ; last = taken) {
        same = last === taken ? same + 1 : 0;
        if (same === 20) return taken;
        await new Promise((resolve) => { setTimeout(resolve, 5); });
      }
    };
    expect(await settled()).toBeLessThan(48);
    expect(body.readableLength).toBeLessThan(2 << 20);
    read();
    expect(await answer).toBe('done');
  });

  test('a reader that gives up leaves the connection to the answer', async () => {
    take = (body, req, res) => {
      body.once('data', () => {
        body.destroy();
        res.end('enough', () => void req.resume());
      });
    };
    const {req, answer} = send();
    req.write(Buffer.alloc(2 << 20));
    req.end();
    expect(await answer).toBe('enough');
  });

  test('a sender that leaves is told, also to a reader that comes later', async () => {
    const left = new Promise<unknown>((resolve) => {
      take = (body, req) => { req.once('close', () => resolve(body.errored)); };
    });
    const {req, answer} = send();
    req.write('half', () => req.destroy());
    await expect(answer).rejects.toThrow();
    expect(isCetusError(await left, 'canceled')).toBe(true);
  });
});
