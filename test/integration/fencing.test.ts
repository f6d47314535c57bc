/**
 * Self-fencing with everything real: the built agent as a process, its guard, containerd, control groups. The control plane is a few lines here, so that it can be silent at will. Whether
 * something runs is asked of the kernel, never of the agent.
 */
import {type ChildProcess, execFileSync, spawn} from 'node:child_process';
import fs from 'node:fs';
import http from 'node:http';
import path from 'node:path';
import {Readable} from 'node:stream';
import {readJson} from '../../lib/base/body';
import {CetusError} from '../../lib/base/errors';
import {systemIds} from '../../lib/base/ids';
import {HttpAgentClient} from '../../lib/fleet/agent-client';
import type {AssignmentQuestion, Heartbeat, ReportBatch, TaskBody, TaskOutput} from '../../lib/schema/agent';
import type {ContainerSpec} from '../../lib/schema/container';
import {statusOf} from '../../lib/schema/wire';
import {busyboxArchive} from '../harness/busybox';
import {PROGRAM} from '../harness/cetus';
import {testContainerd, type TestContainerd} from '../harness/containerd';
import {until} from '../harness/wait';

jest.setTimeout(300_000);

const LEASE_MS = 4_000;
const FENCE_AFTER_MS = 8_000;
/** Agent, then guard, then what a busy machine takes. */
const ENDS_WITHIN_MS = 40_000;
const prefix = `fe${(process.pid % 1296).toString(36)}`;

let containerd: TestContainerd;
let directory: string;
let agent: ChildProcess | undefined;
let client: HttpAgentClient;
let image: ContainerSpec['image'];
let jobs = 0;
let server: http.Server;
const plane = {silent: false, fenceAfterMs: FENCE_AFTER_MS, fencedGeneration: 0, moved: [] as string[], joins: [] as number[], beats: 0, renewedMs: 0};

function answer(url: string, body: unknown): unknown {
  const fenced = (generation: number): void => {
    if (generation <= plane.fencedGeneration) throw new CetusError('stale', 'fenced', {info: {fenced: true}});
  };
  switch (url) {
    case '/v1/join': {
      const {nodeId, bootGeneration} = body as {nodeId: string; bootGeneration: number};
      fenced(bootGeneration);
      plane.joins.push(bootGeneration);
      return {nodeId};
    }
    case '/v1/heartbeat':
      fenced((body as Heartbeat).bootGeneration);
      plane.beats += 1;
      plane.renewedMs = performance.now();
      return {leaseMs: LEASE_MS, fenceAfterMs: plane.fenceAfterMs};
    case '/v1/assignments': {
      const {containers} = body as AssignmentQuestion;
      return {own: containers.filter((id) => !plane.moved.includes(id)), moved: containers.filter((id) => plane.moved.includes(id))};
    }
    case '/v1/reports': return {ackedSeq: (body as ReportBatch).reports.at(-1)!.seq};
    default: throw new CetusError('notFound', url);
  }
}

async function listen(): Promise<string> {
  const socket = path.join(directory, 'plane.sock');
  server = http.createServer((req, res) => void (async () => {
    const body = await readJson(req);
    if (plane.silent) return void res.destroy();
    try {
      res.end(JSON.stringify(answer(req.url!, body)));
    } catch (err) {
      res.writeHead(statusOf((err as CetusError).kind)).end(JSON.stringify((err as CetusError).toWire()));
    }
  })().catch(() => res.destroy()));
  await new Promise<void>((resolve) => server.listen(socket, resolve));
  return `unix://${socket}`;
}

async function startAgent(): Promise<void> {
  const log = fs.openSync(path.join(directory, 'agent.log'), 'a');
  agent = spawn(process.execPath, [PROGRAM, 'agent', '--config', path.join(directory, 'agent.json')], {stdio: ['ignore', log, log]});
  fs.closeSync(log);
  const socketPath = path.join(directory, 'agent.sock');
  client = new HttpAgentClient('node-1', `unix://${socketPath}`);
  await until('the agent', () => client.info().then(() => true));
}

async function killAgent(): Promise<void> {
  const gone = new Promise((resolve) => agent!.once('exit', resolve));
  agent!.kill('SIGKILL');
  await gone;
  await client.close();
}

