/** The index against a naive oracle that scans: feasible, best score, refusal exactly where nothing fits; and the words of refusals. */
import fc from 'fast-check';
import {CetusError} from '../../lib/base/errors';
import {createPlacementIndex} from '../../lib/placement';
import type {ContainerView, NodeView} from '../../lib/placement/placement';
import type {PlacementRequest} from '../../lib/schema/placement';

const GiB = 1024 ** 3;
const node = (id: string, over: Partial<NodeView> = {}): NodeView => ({
  id, name: `name-${id}`, platform: 'linux/amd64', liveness: 'alive', availability: 'active', labels: {}, cpus: 8, cpusetCpus: '0-7', cpusetMems: '0',
  capacity: {memoryBytes: 8 * GiB, nanoCpus: 8e9, diskBytes: 100 * GiB, pids: 1000}, reserved: {memoryBytes: 0, nanoCpus: 0, diskBytes: 0, pids: 0}, ...over,
});
const request = (over: Partial<PlacementRequest> = {}): PlacementRequest => ({
  account: 'a', containerName: 'c', labels: {}, reservation: {memoryBytes: GiB, nanoCpus: 1e9, diskBytes: 0, pids: 0},
  imageReference: 'docker.io/library/busybox:latest', imageId: 'sha256:i1', pinnedNodes: [], ports: [], expressions: [], ...over,
});
const container = (id: string, nodeId: string, over: Partial<ContainerView> = {}): ContainerView => ({
  id, name: `n${id}`, account: 'a', nodeId, labels: {}, imageId: 'sha256:i1', imageReference: 'busybox', ports: [], ...over,
});
const refused = (f: () => unknown): CetusError => {
  try {
    f();
  } catch (err) {
    return err as CetusError;
  }
  throw new Error('it was placed');
};

interface World { nodes: NodeView[]; containers: ContainerView[]; images: {nodeId: string; imageId: string}[] }

/** Feasibility and total written again, without index, from the README's tables. */
function strictOracle(world: World, r: PlacementRequest): Map<string, number> {
  const totals = new Map<string, number>();
  for (const n of world.nodes) {
    const here = world.containers.filter((c) => c.nodeId === n.id);
    const own = here.filter((c) => c.account === r.account);
    const has = (e: string): boolean => {
      const [, kind, key, not, value] = /^(\w+):([\w.]+)(==|!=)~?(.*)$/.exec(e)!;
      const names = kind === 'constraint' ? (key === 'node' ? [n.name, n.id] : n.labels[key!] === undefined ? [] : [n.labels[key!]!])
        : key === 'container' ? own.flatMap((c) => [c.name, c.id])
          : own.flatMap((c) => (c.labels[key!] === undefined ? [] : [c.labels[key!]!]));
      return names.includes(value!) === (not === '==');
    };
    const soft = r.expressions.filter((e) => e.includes('=~'));
    const fits = n.liveness === 'alive' && n.availability === 'active' && (!r.platform || n.platform === r.platform)
      && r.pinnedNodes.every((p) => p.nodeId === n.id) && r.expressions.every((e) => soft.includes(e) || has(e))
      && (r.hardware?.nanoCpus ?? 0) <= n.cpus * 1e9
      && r.ports.every((p) => !here.some((c) => c.ports.some((q) => q.hostPort === p.hostPort && q.protocol === p.protocol && (q.hostIp === '' || p.hostIp === '' || q.hostIp === p.hostIp))))
      && (['memoryBytes', 'nanoCpus', 'diskBytes', 'pids'] as const).every((d) => r.reservation[d] === 0 || n.reserved[d] + r.reservation[d] <= n.capacity[d]);
    if (!fits) continue;
    const group = r.labels['cetus.spread'];
    const free = Math.min(...(['memoryBytes', 'nanoCpus'] as const).map((d) => Math.max(0, (n.capacity[d] - n.reserved[d]) / n.capacity[d])));
    totals.set(n.id, 4 * soft.filter(has).length
      + (group ? 2 / (1 + own.filter((c) => c.labels['cetus.spread'] === group).length) : 0)
      + Math.floor(free * 64) / 64 + 1 / (1 + own.length)
      + (world.images.some((i) => i.nodeId === n.id && i.imageId === r.imageId) ? 0.5 : 0));
  }
  return totals;
}

/** A port that is free nowhere is left to the start. */
function oracle(world: World, r: PlacementRequest): Map<string, number> {
  const strict = strictOracle(world, r);
  return strict.size ? strict : strictOracle(world, {...r, ports: []});
}

