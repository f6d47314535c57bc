/**
 * One endpoint before a simulated fleet, in figures: `make bench-fleet`.
 *   NODES="100 1000 10000"    fleets, one after the other, each with a store and an endpoint of its own
 *   CONTAINERS=1000           provisioned through the API in each
 *   OTHERS=20000              of other accounts, written into the store before the second look at ps and inspect (up to 200000)
 *   CLIENTS=16 NETWORKS=projects|bridge|none ROWS=idle,provision,read,placement,rack,others RACK_CONTAINERS=400
 *   POSTGRES=postgres://...   an empty database, in place of a Postgres of its own; with one fleet only
 *   NODE_FLAGS="--cpu-prof --cpu-prof-dir=/tmp/prof"   for the endpoint
 */
import {BUCKETS} from '../../lib/schema/buckets';
import {ALL} from '../../lib/moray/filter';
import type {Image} from '../../lib/schema/objects';
import {NODES_PER_RACK} from '../sim-fleet/node';
import {Datacenter} from './datacenter';
import {Docker} from './docker';
import {cpuMs, inParallel, memoryMib, sleep, spread, storeCounts} from './measure';
import {loseRack} from './rack';
import {placements, seedOthers} from './store';
import {Report} from './report';
import {type Networks, Workload} from './workload';

const words = (name: string, fallback: string): string[] => (process.env[name] || fallback).split(/[\s,]+/).filter(Boolean);
const number = (name: string, fallback: number): number => {
  const value = Number(process.env[name] || fallback);
  if (!(value >= 0)) throw new Error(`${name} is a number`);
  return value;
};

const ROWS = ['idle', 'provision', 'read', 'placement', 'rack', 'others'];
const sizes = words('NODES', '100 1000 10000').map(Number);
const rows = words('ROWS', ROWS.join(','));
const settings = {
  containers: number('CONTAINERS', 1_000), others: number('OTHERS', 20_000), clients: number('CLIENTS', 16), rackContainers: number('RACK_CONTAINERS', 400),
  networks: (process.env.NETWORKS || 'projects') as Networks, postgresUrl: process.env.POSTGRES || undefined, nodeFlags: words('NODE_FLAGS', ''),
};
const IDLE_MS = 15_000;
const INSPECTS = 1_000;
const LISTS = 60;
const wants = (row: string): boolean => rows.includes(row);

async function main(): Promise<void> {
  const unknown = rows.find((row) => !ROWS.includes(row));
  if (unknown !== undefined) throw new Error(`ROWS: there is no ${unknown}, only ${ROWS.join(', ')}`);
  if (!sizes.every((size) => size >= 1)) throw new Error('NODES are numbers of nodes');
  if (settings.postgresUrl && sizes.length > 1) throw new Error('POSTGRES is one empty database: for one fleet');
  const report = new Report(sizes);
  for (const nodes of sizes) {
    console.log(`\n${nodes} nodes, ${settings.containers} containers, ${settings.clients} clients, networks: ${settings.networks}`);
    const datacenter = new Datacenter({nodes, ...settings});
    const stop = (): void => void datacenter.stop().finally(() => process.exit(1));
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.once(signal, stop);
    try {
      await datacenter.start();
      await one(datacenter, nodes, report);
    } catch (err) {
      console.error(datacenter.lastWords());
      throw err;
    } finally {
      for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.off(signal, stop);
      await datacenter.stop();
    }
  }
  report.print();
}

