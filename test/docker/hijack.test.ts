/** Hijacked streams over real sockets, in every combination that clients use. */
import {once} from 'node:events';
import fs from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import type {ListenAddress} from '../../lib/docker/listen';
import {fakeContainer} from './fake-datacenter';
import {RawClient, unframe} from './raw-client';
import {TEST_CERT, TEST_KEY} from './tls-fixture';
import {type World, closeWorlds, until, world} from './world';

const clients: RawClient[] = [];
let folder: string;
beforeAll(() => { folder = fs.mkdtempSync(path.join(os.tmpdir(), 'cetus-docker-')); });
afterAll(() => fs.rmSync(folder, {recursive: true, force: true}));
afterEach(async () => {
  clients.splice(0).forEach((client) => client.close());
  await closeWorlds();
});

type Carrier = 'tcp' | 'unix' | 'tls';
let sockets = 0;

async function over(carrier: Carrier): Promise<World & {connect(): Promise<RawClient>}> {
  const listen: ListenAddress = carrier === 'unix' ? {path: path.join(folder, `s${sockets += 1}`)} : {host: '127.0.0.1', port: 0};
  const made = await world({listen, ...(carrier === 'tls' ? {tls: {cert: TEST_CERT, key: TEST_KEY}} : {})});
  return {...made, connect: async () => {
    const client = await RawClient.connect(made.address, carrier === 'tls');
    clients.push(client);
    return client;
  }};
}

/** Every byte value, more than any single chunk. */
const BINARY = Buffer.from(Array.from({length: 200_000}, (_, n) => (n * 7) % 256));
const UPGRADE = 'Connection: Upgrade\r\nUpgrade: tcp\r\n';

async function ping(client: RawClient, more = ''): Promise<void> {
  client.send(`GET /_ping HTTP/1.1\r\nHost: x\r\n${more}\r\n`);
  expect((await client.head()).status).toBe(200);
  expect((await client.body(2)).toString()).toBe('OK');
}

const carriers: Carrier[] = ['tcp', 'unix', 'tls'];
const upgrades: ['with' | 'without', string][] = [['with', UPGRADE], ['without', '']];

