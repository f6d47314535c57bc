/** Images, networks, volumes, events, system and operator, over the real chains. */
import {PassThrough} from 'node:stream';
import type {Caller} from '../../lib/datacenter/verbs';
import type {DatacenterEvent, Image} from '../../lib/schema/objects';
import {collect, createWorld, failure, type World} from './world';

let world: World;
let me: Caller;
let busybox: Image;
beforeEach(async () => {
  world = await createWorld();
  me = world.caller();
  busybox = await world.image('default', 'docker.io/library/busybox:latest');
});
afterEach(() => world.stop());
const create = async (name: string, more: object = {}): Promise<string> => (await world.dc.containers.create(me, name, {Image: 'busybox', ...more})).id;

describe('images', () => {
  const references = async (filters = {}): Promise<string[]> => (await world.dc.images.list(me, {all: false, filters})).flatMap((i) => (i.references.length > 0 ? i.references : ['<none>']));

  test('by name, tag, id and prefix', async () => {
    for (const text of ['busybox', 'busybox:latest', 'docker.io/library/busybox', busybox.id, busybox.id.slice(7), busybox.id.slice(7)])
      expect((await world.dc.images.get(me, text)).image.id).toBe(busybox.id);
    expect((await failure(world.dc.images.get(me, 'nope'))).message).toBe('No such image: nope:latest');
    expect((await failure(world.dc.images.get(me, 'busybox:other'))).message).toBe('No such image: busybox:other');
    expect((await failure(world.dc.images.get(me, `busybox@sha256:${'0'.repeat(64)}`))).kind).toBe('notFound');
  });

  test('tag, list, rmi', async () => {
    await world.dc.images.tag(me, 'busybox', 'localhost:5000/me/app', '1.0');
    expect(await references()).toEqual(['docker.io/library/busybox:latest', 'localhost:5000/me/app:1.0']);
    expect(await references({reference: ['busy*']})).toEqual(['docker.io/library/busybox:latest']);
    expect(await references({reference: ['busy*', 'localhost:5000/*/*']})).toHaveLength(2);
    expect(await references({reference: ['nope*']})).toEqual([]);
    expect(await references({dangling: ['true']})).toEqual([]);
    expect((await failure(world.dc.images.tag(me, 'busybox', 'UPPER', 'x'))).message).toMatch(/^invalid reference format/);
    expect((await failure(world.dc.images.tag(me, 'nope', 'x', ''))).message).toBe('No such image: nope:latest');
    expect(await world.dc.images.remove(me, 'busybox', {force: false, noPrune: false})).toEqual([{Untagged: 'busybox:latest'}]);
    expect(await references()).toEqual(['localhost:5000/me/app:1.0']);
    const gone = await world.dc.images.remove(me, 'localhost:5000/me/app:1.0', {force: false, noPrune: false});
    expect(gone).toContainEqual({Deleted: busybox.id});
    expect(await references()).toEqual([]);
  });

  test('of those who tag at the same moment nobody hears of the others', async () => {
    const crowd = await Promise.allSettled(Array.from({length: 30}, () => world.dc.images.tag(me, 'busybox', 'wanted', '')));
    expect(crowd.filter(({status}) => status === 'rejected')).toEqual([]);
    expect((await world.dc.images.get(me, 'wanted')).image.id).toBe(busybox.id);
  });

  test('one that a container uses stays', async () => {
    const id = await create('web');
    expect((await failure(world.dc.images.remove(me, 'busybox', {force: false, noPrune: false}))).message)
      .toMatch(new RegExp(`^conflict: unable to remove repository reference "busybox" \\(must force\\) - container ${id.slice(0, 12)} is using its referenced image ${busybox.id.slice(7, 19)}`));
    expect((await world.dc.images.get(me, 'busybox')).containers).toBe(1);
    expect((await world.dc.images.prune(me, {dangling: ['false']})).deleted).toEqual([]);
  });

  test('pull speaks as the Engine', async () => {
    const found = {imageId: `sha256:${'c'.repeat(64)}`, manifest: {mediaType: 'm', digest: `sha256:${'d'.repeat(64)}`, size: 1}, resolvedDigest: `sha256:${'d'.repeat(64)}`, config: busybox.config, layers: [], size: 1, references: []};
    world.agent.registry.set('docker.io/me/app:1', found);
    const lines = await collect(world.dc.images.pull(me, 'me/app:1', {}, {username: 'u', password: 'secret'}));
    expect(lines[0]!.status).toMatch(/^Pulling from /);
    expect(lines.slice(-2)).toEqual([{status: `Digest: ${found.resolvedDigest}`}, {status: 'Status: Downloaded newer image for me/app:1'}]);
    expect((await collect(world.dc.images.pull(me, 'me/app:1', {}))).at(-1)).toEqual({status: 'Status: Image is up to date for me/app:1'});
    expect((await failure(collect(world.dc.images.pull(me, 'me/missing', {})))).message).toMatch(/manifest unknown/);
    expect((await failure(collect(world.dc.images.pull(me, 'a b', {})))).message).toBe('invalid reference format');
    expect((await failure(collect(world.dc.images.pull(me, 'x', {allTags: true})))).kind).toBe('unsupported');
    const everything = JSON.stringify(await Promise.all(['jobs', 'images', 'events'].map((b) => world.moray.list(b, '(&)'))));
    expect(everything).not.toContain('secret');
  });

  test('load and save', async () => {
    world.agent.load = async function* (archive) {
      archive.resume();
      yield {result: {images: [{imageId: `sha256:${'e'.repeat(64)}`, manifest: {mediaType: 'm', digest: `sha256:${'f'.repeat(64)}`, size: 1}, resolvedDigest: '', config: busybox.config, layers: [], size: 1, references: ['docker.io/library/loaded:1']}]}};
    };
    expect(await collect(world.dc.images.load(me, new PassThrough().end(), {quiet: false}))).toEqual([{stream: 'Loaded image: loaded:1\n'}]);
    (await world.dc.images.save(me, ['loaded:1', 'busybox'])).resume();
    expect((await failure(world.dc.images.save(me, ['nope']))).kind).toBe('notFound');
  });
});

