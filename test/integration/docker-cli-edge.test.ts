/** The stock docker CLI against the edge over a fake datacenter: what the CLI needs of the wire, without nodes or a store. */
import {type ChildProcess, spawn} from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import {fakeContainer} from '../docker/fake-datacenter';
import {type World, closeWorlds, until, world} from '../docker/world';

let made: World;
let home: string;
const running = new Set<ChildProcess>();
beforeAll(() => { home = fs.mkdtempSync(path.join(os.tmpdir(), 'cetus-cli-')); });
afterAll(() => fs.rmSync(home, {recursive: true, force: true}));
beforeEach(async () => { made = await world(); });
afterEach(async () => {
  for (const child of running) child.kill('SIGKILL');
  running.clear();
  await closeWorlds();
});

interface Ran { code: number | null; out: string; err: string; bytes: Buffer }

function start(args: string[]): {child: ChildProcess; done: Promise<Ran>} {
  const child = spawn('docker', args, {env: {PATH: process.env.PATH, HOME: home, DOCKER_CONFIG: home, DOCKER_HOST: `tcp://127.0.0.1:${made.port}`}});
  running.add(child);
  const out: Buffer[] = [];
  const err: Buffer[] = [];
  child.stdout.on('data', (chunk: Buffer) => out.push(chunk));
  child.stderr.on('data', (chunk: Buffer) => err.push(chunk));
  const done = new Promise<Ran>((resolve, reject) => {
    child.once('error', reject).once('close', (code) => {
      running.delete(child);
      resolve({code, out: Buffer.concat(out).toString(), err: Buffer.concat(err).toString(), bytes: Buffer.concat(out)});
    });
  });
  return {child, done};
}

async function docker(...args: string[]): Promise<Ran> {
  const {child, done} = start(args);
  child.stdin!.end();
  return done;
}

it('version and info', async () => {
  const version = await docker('version');
  expect(version).toMatchObject({code: 0, err: ''});
  expect(version.out).toMatch(/Server: Cetus/);
  expect(version.out).toMatch(/containerd:\s+Version:\s+1\.6\.20/);
  const info = await docker('info');
  expect(info).toMatchObject({code: 0, err: ''});
  expect(info.out).toContain('node1: alive, active');
  expect(info.out).toContain('Name: galaxy');
});

it('ps, inspect, images, history, network and volume lists', async () => {
  made.fake.add(fakeContainer({name: 'web', status: 'running', observation: {...fakeContainer().observation, startedAt: '2024-01-01T00:00:00Z'}}, {Cmd: ['sleep'], Image: 'busybox'}));
  expect((await docker('ps', '--no-trunc', '--format', '{{.Names}} {{.Image}} {{.State}} {{.Command}}')).out).toBe('web busybox running "sleep"\n');
  expect((await docker('ps', '-q')).out).toMatch(/^[0-9a-f]{12}\n$/);
  expect((await docker('inspect', '--format', '{{.Name}} {{.State.Running}} {{.HostConfig.NetworkMode}}', 'web')).out).toBe('/web true bridge\n');
  expect((await docker('images', '--format', '{{.Repository}}:{{.Tag}} {{.Size}}')).out).toBe('busybox:latest 4kB\n');
  expect((await docker('history', '--format', '{{.Size}}', 'busybox')).out).toBe('0B\n4kB\n');
  expect((await docker('network', 'ls', '--format', '{{.Name}} {{.Driver}}')).out).toBe('bridge bridge\n');
  expect((await docker('volume', 'create', 'data')).out).toBe('data\n');
  expect((await docker('volume', 'ls', '-q')).out).toBe('data\n');
});

it('run: output and exit codes', async () => {
  expect(await docker('run', '--rm', 'busybox', 'echo', 'hello')).toMatchObject({code: 0, out: 'hello\n', err: ''});
  expect(await docker('run', '--rm', 'busybox', 'exit', '7')).toMatchObject({code: 7, out: '', err: ''});
  expect(made.fake.held.size).toBe(0);
});