describe.each(carriers)('over %s', (carrier) => {
  describe.each(upgrades)('%s an Upgrade header', (_name, upgrade) => {
    it('attach: bytes behind the head are stdin, half-close ends stdin only, output flows on', async () => {
      const {fake, connect} = await over(carrier);
      const {container, process} = fake.add(fakeContainer({}, {Cmd: ['cat'], OpenStdin: true}));
      const client = await connect();
      await ping(client);
      client.send(`POST /v1.51/containers/${container.id}/attach?stream=1&stdin=1&stdout=1&stderr=1 HTTP/1.1\r\nHost: x\r\n${upgrade}\r\n`, 'GET / HTTP/1.1\r\n\r\n');
      const head = await client.head();
      if (upgrade) expect(head).toMatchObject({status: 101, reason: 'UPGRADED', headers: {connection: 'Upgrade', upgrade: 'tcp', 'content-type': 'application/vnd.docker.multiplexed-stream'}});
      else expect(head).toMatchObject({status: 200, reason: 'OK', headers: {'content-type': 'application/vnd.docker.raw-stream'}});
      process.run();
      client.send(BINARY);
      client.socket.end();
      const {out} = unframe(await client.rest());
      expect(out.equals(Buffer.concat([Buffer.from('GET / HTTP/1.1\r\n\r\n'), BINARY]))).toBe(true);
    });

    it('attach: a body of announced length is not stdin', async () => {
      const {fake, connect} = await over(carrier);
      const {container, process} = fake.add(fakeContainer({}, {Cmd: ['cat'], OpenStdin: true}));
      const client = await connect();
      client.send(`POST /containers/${container.id}/attach?stream=1&stdin=1&stdout=1 HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 14\r\n${upgrade}\r\n{"stdin":true`, '}and stdin');
      expect((await client.head()).status).toBe(upgrade ? 101 : 200);
      process.run();
      client.socket.end();
      expect(unframe(await client.rest()).out.toString()).toBe('and stdin');
    });

    const json = '{"Detach":false,"Tty":false}';
    it.each([
      ['no body', '', ''],
      ['Content-Length', `Content-Type: application/json\r\nContent-Length: ${json.length}\r\n`, json],
      ['chunks', 'Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n', `5\r\n${json.slice(0, 5)}\r\n${(json.length - 5).toString(16)};x=y\r\n${json.slice(5)}\r\n0\r\nTrailer: t\r\n\r\n`],
    ])('exec start with %s: body and stdin are told apart', async (_kind, headers, body) => {
      const {fake, connect} = await over(carrier);
      const {container} = fake.add(fakeContainer({status: 'running'}, {Cmd: ['sleep']}));
      const {id} = await fake.datacenter().execs.create({account: 'default', requestId: 'r'}, container.id, {Cmd: ['cat'], AttachStdin: true});
      const client = await connect();
      await ping(client, 'Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n');
      await ping(client);
      client.send(`POST /exec/${id}/start HTTP/1.1\r\nHost: x\r\n${headers}${upgrade}\r\n${body}`, 'early ');
      expect((await client.head()).status).toBe(upgrade ? 101 : 200);
      client.send(BINARY);
      client.socket.end();
      const {out} = unframe(await client.rest());
      expect(out.equals(Buffer.concat([Buffer.from('early '), BINARY]))).toBe(true);
    });

    it('a body that arrives byte by byte', async () => {
      const {fake, connect} = await over(carrier);
      const {container} = fake.add(fakeContainer({status: 'running'}, {Cmd: ['sleep']}));
      const {id} = await fake.datacenter().execs.create({account: 'default', requestId: 'r'}, container.id, {Cmd: ['sink'], AttachStdin: true});
      const client = await connect();
      client.socket.setNoDelay(true);
      const bytes = `POST /exec/${id}/start HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n${upgrade}\r\n${json.length.toString(16)}\r\n${json}\r\n0\r\n\r\nabc`;
      for (const byte of bytes) {
        client.send(byte);
        await new Promise((resolve) => setImmediate(resolve));
      }
      client.socket.end();
      expect((await client.head()).status).toBe(upgrade ? 101 : 200);
      expect(unframe(await client.rest()).out.toString()).toBe('3\n');
    });

    it('errors before the stream are whole answers', async () => {
      const {connect} = await over(carrier);
      const client = await connect();
      client.send(`POST /containers/nope/attach?stream=1 HTTP/1.1\r\nHost: x\r\n${upgrade}\r\n`);
      const head = await client.head();
      expect(head).toMatchObject({status: 404, headers: {'content-type': 'application/json', 'api-version': '1.51', connection: 'close'}});
      expect(JSON.parse((await client.rest()).toString())).toEqual({message: 'No such container: nope'});
    });
  });

  it('a detached exec is answered without a stream', async () => {
    const {fake, connect} = await over(carrier);
    const {container} = fake.add(fakeContainer({status: 'running'}, {Cmd: ['sleep']}));
    const {id} = await fake.datacenter().execs.create({account: 'default', requestId: 'r'}, container.id, {Cmd: ['exit', '3']});
    const client = await connect();
    const body = '{"Detach":true}';
    client.send(`POST /exec/${id}/start HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`);
    expect(await client.head()).toMatchObject({status: 200, headers: {'content-length': '0'}});
    await until('the exit', () => fake.execs.get(id)!.exec.exitCode === 3);
  });

  it('64 MiB of output wait for a client that does not read, unbuffered', async () => {
    const {fake, connect} = await over(carrier);
    const size = 64 * 1024 * 1024;
    const {container, process: flood} = fake.add(fakeContainer({}, {Cmd: ['flood', String(size)], Tty: true}));
    const client = await connect();
    client.send(`POST /containers/${container.id}/attach?stream=1&stdout=1 HTTP/1.1\r\nHost: x\r\n\r\n`);
    await client.head();
    const before = client.received;
    client.keep = false;
    // A client that does not read: the pump must come to rest.
    client.socket.pause();
    flood.run();
    let seen = -1;
    await until('the pump to rest', () => {
      const now = flood.output.readableLength + flood.output.writableLength;
      const resting = seen === now && now > 0;
      seen = now;
      return resting;
    });
    expect(flood.output.writableLength).toBeLessThan(1024 * 1024);
    client.socket.resume();
    await client.rest(30_000);
    expect(client.received - before).toBe(size);
  });
});

it('64 MiB of stdin wait for a container that does not read, unbuffered', async () => {
  const {fake, connect} = await over('tcp');
  const {container, process} = fake.add(fakeContainer({}, {Cmd: ['sink'], OpenStdin: true, Tty: true}));
  const client = await connect();
  client.send(`POST /containers/${container.id}/attach?stream=1&stdin=1&stdout=1 HTTP/1.1\r\nHost: x\r\n\r\n`);
  await client.head();
  const chunk = Buffer.alloc(1024 * 1024);
  for (let n = 0; n < 64; n += 1) client.socket.write(chunk);
  client.socket.end();
  await until('stdin to fill', () => process.stdin.writableNeedDrain);
  // What the kernel's buffers do not hold must still be the client's.
  expect(client.socket.writableLength).toBeGreaterThan(32 * chunk.length);
  expect(process.stdin.readableLength + process.stdin.writableLength).toBeLessThan(chunk.length);
  process.run();
  expect((await client.rest(30_000)).toString()).toBe(`${64 * chunk.length}\n`);
});

