import {spawn} from 'node:child_process';
import {createHash} from 'node:crypto';
import fs from 'node:fs';
import http2 from 'node:http2';
import net from 'node:net';
import path from 'node:path';
import {answers} from '../../lib/agent/containerd/answers';
import {connectContainerd} from '../../lib/agent/containerd/connect';
import {startContainerd} from '../../lib/agent/containerd/process';
import {hasStatus} from '../../lib/agent/containerd/status';
import {silentLog} from '../../lib/base/log';
import {testContainerd, type TestContainerd} from '../harness/containerd';
import {busyboxSnapshot} from '../harness/rootfs';

let world: TestContainerd;
beforeAll(async () => { world = await testContainerd(); });
afterAll(() => world.stop());

test('answers with its version and its plugins', async () => {
  expect((await world.client.version.version({})).version).toMatch(/^v?1\.|^2\./);
  const {plugins} = await world.client.introspection.plugins({});
  expect(plugins.find(plugin => plugin.id === 'overlayfs')?.initErr).toBeNull();
});

test('content: a blob is written in pieces, read back, and a wrong digest is refused', async () => {
  const {client} = world;
  await client.leases.create({id: 'content'});
  const data = Buffer.alloc(3_000_000, 'whale');
  const digest = `sha256:${createHash('sha256').update(data).digest('hex')}`;
  const write = client.content.write({lease: 'content'});
  await write.send({action: 'WRITE', ref: 'one', total: data.length, expected: digest, offset: 0, data: data.subarray(0, 1_000_000)});
  const half = await write.send({action: 'WRITE', ref: 'one', offset: 1_000_000, data: data.subarray(1_000_000)});
  expect(half.offset).toBe(data.length);
  const done = await write.send({action: 'COMMIT', ref: 'one', offset: data.length, total: data.length, expected: digest});
  expect(done.digest).toBe(digest);
  write.close();

  const parts: Buffer[] = [];
  for await (const part of client.content.read({digest})) parts.push(part.data);
  expect(Buffer.concat(parts).equals(data)).toBe(true);

  const wrong = client.content.write();
  await expect(wrong.send({action: 'COMMIT', ref: 'two', expected: `sha256:${'0'.repeat(64)}`, total: 3, offset: 0, data: Buffer.from('abc')})).rejects.toMatchObject({kind: 'conflict'});
  await client.content.abort({ref: 'two'}).catch(() => undefined);
  await client.leases.delete({id: 'content'});
});

test('errors carry the kind and the status', async () => {
  const missing = await world.client.containers.get({id: 'nobody'}).catch((err: unknown) => err);
  expect(missing).toMatchObject({kind: 'notFound'});
  expect(hasStatus(missing, 'NOT_FOUND')).toBe(true);
  await expect(world.client.namespaces.create({namespace: {name: 'cetus-test'}})).rejects.toMatchObject({kind: 'conflict', info: {status: 'ALREADY_EXISTS'}});
});

test('a canceled call and a passed deadline end as such', async () => {
  const canceled = world.client.events.subscribe({}, {signal: AbortSignal.timeout(50)});
  await expect((async () => { for await (const event of canceled) expect(event).toBeDefined(); })()).rejects.toMatchObject({kind: 'canceled'});
  const late = world.client.events.subscribe({}, {deadlineMs: 50});
  await expect((async () => { for await (const event of late) expect(event).toBeDefined(); })()).rejects.toMatchObject({kind: 'timeout'});
});

test('a snapshot filled through its mount is committed and listed', async () => {
  const name = await busyboxSnapshot(world.client);
  const names: string[] = [];
  for await (const {info} of world.client.snapshots.list({snapshotter: 'overlayfs'})) names.push(...info.map(one => one.name));
  expect(names).toContain(name);
});

test('a second start adopts the running one; after kill -9 the client finds the next one by itself', async () => {
  const {process: first, client, directory} = world;
  const second = await startContainerd({directory, log: silentLog(), supervise: false});
  expect(second.started).toBe(false);
  expect(second.pid()).toBe(first.pid());

  const other = connectContainerd({socket: first.socket, namespace: 'cetus-test', log: silentLog()});
  await other.ready(40_000);
  process.kill(first.pid(), 'SIGKILL');
  const third = await startContainerd({directory, log: silentLog(), supervise: false});
  expect(third.started).toBe(true);
  await other.version.version({});
  await client.version.version({});
  other.close();
  world.process = third;
  expect(fs.existsSync(`/proc/${third.pid()}`)).toBe(true);
});

test('one that ends while it is asked whether it serves is not adopted: the next one is started', async () => {
  const directory = fs.mkdtempSync('/tmp/cetus-ctrd-');
  const dying = spawn('sleep', ['infinity'], {argv0: path.join(directory, 'config.toml')});
  fs.writeFileSync(path.join(directory, 'containerd.pid'), String(dying.pid));
  const mute = net.createServer(socket => {
    socket.on('error', () => undefined).destroy();
    mute.close();
    dying.kill('SIGKILL');
  });
  await new Promise<void>(resolve => { mute.listen(path.join(directory, 'containerd.sock'), resolve); });

  const next = await startContainerd({directory, log: silentLog(), supervise: false});
  expect(dying.signalCode).toBe('SIGKILL');
  expect(next.started).toBe(true);
  expect(next.pid()).not.toBe(dying.pid);
  await next.stop();
  fs.rmSync(directory, {recursive: true});
});

test('a path too long for a socket is refused', async () => {
  await expect(startContainerd({directory: `/tmp/${'x'.repeat(100)}`, log: silentLog()})).rejects.toMatchObject({kind: 'invalid'});
});

test('who accepts and says nothing, refuses the call, or is not there, does not count as serving', async () => {
  const file = `${world.directory}/other.sock`;
  const listening = async (server: net.Server): Promise<net.Server> => {
    await new Promise<void>(resolve => { server.listen(file, resolve); });
    return server;
  };
  await expect(answers(file, 1_000)).rejects.toMatchObject({kind: 'unavailable'});
  const sockets: net.Socket[] = [];
  const silent = await listening(net.createServer(socket => { sockets.push(socket.on('error', () => undefined)); }));
  await expect(answers(file, 50)).rejects.toMatchObject({kind: 'unavailable'});
  for (const socket of sockets) socket.destroy();
  await new Promise(resolve => { silent.close(resolve); });
  const refusing = await listening(http2.createServer().on('stream', stream => stream.respond({':status': 200, 'grpc-status': '12'}, {endStream: true})));
  await expect(answers(file, 1_000)).rejects.toMatchObject({kind: 'unavailable'});
  await new Promise(resolve => { refusing.close(resolve); });
  await answers(`${world.directory}/containerd.sock`, 40_000);
});
