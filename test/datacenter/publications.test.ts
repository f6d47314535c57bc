/** Published ports as an endpoint is told of them: what was there, what changes, and nothing stale after a feed that broke. */
import type {Publication} from '../../lib/datacenter/verbs';
import {BUCKETS} from '../../lib/schema/buckets';
import type {IngressRow, PortLease} from '../../lib/schema/objects';
import {until} from '../harness/wait';
import {createWorld, type World} from './world';

let world: World;
const stop = new AbortController();
beforeAll(async () => { world = await createWorld(); });
afterAll(async () => {
  stop.abort();
  await world.stop();
});
const PORTS = BUCKETS.ports.name;
const lease = (hostPort: number, more: Partial<PortLease> = {}): PortLease => ({nodeId: 'node-1', protocol: 'tcp', hostIp: '', hostPort, account: 'a', containerId: 'c1', containerPort: 80, ...more});

test('what is held is given, then every change; a lease of an earlier version too', async () => {
  await world.moray.put(PORTS, 'tcp/0.0.0.0/1', lease(1));
  const {containerPort: _none, ...older} = lease(2);
  await world.moray.put(PORTS, 'node-1/tcp/0.0.0.0/2', older);
  const seen = new Map<string, Publication>();
  await world.dc.publications.follow({put: (key, publication) => void seen.set(key, publication), drop: (key) => void seen.delete(key)}, stop.signal);
  expect([...seen.keys()].sort()).toEqual(['node-1/tcp/0.0.0.0/2', 'tcp/0.0.0.0/1']);
  expect(seen.get('tcp/0.0.0.0/1')).toEqual({protocol: 'tcp', hostIp: '', hostPort: 1, account: 'a', containerId: 'c1', containerPort: 80, nodeId: 'node-1', atEndpoints: false});
  await world.moray.batch([{op: 'delete', bucket: PORTS, key: 'tcp/0.0.0.0/1'}, {op: 'put', bucket: PORTS, key: 'tcp/0.0.0.0/1', value: lease(1, {nodeId: 'node-2', proxyProtocol: 'v2', atEndpoints: true}), etag: null}]);
  await until('the move to be seen', () => seen.get('tcp/0.0.0.0/1')?.nodeId === 'node-2');
  expect(seen.get('tcp/0.0.0.0/1')).toMatchObject({proxyProtocol: 'v2', atEndpoints: true});
  await world.moray.delete(PORTS, 'tcp/0.0.0.0/1');
  await until('its end to be seen', () => !seen.has('tcp/0.0.0.0/1'));
});

test('a start makes the row and an exit takes it; its label is in it', async () => {
  const me = world.caller();
  await world.image('default', 'docker.io/library/busybox:latest');
  const {id} = await world.dc.containers.create(me, 'web', {Image: 'busybox', Labels: {'cetus.ingress.proxy-protocol': 'v1'}, HostConfig: {PortBindings: {'80/tcp': [{HostPort: '8080'}]}}});
  await world.dc.containers.start(me, id);
  expect((await world.moray.get<PortLease>(PORTS, 'tcp/0.0.0.0/8080')).value).toMatchObject({containerId: id, nodeId: 'node-1', containerPort: 80, proxyProtocol: 'v1', atEndpoints: true});
  const started = world.agent.tasks.find((t) => t.body.kind === 'container.start')!;
  expect(started.body).toMatchObject({ports: []});
  await world.exit(id, 0);
  expect(await world.moray.peek(PORTS, 'tcp/0.0.0.0/8080')).toBeUndefined();
  await expect(world.dc.containers.create(me, 'bad', {Image: 'busybox', Labels: {'cetus.ingress.proxy-protocol': 'yes'}, HostConfig: {PortBindings: {'80/tcp': []}}})).rejects.toMatchObject({kind: 'invalid', message: expect.stringContaining('cetus.ingress.proxy-protocol=yes') as string});
});

test('what endpoints say of themselves is the operator\'s to see, until they take it back', async () => {
  const row = (endpoint: string): IngressRow => ({endpoint, addresses: ['10.0.0.1'], duty: 'serving', open: 1, refused: []});
  await world.dc.publications.announce('b', row('b'));
  await world.dc.publications.announce('a', row('a'));
  expect((await world.dc.operator.ingresses()).map((r) => r.endpoint)).toEqual(['a', 'b']);
  await world.dc.publications.announce('b', undefined);
  expect((await world.dc.operator.ingresses()).map((r) => r.endpoint)).toEqual(['a']);
});
