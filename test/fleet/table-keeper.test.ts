/** Who is told where others are: a keeper, or two, over the store in memory, and nodes that merge as real ones do. */
import {emptyTable, type KnownTable, mergeTable} from '../../lib/agent/network/tables';
import {systemClock} from '../../lib/base/clock';
import {CetusError} from '../../lib/base/errors';
import {silentLog} from '../../lib/base/log';
import {FakeAgent} from '../../lib/fleet/fake-agent';
import {TableKeeper} from '../../lib/fleet/table-keeper';
import {createMemoryMoray} from '../../lib/moray/memory';
import type {Moray} from '../../lib/moray/moray';
import {type NodeNetwork, nodeNetwork} from '../../lib/schema/agent';
import {BUCKETS} from '../../lib/schema/buckets';
import type {Node, NodeLiveness} from '../../lib/schema/node';
import type {AddressLease, Network} from '../../lib/schema/objects';
import {someFacts} from './objects';

const ADDRESSES = BUCKETS.addresses.name;
const NETWORK: Network = {
  id: 'net1', account: 'default', name: 'front', accountName: 'default/front', driver: 'bridge', scope: 'local', internal: false, attachable: false, ingress: false, enableIPv4: true, enableIPv6: false,
  subnet: '172.18.0.0/16', gateway: '172.18.0.1', ipRange: '', auxAddresses: {}, options: {}, ipamOptions: {}, labels: {}, bridgeName: 'ce-1', vni: 5000, predefined: false, createdAt: '',
};

class World {
  readonly store: Moray = createMemoryMoray();
  readonly agents = new Map<string, FakeAgent>();
  readonly keepers: TableKeeper[] = [];
  readonly nodes = new Map<string, Node>();

  async open(): Promise<void> {
    await this.store.open(BUCKETS.addresses, BUCKETS.networks);
    await this.store.put('networks', 'net1', NETWORK);
  }

  keeper(): TableKeeper {
    const keeper = new TableKeeper({moray: this.store, log: silentLog(), clock: systemClock, agent: async (id) => {
      if (this.nodes.get(id)?.liveness !== 'alive') throw new CetusError('unavailable', `node ${id} is not alive`);
      return this.agents.get(id)!;
    }});
    this.keepers.push(keeper);
    for (const [id, node] of this.nodes) keeper.nodeChanged(id, node);
    return keeper;
  }

  node(n: number, part: {liveness?: NodeLiveness; bootGeneration?: number; underlay?: boolean; address?: string} = {}): FakeAgent {
    const id = `n${n}`;
    const facts = someFacts({nodeId: id, name: id, bootGeneration: part.bootGeneration ?? 1, ...(part.underlay === false ? {} : {underlay: {address: part.address ?? `10.0.0.${n}`, mtu: 1500}})});
    if (!this.agents.has(id)) this.agents.set(id, new FakeAgent({facts}));
    const node: Node = {id, name: id, facts, availability: 'active', liveness: part.liveness ?? 'alive', livenessReason: '', livenessAt: '', labels: {}, joinedAt: ''};
    this.nodes.set(id, node);
    for (const keeper of this.keepers) keeper.nodeChanged(id, node);
    return this.agents.get(id)!;
  }

  async place(n: number, host: number, part: Partial<AddressLease> = {}): Promise<void> {
    const address = `172.18.0.${host}`;
    await this.store.put<AddressLease>(ADDRESSES, `net1/${address}`, {
      networkId: 'net1', address, account: 'default', containerId: `c${host}`, endpointId: 'e', mac: '02:42:ac:12:00:02', nodeId: `n${n}`, aliases: [`name${host}`], ...part,
    });
  }

  async gone(host: number): Promise<void> { await this.store.delete(ADDRESSES, `net1/172.18.0.${host}`); }

  known(n: number): KnownTable {
    return (this.agents.get(`n${n}`)?.tables.get('net1') ?? []).reduce(mergeTable, emptyTable('net1'));
  }