async function one(datacenter: Datacenter, nodes: number, report: Report): Promise<void> {
  const put = (title: string, value: number, unit: string, target?: {least?: number; most?: number}): void => report.put(nodes, title, value, unit, target);
  const docker = new Docker(datacenter.address, settings.clients);
  const workload = new Workload(docker, settings.networks, settings.clients);
  /** Processor time as a share of one core, and commits, over a piece of work. */
  const costs = async <T>(work: () => Promise<T>): Promise<{result: T; seconds: number; endpoint: number; store: number; agents: number; commits: number}> => {
    const look = async (): Promise<[number, number, number, number, number]> =>
      [performance.now(), cpuMs(datacenter.endpointPids), cpuMs(datacenter.storePids, {children: true}), cpuMs(datacenter.fleet.pids), (await storeCounts(datacenter.storeUrl)).commits];
    const before = await look();
    const result = await work();
    const after = await look();
    const [ms, endpoint, store, agents, commits] = after.map((value, n) => value - before[n]!) as [number, number, number, number, number];
    return {result, seconds: ms / 1000, endpoint, store, agents, commits};
  };
  try {
    put('joins', nodes / datacenter.fleet.joinMs * 1000, '/s');
    await settled(datacenter);
    if (wants('idle')) {
      const idle = await costs(() => sleep(IDLE_MS));
      put('heartbeats: commits', idle.commits / idle.seconds, '/s', {most: 50});
      put('heartbeats: endpoint', idle.endpoint / idle.seconds / 10, '% of a core');
      put('heartbeats: store', idle.store / idle.seconds / 10, '% of a core');
    }
    put('memory of the endpoint, empty', memoryMib(datacenter.endpointPids), 'MiB');
    await workload.pull();
    const {samples, cost, seconds} = await provision(workload, costs);
    if (wants('provision')) {
      put('provisions', samples.length / seconds, '/s', {least: 300});
      put('provision p50', spread(samples).p50, 'ms');
      put('provision p99', spread(samples).p99, 'ms');
      for (const part of ['endpoint', 'store', 'agents'] as const) put(`processor per provision: ${part}`, cost[part] / samples.length, 'ms');
      put('commits per provision', cost.commits / samples.length, '');
    }
    await settled(datacenter);
    if (wants('read')) await read(docker, workload, put, '');
    if (wants('placement')) {
      const [image] = await datacenter.moray.list<Image>(BUCKETS.images.name, ALL, {limit: 1});
      const took = await placements(datacenter, image!.value.id, 'docker.io/library/busybox:latest');
      put('placement p50', took.p50, 'ms');
      put('placement p99', took.p99, 'ms', {most: 1});
    }
    if (wants('rack') && nodes > NODES_PER_RACK) {
      const loss = await loseRack(datacenter, workload, settings.rackContainers);
      put('rack: containers on it', loss.containers, '');
      put('rack: suspect after', loss.suspectMs / 1000, 's');
      put('rack: fenced after', loss.fencedMs / 1000, 's');
      put('rack: first elsewhere, after fencing', loss.firstMs / 1000, 's');
      put('rack: all elsewhere, after fencing', loss.allMs / 1000, 's', {most: 5});
      put('rack: run twice', loss.twice, '', {most: 0});
      put('rack: run nowhere', loss.nowhere, '', {most: 0});
      await settled(datacenter);
    }
    if (wants('others') && settings.others > 0) {
      await seedOthers(datacenter, workload.ids[0]!, settings.others, nodes);
      await settled(datacenter);
      await read(docker, workload, put, ' beside others');
    }
    put('memory of the endpoint', memoryMib(datacenter.endpointPids), 'MiB');
    put('memory of the store', memoryMib(datacenter.storePids, {children: true}), 'MiB');
    put('size of the store', (await storeCounts(datacenter.storeUrl)).bytes / 2 ** 20, 'MiB');
    put('memory of the simulated agents', memoryMib(datacenter.fleet.pids), 'MiB');
  } finally {
    await docker.close();
  }
}

async function provision(workload: Workload, costs: <T>(work: () => Promise<T>) => Promise<{result: T; seconds: number; endpoint: number; store: number; agents: number; commits: number}>) {
  const networks = await workload.prepare(settings.containers);
  let seconds = 0;
  const cost = await costs(async () => {
    const from = performance.now();
    const {samples} = await workload.provision(networks);
    seconds = (performance.now() - from) / 1000;
    return samples;
  });
  return {samples: cost.result, cost, seconds};
}

/** One after the other: how long it takes, not how many there may be at once. */
async function read(docker: Docker, workload: Workload, put: (title: string, value: number, unit: string) => void, when: string): Promise<void> {
  const {ids} = workload;
  await docker.read('/containers/json');
  const inspect = spread(await inParallel(INSPECTS, 1, (n) => docker.read(`/containers/${ids[(n * 7919) % ids.length]!}/json`)));
  const list = spread(await inParallel(LISTS, 1, () => docker.read('/containers/json')));
  put(`inspect p50${when}`, inspect.p50, 'ms');
  put(`inspect p99${when}`, inspect.p99, 'ms');
  put(`ps p50${when}`, list.p50, 'ms');
  put(`ps p99${when}`, list.p99, 'ms');
}

/** Until the endpoint and the store do little more than to be there: what was begun before is not measured with what follows. */
async function settled(datacenter: Datacenter): Promise<void> {
  const look = (): number => cpuMs(datacenter.endpointPids) + cpuMs(datacenter.storePids, {children: true});
  let best = Infinity;
  for (let n = 0, calm = 0; n < 60 && calm < 3; n += 1) {
    const before = look();
    await sleep(1_000);
    const used = look() - before;
    calm = used < best * 0.9 ? 0 : calm + 1;
    best = Math.min(best, used);
  }
}

main().then(() => process.exit(0), (err: unknown) => {
  console.error(err);
  process.exit(1);
});
