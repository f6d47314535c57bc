/** Accounts are walls: whatever one account does or asks, by whatever name, id or prefix, nothing of another shows or changes. */
import fc from 'fast-check';
import {CetusError} from '../../lib/base/errors';
import type {Caller} from '../../lib/datacenter/verbs';
import {collect, createWorld, type World} from './world';
import {until} from '../harness/wait';

interface Theirs { texts: string[]; execs: string[] }
type Verb = (world: World, me: Caller, text: string) => Promise<unknown>;
const filtersOf = (text: string): Record<string, string[]>[] => ['name', 'id', 'label', 'volume', 'network'].map((f) => ({[f]: [text]}));

/** Each verb that takes a name or shows a list. */
const verbs: Record<string, Verb> = {
  'container get': ({dc}, me, x) => dc.containers.get(me, x),
  'container start': ({dc}, me, x) => dc.containers.start(me, x),
  'container stop': ({dc}, me, x) => dc.containers.stop(me, x, {}),
  'container restart': ({dc}, me, x) => dc.containers.restart(me, x, {}),
  'container kill': ({dc}, me, x) => dc.containers.kill(me, x, 'KILL'),
  'container pause': ({dc}, me, x) => dc.containers.pause(me, x),
  'container rename': ({dc}, me, x) => dc.containers.rename(me, x, 'stolen'),
  'container update': ({dc}, me, x) => dc.containers.update(me, x, {Memory: 2 ** 27}),
  'container remove': ({dc}, me, x) => dc.containers.remove(me, x, {force: true, volumes: true, link: false}),
  'container wait': ({dc}, me, x) => dc.containers.wait(me, x, 'not-running'),
  'container attach': ({dc}, me, x) => dc.containers.attach(me, x, {stdin: false, stdout: true, stderr: true, logs: true, stream: false, detachKeys: ''}),
  'container logs': ({dc}, me, x) => dc.containers.logs(me, x, {stdout: true, stderr: true, follow: false, timestamps: false, details: false, sinceNs: '', untilNs: '', tail: -1}),
  'container top': ({dc}, me, x) => dc.containers.top(me, x, ''),
  'container stats': ({dc}, me, x) => dc.containers.stats(me, x, {stream: false, oneShot: true}),
  'container resize': ({dc}, me, x) => dc.containers.resize(me, x, 1, 1),
  'container changes': ({dc}, me, x) => dc.containers.changes(me, x),
  'container export': ({dc}, me, x) => dc.containers.export(me, x),
  'container stat': ({dc}, me, x) => dc.containers.statPath(me, x, '/'),
  'container get archive': ({dc}, me, x) => dc.containers.getArchive(me, x, '/'),
  'container share network': ({dc}, me, x) => dc.containers.create(me, undefined, {Image: 'mine', HostConfig: {NetworkMode: `container:${x}`}}),
  'container share volumes': ({dc}, me, x) => dc.containers.create(me, undefined, {Image: 'mine', HostConfig: {VolumesFrom: [x]}}),
  'container join network': ({dc}, me, x) => dc.containers.create(me, undefined, {Image: 'mine', HostConfig: {NetworkMode: x}}),
  'container of image': ({dc}, me, x) => dc.containers.create(me, undefined, {Image: x}),
  'exec create': ({dc}, me, x) => dc.execs.create(me, x, {Cmd: ['sh']}),
  'exec get': ({dc}, me, x) => dc.execs.get(me, x),
  'exec start': ({dc}, me, x) => dc.execs.start(me, x, {detachKeys: '', consoleSize: null, detach: true}),
  'exec resize': ({dc}, me, x) => dc.execs.resize(me, x, 1, 1),
  'image get': ({dc}, me, x) => dc.images.get(me, x),
  'image tag': ({dc}, me, x) => dc.images.tag(me, x, 'stolen', ''),
  'image remove': ({dc}, me, x) => dc.images.remove(me, x, {force: true, noPrune: false}),
  'image save': ({dc}, me, x) => dc.images.save(me, [x]),
  'image history': ({dc}, me, x) => dc.images.history(me, x),
  'image push': ({dc}, me, x) => collect(dc.images.push(me, x, '', {})),
  'image commit': ({dc}, me, x) => dc.images.commit(me, x, {repository: '', tag: '', author: '', comment: '', pause: false, changes: []}),
  'network get': ({dc}, me, x) => dc.networks.get(me, x),
  'network remove': ({dc}, me, x) => dc.networks.remove(me, x),
  'network connect': ({dc}, me, x) => dc.networks.connect(me, x, 'my-own', {}),
  'network connect theirs': ({dc}, me, x) => dc.networks.connect(me, 'my-net', x, {}),
  'network disconnect': ({dc}, me, x) => dc.networks.disconnect(me, x, 'my-own', true),
  'volume get': ({dc}, me, x) => dc.volumes.get(me, x),
  'volume remove': ({dc}, me, x) => dc.volumes.remove(me, x, false),
};
const lists: Record<string, (world: World, me: Caller, text: string) => Promise<unknown[]>> = {
  'ps': ({dc}, me, x) => Promise.all([...filtersOf(x), {}].map((filters) => dc.containers.list(me, {all: true, size: false, filters}))),
  'ps ancestor': ({dc}, me, x) => dc.containers.list(me, {all: true, size: false, filters: {ancestor: [x]}}),
  'images': ({dc}, me) => dc.images.list(me, {all: true, filters: {}}),
  'networks': ({dc}, me) => dc.networks.list(me, {}),
  'volumes': async ({dc}, me) => (await dc.volumes.list(me, {})).volumes,
  'events': async ({dc}, me) => collect(await dc.events.stream(me, {sinceNs: 0n, untilNs: BigInt(Date.now()) * 1_000_000n, filters: {}})),
  'usage': async ({dc}, me) => [await dc.system.diskUsage(me)],
  'info': async ({dc}, me) => [{...(await dc.system.info(me)), nodes: []}],
  'prune': async ({dc}, me) => [await dc.containers.prune(me, {label: ['none']}), await dc.images.prune(me, {dangling: ['false'], label: ['none']}), await dc.networks.prune(me, {label: ['none']}), await dc.volumes.prune(me, {all: ['true'], label: ['none']})],
};

