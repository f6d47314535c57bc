/**
 * Hundreds of clients that never read (a thousand with CETUS_LONG=1), execs and attached clients that flood: endpoint and agent keep their size, serve
 * everybody else, and when the clients have gone nothing of them is left. backpressure.test.ts has what a single one of them does to its container.
 */
import fs from 'node:fs';
import net from 'node:net';
import {ofLong} from '../harness/long';
import {datacenterWithBusybox} from '../harness/suite';
import {until} from '../harness/wait';

/** Of each of four kinds. */
const MANY = ofLong(60, 250);
const EXECS = ofLong(30, 100);
/** In a fleet a balancer and a node's network more are on the way, each with the kernel's buffers. */
const HOPS = process.env.CETUS_FLEET ? 4 : 1;
const FLOOD_BYTES = HOPS * 20e6;
/** What the pipes, sockets and processes between a client and a process hold may be less, and must not be much more. */
const HELD_BYTES = HOPS * 10e6;
/** More than at the start. Measured: 240 MB in the endpoint, 100 MB in the agent, for 1,100 clients; a megabyte for each would be found. */
const MORE_RSS_BYTES = 60e6 + (4 * MANY + EXECS) * 0.31e6;
const MORE_DESCRIPTORS = 25;

const PARTS = ['endpoint', 'agent'] as const;
const sockets: net.Socket[] = [];
// Reset, not merely closed: over TCP who closes a quiet stream is noticed a minute later (lib/base/hang-up.ts).
const letGo = (): void => { for (const socket of sockets.splice(0)) socket.resetAndDestroy(); };
const dc = datacenterWithBusybox({cleanUp: async () => letGo()});

/** All of a kind together: where several serve, each has its share of the clients. */
const ofKinds = (each: (pid: number) => number): number[] => {
  const pids = dc.pids();
  return PARTS.map((kind) => dc.parts(kind).reduce((sum, part) => sum + each(pids[part]!), 0));
};
const descriptors = (): number[] => ofKinds((pid) => fs.readdirSync(`/proc/${pid}/fd`).length);
const resident = (): number[] => ofKinds((pid) => Number(/VmRSS:\s+(\d+)/.exec(fs.readFileSync(`/proc/${pid}/status`, 'utf8'))![1]) * 1024);

/** Resolves when an answer has begun; no more of it is taken than the socket takes by itself. Not through the proxy that checks answers: it reads. */
function ask(method: string, path: string, headers: string[] = [], body = ''): Promise<net.Socket> {
  const socket = net.connect({host: '127.0.0.1', port: Number(dc.running.listen[0].split(':').at(-1))});
  sockets.push(socket);
  socket.write([`${method} ${path} HTTP/1.1`, 'Host: x', ...headers, ...(body ? ['Content-Type: application/json', `Content-Length: ${body.length}`] : []), '', body].join('\r\n'));
  return new Promise((resolve, reject) => {
    socket.on('error', () => undefined).once('close', () => reject(new Error(`no answer to ${method} ${path}`))).once('readable', () => resolve(socket));
  });
}
const upgrade = ['Connection: Upgrade', 'Upgrade: tcp'];
/** A connection whose process does what it likes; nobody reads what it says. */
async function exec(container: string, cmd: string[]): Promise<net.Socket> {
  const made = await ask('POST', `/containers/${container}/exec`, [], JSON.stringify({Cmd: cmd, AttachStdin: true, AttachStdout: true}));
  const id = /"Id":"(\w+)"/.exec(String(made.read()))![1]!;
  made.destroy();
  const stream = await ask('POST', `/exec/${id}/start`, upgrade, '{"Detach":false,"Tty":false}');
  expect(String(stream.read(12))).toBe('HTTP/1.1 101');
  return stream;
}
const attach = (container: string, what: string): Promise<net.Socket> => ask('POST', `/containers/${container}/attach?stream=1&${what}`, upgrade);

