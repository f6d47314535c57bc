/** What has to move, moves: over two fake nodes and the store in memory. */
import {silentLog} from '../../lib/base/log';
import {staying} from '../../lib/fleet/movable';
import {createEvacuator, type Evacuator} from '../../lib/jobs/evacuator';
import {DEFAULT_JOB_CONFIG, nodeView} from '../../lib/jobs/services';
import {BUCKETS} from '../../lib/schema/buckets';
import type {Container} from '../../lib/schema/container';
import type {Node} from '../../lib/schema/node';
import type {AddressLease} from '../../lib/schema/objects';
import type {RunningWorkflow} from '../../lib/workflow/workflow';
import {ACCOUNT, Datacenter, IMAGE_ID, nodeImage} from './world';

let dc: Datacenter;
let evacuator: Evacuator;
let workflow: RunningWorkflow;

const always = (more: Partial<Container['spec']['hostConfig']> = {}): Partial<Container> => ({spec: {...dc.draft('x', 'x').spec, hostConfig: {RestartPolicy: {Name: 'always'}, ...more}}});
const of = (id: string, name: string, more: Partial<Container>): Partial<Container> => ({...more, spec: {...more.spec!, id, name}, requestedPorts: [], reservation: {memoryBytes: 2 ** 26, nanoCpus: 0, diskBytes: 0, pids: 0}});
const get = async (id: string): Promise<Container> => (await dc.store.get<Container>(BUCKETS.containers.name, id)).value;
const set = async (id: string, change: Partial<Node>): Promise<void> => {
  const node = [dc.node, ...dc.others].find((n) => n.id === id)!;
  Object.assign(node, change);
  await dc.store.put(BUCKETS.nodes.name, id, node);
  dc.placement.putNode(nodeView(node, undefined, DEFAULT_JOB_CONFIG));
};
const look = async (): Promise<void> => {
  await dc.clock.until(evacuator.look());
  await dc.settle();
};

beforeEach(async () => {
  dc = await new Datacenter().open();
  await dc.store.put('images', `${ACCOUNT}/${IMAGE_ID}`, dc.image('1', [dc.node.id, 'node-2']));
  workflow = dc.runner();
  await workflow.start();
  evacuator = createEvacuator({moray: dc.store, workflow, log: silentLog(), clock: dc.clock, nodes: () => [dc.node, ...dc.others], acts: () => true, drainParallel: 2});
});
afterEach(() => dc.clock.until(workflow.stop()));

async function pair(first: Partial<Node>): Promise<Awaited<ReturnType<Datacenter['second']>>> {
  const other = await dc.second(first);
  other.images.set(IMAGE_ID, nodeImage('1'));
  return other;
}

test('what may move leaves a fenced node with its id, name and address; the others stay, and are called by their reason', async () => {
  await dc.container('c1', 'web', true, of('c1', 'web', always()));
  await dc.container('c2', 'plain', true, of('c2', 'plain', {spec: dc.draft('c2', 'plain').spec}));
  await dc.container('c3', 'data', true, {...of('c3', 'data', always()), ...{volumeIds: ['v1']}, spec: {...always().spec!, id: 'c3', name: 'data', mounts: [{type: 'volume', volumeId: 'v1', name: 'v1', destination: '/v', readOnly: false, noCopy: false, anonymous: false}]}}, [dc.volume('v1', 'v1')]);
  const before = await get('c1');
  expect([before.reschedule, (await get('c2')).reschedule, (await get('c3')).reschedule]).toEqual([true, undefined, undefined]);
  const other = await pair({liveness: 'lost'});
  await look();
  expect((await get('c1')).nodeId).toBe(dc.node.id);
  await set(dc.node.id, {liveness: 'fenced'});
  await look();
  const after = await get('c1');
  expect(after).toMatchObject({id: 'c1', name: 'web', nodeId: 'node-2', status: 'running', reschedule: true});
  expect(after.moving).toBeUndefined();
  expect(after.attachments.map((a) => [a.address, a.mac])).toEqual(before.attachments.map((a) => [a.address, a.mac]));
  const [lease] = [...(await dc.all<AddressLease>('addresses')).values()].filter((l) => l.containerId === 'c1');
  expect(lease).toMatchObject({address: before.attachments[0]!.address, nodeId: 'node-2'});
  expect(other.containers.get('c1')!.observation.status).toBe('running');
  expect((await get('c2')).nodeId).toBe(dc.node.id);
  expect((await get('c3')).nodeId).toBe(dc.node.id);
  const all = [...(await dc.all<Container>('containers')).values()];
  expect(staying(all).map(({name, reason}) => `${name}: ${reason}`)).toEqual(['plain: its restart policy is no, not always or unless-stopped', 'data: it uses the volume v1, which is on its node']);
});

