/** Images, networks, volumes, events, system and operator, over the real chains. */
import {PassThrough, Readable} from 'node:stream';
import {systemClock} from '../../lib/base/clock';
import {systemIds} from '../../lib/base/ids';
import {silentLog} from '../../lib/base/log';
import {EventLog, eventWrite} from '../../lib/datacenter/events';
import type {Caller} from '../../lib/datacenter/verbs';
import {and, eq} from '../../lib/moray/filter';
import {createMemoryMoray} from '../../lib/moray/memory';
import {BUCKETS} from '../../lib/schema/buckets';
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

  test('every tag of a repository, one after the other', async () => {
    for (const [i, tag] of ['1', '2'].entries()) world.agent.registry.set(`docker.io/me/app:${tag}`, {
      imageId: `sha256:${String(i).repeat(64)}`, manifest: {mediaType: 'm', digest: `sha256:${'d'.repeat(63)}${i}`, size: 1}, resolvedDigest: `sha256:${'d'.repeat(63)}${i}`, config: busybox.config, layers: [], size: 1, references: [],
    });
    world.agent.ask = (question) => (question.kind === 'tags' && question.reference === 'docker.io/me/app:latest' ? {tags: ['1', '2']} : {tags: []});
    const said = (await collect(world.dc.images.pull(me, 'me/app', {allTags: true}))).map((l) => l.status);
    expect(said.filter((l) => /^Status/.test(l!))).toEqual(['Status: Downloaded newer image for me/app']);
    expect(said.filter((l) => /^Digest/.test(l!))).toHaveLength(2);
    expect(await references({reference: ['me/app']})).toEqual(['docker.io/me/app:1', 'docker.io/me/app:2']);
    expect((await failure(collect(world.dc.images.pull(me, 'me/none', {allTags: true})))).message).toBe('no tags of me/none in its registry');
  });

  describe('made from others', () => {
    const commit = (container: string, repository: string, comment: string): Promise<{imageId: string}> => world.dc.images.commit(me, container, {repository, tag: '', author: '', comment, pause: true, changes: ['LABEL a=b']});
    let base: string;
    let middle: string;
    let top: string;
    beforeEach(async () => {
      await create('one');
      ({imageId: middle} = await commit('one', '', 'first'));
      await create('two', {Image: middle});
      ({imageId: top} = await commit('two', 'made', 'second'));
      base = busybox.id;
      for (const name of ['one', 'two']) await world.dc.containers.remove(me, name, {force: true, volumes: false, link: false});
    });

    test('know what they were made from', async () => {
      expect((await world.dc.images.history(me, 'made')).ancestors.map((i) => i.id)).toEqual([middle, base]);
      const ids = async (all: boolean): Promise<string[]> => (await world.dc.images.list(me, {all, filters: {}})).map((i) => i.image.id);
      expect((await ids(true)).sort()).toEqual([base, middle, top].sort());
      expect((await ids(false)).sort()).toEqual([base, top].sort());
    });

    test('take the nameless ones along that nobody else needs, unless told not to', async () => {
      expect((await failure(world.dc.images.remove(me, middle, {force: true, noPrune: false}))).message).toBe(`conflict: unable to delete ${middle.slice(7, 19)} (cannot be forced) - image has dependent child images`);
      expect(await world.dc.images.remove(me, 'made', {force: false, noPrune: true})).toEqual([{Untagged: 'made:latest'}, {Deleted: top}]);
      await create('again', {Image: middle});
      await commit('again', 'made', 'third');
      await world.dc.containers.remove(me, 'again', {force: true, volumes: false, link: false});
      const gone = await world.dc.images.remove(me, 'made', {force: false, noPrune: false});
      expect(gone.slice(2)).toEqual([{Deleted: middle}]);
      expect((await world.dc.images.get(me, 'busybox')).image.id).toBe(base);
    });

    test('prune takes chains of them', async () => {
      await world.dc.images.remove(me, 'made', {force: false, noPrune: true});
      expect((await world.dc.images.prune(me, {})).deleted).toEqual([{Deleted: middle}]);
    });

    test('are asked for by platform', async () => {
      const amd = {os: 'linux', architecture: 'amd64'};
      expect((await world.dc.images.get(me, 'made', {platform: amd})).image.id).toBe(top);
      const arm = {os: 'linux', architecture: 'arm64', variant: 'v8'};
      const words = 'image with reference made was found but its platform (linux/amd64) does not match the specified platform (linux/arm64/v8)';
      for (const call of [world.dc.images.get(me, 'made', {platform: arm}), world.dc.images.history(me, 'made', {platform: arm}), world.dc.images.save(me, ['made'], {platform: arm}), world.dc.images.remove(me, 'made', {force: false, noPrune: false, platforms: [arm]})])
        expect(await failure(call)).toMatchObject({kind: 'notFound', message: words});
    });

    test('are pushed, and known by their digests afterwards', async () => {
      await world.dc.images.tag(me, 'made', 'r.example/a/made', '1');
      await world.dc.images.tag(me, 'made', 'r.example/a/made', '2');
      const said = await collect(world.dc.images.push(me, 'r.example/a/made', '', {}));
      expect(said[0]).toEqual({status: 'The push refers to repository [r.example/a/made]'});
      expect(world.agent.pushed.map((p) => p.reference)).toEqual(['r.example/a/made:1', 'r.example/a/made:2']);
      const {repoDigests} = (await world.dc.images.get(me, 'made')).image;
      expect(repoDigests).toEqual([expect.stringMatching(/^r\.example\/a\/made@sha256:[0-9a-f]{64}$/)]);
      const digest = repoDigests[0]!.split('@')[1];
      expect(said.filter((l) => l.aux).map((l) => l.aux)).toEqual([{Tag: '1', Digest: digest, Size: 500}, {Tag: '2', Digest: digest, Size: 500}]);
      expect((await failure(collect(world.dc.images.push(me, 'r.example/a/made:3', '', {})))).message).toBe('tag does not exist: r.example/a/made:3');
      // Another account has neither the name nor what it went to.
      expect((await failure(collect(world.dc.images.push(world.caller('jack'), 'r.example/a/made', '1', {})))).message).toBe('An image does not exist locally with the tag: r.example/a/made');
    });
  });

  test('imports, with what they are to say', async () => {
    const said = await collect(world.dc.images.import(me, Readable.from(['tar']), {repository: 'imported', tag: '2', message: '', changes: ['CMD x']}));
    const {image} = await world.dc.images.get(me, 'imported:2');
    expect(said).toEqual([{status: image.id}]);
    expect(image.config).toMatchObject({config: {Cmd: ['/bin/sh', '-c', 'x']}, history: [{comment: 'Imported from -'}]});
    const secret = 'http://jill:s3cret@x/y.tar';
    await collect(world.dc.images.import(me, secret, {repository: '', tag: '', message: 'from afar', changes: []}));
    expect(JSON.stringify(await Promise.all(['jobs', 'images', 'events'].map((b) => world.moray.list(b, '(&)'))))).not.toContain('s3cret');
    expect((await failure(collect(world.dc.images.import(me, '-', {repository: 'x', tag: '', message: '', changes: ['RUN x']})))).message).toBe('run is not a valid change command');
  });

  test('search takes and refuses what the Engine does', async () => {
    world.agent.ask = (question) => ({results: question.kind === 'search' ? [{name: `${question.term} ${question.limit}`, description: '', isOfficial: true, stars: 3}, {name: 'other', description: '', isOfficial: false, stars: 9}] : []});
    const search = async (filters = {}, limit?: number): Promise<string[]> => (await world.dc.images.search(me, 'x', {filters, ...(limit === undefined ? {} : {limit})})).map((r) => r.name);
    expect(await search()).toEqual(['x 25', 'other']);
    expect(await search({'is-official': ['true']}, 3)).toEqual(['x 3']);
    expect(await search({stars: ['2', '5']})).toEqual(['other']);
    expect(await search({'is-automated': ['true']})).toEqual([]);
    for (const [filters, limit, message] of [[{}, 101, 'limit 101 is outside the range of [1, 100]'], [{}, -1, 'limit -1 is outside the range of [1, 100]'], [{foo: ['1']}, 1, 'invalid filter \'foo\''], [{stars: ['q']}, 1, 'invalid filter \'stars=q\'']] as const)
      expect((await failure(search(filters, limit))).message).toBe(message);
  });

  test('what images share is counted once they are asked for it', async () => {
    const layer = (diffId: string, unpackedSize: number) => ({digest: diffId, mediaType: '', size: 1, diffId, unpackedSize});
    await world.image('default', 'docker.io/library/a:1', {layers: [layer('x', 10), layer('a', 1)], size: 11});
    await world.image('default', 'docker.io/library/b:1', {layers: [layer('x', 10), layer('b', 2)], size: 12});
    await world.image('default', 'docker.io/library/c:1', {layers: [layer('b', 2), layer('x', 10)], size: 12});
    const shared = async (sharedSize: boolean) => (await world.dc.images.list(me, {all: true, filters: {reference: ['?']}, sharedSize})).sort((p, q) => (p.references[0]! < q.references[0]! ? -1 : 1)).map((i) => i.sharedSize);
    expect(await shared(true)).toEqual([10, 10, 0]);
    expect(await shared(false)).toEqual([undefined, undefined, undefined]);
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
    const everything = JSON.stringify(await Promise.all(['jobs', 'images', 'events'].map((b) => world.moray.list(b, '(&)'))));
    expect(everything).not.toContain('secret');
  });

  test('a pull of what somebody else is pulling says that it waits', async () => {
    const found = {imageId: `sha256:${'a'.repeat(64)}`, manifest: {mediaType: 'm', digest: `sha256:${'d'.repeat(64)}`, size: 1}, resolvedDigest: `sha256:${'d'.repeat(64)}`, config: busybox.config, layers: [], size: 1, references: []};
    world.agent.registry.set('docker.io/me/app:2', found);
    // Other credentials share no job.
    const [first, second] = await Promise.all(['one', 'two'].map((password) => collect(world.dc.images.pull(me, 'me/app:2', {}, {username: 'u', password}))));
    expect(first!.map(({status}) => status)).not.toContain('Waiting for another pull of this image');
    expect(second!.slice(0, 2)).toEqual([{status: 'Pulling from me/app', id: '2'}, {status: 'Waiting for another pull of this image', id: '2'}]);
    expect(second!.at(-1)).toEqual({status: 'Status: Image is up to date for me/app:2'});
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

  test('none is left and joined like any other, and stands alone', async () => {
    const {networks, containers} = world.dc;
    const ALONE = 'container cannot be connected to multiple networks with one of the networks in private (none) mode';
    await networks.create(me, {Name: 'shop'});
    const id = await create('alone', {HostConfig: {NetworkMode: 'none'}});
    const on = async (): Promise<[string[], string[]]> => [Object.keys((await world.stored(id)).networks), (await world.stored(id)).attachments.map((a) => a.networkName)];
    await containers.start(me, 'alone');
    expect((await failure(networks.connect(me, 'shop', 'alone', {}))).message).toBe(ALONE);
    expect((await failure(networks.connect(me, 'none', 'alone', {}))).message).toBe('endpoint with name alone already exists in network none');
    await networks.disconnect(me, 'none', 'alone', false);
    expect((await failure(networks.disconnect(me, 'none', 'alone', false))).message).toMatch(/^container \w+ is not connected to network none$/);
    await networks.connect(me, 'shop', 'alone', {});
    expect(await on()).toEqual([['shop'], ['shop']]);
    expect((await failure(networks.connect(me, 'none', 'alone', {}))).message).toBe(ALONE);
    await containers.restart(me, 'alone', {timeoutSeconds: 0});
    expect(await on()).toEqual([['shop'], ['shop']]);
    await networks.disconnect(me, 'shop', 'alone', false);
    await networks.connect(me, 'none', 'alone', {});
    expect(await on()).toEqual([['none'], []]);
  });

  test('what does not run is connected twice without a word, keeps what it had, and is told of when it starts', async () => {
    const {networks, containers} = world.dc;
    await networks.create(me, {Name: 'shop'});
    const id = await create('web');
    const told = async (): Promise<number> => (await world.moray.list<DatacenterEvent>('events', and(eq('type', 'network'), eq('action', 'connect')))).filter(({value}) => value.attributes['name'] === 'shop').length;
    await networks.connect(me, 'shop', 'web', {Aliases: ['first']});
    await networks.connect(me, 'shop', 'web', {Aliases: ['second']});
    expect((await world.stored(id)).networks['shop']!.settings).toEqual({Aliases: ['first']});
    expect(await told()).toBe(0);
    await containers.start(me, 'web');
    expect(await told()).toBe(1);
    expect((await failure(networks.connect(me, 'shop', 'web', {}))).kind).toBe('forbidden');
  });

  test('the host\'s network and those of others cannot be plugged', async () => {
    const {networks, containers} = world.dc;
    const [SHARED, HOST] = ['container sharing network namespace with another container or host cannot be connected to any other network', 'container cannot be disconnected from host network or connected to host network'];
    await create('web');
    await create('ofhost', {HostConfig: {NetworkMode: 'host'}});
    await create('joined', {HostConfig: {NetworkMode: 'container:web'}});
    for (const [network, container, message] of [
      ['host', 'web', HOST], ['bridge', 'ofhost', SHARED], ['none', 'ofhost', SHARED], ['bridge', 'joined', SHARED], ['host', 'joined', SHARED],
    ] as const) expect([network, container, (await failure(networks.connect(me, network, container, {}))).message]).toEqual([network, container, message]);
    // As anything that does not run and has it already.
    await networks.connect(me, 'host', 'ofhost', {});
    await containers.start(me, 'ofhost');
    expect((await failure(networks.connect(me, 'host', 'ofhost', {}))).message).toBe('endpoint with name ofhost already exists in network host');
    expect((await failure(networks.disconnect(me, 'host', 'ofhost', false))).message).toBe(HOST);
    for (const network of ['host', 'none']) expect((await failure(networks.disconnect(me, network, 'web', false))).message).toMatch(new RegExp(`is not connected to (the )?network ${network}$`));
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

  test('a reader that stood still for longer than changes are kept is told so, never given a gap', async () => {
    let now = Date.now();
    const moray = createMemoryMoray({clock: {...systemClock, now: () => now}});
    await moray.open({...BUCKETS.events, tombstoneRetentionMs: 1000});
    const told = async (action: string): Promise<void> => void await moray.batch([eventWrite(systemClock, systemIds, {account: 'default', type: 'container', action, actorId: 'c', attributes: {}})]);
    const log = new EventLog(moray, systemClock, systemIds, silentLog());
    const stream = (await log.stream({...me, signal: new AbortController().signal}, {filters: {}}))[Symbol.asyncIterator]();
    await told('create');
    expect((await stream.next()).value).toMatchObject({action: 'create'});
    await told('start');
    now += 5000;
    await told('die');
    expect((await failure(Promise.resolve(stream.next()))).kind).toBe('stale');
    await moray.close();
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
  await dc.builds.prune(me, new URLSearchParams());
  const told: unknown[] = [];
  for await (const {type, action, actorId, attributes} of await dc.events.stream(me, {sinceNs: 0n, untilNs: BigInt(Date.now() + 1) * 1_000_000n, filters: {event: ['prune']}})) told.push([type, action, actorId, attributes]);
  expect(told).toEqual(['container', 'image', 'network', 'volume', 'builder'].map((type) => [type, 'prune', '', {reclaimed: '0'}]));
});
