/** HostConfig.Links over the real chains: what is kept, what a start refuses, what ps and rm --link make of it. */
import type {Caller} from '../../lib/datacenter/verbs';
import {createWorld, failure, type World} from './world';

let world: World;
let me: Caller;
beforeEach(async () => {
  world = await createWorld();
  me = world.caller();
  await world.image('default', 'docker.io/library/busybox:latest');
});
afterEach(() => world.stop());
const create = async (name: string, more: object = {}): Promise<string> => (await world.dc.containers.create(me, name, {Image: 'busybox', ...more})).id;

test('a link is kept by id, shown by ps and taken away by rm --link', async () => {
  const db = await create('db');
  const web = await create('web', {HostConfig: {Links: ['db:data', '/db:/other/same']}});
  const {links} = await world.dc.containers.get(me, web);
  expect(links).toEqual([{containerId: db, name: 'db', alias: 'data'}, {containerId: db, name: 'db', alias: 'same'}]);
  expect(await world.dc.containers.linkNames(me)).toEqual(new Map([[db, ['/web/data', '/web/same']]]));
  const remove = (name: string): Promise<void> => world.dc.containers.remove(me, name, {force: false, volumes: false, link: true});
  await remove('/web/data');
  expect((await world.dc.containers.get(me, web)).links).toEqual([{containerId: db, name: 'db', alias: 'same'}]);
  expect(await failure(remove('web/data'))).toMatchObject({kind: 'notFound', message: 'No such container: web/data'});
  expect(await failure(remove('nope/data'))).toMatchObject({kind: 'notFound', message: 'No such container: nope/data'});
  expect((await failure(remove('web'))).message).toBe('Conflict, cannot remove the default link name of the container');
});

test('a start needs the other to run, and shows it when it does not; a link to one that is gone is none', async () => {
  const db = await create('db');
  const web = await create('web', {HostConfig: {Links: ['db:data']}});
  expect((await failure(world.dc.containers.start(me, web))).message).toBe('Cannot link to a non running container: /db AS /web/data');
  expect((await world.dc.containers.get(me, web)).observation).toMatchObject({exitCode: 128, error: 'Cannot link to a non running container: /db AS /web/data'});
  await world.dc.containers.start(me, db);
  await world.dc.containers.start(me, web);
  await world.dc.containers.stop(me, web, {timeoutSeconds: 0});
  await world.dc.containers.remove(me, db, {force: true, volumes: false, link: false});
  await world.dc.containers.start(me, web);
});
