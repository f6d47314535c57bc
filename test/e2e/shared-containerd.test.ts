/** Two datacenters on one containerd that neither of them started: each leaves the other's containers alone. */
import {processesWith} from '../../lib/main/up/processes';
import {busyboxArchive} from '../harness/busybox';
import {NOTHING_LEFT, PROGRAM, run, startCetus, type TestDatacenter} from '../harness/cetus';
import {testContainerd, type TestContainerd} from '../harness/containerd';
import {until} from '../harness/wait';

let shared: TestContainerd;
let first: TestDatacenter;
let second: TestDatacenter;

beforeAll(async () => {
  shared = await testContainerd();
  const on = ['--containerd', shared.process.socket];
  first = await startCetus(on);
  const archive = await busyboxArchive();
  await first.ok(['load', '-i', archive]);
  await first.ok(['run', '-d', '--name', 'web', 'busybox', 'sleep', '1000']);
  second = await startCetus(on);
  await second.ok(['load', '-i', archive]);
  await second.ok(['run', '-d', '--name', 'web', 'busybox', 'sleep', '1000']);
}, 240_000);
afterAll(async () => {
  try {
    for (const dc of [first, second]) {
      await dc.ok(['rm', '-f', 'web']);
      expect(await dc.destroy()).toEqual(NOTHING_LEFT);
    }
  } finally {
    await shared.stop();
  }
}, 240_000);

const state = (dc: TestDatacenter): Promise<string> => dc.ok(['inspect', '-f', '{{.State.Pid}} {{.State.Running}} {{.RestartCount}}', 'web']);

test('either starts again while the other\'s containers run: they run on', async () => {
  const before = [await state(first), await state(second)];
  expect(before).toEqual([expect.stringMatching(/ true 0$/), expect.stringMatching(/ true 0$/)]);
  for (const dc of [first, second]) {
    await dc.stop();
    await dc.up();
  }
  await until('both to have looked at their containers', async () => (await first.ok(['exec', 'web', 'echo', 'here'])) + (await second.ok(['exec', 'web', 'echo', 'here'])) === 'herehere');
  expect([await state(first), await state(second)]).toEqual(before);
}, 240_000);

test('down ends the one\'s containers and not the other\'s; its next start finds them stopped', async () => {
  const before = await state(second);
  await first.stop();
  expect((await run(process.execPath, [PROGRAM, 'down', '--data', first.dataDir])).status).toBe(0);
  expect(await state(second)).toBe(before);
  // Nor is anything of theirs left with the containerd that goes on: the other's one shim and root are.
  expect(processesWith((words) => words[0]!.endsWith('containerd-shim-runc-v2') && words.includes(shared.process.socket))).toHaveLength(1);
  await first.up();
  // Nobody was there to see the end, as after a reboot.
  await until('the end to be known', async () => (await first.ok(['inspect', '-f', '{{.State.Status}} {{.State.ExitCode}}', 'web'])) === 'exited 255');
  await first.ok(['start', 'web']);
  expect(await first.ok(['exec', 'web', 'echo', 'here'])).toBe('here');
  expect(await state(second)).toBe(before);
}, 240_000);