test('where nobody can take it, it stays where it is; when somebody can, it goes', async () => {
  await dc.container('c1', 'web', true, of('c1', 'web', always()));
  await pair({liveness: 'fenced'});
  await set('node-2', {availability: 'cordoned'});
  await look();
  expect(await get('c1')).toMatchObject({nodeId: dc.node.id, status: 'running'});
  await set('node-2', {availability: 'active'});
  await dc.clock.pass(3_000);
  await look();
  expect(await get('c1')).toMatchObject({nodeId: 'node-2', status: 'running'});
});

test('a drain takes so many at a time, stops them first, keeps their addresses, and ends with an uncordon', async () => {
  for (const n of [1, 2, 3, 4, 5]) await dc.container(`c${n}`, `web${n}`, true, of(`c${n}`, `web${n}`, always()));
  const addresses = new Map<string, string>();
  for (const n of [1, 2, 3, 4, 5]) addresses.set(`c${n}`, (await get(`c${n}`)).attachments[0]!.address);
  const other = await pair({availability: 'draining'});
  await look();
  expect(other.containers.size).toBe(2);
  expect(dc.agent.tasks.filter(({body}) => body.kind === 'container.stop').length).toBe(2);
  await look();
  expect(other.containers.size).toBe(4);
  for (const [id, c] of other.containers) expect(c.attachments[0]!.address).toBe(addresses.get(id));
  await set(dc.node.id, {availability: 'active'});
  await look();
  expect(other.containers.size).toBe(4);
  expect([...dc.agent.containers.keys()]).toHaveLength(1);
  expect(await dc.leaks({blobs: true})).toEqual([]);
});

test('one that has left and not arrived yet counts among those that a drain has on their way', async () => {
  for (const n of [1, 2, 3, 4, 5]) await dc.container(`c${n}`, `web${n}`, true, of(`c${n}`, `web${n}`, always()));
  const other = await pair({availability: 'draining'});
  let goOn!: () => void;
  const gate = new Promise<void>((resolve) => { goOn = resolve; });
  let both!: () => void;
  const bothThere = new Promise<void>((resolve) => { both = resolve; });
  const task = other.task.bind(other);
  let making = 0;
  other.task = async (order) => {
    if (order.body.kind === 'container.create') {
      making += 1;
      if (making === 2) both();
      await gate;
    }
    return task(order);
  };
  const first = evacuator.look();
  await dc.clock.until(bothThere);
  // Both are the other node's by now.
  expect([(await get('c1')).nodeId, (await get('c2')).nodeId]).toEqual(['node-2', 'node-2']);
  const second = evacuator.look();
  await dc.clock.pass(500);
  expect(dc.agent.tasks.filter(({body}) => body.kind === 'container.stop')).toHaveLength(2);
  goOn();
  await dc.clock.until(Promise.all([first, second]));
  await look();
  await look();
  expect(other.containers.size).toBe(5);
});