it('an exec whose command is missing says so on the stream, so that the CLI asks for the exit code', async () => {
  const {fake, connect} = await over('tcp');
  const {container} = fake.add(fakeContainer({status: 'running'}, {Cmd: ['sleep']}));
  const {id} = await fake.datacenter().execs.create({account: 'default', requestId: 'r'}, container.id, {Cmd: ['missing']});
  const client = await connect();
  client.send(`POST /exec/${id}/start HTTP/1.1\r\nHost: x\r\n${UPGRADE}\r\n`);
  expect((await client.head()).status).toBe(101);
  expect(unframe(await client.rest()).out.toString()).toBe('OCI runtime exec failed: exec: "missing": executable file not found in $PATH: unknown\r\n');
});

it.each([
  ['truncated', 'Content-Length: 50\r\nContent-Type: application/json\r\n', '{"Detach"', 400, 'unexpected EOF'],
  ['not JSON', 'Content-Length: 3\r\nContent-Type: application/json\r\n', '{]}', 400, 'invalid JSON'],
  ['not chunks', 'Transfer-Encoding: chunked\r\nContent-Type: application/json\r\n', 'zz\r\n', 400, 'malformed chunked body'],
  ['endless chunks', 'Transfer-Encoding: chunked\r\nContent-Type: application/json\r\n', 'fffffff\r\n', 400, 'larger than'],
  ['too long', 'Content-Length: 999999999\r\nContent-Type: application/json\r\n', '', 400, 'larger than'],
  ['another type', 'Content-Length: 2\r\nContent-Type: text/plain\r\n', '{}', 400, "must be 'application/json'"],
])('a %s exec start body is refused', async (_name, headers, body, status, message) => {
  const {connect} = await over('tcp');
  const client = await connect();
  client.send(`POST /exec/x/start HTTP/1.1\r\nHost: x\r\n${headers}\r\n${body}`);
  client.socket.end();
  expect((await client.head()).status).toBe(status);
  expect((JSON.parse((await client.rest()).toString()) as {message: string}).message).toContain(message);
});

it('a client that vanishes ends the stream', async () => {
  const {fake, connect} = await over('tcp');
  const {container, process} = fake.add(fakeContainer({}, {Cmd: ['sleep']}));
  const client = await connect();
  client.send(`POST /containers/${container.id}/attach?stream=1&stdin=1&stdout=1 HTTP/1.1\r\nHost: x\r\n\r\n`);
  await client.head();
  client.socket.resetAndDestroy();
  await until('the stream to end', () => process.output.destroyed);
});

it('only clients from 1.42 on are told of frames, and never with a terminal', async () => {
  const {fake, connect} = await over('tcp');
  const plain = fake.add(fakeContainer({}, {Cmd: ['sleep']})).container;
  const tty = fake.add(fakeContainer({}, {Cmd: ['sleep'], Tty: true})).container;
  const typeFor = async (version: string, id: string): Promise<string | undefined> => {
    const client = await connect();
    client.send(`POST /v${version}/containers/${id}/attach?stream=1&stdout=1 HTTP/1.1\r\nHost: x\r\n${UPGRADE}\r\n`);
    return (await client.head()).headers['content-type'];
  };
  expect(await typeFor('1.42', plain.id)).toBe('application/vnd.docker.multiplexed-stream');
  expect(await typeFor('1.41', plain.id)).toBe('application/vnd.docker.raw-stream');
  expect(await typeFor('1.51', tty.id)).toBe('application/vnd.docker.raw-stream');
});

it('a client that left amid its handshake does not hold up the end', async () => {
  const {port, edge} = await over('tls');
  const socket = net.connect({host: '127.0.0.1', port, allowHalfOpen: true});
  await once(socket, 'connect');
  // The first record of a handshake, of which nothing more comes.
  socket.end(Buffer.from([0x16, 0x03, 0x01, 0x02, 0x00, 0x01]));
  // Another connection's whole handshake: the server has seen the first one by then.
  await RawClient.connect({host: '127.0.0.1', port}, true).then((client) => clients.push(client));
  await edge.close();
  await once(socket, 'close');
}, 30_000);

it.each(['tcp', 'tls'] as const)('closing the edge ends hijacked connections too, over %s', async (carrier) => {
  const {fake, connect, edge} = await over(carrier);
  const {container} = fake.add(fakeContainer({}, {Cmd: ['sleep']}));
  const client = await connect();
  client.send(`POST /containers/${container.id}/attach?stream=1&stdout=1 HTTP/1.1\r\nHost: x\r\n\r\n`);
  await client.head();
  await edge.close();
  await client.rest();
});
