/**
 * What can happen to a cluster. A fault does its harm, waits for what is to come of it, and takes back what does not heal by itself (a cut, a stopped process, a
 * full disk, a machine without power); everything else is the cluster's own business. Targets are chosen by the state of the moment.
 */
import fs from 'node:fs';
import type {ClusterState} from '../../../lib/manatee/state';
import {until} from '../wait';
import {drop, type Cluster} from './cluster';
import type {Machine} from './machine';
import type {Direction, From} from './network';

export interface Fault {
  name: string;
  /** `struck` is called at the moment of the harm. */
  run(cluster: Cluster, struck: () => void): Promise<void>;
  /** Peers that it needs. */
  peers?: number;
}

/** So long a disk stays full where nobody minds. */
const FULL_MS = 15_000;

type Role = 'primary' | 'sync' | 'async';

const pause = (ms: number): Promise<void> => new Promise((resolve) => { setTimeout(resolve, ms); });

async function pick(cluster: Cluster, role: Role): Promise<Machine> {
  if (role === 'primary') return cluster.primary();
  if (role === 'sync') return cluster.sync();
  return cluster.machine(await until('an async', async () => (await cluster.state()).async.at(-1)?.id));
}

function holds(role: Role, state: ClusterState, {id}: Machine): boolean {
  switch (role) {
    case 'primary': return state.primary.id === id;
    case 'sync': return state.sync?.id === id;
    case 'async': return state.async.some((peer) => peer.id === id);
  }
}

/** Until somebody else has its place, or nobody. */
async function replaced(cluster: Cluster, role: Role, machine: Machine): Promise<void> {
  await until(`${machine.id} to lose its place as ${role}`, async () => !holds(role, await cluster.state(), machine), 60_000);
}

/** A primary that hangs for longer than its sitter's grace is ended, and begins anew in its place where nobody has taken that. */
async function replacedOrEnded(cluster: Cluster, machine: Machine): Promise<void> {
  const frozen = machine.postmaster();
  await until(`${machine.id} to lose its place as primary, or the frozen Postgres to be ended`, async () => !fs.existsSync(`/proc/${frozen}`) || !holds('primary', await cluster.state(), machine), 60_000);
}

/** Longer than the session: whoever is to notice has noticed. */
const longer = (cluster: Cluster): Promise<void> => pause(cluster.sessionTimeoutMs * 1.6);

const killed = (role: Role): Fault => ({
  name: `kill -9 of Postgres: ${role}`,
  async run(cluster, struck) {
    const machine = await pick(cluster, role);
    struck();
    machine.killPostgres();
    await cluster.whole();
  },
});

const sitterKilled = (role: Role, back: 'at once' | 'later'): Fault => ({
  name: `kill -9 of the sitter, back ${back}: ${role}`,
  async run(cluster, struck) {
    const machine = await pick(cluster, role);
    struck();
    await machine.killSitter();
    if (back === 'later') await replaced(cluster, role, machine);
    machine.start();
  },
});

const machineDies = (role: Role, how: 'killed' | 'without power'): Fault => ({
  name: `machine ${how}: ${role}`,
  async run(cluster, struck) {
    const machine = await pick(cluster, role);
    struck();
    await machine.kill(how === 'without power');
    await replaced(cluster, role, machine);
    machine.boot();
  },
});

/** It is back before anybody has noticed. */
const rebooted = (role: Role): Fault => ({
  name: `unclean reboot at once: ${role}`,
  async run(cluster, struck) {
    const machine = await pick(cluster, role);
    struck();
    await machine.kill(true);
    machine.boot();
  },
});

const stopped = (role: Role, what: 'sitter' | 'Postgres' | 'machine'): Fault => ({
  name: `SIGSTOP of ${what}: ${role}`,
  async run(cluster, struck) {
    const machine = await pick(cluster, role);
    struck();
    const wake = what === 'sitter' ? machine.pauseSitter() : what === 'Postgres' ? machine.pausePostgres() : machine.pause();
    try {
      if (what !== 'Postgres') await replaced(cluster, role, machine);
      else if (role === 'primary') await replacedOrEnded(cluster, machine);
      else await longer(cluster);
    } finally {
      wake();
    }
  },
});

const cut = (role: Role, from: From, direction: Direction): Fault => ({
  name: `${role} cut off from ${from}${direction === 'both' ? '' : `, ${direction === 'in' ? 'hears nothing' : 'is not heard'}`}`,
  async run(cluster, struck) {
    const machine = await pick(cluster, role);
    struck();
    machine.cut(from, direction);
    try {
      if (from === 'peers') await pause(Math.max(7000, cluster.sessionTimeoutMs * 1.6)); // beyond wal_sender_timeout
      else await replaced(cluster, role, machine);
    } finally {
      machine.mend();
    }
  },
});