describe('networks', () => {
  const list = async (filters = {}): Promise<string[]> => (await world.dc.networks.list(me, filters)).map((n) => n.name).sort();

  test('three from the beginning, which stay', async () => {
    expect(await list()).toEqual(['bridge', 'host', 'none']);
    expect((await failure(world.dc.networks.remove(me, 'bridge'))).message).toBe('bridge is a pre-defined network and cannot be removed');
    expect((await failure(world.dc.networks.create(me, {Name: 'host'}))).message).toBe('operation is not permitted on predefined host network ');
  });

  test('create, find, refuse, remove', async () => {
    const {id} = await world.dc.networks.create(me, {Name: 'shop', Labels: {a: 'b'}});
    expect((await world.dc.networks.get(me, id.slice(0, 10))).name).toBe('shop');
    expect((await world.dc.networks.get(me, 'shop')).subnet).toMatch(/^(172|192)\./);
    expect(await list({type: ['custom']})).toEqual(['shop']);
    expect(await list({label: ['a=b']})).toEqual(['shop']);
    expect(await list({driver: ['null']})).toEqual(['none']);
    expect(await list({dangling: ['true']})).toEqual(['shop']);
    expect((await failure(world.dc.networks.create(me, {Name: 'shop'}))).message).toBe('network with name shop already exists');
    expect((await failure(world.dc.networks.create(me, {Name: 'xx', Driver: 'overlay'}))).kind).toBe('notFound');
    // The names of a node's interfaces are the node's: who has one is no other account's business.
    const bridge = {Options: {'com.docker.network.bridge.name': 'br7'}};
    const named = await world.dc.networks.create(me, {Name: 'named', ...bridge});
    expect((await world.dc.networks.get(me, 'named')).bridgeName).toBe('br7');
    expect((await failure(world.dc.networks.create(me, {Name: 'xx', ...bridge}))).message).toMatch(new RegExp(`^cannot create network [0-9a-f]{64} \\(br7\\): conflicts with network ${named.id} \\(br7\\): networks have same bridge name$`));
    expect((await failure(world.dc.networks.create(world.caller('jill'), {Name: 'xx', ...bridge}))).message).toMatch(/conflicts with another network: networks have same bridge name$/);
    await world.dc.networks.remove(me, 'named');
    expect((await failure(world.dc.networks.create(me, {Name: 'xx', EnableIPv6: true}))).message).toMatch(/^EnableIPv6 is not supported/);
    const {subnet} = await world.dc.networks.get(me, 'shop');
    expect((await failure(world.dc.networks.create(me, {Name: 'xx', IPAM: {Config: [{Subnet: subnet}]}}))).message).toMatch(/Pool overlaps with other one on this address space/);
    await world.dc.networks.remove(me, 'shop');
    expect((await failure(world.dc.networks.get(me, 'shop'))).message).toBe('network shop not found');
  });

  test('connect and disconnect', async () => {
    await world.dc.networks.create(me, {Name: 'shop'});
    await create('web');
    await world.dc.containers.start(me, 'web');
    await world.dc.networks.connect(me, 'shop', 'web', {Aliases: ['www']});
    const shop = await world.dc.networks.get(me, 'shop');
    expect((await world.dc.networks.containers(me, shop)).map((c) => c.name)).toEqual(['web']);
    expect((await failure(world.dc.networks.remove(me, 'shop'))).message).toMatch(/has active endpoints/);
    await world.dc.networks.disconnect(me, 'shop', 'web', false);
    expect(await world.dc.networks.containers(me, shop)).toEqual([]);
    expect((await failure(world.dc.networks.disconnect(me, 'shop', 'web', false))).message).toMatch(/is not connected to (the )?network shop/);
    expect((await world.dc.networks.prune(me, {})).deleted).toEqual(['shop']);
  });
});

