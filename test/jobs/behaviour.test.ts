/** What single chains promise beyond what the generic test asks of all: refusals in the Engine's words, races, capacity, the reconciler. */
import {Readable} from 'node:stream';
import {CetusError} from '../../lib/base/errors';
import {silentLog} from '../../lib/base/log';
import {createReconciler} from '../../lib/jobs/reconciler';
import type {ChainName, ChainParams} from '../../lib/schema/chains';
import type {Container, Reservation} from '../../lib/schema/container';
import type {NodeReservations} from '../../lib/schema/node';
import type {DatacenterEvent, Network, Volume} from '../../lib/schema/objects';
import type {RunningWorkflow} from '../../lib/workflow/workflow';
import {ACCOUNT, Datacenter, IMAGE_ID, REFERENCE} from './world';

const open = (prompt = false): Promise<Datacenter> => new Datacenter(prompt).open();
const other = {networks: {front: {networkId: 'net1', settings: {}}}, requestedPorts: []};

function start<N extends ChainName>(_dc: Datacenter, workflow: RunningWorkflow, name: N, params: ChainParams<N>): Promise<unknown> {
  return workflow.run({workflow: name, account: ACCOUNT, params, requestId: 'r'});
}
async function container(dc: Datacenter, id: string): Promise<Container> {
  return (await dc.store.get<Container>('containers', id)).value;
}

describe('create', () => {
  it('refuses a taken name in the Engine\'s words, and leaves nothing', async () => {
    const dc = await open();
    await dc.container('c1', 'web', false);
    await expect(dc.put('container.provision', dc.provision(dc.draft('c2', 'web')))).rejects.toMatchObject({
      kind: 'conflict',
      message: 'Conflict. The container name "/web" is already in use by container "c1". You have to remove (or rename) that container to be able to reuse that name.',
    });
    expect(await dc.leaks()).toEqual([]);
  });

  it('never reserves more than a node has, however many ask at once, and says what would have fitted', async () => {
    const dc = await open();
    // 4 CPUs: four fit. Two processes, so that the gate of one cannot help.
    const [a, b] = [dc.runner(), dc.runner()];
    const results = await dc.clock.until(Promise.allSettled(Array.from({length: 10}, (_, n) =>
      start(dc, n % 2 ? a : b, 'container.provision', dc.provision(dc.draft(`c${n}`, `web${n}`))))));
    expect(results.filter((r) => r.status === 'fulfilled')).toHaveLength(4);
    for (const r of results) if (r.status === 'rejected') expect(r.reason).toMatchObject({kind: 'noSpace'});
    expect(await dc.leaks()).toEqual([]);
  });

  it('uses an existing volume of the name and goes where it is', async () => {
    const dc = await open();
    await dc.put('volume.create', {volume: dc.volume('v0', 'data')});
    await dc.container('c1', 'web', false, {volumeIds: ['v1']}, [dc.volume('v1', 'data')]);
    expect(await container(dc, 'c1')).toMatchObject({volumeIds: ['v0'], spec: {mounts: [{volumeId: 'v0'}]}});
    expect([...(await dc.all('volumes')).keys()]).toEqual(['v0']);
  });
});

