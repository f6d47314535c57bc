/** The agent with everything real: containerd, network, images, specs; fleet's client at the other end of a unix socket. */
import {execFileSync} from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import {Readable} from 'node:stream';
import {systemIds} from '../../lib/base/ids';
import {silentLog} from '../../lib/base/log';
import {type Agent, createAgent} from '../../lib/agent/agent';
import {connectContainerd} from '../../lib/agent/containerd/connect';
import {createAgentImages} from '../../lib/agent/images/agent-images';
import {createLinuxNetworking} from '../../lib/agent/network/linux';
import {createContainerdRuntime} from '../../lib/agent/runtime/containerd';
import {cgroupAbilities, createSpecBuilder} from '../../lib/agent/spec/builder';
import {HttpAgentClient} from '../../lib/fleet/agent-client';
import type {AttachQuery, NodeNetwork, TaskBody, TaskOutput} from '../../lib/schema/agent';
import type {ContainerSpec, NetworkAttachment} from '../../lib/schema/container';
import type {Config, HostConfig} from '../../lib/schema/docker';
import {RecordingSink, until} from '../agent/node';
import {busyboxArchive} from '../harness/busybox';
import {testContainerd, type TestContainerd} from '../harness/containerd';

jest.setTimeout(180_000);

const ATTACH: AttachQuery = {stdin: false, stdout: true, stderr: true, logs: false, stream: true, detachKeys: ''};
const prefix = `ag${(process.pid % 1296).toString(36)}`;
const octet = process.pid % 250;
const NETWORK: NodeNetwork = {id: 'net1', account: 'default', name: 'bridge', bridgeName: `${prefix}br0`, subnet: `10.213.${octet}.0/24`, gateway: `10.213.${octet}.1`, internal: false, options: {}};

let containerd: TestContainerd;
let dataDir: string;
let agent: Agent;
let client: HttpAgentClient;
let closeParts: () => Promise<void>;
let image: ContainerSpec['image'];
const sink = new RecordingSink();
let jobs = 0;

async function boot(): Promise<void> {
  const own = connectContainerd({socket: containerd.process.socket, namespace: 'cetus-test', log: silentLog()});
  const images = createAgentImages({containerd: own, log: silentLog()});
  for (const below of ['state', 'network']) fs.mkdirSync(path.join(dataDir, below), {recursive: true});
  agent = createAgent({
    facts: {nodeId: 'n1', name: 'node-1', platform: 'linux/amd64', architecture: 'amd64', kernelVersion: '6', operatingSystem: 'test', osType: 'linux', cpus: 2, memoryBytes: 1e9, diskBytes: 1e9,
      pids: 1000, cgroupVersion: 1, cgroupDriver: 'cgroupfs', containerdVersion: '', runcVersion: '', snapshotter: '', agentUrl: 'unix:///none', agentVersion: '0', labels: {}},
    runtime: createContainerdRuntime({client: own, stateDirectory: path.join(dataDir, 'state'), log: silentLog()}),
    network: createLinuxNetworking({stateDir: path.join(dataDir, 'network'), prefix, log: silentLog(), warm: 2}),
    images, specs: createSpecBuilder({cgroupParent: `cetus-${prefix}`, cgroups: cgroupAbilities(), initPath: ''}), dataDir, log: silentLog(), controlPlane: sink,
  });
  await agent.open();
  client = new HttpAgentClient('node-1', await agent.listen({socketPath: path.join(dataDir, 'agent.sock')}));
  closeParts = async () => {
    await client.close();
    await agent.close();
    await images.close();
    await own.close();
  };
}

beforeAll(async () => {
  containerd = await testContainerd();
  dataDir = fs.mkdtempSync(path.join(containerd.directory, 'agent-'));
  await boot();
  for await (const line of client.load(Readable.from(fs.createReadStream(await busyboxArchive())))) {
    if (!('result' in line)) continue;
    const [loaded] = line.result.images;
    image = {id: loaded!.imageId, reference: 'busybox', manifestDigest: loaded!.manifest.digest};
  }
});

afterAll(async () => {
  for (const id of [...agent.supervisor.units.keys()]) await task({kind: 'container.remove', containerId: id, force: true});
  await task({kind: 'network.remove', networkId: NETWORK.id}).catch(() => undefined);
  const inventory = await client.inventory();
  await closeParts();
  execFileSync('nft', ['list', 'tables']).toString().split('\n').filter((table) => table.includes(prefix))
    .forEach((table) => execFileSync('nft', ['delete', ...table.split(' ')]));
  for (const name of execFileSync('ip', ['netns', 'list']).toString().split('\n').map((line) => line.split(' ')[0]!).filter((name) => name.includes(prefix)))
    execFileSync('ip', ['netns', 'delete', name]);
  await containerd.stop();
  for (const hierarchy of fs.readdirSync('/sys/fs/cgroup')) await until('an empty control group', () => removed(`/sys/fs/cgroup/${hierarchy}/cetus-${prefix}`));
  expect(inventory).toMatchObject({containers: [], execs: [], namespaces: []});
});

