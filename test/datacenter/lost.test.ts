/** Containers of a node that is not heard of: shown as lost, refused at once, forgotten where it is fenced, and what they were when it is back. */
import {containerInspect} from '../../lib/docker/views/container-inspect';
import {containerListEntry} from '../../lib/docker/views/container-list';
import {BUCKETS} from '../../lib/schema/buckets';
import type {Container} from '../../lib/schema/container';
import type {Remains} from '../../lib/schema/node';
import type {AddressLease, Volume} from '../../lib/schema/objects';
import {createWorld, failure, until, type World} from './world';

let world: World;
beforeEach(async () => {
  world = await createWorld();
  await world.image('default', 'docker.io/library/busybox:latest');
});
afterEach(() => world.stop());

const made = async (name: string, body: object = {}, start = true): Promise<string> => {
  const {id} = await world.dc.containers.create(world.caller(), name, {Image: 'busybox', Cmd: ['sleep', '1000'], ...body});
  if (start) await world.dc.containers.start(world.caller(), name);
  return id;
};
const state = async (name: string): Promise<Record<string, unknown>> =>
  (containerInspect(await world.dc.containers.get(world.caller(), name), {execIds: [], namesAmongAliases: false, mountpointOf: () => ''}) as {State: Record<string, unknown>}).State;
const listed = async (query: {all?: boolean; filters?: Record<string, string[]>} = {}): Promise<string[]> =>
  (await world.dc.containers.list(world.caller(), {all: false, size: false, filters: {}, ...query})).map((c) => {
    const {State, Status} = containerListEntry(c, Date.now()) as {State: string; Status: string};
    return `${c.name}: ${State}, ${Status}`;
  }).sort();
const marked = async (id: string): Promise<void> => {
  const {value, etag} = await world.moray.get<Container>(BUCKETS.containers.name, id);
  await world.moray.put(BUCKETS.containers.name, id, {...value, reschedule: true}, {etag});
};

test('what ran is shown as lost, what goes elsewhere as on its way, what did not run as it was; all of it is over when the node is back', async () => {
  await made('plain');
  await made('idle', {}, false);
  await marked(await made('web', {HostConfig: {RestartPolicy: {Name: 'always'}}}));
  const before = await listed({all: true});
  expect(await state('plain')).toMatchObject({Status: 'running', Running: true, Error: ''});
  await world.becomes('suspect');
  expect(await listed({all: true})).toEqual(before);
  await world.becomes('lost');
  expect(await listed()).toEqual(['plain: dead, Lost (node node-1 is lost)', 'web: restarting, Restarting elsewhere (node node-1 is lost)']);
  expect(await listed({all: true})).toContain('idle: created, Created (node node-1 is lost)');
  expect(await listed({filters: {status: ['running']}})).toEqual([]);
  expect(await listed({filters: {status: ['dead']}})).toEqual(['plain: dead, Lost (node node-1 is lost)']);
  expect(await state('plain')).toMatchObject({Status: 'dead', Running: false, Dead: true, Pid: 0, Error: 'node node-1 is lost since 2026-01-01T00:00:00Z: no heartbeat for 50 s; last known: running'});
  await world.becomes('fenced');
  expect(await listed()).toContain('plain: dead, Lost (node node-1 is fenced)');
  expect((await world.dc.operator.why('plain')).container!.lost).toMatchObject({was: 'running', goesElsewhere: false, stays: 'its restart policy is no, not always or unless-stopped'});
  expect((await world.dc.operator.why('web')).container!.lost).toMatchObject({goesElsewhere: true});
  await world.becomes('alive');
  expect(await listed({all: true})).toEqual(before);
});