describe('start', () => {
  it('gives addresses and ports and takes them back when the process ends', async () => {
    const dc = await open();
    await dc.container('c1', 'web', true);
    expect(await container(dc, 'c1')).toMatchObject({
      status: 'running', attachments: [{address: '172.17.0.2', mac: '02:42:ac:11:00:02', gateway: '172.17.0.1', isDefaultRoute: true, aliases: ['web', 'c1']}],
      publishedPorts: [{hostPort: 8080, containerPort: 80}],
    });
    dc.agent.exit('c1', 3);
    await dc.settle();
    expect(await container(dc, 'c1')).toMatchObject({status: 'exited', attachments: [], publishedPorts: []});
    expect(await dc.leaks()).toEqual([]);
  });

  it('one of two on two nodes gets a port, the other\'s address a wildcard or the same, however their steps fall between each other', async () => {
    const outcomes = new Set<string>();
    for (let turns = 0; turns < 48; turns += 1) {
      const dc = await open();
      await dc.second({});
      // Each with a network of its own: on one they would meet at its addresses.
      await dc.put('network.create', {network: dc.network('net2', 'back')});
      const at = (hostIp: string) => ({requestedPorts: [{protocol: 'tcp' as const, containerPort: 80, hostIp, hostPort: 8080}]});
      await dc.container('c1', 'one', false, at(''));
      await dc.container('c2', 'two', false, {...at('192.0.2.7'), networks: {back: {networkId: 'net2', settings: {}}}});
      // Some have been at the number before: the mark stands already.
      if (turns % 4 === 3) await dc.put('container.start', {containerId: 'c2'}).then(() => dc.put('container.stop', {containerId: 'c2', timeoutSeconds: 0, signal: null}));
      const order = turns % 2 ? ['c1', 'c2'] : ['c2', 'c1'];
      const first = start(dc, dc.runner(), 'container.start', {containerId: order[0]!});
      for (let n = 0; n < turns; n += 1) await Promise.resolve();
      const results = await dc.clock.until(Promise.allSettled([first, start(dc, dc.runner(), 'container.start', {containerId: order[1]!})]));
      expect(results.map(({status}) => status).sort()).toEqual(['fulfilled', 'rejected']);
      for (const result of results) if (result.status === 'rejected') expect(result.reason).toMatchObject({kind: 'conflict', message: expect.stringContaining(':8080 failed: port is already allocated') as string});
      outcomes.add(order[results.findIndex(({status}) => status === 'fulfilled')]!);
      await dc.settle();
      expect(await dc.leaks()).toEqual([]);
    }
    expect([...outcomes].sort()).toEqual(['c1', 'c2']);
  });

  it('refuses a taken port in the Engine\'s words', async () => {
    const dc = await open();
    await dc.container('c1', 'web', true);
    await expect(dc.container('c2', 'two', true)).rejects.toThrow(/^driver failed programming external connectivity on endpoint two \([0-9a-f]{64}\): Bind for 0\.0\.0\.0:8080 failed: port is already allocated$/);
    expect(await container(dc, 'c2')).toMatchObject({status: 'created', observation: {exitCode: 128, error: expect.stringContaining('port is already allocated') as string}, attachments: [], publishedPorts: []});
    expect(await dc.leaks()).toEqual([]);
    await dc.put('container.destroy', {containerId: 'c1', force: true, removeVolumes: false});
    await dc.put('container.start', {containerId: 'c2'});
    expect(await container(dc, 'c2')).toMatchObject({status: 'running', observation: {exitCode: 0, error: ''}});
  });

  it('that is refused its port after a stop keeps the code of that exit, and says why it did not start', async () => {
    const dc = await open();
    await dc.container('c1', 'web', true);
    dc.agent.exit('c1', 3);
    await dc.settle();
    await dc.container('c2', 'two', true);
    await expect(dc.put('container.restart', {containerId: 'c1', timeoutSeconds: 0, signal: null})).rejects.toThrow('port is already allocated');
    expect(await container(dc, 'c1')).toMatchObject({status: 'exited', observation: {exitCode: 3, error: expect.stringContaining('port is already allocated') as string}, attachments: []});
    expect(await dc.leaks()).toEqual([]);
  });

  it('of a command that is missing leaves exit code and message, and no address', async () => {
    const dc = await open();
    await dc.container('c1', 'web', false);
    const message = 'failed to create task for container: exec: "nope": executable file not found in $PATH: unknown';
    const node = dc.agent.containers.get('c1')!;
    const failed = {...node.observation, generation: 2, exitCode: 127, error: message};
    const original = dc.agent.task.bind(dc.agent);
    dc.agent.task = async (task) => {
      if (task.body.kind !== 'container.start') return original(task);
      node.observation = failed;
      throw new CetusError('invalid', message, {info: {observation: failed}});
    };
    await expect(dc.put('container.start', {containerId: 'c1'})).rejects.toMatchObject({kind: 'invalid', message});
    expect(await container(dc, 'c1')).toMatchObject({status: 'created', observation: {exitCode: 127, error: message}, attachments: []});
    expect(await dc.leaks()).toEqual([]);
  });

  it('of many at once gives each its own address, from two processes too', async () => {
    const dc = await open();
    const small = {...dc.network('net9', 'tiny'), subnet: '10.9.0.0/28'};
    await dc.put('network.create', {network: small});
    const more = {...other, networks: {tiny: {networkId: 'net9', settings: {}}}, reservation: {memoryBytes: 1, nanoCpus: 0, diskBytes: 0, pids: 0}};
    for (let n = 0; n < 14; n += 1) await dc.container(`c${n}`, `web${n}`, false, more);
    const [a, b] = [dc.runner(), dc.runner()];
    const results = await dc.clock.until(Promise.allSettled(Array.from({length: 14}, (_, n) => start(dc, n % 2 ? a : b, 'container.start', {containerId: `c${n}`}))));
    await dc.settle();
    expect(results.filter((r) => r.status === 'fulfilled')).toHaveLength(13);
    expect(results.find((r) => r.status === 'rejected')).toMatchObject({reason: {message: 'no available IPv4 addresses on this network\'s address pools: tiny (net9)'}});
    const addresses = [...(await dc.all<Container>('containers')).values()].flatMap((c) => c.attachments.map((x) => x.address));
    expect(new Set(addresses).size).toBe(13);
    expect(await dc.leaks()).toEqual([]);
  });

  it('of a running one is notModified', async () => {
    const dc = await open();
    await dc.container('c1', 'web', true);
    await expect(dc.put('container.start', {containerId: 'c1'})).rejects.toMatchObject({kind: 'notModified'});
  });
});

