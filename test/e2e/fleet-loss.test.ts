/**
 * What people see of a node's loss: a client in the foreground ends with the reason, or stays with a container that goes elsewhere; a drain moves two at a time; a
 * node that comes back without its containerd's files says so in `cetus node inspect`, and makes up nothing.
 */
import {type ChildProcess, spawn} from 'node:child_process';
import {once} from 'node:events';
import fs from 'node:fs';
import path from 'node:path';
import type {Node} from '../../lib/schema/node';
import {busyboxArchive} from '../harness/busybox';
import {NOTHING_LEFT} from '../harness/cetus';
import {startFleet, type TestFleet} from '../harness/fleet';
import {ofLong} from '../harness/long';
import {until} from '../harness/wait';

const MANY = ofLong(5, 20);
const TIMEOUT_MS = 300_000;
let fleet: TestFleet;

beforeAll(async () => {
  // Short leases: a node is fenced within half a minute.
  fleet = await startFleet({nodes: 3, endpoints: 2, args: ['--lease', '5s']});
  await fleet.ok(['load', '-i', await busyboxArchive()]);
}, TIMEOUT_MS);
afterAll(async () => expect(await fleet?.destroy()).toEqual(NOTHING_LEFT), TIMEOUT_MS);

interface Shown { name: string; node: string; status: string; moving?: object }
const node = async (number: number): Promise<Node> => (await fleet.admin<Node[]>('/v1/nodes')).find(({name}) => name === fleet.node(number).name)!;
const is = (number: number, liveness: Node['liveness']): Promise<unknown> => until(`node ${number} to be ${liveness}`, async () => (await node(number)).liveness === liveness, 120_000);
const shown = async (prefix: string): Promise<Shown[]> => (await fleet.admin<Shown[]>('/v1/containers?limit=1000')).filter(({name}) => name.startsWith(prefix));

/** What is made meanwhile comes there, and may go anywhere afterwards. */
async function onlyOn(number: number, work: () => Promise<unknown>): Promise<void> {
  const others = fleet.nodes.filter((other) => other.number !== number).map(({name}) => name);
  for (const name of others) expect((await fleet.cetus(['node', 'cordon', name])).status).toBe(0);
  await work();
  for (const name of others) expect((await fleet.cetus(['node', 'uncordon', name])).status).toBe(0);
}

/** A client as somebody has it before himself. */
function foreground(name: string, ...more: string[]): {client: ChildProcess; said: () => string; ended: Promise<number>} {
  const client = spawn('docker', ['run', '--name', name, ...more, 'busybox', 'sh', '-c', 'echo begun; exec sleep 100000'], {env: {...process.env, DOCKER_HOST: fleet.host}, stdio: ['ignore', 'pipe', 'pipe']});
  let text = '';
  for (const stream of [client.stdout!, client.stderr!]) stream.setEncoding('utf8').on('data', (more: string) => { text += more; });
  return {client, said: () => text, ended: once(client, 'close').then(([status]) => status as number)};
}

test('a client in the foreground ends with the reason when its node is lost; with --restart it stays, and ends as the container does on its next node', async () => {
  const clients: ReturnType<typeof foreground>[] = [];
  await onlyOn(1, async () => {
    clients.push(foreground('stays'), foreground('goes', '--restart', 'always', '--stop-signal', 'KILL'));
    for (const {said} of clients) await until('it to have begun', () => said().includes('begun'));
  });
  const [stays, goes] = clients as [typeof clients[number], typeof clients[number]];
  await fleet.powerOff(1);
  try {
    // 125 is what `docker run` ends with where it is the daemon that failed, not the container.
    expect(await stays.ended).toBe(125);
    expect(stays.said()).toMatch(/container stays is on node node-1, which is (lost|fenced)/);
    await until('the other to run elsewhere', async () => (await shown('goes')).every((c) => c.node !== 'node-1' && c.status === 'running' && !c.moving), 180_000);
    expect(goes.client.exitCode).toBeNull();
    await fleet.ok(['stop', '-t', '0', 'goes']);
    expect(await goes.ended).toBe(137);
  } finally {
    for (const {client} of clients) client.kill('SIGKILL');
    await fleet.powerOn(1);
  }
  await is(1, 'alive');
  await until('its end to be known', async () => (await fleet.ok(['inspect', '-f', '{{.State.Status}}', 'stays'])) === 'exited', 90_000);
  await fleet.ok(['rm', '-f', 'stays', 'goes']);
}, TIMEOUT_MS);

test('a drain moves what may move, two at a time, and says how long it took', async () => {
  const names = Array.from({length: MANY}, (_, n) => `leaves-${n}`);
  await onlyOn(1, async () => {
    for (const name of names) await fleet.ok(['run', '-d', '--name', name, '--restart', 'always', '--stop-signal', 'KILL', 'busybox', 'sleep', '100000']);
  });
  expect((await shown('leaves-')).map((c) => c.node)).toEqual(names.map(() => 'node-1'));
  const fromMs = performance.now();
  expect((await fleet.cetus(['node', 'drain', 'node-1'])).status).toBe(0);
  let most = 0;
  await until('all to run elsewhere', async () => {
    const all = await shown('leaves-');
    most = Math.max(most, all.filter((c) => c.moving).length);
    return all.length === MANY && all.every((c) => c.node !== 'node-1' && c.status === 'running' && !c.moving);
  }, 180_000);
  process.stderr.write(`${MANY} containers drained in ${Math.round(performance.now() - fromMs)} ms, at most ${most} at once\n`);
  expect(most).toBeLessThanOrEqual(2);
  expect((await fleet.cetus(['node', 'uncordon', 'node-1'])).status).toBe(0);
  await fleet.ok(['rm', '-f', ...names]);
}, TIMEOUT_MS);

test('a node whose containerd has lost its files names what is gone, and nothing is made up', async () => {
  await fleet.ok(['run', '--name', 'written', '-e', 'constraint:node==node-3', 'busybox', 'sh', '-c', 'echo mine > /file']);
  await fleet.powerOff(3);
  fs.rmSync(path.join(fleet.dirOf(3), 'containerd'), {recursive: true});
  await fleet.powerOn(3);
  await is(3, 'alive');
  await until('its loss to be named', async () => {
    const {stdout} = await fleet.cetus(['node', 'inspect', 'node-3']);
    if (!/container\.files default\/written: .*another start would begin with the image's files/.test(stdout)) throw new Error(stdout);
    return true;
  }, 120_000);
  expect(await fleet.ok(['inspect', '-f', '{{.State.Status}} {{.State.ExitCode}}', 'written'])).toBe('exited 0');
  // The image's other holders give it back as soon as somebody needs it there.
  expect(await fleet.ok(['run', '--rm', '-e', 'constraint:node==node-3', 'busybox', 'echo', 'serves'], {timeoutMs: 120_000})).toBe('serves');
  await fleet.ok(['rm', 'written']);
  await until('nothing to be amiss', async () => ((await node(3)).drift?.findings ?? []).filter(({kind}) => kind.startsWith('container.')).length === 0, 120_000);
}, TIMEOUT_MS);