test('those that nobody else can take do not stand before the others of a drain', async () => {
  const held = {labels: {'com.docker.swarm.constraints': JSON.stringify([`node==${dc.node.name}`])}};
  for (const n of [1, 2]) await dc.container(`c${n}`, `held${n}`, true, {...of(`c${n}`, `held${n}`, always()), ...held});
  for (const n of [3, 4]) await dc.container(`c${n}`, `free${n}`, true, of(`c${n}`, `free${n}`, always()));
  const other = await pair({availability: 'draining'});
  await look();
  await look();
  expect([...other.containers.keys()].sort()).toEqual(['c3', 'c4']);
  expect(await get('c1')).toMatchObject({nodeId: dc.node.id, status: 'running'});
});

test('a node that is fenced in the middle of its drain holds nothing up', async () => {
  await dc.container('c1', 'web', true, of('c1', 'web', always()));
  await pair({availability: 'draining'});
  dc.doomed.fates.set(dc.doomed.calls + 1, 'before');
  const looking = evacuator.look();
  await dc.clock.pass(10);
  await set(dc.node.id, {liveness: 'fenced'});
  await dc.clock.until(looking);
  for (let n = 0; n < 20 && (await get('c1')).nodeId !== 'node-2'; n += 1) {
    await dc.clock.pass(5_000);
    await look();
  }
  expect(await get('c1')).toMatchObject({nodeId: 'node-2', status: 'running'});
});

test('stopped on its way, it arrives and is not started', async () => {
  await dc.container('c1', 'web', true, of('c1', 'web', always()));
  await pair({liveness: 'fenced'});
  const stored = await dc.store.get<Container>(BUCKETS.containers.name, 'c1');
  await dc.store.put(BUCKETS.containers.name, 'c1', {...stored.value, nodeId: 'node-2', node: 'node-2', status: 'restarting', moving: {from: dc.node.id, since: '', start: true}});
  await dc.clock.until(workflow.run({workflow: 'container.stop', account: ACCOUNT, params: {containerId: 'c1', timeoutSeconds: null, signal: null}, requestId: 'r'}));
  expect(await get('c1')).toMatchObject({status: 'exited', moving: {start: false}});
  await look();
  expect((await get('c1')).moving).toBeUndefined();
  expect((await get('c1')).status).not.toBe('running');
});

test('what was forgotten while its node was fenced is taken away when it is back, and a job that waited for the node ends', async () => {
  await dc.container('c1', 'plain', true, of('c1', 'plain', {spec: dc.draft('c1', 'plain').spec}));
  await dc.container('c2', 'kept', true, of('c2', 'kept', {spec: dc.draft('c2', 'kept').spec}));
  await pair({liveness: 'fenced'});
  await dc.clock.until(workflow.run({workflow: 'container.forget', account: ACCOUNT, params: {containerId: 'c1', from: dc.node.id, removeVolumes: false}, requestId: 'r'}));
  expect(await dc.leaks()).toEqual([]);
  await look();
  expect(dc.agent.containers.size).toBe(2);
  await set(dc.node.id, {liveness: 'alive'});
  await look();
  expect([...dc.agent.containers.keys()]).toEqual(['c2']);
  expect(await dc.all('remains')).toEqual(new Map());
  expect(await get('c2')).toMatchObject({status: 'running'});
});

test('a container that a fenced node was making is nobody\'s: its name is free at once, and the node clears up when it is back', async () => {
  dc.doomed.fates.set(dc.doomed.calls + 1, 'after');
  dc.doomed.fates.set(dc.doomed.calls + 2, 'before');
  dc.doomed.fates.set(dc.doomed.calls + 3, 'before');
  await pair({});
  await set('node-2', {availability: 'cordoned'});
  const making = dc.put('container.provision', dc.provision(dc.draft('c1', 'web'), [])).catch((err: unknown) => err);
  await dc.clock.pass(10);
  await set(dc.node.id, {liveness: 'fenced'});
  await dc.clock.pass(20_000);
  await dc.clock.until(making);
  for (let n = 0; n < 20 && (await dc.all('containers')).size; n += 1) await dc.clock.pass(5_000);
  expect((await dc.all('containers')).size).toBe(0);
  expect([...(await dc.all('remains')).keys()]).toEqual([`${dc.node.id}/c1`]);
  expect([...dc.agent.containers.keys()]).toEqual(['c1']);
  await set(dc.node.id, {liveness: 'alive'});
  await look();
  expect(dc.agent.containers.size).toBe(0);
  expect(await dc.leaks()).toEqual([]);
});