const ids = (prefix: string, max: number): fc.Arbitrary<string> => fc.integer({min: 0, max}).map((n) => `${prefix}${n}`);
const oneOf = <T>(...values: T[]): fc.Arbitrary<T> => fc.constantFrom(...values);
const amount = fc.record({memoryBytes: fc.integer({min: 0, max: 9}).map((n) => n * GiB), nanoCpus: fc.integer({min: 0, max: 9}).map((n) => n * 1e9), diskBytes: oneOf(0, GiB), pids: oneOf(0, 10)});
const port = fc.record({protocol: oneOf('tcp', 'udp'), hostIp: oneOf('', '10.0.0.1', '10.0.0.2'), hostPort: oneOf(80, 81)});
const labels = fc.oneof(fc.constant<Record<string, string>>({}), oneOf('x', 'y').map((v): Record<string, string> => ({'cetus.spread': v, tier: v})));
type Op = {op: 'node'; view: NodeView} | {op: 'container'; view: ContainerView} | {op: 'image'; nodeId: string; imageId: string}
  | {op: 'removeNode' | 'removeContainer'; id: string} | {op: 'removeImage'; nodeId: string; imageId: string};
const anOp: fc.Arbitrary<Op> = fc.oneof(
  {weight: 5, arbitrary: fc.record({op: fc.constant('node' as const), view: fc.record({
    id: ids('n', 30), platform: oneOf('linux/amd64', 'linux/arm64'), liveness: oneOf('alive', 'alive', 'alive', 'lost'), availability: oneOf('active', 'active', 'active', 'cordoned'),
    labels: oneOf({}, {rack: 'r1'}, {rack: 'r2'}), reserved: amount, cpus: oneOf(2, 8),
  }).map((v) => node(v.id, v as Partial<NodeView>))})},
  {weight: 5, arbitrary: fc.record({op: fc.constant('container' as const), view: fc.record({id: ids('c', 40), nodeId: ids('n', 30), account: oneOf('a', 'b'), labels, ports: fc.array(port, {maxLength: 1})})
    .map((v) => container(v.id, v.nodeId, v))})},
  {weight: 2, arbitrary: fc.record({op: fc.constant('image' as const), nodeId: ids('n', 30), imageId: oneOf('sha256:i1', 'sha256:i2')})},
  fc.record({op: fc.constant('removeNode' as const), id: ids('n', 30)}),
  fc.record({op: fc.constant('removeContainer' as const), id: ids('c', 40)}),
  fc.record({op: fc.constant('removeImage' as const), nodeId: ids('n', 30), imageId: oneOf('sha256:i1', 'sha256:i2')}),
);
const aRequest = fc.record({
  account: oneOf('a', 'b'), labels, reservation: amount, platform: oneOf(undefined, undefined, 'linux/arm64'), ports: fc.array(port, {maxLength: 1}),
  pinnedNodes: fc.oneof({weight: 4, arbitrary: fc.constant<{nodeId: string; volumeName: string}[]>([])}, {weight: 1, arbitrary: ids('n', 30).map((nodeId) => [{nodeId, volumeName: 'v'}])}),
  expressions: fc.array(oneOf('constraint:rack==r1', 'constraint:rack!=r1', 'constraint:rack==~r2', 'constraint:node==name-n3', 'affinity:container==nc1', 'affinity:container!=nc1',
    'affinity:container==~nc2', 'affinity:tier!=~x', 'affinity:tier==x'), {maxLength: 2}),
  hardware: oneOf(undefined, undefined, {nanoCpus: 3e9, cpusetCpus: '', cpusetMems: ''}),
}).map((v) => request(v));

function build(ops: Op[], config: {exhaustiveNodes: number; smallSet: number}): {world: World; index: ReturnType<typeof createPlacementIndex>} {
  const index = createPlacementIndex(config);
  const nodes = new Map<string, NodeView>();
  const containers = new Map<string, ContainerView>();
  const images = new Map<string, {nodeId: string; imageId: string}>();
  for (const op of ops) {
    switch (op.op) {
      case 'node': nodes.set(op.view.id, op.view); index.putNode(op.view); break;
      case 'container': containers.set(op.view.id, op.view); index.putContainer(op.view); break;
      case 'image': images.set(op.nodeId + op.imageId, op); index.putImage(op.nodeId, op.imageId, []); break;
      case 'removeNode': nodes.delete(op.id); index.removeNode(op.id); break;
      case 'removeContainer': containers.delete(op.id); index.removeContainer(op.id); break;
      case 'removeImage': images.delete(op.nodeId + op.imageId); index.removeImage(op.nodeId, op.imageId); break;
    }
  }
  return {index, world: {nodes: [...nodes.values()], containers: [...containers.values()], images: [...images.values()]}};
}

