/** The verbs on containers: names and ids, read-your-writes, states, waits, --rm. */
import {CetusError} from '../../lib/base/errors';
import type {Caller} from '../../lib/datacenter/verbs';
import {collect, createWorld, failure, until, type World} from './world';

let world: World;
let me: Caller;
beforeEach(async () => {
  world = await createWorld();
  me = world.caller();
  await world.image('default', 'docker.io/library/busybox:latest');
});
afterEach(() => world.stop());
const create = async (name?: string, more: object = {}): Promise<string> => (await world.dc.containers.create(me, name, {Image: 'busybox', Cmd: ['true'], ...more})).id;
const names = async (all = true, filters = {}): Promise<string[]> => (await world.dc.containers.list(me, {all, size: false, filters})).map((c) => c.name);

test('what has been answered is shown', async () => {
  expect(await names()).toEqual([]);
  const id = await create('web');
  expect(await names()).toEqual(['web']);
  expect(await names(false)).toEqual([]);
  await world.dc.containers.start(me, 'web');
  expect(await names(false)).toEqual(['web']);
  await world.dc.containers.rename(me, id, 'shop');
  expect(await names()).toEqual(['shop']);
  await world.dc.containers.stop(me, 'shop', {});
  expect((await world.dc.containers.list(me, {all: true, size: false, filters: {}}))[0]!.status).toBe('exited');
  await world.dc.containers.remove(me, 'shop', {force: false, volumes: false, link: false});
  expect(await names()).toEqual([]);
  expect((await failure(world.dc.containers.get(me, id))).message).toBe(`No such container: ${id}`);
});

test('the feed shows what somebody else did', async () => {
  const id = await create('web');
  expect(await names()).toEqual(['web']);
  const c = await world.stored(id);
  await world.moray.put('containers', id, {...c, name: 'elsewhere', accountName: 'default/elsewhere'});
  await until(async () => (await names())[0] === 'elsewhere', 'the new name is shown');
  await world.moray.delete('containers', id);
  await until(async () => (await names()).length === 0, 'the removed one is gone');
});

test('by id, unique prefix and name', async () => {
  const id = await create('web');
  for (const text of [id, id.slice(0, 12), 'web', '/web']) expect((await world.dc.containers.get(me, text)).id).toBe(id);
  const c = await world.stored(id);
  const twin = id.slice(0, 20) + (id[20] === '0' ? '1' : '0') + id.slice(21);
  await world.moray.put('containers', twin, {...c, id: twin, name: 'twin', accountName: 'default/twin'});
  expect((await failure(world.dc.containers.get(me, id.slice(0, 12)))).message).toBe(`multiple IDs found with provided prefix: ${id.slice(0, 12)}`);
  expect((await failure(world.dc.containers.get(me, 'nope'))).message).toBe('No such container: nope');
  expect((await failure(world.dc.containers.get(me, ''))).kind).toBe('notFound');
});

test('one that is being provisioned has a name and no face', async () => {
  const id = await create('web');
  await world.moray.put('containers', id, {...(await world.stored(id)), provisioning: true});
  await until(async () => (await names()).length === 0, 'it is hidden');
  expect((await failure(world.dc.containers.get(me, 'web'))).kind).toBe('notFound');
  expect((await failure(world.dc.containers.get(me, id))).kind).toBe('notFound');
});

test('the answers of the states', async () => {
  const id = await create('web');
  const {containers} = world.dc;
  expect((await failure(containers.stop(me, 'web', {}))).kind).toBe('notModified');
  expect((await failure(containers.kill(me, 'web', 'KILL'))).message).toBe(`cannot kill container: web: container ${id} is not running`);
  expect((await failure(containers.pause(me, 'web'))).message).toBe(`container ${id} is not running`);
  expect((await failure(containers.unpause(me, 'web'))).message).toBe(`Container ${id} is not paused`);
  expect((await failure(containers.top(me, 'web', ''))).message).toBe(`container ${id} is not running`);
  expect((await failure(world.dc.execs.create(me, 'web', {Cmd: ['sh']}))).message).toBe(`container ${id} is not running`);
  await containers.start(me, 'web');
  expect((await failure(containers.start(me, 'web'))).kind).toBe('notModified');
  expect((await failure(containers.remove(me, 'web', {force: false, volumes: false, link: false}))).message)
    .toBe('cannot remove container "/web": container is running: stop the container before removing or force remove');
  await containers.pause(me, 'web');
  expect((await failure(containers.start(me, 'web'))).message).toBe('cannot start a paused container, try unpause instead');
  expect((await failure(containers.remove(me, 'web', {force: false, volumes: false, link: false}))).message).toBe('cannot remove container "/web": container is paused and must be unpaused first');
  await containers.remove(me, 'web', {force: true, volumes: false, link: false});
});

