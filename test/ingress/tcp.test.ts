/** A TCP port over real sockets: what one side does, the other sees. */
import net from 'node:net';
import {once} from 'node:events';
import type {Target} from '../../lib/ingress/desired';
import {DEFAULT_LIMITS, type Limits, Shared} from '../../lib/ingress/limits';
import {TcpListener} from '../../lib/ingress/tcp';
import {waysBy} from '../../lib/ingress/ways';
import {until} from '../harness/wait';
import {freePort} from '../harness/ports';
import {closed, connect, publication, say, type Server, serveTcp, text} from './world';

const closing: (() => unknown)[] = [];
afterEach(async () => { for (const close of closing.splice(0)) await close(); });

const server = async (handle: (socket: net.Socket) => void): Promise<Server> => {
  const made = await serveTcp(handle);
  closing.push(() => made.close());
  return made;
};
const to = (port: number, more: Parameters<typeof publication>[0] = {}): Target => ({publication: publication({hostPort: port, ...more}), way: {kind: 'node', host: '127.0.0.1'}});

async function listener(target: Target, limits: Partial<Limits> = {}): Promise<{port: number; listener: TcpListener; shared: Shared}> {
  const shared = new Shared({...DEFAULT_LIMITS, connectMs: 20_000, ...limits});
  const port = await freePort();
  const made = new TcpListener({protocol: 'tcp', address: '127.0.0.1', port}, target, waysBy({dial: async () => { throw new Error('no agent'); }}, shared.limits.connectMs), shared);
  await made.open(() => undefined);
  closing.push(() => made.end());
  return {port, listener: made, shared};
}

test('each side hears the other, and the end of one direction is only that', async () => {
  const heard = server((socket) => { void text(socket).then((words) => socket.end(`heard ${words}`), () => undefined); });
  const {port, shared} = await listener(to((await heard).port));
  expect(await Promise.all(['one', 'two', 'three'].map((words) => say(port, words)))).toEqual(['heard one', 'heard two', 'heard three']);
  await until('nothing to be under way', () => shared.connections === 0);
});

test('a reset is passed on as a reset, both ways', async () => {
  let inner: net.Socket | undefined;
  const {port} = await listener(to((await server((socket) => { inner = socket; socket.write('hello'); })).port));
  const client = await connect(port);
  await once(client, 'data');
  const seen = once(client.removeAllListeners('error'), 'error');
  inner!.resetAndDestroy();
  expect((await seen)[0]).toMatchObject({code: 'ECONNRESET'});

  const second = await connect(port);
  await once(second, 'data');
  const gone = new Promise<NodeJS.ErrnoException>((resolve) => inner!.once('error', resolve));
  second.resetAndDestroy();
  expect(await gone).toMatchObject({code: 'ECONNRESET'});
});

test('where nobody listens behind, the client is reset and it is counted', async () => {
  const nobody = await freePort();
  const {port, shared} = await listener(to(nobody));
  const client = await connect(port).catch((err: NodeJS.ErrnoException) => err);
  if (client instanceof net.Socket) await closed(client);
  else expect(client).toMatchObject({code: 'ECONNRESET'});
  await until('it to be counted', () => shared.refused === 1 && shared.connections === 0);
});

test('who does not read stops who writes', async () => {
  let written = 0;
  const {port} = await listener(to((await server((socket) => {
    const chunk = Buffer.alloc(256 * 1024);
    const more = (): void => { while (!socket.destroyed && socket.write(chunk)) written += chunk.length; written += chunk.length; };
    socket.on('drain', more);
    more();
  })).port));
  const client = await connect(port);
  client.pause();
  let last = -1;
  // It stands still: twice the same at two looks that are apart by many turns of the loop.
  await until('the writer to stand still', async () => {
    const before = written;
    await new Promise((resolve) => setTimeout(resolve, 300));
    last = before;
    return written === before && written > 0;
  });
  expect(last).toBeLessThan(64 * 1024 * 1024);
  client.destroy();
});

test('the client\'s address goes before what it says, on request', async () => {
  const heard: Buffer[] = [];
  const {port: behind} = await server((socket) => { socket.on('data', (chunk) => heard.push(chunk)).on('end', () => socket.end()); });
  const one = await listener(to(behind, {proxyProtocol: 'v1'}));
  const client = await connect(one.port);
  const {localPort} = client;
  client.end('GET /');
  await text(client);
  expect(Buffer.concat(heard).toString()).toBe(`PROXY TCP4 127.0.0.1 127.0.0.1 ${localPort} ${one.port}\r\nGET /`);
  heard.length = 0;
  const two = await listener(to(behind, {proxyProtocol: 'v2'}));
  await say(two.port, 'x');
  const all = Buffer.concat(heard);
  expect([all.length, all.readUInt16BE(26), all.subarray(28).toString()]).toEqual([29, two.port, 'x']);
});

test('a port that leads elsewhere takes no connection less; who was with the former one is let go of', async () => {
  const named = (name: string): Promise<Server> => server((socket) => void socket.write(name));
  const [first, second] = [await named('first'), await named('second')];
  const {port, listener: it} = await listener(to(first.port), {drainMs: 50});
  const old = await connect(port);
  expect(String((await once(old, 'data'))[0])).toBe('first');
  const ended = closed(old);
  it.lead(to(second.port, {nodeId: 'n2'}));
  const next = await connect(port);
  expect(String((await once(next, 'data'))[0])).toBe('second');
  await ended;
  expect(next.destroyed).toBe(false);
});

test('no more than so many, of a port and of all', async () => {
  const {port: behind} = await server((socket) => void socket.write('.'));
  const {port, shared} = await listener(to(behind), {connectionsPerPort: 3, connections: 2});
  const open = await Promise.all([connect(port), connect(port)]);
  await Promise.all(open.map((socket) => once(socket, 'data')));
  // Reset at once, or as soon as it has connected.
  await connect(port).then(closed, () => undefined);
  await until('it to be counted', () => shared.refused === 1);
  open[0]!.resetAndDestroy();
  await until('room for another', () => shared.connections === 1);
  expect(String((await once(await connect(port), 'data'))[0])).toBe('.');
});
