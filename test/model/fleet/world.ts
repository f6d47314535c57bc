/** A simulated fleet: endpoints, nodes, a store, ways between them, and the checker that watches. One seed, one world. */
import {createMemoryMoray} from '../../../lib/moray/memory';
import type {BatchOp, Moray} from '../../../lib/moray/moray';
import {BUCKETS} from '../../../lib/schema/buckets';
import type {LeaseRow, Node} from '../../../lib/schema/node';
import {Random} from '../manatee/random';
import {Timeline} from '../manatee/timeline';
import {Checker} from './checker';
import {type Assigned, Endpoint} from './endpoint';
import {Machine} from './machine';
import {Ways} from './process';

/** Planted mistakes; none of them is a switch in lib/. */
export interface Mutant {
  name: string;
  countFromAnswer?: boolean;
  unguardedFence?: boolean;
  wallClocks?: boolean;
  evacuateLost?: boolean;
  bootStarts?: boolean;
  noGuard?: boolean;
  noAssignments?: boolean;
}

export interface WorldOptions { seed: number; endpoints: number; nodes: number; containers: number; leaseMs: number; trace?(line: string): void }

export class World {
  readonly timeline = new Timeline();
  readonly random: Random;
  readonly ways: Ways;
  readonly store: Moray;
  readonly checker: Checker;
  readonly endpoints: Endpoint[] = [];
  readonly machines: Machine[] = [];
  readonly leaseMs: number;
  readonly fenceAfterMs: number;
  /** When each row was last written, by its writer's wall clock. */
  readonly rowWallMs = new Map<string, number>();

  constructor(readonly options: WorldOptions, readonly mutant: Mutant = {name: 'none'}) {
    this.random = new Random(options.seed, 7);
    this.ways = new Ways(this.timeline, this.random);
    this.leaseMs = options.leaseMs;
    this.fenceAfterMs = 4 * options.leaseMs;
    this.checker = new Checker(this);
    this.store = createMemoryMoray({clock: {now: () => this.timeline.nowMs, nowNs: () => BigInt(Math.floor(this.timeline.nowMs * 1e6)), sleep: () => new Promise(() => undefined)}});
  }

  async open(): Promise<this> {
    await this.store.open(BUCKETS.nodes, BUCKETS.leases, BUCKETS.containers);
    for (let i = 1; i <= this.options.endpoints; i += 1) this.endpoints.push(new Endpoint(this, `e${i}`));
    for (const endpoint of this.endpoints) endpoint.start();
    for (let i = 1; i <= this.options.nodes; i += 1) this.machines.push(new Machine(this, `n${i}`));
    for (let i = 1; i <= this.options.containers; i += 1) {
      const id = `c${i}`;
      const value: Assigned = {id, name: id, account: 'a', accountName: `a/${id}`, nodeId: `n${1 + i % this.options.nodes}`, phase: 'run', job: `first-${i}`, epoch: 1, owner: 'e1'};
      await this.store.put(BUCKETS.containers.name, id, value);
    }
    return this;
  }

  wrote(by: Endpoint, ops: BatchOp[]): void {
    for (const op of ops) {
      if (op.op !== 'put') continue;
      if (op.bucket === BUCKETS.leases.name && (op.value as LeaseRow).renewals) this.rowWallMs.set(op.key, this.timeline.nowMs + 1e6 + by.wallMs);
      if (op.bucket === BUCKETS.leases.name) this.trace(by.name, () => `${op.key} ${JSON.stringify(op.value)}`);
      if (op.bucket !== BUCKETS.nodes.name) continue;
      const node = op.value as Node;
      this.trace(by.name, () => `${op.key} is ${node.liveness} (${node.livenessReason}), generation ${node.facts.bootGeneration}, row ${node.lease?.row}`);
      if (node.liveness === 'fenced') this.checker.fenced(this.machines.find((machine) => machine.name === op.key)!);
    }
  }

  trace(who: string, what: () => string): void {
    this.options.trace?.(`${(this.timeline.nowMs / 1000).toFixed(3).padStart(9)}  ${who.padEnd(9)} ${what()}`);
  }
}
