/**
 * `cetus down`: after `cetus up`, `cetus cluster` or `cetus fleet` has ended, takes what outlives it off this machine: containers, their namespaces, bridges, rules, mounts,
 * containerd and Postgres. The data stays, so the next `cetus up` finds its containers stopped. Found by the instance's prefix and directory.
 */
import {execFile} from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import {promisify} from 'node:util';
import {connectContainerd} from '../../agent/containerd/connect';
import {purgeLinuxNetworking} from '../../agent/network/purge';
import {purgeFifos} from '../../agent/runtime/fifos';
import {CetusError} from '../../base/errors';
import {silentLog} from '../../base/log';
import {readLayout} from '../cluster/layout';
import {readAgentConfig} from '../config';
import {knownLayout, nodeDir} from '../fleet/layout';
import {Underlay} from '../fleet/underlay';
import {lockDirectory, loadInstance} from './instance';
import {requireRoot} from './preflight';
import {processesWith, signalAll, untilGone} from './processes';

const run = promisify(execFile);
const TOOL_TIMEOUT_MS = 20_000;
const PROCESS_TIMEOUT_MS = 10_000;
const REAP_TIMEOUT_MS = 2_000;

export async function down(data: string): Promise<void> {
  requireRoot('down');
  const dir = path.resolve(data);
  const whole = fs.existsSync(path.join(dir, 'instance.json'));
  if (!whole && !readLayout(dir)) throw new CetusError('notFound', `${dir} is not a data directory of Cetus`);
  const unlocks = [await lockDirectory(dir), await lockDirectory(dir, 'store')];
  // After `cetus cluster --only-store` there has never been a container.
  await (whole ? cleanUp(dir) : endAll(dir));
  for (const unlock of unlocks) unlock();
  process.stdout.write(`down: ${whole ? 'containers, bridges and rules are gone' : 'the store has ended'}; the data stays\n`);
}

/** The caller has the directory's locks, and nothing of it runs under supervision. */
export async function cleanUp(dir: string): Promise<void> {
  const {prefix} = loadInstance(dir);
  const layout = knownLayout(dir);
  // Of a fleet each node has a prefix and a directory of its own.
  const nodes = layout ? layout.nodes.map((node) => ({prefix: node.prefix, agentDir: path.join(nodeDir(dir, node), 'agent')})) : [{prefix, agentDir: path.join(dir, 'agent')}];
  // Shims carry containerd's socket on their command line, containerd its configuration, Postgres its directory: ours are known by the path.
  await endAll(dir);
  await Promise.all(nodes.map((node) => killContainers(node.prefix)));
  await forgetTasks(dir);
  for (const mount of mountsBelow(dir)) await tool('umount', ['-l', mount]);
  for (const node of nodes) {
    await purgeFifos(path.join(node.agentDir, 'state'));
    await purgeLinuxNetworking({prefix: node.prefix, stateDir: path.join(node.agentDir, 'network'), log: silentLog()});
  }
  if (!layout) return;
  await new Underlay(layout, prefix, silentLog()).remove();
  // Test hosts have lost their power, and with it what lay in memory.
  for (const node of layout.nodes) fs.rmSync(path.join(nodeDir(dir, node), 'containerd', 'state'), {recursive: true, force: true});
}

const PROGRAMS = /^(containerd|containerd-shim-.+|runc|postgres|dockerd|unshare|java)$/;

/** One of our programs, with the directory on its command line. An editor, a shell or a client that names a file of ours is a person's. */
export function isOfInstance(words: readonly string[], dir: string): boolean {
  const program = path.basename(words[0] ?? '');
  const ours = PROGRAMS.test(program) || ((program === 'node' || program === 'cetus') && words.some((word) => /(^|\/)cetus(\.js)?$/.test(word)));
  return ours && words.some((word) => word === dir || word.includes(`${dir}/`));
}

const processesOf = (dir: string): number[] => processesWith((words) => isOfInstance(words, dir));

async function endAll(dir: string): Promise<void> {
  await endProcesses(dir, 'SIGTERM');
  await endProcesses(dir, 'SIGKILL');
}

async function endProcesses(dir: string, signal: NodeJS.Signals): Promise<void> {
  signalAll(processesOf(dir), signal);
  await untilGone(() => processesOf(dir), PROCESS_TIMEOUT_MS);
}