test('whatever asks the node is answered at once, with its name and what is the matter', async () => {
  await made('plain');
  await made('idle', {}, false);
  const {id: exec} = await world.dc.execs.create(world.caller(), 'plain', {Cmd: ['true']});
  const {containers: c, execs} = world.dc;
  const caller = world.caller();
  for (const liveness of ['suspect', 'lost', 'fenced'] as const) {
    await world.becomes(liveness);
    const ran = world.ran.length;
    const asked: Record<string, Promise<unknown>> = {
      stop: c.stop(caller, 'plain', {}), start: c.start(caller, 'idle'), restart: c.restart(caller, 'plain', {}), kill: c.kill(caller, 'plain', ''), pause: c.pause(caller, 'plain'),
      rename: c.rename(caller, 'plain', 'other'), update: c.update(caller, 'plain', {Memory: 2 ** 26, MemorySwap: 2 ** 27}),
      logs: c.logs(caller, 'plain', {stdout: true, stderr: true, follow: false, tail: -1, timestamps: false, details: false, sinceNs: '', untilNs: ''}),
      attach: c.attach(caller, 'plain', {stdin: false, stdout: true, stderr: true, logs: false, stream: true, detachKeys: ''}), top: c.top(caller, 'plain', '-ef'),
      stats: c.stats(caller, 'plain', {stream: false, oneShot: true}), diff: c.changes(caller, 'plain'), cp: c.getArchive(caller, 'plain', '/etc'),
      exec: execs.create(caller, 'plain', {Cmd: ['true']}), 'exec start': execs.start(caller, exec, {detachKeys: '', consoleSize: null, detach: true}),
      commit: world.dc.images.commit(caller, 'plain', {repository: '', tag: '', author: '', comment: '', pause: true, changes: []}),
    };
    for (const [verb, work] of Object.entries(asked)) {
      const err = await failure(work);
      expect([verb, err.kind, err.shown]).toEqual([verb, 'unavailable', expect.stringMatching(new RegExp(`^container (plain|idle) is on node node-1, which is ${liveness}: no heartbeat for 50 s$`))]);
    }
    // Not by a job that failed, which would hold the container until the node is back.
    expect(world.ran.length).toBe(ran);
  }
  expect((await failure(execs.get(caller, exec))).shown).toMatch(/is on node node-1, which is fenced/);
  expect(await c.size(caller, await c.get(caller, 'plain'))).toMatchObject({sizeRw: 0});
  await world.becomes('alive');
  await c.stop(caller, 'plain', {});
});

test('a wait ends with the node, unless the container is started elsewhere; one that comes too late is refused', async () => {
  await made('plain');
  await marked(await made('web', {HostConfig: {RestartPolicy: {Name: 'always'}}}));
  const wait = await world.dc.containers.wait(world.caller(), 'plain', 'not-running');
  const longer = await world.dc.containers.wait(world.caller(), 'web', 'next-exit');
  let over = false;
  void longer.outcome.then(() => { over = true; }, () => { over = true; });
  await world.becomes('suspect');
  await world.becomes('lost');
  expect((await failure(wait.outcome)).shown).toBe('container plain is on node node-1, which is lost: no heartbeat for 50 s; whether it still runs is not known');
  await world.becomes('fenced');
  expect((await failure(world.dc.containers.wait(world.caller(), 'plain', 'not-running'))).kind).toBe('unavailable');
  expect(over).toBe(false);
  await world.becomes('alive');
  await world.dc.containers.kill(world.caller(), 'web', '');
  await longer.outcome;
});

test('removed while its node is fenced: name, addresses, volumes are free, and what the node has of it is noted; before that it says why not yet', async () => {
  const id = await made('plain', {Volumes: {'/anon': {}}});
  const idle = await made('idle', {}, false);
  for (const liveness of ['suspect', 'lost'] as const) {
    await world.becomes(liveness);
    for (const force of [true, false]) for (const name of ['plain', 'idle']) {
      const err = await failure(world.dc.containers.remove(world.caller(), name, {force, volumes: false, link: false}));
      expect([err.kind, err.shown]).toEqual(['unavailable', `cannot remove container "/${name}": it is on node node-1, which is ${liveness}: no heartbeat for 50 s; it can be removed when the node is back, or once it is fenced`]);
    }
    expect((await world.dc.containers.prune(world.caller(), {})).deleted).toEqual([]);
  }
  await world.becomes('fenced');
  await world.dc.containers.remove(world.caller(), 'plain', {force: false, volumes: true, link: false});
  expect(await listed({all: true})).toEqual(['idle: created, Created (node node-1 is fenced)']);
  expect((await world.dc.containers.prune(world.caller(), {})).deleted).toEqual([idle]);
  expect(await world.moray.list<AddressLease>(BUCKETS.addresses.name, `(containerId=${id})`)).toEqual([]);
  // The pruned one's stays, as ever.
  expect(await world.moray.list<Volume>(BUCKETS.volumes.name, '(account=default)')).toHaveLength(1);
  const remains = await world.moray.list<Remains>(BUCKETS.remains.name, '(nodeId=node-1)');
  expect(remains.map(({key, value}) => [key, value.volumeIds.length]).sort()).toEqual([[`node-1/${id}`, 2], [`node-1/${idle}`, 0]].sort());
  expect(world.agent.containers.size).toBe(2);
});

test('prune takes nothing that may run', async () => {
  await made('plain');
  await world.becomes('fenced');
  expect((await world.dc.containers.prune(world.caller(), {})).deleted).toEqual([]);
  await until(async () => (await listed()).length === 1, 'still listed');
});
