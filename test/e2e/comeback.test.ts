/** The whole of `cetus up` ends, by hand or by force, and begins again: what ran runs on and loses no line; what `down` ended comes back as its policy says. */
import {alive} from '../../lib/base/alive';
import {Aftermath, gap} from '../harness/aftermath';
import {NOTHING_LEFT, PROGRAM, run} from '../harness/cetus';
import {datacenterWithBusybox, onlyOnOneMachine} from '../harness/suite';
import {until} from '../harness/wait';

const dc = datacenterWithBusybox({
  prepare: () => dc.ok(['run', '-d', '--name', 'counter', '-p', '0:80', 'busybox', 'sh', '-c', 'i=0; while :; do echo $i; i=$((i+1)); usleep 20000; done']),
});
const after = new Aftermath(dc);

const inspect = (format: string, name: string): Promise<string> => dc.ok(['inspect', '-f', format, name]);
const lines = async (): Promise<number> => (await dc.ok(['logs', 'counter'])).split('\n').length;

const comesBack = async (signal: NodeJS.Signals): Promise<void> => {
  const pid = await inspect('{{.State.Pid}}', 'counter');
  const before = await lines();
  const marks = await after.marksAtRest();
  await dc.stop(signal);
  await dc.up();
  await after.serves();
  expect(await inspect('{{.State.Pid}} {{.State.Running}} {{.RestartCount}}', 'counter')).toBe(`${pid} true 0`);
  await until('it to go on', async () => (await lines()) > before + 50);
  expect(gap(await dc.ok(['logs', 'counter']))).toBe(-1);
  await after.nothingLeaked(marks);
};
test('SIGKILL and start again: the container runs on and loses no line', () => comesBack('SIGKILL'), 240_000);
onlyOnOneMachine('the end of cetus fleet is that of its hosts').each(['SIGINT', 'SIGTERM'] as const)('%s and start again: the same', (signal) => comesBack(signal), 240_000);

test('an exit that happened while nobody was there is told afterwards, with its code and its last line', async () => {
  await dc.ok(['run', '-d', '--name', 'brief', 'busybox', 'sh', '-c', 'while [ ! -e /go ]; do usleep 20000; done; echo last words; exit 7']);
  await dc.ok(['exec', '-d', 'brief', 'sh', '-c', 'sleep 3; touch /go']);
  const pid = Number(await inspect('{{.State.Pid}}', 'brief'));
  await dc.stop('SIGKILL');
  await until('it to end unseen', () => !alive(pid));
  await dc.up();
  await after.serves();
  await until('its end to be told', async () => (await inspect('{{.State.Status}} {{.State.ExitCode}}', 'brief')) === 'exited 7');
  expect(await dc.ok(['logs', 'brief'])).toBe('last words');
  await dc.ok(['rm', 'brief']);
}, 240_000);

test('a second cetus up on the same directory is refused, and disturbs nobody', async () => {
  const second = await run(process.execPath, [PROGRAM, dc.verb, '--data', dc.dataDir, '--listen', '127.0.0.1:0'], {timeoutMs: 60_000});
  expect(second.status).not.toBe(0);
  expect(second.stderr).toMatch(/another cetus up runs on/);
  const down = await run(process.execPath, [PROGRAM, 'down', '--data', dc.dataDir], {timeoutMs: 60_000});
  expect(down.status).not.toBe(0);
  expect(down.stderr).toMatch(/another cetus up runs on/);
  await after.serves();
  expect(await inspect('{{.State.Running}}', 'counter')).toBe('true');
}, 240_000);

test('down leaves nothing; at the next start containers have exited, and those come back whose policy says so', async () => {
  for (const [name, policy] of [['always', 'always'], ['unless', 'unless-stopped'], ['failing', 'on-failure'], ['stopped', 'unless-stopped'], ['never', 'no']])
    await dc.ok(['run', '-d', '--name', name, '--restart', policy, '-v', `data-${name}:/data`, 'busybox', 'sh', '-c', 'echo begun; echo x >> /data/lives; sleep 1000']);
  for (const name of ['always', 'unless', 'failing', 'stopped', 'never']) await until(`${name} to have begun`, async () => (await dc.docker(['exec', name, 'cat', '/data/lives'])).stdout === 'x\n');
  await dc.ok(['stop', '-t', '0', 'stopped']);
  const host = dc.host;
  await dc.stop();
  expect(await run(process.execPath, [PROGRAM, 'down', '--data', dc.dataDir], {timeoutMs: 60_000})).toMatchObject({status: 0});
  expect(dc.traces()).toEqual(NOTHING_LEFT);

  await dc.up();
  expect(dc.host).toBe(host);
  await after.serves();
  for (const name of ['always', 'unless', 'failing']) await until(`${name} to be back`, async () => (await inspect('{{.State.Status}}', name)) === 'running');
  for (const name of ['never', 'counter']) await until(`${name} to be shown as ended`, async () => (await inspect('{{.State.Status}} {{.State.ExitCode}}', name)) === 'exited 255');
  expect(await inspect('{{.State.Status}}', 'stopped')).toBe('exited');
  // Data and logs of the life before are there, and the network works.
  await until('a second life to be noted', async () => (await dc.ok(['exec', 'always', 'cat', '/data/lives'])) === 'x\nx');
  expect(await dc.ok(['logs', 'always'])).toBe('begun\nbegun');
  const address = await inspect('{{.NetworkSettings.IPAddress}}', 'always');
  expect(await dc.ok(['exec', 'unless', 'ping', '-c', '1', '-W', '5', address])).toMatch(/1 packets received/);
  await dc.ok(['start', 'counter']);
  await dc.ok(['rm', '-f', 'always', 'unless', 'failing', 'stopped', 'never', 'counter']);
  await after.jobsEnded();
  await until('all of them to be gone', async () => {
    expect(await after.marks()).toMatchObject({containers: 0, addresses: 0, ports: 0, locks: 0, reserved: 0, onNode: 0, snapshots: expect.any(Number) as number, shims: 0, fifoSets: 0, sandboxes: 0});
    return true;
  });
}, 240_000);
