/**
 * Images of a real fleet: each byte comes from the registry once; what exists only inside survives the loss of either node; and what one node lacks it takes
 * from another, whatever verb asks.
 */
import {spawn} from 'node:child_process';
import fs from 'node:fs';
import http from 'node:http';
import type {AddressInfo} from 'node:net';
import path from 'node:path';
import {request} from 'undici';
import type {Inventory} from '../../lib/schema/agent';
import {busyboxArchive} from '../harness/busybox';
import {NOTHING_LEFT} from '../harness/cetus';
import {startFleet, type TestFleet} from '../harness/fleet';
import {bigLayers, buildImage, busyboxLayer, pushImage, type BuiltImage} from '../harness/images';
import {startRegistry, type TestRegistry} from '../harness/registry';
import {until} from '../harness/wait';

let fleet: TestFleet;
let registry: TestRegistry;
let image: BuiltImage;
const requested: string[] = [];
let bytes = 0;
let counting: http.Server;
let host = '';

beforeAll(async () => {
  registry = await startRegistry();
  counting = http.createServer((req, res) => void (async () => {
    const answer = await request(`${registry.url}${req.url!}`, {method: req.method as 'GET', headers: {accept: String(req.headers.accept ?? '*/*'), ...(req.headers.range ? {range: req.headers.range} : {})}});
    if (req.method === 'GET' && /\/blobs\//.test(req.url!)) requested.push(req.url!.split('/').at(-1)!);
    res.writeHead(answer.statusCode, answer.headers as http.OutgoingHttpHeaders);
    for await (const chunk of answer.body as AsyncIterable<Buffer>) {
      if (/\/blobs\//.test(req.url!)) bytes += chunk.length;
      res.write(chunk);
    }
    res.end();
  })());
  await new Promise<void>((resolve) => counting.listen(0, '127.0.0.1', resolve));
  host = `127.0.0.1:${(counting.address() as AddressInfo).port}`;
  image = buildImage([await busyboxLayer(), ...await bigLayers(20_000_000, 3)], {config: {Cmd: ['sh']}});
  await pushImage(registry.url, 'big', ['1'], image);
  fleet = await startFleet({nodes: 4, endpoints: 2});
}, 300_000);
afterAll(async () => {
  const left = await fleet?.destroy();
  counting?.closeAllConnections();
  counting?.close();
  await registry?.stop();
  expect(left).toEqual(NOTHING_LEFT);
}, 300_000);

const holders = async (imageId: string): Promise<number[]> => {
  const found: number[] = [];
  for (const {number, name} of fleet.nodes) {
    const inventory = await fleet.admin<Inventory>(`/v1/nodes/${name}/inventory`).catch(() => undefined);
    if (inventory?.images.includes(imageId)) found.push(number);
  }
  return found;
};
const idOf = async (name: string): Promise<string> => fleet.ok(['inspect', '--format', '{{.Id}}', name]);

test('one pull, containers on four nodes at once: 1.0 x the image from the registry', async () => {
  await fleet.ok(['pull', `${host}/big:1`]);
  await Promise.all(fleet.nodes.map(({number}) => fleet.at(1 + (number % 2)).ok(['run', '-d', '--name', `big-${number}`, '-e', `constraint:node==node-${number}`, `${host}/big:1`, 'sleep', '100000'])));
  for (const {number} of fleet.nodes) expect((await fleet.nodeOf(`big-${number}`)).number).toBe(number);
  expect(await holders(image.imageId)).toEqual([1, 2, 3, 4]);
  const size = image.config.length + image.layers.reduce((sum, layer) => sum + layer.bytes.length, 0);
  expect(bytes / size).toBe(1);
  expect([...requested].sort()).toEqual([image.imageId, ...image.layers.map((layer) => layer.digest)].sort());
  await fleet.ok(['rm', '-f', ...fleet.nodes.map(({number}) => `big-${number}`)]);
  // It goes from all of them.
  await fleet.ok(['rmi', `${host}/big:1`]);
  expect(await holders(image.imageId)).toEqual([]);
}, 240_000);

test('what is loaded, committed and imported is on two nodes when the client is answered', async () => {
  await fleet.ok(['load', '-i', await busyboxArchive()]);
  expect(await holders(await idOf('busybox'))).toHaveLength(2);
  await fleet.ok(['run', '--name', 'made', 'busybox', 'sh', '-c', 'echo kept > /kept']);
  await fleet.ok(['commit', 'made', 'committed']);
  const committed = await holders(await idOf('committed'));
  expect(committed).toHaveLength(2);
  // (A constraint in the environment would be committed too.)
  expect(committed).toContain((await fleet.nodeOf('made')).number);
  const tar = spawn('tar', ['-cf', '-', '-C', '/etc', 'hostname'], {stdio: ['ignore', 'pipe', 'inherit']});
  const chunks: Buffer[] = [];
  for await (const chunk of tar.stdout as AsyncIterable<Buffer>) chunks.push(chunk);
  await fleet.ok(['import', '-', 'imported'], {input: Buffer.concat(chunks)});
  expect(await holders(await idOf('imported'))).toHaveLength(2);
  await fleet.ok(['rm', 'made']);
}, 240_000);

test('a node is lost: what it had is on two nodes again, runs, and is saved and pushed from there', async () => {
  const id = await idOf('committed');
  const [gone, stays] = await holders(id) as [number, number];
  await fleet.powerOff(gone);
  await until('another copy', async () => {
    const now = (await holders(id)).filter((number) => number !== gone);
    return now.length === 2 && now.includes(stays);
  }, 120_000);
  const other = fleet.nodes.map(({number}) => number).find((number) => number !== gone && number !== stays)!;
  expect(await fleet.ok(['run', '--rm', '-e', `constraint:node==node-${other}`, 'committed', 'cat', '/kept'])).toBe('kept');
  // No single node needs to have both.
  const saved = path.join(fleet.dataDir, 'saved.tar');
  await fleet.ok(['save', '-o', saved, 'committed', 'busybox']);
  expect(fs.statSync(saved).size).toBeGreaterThan(500_000);
  await fleet.ok(['tag', 'committed', `${registry.host}/committed:1`]);
  await fleet.ok(['push', `${registry.host}/committed:1`]);
  await fleet.powerOn(gone);
  await until('the node to be back', async () => (await fleet.admin<{name: string; liveness: string}[]>('/v1/nodes')).every((node) => node.liveness === 'alive'), 120_000);
}, 300_000);