test('names are checked, taken once, and made up', async () => {
  expect((await failure(create('x y'))).message).toBe('Invalid container name (x y), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed');
  await create('web');
  expect((await failure(create('web'))).message).toMatch(/^Conflict\. The container name "\/web" is already in use by container "[0-9a-f]{64}"/);
  await create();
  expect((await names())[0]).toMatch(/^[a-z]+_[a-z]+$/);
});

test('ps selects', async () => {
  await create('ca', {Labels: {tier: 'web'}});
  await create('cb');
  await create('cc');
  await world.dc.containers.start(me, 'cb');
  await world.dc.containers.start(me, 'cc');
  await world.exit((await world.dc.containers.get(me, 'cc')).id, 3);
  expect(await names(true)).toEqual(['cc', 'cb', 'ca']);
  expect(await names(false, {status: ['exited']})).toEqual(['cc']);
  expect(await names(false, {exited: ['3']})).toEqual(['cc']);
  expect(await names(true, {exited: ['0']})).toEqual([]);
  expect(await names(true, {label: ['tier=web']})).toEqual(['ca']);
  expect(await names(true, {name: ['^/?c[ab]$']})).toEqual(['cb', 'ca']);
  expect(await names(true, {before: ['cb']})).toEqual(['ca']);
  expect(await names(true, {since: ['cb']})).toEqual(['cc']);
  expect(await names(true, {ancestor: ['busybox']})).toHaveLength(3);
  expect(await names(true, {ancestor: ['other']})).toEqual([]);
  // Ports count while a container runs; published is the number on the host.
  expect(await names(true, {expose: ['80/tcp']})).toEqual(['cb']);
  await create('cd', {HostConfig: {PortBindings: {'90/tcp': [{HostPort: '8090'}]}}});
  expect(await names(true, {publish: ['8090']})).toEqual([]);
  await world.dc.containers.start(me, 'cd');
  expect(await names(true, {publish: ['8090']})).toEqual(['cd']);
  expect(await names(true, {publish: ['90']})).toEqual([]);
  expect(await names(true, {publish: ['8090/udp']})).toEqual([]);
  expect(await names(true, {publish: ['8000-8100'], expose: ['80']})).toEqual(['cd', 'cb']);
  await world.dc.containers.remove(me, 'cd', {force: true, volumes: false, link: false});
  expect(await names(true, {volume: ['/image-data']})).toHaveLength(3);
  expect(await names(true, {network: ['bridge']})).toHaveLength(3);
  expect((await world.dc.containers.list(me, {all: false, limit: 1, size: false, filters: {}})).map((c) => c.name)).toEqual(['cc']);
  expect((await failure(names(true, {status: ['nope']}))).message).toBe("invalid filter 'status=nope'");
  expect((await failure(names(true, {nope: ['x']}))).message).toBe("invalid filter 'nope'");
});

describe('wait', () => {
  test('next-exit gets the code', async () => {
    const id = await create('web');
    const {outcome} = await world.dc.containers.wait(me, 'web', 'next-exit');
    await world.dc.containers.start(me, 'web');
    await world.exit(id, 7);
    expect(await outcome).toEqual({exitCode: 7});
  });

  test('not-running answers at once for one that is not', async () => {
    await create('web');
    expect(await (await world.dc.containers.wait(me, 'web', 'not-running')).outcome).toEqual({exitCode: 0});
  });

  test('not-running waits for one that is', async () => {
    const id = await create('web');
    await world.dc.containers.start(me, 'web');
    const {outcome} = await world.dc.containers.wait(me, id, 'not-running');
    await world.exit(id, 1);
    expect(await outcome).toEqual({exitCode: 1});
  });

  test('--rm: removed by itself, and the waiter learns the exit code', async () => {
    const id = await create('web', {HostConfig: {AutoRemove: true}});
    const {outcome} = await world.dc.containers.wait(me, id, 'removed');
    await world.dc.containers.start(me, id);
    await world.exit(id, 42);
    expect(await outcome).toEqual({exitCode: 42});
    expect(await names()).toEqual([]);
  });

  test('--rm that cannot be started is removed', async () => {
    const id = await create('web', {HostConfig: {AutoRemove: true}});
    world.agent.fail({kind: 'container.start', when: 'refuse', times: 99});
    await failure(world.dc.containers.start(me, id));
    expect(await names()).toEqual([]);
  });

  test('a start that fails: who waited hears the code, who comes later is told why too', async () => {
    const id = await create('web', {HostConfig: {PortBindings: {'80/tcp': [{HostPort: '8080'}]}}});
    const other = await create('other', {HostConfig: {PortBindings: {'80/tcp': [{HostPort: '8080'}]}}});
    await world.dc.containers.start(me, other);
    const waiting = await world.dc.containers.wait(me, id, 'removed');
    const {message} = await failure(world.dc.containers.start(me, id));
    expect(message).toMatch(/port is already allocated/);
    expect(await (await world.dc.containers.wait(me, id, 'not-running')).outcome).toEqual({exitCode: 128, error: message});
    await world.dc.containers.remove(me, id, {force: false, volumes: false, link: false});
    expect(await waiting.outcome).toEqual({exitCode: 128});
  });

  test.each(['start', 'restart'] as const)('a %s whose port was ours to choose and is a foreign program\'s has another one', async (verb) => {
    const id = await create('web', {HostConfig: {PortBindings: {'80/tcp': [{HostPort: ''}]}}});
    const port = async (): Promise<number> => (await world.dc.containers.get(me, id)).publishedPorts[0]!.hostPort;
    await world.dc.containers.start(me, id);
    const first = await port();
    if (verb === 'start') await world.dc.containers.stop(me, id, {timeoutSeconds: 0});
    world.agent.fail({kind: 'container.start', when: 'refuse', error: new CetusError('conflict', 'failed to bind port', {info: {port: `tcp/0.0.0.0/${first}`}})});
    await world.dc.containers[verb](me, id, {timeoutSeconds: 0});
    expect((await world.dc.containers.get(me, id)).status).toBe('running');
    expect(await port()).not.toBe(first);
  });

  test('ends when the client goes away', async () => {
    const client = new AbortController();
    await create('web');
    await world.dc.containers.start(me, 'web');
    const {outcome} = await world.dc.containers.wait({...me, signal: client.signal}, 'web', 'next-exit');
    client.abort();
    expect((await failure(outcome)).kind).toBe('canceled');
  });
});

