/**
 * Tells each node where the other containers of its networks are. Guarantees: what is committed reaches the nodes concerned as soon as it is seen, and again until they have it, while they
 * live; a node that comes back, or begins a new life, is told all; `prepare` resolves when a node knows what is in the store now. Every endpoint does the same: nodes merge what they are told by the etags
 * of the leases, so that it matters neither who tells nor in which order.
 *
 * Concerned is a node that has a container on the network, once another node has one too. Until two nodes have an underlay nothing is
 * watched, kept or asked. Driven by: the feed of address leases, the registry's news of nodes, and the chains before a start.
 */
import type {Clock} from '../base/clock';
import {CetusError, isCetusError} from '../base/errors';
import type {Log} from '../base/log';
import {ALL, eq} from '../moray/filter';
import type {Moray} from '../moray/moray';
import {type NetworkTable, nodeNetwork, type NodeNetwork, type TableNode} from '../schema/agent';
import {BUCKETS} from '../schema/buckets';
import type {Node} from '../schema/node';
import type {AddressLease, Network} from '../schema/objects';
import {AddressBook} from './address-book';
import type {AgentClient, NetworkTables} from './fleet';

export interface TableKeeperOptions {
  moray: Moray;
  log: Log;
  clock: Clock;
  agent(nodeId: string): Promise<AgentClient>;
}

const ADDRESSES = BUCKETS.addresses.name;
const NETWORKS = BUCKETS.networks.name;
const WATCH_AGAIN_MS = 1_000;
const TELL_DEADLINE_MS = 5_000;
const TELL_AGAIN_MS = 100;
const TELL_AGAIN_MOST_MS = 5_000;
const PREPARE_DEADLINE_MS = 10_000;
/** At once, to all nodes together. */
const MAX_TELLING = 64;
/** More changes than these are read with all of the network. */
const MAX_LATE = 256;

/** What one node is to know of one network. */
interface Duty {
  nodeId: string;
  networkId: string;
  /** It has had all of it in this life; then changes do. */
  complete: boolean;
  pending: Set<string>;
  /** Numbers what was to be told, and up to where it has been. */
  asked: number;
  told: number;
  running: boolean;
  waiting: {upTo: number; resolve(): void; reject(err: unknown): void}[];
}

interface KnownNode { table: TableNode; alive: boolean }

export class TableKeeper implements NetworkTables {
  private readonly book = new AddressBook();
  private readonly nodes = new Map<string, KnownNode>();
  private readonly duties = new Map<string, Duty>();
  private readonly networks = new Map<string, NodeNetwork>();
  private readonly stopped = new AbortController();
  private readonly atWork = new Set<Promise<void>>();
  private readonly queue: (() => void)[] = [];
  private telling = 0;
  private count = 0;
  private loop: Promise<void> | undefined;
  /** The first listing, or one after a broken feed, is not over: a table would have holes. */
  private loading = false;
  /** All that the feed has brought is in the book. */
  private following = false;

  constructor(private readonly options: TableKeeperOptions) {}

  get active(): boolean { return this.loop !== undefined; }

  async stop(): Promise<void> {
    this.stopped.abort(new CetusError('canceled', 'fleet stops'));
    for (const resume of this.queue.splice(0)) resume();
    await Promise.all([this.loop, ...this.atWork]);
  }

  /** The registry's news: joins, new lives, other liveness. */
  nodeChanged(nodeId: string, node: Node | undefined): void {
    const before = this.nodes.get(nodeId);
    const underlay = node?.facts.underlay;
    if (!node || !underlay) {
      this.nodes.delete(nodeId);
    } else {
      const table: TableNode = {nodeId, address: underlay.address, ...(underlay.port === undefined ? {} : {port: underlay.port}), generation: node.facts.bootGeneration};
      this.nodes.set(nodeId, {table, alive: node.liveness === 'alive'});
    }
    if (!this.loop && this.nodes.size > 1 && !this.stopped.signal.aborted) this.loop = this.follow();
    const now = this.nodes.get(nodeId);
    if (!now) return;
    const moved = before !== undefined && (before.table.address !== now.table.address || before.table.port !== now.table.port);
    const returned = now.alive && (!before?.alive || before.table.generation !== now.table.generation);
    for (const networkId of moved || returned || !before ? this.book.networksOf(nodeId) : []) this.tellAll(networkId, moved || !before ? this.book.nodesOf(networkId) : [nodeId]);
  }

