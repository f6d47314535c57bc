/**
 * A world for manatee: three ZooKeeper servers and some machines, each with a sitter and its Postgres, all of them real. Whatever happens in a test, `stop`
 * leaves no process, mount, namespace or file.
 */
import {execFileSync} from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import {silentLog} from '../../../lib/base/log';
import type {ClusterView} from '../../../lib/manatee/coordination';
import {monotonic} from '../../../lib/manatee/monotonic';
import {Operator} from '../../../lib/manatee/operator';
import type {ClusterState, HistoryEntry} from '../../../lib/manatee/state';
import {createCoordination, type ZooKeeperCoordination} from '../../../lib/manatee/zookeeper/coordination';
import {until} from '../wait';
import {ZooKeeper} from '../zookeeper';
import {Machine} from './machine';
import {Network} from './network';

/** Begins the names of all that a run makes on this machine; its process id follows. */
const MARK = 'cm';
export const CLIENT_PASSWORD = 'a client\'s';
export const PATH = '/cetus/db';
const RESTART_GRACE_MS = 300;
export const WHOLE_MS = 90_000;

export class Cluster {
  readonly machines: Machine[] = [];
  readonly operator: Operator;

  private constructor(readonly dir: string, readonly network: Network, readonly zookeeper: ZooKeeper, readonly coordination: ZooKeeperCoordination, readonly sessionTimeoutMs: number) {
    this.operator = new Operator({coordination, by: 'chaos', clock: monotonic, wallClock: () => new Date().toISOString()});
  }

  static async start({peers = 3, sessionTimeoutMs = 2500} = {}): Promise<Cluster> {
    sweep();
    const tag = `${MARK}${process.pid.toString(36)}`;
    const dir = fs.mkdtempSync(path.join(os.tmpdir(), `${tag}-`));
    fs.chmodSync(dir, 0o755);
    const undo: (() => Promise<unknown> | unknown)[] = [() => fs.rmSync(dir, {recursive: true, force: true})];
    try {
      const network = Network.create(tag);
      undo.unshift(() => network.remove());
      const zookeeper = await ZooKeeper.start({servers: 3, host: network.us, tickMs: Math.round(sessionTimeoutMs / 10)});
      undo.unshift(() => zookeeper.stop());
      const coordination = createCoordination({servers: zookeeper.address, path: PATH, sessionTimeoutMs, clock: monotonic, log: silentLog()});
      undo.unshift(() => coordination.close());
      const cluster = new Cluster(dir, network, zookeeper, coordination, sessionTimeoutMs);
      undo.unshift(() => Promise.all(cluster.machines.map((machine) => machine.remove())));
      for (let n = 0; n < peers; n += 1) cluster.addMachine(String.fromCharCode(97 + n));
      for (const machine of cluster.machines) machine.start();
      await cluster.whole(2 * WHOLE_MS).catch(async (err: Error) => { throw new Error(`${err.message}\n${await cluster.report()}`); });
      return cluster;
    } catch (err) {
      for (const step of undo) await Promise.resolve().then(step).catch(() => undefined);
      throw err;
    }
  }

  private addMachine(id: string): void {
    const file = (name: string, word: string): string => {
      const at = path.join(this.dir, name);
      fs.writeFileSync(at, `${word}\n`, {mode: 0o600});
      return at;
    };
    this.machines.push(new Machine(id, {
      network: this.network, dir: this.dir, sessionTimeoutMs: this.sessionTimeoutMs, restartGraceMs: RESTART_GRACE_MS, clientPassword: CLIENT_PASSWORD,
      zookeeper: {servers: this.zookeeper.address, path: PATH, ports: this.zookeeper.servers.map(({port}) => port)},
      passwordFiles: {client: file('client', CLIENT_PASSWORD), replication: file('replication', 'between peers')},
    }));
  }

  machine(id: string): Machine {
    return this.machines.find((machine) => machine.id === id)!;
  }

  /** Through all outages of ZooKeeper. */
  async view(): Promise<ClusterView> {
    return until('a view of the cluster', () => this.coordination.view(), WHOLE_MS);
  }

  async state(): Promise<ClusterState> {
    return until('a state', async () => (await this.view()).state);
  }

  /** By what the state says now. */
  async primary(): Promise<Machine> { return this.machine((await this.state()).primary.id); }
  async sync(): Promise<Machine> {
    return this.machine(await until('a sync', async () => (await this.state()).sync?.id, WHOLE_MS));
  }

  async otherPrimary(than: Machine): Promise<Machine> {
    return this.machine(await until(`another primary than ${than.id}`, async () => {
      const {primary} = await this.state();
      return primary.id !== than.id && primary.id;
    }, WHOLE_MS));
  }

