/** A rack of 40 nodes is switched off: when is that noticed, when fenced, and how long does it take then until all of its containers run elsewhere, each of them once? */
import {ALL} from '../../lib/moray/filter';
import {BUCKETS} from '../../lib/schema/buckets';
import type {Container} from '../../lib/schema/container';
import type {Node} from '../../lib/schema/node';
import {nodeId, NODES_PER_RACK, rackOf} from '../sim-fleet/node';
import type {Datacenter} from './datacenter';
import {until} from './measure';
import type {Workload} from './workload';

export interface RackLoss {
  containers: number;
  /** From the loss of power, ms. */
  suspectMs: number; lostMs: number; fencedMs: number;
  /** From the last fence to the first and to the last container that runs elsewhere. */
  firstMs: number; allMs: number;
  /** Of all containers: how many run more than once, or not at all. */
  twice: number; nowhere: number;
}

const NUMBER = 0;
/** Lease, three of them, fence delay: under two minutes; the rest is for a busy machine. */
const PATIENCE_MS = 300_000;

export async function loseRack(datacenter: Datacenter, workload: Workload, count: number): Promise<RackLoss> {
  const {moray, fleet} = datacenter;
  // Softly, so that they may be elsewhere afterwards.
  await workload.provision(await workload.prepare(count), {'com.docker.swarm.constraints': JSON.stringify([`rack==~${rackOf(NUMBER)}`])});
  const rack = new Set(Array.from({length: NODES_PER_RACK}, (_, n) => nodeId(NUMBER + n)));
  const affected = new Set<string>();
  for await (const {value} of moray.find<Container>(BUCKETS.containers.name, ALL)) if (rack.has(value.nodeId)) affected.add(value.id);

  const stop = new AbortController();
  const seen: Record<string, number[]> = {suspect: [], lost: [], fenced: []};
  const arrived = new Map<string, number>();
  const nodes = await moray.watch<Node>(BUCKETS.nodes.name, ALL, {signal: stop.signal});
  const containers = await moray.watch<Container>(BUCKETS.containers.name, ALL, {signal: stop.signal});
  const follow = async (): Promise<void> => {
    for await (const change of nodes) if (change.kind === 'put' && rack.has(change.key) && change.value.liveness !== 'alive') seen[change.value.liveness]!.push(performance.now());
  };
  const arrivals = async (): Promise<void> => {
    for await (const change of containers) {
      if (change.kind !== 'put' || !affected.has(change.key) || arrived.has(change.key)) continue;
      const {nodeId: on, moving, status} = change.value;
      if (!rack.has(on) && !moving && status === 'running') arrived.set(change.key, performance.now());
    }
  };
  const following = Promise.allSettled([follow(), arrivals()]);
  try {
    const from = performance.now();
    await fleet.powerOff(NUMBER, NODES_PER_RACK);
    await until('all containers of the rack run elsewhere', PATIENCE_MS, () => arrived.size >= affected.size);
    const fenced = Math.max(...seen.fenced!);
    // What runs by the word of those who run it.
    const running = await fleet.running();
    const stored = workload.ids;
    return {
      containers: affected.size, suspectMs: Math.max(...seen.suspect!) - from, lostMs: Math.max(...seen.lost!) - from, fencedMs: fenced - from,
      firstMs: Math.min(...arrived.values()) - fenced, allMs: Math.max(...arrived.values()) - fenced,
      twice: [...running.values()].filter((on) => on.length > 1).length, nowhere: stored.filter((id) => !running.has(id)).length,
    };
  } finally {
    stop.abort(new Error('seen'));
    await following;
  }
}