test('volumes: create, list, use, refuse, prune', async () => {
  const {volumes} = world.dc;
  const made = await volumes.create(me, {Name: 'data', Labels: {a: 'b'}});
  expect((await volumes.create(me, {Name: 'data'})).id).toBe(made.id);
  const id = await create('web', {HostConfig: {Binds: ['data:/data']}});
  expect((await volumes.list(me, {dangling: ['true']})).volumes.map((v) => v.name)).toEqual([]);
  expect((await volumes.list(me, {name: ['dat']})).volumes.map((v) => v.name)).toEqual(['data']);
  expect((await failure(volumes.remove(me, 'data', false))).message).toBe(`remove data: volume is in use - [${id}]`);
  expect((await failure(volumes.get(me, 'nope'))).message).toBe('get nope: no such volume');
  expect((await failure(volumes.create(me, {Name: 'xx', Driver: 'nfs'}))).kind).toBe('notFound');
  expect((await failure(volumes.create(me, {Name: 'xx', DriverOpts: {type: 'none', o: 'bind', device: '/etc'}}))).kind).toBe('forbidden');
  await world.dc.containers.remove(me, 'web', {force: false, volumes: false, link: false});
  expect((await volumes.prune(me, {})).deleted).toHaveLength(1);
  expect((await volumes.list(me, {})).volumes.map((v) => v.name)).toEqual(['data']);
  expect((await volumes.prune(me, {all: ['true']})).deleted).toEqual(['data']);
  await volumes.remove(me, 'gone', true);
});

