/**
 * kill -9 of each of our processes at many moments of create, start, stop and rm, under the stock client. After each death: every job ends,
 * the datacenter serves again, nothing leaks, and a container that has nothing to do with it never noticed.
 */
import http from 'node:http';
import {NOTHING_LEFT, startCetus, type TestDatacenter} from '../harness/cetus';
import {busyboxArchive} from '../harness/busybox';
import {until} from '../harness/wait';

let dc: TestDatacenter;
let bystanderPid: string;

beforeAll(async () => {
  dc = await startCetus();
  await dc.ok(['load', '-i', await busyboxArchive()]);
  await dc.ok(['run', '-d', '--name', 'bystander', 'busybox', 'sh', '-c', 'i=0; while :; do echo $i; i=$((i+1)); usleep 20000; done']);
  bystanderPid = await dc.ok(['inspect', '-f', '{{.State.Pid}}', 'bystander']);
}, 120_000);
afterAll(async () => {
  await dc.ok(['rm', '-fv', 'bystander']).catch(() => undefined);
  expect(await dc.destroy()).toEqual(NOTHING_LEFT);
}, 120_000);

const admin = <T>(path: string): Promise<T> => new Promise((resolve, reject) => {
  http.get({socketPath: dc.running.admin.replace('unix://', ''), path}, (res) => {
    let text = '';
    res.setEncoding('utf8').on('data', (c: string) => { text += c; }).on('end', () => (res.statusCode === 200 ? resolve(JSON.parse(text) as T) : reject(new Error(`${path}: ${res.statusCode} ${text}`))));
  }).on('error', reject);
});
const objects = (bucket: string): Promise<{key: string; value: Record<string, unknown>}[]> => admin(`/v1/store/${bucket}?limit=1000`);

const serves = (): Promise<unknown> => until('the datacenter to serve', async () => (await dc.docker(['ps', '-q'], {timeoutMs: 10_000})).status === 0, 40_000);

/** What may exist while only the bystander does. */
async function nothingLeaked(): Promise<void> {
  await until('every job to end', async () => (await objects('jobs')).every((j) => ['succeeded', 'failed', 'canceled'].includes(String(j.value.execution))), 60_000);
  await until('the node to hold the bystander alone', async () => {
    const containers = await objects('containers');
    const addresses = await objects('addresses');
    const reservations = await objects('reservations');
    const left = {
      containers: containers.length, addresses: addresses.length, ports: (await objects('ports')).length, locks: (await objects('locks')).length,
      reserved: reservations.flatMap((r) => Object.keys(r.value.containers as object)).length,
    };
    if (JSON.stringify(left) !== JSON.stringify({containers: 1, addresses: 1, ports: 0, locks: 0, reserved: 1})) throw new Error(JSON.stringify(left));
    return true;
  }, 30_000);
  const inventory = await admin<{containers: unknown[]; namespaces: string[]; snapshots: string[]; publishedPorts: unknown[]}>(`/v1/nodes/${(await objects('nodes'))[0].value.name as string}/inventory`);
  expect(inventory.containers).toHaveLength(1);
  expect(inventory.namespaces).toHaveLength(1);
  expect(inventory.publishedPorts).toHaveLength(0);
  expect(await dc.ok(['inspect', '-f', '{{.State.Pid}}', 'bystander'])).toBe(bystanderPid);
}

const VICTIMS = ['endpoint', 'agent', 'postgres', 'containerd'] as const;
const DELAYS_MS = [0, 4, 9, 16, 30, 55];
const ACTIONS: Record<string, {prepare: string[][]; act: string[]}> = {
  create: {prepare: [], act: ['create', '--name', 'victim', 'busybox', 'sleep', '1000']},
  start: {prepare: [['create', '--name', 'victim', '-p', '0:80', 'busybox', 'sleep', '1000']], act: ['start', 'victim']},
  stop: {prepare: [['run', '-d', '--name', 'victim', '-p', '0:80', 'busybox', 'sleep', '1000']], act: ['stop', '-t', '0', 'victim']},
  rm: {prepare: [['create', '--name', 'victim', '-v', '/anonymous', 'busybox', 'sleep', '1000']], act: ['rm', '-v', 'victim']},
};

describe.each(VICTIMS)('kill -9 of %s', (victim) => {
  test.each(Object.keys(ACTIONS))('during %s, at many moments', async (name) => {
    const {prepare, act} = ACTIONS[name];
    for (const delayMs of DELAYS_MS) {
      for (const args of prepare) await dc.ok(args);
      const acting = dc.docker(act, {timeoutMs: 60_000});
      await new Promise((resolve) => setTimeout(resolve, delayMs + 25)); // the client itself needs about 25 ms to start
      process.kill(dc.pids()[victim], 'SIGKILL');
      await acting;
      await serves();
      // Whatever the first answer was, asking again must lead to the state asked for.
      await until(`${act.join(' ')} to be true in the end`, async () => {
        const state = await dc.docker(['inspect', '-f', '{{.State.Status}}', 'victim']);
        if (name === 'rm' ? state.status !== 0 : state.stdout.trim() === {create: 'created', start: 'running', stop: 'exited'}[name]) return true;
        await dc.docker(act, {timeoutMs: 60_000});
        return false;
      }, 60_000);
      await until('it to be removed', async () => {
        await dc.docker(['rm', '-fv', 'victim']);
        return (await dc.docker(['inspect', 'victim'])).status !== 0;
      }, 60_000);
    }
    await nothingLeaked();
  }, 300_000);
});

test('the bystander lost no line', async () => {
  const lines = (await dc.ok(['logs', 'bystander'])).split('\n').map(Number);
  expect(lines.length).toBeGreaterThan(100);
  expect(lines.findIndex((n, at) => n !== at)).toBe(-1);
}, 60_000);

test('cetus up itself killed, then started again: the container runs on and loses no line', async () => {
  await dc.stop('SIGKILL');
  await dc.up();
  await serves();
  expect(await dc.ok(['inspect', '-f', '{{.State.Pid}}', 'bystander'])).toBe(bystanderPid);
  const before = (await dc.ok(['logs', 'bystander'])).split('\n').length;
  await until('it to go on', async () => (await dc.ok(['logs', 'bystander'])).split('\n').length > before);
  const lines = (await dc.ok(['logs', 'bystander'])).split('\n').map(Number);
  expect(lines.findIndex((n, at) => n !== at)).toBe(-1);
}, 120_000);