  /** Every machine has its place and is ready, nobody is deposed, and the primary lets clients in who can write. */
  async whole(timeoutMs = WHOLE_MS): Promise<ClusterState> {
    return until('the cluster to be whole', async () => {
      const {state, peers} = await this.coordination.view();
      const wrong = !state ? 'there is no state' : state.deposed.length ? `${state.deposed.map(({id}) => id).join()} are deposed`
        : 1 + (state.sync ? 1 : 0) + state.async.length < this.machines.length ? 'somebody is missing from the chain'
          : peers.filter((peer) => peer.ready).length < this.machines.length ? `ready are ${peers.filter((peer) => peer.ready).map(({id}) => id).join()}` : undefined;
      if (wrong) throw new Error(`${wrong}: ${JSON.stringify(state)}`);
      await this.writes(state!);
      return state!;
    }, timeoutMs);
  }

  private async writes(state: ClusterState): Promise<void> {
    const client = this.machine(state.primary.id).local('client', 3000);
    const timer = setTimeout(() => drop(client), 5000);
    try {
      await client.connect();
      await client.query(`SELECT pg_logical_emit_message(true, 'test', '')`);
    } finally {
      clearTimeout(timer);
      drop(client);
    }
  }

  history(): Promise<HistoryEntry[]> {
    return until('the history', () => this.coordination.history(100_000), WHOLE_MS);
  }

  /** Everything as it was before any fault: nothing cut, stopped, dead or full. */
  async heal(): Promise<void> {
    for (const machine of this.machines) {
      machine.free();
      machine.mend();
      if (!machine.isUp) machine.boot();
    }
    await this.zookeeper.heal();
  }

  /** For whoever has to find out what went wrong. */
  async report(lines = 40): Promise<string> {
    const history = await this.coordination.history(30).catch(() => []);
    return [
      ...history.map(({at, by, reason, state}) => `${at} ${by}: ${reason}; generation ${state.generation}: ${[state.primary, state.sync, ...state.async].map((peer) => peer?.id ?? '-').join(' ')}, deposed ${state.deposed.map(({id}) => id).join(' ') || '-'}`),
      ...this.machines.flatMap((machine) => [`--- ${machine.id}`, ...machine.log(lines).map(brief)]),
    ].join('\n');
  }

  async stop(): Promise<void> {
    const failures: unknown[] = [];
    const steps: (() => Promise<unknown> | unknown)[] = [
      () => this.coordination.close(), ...this.machines.map((machine) => () => machine.remove()), () => this.zookeeper.stop(), () => this.network.remove(),
      () => { if (!process.env.CETUS_CHAOS_KEEP) fs.rmSync(this.dir, {recursive: true, force: true}); },
    ];
    for (const step of steps) await Promise.resolve().then(step).catch((err: unknown) => failures.push(err));
    if (failures.length) throw failures[0];
  }
}

/** What a run left that was killed before its end: found by its name, which tells the process that is no more. */
function sweep(): void {
  const isDead = (name: string): boolean => {
    const [, pid] = new RegExp(`^${MARK}([0-9a-z]{1,5})-`).exec(name) ?? [];
    return pid !== undefined && !fs.existsSync(`/proc/${parseInt(pid, 36)}`);
  };
  const dirs = fs.readdirSync(os.tmpdir()).filter(isDead).map((name) => path.join(os.tmpdir(), name));
  Network.sweep(isDead);
  for (const line of fs.readFileSync('/proc/self/mounts', 'utf8').split('\n').reverse()) {
    const at = line.split(' ')[1] ?? '';
    if (dirs.some((dir) => at.startsWith(`${dir}/`))) execFileSync('umount', ['-l', at]);
  }
  for (const dir of dirs) fs.rmSync(dir, {recursive: true, force: true});
}

/** Without a word. */
export function drop(client: import('pg').Client): void {
  (client as unknown as {connection: {stream: {destroy(): void}}}).connection.stream.destroy();
}

function brief(line: string): string {
  try {
    const {time, msg, err, ...rest} = JSON.parse(line) as {time: string; msg: string; err?: {message: string}} & Record<string, unknown>;
    const more = Object.fromEntries(Object.entries(rest).filter(([key]) => !['name', 'hostname', 'pid', 'level', 'v', 'component', 'step', 'reason'].includes(key)));
    return `${time} ${msg}${err ? `: ${err.message}` : ''}${Object.keys(more).length ? ` ${JSON.stringify(more)}` : ''}`;
  } catch {
    return line;
  }
}