describe('update to limits that the node cannot have', () => {
  it.each([
    [{NanoCpus: 5e9}, 'range of CPUs is from 0.01 to 4.00, as there are only 4 CPUs available'],
    [{CpusetCpus: '77'}, 'Requested CPUs are not available - requested 77, available: 0-3'],
    [{CpusetMems: '9'}, 'Requested memory nodes are not available - requested 9, available: 0'],
  ])('%j is refused, and nothing changes', async (resources, message) => {
    const dc = await open();
    await dc.container('c1', 'web', true);
    const before = (await dc.all<Container>('containers')).get('c1');
    await expect(dc.put('container.update', {containerId: 'c1', resources, restartPolicy: null, reservation: null})).rejects.toMatchObject({kind: 'invalid', message});
    expect((await dc.all<Container>('containers')).get('c1')).toEqual(before);
    await dc.put('container.update', {containerId: 'c1', resources: {NanoCpus: 4e9, CpusetCpus: '0-3', CpusetMems: '0'}, restartPolicy: null, reservation: null});
  });
});

describe('a reservation', () => {
  const nothing = {memoryBytes: 0, nanoCpus: 0, diskBytes: 0, pids: 0};
  const something = {...nothing, memoryBytes: 2 ** 20};
  const rowOf = async (dc: Datacenter): Promise<NodeReservations | undefined> => [...(await dc.all<NodeReservations>('reservations')).values()][0];

  it('that asks for nothing is nowhere written, from create to removal', async () => {
    const dc = await open();
    await dc.container('c1', 'web', false, {...other, reservation: nothing});
    expect(await rowOf(dc)).toBeUndefined();
    const update = (reservation: Reservation) => dc.put('container.update', {containerId: 'c1', resources: {}, restartPolicy: null, reservation});
    await update(something);
    expect(await rowOf(dc)).toMatchObject({total: something, containers: {c1: something}});
    await update(nothing);
    expect(await rowOf(dc)).toMatchObject({total: nothing, containers: {}});
    await dc.put('container.destroy', {containerId: 'c1', force: true, removeVolumes: true});
    expect(await dc.leaks()).toEqual([]);
  });

  it('of zero in an older row goes with the next writing', async () => {
    const dc = await open();
    await dc.container('c1', 'web', false, {...other, reservation: something});
    const row = (await rowOf(dc))!;
    await dc.store.put('reservations', row.nodeId, {...row, containers: {...row.containers, old: nothing}});
    await dc.container('c2', 'db', false, {...other, reservation: something});
    expect(Object.keys((await rowOf(dc))!.containers).sort()).toEqual(['c1', 'c2']);
  });
});

describe('restart', () => {
  it('keeps the address', async () => {
    const dc = await open();
    await dc.container('c0', 'first', true, other);
    await dc.container('c1', 'web', true);
    await dc.put('container.stop', {containerId: 'c0', timeoutSeconds: null, signal: null});
    await dc.clock.pass(5000);
    await dc.put('container.restart', {containerId: 'c1', timeoutSeconds: 0, signal: null});
    expect((await container(dc, 'c1')).attachments[0]!.address).toBe('172.17.0.3');
    expect(await dc.leaks()).toEqual([]);
  });
});