  /** "ADDRESS@NODE'S UNDERLAY" */
  seen(n: number): string[] {
    const {rows, nodes} = this.known(n);
    return Object.values(rows).map(({address, nodeId}) => `${address.split('.').pop()}@${nodes[nodeId]?.address.split('.').pop() ?? '?'}`).sort();
  }

  told(n: number): number { return this.agents.get(`n${n}`)!.tasks.length; }

  async close(): Promise<void> {
    for (const keeper of this.keepers) await keeper.stop();
    await this.store.close();
  }
}

async function until(what: string, condition: () => boolean): Promise<void> {
  const end = Date.now() + 30_000;
  while (!condition()) {
    if (Date.now() > end) throw new Error(`never: ${what}`);
    await new Promise((next) => setTimeout(next, 5));
  }
}

describe('tables of networks', () => {
  let world: World;
  beforeEach(async () => {
    world = new World();
    await world.open();
  });
  afterEach(() => world.close());

  const sees = (n: number, ...expected: string[]): Promise<void> => until(`node ${n} knows ${expected.join(' ')}; it knows ${world.seen(n).join(' ')}`, () => JSON.stringify(world.seen(n)) === JSON.stringify(expected));
  const network: NodeNetwork = nodeNetwork(NETWORK);

  it('cost one node nothing: it is asked nothing and told nothing', async () => {
    const keeper = world.keeper();
    world.node(1);
    world.node(2, {underlay: false});
    await world.place(1, 2);
    const list = jest.spyOn(world.store, 'list');
    await keeper.prepare('n1', [network]);
    expect(keeper.active).toBe(false);
    expect(list).not.toHaveBeenCalled();
    expect(world.told(1)).toBe(0);
  });

  it('are told when a second node comes to a network, with every change, and at the end', async () => {
    const keeper = world.keeper();
    world.node(1);
    world.node(2);
    world.node(3);
    expect(keeper.active).toBe(true);
    await world.place(1, 2);
    await world.place(1, 3);
    await keeper.prepare('n1', [network]);
    expect(world.told(1)).toBe(0);
    await world.place(2, 4);
    await keeper.prepare('n2', [network]);
    expect(world.seen(2)).toEqual(['2@1', '3@1', '4@2']);
    await sees(1, '2@1', '3@1', '4@2');
    await world.place(2, 4, {aliases: ['renamed']});
    await until('the new name', () => world.known(1).rows['172.18.0.4']?.aliases[0] === 'renamed');
    await world.place(3, 4);
    await sees(1, '2@1', '3@1', '4@3');
    await sees(3, '2@1', '3@1', '4@3');
    await world.gone(4);
    await sees(1, '2@1', '3@1');
    // Only what changed is told to who knows the rest.
    expect(world.agents.get('n1')!.tables.get('net1')!.filter((table) => table.asOf !== undefined)).toHaveLength(1);
    expect(world.agents.get('n3')!.tables.get('net1')!.at(-1)!.gone).toEqual([]);
  });

  it('prepare asks for what the feed has not brought, and for nothing else', async () => {
    world.node(1);
    world.node(2);
    await world.place(1, 2);
    // A feed that never brings anything.
    jest.spyOn(world.store, 'watch').mockResolvedValue({async *[Symbol.asyncIterator]() { await new Promise(() => undefined); }} as never);
    const keeper = world.keeper();
    await until('the first listing', () => keeper.held('net1')?.size === 1);
    await world.place(2, 3);
    await world.place(2, 4);
    const late = jest.spyOn(world.store, 'undelivered').mockResolvedValueOnce(['net1/172.18.0.3', 'other/172.18.0.9', 'net1/172.18.0.77']);
    const list = jest.spyOn(world.store, 'list');
    await keeper.prepare('n1', [network]);
    expect(world.seen(1)).toEqual(['2@1', '3@2']);
    expect(keeper.held('net1')!.get('172.18.0.3')).toMatchObject({containerId: 'c3'});
    expect(list).not.toHaveBeenCalled();
    // More than can be told: all of it is read.
    late.mockResolvedValueOnce(undefined);
    await keeper.prepare('n1', [network]);
    expect(world.seen(1)).toEqual(['2@1', '3@2', '4@2']);
    expect(list).toHaveBeenCalledTimes(1);
    jest.restoreAllMocks();
    world.keepers.length = 0;
  });

  it('prepare knows what is in the store now, also before the feed has told it', async () => {
    const keeper = world.keeper();
    world.node(1);
    world.node(2);
    for (let host = 2; host < 30; host += 1) {
      await world.place(1 + (host % 2), host);
      const node = 1 + (host % 2);
      await keeper.prepare(`n${node}`, [network]);
      if (host > 2) expect(world.seen(node)).toHaveLength(host - 1);
    }
    for (const n of [1, 2]) await until('all of them at both', () => world.seen(n).length === 28);
  });

  it('a node that fails is told again, one that is away when it returns, and a new life of it everything', async () => {
    world.keeper();
    const one = world.node(1);
    world.node(2);
    one.fail({kind: 'network.table', when: 'before', times: 3});
    await world.place(1, 2);
    await world.place(2, 3);
    await sees(1, '2@1', '3@2');
    one.fail({kind: 'network.table', when: 'after', times: 1});
    await world.place(2, 4);
    await sees(1, '2@1', '3@2', '4@2');
    world.node(1, {liveness: 'lost'});
    await world.gone(3);
    await world.place(2, 5);
    await sees(2, '2@1', '4@2', '5@2');
    world.node(1);
    await sees(1, '2@1', '4@2', '5@2');
    one.tables.clear();
    world.node(1, {bootGeneration: 2});
    await sees(1, '2@1', '4@2', '5@2');
    // At another place: the others hear of it.
    world.node(1, {bootGeneration: 3, address: '10.0.0.9'});
    await sees(2, '2@9', '4@2', '5@2');
  });

  it('two endpoints tell the same, whoever is first; one that begins later tells all', async () => {
    world.node(1);
    world.node(2);
    const keepers = [world.keeper(), world.keeper()];
    for (let host = 2; host < 12; host += 1) await world.place(1 + (host % 2), host);
    await keepers[0]!.prepare('n1', [network]);
    for (let host = 2; host < 12; host += 3) await world.gone(host);
    for (let host = 3; host < 12; host += 3) await world.place(2 - (host % 2), host);
    await world.place(1, 20);
    const expected = (await world.store.list<AddressLease>(ADDRESSES, '(networkId=net1)')).map(({value}) => `${value.address.split('.').pop()}@${value.nodeId!.slice(1)}`).sort();
    for (const n of [1, 2]) await sees(n, ...expected);
    world.agents.get('n2')!.tables.clear();
    world.keeper();
    await sees(2, ...expected);
  });

  it('a network of an earlier version is carried from when it has a segment, and those who have it already hear of that', async () => {
    const {vni: _none, ...old} = NETWORK;
    await world.store.put('networks', 'net1', old);
    const keeper = world.keeper();
    world.node(1);
    world.node(2);
    await world.place(1, 2);
    await world.place(2, 3);
    await keeper.prepare('n2', [nodeNetwork(old)]);
    expect(world.told(1) + world.told(2)).toBe(0);
    await world.store.put('networks', 'net1', NETWORK);
    await keeper.prepare('n2', [network]);
    expect(world.seen(2)).toEqual(['2@1', '3@2']);
    await sees(1, '2@1', '3@2');
  });

  it('who cannot be told in time is said, and a stop ends every wait', async () => {
    const keeper = world.keeper();
    world.node(1);
    const two = world.node(2);
    await world.place(1, 2);
    await world.place(2, 3);
    two.fail({kind: 'network.table', when: 'before', times: 1000});
    const preparing = keeper.prepare('n2', [network]);
    preparing.catch(() => undefined);
    await until('it was tried', () => world.told(2) > 1);
    await keeper.stop();
    await expect(preparing).rejects.toMatchObject({kind: 'canceled'});
  });
});