  async prepare(nodeId: string, networks: NodeNetwork[]): Promise<void> {
    if (!this.loop || !this.nodes.has(nodeId)) return;
    const reaching = networks.filter(({vni}) => vni !== undefined);
    for (const network of reaching) this.learnNetwork(network);
    await this.catchUp(reaching);
    await Promise.all(reaching.filter(({id}) => this.isShared(id)).map(({id}) => this.settled(this.duty(nodeId, id))));
  }

  held(networkId: string): ReadonlyMap<string, {containerId: string}> | undefined {
    return this.following ? this.book.rowsOf(networkId) : undefined;
  }

  /**
   * What is in the store of these networks now is in the book. Asked is only what the feed has not brought yet: a start on a network of 10,000 would read all of them otherwise. Of an end
   * nothing is learnt here; it comes by the feed, and that nobody has an address need not be known before a start.
   */
  private async catchUp(networks: readonly NodeNetwork[]): Promise<void> {
    const {moray} = this.options;
    const late = this.following && networks.length ? await moray.undelivered(ADDRESSES, MAX_LATE) : undefined;
    // It may have broken meanwhile.
    if (late && this.following) {
      await Promise.all(late.filter((key) => networks.some(({id}) => key.startsWith(`${id}/`))).map(async (key) => {
        const stored = await moray.peek<AddressLease>(ADDRESSES, key);
        if (stored) this.learn(stored.value, stored.etag);
      }));
      return;
    }
    await Promise.all(networks.map(async ({id}) => {
      for (const {value, etag} of await moray.list<AddressLease>(ADDRESSES, eq('networkId', id))) this.learn(value, etag);
    }));
  }

  // ---- what is known

  /** First the feed, then the list, so that no change falls between. */
  private async follow(): Promise<void> {
    const {moray, log, clock} = this.options;
    const {signal} = this.stopped;
    while (!signal.aborted) {
      try {
        this.loading = true;
        const changes = await moray.watch<AddressLease>(ADDRESSES, ALL, {signal});
        const upTo = this.book.seenUpTo;
        const listed = new Set<string>();
        for await (const {key, value, etag} of moray.find<AddressLease>(ADDRESSES, ALL)) {
          listed.add(key);
          this.learn(value, etag);
        }
        this.book.endUnlisted(listed, upTo);
        this.loading = false;
        this.following = true;
        for (const networkId of this.book.networks()) if (this.isShared(networkId)) this.tellAll(networkId, this.book.nodesOf(networkId));
        for await (const {kind, value, etag} of changes) {
          if (kind === 'put') this.learn(value, etag);
          else if (this.book.end(value.networkId, value.address, etag)) this.tell(value.networkId, value.address);
        }
        throw new CetusError('unavailable', 'the change feed of addresses ended');
      } catch (err) {
        this.following = false;
        if (signal.aborted) return;
        log.warn({err}, 'the change feed of addresses broke; it is opened again');
        await clock.sleep(WATCH_AGAIN_MS, signal).catch(() => undefined);
      }
    }
  }

  private learn(lease: AddressLease, etag: string): void {
    if (this.book.put(lease, etag)) this.tell(lease.networkId, lease.address);
  }

  /** Of an earlier version's network the segment comes later: then all who have it are told. */
  private learnNetwork(network: NodeNetwork): void {
    const before = this.networks.get(network.id);
    this.networks.set(network.id, network);
    if (before && before.vni !== network.vni) this.tellAll(network.id, this.book.nodesOf(network.id));
  }

  private async network(networkId: string): Promise<NodeNetwork | undefined> {
    const known = this.networks.get(networkId);
    if (known?.vni !== undefined) return known;
    const stored = await this.options.moray.peek<Network>(NETWORKS, networkId);
    if (!stored) return undefined;
    const now = this.networks.get(networkId);
    if (now?.vni === undefined) this.networks.set(networkId, nodeNetwork(stored.value));
    return this.networks.get(networkId);
  }

  private isShared(networkId: string): boolean {
    return this.book.nodesOf(networkId).length > 1;
  }

  // ---- who is to be told what

  private tell(networkId: string, address: string): void {
    if (this.loading) return;
    const nodes = this.book.nodesOf(networkId);
    for (const nodeId of nodes) {
      if (nodes.length === 1 && !this.duties.has(`${nodeId} ${networkId}`)) continue;
      const duty = this.duty(nodeId, networkId);
      duty.pending.add(address);
      this.ask(duty);
    }
    if (nodes.length === 0) this.networks.delete(networkId);
  }

  private tellAll(networkId: string, nodes: string[]): void {
    if (this.loading || !this.isShared(networkId)) return;
    for (const nodeId of nodes) {
      const duty = this.duty(nodeId, networkId);
      duty.complete = false;
      this.ask(duty);
    }
  }

