/** An operator deletes things behind Cetus' back, on a real node: what can be made again is, the rest is named by `cetus node inspect` until it is no longer so, and nothing is made up. */
import {execFileSync} from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import type {Image, Network, Volume} from '../../lib/schema/objects';
import type {Node} from '../../lib/schema/node';
import {Aftermath} from '../harness/aftermath';
import {datacenterWithBusybox} from '../harness/suite';
import {until} from '../harness/wait';

// One machine: its parts are where they are looked for.
const dc = datacenterWithBusybox({args: ['--admin-listen', '127.0.0.1:0']});
const after = new Aftermath(dc);
const TIMEOUT_MS = 240_000;
const PATH = `${process.env.PATH}:/usr/sbin:/sbin`;

const ctr = (...args: string[]): string => execFileSync('ctr', ['--address', path.join(dc.dataDir, 'containerd', 'containerd.sock'), '--namespace', 'cetus', ...args], {encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe']});
const onHost = (program: string, ...args: string[]): string => execFileSync(program, args, {encoding: 'utf8', env: {...process.env, PATH}});
/** The kinds, with the names. */
async function drift(): Promise<string[]> {
  const [node] = await dc.admin<Node[]>('/v1/nodes');
  return (node!.drift?.findings ?? []).map(({kind, name, id}) => `${kind} ${name || id}`).sort();
}
/** A node is compared with the store when it joins. */
async function restartAgent(whileDown: () => void = () => undefined): Promise<void> {
  const pid = dc.pids()['agent']!;
  whileDown();
  process.kill(pid, 'SIGKILL');
  await until('the agent\'s next life', () => dc.pids()['agent'] && dc.pids()['agent'] !== pid);
  await after.serves();
}
const object = async <T>(bucket: string, which: (value: T) => boolean): Promise<T> => (await after.objects(bucket)).map((row) => row.value as T).find(which)!;

test('a process killed, a task deleted: ends like any other, told to whoever waits', async () => {
  for (const [name, doing] of [['killed', ['tasks', 'kill', '--signal', 'SIGKILL']], ['deleted', ['tasks', 'rm', '--force']]] as const) {
    const id = await dc.ok(['run', '-d', '--name', name, 'busybox', 'sleep', '1000']);
    const wait = dc.docker(['wait', name]);
    try {
      ctr(...doing, id);
    } catch (err) {
      // The agent hears of the end, and may be faster in clearing up.
      if (!/not found/.test(String((err as {stderr?: string}).stderr))) throw err;
    }
    expect((await wait).stdout.trim()).toBe('137');
    expect(await dc.ok(['inspect', '-f', '{{.State.Status}} {{.State.ExitCode}}', name])).toBe('exited 137');
    await dc.ok(['start', name]);
    await dc.ok(['rm', '-f', name]);
  }
}, TIMEOUT_MS);

test('bridge and rules that somebody deleted are made again, and containers reach each other by name and their published ports answer', async () => {
  await dc.ok(['network', 'create', 'mine']);
  await dc.ok(['run', '-d', '--name', 'web', '--network', 'mine', '-p', '127.0.0.1::80', 'busybox', 'sh', '-c', 'echo hello > /tmp/index.html; exec httpd -f -p 80 -h /tmp']);
  await dc.ok(['run', '-d', '--name', 'client', '--network', 'mine', 'busybox', 'sleep', '1000']);
  const reached = async (): Promise<boolean> => (await dc.docker(['exec', 'client', 'timeout', '3', 'wget', '-qO-', 'http://web/'])).stdout.trim() === 'hello';
  const published = (await dc.ok(['port', 'web', '80'])).trim();
  const answers = async (): Promise<boolean> => fetch(`http://${published}/`, {signal: AbortSignal.timeout(2_000)}).then(async (res) => (await res.text()).trim() === 'hello', () => false);
  await until('it to be reached', async () => (await reached()) && answers());
  const network = await object<Network>('networks', ({name}) => name === 'mine');
  const links = JSON.parse(onHost('ip', '-j', 'link', 'show', 'type', 'bridge')) as {ifname: string; ifalias?: string}[];
  onHost('ip', 'link', 'del', links.find(({ifalias}) => ifalias?.includes(network.id))!.ifname);
  onHost('nft', 'delete', 'table', 'ip', `cetus_${dc.running.prefix}`);
  await until('bridge and rules to be back', async () => (await reached()) && answers(), 90_000);
  await dc.ok(['rm', '-f', 'web', 'client']);
  await dc.ok(['network', 'rm', 'mine']);
}, TIMEOUT_MS);

test('files that are gone are named, what lost them is not made up, and the findings end with what they are about', async () => {
  const state = (name: string): Promise<string> => dc.ok(['inspect', '-f', '{{.State.Status}} {{.State.ExitCode}}', name]);
  await dc.ok(['run', '--name', 'written', 'busybox', 'sh', '-c', 'echo mine > /file']);
  await dc.ok(['run', '-d', '--name', 'lost', 'busybox', 'sleep', '1000']);
  await dc.ok(['run', '-d', '--name', 'fine', 'busybox', 'sleep', '1000']);
  await dc.ok(['run', '--rm', '-v', 'data:/data', 'busybox', 'touch', '/data/file']);
  await restartAgent();
  await until('no difference to be known', async () => (await drift()).length === 0);
  const [written, lost] = await Promise.all(['written', 'lost'].map((name) => dc.ok(['inspect', '-f', '{{.Id}}', name])));
  const volume = await object<Volume>('volumes', ({name}) => name === 'data');
  const image = await object<Image>('images', () => true);
  await restartAgent(() => {
    ctr('snapshots', 'rm', written!);
    ctr('content', 'rm', image.layers[0]!.digest);
    fs.rmSync(path.join(dc.dataDir, 'agent', 'volumes', volume.id), {recursive: true});
    fs.rmSync(path.join(dc.dataDir, 'agent', 'containers', lost!), {recursive: true, force: true});
  });
  await until('all of it to be known', async () => {
    const found = await drift();
    for (const kind of ['container.files default/written', 'container.missing default/lost', 'image.missing', 'volume.missing default/data']) if (!found.some((one) => one.startsWith(kind))) throw new Error(found.join(', '));
    return found.length === 4;
  }, 60_000);
  const inspected = (await dc.cetus(['node', 'inspect', (await dc.admin<Node[]>('/v1/nodes'))[0]!.name])).stdout;
  expect(inspected).toMatch(/volume\.missing default\/data: its files are gone; nothing was done about it/);
  expect(inspected).toMatch(/container\.missing default\/lost: .*; shown as exited/);
  expect(await state('lost')).toBe('exited 255');
  expect(await dc.ok(['inspect', '-f', '{{.State.Error}}', 'lost'])).toMatch(/does not have it any more/);
  expect(await state('fine')).toBe('running 0');
  await dc.ok(['rm', 'lost', 'written']);
  await dc.ok(['rm', '-f', 'fine']);
  await dc.ok(['volume', 'rm', 'data']);
  await dc.ok(['rmi', '-f', 'busybox']);
  await until('nothing to be amiss', async () => (await drift()).length === 0, 60_000);
}, TIMEOUT_MS);
