/**
 * The distribution's dockerd for one test file, the yardstick of the differential test: socket, data, run directory and bridge of its own, gone
 * afterwards. It writes no firewall rules and no forwarding switch, so it has none to take back; a Docker of the machine never notices.
 */
import {execFileSync, spawn, type ChildProcess} from 'node:child_process';
import {once} from 'node:events';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import {processesOf} from './leaks';
import {send} from './requests';
import {Hopeless, until} from './wait';

export interface TestDockerd {
  socketPath: string;
  /** Removes what it runs, ends it, and returns what is left on the machine: it should be nothing. */
  destroy(): Promise<string[]>;
}

/** dockerd gives its containers fifteen seconds. */
const GRACE_MS = 20_000;
const env = {...process.env, PATH: `${process.env.PATH}:/usr/sbin:/sbin`};
const ip = (...args: string[]): void => void execFileSync('ip', args, {stdio: 'ignore', env});
const mountsBelow = (dir: string): string[] => fs.readFileSync('/proc/self/mountinfo', 'utf8').split('\n').map((l) => l.split(' ')[4] ?? '').filter((m) => m.startsWith(`${dir}/`));

/** `subnet`: the first three bytes of its bridge's network, which nobody else on the machine uses. */
export async function startDockerd(subnet = '192.168.214'): Promise<TestDockerd> {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'cetus-dockerd-'));
  const bridge = `cetusdiff${process.pid % 100_000}`;
  const socketPath = path.join(dir, 'docker.sock');
  ip('link', 'add', bridge, 'type', 'bridge');
  const tidy = (): string[] => {
    ip('link', 'del', bridge);
    // dockerd keeps the namespaces of the host's network mounted, and those of containers that it had no time for.
    for (const mount of mountsBelow(dir).reverse()) execFileSync('umount', ['-l', mount], {stdio: 'ignore', env});
    const left = [...mountsBelow(dir), ...processesOf(dir)];
    fs.rmSync(dir, {recursive: true, force: true});
    return left;
  };
  try {
    ip('addr', 'add', `${subnet}.1/24`, 'dev', bridge);
    const log = fs.openSync(path.join(dir, 'dockerd.log'), 'a');
    const child = spawn('dockerd', ['--host', `unix://${socketPath}`, '--data-root', path.join(dir, 'data'), '--exec-root', path.join(dir, 'run'), '--pidfile', path.join(dir, 'docker.pid'),
      '--bridge', bridge, '--storage-driver', 'overlay2', '--insecure-registry', '127.0.0.0/8', '--iptables=false', '--ip-forward=false', '--ip-masq=false'], {stdio: ['ignore', log, log], env});
    fs.closeSync(log);
    try {
      await until('dockerd to serve', async () => {
        if (child.exitCode !== null) throw new Hopeless(`dockerd ended: ${fs.readFileSync(path.join(dir, 'dockerd.log'), 'utf8').slice(-2000)}`);
        return fs.existsSync(socketPath) && (await send({socketPath}, {method: 'GET', path: '/_ping'})).status === 200;
      });
    } catch (err) {
      await end(child);
      throw err;
    }
    return {
      socketPath,
      destroy: async () => {
        await empty(socketPath);
        await end(child);
        return tidy();
      },
    };
  } catch (err) {
    tidy();
    throw err;
  }
}

/** Containers and networks hold links and namespaces of the machine. */
async function empty(socketPath: string): Promise<void> {
  const list = async (what: string): Promise<{Id: string}[]> => JSON.parse((await send({socketPath}, {method: 'GET', path: what})).body.toString()) as {Id: string}[];
  for (const {Id} of await list('/containers/json?all=1')) await send({socketPath}, {method: 'DELETE', path: `/containers/${Id}?force=1&v=1`});
  await send({socketPath}, {method: 'POST', path: '/networks/prune'});
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const gone = once(child, 'exit');
  child.kill('SIGTERM');
  const late = setTimeout(() => child.kill('SIGKILL'), GRACE_MS);
  await gone;
  clearTimeout(late);
}