test.each([[0, 1024], [0, 1], [256, 1024]])('exactly the best score of the oracle, or noSpace (exhaustive %i, small set %i)', (exhaustiveNodes, smallSet) => {
  fc.assert(fc.property(fc.array(anOp, {minLength: 20, maxLength: 150}), aRequest, (ops, r) => {
    const {world, index} = build(ops, {exhaustiveNodes, smallSet});
    const totals = oracle(world, r);
    if (totals.size === 0) {
      const err = refused(() => index.place(r));
      if (world.nodes.length && world.nodes.every((n) => (r.hardware?.nanoCpus ?? 0) > n.cpus * 1e9)) {
        expect(err.kind).toBe('invalid');
        return;
      }
      expect(err.kind).toBe('noSpace');
      const counted = (err.info['rejections'] as {count: number}[]).reduce((n, x) => n + x.count, 0);
      expect(counted).toBe(world.nodes.length);
      return;
    }
    const decision = index.place(r);
    const order = [...totals.values()].sort((x, y) => y - x);
    const answered = [decision.score, ...decision.alternatives];
    expect(answered.map((s) => s.total)).toHaveLength(Math.min(5, order.length));
    answered.forEach((s, i) => {
      expect(s.total).toBeCloseTo(order[i]!, 9);
      expect(s.total).toBeCloseTo(totals.get(s.nodeId)!, 9);
    });
    expect(index.place(r)).toEqual(decision);
    const portsFree = strictOracle(world, r).size > 0;
    if (exhaustiveNodes > 0 && portsFree) expect(decision.rejections.reduce((n, x) => n + x.count, 0)).toBe(world.nodes.length - totals.size);
    expect(index.explain(r).reduce((n, x) => n + x.count, 0)).toBe(world.nodes.length - strictOracle(world, r).size);
  }), {numRuns: 250});
});

test('a large even fleet is not scanned', () => {
  const index = createPlacementIndex();
  for (let i = 0; i < 5000; i += 1) index.putNode(node(`n${i}`, {labels: {rack: `r${i % 100}`}}));
  expect(index.place(request()).considered).toBeLessThan(50);
  expect(index.place(request({expressions: ['constraint:rack==r7']})).considered).toBe(50);
});

test('a port that is free nowhere is left to the start, and the decision says so', () => {
  const index = createPlacementIndex();
  index.putNode(node('a'));
  index.putContainer(container('c1', 'a', {ports: [{protocol: 'tcp', hostIp: '', hostPort: 80}]}));
  const wanted = request({ports: [{protocol: 'tcp', hostIp: '', hostPort: 80}]});
  expect(index.place(wanted)).toMatchObject({nodeId: 'a', rejections: [{filter: 'port', detail: 'tcp/80', count: 1}]});
  index.putNode(node('b'));
  expect(index.place(wanted)).toMatchObject({nodeId: 'b'});
});

test('a refusal says what would have fitted where', () => {
  const index = createPlacementIndex();
  index.putNode(node('a', {reserved: {memoryBytes: 6 * GiB, nanoCpus: 0, diskBytes: 0, pids: 0}}));
  index.putNode(node('b', {availability: 'cordoned'}));
  index.putNode(node('c', {liveness: 'lost'}));
  const err = refused(() => index.place(request({reservation: {memoryBytes: 4 * GiB, nanoCpus: 0, diskBytes: 0, pids: 0}})));
  expect(err.message).toContain('no node of 3');
  expect(err.message).toContain('without enough free memory (name-a)');
  expect(err.message).toContain('most that fits: memory 2GiB on name-a');
  expect(err.message).toContain('cordoned (name-b)');
  expect(refused(() => createPlacementIndex().place(request())).message).toContain('the datacenter has no nodes');
});