const guardPid = (): number => Number(fs.readFileSync(path.join(directory, 'data', 'guard', 'guard'), 'utf8'));
const lives = (pid: number): boolean => {
  try {
    // A zombie is dead: its parent has only not asked yet.
    return !/^\d+ \(.*\) [ZX]/s.test(fs.readFileSync(`/proc/${pid}/stat`, 'latin1'));
  } catch {
    return false;
  }
};

function task(body: TaskBody): Promise<TaskOutput> {
  return client.task({jobId: `job-${(jobs += 1)}`, step: 's', epoch: 1, requestId: 'r', body});
}

/** Answers its pid. */
async function run(reschedule: boolean, name = systemIds.hex64()): Promise<{id: string; pid: number}> {
  await task({
    kind: 'container.create', volumes: [],
    spec: {id: name, account: 'default', name: `c-${name.slice(0, 6)}`, image, config: {Cmd: ['sh', '-c', 'sleep 100000 & wait'], Env: ['PATH=/bin']}, hostConfig: {RestartPolicy: {Name: 'always'}},
      logConfig: {Type: 'json-file'}, mounts: [], networkMode: 'none', createdAt: '2026-01-01T00:00:00Z'},
  });
  const {observation} = await until('a start under a lease', () => task({kind: 'container.start', containerId: name, networks: [], attachments: [], ports: [], reschedule}).catch((err: CetusError) => {
    if (err.kind !== 'unavailable') throw err;
    return undefined;
  }));
  return {id: name, pid: observation!.pid};
}

const remove = (id: string): Promise<TaskOutput> => task({kind: 'container.remove', containerId: id, force: true});

beforeAll(async () => {
  containerd = await testContainerd();
  directory = fs.mkdtempSync(path.join(containerd.directory, 'fencing-'));
  fs.writeFileSync(path.join(directory, 'agent.json'), JSON.stringify({
    nodeId: 'n1', name: 'node-1', dataDir: path.join(directory, 'data'), containerdSocket: containerd.process.socket, containerdNamespace: 'cetus-test', listen: `unix://${path.join(directory, 'agent.sock')}`,
    controlPlane: await listen(), prefix, labels: {}, insecureRegistries: [], logLevel: 'info',
  }));
  await startAgent();
  for await (const line of client.load(Readable.from(fs.createReadStream(await busyboxArchive())))) {
    if (!('result' in line)) continue;
    const [loaded] = line.result.images;
    image = {id: loaded!.imageId, reference: 'busybox', manifestDigest: loaded!.manifest.digest};
  }
});

afterAll(async () => {
  plane.silent = false;
  const {containers} = await client.inventory();
  for (const {id} of containers) await remove(id);
  const guard = guardPid();
  await client.close();
  const gone = new Promise((resolve) => agent!.once('exit', resolve));
  agent!.kill('SIGTERM');
  await gone;
  server.closeAllConnections();
  server.close();
  for (const table of execFileSync('nft', ['list', 'tables']).toString().split('\n').filter((line) => line.includes(prefix))) execFileSync('nft', ['delete', ...table.split(' ')]);
  for (const name of execFileSync('ip', ['netns', 'list']).toString().split('\n').map((line) => line.split(' ')[0]!).filter((line) => line.includes(prefix))) execFileSync('ip', ['netns', 'delete', name]);
  await containerd.stop();
  for (const hierarchy of ['', ...fs.readdirSync('/sys/fs/cgroup')]) {
    const group = `/sys/fs/cgroup/${hierarchy}/cetus-${prefix}`;
    if (fs.existsSync(group)) await until('an empty control group', () => { fs.rmdirSync(group); return true; });
  }
  // Its directory is gone, and so is it.
  await until('the guard ends by itself', () => !lives(guard));
});

afterEach(() => { plane.silent = false; });