describe('kill', () => {
  it('gets through while a stop waits', async () => {
    const dc = await open();
    await dc.container('c1', 'web', true);
    const original = dc.agent.task.bind(dc.agent);
    dc.agent.task = async (task) => {
      if (task.body.kind === 'container.stop') await dc.clock.sleep(20_000);
      return original(task);
    };
    const workflow = dc.runner();
    const stopping = start(dc, workflow, 'container.stop', {containerId: 'c1', timeoutSeconds: 20, signal: null});
    await dc.clock.pass(100);
    const beganMs = dc.clock.now();
    await dc.clock.until(start(dc, workflow, 'container.kill', {containerId: 'c1', signal: 'SIGKILL'}));
    expect(dc.clock.now() - beganMs).toBeLessThan(1000);
    await dc.clock.until(stopping);
    await dc.settle();
    expect(await dc.leaks()).toEqual([]);
  });

  it('refuses what does not run', async () => {
    const dc = await open();
    await dc.container('c1', 'web', false);
    await expect(dc.put('container.kill', {containerId: 'c1', signal: 'SIGKILL'})).rejects.toThrow('cannot kill container: c1: container c1 is not running');
  });
});

describe('remove', () => {
  it('refuses a running container in the Engine\'s words', async () => {
    const dc = await open();
    await dc.container('c1', 'web', true);
    await expect(dc.put('container.destroy', {containerId: 'c1', force: false, removeVolumes: false}))
      .rejects.toThrow('cannot remove container "/web": container is running: stop the container before removing or force remove');
  });

  it('of a volume refuses while a container uses it, also one that comes at this very moment', async () => {
    const dc = await open();
    await dc.put('volume.create', {volume: dc.volume('v1', 'data')});
    const [a, b] = [dc.runner(), dc.runner()];
    const results = await dc.clock.until(Promise.allSettled([
      start(dc, a, 'container.provision', dc.provision(dc.draft('c1', 'web', {volumeIds: ['v1']}))), start(dc, b, 'volume.remove', {volumeId: 'v1', force: false}),
    ]));
    expect(results.filter((r) => r.status === 'fulfilled')).toHaveLength(1);
    expect(await dc.leaks()).toEqual([]);
    if (results[0]!.status === 'fulfilled') await expect(dc.put('volume.remove', {volumeId: 'v1', force: false})).rejects.toThrow('remove data: volume is in use - [c1]');
  });

  it('of an image never leaves a container without it', async () => {
    const dc = await open();
    const [a, b] = [dc.runner(), dc.runner()];
    const results = await dc.clock.until(Promise.allSettled([
      start(dc, a, 'image.remove', {account: ACCOUNT, imageId: IMAGE_ID, reference: REFERENCE, shown: 'busybox', force: false, noPrune: false}),
      start(dc, b, 'container.provision', dc.provision(dc.draft('c1', 'web'))),
    ]));
    const [image, containers] = [await dc.store.peek('images', `${ACCOUNT}/${IMAGE_ID}`), await dc.all('containers')];
    expect(results.filter((r) => r.status === 'fulfilled')).toHaveLength(1);
    expect(image === undefined).toBe(containers.size === 0);
    expect(await dc.leaks()).toEqual([]);
  });

  it('of a network refuses while something runs on it', async () => {
    const dc = await open();
    await dc.container('c1', 'web', true);
    await expect(dc.put('network.remove', {networkId: 'net1', account: ACCOUNT})).rejects.toThrow(/^error while removing network: network front has active endpoints \(name:"web" id:"[0-9a-f]{12}"\)$/);
    expect((await dc.store.get<Network>('networks', 'net1')).value.removing).toBeUndefined();
  });
});

describe('networks and volumes', () => {
  it('of many created at once never overlap, and a name is given once', async () => {
    const dc = await open();
    const [a, b] = [dc.runner(), dc.runner()];
    const results = await dc.clock.until(Promise.allSettled(Array.from({length: 12}, (_, n) =>
      start(dc, n % 2 ? a : b, 'network.create', {network: dc.network(`m${n}`, n < 2 ? 'same' : `name${n}`)}))));
    expect(results.filter((r) => r.status === 'fulfilled')).toHaveLength(11);
    expect(results.find((r) => r.status === 'rejected')).toMatchObject({reason: {kind: 'conflict', message: 'network with name same already exists'}});
    const subnets = [...(await dc.all<Network>('networks')).values()].map((n) => n.subnet);
    expect(new Set(subnets).size).toBe(subnets.length);
    expect(await dc.leaks()).toEqual([]);
  });

  it('a volume that exists is the answer', async () => {
    const dc = await open();
    const first = (await dc.put('volume.create', {volume: dc.volume('v1', 'data')})) as Volume;
    expect(first).toMatchObject({id: 'v1', nodeId: 'node-1', mountpoint: '/fake/volumes/v1/_data'});
    expect(await dc.put('volume.create', {volume: dc.volume('v2', 'data')})).toEqual(first);
  });
});

