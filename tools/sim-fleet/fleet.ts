/**
 * A simulated fleet: `count` nodes that join a control plane, in as few processes as their descriptors allow (five for each node: two ledgers, the listener, the
 * connection to the control plane, and one from there while orders come). Certificates are the caller's signer's; the endpoint must trust its `ca`.
 */
import {type ChildProcess, execFileSync, fork} from 'node:child_process';
import {once} from 'node:events';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import type {Signer} from './certificates';
import type {HostAnswer, HostOrder} from './host';

export interface SimFleetOptions {
  count: number;
  /** https://HOST:PORT of the endpoint's listener for agents. */
  controlPlane: string;
  signer: Signer;
  /** Whose 127.NETWORK.x.y the nodes listen on. Default: from the process id, so that several fleets on one machine are apart. */
  network?: number;
  /** Nodes in one process, at most. Default: as many as its limit of open files allows. */
  perProcess?: number;
}

const DESCRIPTORS_PER_NODE = 5;
const DESCRIPTORS_APART = 200;
const PORT = 7070;
const HOOK = path.join(__dirname, '..', 'typescript-hook.cjs');

interface Host { child: ChildProcess; first: number; count: number; waiting: Map<number, {resolve(answer: HostAnswer): void; reject(err: Error): void}>; asked: number }

export class SimFleet {
  private readonly hosts: Host[] = [];
  private readonly dataDir: string;
  /** From the first agent made to the last one joined. */
  joinMs = 0;

  constructor(readonly options: SimFleetOptions) {
    // In memory where there is a place for that: on the same disk as the store the ledgers of thousands of agents would be measured with it.
    this.dataDir = fs.mkdtempSync(path.join(fs.existsSync('/dev/shm') ? '/dev/shm' : os.tmpdir(), 'cetus-sim-'));
  }

  get pids(): number[] { return this.hosts.flatMap(({child}) => child.pid ?? []); }

  /** Resolves when every node has joined. `stop` is the caller's, also where this fails. */
  async start(): Promise<void> {
    const {count, controlPlane, signer, network = 16 + (process.pid % 200), perProcess = Infinity} = this.options;
    const each = Math.max(1, Math.min(perProcess, Math.floor((openFilesLimit() - DESCRIPTORS_APART) / DESCRIPTORS_PER_NODE)));
    const processes = Math.ceil(count / each);
    const share = Math.ceil(count / processes);
    for (let first = 0; first < count; first += share) this.hosts.push(this.host(first, Math.min(share, count - first)));
    await Promise.all(this.hosts.map((host) => this.ask(host, {op: 'running'})));
    const from = performance.now();
    await Promise.all(this.hosts.map((host) => this.ask(host, {op: 'start', task: {first: host.first, count: host.count, controlPlane, addressOf: {network, port: PORT}, signer, dataDir: this.dataDir}})));
    this.joinMs = performance.now() - from;
  }

  /** Nodes `first` to `first + count - 1` are gone, with all that runs there. */
  async powerOff(first: number, count: number): Promise<void> {
    await Promise.all(this.hosts.map((host) => this.ask(host, {op: 'powerOff', first, count})));
  }

  /** What runs, by container id: the numbers of the nodes on which it does. */
  async running(): Promise<Map<string, number[]>> {
    const all = new Map<string, number[]>();
    for (const {running = {}} of await Promise.all(this.hosts.map((host) => this.ask(host, {op: 'running'}))))
      for (const [id, on] of Object.entries(running)) all.set(id, [...all.get(id) ?? [], ...on]);
    return all;
  }

  async stop(): Promise<void> {
    await Promise.all(this.hosts.map(async ({child}) => {
      if (child.exitCode !== null || child.signalCode !== null) return;
      const gone = once(child, 'exit');
      child.kill('SIGKILL');
      await gone;
    }));
    fs.rmSync(this.dataDir, {recursive: true, force: true});
  }

  private host(first: number, count: number): Host {
    const child = fork(path.join(__dirname, 'host.ts'), {
      execArgv: ['--require', HOOK, '--max-semi-space-size=16', ...(process.env.SIM_FLEET_FLAGS?.split(' ') ?? [])], stdio: ['ignore', 'inherit', 'inherit', 'ipc'], serialization: 'advanced', detached: true,
    });
    const host: Host = {child, first, count, waiting: new Map(), asked: 0};
    child.on('message', (answer: HostAnswer & {n: number}) => {
      const one = host.waiting.get(answer.n);
      host.waiting.delete(answer.n);
      if (answer.error === undefined) one?.resolve(answer);
      else one?.reject(new Error(answer.error));
    });
    child.once('exit', (code, signal) => {
      for (const {reject} of host.waiting.values()) reject(new Error(`a process of the simulated fleet ended (${signal ?? code})`));
      host.waiting.clear();
    });
    return host;
  }

  private ask(host: Host, order: HostOrder): Promise<HostAnswer> {
    return new Promise((resolve, reject) => {
      if (host.child.exitCode !== null || host.child.signalCode !== null) return reject(new Error('a process of the simulated fleet is gone'));
      host.asked += 1;
      host.waiting.set(host.asked, {resolve, reject});
      host.child.send({n: host.asked, ...order});
    });
  }
}

/** Node raises its own soft limit to the hard one. */
export function openFilesLimit(): number {
  const limit = execFileSync('bash', ['-c', 'ulimit -Hn'], {encoding: 'utf8'}).trim();
  return limit === 'unlimited' ? 1_000_000 : Number(limit);
}
