/** From an endpoint with an authority and a machine that nobody knows to a node of the fleet, by the commands that operators type; and out again. */
import {type ChildProcess, spawn} from 'node:child_process';
import {randomUUID} from 'node:crypto';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import {purgeLinuxNetworking} from '../../lib/agent/network/purge';
import {silentLog} from '../../lib/base/log';
import {killContainers} from '../../lib/main/up/down';
import type {Node} from '../../lib/schema/node';
import {type Finished, PROGRAM, run} from '../harness/cetus';
import {type TestContainerd, testContainerd} from '../harness/containerd';
import {freePorts} from '../harness/ports';
import {usePostgres} from '../harness/postgres';
import {until} from '../harness/wait';

const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'cetus-join-'));
const machine = path.join(dir, 'machine');
const adminSocket = path.join(dir, 'admin.sock');
const processes: ChildProcess[] = [];
let containerd: TestContainerd;

const cetus = (...args: string[]): Promise<Finished> => run(process.execPath, [PROGRAM, ...args]);
const operator = (...args: string[]): Promise<Finished> => cetus(...args, '--admin', adminSocket);
const logs = new Map<ChildProcess, string>();

function begin(...args: string[]): ChildProcess {
  const child = spawn(process.execPath, [PROGRAM, ...args], {stdio: ['ignore', 'pipe', 'pipe']});
  processes.push(child);
  logs.set(child, '');
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (text: Buffer) => logs.set(child, (logs.get(child)! + text.toString()).slice(-20_000)));
  return child;
}
const ended = (child: ChildProcess): Promise<number | null> => new Promise((resolve) => (child.exitCode === null && child.signalCode === null ? child.once('exit', (code) => resolve(code)) : resolve(child.exitCode)));
async function end(child: ChildProcess): Promise<void> {
  child.kill('SIGTERM');
  await ended(child);
}
const node = async (name: string): Promise<Node | undefined> => (JSON.parse((await operator('node', 'ls', '--json')).stdout) as Node[]).find((n) => n.name === name);
const alive = (name: string, generation: number): Promise<Node> => until(`${name} lives`, async () => {
  const found = await node(name);
  return found?.liveness === 'alive' && found.facts.bootGeneration === generation ? found : undefined;
}, 60_000);

beforeAll(async () => { containerd = await testContainerd('cetus'); }, 120_000);
afterAll(async () => {
  await containerd?.stop();
  fs.rmSync(dir, {recursive: true, force: true});
});
// Before the harness looks whether connections to the store are left.
afterEach(async () => {
  for (const child of processes.splice(0).reverse()) await end(child);
  const file = path.join(machine, 'agent.json');
  if (!fs.existsSync(file)) return;
  const {prefix} = JSON.parse(fs.readFileSync(file, 'utf8')) as {prefix: string};
  await killContainers(prefix);
  await purgeLinuxNetworking({prefix, stateDir: path.join(machine, 'agent', 'network'), log: silentLog()});
});
const postgres = usePostgres();