describe('events', () => {
  test('from the past into the present with no gap and no duplicate', async () => {
    const id = await create('web');
    const client = new AbortController();
    const stream = await world.dc.events.stream({...me, signal: client.signal}, {sinceNs: 0n, filters: {type: ['container']}});
    await world.dc.containers.start(me, 'web');
    for (let i = 0; i < 20; i += 1) world.dc.events.emit(me, {type: 'container', action: `exec_create: ${i}`, actorId: id, attributes: {}});
    const seen: DatacenterEvent[] = [];
    for await (const event of stream) {
      seen.push(event);
      if (event.action === 'exec_create: 19') break;
    }
    client.abort();
    const actions = seen.map((e) => e.action);
    expect(actions.filter((a) => a.startsWith('exec_create'))).toEqual(Array.from({length: 20}, (_, i) => `exec_create: ${i}`));
    expect(actions.filter((a) => a === 'create')).toHaveLength(1);
    expect(actions.filter((a) => a === 'start')).toHaveLength(1);
  });

  test('ends at until, also one in the future', async () => {
    await create('web');
    const untilNs = BigInt(Date.now() + 100) * 1_000_000n;
    const events = await collect(await world.dc.events.stream(me, {sinceNs: 0n, untilNs, filters: {event: ['create'], image: ['busybox']}}));
    expect(events).toHaveLength(1);
    expect((await failure(world.dc.events.stream(me, {sinceNs: 2n, untilNs: 1n, filters: {}}))).kind).toBe('invalid');
    expect((await failure(world.dc.events.stream(me, {filters: {nope: ['x']}}))).message).toBe("invalid filter 'nope'");
  });
});

test('what operators ask', async () => {
  const id = await create('web');
  const {operator} = world.dc;
  expect((await operator.container('web')).id).toBe(id);
  expect((await operator.container('default/web')).id).toBe(id);
  expect((await operator.container(id.slice(0, 8))).id).toBe(id);
  expect((await operator.containers({node: 'node-1', status: 'created'})).map((c) => c.id)).toEqual([id]);
  const why = await operator.why('web');
  expect(why.container!.placement!.node).toBe('node-1');
  expect(why.job!.workflow).toBe('container.provision');
  expect((await operator.job(why.job!.id.slice(0, 8))).id).toBe(why.job!.id);
  await failure(world.dc.containers.create(me, 'toobig', {Image: 'busybox', HostConfig: {Memory: 2 ** 50}}));
  const refused = await operator.why('toobig');
  expect(refused.container).toBeNull();
  expect(refused.job!.error!.kind).toBe('noSpace');
  expect((await operator.node('node-1')).containers).toBe(1);
  expect((await operator.buckets()).find((b) => b.name === 'containers')!.objects).toBe(1);
  expect(await operator.objects('containers', '(name=web)', {})).toHaveLength(1);
  expect((await failure(operator.objects('nope', '', {}))).kind).toBe('notFound');
  expect((await failure(operator.container('nope'))).message).toBe('No such container: nope');
});

test('info and disk usage', async () => {
  await create('web');
  await world.dc.containers.start(me, 'web');
  expect(await world.dc.system.info(me)).toMatchObject({id: 'test-id', name: 'test', containers: {running: 1, total: 1}, images: 1, totalCpus: 4});
  const usage = await world.dc.system.diskUsage(me);
  expect(usage.containers).toHaveLength(1);
  expect(usage.volumes).toMatchObject([{refCount: 1, size: 0}]);
  await world.dc.system.ping();
});

test('a prune is told once it is over, also where there was nothing', async () => {
  const {dc} = world;
  await dc.containers.prune(me, {});
  await dc.images.prune(me, {});
  await dc.networks.prune(me, {});
  await dc.volumes.prune(me, {});
  const told: unknown[] = [];
  for await (const {type, action, actorId, attributes} of await dc.events.stream(me, {sinceNs: 0n, untilNs: BigInt(Date.now() + 1) * 1_000_000n, filters: {event: ['prune']}})) told.push([type, action, actorId, attributes]);
  expect(told).toEqual(['container', 'image', 'network', 'volume'].map((type) => [type, 'prune', '', {reclaimed: '0'}]));
});
