/**
 * `cetus fleet` itself: hosts with everything of their own, a registry that each reaches, hosts that lose their power and get it back, a fleet that is killed
 * and found again by the next one, and nothing left on the machine after its end.
 */
import {busyboxArchive} from '../harness/busybox';
import {NOTHING_LEFT, PROGRAM, run} from '../harness/cetus';
import {startFleet, type TestFleet} from '../harness/fleet';
import {fleetTraces, traces} from '../harness/leaks';
import {startRegistry, type TestRegistry} from '../harness/registry';
import {until} from '../harness/wait';

let fleet: TestFleet;
let registry: TestRegistry;
let image: string;
let empty: Record<string, number>[];

beforeAll(async () => {
  registry = await startRegistry();
  fleet = await startFleet({nodes: 3, endpoints: 2});
  empty = await fleet.allMarks();
  image = `${registry.host}/busybox:1`;
  await fleet.ok(['load', '-i', await busyboxArchive()]);
  await fleet.ok(['tag', 'busybox', image]);
  await fleet.ok(['push', image]);
  await fleet.ok(['pull', image]);
}, 240_000);
afterAll(async () => {
  const left = await fleet?.destroy();
  await registry?.stop();
  expect(left).toEqual(NOTHING_LEFT);
}, 240_000);

const runOn = (number: number, name: string, ...more: string[]): Promise<string> =>
  fleet.ok(['run', '-d', '--name', name, '-e', `constraint:node==node-${number}`, ...more, image, 'sleep', '100000']);

test('each host has processes, addresses and files of its own, and takes images from a registry of this machine', async () => {
  for (const {number} of fleet.nodes) {
    await runOn(number, `on-${number}`);
    expect((await fleet.nodeOf(`on-${number}`)).number).toBe(number);
    expect(await fleet.at(1 + (number % 2)).ok(['exec', `on-${number}`, 'echo', 'there'])).toBe('there');
  }
  const marks = await fleet.allMarks();
  for (const one of marks) expect(one).toMatchObject({containers: 1, sandboxes: 1, shims: 1, plugs: expect.any(Number) as number});
}, 240_000);

test('a host without power is silent, its containers have ended; with power again it serves, and nobody else noticed', async () => {
  const pid = await fleet.ok(['inspect', '-f', '{{.State.Pid}}', 'on-1']);
  await runOn(2, 'again', '--restart', 'always');
  await fleet.powerOff(2);
  expect(traces(fleet.dirOf(2), fleet.node(2).prefix)).toMatchObject({processes: [], mounts: [], namespaces: []});
  await fleet.powerOn(2);
  await until('what restarts to run again', async () => (await fleet.docker(['exec', 'again', 'echo', 'back'])).stdout.trim() === 'back', 90_000);
  await until('the other to be known to have ended', async () => (await fleet.ok(['inspect', '-f', '{{.State.Status}}', 'on-2'])) === 'exited', 90_000);
  expect(await fleet.ok(['inspect', '-f', '{{.State.Pid}} {{.State.Running}}', 'on-1'])).toBe(`${pid} true`);
  await fleet.ok(['start', 'on-2']);
  await fleet.ok(['rm', '-f', 'again']);
}, 240_000);

test('a host that is cut off answers again when the cut is mended', async () => {
  await fleet.cut(3);
  const asked = fleet.docker(['exec', 'on-3', 'true'], {timeoutMs: 60_000});
  expect((await asked).status).not.toBe(0);
  await fleet.mend(3);
  await until('it to be reached', async () => (await fleet.docker(['exec', 'on-3', 'echo', 'here'])).stdout.trim() === 'here', 90_000);
}, 240_000);

test('an endpoint that is away is done without: by clients of the balancer, and by the nodes', async () => {
  for (const number of [1, 2]) {
    await fleet.killEndpoint(number);
    for (const node of fleet.nodes) await until(`${node.name} to report`, async () => (await fleet.docker(['run', '--rm', '-e', `constraint:node==${node.name}`, image, 'echo', 'done'])).stdout.trim() === 'done', 90_000);
    await fleet.startEndpoint(number);
  }
}, 240_000);

test('a killed fleet\'s containers run on, and the next one has them', async () => {
  const pids = await fleet.ok(['inspect', '-f', '{{.State.Pid}}', 'on-1', 'on-2', 'on-3']);
  await fleet.stop('SIGKILL');
  await fleet.up();
  expect(await fleet.ok(['inspect', '-f', '{{.State.Pid}}', 'on-1', 'on-2', 'on-3'])).toBe(pids);
  for (const {number} of fleet.nodes) expect(await fleet.ok(['exec', `on-${number}`, 'echo', 'there'])).toBe('there');
}, 240_000);

test('`cetus down` ends what a killed fleet leaves; the next start has the data, and no node has lost anything', async () => {
  await fleet.stop('SIGKILL');
  const down = await run(process.execPath, [PROGRAM, 'down', '--data', fleet.dataDir], {timeoutMs: 60_000});
  expect([down.status, down.stderr]).toEqual([0, '']);
  expect(fleetTraces(fleet.dataDir, fleet.running.prefix, fleet.nodes)).toEqual(NOTHING_LEFT);
  await fleet.up();
  expect((await fleet.ok(['ps', '-a', '--format', '{{.Names}}'])).split('\n').sort()).toEqual(['on-1', 'on-2', 'on-3']);
  for (const {number} of fleet.nodes) await fleet.ok(['start', `on-${number}`]);
  await fleet.ok(['rm', '-f', 'on-1', 'on-2', 'on-3']);
  // Of the image's one layer.
  await fleet.nothingLeaked(empty.map((marks) => ({...marks, snapshots: 1})));
}, 240_000);

test('a paused container, whose processes no signal reaches, is no obstacle to a host\'s end', async () => {
  await runOn(1, 'paused');
  await fleet.ok(['pause', 'paused']);
  await fleet.powerOff(1);
  expect(traces(fleet.dirOf(1), fleet.node(1).prefix)).toMatchObject({processes: [], mounts: [], namespaces: [], cgroups: []});
  await fleet.powerOn(1);
  await until('it to be known to have ended', async () => (await fleet.ok(['inspect', '-f', '{{.State.Status}}', 'paused'])) === 'exited', 90_000);
  await fleet.ok(['start', 'paused']);
  await fleet.ok(['pause', 'paused']);
  // The end of the file takes it down as it is.
}, 240_000);