test('a fence is seen within a quarter of a second; a node that has nothing left to move costs a question now and then', async () => {
  await dc.container('c1', 'web', true, of('c1', 'web', always()));
  await pair({});
  evacuator.start();
  try {
    await dc.clock.pass(1_000);
    const find = jest.spyOn(dc.store, 'find');
    const asked = (): number => find.mock.calls.filter(([bucket, filter]) => bucket === BUCKETS.containers.name && filter.includes('nodeId')).length;
    // As the registry has it: another version is another object.
    dc.node = {...dc.node, liveness: 'fenced'};
    await set(dc.node.id, {liveness: 'fenced'});
    await dc.clock.pass(500);
    expect((await get('c1')).nodeId).toBe('node-2');
    await dc.clock.pass(5_000);
    const before = asked();
    await dc.clock.pass(30_000);
    expect(asked() - before).toBeLessThanOrEqual(3);
    expect(asked() - before).toBeGreaterThanOrEqual(1);
  } finally {
    await dc.clock.until(evacuator.stop());
  }
});

test('a container that went elsewhere and was removed there is nobody\'s on its former node, which is told so when it is back', async () => {
  await dc.container('c1', 'web', true, of('c1', 'web', always()));
  await dc.container('c2', 'home', true, of('c2', 'home', always()));
  const other = await pair({liveness: 'fenced'});
  await look();
  expect([...other.containers.keys()].sort()).toEqual(['c1', 'c2']);
  await dc.put('container.destroy', {containerId: 'c1', force: true, removeVolumes: false});
  expect(other.containers.has('c1')).toBe(false);
  expect([...dc.agent.containers.keys()].sort()).toEqual(['c1', 'c2']);
  await set(dc.node.id, {liveness: 'alive'});
  await look();
  expect(dc.agent.containers.size).toBe(0);
  expect(await dc.all('remains')).toEqual(new Map());
  expect([...other.containers.keys()]).toEqual(['c2']);
  expect(await dc.leaks({blobs: true})).toEqual([]);
});

test('of several fenced nodes one container each is begun before the next of any: those of one node wait for each other', async () => {
  const other = {...dc.node, id: 'node-2', name: 'node-2', liveness: 'fenced' as const};
  for (const [node, ids] of [[dc.node.id, ['a1', 'a2', 'a3']], [other.id, ['b1', 'b2']]] as const)
    for (const id of ids) await dc.store.put(BUCKETS.containers.name, id, {...dc.draft(id, id), ...always(), node, nodeId: node, status: 'running', reschedule: true, observation: {...dc.draft(id, id).observation, status: 'running'}});
  Object.assign(dc.node, {liveness: 'fenced'});
  const begun: string[] = [];
  const run = async ({params}: {params: {containerId: string; from: string}}): Promise<{node: string}> => {
    begun.push(`${params.containerId} of ${params.from}`);
    return {node: 'another'};
  };
  const both = createEvacuator({moray: dc.store, workflow: {run} as never, log: silentLog(), clock: dc.clock, nodes: () => [dc.node, other], acts: () => true});
  await dc.clock.until(both.look());
  expect(begun).toHaveLength(5);
  expect(begun.map((each) => each.split(' of ')[1])).toEqual([dc.node.id, other.id, dc.node.id, other.id, dc.node.id]);
  expect(new Set(begun.map((each) => each.slice(0, 2))).size).toBe(5);
});