it('run -i: stdin, half-close, binary', async () => {
  const {child, done} = start(['run', '-i', '--rm', 'busybox', 'cat']);
  const bytes = Buffer.from(Array.from({length: 3_000_000}, (_, n) => (n * 31) % 256));
  child.stdin!.end(bytes);
  const ran = await done;
  expect(ran).toMatchObject({code: 0, err: ''});
  expect(ran.bytes.equals(bytes)).toBe(true);
});

it('run -d, attach, logs, wait, kill, rm', async () => {
  const id = (await docker('run', '-d', '--name', 'web', 'busybox', 'sleep')).out.trim();
  expect(id).toMatch(/^[0-9a-f]{64}$/);
  expect((await docker('logs', 'web'))).toMatchObject({code: 0, out: 'line 1\n', err: 'line 2\n'});
  const attached = start(['attach', '--no-stdin', 'web']);
  const waiting = start(['wait', 'web']);
  await until('attach and wait', () => ['attach', 'wait'].every((verb) => made.fake.calls.some((c) => c.verb === verb)), 10_000);
  expect((await docker('kill', 'web')).out).toBe('web\n');
  expect((await waiting.done).out).toBe('137\n');
  expect((await attached.done).code).toBe(137);
  expect((await docker('rm', 'web')).code).toBe(0);
  expect(await docker('rm', 'web')).toMatchObject({code: 1, err: 'Error response from daemon: No such container: web\n'});
});

it('exec: streams, exit code, a missing command', async () => {
  await docker('run', '-d', '--name', 'web', 'busybox', 'sleep');
  expect(await docker('exec', 'web', 'echo', 'hi')).toMatchObject({code: 0, out: 'hi\n'});
  expect(await docker('exec', 'web', 'exit', '9')).toMatchObject({code: 9});
  expect(await docker('exec', 'web', 'missing')).toMatchObject({code: 127, out: expect.stringContaining('executable file not found') as string});
  expect((await docker('exec', '-d', 'web', 'sleep')).code).toBe(0);
  const {child, done} = start(['exec', '-i', 'web', 'sink']);
  child.stdin!.end(Buffer.alloc(1_000_000));
  expect((await done).out).toBe('1000000\n');
});

it('pull, load, save, tag, rmi', async () => {
  const pulled = await docker('pull', 'busybox');
  expect(pulled.out).toContain('Status: Downloaded newer image for busybox:latest');
  expect(await docker('pull', 'missing:1')).toMatchObject({code: 1, err: expect.stringContaining('manifest unknown') as string});
  expect(await docker('pull', 'broken:1')).toMatchObject({code: 1, err: expect.stringContaining('the registry went away') as string});
  const archive = path.join(home, 'x.tar');
  fs.writeFileSync(archive, Buffer.alloc(100_000));
  expect((await docker('load', '-i', archive)).out).toBe('Loaded 100000 bytes\n');
  expect(await docker('save', 'busybox')).toMatchObject({code: 0, out: 'tar'});
  expect((await docker('tag', 'busybox', 'me/app:2')).code).toBe(0);
  expect((await docker('rmi', 'busybox')).out).toContain('Untagged: busybox');
});

it('events, until they end and until the user leaves', async () => {
  made.fake.events.push({account: 'default', type: 'container', action: 'start', actorId: 'c'.repeat(64), attributes: {image: 'busybox', name: 'web'}, timeNs: '1700000000123456789'});
  expect((await docker('events', '--since', '1699999999', '--until', '1700000001')).out).toMatch(/^2023-11-14T\d\d:\d\d:20\.123456789.* container start c{64} \(image=busybox, name=web\)\n$/);
  const {child} = start(['events']);
  await until('the events', () => made.fake.calls.filter((c) => c.verb === 'events').length === 2, 10_000);
  child.kill('SIGINT');
  await until('the departure', () => made.fake.departures === 1);
});

it('refusals are shown to the user', async () => {
  expect(await docker('run', '--runtime', 'kata', 'busybox')).toMatchObject({code: 125, err: expect.stringContaining('HostConfig.Runtime') as string});
  expect(await docker('service', 'ls')).toMatchObject({code: 1, err: expect.stringContaining('This node is not a swarm manager') as string});
});
