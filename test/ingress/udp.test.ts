/** A UDP port over real sockets: clients are kept apart, forgotten when quiet, and never more than so many. */
import dgram from 'node:dgram';
import net from 'node:net';
import {once} from 'node:events';
import {readDatagrams, writeDatagram} from '../../lib/base/datagrams';
import type {Target} from '../../lib/ingress/desired';
import {DEFAULT_LIMITS, type Limits, Shared} from '../../lib/ingress/limits';
import {UdpListener} from '../../lib/ingress/udp';
import {waysBy} from '../../lib/ingress/ways';
import {until} from '../harness/wait';
import {freePort} from '../harness/ports';
import {publication, type Server, serveTcp, serveUdp} from './world';

const closing: (() => unknown)[] = [];
afterEach(async () => { for (const close of closing.splice(0)) await close(); });

let now = 0;
async function listener(target: Target, limits: Partial<Limits> = {}, dial = async (): Promise<net.Socket> => { throw new Error('no agent'); }): Promise<{port: number; listener: UdpListener; shared: Shared}> {
  const shared = new Shared({...DEFAULT_LIMITS, ...limits});
  const port = await freePort();
  const made = new UdpListener({protocol: 'udp', address: '127.0.0.1', port}, target, waysBy({dial}, 5_000), shared, () => now);
  await made.open(() => undefined);
  closing.push(() => made.end());
  return {port, listener: made, shared};
}
const to = (port: number, more: Parameters<typeof publication>[0] = {}): Target => ({publication: publication({protocol: 'udp', hostPort: port, ...more}), way: {kind: 'node', host: '127.0.0.1'}});
const echo = async (name: string): Promise<Server> => {
  const made = await serveUdp((datagram, answer, from) => answer(Buffer.from(`${name} ${datagram.toString()} ${from.port}`)));
  closing.push(() => made.close());
  return made;
};
function client(): dgram.Socket {
  const socket = dgram.createSocket('udp4');
  closing.push(() => socket.close());
  return socket;
}
/** Said again until it is answered, as clients of UDP do. */
async function ask(socket: dgram.Socket, port: number, words: string): Promise<string> {
  let answer: string | undefined;
  socket.once('message', (datagram) => { answer = datagram.toString(); });
  const again = setInterval(() => socket.send(words, port, '127.0.0.1'), 500);
  socket.send(words, port, '127.0.0.1');
  try {
    return await until('an answer', () => answer);
  } finally {
    clearInterval(again);
  }
}

test('each client hears its own answers, over one socket behind', async () => {
  const {port, shared} = await listener(to((await echo('e')).port));
  const [a, b] = [client(), client()];
  const first = await ask(a, port, 'one');
  const second = await ask(b, port, 'two');
  expect([first.split(' ')[1], second.split(' ')[1]]).toEqual(['one', 'two']);
  expect(first.split(' ')[2]).not.toBe(second.split(' ')[2]);
  expect((await ask(a, port, 'three')).split(' ')[2]).toBe(first.split(' ')[2]);
  expect(shared.sessions).toBe(2);
});

test('the quiet are forgotten: sooner where nobody answered', async () => {
  const mute = await serveUdp(() => undefined);
  closing.push(() => mute.close());
  const {port, listener: it, shared} = await listener(to((await echo('e')).port), {answeredMs: 100, unansweredMs: 10});
  const silent = await listener(to(mute.port), {answeredMs: 100, unansweredMs: 10});
  await ask(client(), port, 'x');
  client().send('x', silent.port, '127.0.0.1');
  await until('both to be known', () => shared.sessions === 1 && silent.shared.sessions === 1);
  now += 50;
  it.sweep();
  silent.listener.sweep();
  expect([shared.sessions, silent.shared.sessions]).toEqual([1, 0]);
  now += 100;
  it.sweep();
  expect(shared.sessions).toBe(0);
});

test('never more than so many: who was quiet for longest makes room, nobody who speaks does', async () => {
  const {port, shared} = await listener(to((await echo('e')).port), {sessionsPerPort: 2});
  const [a, b, c] = [client(), client(), client()];
  const before = (await ask(a, port, 'a')).split(' ')[2];
  await ask(b, port, 'b');
  c.send('c', port, '127.0.0.1');
  await until('the third to be turned away', () => shared.refused === 1);
  now += 2_000;
  await ask(b, port, 'b');
  await ask(c, port, 'c');
  expect(shared.sessions).toBe(2);
  now += 2_000;
  expect((await ask(a, port, 'a')).split(' ')[2]).not.toBe(before);
});

test('version 2 goes before each datagram', async () => {
  const seen: Buffer[] = [];
  const behind = await serveUdp((datagram, answer) => { seen.push(Buffer.from(datagram)); answer(Buffer.from('ok')); });
  closing.push(() => behind.close());
  const {port} = await listener(to(behind.port, {proxyProtocol: 'v2'}));
  const a = client();
  expect(await ask(a, port, 'x')).toBe('ok');
  expect(await ask(a, port, 'y')).toBe('ok');
  for (const datagram of seen) expect([datagram[13], datagram.readUInt16BE(24), datagram.readUInt16BE(26), datagram.length]).toEqual([0x12, a.address().port, port, 29]);
});

test('through an agent the datagrams are those that were sent', async () => {
  const agent = await serveTcp((socket) => readDatagrams(socket, (datagram) => void writeDatagram(socket, Buffer.concat([Buffer.from('by '), datagram]))));
  closing.push(() => agent.close());
  const {port, shared} = await listener({...to(1), way: {kind: 'agent'}}, {}, async () => {
    const socket = net.connect(agent.port, '127.0.0.1');
    await once(socket, 'connect');
    return socket;
  });
  const a = client();
  expect(await ask(a, port, 'x')).toBe('by x');
  await agent.close();
  await until('the way to be forgotten', () => shared.sessions === 0);
});

test('one that leads elsewhere has no client of before', async () => {
  const {port, listener: it, shared} = await listener(to((await echo('first')).port));
  const a = client();
  expect(await ask(a, port, 'x')).toMatch(/^first x/);
  it.lead(to((await echo('second')).port, {nodeId: 'n2'}));
  expect(shared.sessions).toBe(0);
  expect(await ask(a, port, 'y')).toMatch(/^second y/);
});
