/** Attach over a WebSocket, with a stock WebSocket client on every carrier. */
import {EventEmitter} from 'node:events';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import {PassThrough} from 'node:stream';
import {WebSocket} from 'ws';
import type {ListenAddress} from '../../lib/docker/listen';
import {joinWebSocket, Unframer} from '../../lib/docker/websocket';
import {fakeContainer, frame} from './fake-datacenter';
import {RawClient} from './raw-client';
import {TEST_CERT, TEST_KEY} from './tls-fixture';
import {type World, closeWorlds, until, world} from './world';

const clients: {terminate?(): void; close(): void}[] = [];
let folder: string;
beforeAll(() => { folder = fs.mkdtempSync(path.join(os.tmpdir(), 'cetus-docker-')); });
afterAll(() => fs.rmSync(folder, {recursive: true, force: true}));
afterEach(async () => {
  clients.splice(0).forEach((client) => (client.terminate ? client.terminate() : client.close()));
  await closeWorlds();
});

type Carrier = 'tcp' | 'unix' | 'tls';
interface Talk { ws: WebSocket; messages: {data: Buffer; binary: boolean}[]; text(): string; closed: Promise<number> }

async function over(carrier: Carrier): Promise<World & {talk(url: string, options?: object): Talk; raw(): Promise<RawClient>}> {
  const listen: ListenAddress = carrier === 'unix' ? {path: path.join(folder, 'socket')} : {host: '127.0.0.1', port: 0};
  const made = await world({listen, ...(carrier === 'tls' ? {tls: {cert: TEST_CERT, key: TEST_KEY}} : {})});
  const base = 'path' in made.address ? `ws+unix://${made.address.path}:` : `${carrier === 'tls' ? 'wss' : 'ws'}://127.0.0.1:${made.address.port}`;
  return {
    ...made,
    raw: async () => {
      const client = await RawClient.connect(made.address, carrier === 'tls');
      clients.push(client);
      return client;
    },
    talk: (url, options = {}) => {
      const ws = new WebSocket(base + url, {rejectUnauthorized: false, ...options});
      clients.push(ws);
      const messages: Talk['messages'] = [];
      ws.on('message', (data: Buffer, binary: boolean) => messages.push({data, binary}));
      const closed = new Promise<number>((resolve, reject) => {
        ws.once('close', resolve).once('error', reject);
      });
      closed.catch(() => undefined);
      return {ws, messages, closed, text: () => Buffer.concat(messages.map((m) => m.data)).toString()};
    },
  };
}

const opened = (ws: WebSocket): Promise<void> => new Promise((resolve, reject) => void ws.once('open', () => resolve()).once('error', reject));
const HANDSHAKE = 'Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n';
const EVERYTHING = 'stream=1&stdin=1&stdout=1&stderr=1';

describe.each<Carrier>(['tcp', 'unix', 'tls'])('over %s', (carrier) => {
  it('messages are stdin, output comes without frames and in binary, and the end of it closes', async () => {
    const {fake, talk} = await over(carrier);
    const {container, process} = fake.add(fakeContainer({}, {Cmd: ['cat'], OpenStdin: true}));
    const {ws, messages, text, closed} = talk(`/v1.51/containers/${container.id}/attach/ws?${EVERYTHING}`);
    await opened(ws);
    process.run();
    ws.send('text ');
    ws.send(Buffer.from('and bytes'));
    await until('the echo', () => text() === 'text and bytes');
    expect(messages.every((m) => m.binary)).toBe(true);
    process.stdin.end();
    expect(await closed).toBe(1000);
  });

  it('an error before the handshake is an answer of HTTP', async () => {
    const {raw} = await over(carrier);
    const client = await raw();
    client.send('GET /containers/nope/attach/ws?stream=1 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n');
    expect(await client.head()).toMatchObject({status: 404, headers: {'content-type': 'application/json', 'api-version': '1.51', connection: 'close'}});
    expect(JSON.parse((await client.rest()).toString())).toEqual({message: 'No such container: nope'});
  });
});