/** Not yet, while its last process is being reaped. */
function removed(cgroup: string): boolean {
  try {
    fs.rmdirSync(cgroup);
  } catch (err) {
    return (err as NodeJS.ErrnoException).code === 'ENOENT';
  }
  return true;
}

function task(body: TaskBody): Promise<TaskOutput> {
  return client.task({jobId: `job-${(jobs += 1)}`, step: 's', epoch: 1, requestId: 'r', body});
}

async function create(cmd: string[], more: {config?: Config; hostConfig?: HostConfig; spec?: Partial<ContainerSpec>} = {}): Promise<string> {
  const id = systemIds.hex64();
  await task({
    kind: 'container.create', volumes: [],
    spec: {id, account: 'default', name: `c-${id.slice(0, 6)}`, image, config: {Cmd: cmd, Env: ['PATH=/bin'], ...more.config}, hostConfig: more.hostConfig ?? {}, logConfig: {Type: 'json-file'},
      mounts: [], networkMode: 'none', createdAt: '2026-01-01T00:00:00Z', ...more.spec},
  });
  return id;
}

async function start(id: string, attachments: NetworkAttachment[] = []): Promise<void> {
  await task({kind: 'container.start', containerId: id, networks: attachments.length ? [NETWORK] : [], attachments, ports: []});
}

async function output(stream: AsyncIterable<Buffer>, tty = false): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of stream) chunks.push(chunk);
  const all = Buffer.concat(chunks);
  if (tty) return all.toString();
  let text = '';
  for (let at = 0; at < all.length;) {
    const length = all.readUInt32BE(at + 4);
    text += all.toString('utf8', at + 8, at + 8 + length);
    at += 8 + length;
  }
  return text;
}

async function run(cmd: string[], more: Parameters<typeof create>[1] = {}): Promise<{text: string; exitCode: number; id: string}> {
  const id = await create(cmd, more);
  const reading = output(await client.attach(id, ATTACH));
  await start(id);
  const text = await reading;
  await until('ended', async () => (await client.observe(id)).status === 'exited');
  return {text, exitCode: (await client.observe(id)).exitCode, id};
}

test('a container runs, is attached to, logs and ends', async () => {
  const {text, exitCode, id} = await run(['sh', '-c', 'echo hello; cat /etc/hostname; exit 3']);
  expect(text).toBe(`hello\n${id.slice(0, 12)}\n`);
  expect(exitCode).toBe(3);
  const logs = await client.logs(id, {stdout: true, stderr: true, follow: false, timestamps: false, details: false, sinceNs: '', untilNs: '', tail: -1});
  expect(await output(logs)).toBe(text);
  await task({kind: 'container.remove', containerId: id, force: false});
});

test('stdin is half-closed, and a megabyte comes back', async () => {
  const id = await create(['cat'], {config: {OpenStdin: true, StdinOnce: true}});
  const stream = await client.attach(id, {...ATTACH, stdin: true});
  const reading = output(stream);
  await start(id);
  const bytes = 'abcdefgh'.repeat(128 * 1024);
  stream.end(bytes);
  expect((await reading) === bytes).toBe(true);
});

test('a container has its place on a network, names and servers', async () => {
  await task({kind: 'network.ensure', network: NETWORK});
  const address = `10.213.${octet}.9`;
  const id = await create(['sh', '-c', 'ip addr show eth0 | grep inet; tail -1 /etc/hosts; cat /etc/resolv.conf'], {spec: {networkMode: 'networks'}});
  const reading = output(await client.attach(id, ATTACH));
  await start(id, [{networkId: NETWORK.id, networkName: 'bridge', endpointId: 'e1', address, prefixLength: 24, gateway: NETWORK.gateway, mac: '02:42:0a:d5:00:09', aliases: [], isDefaultRoute: true, internal: false}]);
  const text = await reading;
  expect(text).toContain(`inet ${address}/24`);
  expect(text).toContain(`${address}\t${id.slice(0, 12)}`);
  expect(text).toContain('nameserver ');
});

