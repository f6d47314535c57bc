/** What the chains need besides the store; main makes it once with `createJobServices` and gives it to the workflow engine. */
import {systemClock, type Clock} from '../base/clock';
import {systemIds, type Ids} from '../base/ids';
import {NANO_CPUS_PER_CPU} from '../base/units';
import type {Fleet} from '../fleet/fleet';
import type {NodeView, PlacementIndex} from '../placement/placement';
import type {Reservation} from '../schema/container';
import type {Node, NodeReservations} from '../schema/node';
import type {StepContext} from '../workflow/chain';
import {ImageHolders} from './image-holders';
import {DEFAULT_POOLS, type SubnetPool} from './subnets';

export interface JobConfig {
  /** Host ports for "any free one". */
  ephemeralPorts: {from: number; to: number};
  subnetPools: SubnetPool[];
  /** Subnets that the machines use themselves. */
  avoidSubnets: string[];
  /** What of a node may be reserved. Placement's index must be fed with the same (`nodeView`). */
  capacityOf(node: Node): Reservation;
}

export interface JobServices {
  fleet: Fleet;
  placement: PlacementIndex;
  clock: Clock;
  ids: Ids;
  random(): number;
  config: JobConfig;
  /** Addresses that this process gave away a moment ago: others who ask meanwhile take the next, instead of colliding at the commit. */
  recent: Recent;
  holders: ImageHolders;
}

export type Ctx<P> = StepContext<P, JobServices>;

export const DEFAULT_JOB_CONFIG: JobConfig = {
  ephemeralPorts: {from: 32768, to: 60999},
  subnetPools: DEFAULT_POOLS,
  avoidSubnets: [],
  capacityOf: ({facts}) => ({memoryBytes: facts.memoryBytes, nanoCpus: facts.cpus * NANO_CPUS_PER_CPU, diskBytes: facts.diskBytes, pids: facts.pids}),
};

export interface JobServicesOptions {
  fleet: Fleet;
  placement: PlacementIndex;
  clock?: Clock;
  ids?: Ids;
  random?(): number;
  config?: Partial<JobConfig>;
}

export function createJobServices(options: JobServicesOptions): JobServices {
  const clock = options.clock ?? systemClock;
  return {
    fleet: options.fleet, placement: options.placement, clock, ids: options.ids ?? systemIds, random: options.random ?? Math.random,
    config: {...DEFAULT_JOB_CONFIG, ...options.config}, recent: new Recent(clock), holders: new ImageHolders(),
  };
}

const RECENT_MS = 2_000;
const RECENT_LIMIT = 4096;

/** Bounded memory of what was given away; forgetting only costs a replan. */
export class Recent {
  private readonly given = new Map<string, {untilMs: number; to: string}>();

  constructor(private readonly clock: Clock) {}

  give(group: string, item: string, to: string): void {
    if (this.given.size >= RECENT_LIMIT) this.given.delete(this.given.keys().next().value!);
    this.given.delete(`${group}/${item}`);
    this.given.set(`${group}/${item}`, {untilMs: this.clock.now() + RECENT_MS, to});
  }

  /** What others than `except` were given lately. */
  shunned(group: string, except: string): Set<string> {
    const now = this.clock.now();
    const items = new Set<string>();
    for (const [key, {untilMs, to}] of this.given) {
      if (untilMs <= now) this.given.delete(key);
      else if (to !== except && key.startsWith(`${group}/`)) items.add(key.slice(group.length + 1));
    }
    return items;
  }
}

export const NOTHING_RESERVED: Reservation = {memoryBytes: 0, nanoCpus: 0, diskBytes: 0, pids: 0};

/** A node as placement's index wants it; main feeds the index with this too, so that both count capacity alike. */
export function nodeView(node: Node, reservations: NodeReservations | undefined, config: Pick<JobConfig, 'capacityOf'>): NodeView {
  return {
    id: node.id, name: node.name, platform: node.facts.platform, cpus: node.facts.cpus, cpusetCpus: node.facts.cpusetCpus, cpusetMems: node.facts.cpusetMems,
    liveness: node.liveness, availability: node.availability,
    labels: {...node.facts.labels, ...node.labels}, capacity: config.capacityOf(node), reserved: reservations?.total ?? NOTHING_RESERVED,
  };
}