describe('hardware', () => {
  const asked = (over: object): PlacementRequest => request({hardware: {nanoCpus: 0, cpusetCpus: '', cpusetMems: '', ...over}, reservation: {memoryBytes: 0, nanoCpus: 0, diskBytes: 0, pids: 0}});
  const fleet = (): ReturnType<typeof createPlacementIndex> => {
    const index = createPlacementIndex();
    index.putNode(node('a', {cpus: 2, cpusetCpus: '0-1'}));
    index.putNode(node('b', {cpus: 4, cpusetCpus: '0-2,5', cpusetMems: '0-1'}));
    return index;
  };

  test.each([[{nanoCpus: 4e9}, 'b'], [{cpusetCpus: '1-2'}, 'b'], [{cpusetCpus: '0,5'}, 'b'], [{cpusetMems: '1'}, 'b'], [{cpusetCpus: '0-1', cpusetMems: '0-1', nanoCpus: 3e9}, 'b']])('%j goes where it is', (over, expected) => {
    const decision = fleet().place(asked(over));
    expect(decision.nodeId).toBe(expected);
    expect(decision.rejections).toMatchObject([{filter: 'hardware', count: 1, examples: ['name-a']}]);
  });

  test.each([
    [{nanoCpus: 4.01e9}, 'range of CPUs is from 0.01 to 4.00, as there are only 4 CPUs available'],
    [{nanoCpus: -1e9}, 'range of CPUs is from 0.01 to 4.00, as there are only 4 CPUs available'],
    [{cpusetCpus: '77'}, 'Requested CPUs are not available - requested 77, available: 0-2,5'],
    [{cpusetCpus: '1-3'}, 'Requested CPUs are not available - requested 1-3, available: 0-2,5'],
    [{cpusetMems: '9'}, 'Requested memory nodes are not available - requested 9, available: 0-1'],
  ])('%j, which no node has, is refused as by the Engine', (over, message) => {
    const err = refused(() => fleet().place(asked(over)));
    expect([err.kind, err.message]).toEqual(['invalid', message]);
    const withPort = {...asked(over), ports: [{protocol: 'tcp', hostIp: '', hostPort: 80}]};
    expect(refused(() => fleet().place(withPort)).message).toBe(message);
  });

  test('where the node that has it is away, a refusal says both', () => {
    const index = fleet();
    index.putNode(node('b', {cpus: 4, liveness: 'lost'}));
    const err = refused(() => index.place(asked({nanoCpus: 3e9})));
    expect(err.kind).toBe('noSpace');
    expect(err.message).toContain('1 not reachable (lost) (name-b)');
    expect(err.message).toContain('1 without 3 cpus (name-a)');
  });

  test('a node that has not said which cpus it has is tried', () => {
    const index = createPlacementIndex();
    index.putNode(node('old', {cpusetCpus: undefined, cpusetMems: undefined}));
    expect(index.place(asked({cpusetCpus: '77', cpusetMems: '9'})).nodeId).toBe('old');
  });
});

test('volumes on two nodes are refused by name', () => {
  const index = createPlacementIndex();
  index.putNode(node('a'));
  const err = refused(() => index.place(request({pinnedNodes: [{nodeId: 'a', volumeName: 'v1'}, {nodeId: 'b', volumeName: 'v2'}]})));
  expect(err.kind).toBe('invalid');
  expect(err.message).toMatch(/v1.*v2/);
});

test.each([
  ['affinity:image==busybox', 'a'], ['affinity:image==docker.io/library/busybox:latest', 'a'], ['affinity:image!=busybox', 'b'], ['affinity:image==i77', 'b'],
  ['constraint:node==/^name-[b]$/', 'b'], ['constraint:rack==r*', 'a'], ['constraint:rack!=/r(1|2)+/', 'b'], ['affinity:container==~web', 'b'], ['affinity:app==/^sho?p$/', 'b'],
])('%s goes to %s', (expression, expected) => {
  const index = createPlacementIndex();
  index.putNode(node('a', {labels: {rack: 'r1'}}));
  index.putNode(node('b', {labels: {}}));
  index.putImage('a', 'sha256:i9', ['docker.io/library/busybox:latest']);
  index.putImage('b', 'sha256:i77', ['registry:5000/x:1']);
  index.putContainer(container('c1', 'b', {name: 'web', labels: {app: 'shop'}}));
  index.putContainer(container('c2', 'a', {name: 'web', account: 'other', labels: {app: 'shop'}}));
  expect(index.place(request({imageId: 'none', expressions: [expression]})).nodeId).toBe(expected);
});

test.each(['affinity:container=web', 'constraint:==x', 'constraint:rack==', 'rack==r1', 'constraint:rack==/(/', 'constraint:rack==/a{2}/', 'constraint:r ack==x'])('%s is refused', (expression) => {
  const index = createPlacementIndex();
  index.putNode(node('a'));
  expect(refused(() => index.place(request({expressions: [expression]}))).kind).toBe('invalid');
});