/** Containers' own processes name no directory of ours; their cgroups carry the prefix. */
export async function killContainers(prefix: string): Promise<void> {
  const ours = cgroupsOf(prefix);
  const deadline = Date.now() + PROCESS_TIMEOUT_MS;
  for (;;) {
    const pids = new Set(ours.flatMap(pidsBelow));
    signalAll(pids, 'SIGKILL');
    // The frozen of a paused container die when they are thawed, no sooner (cgroup v1).
    ours.forEach(thaw);
    if (!pids.size || Date.now() > deadline) break;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  // One whose last process is still being reaped is busy for a moment more.
  for (const late = Date.now() + REAP_TIMEOUT_MS; ours.some(isDirectory); ) {
    ours.forEach(removeCgroup);
    if (Date.now() > late) break;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/**
 * A containerd that is not ours goes on, and with it the shims of our ended containers and their mounted roots, until their tasks are
 * deleted there. One that does not answer is told so, not waited for: the next `cetus up` deletes them as well.
 */
async function forgetTasks(dir: string): Promise<void> {
  const file = path.join(dir, 'run', 'agent.json');
  if (!fs.existsSync(file)) return;
  const {containerdSocket: socket, containerdNamespace: namespace} = readAgentConfig(file);
  if (socket.startsWith(`${dir}/`)) return;
  const client = connectContainerd({socket, namespace, log: silentLog()});
  try {
    await client.ready(PROCESS_TIMEOUT_MS);
    const {tasks} = await client.tasks.list({});
    await Promise.all(tasks.map(({id}) => client.tasks.delete({containerId: id})));
  } catch (err) {
    process.stderr.write(`down: containerd at ${socket} keeps what is left of the containers: ${(err as Error).message}\n`);
  } finally {
    client.close();
  }
}

function cgroupsOf(prefix: string): string[] {
  const root = '/sys/fs/cgroup';
  const hierarchies = [root, ...fs.readdirSync(root).map((n) => path.join(root, n))];
  return hierarchies.flatMap((h) => (isDirectory(h) ? fs.readdirSync(h).filter((n) => n.includes(prefix)).map((n) => path.join(h, n)) : []));
}

/** Of an instance's containers. */
export const containerProcesses = (prefix: string): number[] => [...new Set(cgroupsOf(prefix).flatMap(pidsBelow))];

function pidsBelow(cgroup: string): number[] {
  if (!isDirectory(cgroup)) return [];
  const here = fs.readFileSync(path.join(cgroup, 'cgroup.procs'), 'utf8').split('\n').filter(Boolean).map(Number);
  return [...here, ...children(cgroup).flatMap(pidsBelow)];
}

function thaw(cgroup: string): void {
  if (!isDirectory(cgroup)) return;
  children(cgroup).forEach(thaw);
  try { fs.writeFileSync(path.join(cgroup, 'freezer.state'), 'THAWED', {flag: 'r+'}); } catch { /* of another hierarchy, or of v2, where a SIGKILL needs no thaw */ }
}

function removeCgroup(cgroup: string): void {
  if (!isDirectory(cgroup)) return;
  children(cgroup).forEach(removeCgroup);
  try { fs.rmdirSync(cgroup); } catch { /* busy: the caller asks again; one that stays costs nothing */ }
}

const isDirectory = (file: string): boolean => fs.statSync(file, {throwIfNoEntry: false})?.isDirectory() ?? false;
const children = (cgroup: string): string[] => fs.readdirSync(cgroup).map((n) => path.join(cgroup, n)).filter(isDirectory);

/** Deepest first. */
export function mountsBelow(dir: string): string[] {
  return fs.readFileSync('/proc/self/mountinfo', 'utf8').split('\n').map((l) => l.split(' ')[4] ?? '').filter((m) => m.startsWith(`${dir}/`)).reverse();
}

/** What is already gone is no fault: each of these is said again at the next `down`. */
async function tool(program: string, args: string[]): Promise<string | undefined> {
  try {
    const {stdout} = await run(program, args, {timeout: TOOL_TIMEOUT_MS, env: {...process.env, PATH: `${process.env.PATH}:/usr/sbin:/sbin`}});
    return stdout;
  } catch (err) {
    if ((err as NodeJS.ErrnoException).code === 'ENOENT') throw new CetusError('unavailable', `${program} is not installed`, {cause: err});
    return undefined;
  }
}
