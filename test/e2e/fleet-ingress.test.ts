/**
 * Published ports at the endpoints of a fleet: two nodes, two endpoints on this machine, and a third on a machine of its own (a network namespace on the same
 * underlay), with the stock client.
 */
import {type ChildProcess, execFileSync, spawn} from 'node:child_process';
import dgram from 'node:dgram';
import {once} from 'node:events';
import fs from 'node:fs';
import http from 'node:http';
import net from 'node:net';
import path from 'node:path';
import {busyboxArchive} from '../harness/busybox';
import {NOTHING_LEFT, PROGRAM} from '../harness/cetus';
import {startFleet, type TestFleet} from '../harness/fleet';
import {freePort} from '../harness/ports';
import {until} from '../harness/wait';

let fleet: TestFleet;
let third: ThirdMachine;
let empty: Record<string, number>[];

class ThirdMachine {
  private child: ChildProcess | undefined;
  private readonly namespace: string;
  readonly address: string;
  readonly socket: string;

  constructor(private readonly of: TestFleet) {
    this.namespace = `cetus-e2e-${of.running.prefix}`;
    this.address = of.node(1).address.replace(/\d+$/, '200');
    this.socket = path.join(of.dataDir, 'run', 'third.sock');
  }

  async start(): Promise<void> {
    const {namespace, address} = this;
    const link = `ct-${this.of.running.prefix}`;
    ip('netns', 'add', namespace);
    ip('link', 'add', link, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', namespace);
    ip('link', 'set', link, 'master', `cu-${this.of.running.prefix}`, 'up');
    ip('-n', namespace, 'addr', 'add', `${address}/24`, 'dev', 'eth0');
    for (const name of ['lo', 'eth0']) ip('-n', namespace, 'link', 'set', name, 'up');
    const run = path.join(this.of.dataDir, 'run');
    const config = JSON.parse(fs.readFileSync(path.join(run, 'endpoint-2.json'), 'utf8')) as object;
    const file = path.join(run, 'third.json');
    fs.writeFileSync(file, JSON.stringify({...config, listen: [`unix://${this.socket}`], adminListen: [`unix://${path.join(run, 'third-admin.sock')}`], fleetListen: `${address}:7100`}), {mode: 0o600});
    const log = fs.openSync(path.join(this.of.dataDir, 'log', 'third.log'), 'a');
    this.child = spawn('nsenter', [`--net=/run/netns/${namespace}`, process.execPath, PROGRAM, 'endpoint', '--config', file], {stdio: ['ignore', log, log]});
    fs.closeSync(log);
    await until('the third endpoint to answer', async () => (await this.of.docker(['version'], {env: this.env})).status === 0, 150_000);
  }

  get env(): NodeJS.ProcessEnv { return {DOCKER_HOST: `unix://${this.socket}`}; }

  async stop(): Promise<void> {
    if (this.child && this.child.exitCode === null && this.child.signalCode === null) {
      const gone = once(this.child, 'exit');
      this.child.kill('SIGTERM');
      await gone;
    }
    ip('netns', 'del', this.namespace);
  }
}

const ip = (...args: string[]): string => execFileSync('ip', args, {encoding: 'utf8', env: {...process.env, PATH: `${process.env.PATH}:/usr/sbin:/sbin`}});

/** Answers with its name and what it heard: in plain, or where that is binary in hex. Busybox has no such servers: the machine's own node is one. */
const SERVER = (name: string): string[] => ['-v', '/:/host:ro', 'busybox', 'chroot', '/host', process.execPath, '-e', `
const say = (data) => '${name} ' + (data[0] === 13 ? data.toString('hex') : data.toString());
require('net').createServer({allowHalfOpen: true}, (s) => { const all = []; s.on('data', (d) => all.push(d)).on('end', () => s.end(say(Buffer.concat(all)))).on('error', () => 0); }).listen(80);
const u = require('dgram').createSocket('udp4').on('message', (m, r) => u.send(say(m), r.port, r.address)); u.bind(53);`];
const onNode = (number: number): string[] => ['-e', `constraint:node==node-${number}`];

/** What comes back, or the error's code. */
function tcp(host: string, port: number, words = 'x'): Promise<string> {
  return new Promise((resolve) => {
    let all = '';
    const socket = net.connect({host, port, allowHalfOpen: true, timeout: 5_000}, () => socket.end(words));
    socket.on('data', (chunk: Buffer) => { all += chunk.toString(); }).once('end', () => resolve(all)).once('timeout', () => socket.destroy()).once('error', (err: NodeJS.ErrnoException) => resolve(err.code ?? 'error')).once('close', () => resolve('closed'));
  });
}
function udp(host: string, port: number, words = 'x'): Promise<string> {
  return new Promise((resolve) => {
    const socket = dgram.createSocket('udp4');
    const end = (answer: string): void => { clearTimeout(timer); socket.close(); resolve(answer); };
    const timer = setTimeout(() => end('silence'), 1_000);
    socket.once('message', (datagram) => end(datagram.toString())).once('error', () => end('error'));
    socket.send(words, port, host);
  });
}
const answer = (from: string, ask: () => Promise<string>, wanted: string): Promise<string> => {
  let last = '';
  return until(`${from} to answer "${wanted}"`, async () => ((last = await ask()) === wanted ? last : Promise.reject(new Error(`it answered "${last}"`))), 30_000);
};
const portOf = async (name: string, which: string): Promise<number> => Number((await fleet.ok(['port', name, which])).split(':').pop());
const start = (name: string): Promise<{status: number; text: string}> => new Promise((resolve, reject) => {
  http.request({socketPath: third.socket, path: `/v1.43/containers/${name}/start`, method: 'POST'}, (res) => {
    let text = '';
    res.setEncoding('utf8').on('data', (c: string) => { text += c; }).on('end', () => resolve({status: res.statusCode!, text}));
  }).on('error', reject).end();
});

beforeAll(async () => {
  fleet = await startFleet({nodes: 2, endpoints: 2});
  third = new ThirdMachine(fleet);
  await Promise.all([third.start(), (async () => fleet.ok(['load', '-i', await busyboxArchive()]))()]);
  empty = await fleet.allMarks();
}, 240_000);
afterAll(async () => {
  await third?.stop();
  expect(await fleet?.destroy()).toEqual(NOTHING_LEFT);
}, 240_000);

test('random ports answer at the node and at every endpoint\'s address, in TCP and UDP; whoever asks is told of them alike', async () => {
  await fleet.at(2).ok(['run', '-d', '--name', 'web', ...onNode(1), '-p', '80', '-p', '53/udp', ...SERVER('web')]);
  const [port, dns] = [await portOf('web', '80/tcp'), await portOf('web', '53/udp')];
  const shown = await fleet.docker(['port', 'web'], {env: third.env});
  expect(shown.stdout.trim().split('\n').sort()).toEqual([`53/udp -> 0.0.0.0:${dns}`, `80/tcp -> 0.0.0.0:${port}`]);
  for (const host of ['127.0.0.1', fleet.node(1).address, third.address]) {
    await answer(host, () => tcp(host, port), 'web x');
    await answer(host, () => udp(host, dns), 'web x');
  }
  const much = 'y'.repeat(3_000_000);
  expect(await tcp('127.0.0.1', port, much)).toBe(`web ${much}`);
});

test('a port is the whole datacenter\'s: 409 in the Engine\'s words at any endpoint, on any node', async () => {
  const port = await portOf('web', '80/tcp');
  await fleet.docker(['create', '--name', 'second', ...onNode(2), '-p', `${port}:80`, ...SERVER('second')], {env: third.env});
  const refused = await start('second');
  expect(refused.status).toBe(409);
  expect(refused.text).toMatch(new RegExp(`driver failed programming external connectivity on endpoint second \\([0-9a-f]{64}\\): Bind for 0\\.0\\.0\\.0:${port} failed: port is already allocated`));
  await fleet.ok(['stop', '-t', '0', 'web']);
  for (const host of ['127.0.0.1', third.address]) await answer(host, () => tcp(host, port), 'ECONNREFUSED');
  expect(await fleet.ok(['port', 'web'])).toBe('');
  expect(await start('second')).toEqual({status: 204, text: ''});
  for (const host of ['127.0.0.1', third.address]) await answer(host, () => tcp(host, port), 'second x');
  await fleet.ok(['rm', '-f', 'web', 'second']);
});

test('a container that moves keeps its port at the endpoints, which lead to where it is', async () => {
  expect((await fleet.cetus(['node', 'cordon', 'node-2'])).status).toBe(0);
  await fleet.ok(['run', '-d', '--name', 'mover', '--restart', 'always', '-p', '80', 'busybox', 'sh', '-c', 'mkdir /www; hostname > /www/index.html; exec httpd -f -p 80 -h /www']);
  const id = (await fleet.ok(['inspect', '-f', '{{.Id}}', 'mover'])).slice(0, 12);
  const port = await portOf('mover', '80/tcp');
  const get = (host: string) => async (): Promise<string> => (await tcp(host, port, 'GET /index.html HTTP/1.0\r\n\r\n')).split('\n').slice(-2)[0]!;
  for (const host of ['127.0.0.1', fleet.node(1).address, third.address]) await answer(host, get(host), id);
  await fleet.cetus(['node', 'uncordon', 'node-2']);
  expect((await fleet.cetus(['node', 'drain', 'node-1'])).status).toBe(0);
  await until('it to be elsewhere', async () => (await fleet.nodeOf('mover')).name === 'node-2', 60_000);
  for (const host of ['127.0.0.1', fleet.node(2).address, third.address]) await answer(host, get(host), id);
  expect(await portOf('mover', '80/tcp')).toBe(port);
  await fleet.cetus(['node', 'uncordon', 'node-1']);
  await fleet.ok(['rm', '-f', 'mover']);
  await answer('nobody', () => tcp('127.0.0.1', port), 'ECONNREFUSED');
});

test('an address is its endpoint\'s alone, loopback each endpoint\'s own, and one that nobody has is refused', async () => {
  const there = await freePort();
  await fleet.ok(['run', '-d', '--name', 'inner', ...onNode(1), '-p', '127.0.0.1::80', '-p', `${third.address}:${there}:80`, '-p', `${third.address}::53/udp`, ...SERVER('inner')]);
  const ports = (await fleet.ok(['port', 'inner'])).split('\n');
  const at = (text: string): number => Number(ports.find((line) => line.includes(text))!.split(':').pop());
  const loopback = at('-> 127.0.0.1:');
  await answer('loopback', () => tcp('127.0.0.1', loopback), 'inner x');
  await answer('the third', () => tcp(third.address, there), 'inner x');
  await answer('the third', () => udp(third.address, at('53/udp')), 'inner x');
  for (const [host, port] of [[third.address, loopback], [fleet.node(1).address, loopback], ['127.0.0.1', there], [fleet.node(1).address, there]] as const) expect(await tcp(host, port)).toBe('ECONNREFUSED');
  const nobody = await fleet.docker(['run', '-d', '--name', 'nowhere', '-p', '203.0.113.9:8080:80', ...SERVER('nowhere')]);
  expect(nobody.stderr).toContain('203.0.113.9:8080: bind: cannot assign requested address');
  await fleet.ok(['rm', '-f', 'inner', 'nowhere']);
});

test('the client\'s own address goes before what it says, where the label asks for it; the node opens nothing then', async () => {
  const bad = await fleet.docker(['create', '-l', 'cetus.ingress.proxy-protocol=v3', '-p', '80', 'busybox']);
  expect([bad.status, bad.stderr]).toEqual([1, expect.stringContaining('label cetus.ingress.proxy-protocol=v3: expected v1, v2, or a list like')]);
  await fleet.ok(['run', '-d', '--name', 'one', ...onNode(1), '-l', 'cetus.ingress.proxy-protocol=v1', '-p', '80', ...SERVER('one')]);
  await fleet.ok(['run', '-d', '--name', 'two', ...onNode(2), '-l', 'cetus.ingress.proxy-protocol=80=v2,53/udp=v2', '-p', '80', '-p', '53/udp', ...SERVER('two')]);
  const ours = fleet.node(1).address.replace(/\d+$/, '1');
  const one = await portOf('one', '80/tcp');
  await until('version 1 from the third', async () => new RegExp(`^one PROXY TCP4 ${ours} ${third.address} \\d+ ${one}\r\nx$`).test(await tcp(third.address, one)));
  await until('version 1 from here', async () => new RegExp(`^one PROXY TCP4 127\\.0\\.0\\.1 127\\.0\\.0\\.1 \\d+ ${one}\r\nx$`).test(await tcp('127.0.0.1', one)));
  const hex = (address: string): string => Buffer.from(address.split('.').map(Number)).toString('hex');
  const two = await portOf('two', '80/tcp');
  await until('version 2', async () => new RegExp(`^two 0d0a0d0a000d0a515549540a2111000c${hex(ours)}${hex(third.address)}[0-9a-f]{4}${two.toString(16).padStart(4, '0')}78$`).test(await tcp(third.address, two)));
  const dns = await portOf('two', '53/udp');
  await until('version 2 over UDP', async () => new RegExp(`^two 0d0a0d0a000d0a515549540a2112000c${hex(ours)}`).test(await udp(third.address, dns)));
  expect(await tcp(fleet.node(1).address, one)).toBe('ECONNREFUSED');
  await fleet.ok(['rm', '-f', 'one', 'two']);
});

test('a port that another program of an endpoint\'s machine has is said, and open at the others; an endpoint that dies is followed by its neighbour', async () => {
  const port = await freePort();
  const foreign = net.createServer((socket) => void socket.resume().end('foreign')).listen(port, '0.0.0.0');
  await fleet.ok(['run', '-d', '--name', 'web', ...onNode(1), '-p', `${port}:80`, ...SERVER('web')]);
  await answer('the third', () => tcp(third.address, port), 'web x');
  await until('it to be said', async () => (await fleet.cetus(['ingress'])).stdout.includes(`0.0.0.0:${port}/tcp`));
  expect(await tcp('127.0.0.1', port)).toBe('foreign');
  await new Promise((resolve) => foreign.close(resolve));
  await answer('this machine', () => tcp('127.0.0.1', port), 'web x');

  const rows = await fleet.admin<{endpoint: string; duty: string}[]>('/v1/ingresses');
  expect(rows.map(({duty}) => duty).sort()).toEqual(['serving', 'serving', 'standby']);
  const serving = rows.some(({endpoint, duty}) => endpoint.endsWith(':7100') && !endpoint.includes(third.address) && duty === 'serving') ? 1 : 2;
  await fleet.killEndpoint(serving);
  await answer('the other endpoint', () => tcp('127.0.0.1', port), 'web x');
  await fleet.startEndpoint(serving);
  await fleet.ok(['rm', '-f', 'web']);
  await answer('this machine', () => tcp('127.0.0.1', port), 'ECONNREFUSED');
  await fleet.nothingLeaked(empty);
});