describe('as the Engine', () => {
  it('text before API 1.28, never cut within a character; and before 1.42 every stream, whatever is asked for', async () => {
    const {fake, talk} = await over('tcp');
    const {container, process} = fake.add(fakeContainer({}, {Cmd: ['sleep']}));
    const {ws, messages, text} = talk(`/v1.27/containers/${container.id}/attach/ws?stream=1`);
    await opened(ws);
    expect(fake.calls.at(-1)!.args.at(-1)).toMatchObject({stdin: true, stdout: true, stderr: true, stream: true, logs: false});
    const euro = Buffer.from('€');
    process.output.write(frame(1, euro.subarray(0, 1)));
    process.output.write(frame(2, Buffer.from('!')));
    process.output.write(frame(1, euro.subarray(1)));
    await until('the text', () => text() === '!€');
    expect(messages.some((m) => m.binary)).toBe(false);
  });

  it('from 1.42 on what is asked for; detach keys and logs are passed on', async () => {
    const {fake, talk} = await over('tcp');
    const {container} = fake.add(fakeContainer({}, {Cmd: ['sleep'], Tty: true}));
    const {ws} = talk(`/v1.42/containers/${container.id}/attach/ws?logs=1&stdout=1&detachKeys=ctrl-x`);
    await opened(ws);
    expect(fake.calls.at(-1)!.args.at(-1)).toEqual({stdin: false, stdout: true, stderr: false, stream: false, logs: true, detachKeys: 'ctrl-x'});
  });

  it('the client\'s closing handshake is the end of stdin, and lets the container go', async () => {
    const {fake, talk} = await over('tcp');
    const {container, process} = fake.add(fakeContainer({}, {Cmd: ['sink'], OpenStdin: true}));
    let heard = 0;
    process.stdin.on('data', (chunk: Buffer) => { heard += chunk.length; });
    const {ws, closed} = talk(`/containers/${container.id}/attach/ws?${EVERYTHING}`);
    await opened(ws);
    process.run();
    ws.send(Buffer.alloc(300_000));
    ws.close();
    await closed;
    await until('all of stdin and its end', () => heard === 300_000 && process.stdin.readableEnded);
  });

  it('a client that does not read holds the output back, and a container that does not read the client', async () => {
    const {fake, talk} = await over('tcp');
    const flood = fake.add(fakeContainer({}, {Cmd: ['flood', String(64e6)]}));
    const slow = talk(`/containers/${flood.container.id}/attach/ws?${EVERYTHING}`);
    await opened(slow.ws);
    slow.ws.pause();
    flood.process.run();
    await until('the output to stand', () => flood.process.output.writableNeedDrain);
    slow.ws.resume();
    expect(await slow.closed).toBe(1000);
    expect(slow.messages.reduce((sum, m) => sum + m.data.length, 0)).toBe(64e6);

    const deaf = fake.add(fakeContainer({}, {Cmd: ['sleep'], OpenStdin: true}));
    const {ws} = talk(`/containers/${deaf.container.id}/attach/ws?${EVERYTHING}`);
    await opened(ws);
    for (let n = 0; n < 64; n += 1) ws.send(Buffer.alloc(1e6));
    await until('the client to be held up', () => deaf.process.stdin.writableNeedDrain && ws.bufferedAmount > 1e6);
    deaf.process.stdin.resume();
    await until('the client to go on', () => ws.bufferedAmount === 0);
  });

  it('messages that had arrived before the client was held up do not wait each for themselves', () => {
    const stream = new PassThrough({highWaterMark: 1});
    const client = Object.assign(new EventEmitter(), {isPaused: false, pause: () => { client.isPaused = true; }, resume: () => { client.isPaused = false; }, close: () => undefined});
    void joinWebSocket(client as unknown as WebSocket, stream, {binary: true, framed: false});
    const before = stream.listenerCount('drain');
    for (let n = 0; n < 100; n += 1) client.emit('message', Buffer.from('message'));
    expect(client.isPaused).toBe(true);
    expect(stream.listenerCount('drain')).toBe(before);
    stream.emit('drain');
    expect(client.isPaused).toBe(false);
    client.emit('close', 1006);
  });

  it.each([
    ['no upgrade', '', 'not websocket protocol'],
    ['another upgrade', 'Connection: Upgrade\r\nUpgrade: tcp\r\n', 'not websocket protocol'],
    ['no version', 'Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n', 'missing or bad WebSocket Version'],
    ['a bad key', 'Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: short\r\n', 'mismatch challenge/response'],
    ['another upgrade too', `${HANDSHAKE}Upgrade: websocket, h2c\r\n`, 'not websocket protocol'],
    ['a protocol that is none', `${HANDSHAKE}Upgrade: websocket\r\nSec-WebSocket-Protocol: ,,\r\n`, 'missing or bad WebSocket-Protocol'],
    ['the same protocol twice', `${HANDSHAKE}Upgrade: websocket\r\nSec-WebSocket-Protocol: a, a\r\n`, 'missing or bad WebSocket-Protocol'],
    ['no Connection header', 'Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n', 'missing or bad upgrade'],
  ])('%s is 400', async (_name, headers, message) => {
    const {fake, raw} = await over('tcp');
    const {container} = fake.add(fakeContainer());
    const client = await raw();
    client.send(`GET /containers/${container.id}/attach/ws HTTP/1.1\r\nHost: x\r\n${headers}\r\n`);
    const head = await client.head();
    expect(head.status).toBe(400);
    expect(JSON.parse((await client.body(Number(head.headers['content-length']))).toString())).toEqual({message});
    expect(fake.calls.filter(({verb}) => verb === 'attach')).toEqual([]);
  });

  it('a client that ends its side with its handshake leaves no stream', async () => {
    const {fake, raw} = await over('tcp');
    const {container, process} = fake.add(fakeContainer());
    const client = await raw();
    client.send(`GET /containers/${container.id}/attach/ws?${EVERYTHING} HTTP/1.1\r\nHost: x\r\n${HANDSHAKE}Upgrade: websocket\r\n\r\n`);
    client.socket.end();
    await until('the stream to go', () => process.output.destroyed);
  });

  it('a page of the web is refused, also under a name that points here; a client that names the endpoint as its origin is not', async () => {
    const {fake, talk, address} = await over('tcp');
    const {container} = fake.add(fakeContainer());
    const {port} = address as {port: number};
    const url = `/containers/${container.id}/attach/ws`;
    for (const [origin, host] of [['http://evil.example', `127.0.0.1:${port}`], [`http://evil.example:${port}`, `evil.example:${port}`]] as const)
      await expect(opened(talk(url, {origin, headers: {Host: host}}).ws)).rejects.toThrow('403');
    await opened(talk(url, {origin: `http://127.0.0.1:${port}`}).ws);
  });
});

describe('frames', () => {
  it('are taken off however they are cut', () => {
    const bytes = Buffer.concat([frame(1, Buffer.from('one')), frame(2, Buffer.alloc(0)), frame(2, Buffer.from('two'))]);
    for (let size = 1; size <= bytes.length; size += 1) {
      const unframer = new Unframer();
      let text = '';
      for (let at = 0; at < bytes.length; at += size) for (const {stream, bytes: part} of unframer.take(bytes.subarray(at, at + size))) text += `${stream}${part.toString()}`;
      expect(text.replace(/(?<=[a-z])[12]|^[12]/g, '').replace(/[12]/g, '')).toBe('onetwo');
    }
  });
});
