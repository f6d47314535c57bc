/** Long tars into containers: the request's body on a connection of our own, as a stream, and lent to who reads the connection in our place. */
import {randomBytes} from 'node:crypto';
import {once} from 'node:events';
import fs from 'node:fs';
import net from 'node:net';
import type {AddressInfo} from 'node:net';
import {Unframer} from '../../lib/base/framing';
import {RawBody} from '../../lib/docker/raw-body';
import {fakeContainer} from './fake-datacenter';
import {RawClient} from './raw-client';
import {TEST_CERT, TEST_KEY} from './tls-fixture';
import {closeWorlds, until, world} from './world';

const CHUNKED = {kind: 'chunked', at: 'size', left: 0, line: ''} as const;
const chunk = (content: Buffer): Buffer => Buffer.concat([Buffer.from(`${content.length.toString(16)}\r\n`), content, Buffer.from('\r\n')]);
const END = Buffer.from('0\r\n\r\n');
const CONTENT = randomBytes(3_000_000);
const WIRE = Buffer.concat([chunk(CONTENT.subarray(0, 100)), chunk(CONTENT.subarray(100, 2_000_000)), chunk(CONTENT.subarray(2_000_000)), END]);

describe('a raw body', () => {
  const open: {destroy(): unknown}[] = [];
  let server: net.Server;
  beforeAll(async () => {
    server = net.createServer({allowHalfOpen: true}).listen(0, '127.0.0.1');
    await once(server, 'listening');
  });
  afterEach(() => open.splice(0).forEach((each) => each.destroy()));
  afterAll(() => new Promise((resolve) => server.close(resolve)));

  async function connection(silenceMs = 60_000): Promise<{client: net.Socket; socket: net.Socket; body: RawBody}> {
    const client = net.connect((server.address() as AddressInfo).port, '127.0.0.1').on('error', () => undefined);
    const [socket] = await once(server, 'connection') as [net.Socket];
    socket.on('error', () => undefined);
    const body = new RawBody(socket, {...CHUNKED}, silenceMs);
    open.push(client, socket, body);
    return {client, socket, body};
  }

  test('comes out whole', async () => {
    const {client, body} = await connection();
    client.write(WIRE);
    expect(Buffer.concat(await body.toArray() as Buffer[]).equals(CONTENT)).toBe(true);
  });

  test.each([0, 3, 50_000])('lent after %d bytes: what was read and what the connection still has are all of it, and the connection answers', async (before) => {
    const {client, socket, body} = await connection();
    client.write(WIRE.subarray(0, before));
    if (before) {
      body.read(0);
      await until('the first bytes', () => socket.bytesRead === before);
    }
    const {descriptor, read, framing} = body.lend()!;
    client.write(WIRE.subarray(before));
    const unframer = new Unframer(framing);
    const pieces = [read];
    const buffer = Buffer.alloc(65_536);
    while (!unframer.done) {
      try {
        const got = fs.readSync(descriptor, buffer, 0, buffer.length, null);
        if (!got) throw new Error('the connection ended');
        pieces.push(Buffer.from(buffer.subarray(0, unframer.take(buffer, 0, got))));
      } catch (err) {
        if ((err as NodeJS.ErrnoException).code !== 'EAGAIN') throw err;
        await new Promise((resolve) => setImmediate(resolve));
      }
    }
    expect(Buffer.concat(pieces).equals(CONTENT)).toBe(true);
    expect(socket.bytesRead).toBe(before);
    body.destroy();
    client.write('more');
    expect(String((await once(socket.resume(), 'data'))[0])).toBe('more');
    socket.end('answer');
    expect(String((await once(client, 'data'))[0])).toBe('answer');
  });

  test('taken back it goes on as if it had never been lent', async () => {
    const {client, socket, body} = await connection();
    client.write(WIRE.subarray(0, 1_000));
    body.read(0);
    await until('the first bytes', () => socket.bytesRead === 1_000);
    body.takeBack(body.lend()!);
    client.write(WIRE.subarray(1_000));
    expect(Buffer.concat(await body.toArray() as Buffer[]).equals(CONTENT)).toBe(true);
    expect(body.lend()).toBeUndefined();
  });

  test('who leaves, who is silent and who sends no chunks ends it with an error', async () => {
    const left = await connection();
    left.client.end(WIRE.subarray(0, -1));
    await expect(left.body.toArray()).rejects.toMatchObject({kind: 'canceled'});
    const silent = await connection(50);
    await expect(silent.body.toArray()).rejects.toMatchObject({kind: 'timeout', message: 'the request body stalled'});
    const wrong = await connection();
    wrong.client.write('no size\r\n');
    await expect(wrong.body.toArray()).rejects.toMatchObject({kind: 'invalid', message: 'malformed chunked body'});
  });
});

describe('PUT of an archive', () => {
  const clients: RawClient[] = [];
  afterEach(async () => {
    clients.splice(0).forEach((client) => client.close());
    await closeWorlds();
  });
  async function put(headers: string, body: Buffer | string, secure = false, query = '?path=/t'): Promise<{client: RawClient; status: number; connection: string | undefined; bytes: unknown}> {
    const {fake, address} = await world(secure ? {tls: {cert: TEST_CERT, key: TEST_KEY}} : {});
    fake.add(fakeContainer({name: 'c'}));
    const client = await RawClient.connect(address, secure);
    clients.push(client);
    client.send(`GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n`);
    await client.head();
    await client.body(2);
    client.send(`PUT /v1.41/containers/c/archive${query} HTTP/1.1\r\nHost: x\r\n${headers}\r\n`, body);
    const head = await client.head();
    return {client, status: head.status, connection: head.headers['connection'], bytes: fake.calls.at(-1)?.args.at(-1)};
  }
  const chunked = 'Transfer-Encoding: chunked\r\n';

  it('in chunks, and with a length, over TCP and TLS', async () => {
    for (const secure of [false, true]) {
      expect(await put(chunked, WIRE, secure)).toMatchObject({status: 200, bytes: CONTENT.length, ...(secure ? {} : {connection: 'close'})});
      expect(await put(`Content-Length: ${CONTENT.length}\r\n`, CONTENT, secure)).toMatchObject({status: 200, bytes: CONTENT.length});
    }
  });

  it('a short one leaves the connection to its next request', async () => {
    const {client, status, connection} = await put('Content-Length: 3\r\n', 'abc');
    expect([status, connection]).toEqual([200, 'keep-alive']);
    client.send('GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n');
    expect((await client.head()).status).toBe(200);
  });

  it('who waits to be asked is asked, and who is refused hears it in the middle of their bytes', async () => {
    const waiting = await put(`${chunked}Expect: 100-continue\r\n`, '');
    expect(waiting.status).toBe(100);
    waiting.client.send(WIRE);
    expect((await waiting.client.head()).status).toBe(200);
    const refused = await put(chunked, WIRE.subarray(0, 1_000_000), false, '');
    expect([refused.status, refused.connection]).toEqual([400, 'close']);
    refused.client.send(WIRE.subarray(1_000_000));
    expect(JSON.parse((await refused.client.rest()).toString())).toEqual({message: "bad parameter: 'path' cannot be empty"});
  });
});