test('exec: created, started, forgotten by whom it does not belong to', async () => {
  await create('web');
  await world.dc.containers.start(me, 'web');
  const {id} = await world.dc.execs.create(me, 'web', {Cmd: ['sh', '-c', 'true'], Tty: true});
  expect(await world.dc.execs.open(me, await world.dc.containers.get(me, 'web'))).toEqual([id]);
  expect(await world.dc.execs.open({...me, account: 'other'}, await world.dc.containers.get(me, 'web'))).toEqual([]);
  expect((await failure(world.dc.execs.create(me, 'web', {Cmd: []}))).message).toBe('No exec command specified');
  const {stream, tty} = await world.dc.execs.start(me, id, {detachKeys: '', consoleSize: null, detach: false});
  expect(tty).toBe(true);
  stream!.destroy();
  expect((await world.dc.execs.get(me, id)).live!.exitCode).toBe(0);
  await world.dc.containers.stop(me, 'web', {timeoutSeconds: 0});
  expect(await world.dc.execs.open(me, await world.dc.containers.get(me, 'web'))).toEqual([]);
  expect((await failure(world.dc.execs.get(me, 'nope'))).message).toBe('No such exec instance: nope');
});

test('update: refused by name, checked, passed on', async () => {
  await create('web', {HostConfig: {Memory: 64 * 2 ** 20}});
  const {containers} = world.dc;
  expect((await failure(containers.update(me, 'web', {Memory: 1000}))).message).toBe('Minimum memory limit allowed is 6MB');
  expect((await failure(containers.update(me, 'web', {CgroupParent: '/x'}))).message).toMatch(/^CgroupParent is not supported/);
  expect((await failure(containers.update(me, 'web', {}, {Name: 'sometimes' as never}))).message).toMatch(/^invalid restart policy: unknown policy 'sometimes'/);
  await containers.update(me, 'web', {Memory: 128 * 2 ** 20, MemorySwap: -1}, {Name: 'always'});
  expect(world.ran.at(-1)).toMatchObject({workflow: 'container.update', params: {resources: {Memory: 128 * 2 ** 20}, restartPolicy: {Name: 'always', MaximumRetryCount: 0}, reservation: {memoryBytes: 128 * 2 ** 20}}});
});

test('prune takes what has ended', async () => {
  await create('ca');
  await create('cb');
  await world.dc.containers.start(me, 'cb');
  const {deleted} = await world.dc.containers.prune(me, {});
  expect(deleted).toHaveLength(1);
  expect(await names()).toEqual(['cb']);
});

test('events of streams reach /events with the container\'s attributes', async () => {
  const id = await create('web', {Labels: {tier: 'web'}});
  await world.dc.containers.start(me, 'web');
  const {stream} = await world.dc.containers.attach(me, 'web', {stdin: false, stdout: true, stderr: true, logs: false, stream: true, detachKeys: ''});
  stream.destroy();
  const nowNs = BigInt(Date.now()) * 1_000_000n;
  const events = await collect(await world.dc.events.stream(me, {sinceNs: 0n, untilNs: nowNs + 50_000_000n, filters: {container: ['web'], event: ['attach']}}));
  expect(events).toMatchObject([{action: 'attach', actorId: id, attributes: {tier: 'web', image: 'busybox', name: 'web'}}]);
});
