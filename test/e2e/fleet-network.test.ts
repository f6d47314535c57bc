/** Networks over two nodes, with the stock client and two endpoints: a pair as compose makes it, and what happens to it. */
import {busyboxArchive} from '../harness/busybox';
import {NOTHING_LEFT} from '../harness/cetus';
import {startFleet, type TestFleet} from '../harness/fleet';
import {until} from '../harness/wait';

let fleet: TestFleet;
let empty: Record<string, number>[];

beforeAll(async () => {
  fleet = await startFleet({nodes: 2, endpoints: 2});
  await fleet.ok(['load', '-i', await busyboxArchive()]);
  empty = await fleet.allMarks();
}, 240_000);
afterAll(async () => {
  expect(await fleet?.destroy()).toEqual(NOTHING_LEFT);
}, 240_000);

/** Through that endpoint, on that node: says its name to whoever asks by HTTP. */
const serve = (endpoint: number, node: number, name: string, ...more: string[]): Promise<string> => fleet.at(endpoint).ok([
  'run', '-d', '--name', name, '-e', `constraint:node==node-${node}`, '-l', 'com.docker.compose.project=shop', ...more, 'busybox', 'sh', '-c', `mkdir /www; echo ${name} > /www/index.html; exec httpd -f -p 80 -h /www`,
]);
const fetch = async (from: string, name: string): Promise<string> => (await fleet.docker(['exec', from, 'timeout', '5', 'wget', '-qO-', `http://${name}/`])).stdout.trim();

test('services find each other by name, alias and short id at once, whichever endpoint made them, until they leave', async () => {
  await fleet.ok(['network', 'create', 'shop_default']);
  await serve(1, 1, 'shop-db-1', '--network', 'shop_default', '--network-alias', 'db');
  // The very first thing that it does is to call the other one by its name.
  expect(await fleet.at(2).ok(['run', '--rm', '--network', 'shop_default', '-e', 'constraint:node==node-2', 'busybox', 'timeout', '10', 'wget', '-qO-', 'http://db/'])).toBe('shop-db-1');
  const web = await serve(2, 2, 'shop-web-1', '--network', 'shop_default', '--network-alias', 'web');
  await serve(1, 1, 'shop-web-2', '--network', 'shop_default', '--network-alias', 'web');
  await until('the pair to talk both ways', async () => (await fetch('shop-web-1', 'db')) === 'shop-db-1' && (await fetch('shop-db-1', 'shop-web-1')) === 'shop-web-1', 30_000);
  expect(await fetch('shop-db-1', web.slice(0, 12))).toBe('shop-web-1');
  expect(await fetch('shop-db-1', 'shop-web-1.shop_default')).toBe('shop-web-1');
  const both = new Set<string>();
  await until('the alias to lead to both', async () => both.add(await fetch('shop-db-1', 'web')).has('shop-web-1') && both.has('shop-web-2'));

  await fleet.ok(['rename', 'shop-web-1', 'front']);
  await until('the new name to be known on the other node', async () => (await fetch('shop-db-1', 'front')) === 'shop-web-1', 30_000);
  await fleet.ok(['network', 'disconnect', 'shop_default', 'front']);
  await until('who left not to be found', async () => (await fetch('shop-db-1', 'front')) === '', 30_000);
  await fleet.ok(['network', 'connect', 'shop_default', 'front']);
  await until('who came back to be found', async () => (await fetch('shop-db-1', 'front')) === 'shop-web-1', 30_000);
}, 240_000);

test('networks are apart across nodes, the default bridge reaches across by address', async () => {
  await fleet.ok(['network', 'create', 'apart']);
  await serve(1, 2, 'stranger', '--network', 'apart');
  const address = await fleet.ok(['inspect', '-f', '{{.NetworkSettings.Networks.apart.IPAddress}}', 'stranger']);
  expect(await fetch('shop-db-1', 'stranger')).toBe('');
  expect(await fetch('shop-db-1', address)).toBe('');
  await serve(1, 1, 'plain-1');
  await serve(2, 2, 'plain-2');
  const plain = await fleet.ok(['inspect', '-f', '{{.NetworkSettings.IPAddress}}', 'plain-1']);
  await until('the default bridge to reach across', async () => (await fetch('plain-2', plain)) === 'plain-1', 30_000);
}, 240_000);

test('agents and endpoints that are killed disturb no connection, and what changed meanwhile is known afterwards', async () => {
  await fleet.kill('agent-1');
  expect(await fetch('front', 'db')).toBe('shop-db-1');
  await fleet.kill('endpoint-1');
  await until('a container to be made again', async () => (await fleet.docker(['rm', '-f', 'shop-web-2'])).status === 0, 90_000);
  await until('the next one on the other node to be known', async () => (await serve(2, 2, 'shop-web-3', '--network', 'shop_default').catch(() => '')) !== '' || (await fleet.docker(['inspect', 'shop-web-3'])).status === 0, 90_000);
  await until('it to be found', async () => (await fetch('shop-db-1', 'shop-web-3')) === 'shop-web-3', 60_000);
  await fleet.ok(['rm', '-f', 'front', 'shop-db-1', 'shop-web-3', 'stranger', 'plain-1', 'plain-2']);
  await fleet.ok(['network', 'rm', 'shop_default', 'apart']);
  await fleet.nothingLeaked(empty);
}, 300_000);