test('a machine joins, is told what to do, comes back by itself, and is removed', async () => {
  const port = await freePorts(2);
  const url = `https://127.0.0.1:${port}`;
  const config = path.join(dir, 'endpoint.json');
  const keyFile = path.join(dir, 'authority.key');
  fs.writeFileSync(config, JSON.stringify({
    id: randomUUID(), name: 'joined', postgresUrl: await postgres.freshDatabase(), listen: [`unix://${path.join(dir, 'docker.sock')}`], adminListen: [`unix://${adminSocket}`],
    fleetListen: `127.0.0.1:${port}`, authority: {keyFile}, policy: {allowHostNetwork: false, allowPrivileged: false, allowBinds: 'off'}, addressPools: [{base: '10.231.0.0/16', size: 24}], logLevel: 'info',
  }));
  const endpoint = begin('endpoint', '--config', config);
  await until('the endpoint answers operators', async () => (await operator('node', 'ls')).status === 0, 60_000).catch((err: unknown) => { throw new Error(`${String(err)}\n${logs.get(endpoint)}`); });
  expect(fs.statSync(keyFile).mode & 0o777).toBe(0o600);

  const {stdout, stderr} = await operator('node', 'token', '--ttl', '10m', '--label', 'rack=r1');
  const token = stdout.trim();
  expect(stderr).toContain(`cetus agent --join ${url} --token ${token}`);

  // What a person may get wrong is said before anything is made.
  expect(await cetus('--data', machine, 'agent')).toMatchObject({status: 1, stderr: expect.stringContaining('agent.json')});
  expect(await cetus('--data', machine, 'agent', '--join', url, '--token', token.slice(0, 40))).toMatchObject({status: 1, stderr: expect.stringContaining('this is no join token')});
  expect(await cetus('--data', machine, 'agent', '--join', url, '--token', token.slice(0, -43) + 'A'.repeat(43))).toMatchObject({status: 1, stderr: expect.stringContaining('is not the one that the token is for')});
  expect(fs.existsSync(path.join(machine, 'agent.json'))).toBe(false);

  const join = ['--data', machine, 'agent', '--join', url, '--token', token, '--name', 'machine-1', '--listen', `127.0.0.1:${port + 1}`, '--containerd', containerd.process.socket, '--label', 'disk=ssd'];
  const agent = begin(...join);
  const joined = await alive('machine-1', 1).catch((err: unknown) => { throw new Error(`${String(err)}\n${logs.get(agent)}`); });
  expect(joined).toMatchObject({labels: {rack: 'r1'}, facts: {labels: {disk: 'ssd'}, agentUrl: `https://127.0.0.1:${port + 1}`}});
  // What it says of itself is this machine's.
  expect(joined.facts).toMatchObject({kernelVersion: os.release(), cpus: os.availableParallelism(), memoryBytes: os.totalmem(), cgroupVersion: fs.existsSync('/sys/fs/cgroup/cgroup.controllers') ? 2 : 1});
  expect(joined.facts.containerdVersion).toMatch(/^\d+\.\d+/);
  expect(joined.facts.diskBytes).toBeGreaterThan(2 ** 20);
  expect(fs.statSync(path.join(machine, 'agent', 'identity', 'node.pem')).mode & 0o777).toBe(0o600);
  // An order, over mutual TLS.
  expect(JSON.parse((await run('curl', ['-s', '--unix-socket', adminSocket, 'http://cetus/v1/nodes/machine-1/inventory'])).stdout)).toMatchObject({containers: []});
  expect((await operator('node', 'tokens')).stdout).toContain(`used by ${joined.id}`);

  expect((await operator('node', 'label', 'machine-1', 'rack-', 'zone=a')).stdout).toContain('zone=a');
  expect((await operator('node', 'cordon', 'machine-1', '--reason', 'a loud fan')).status).toBe(0);
  expect((await operator('node', 'inspect', 'machine-1')).stdout).toMatch(/availability +cordoned for .*: a loud fan\n[\s\S]*labels +disk=ssd zone=a\n[\s\S]*certificate +[0-9A-F]{32} until/);

  // With the same command again, as an init system would, and without any: it is the node it was.
  await end(agent);
  const again = begin(...join);
  expect((await alive('machine-1', 2)).id).toBe(joined.id);
  await end(again);
  const plain = begin('--data', machine, 'agent');
  expect(await alive('machine-1', 3)).toMatchObject({id: joined.id, availability: 'cordoned', availabilityReason: 'a loud fan'});

  expect(await operator('node', 'rm', 'machine-1')).toMatchObject({status: 1, stderr: expect.stringContaining('is alive')});
  expect((await operator('node', 'rm', 'machine-1', '--force')).stdout).toContain('is a member no more');
  await until('the agent is told so', () => logs.get(plain)!.includes('was revoked'), 60_000);
  expect(await node('machine-1')).toBeUndefined();
  await end(plain);
  // A used token makes nobody a member; another one does, with the id and the key that the machine has.
  const refused = begin(...join);
  expect(await ended(refused)).toBe(1);
  expect(logs.get(refused)).toContain('join token was used');
  const next = (await operator('node', 'token')).stdout.trim();
  begin('--data', machine, 'agent', '--join', url, '--token', next);
  expect((await until('machine-1 is back', () => node('machine-1'), 60_000)).id).toBe(joined.id);
}, 300_000);