describe('credentials', () => {
  it('of a pull reach no stored object', async () => {
    const dc = await open();
    await dc.put('image.pull', {account: ACCOUNT, reference: 'docker.io/library/pulled:latest'}, {auth: {username: 'u', password: 'hunter2'}});
    await expect(dc.put('image.pull', {account: ACCOUNT, reference: 'docker.io/library/absent:latest'}, {auth: {password: 'hunter2'}})).rejects.toMatchObject({kind: 'notFound'});
    expect(JSON.stringify(await dc.jobs())).not.toContain('hunter2');
  });
});

describe('the reconciler', () => {
  it('starts what a rebooted node wants back, with an address that is nobody else\'s', async () => {
    const dc = await open(true);
    const workflow = dc.runner();
    const reconciler = createReconciler({moray: dc.store, workflow, log: silentLog(), clock: dc.clock});
    await reconciler.start();
    const get = async (id: string): Promise<Container> => (await dc.store.get<Container>('containers', id)).value;
    await dc.container('c1', 'first', true, other);
    const had = (await get('c1')).attachments[0]!.address;
    await start(dc, workflow, 'container.stop', {containerId: 'c1', timeoutSeconds: 0, signal: null});
    // Somebody else has its address by now.
    await dc.container('c2', 'second', false, {...other, networks: {front: {networkId: 'net1', settings: {IPAMConfig: {IPv4Address: had}}}}});
    await start(dc, workflow, 'container.start', {containerId: 'c2'});
    dc.agent.comeback('c1');
    await dc.clock.pass(5000);
    expect(await get('c1')).toMatchObject({status: 'running', attachments: [{networkId: 'net1'}]});
    expect((await get('c1')).attachments[0]!.address).not.toBe(had);
    expect((await get('c2')).attachments[0]!.address).toBe(had);
    expect([...(await dc.all('addresses')).keys()].sort()).toEqual([...(await Promise.all(['c1', 'c2'].map(async (id) => `net1/${(await get(id)).attachments[0]!.address}`)))].sort());
    await dc.clock.until(reconciler.stop());
    expect(await dc.leaks()).toEqual([]);
  });

  it('removes what has ended and was to be removed, and what never could start, and nothing else', async () => {
    const dc = await open(true);
    const workflow = dc.runner();
    const reconciler = createReconciler({moray: dc.store, workflow, log: silentLog(), clock: dc.clock});
    await reconciler.start();
    await dc.container('c1', 'gone', true, {autoRemove: true, ...other});
    await dc.container('c2', 'kept', true, other);
    await dc.container('c3', 'waiting', false, {autoRemove: true, ...other});
    dc.agent.exit('c1', 0);
    dc.agent.exit('c2', 0);
    await dc.clock.pass(1000);
    expect([...(await dc.all('containers')).keys()]).toEqual(['c2', 'c3']);
    await dc.clock.until(reconciler.stop());
    expect(await dc.leaks()).toEqual([]);
  });

  it('gives back leases whose container is gone, but not at first sight', async () => {
    const dc = await open();
    const reconciler = createReconciler({moray: dc.store, workflow: dc.runner(), log: silentLog(), clock: dc.clock});
    await dc.store.put('addresses', 'net1/172.17.0.9', {networkId: 'net1', address: '172.17.0.9', account: ACCOUNT, containerId: 'nobody', endpointId: 'e', mac: 'm'});
    await reconciler.sweep();
    expect((await dc.all('addresses')).size).toBe(1);
    await reconciler.sweep();
    expect((await dc.all('addresses')).size).toBe(0);
  });

  it('tells of a loaded image by its id', async () => {
    const dc = await open();
    await dc.put('image.load', {account: ACCOUNT, loadId: '11111111-1111-4111-8111-111111111111'}, {archive: Readable.from(['tar'])});
    const loaded = [...(await dc.all<DatacenterEvent>('events')).values()].filter((e) => e.action === 'load');
    expect(loaded).toMatchObject([{actorId: `sha256:${'3'.repeat(64)}`, attributes: {name: `sha256:${'3'.repeat(64)}`}}]);
  });

  it('finishes a removal that was left', async () => {
    const dc = await open();
    await dc.container('c1', 'web', false);
    await dc.store.update('containers', '(name=web)', {status: 'removing'});
    await dc.clock.until(createReconciler({moray: dc.store, workflow: dc.runner(), log: silentLog(), clock: dc.clock}).sweep());
    expect((await dc.all('containers')).size).toBe(0);
    expect(await dc.leaks()).toEqual([]);
  });
});