test('cut off: what is marked ends by the agent, what is not runs on, and comes back when it is heard again', async () => {
  const [marked, plain] = [await run(true), await run(false)];
  plane.silent = true;
  await until('the marked one ends', () => !lives(marked.pid), ENDS_WITHIN_MS);
  const tookMs = performance.now() - plane.renewedMs;
  expect(tookMs).toBeGreaterThan(FENCE_AFTER_MS - LEASE_MS / 3);
  expect(lives(plain.pid)).toBe(true);
  plane.silent = false;
  const again = await until('it runs again', async () => {
    const {status, pid} = await client.observe(marked.id);
    return status === 'running' && pid;
  });
  expect(lives(again)).toBe(true);
  expect(plane.joins).toHaveLength(1);
  await Promise.all([remove(marked.id), remove(plain.id)]);
});

test('a stopped agent sleeps through its lease: the guard ends what is marked, a paused one too; it wakes in a new life and takes away what moved', async () => {
  const [moved, kept, frozen, plain] = [await run(true), await run(true), await run(true), await run(false)];
  await task({kind: 'container.pause', containerId: frozen.id});
  agent!.kill('SIGSTOP');
  try {
    await until('all marked ones end', () => ![moved, kept, frozen].some(({pid}) => lives(pid)), ENDS_WITHIN_MS);
    expect(performance.now() - plane.renewedMs).toBeGreaterThan(FENCE_AFTER_MS);
    expect(lives(plain.pid)).toBe(true);
    expect(fs.readFileSync(path.join(directory, 'data', 'guard', 'guard.log'), 'utf8')).toContain(moved.id);
    [plane.fencedGeneration] = plane.joins.slice(-1) as [number];
    plane.moved = [moved.id];
  } finally {
    agent!.kill('SIGCONT');
  }
  await until('it joins in the next life', () => plane.joins.at(-1)! > plane.fencedGeneration);
  await until('what moved is gone', () => client.observe(moved.id).then(() => false, (err: CetusError) => err.kind === 'notFound'));
  for (const {id} of [kept, frozen]) await until('its own run again', async () => (await client.observe(id)).status === 'running');
  expect(lives(plain.pid)).toBe(true);
  plane.moved = [];
  for (const {id} of [kept, frozen, plain]) await remove(id);
});

test('a killed agent: its guard ends what is marked; the next agent starts nothing of it before it has asked', async () => {
  const [marked, moved] = [await run(true), await run(true)];
  const guard = guardPid();
  await killAgent();
  expect(lives(marked.pid)).toBe(true);
  await until('the marked ones end', () => !lives(marked.pid) && !lives(moved.pid), ENDS_WITHIN_MS);
  expect(performance.now() - plane.renewedMs).toBeGreaterThan(FENCE_AFTER_MS);
  await until('nobody is left to guard', () => !lives(guard));
  plane.silent = true;
  [plane.fencedGeneration] = plane.joins.slice(-1) as [number];
  plane.moved = [moved.id];
  await startAgent();
  const {containers} = await client.inventory();
  expect(containers.filter(({observation}) => observation.status === 'running')).toEqual([]);
  plane.silent = false;
  await until('its own runs again', async () => (await client.observe(marked.id)).status === 'running');
  await until('what moved is gone', () => client.observe(moved.id).then(() => false, (err: CetusError) => err.kind === 'notFound'));
  plane.moved = [];
  await remove(marked.id);
});

test('an agent that is restarted in time takes everything up, and its guard goes on; one that is killed or stopped gets a successor', async () => {
  // Longer than a start of the agent takes on the busiest machine.
  plane.fenceAfterMs = 120_000;
  const marked = await run(true);
  const {beats} = plane;
  await until('a lease of that length', () => plane.beats > beats + 1);
  const first = guardPid();
  await killAgent();
  await startAgent();
  await until('it is taken up', async () => (await client.observe(marked.id)).status === 'running');
  expect(lives(marked.pid)).toBe(true);
  expect(guardPid()).toBe(first);
  process.kill(first, 'SIGSTOP');
  const second = await until('a successor of the stopped one', () => guardPid() !== first && guardPid());
  process.kill(first, 'SIGCONT');
  await until('the stopped one gives way', () => !lives(first));
  process.kill(second, 'SIGKILL');
  await until('a successor of the killed one', () => guardPid() !== second && lives(guardPid()));
  expect(lives(marked.pid)).toBe(true);
  await remove(marked.id);
});