const full = (role: Role): Fault => ({
  name: `disk full: ${role}`,
  async run(cluster, struck) {
    const machine = await pick(cluster, role);
    struck();
    machine.fill();
    try {
      // A segment of the WAL lasts our writers for long, so more are asked for, until there is no room for one.
      const endMs = performance.now() + FULL_MS;
      while (performance.now() < endMs && holds(role, await cluster.state(), machine)) {
        const client = (await cluster.primary()).local('sitter', 2000);
        await client.connect().then(() => client.query({text: 'SELECT pg_switch_wal()', query_timeout: 2000} as never)).catch(() => undefined);
        drop(client);
        await pause(500);
      }
    } finally {
      machine.free();
    }
  },
});

const zookeeper = (which: 'follower' | 'leader' | 'all', how: 'killed' | 'stopped'): Fault => ({
  name: `ZooKeeper ${how}: ${which}`,
  async run(cluster, struck) {
    const {zookeeper: servers} = cluster;
    const chosen = which === 'all' ? servers.servers : which === 'leader' ? [await servers.leader()] : (await servers.followers()).slice(0, 1);
    struck();
    if (how === 'killed') await Promise.all(chosen.map((server) => server.kill()));
    else for (const server of chosen) server.pause();
    await longer(cluster);
    await servers.heal();
  },
});

const promoted = (role: 'sync' | 'async'): Fault => ({
  name: `promote of the ${role}`,
  async run(cluster, struck) {
    const machine = await pick(cluster, role);
    struck();
    await cluster.operator.promote(machine.id, {deadlineMs: 60_000});
  },
});

const rebuilt = (role: 'sync' | 'async'): Fault => ({
  name: `rebuild of the ${role}`,
  async run(cluster, struck) {
    const machine = await pick(cluster, role);
    struck();
    await cluster.operator.rebuild(machine.id, {deadlineMs: 90_000});
  },
});

/** Frozen, nobody takes over: the primary that died comes back as what it was. */
const frozen: Fault = {
  name: 'frozen while the primary dies',
  async run(cluster, struck) {
    await cluster.operator.freeze('chaos');
    const machine = await cluster.primary();
    struck();
    await machine.kill();
    await longer(cluster);
    const {primary} = await cluster.state();
    if (primary.id !== machine.id) throw new Error(`${primary.id} took over while the cluster was frozen`);
    machine.boot();
    await until('writes again', () => cluster.whole(), 60_000);
    await cluster.operator.unfreeze();
  },
};

/** Each of them comes back while the next one falls. */
const threeInARow: Fault = {
  name: 'three primaries fall in a row',
  async run(cluster, struck) {
    struck();
    for (let i = 0; i < 3; i += 1) {
      const machine = await cluster.primary();
      await machine.kill();
      await cluster.otherPrimary(machine);
      machine.boot();
      // The next one needs a sync to fall to.
      await until('a sync that is ready', async () => {
        const {state, peers} = await cluster.view();
        return state!.sync && peers.some((peer) => peer.id === state!.sync!.id && peer.ready) && peers.some((peer) => peer.id === state!.primary.id && peer.ready);
      }, 90_000);
    }
  },
};

const both = (a: Fault, b: Fault): Fault => ({
  name: `${a.name}, and ${b.name}`,
  async run(cluster, struck) {
    const results = await Promise.allSettled([a.run(cluster, struck), b.run(cluster, () => undefined)]);
    for (const result of results) if (result.status === 'rejected') throw result.reason;
  },
});

const roles: Role[] = ['primary', 'sync', 'async'];

export const FAULTS: Fault[] = [
  ...roles.flatMap((role) => [
    killed(role), sitterKilled(role, 'at once'), sitterKilled(role, 'later'), machineDies(role, 'killed'), machineDies(role, 'without power'), rebooted(role),
    stopped(role, 'sitter'), stopped(role, 'Postgres'), stopped(role, 'machine'),
  ]),
  ...(['primary', 'sync'] as const).flatMap((role) => [
    cut(role, 'zookeeper', 'both'), cut(role, 'peers', 'both'), cut(role, 'everything', 'both'), cut(role, 'everything', 'in'), cut(role, 'everything', 'out'),
    cut(role, 'zookeeper', 'out'), full(role),
  ]),
  zookeeper('follower', 'killed'), zookeeper('leader', 'killed'), zookeeper('all', 'killed'), zookeeper('leader', 'stopped'),
  promoted('sync'), promoted('async'), rebuilt('sync'), rebuilt('async'), frozen, threeInARow,
  both(machineDies('primary', 'killed'), zookeeper('leader', 'killed')),
  both(killed('primary'), machineDies('async', 'killed')),
  both(stopped('primary', 'machine'), zookeeper('follower', 'killed')),
];

export function faultNamed(name: string): Fault {
  const found = FAULTS.find((fault) => fault.name === name);
  if (!found) throw new Error(`there is no fault ${JSON.stringify(name)}: ${FAULTS.map((fault) => fault.name).join('; ')}`);
  return found;
}