let world: World;
let theirs: Theirs;
const me: Caller = {account: 'mine', requestId: 'r'};
const owned = async (): Promise<string> => JSON.stringify(await Promise.all(['containers', 'images', 'image_refs', 'networks', 'volumes', 'execs', 'events'].map((b) => world.moray.list(b, '(account=theirs)'))));

beforeAll(async () => {
  world = await createWorld();
  const them: Caller = {account: 'theirs', requestId: 'r'};
  const image = await world.image('theirs', 'docker.io/library/secret-image:latest');
  await world.image('mine', 'docker.io/library/mine:latest');
  const {dc} = world;
  await dc.networks.create(them, {Name: 'secret-net'});
  await dc.volumes.create(them, {Name: 'secret-vol'});
  const {id} = await dc.containers.create(them, 'secret-box', {Image: 'secret-image', Labels: {'secret-label': ''}, HostConfig: {NetworkMode: 'secret-net', Binds: ['secret-vol:/data']}});
  await dc.containers.start(them, id);
  const exec = await dc.execs.create(them, id, {Cmd: ['sh']});
  // Events that change no state are written behind the answer.
  await until('the event of the exec', async () => (await owned()).includes('exec_create'));
  const network = await dc.networks.get(them, 'secret-net');
  const bridge = await dc.networks.get(them, 'bridge');
  await dc.networks.create(me, {Name: 'my-net'});
  await dc.containers.create(me, 'my-own', {Image: 'mine'});
  theirs = {
    texts: ['secret-box', id, id.slice(0, 12), id.slice(0, 4), 'secret-image', image.id, image.id.slice(7, 30), 'secret-net', network.id, network.id.slice(0, 8), bridge.id, 'secret-vol', 'secret-label', 'theirs/secret-box', '../theirs/secret-box'],
    execs: [exec.id],
  };
});
afterAll(() => world.stop());

test('no verb finds, shows or changes what is theirs', async () => {
  const before = await owned();
  await fc.assert(fc.asyncProperty(fc.constantFrom(...Object.keys(verbs)), fc.nat(), async (verb, n) => {
    const all = [...theirs.texts, ...theirs.execs];
    const text = all[n % all.length]!;
    const answer = await verbs[verb]!(world, me, text).then(() => undefined, (err: unknown) => err);
    expect(answer).toBeInstanceOf(CetusError);
    expect(['notFound', 'invalid', 'forbidden']).toContain((answer as CetusError).kind);
    // The refusal tells nothing but what was asked.
    expect((answer as CetusError).message.split(text).join('')).not.toMatch(/secret|theirs/);
  }), {numRuns: 400});
  expect(await owned()).toBe(before);
});

test.each(Object.keys(lists))('%s shows nothing of theirs', async (name) => {
  const before = await owned();
  for (const text of theirs.texts) expect(JSON.stringify(await lists[name]!(world, me, text))).not.toMatch(/secret|theirs/);
  expect(await owned()).toBe(before);
});

test('every verb is looked at', () => {
  const unbound = ['create', 'list', 'linkNames', 'prune', 'size', 'unpause', 'putArchive', 'pull', 'load', 'import', 'login', 'search', 'inspectRemote', 'containers', 'stream', 'emit', 'info', 'diskUsage', 'ping'];
  const {containers, execs, images, networks, volumes} = world.dc;
  const count = [containers, execs, images, networks, volumes].flatMap((noun) => Object.keys(noun)).filter((name) => !unbound.includes(name)).length;
  expect(Object.keys(verbs).length).toBeGreaterThanOrEqual(count);
});