test('volumes are filled from the image at their first use, and kept', async () => {
  const mount = {type: 'volume', volumeId: 'vol1', name: 'data', destination: '/bin', readOnly: false, noCopy: false, anonymous: false} as const;
  const first = await run(['sh', '-c', 'ls /bin | wc -l; echo kept > /bin/mark'], {spec: {mounts: [mount]}});
  expect(Number(first.text)).toBeGreaterThan(0);
  expect((await run(['cat', '/bin/mark'], {spec: {mounts: [mount]}})).text).toBe('kept\n');
  for (const id of [...agent.supervisor.units.keys()]) await task({kind: 'container.remove', containerId: id, force: true});
  await task({kind: 'volume.remove', volumeId: 'vol1'});
  expect(fs.existsSync(path.join(dataDir, 'volumes', 'vol1'))).toBe(false);
});

test('execs, top, pause, update and stop', async () => {
  const id = await create(['sh', '-c', 'trap "exit 5" TERM; echo up; while true; do sleep 0.05; done']);
  await start(id);
  const said = async (): Promise<string> => output(await client.logs(id, {stdout: true, stderr: true, follow: false, timestamps: false, details: false, sinceNs: '', untilNs: '', tail: -1}));
  await until('the trap is set', async () => (await said()) === 'up\n');
  await client.putExec('e1', id, {Cmd: ['sh', '-c', 'cat; exit 9'], AttachStdin: true, AttachStdout: true});
  const stream = (await client.startExec('e1', {detachKeys: '', consoleSize: null, detach: false}))!;
  stream.end('through');
  expect(await output(stream)).toBe('through');
  await until('exec ended', async () => (await client.observeExec('e1')).exitCode === 9);
  await client.putExec('e2', id, {Cmd: ['nonsense'], AttachStdout: true});
  expect(await output((await client.startExec('e2', {detachKeys: '', consoleSize: null, detach: false}))!)).toContain('executable file not found in $PATH');
  expect((await client.observeExec('e2')).exitCode).toBe(127);
  const table = await client.top(id, '');
  expect(table.Titles).toContain('PID');
  expect(table.Processes.some((row) => row.join(' ').includes('trap'))).toBe(true);
  await task({kind: 'container.pause', containerId: id});
  expect((await client.observe(id)).status).toBe('paused');
  await task({kind: 'container.unpause', containerId: id});
  await task({kind: 'container.update', containerId: id, resources: {Memory: 64 * 1024 * 1024}, restartPolicy: null});
  const {observation} = await task({kind: 'container.stop', containerId: id, timeoutSeconds: 10, signal: null});
  expect(observation).toMatchObject({status: 'exited', exitCode: 5});
});

test('a command that does not exist is refused with 127', async () => {
  const id = await create(['nonsense']);
  await expect(start(id)).rejects.toThrow(/^failed to create task for container: .*exec: "nonsense": executable file not found in \$PATH/);
  expect(await client.observe(id)).toMatchObject({status: 'created', exitCode: 127});
});

test('the agent restarts, and no container, line or exit is lost', async () => {
  const counting = await create(['sh', '-c', 'i=0; while [ $i -lt 100 ]; do echo line $i; i=$((i+1)); sleep 0.01; done; exit 6']);
  const staying = await create(['sleep', '1000']);
  await start(counting);
  await start(staying);
  const {pid} = await client.observe(staying);
  for (let round = 0; round < 3; round += 1) {
    await closeParts();
    await boot();
  }
  await until('counted', async () => (await client.observe(counting)).status === 'exited');
  expect(await client.observe(counting)).toMatchObject({exitCode: 6});
  expect(await client.observe(staying)).toMatchObject({status: 'running', pid});
  const logs = await client.logs(counting, {stdout: true, stderr: true, follow: false, timestamps: false, details: false, sinceNs: '', untilNs: '', tail: -1});
  expect(await output(logs)).toBe(Array.from({length: 100}, (_, i) => `line ${i}\n`).join(''));
  await agent.settled();
  expect(sink.reports_.map((report) => report.seq)).toEqual(sink.reports_.map((_, i) => i + 1));
});

test('a restart by policy, and a terminal that is resized', async () => {
  const id = await create(['sh', '-c', 'exit 1'], {hostConfig: {RestartPolicy: {Name: 'on-failure', MaximumRetryCount: 2}}});
  await start(id);
  await until('given up', async () => (await client.observe(id)).status === 'exited');
  expect((await client.observe(id)).restartCount).toBe(2);
  const tty = await create(['sh', '-c', 'read x; stty size'], {config: {Tty: true, OpenStdin: true}});
  const stream = await client.attach(tty, {...ATTACH, stdin: true});
  const reading = output(stream, true);
  await start(tty);
  await client.resize(tty, 33, 77);
  stream.write('go\n');
  expect(await reading).toContain('33 77');
});