/** All that can be opened and never read, `count` of each. */
async function open(container: string, count: number): Promise<void> {
  const reads = ['logs?stdout=1&follow=1', 'stats'].map((verb) => `/containers/${container}/${verb}`);
  for (let n = 0; n < count; n += 25)
    await Promise.all(Array.from({length: Math.min(25, count - n)}, () => [...[...reads, '/events'].map((path) => ask('GET', path)), attach(container, 'stdout=1')]).flat());
}

test(`${4 * MANY + EXECS} clients that never read, and floods in both directions, cost little, hold nobody up and leave nothing`, async () => {
  const talker = async (name: string): Promise<void> => {
    await dc.ok(['run', '-di', '--name', name, 'busybox', 'sh', '-c', 'yes abcdefghijklmnopqrstuvwxyz0123456789 | head -c 10000000; echo; read go; yes abcdefghijklmnopqrstuvwxyz']);
  };
  // What the first of each kind makes once, and keeps, is no leak.
  await talker('first');
  await open('first', 1);
  await exec('first', ['yes']);
  letGo();
  await dc.ok(['rm', '-f', 'first']);
  const before = {descriptors: descriptors(), resident: resident(), pids: dc.pids(), traces: ofContainers()};
  const small = (): void => expect(resident().map((bytes, i) => Math.max(0, bytes - before.resident[i]! - MORE_RSS_BYTES))).toEqual([0, 0]);

  await talker('talker');
  await dc.ok(['run', '-di', '--name', 'deaf', 'busybox', 'sleep', '1000']);
  await open('talker', MANY);
  expect(descriptors()[0]).toBeGreaterThan(before.descriptors[0]! + 4 * MANY);
  // Each of those attached is flooded; so is each exec's client, and a process and a container are told more than they read.
  (await attach('talker', 'stdin=1')).write('go\n');
  await Promise.all(Array.from({length: EXECS}, () => exec('talker', ['yes'])));
  const deaf = await Promise.all([exec('deaf', ['sleep', '1000']), attach('deaf', 'stdin=1')]);
  for (const socket of deaf) for (let n = 0; n < FLOOD_BYTES; n += 1e6) socket.write(Buffer.alloc(1e6));
  const taken = (): number[] => deaf.map((socket) => socket.bytesWritten - socket.writableLength);
  const held = await settled('what the deaf were told', taken);
  expect(held.map((bytes) => bytes > 0 && bytes < HELD_BYTES || bytes)).toEqual([true, true]);

  // Others are served meanwhile: events for those who watch, a container from its creation to its end.
  expect(await dc.ok(['run', '--rm', 'busybox', 'echo', 'served'])).toBe('served');
  for (const name of ['other', 'deaf']) await dc.ok(['rename', name === 'other' ? 'deaf' : 'other', name]);
  expect(await dc.ok(['ps', '--format', '{{.Names}}'])).toBe('deaf\ntalker');
  small();

  letGo();
  await dc.ok(['rm', '-f', 'talker', 'deaf']);
  await until('their descriptors to be closed', () => descriptors().every((n, i) => n <= before.descriptors[i]! + MORE_DESCRIPTORS * dc.parts(PARTS[i]!).length), 100_000);
  await until('mounts, control groups and FIFOs to be as before', () => JSON.stringify(ofContainers()) === JSON.stringify(before.traces), 60_000);
  small();
  expect(dc.pids()).toEqual(before.pids);
}, 400_000);

/** Without what the agent keeps ready for the next ones, which is as many now and then more or fewer; the end of the datacenter accounts for it. */
function ofContainers(): object {
  const {mounts, cgroups, fifos} = dc.traces();
  return {mounts, cgroups, fifos: fifos.filter((file) => !file.includes('/state/spare/'))};
}

/** The values once they have been the same for a second. */
async function settled(what: string, values: () => number[]): Promise<number[]> {
  let last = '';
  let since = Date.now();
  return until(`${what} to stand still`, () => {
    const now = values();
    if (String(now) !== last) [last, since] = [String(now), Date.now()];
    return Date.now() - since > 1000 && now.every((n) => n > 0) ? now : undefined;
  }, 60_000);
}