  private duty(nodeId: string, networkId: string): Duty {
    const key = `${nodeId} ${networkId}`;
    let duty = this.duties.get(key);
    if (!duty) this.duties.set(key, duty = {nodeId, networkId, complete: false, pending: new Set(), asked: 0, told: 0, running: false, waiting: []});
    return duty;
  }

  private ask(duty: Duty): void {
    duty.asked += 1;
    if (duty.running || this.stopped.signal.aborted) return;
    duty.running = true;
    const work = this.perform(duty).finally(() => this.atWork.delete(work));
    this.atWork.add(work);
  }

  private async settled(duty: Duty): Promise<void> {
    if (!duty.complete && !duty.running) this.ask(duty);
    if (duty.complete && duty.told >= duty.asked) return;
    const {signal} = this.stopped;
    await new Promise<void>((resolve, reject) => {
      const timer = setTimeout(() => reject(new CetusError('timeout', `node ${duty.nodeId} could not be told where the other containers of network ${duty.networkId} are`)), PREPARE_DEADLINE_MS);
      const end = (finish: () => void): void => {
        clearTimeout(timer);
        finish();
      };
      duty.waiting.push({upTo: duty.asked, resolve: () => end(resolve), reject: (err) => end(() => reject(err))});
      if (signal.aborted) release(duty, signal.reason);
    });
  }

  /** Until nothing is left to tell, or nobody to be told. */
  private async perform(duty: Duty): Promise<void> {
    const {clock, log} = this.options;
    const {signal} = this.stopped;
    for (let failures = 0; duty.told < duty.asked; ) {
      const {asked} = duty;
      const verdict = await this.turn(duty).catch((err: unknown) => err as Error);
      if (signal.aborted) return release(duty, signal.reason);
      if (verdict === 'done') failures = 0;
      // Asked while we looked: what we saw may be over.
      if (verdict === 'done' || (verdict === 'nobody' && duty.asked !== asked)) continue;
      if (verdict === 'nobody' || !this.nodes.get(duty.nodeId)?.alive) {
        // Its next container there, or its return, begins anew.
        this.duties.delete(`${duty.nodeId} ${duty.networkId}`);
        return release(duty, verdict === 'nobody' ? undefined : verdict);
      }
      duty.complete = false;
      log.warn({err: verdict, nodeId: duty.nodeId, networkId: duty.networkId}, 'a node could not be told where others are; trying again');
      await clock.sleep(Math.min(TELL_AGAIN_MOST_MS, TELL_AGAIN_MS * 2 ** failures), signal).catch(() => undefined);
      failures += 1;
    }
    duty.running = false;
  }

  private async turn(duty: Duty): Promise<'done' | 'nobody'> {
    const {nodeId, networkId} = duty;
    const network = await this.network(networkId);
    if (network?.vni === undefined || !this.nodes.get(nodeId)?.alive || !this.book.isOn(networkId, nodeId)) return 'nobody';
    const agent = await this.options.agent(nodeId);
    await this.slot(async () => {
      const upTo = duty.asked;
      const nodeOf = (id: string): TableNode | undefined => this.nodes.get(id)?.table;
      const table: NetworkTable = duty.complete ? this.book.changes(networkId, [...duty.pending], nodeOf) : this.book.whole(networkId, nodeOf);
      duty.pending.clear();
      duty.complete = true;
      this.count += 1;
      // Its order is in the versions: no epoch, and the node keeps no answer.
      await agent.task({jobId: `table-${networkId}`, step: `${this.count}`, epoch: 0, requestId: `table-${networkId.slice(0, 12)}`, body: {kind: 'network.table', network, table}}, {deadlineMs: TELL_DEADLINE_MS, signal: this.stopped.signal});
      duty.told = upTo;
    });
    duty.waiting = duty.waiting.filter((one) => {
      if (one.upTo > duty.told) return true;
      one.resolve();
      return false;
    });
    return 'done';
  }

  private async slot<T>(work: () => Promise<T>): Promise<T> {
    while (this.telling >= MAX_TELLING && !this.stopped.signal.aborted) await new Promise<void>((resume) => this.queue.push(resume));
    this.telling += 1;
    try {
      return await work();
    } finally {
      this.telling -= 1;
      this.queue.shift()?.();
    }
  }
}

/** `err` undefined: there is nothing that it would have to know. */
function release(duty: Duty, err: unknown): void {
  duty.running = false;
  for (const one of duty.waiting.splice(0)) {
    if (err === undefined) one.resolve();
    else one.reject(isCetusError(err) ? err : new CetusError('unavailable', `tell node ${duty.nodeId} where others are`, {cause: err}));
  }
}
