/** Pull, load, save and rmi over a real containerd and a real registry; after each test neither blobs nor snapshots remain. */
import {execFileSync} from 'node:child_process';
import {createHash} from 'node:crypto';
import fs from 'node:fs';
import http from 'node:http';
import type {AddressInfo} from 'node:net';
import {Readable} from 'node:stream';
import {gzipSync} from 'node:zlib';
import fc from 'fast-check';
import {connectContainerd} from '../../lib/agent/containerd/connect';
import {createAgentImages} from '../../lib/agent/images/agent-images';
import type {AgentImages} from '../../lib/agent/images/images';
import {chainIds} from '../../lib/agent/images/manifest';
import {openSink} from '../../lib/agent/images/placed-blob';
import {isCetusError} from '../../lib/base/errors';
import {silentLog} from '../../lib/base/log';
import type {ImportRequest, LoadLine, NodeImage, PullLine} from '../../lib/schema/agent';
import type {ProgressMessage, RegistryAuth} from '../../lib/schema/docker';
import {testContainerd, type TestContainerd} from '../harness/containerd';
import {bigLayers, buildImage, buildLayer, busyboxLayer, digestOf, dockerArchive, noise, ociArchive, pushImage, pushIndex, tarOf, zstd, type BuiltImage} from '../harness/images';
import {startRegistry, type TestRegistry} from '../harness/registry';
import {until} from '../harness/wait';

let world: TestContainerd;
let registry: TestRegistry;
let images: AgentImages & {close(): Promise<void>};

beforeAll(async () => {
  [world, registry] = await Promise.all([testContainerd('cetus-images'), startRegistry()]);
  images = createAgentImages({containerd: world.client, log: silentLog()});
});
afterAll(async () => {
  await images?.close();
  await world?.stop();
  await registry?.stop();
});
afterEach(async () => {
  for (const {name} of (await world.client.images.list({})).images) await world.client.images.delete({name, sync: true});
  await until('blobs, snapshots, ingests and leases to be gone', async () => Object.values(await leftovers()).every((list) => list.length === 0));
});

async function leftovers(): Promise<Record<string, string[]>> {
  const blobs: string[] = [];
  const snapshots: string[] = [];
  for await (const {info} of world.client.content.list({})) blobs.push(...info.map((i) => i.digest));
  for await (const {info} of world.client.snapshots.list({snapshotter: 'overlayfs'})) snapshots.push(...info.map((i) => i.name));
  const {statuses} = await world.client.content.listStatuses({});
  const {leases} = await world.client.leases.list({});
  return {blobs, snapshots, ingests: statuses.map((s) => s.ref), leases: leases.map((l) => l.id)};
}

async function pull(reference: string, options: {platform?: string; auth?: RegistryAuth; account?: string; signal?: AbortSignal; from?: AgentImages} = {}): Promise<{image: NodeImage; upToDate: boolean; lines: ProgressMessage[]}> {
  const lines: ProgressMessage[] = [];
  const {account = 'default', platform, auth, signal = new AbortController().signal, from = images} = options;
  for await (const line of from.pull({account, reference, platform}, auth, signal) as AsyncIterable<PullLine>) {
    if ('result' in line) return {...line.result, lines};
    lines.push(line);
  }
  throw new Error('the pull ended without a result');
}

async function load(archive: Buffer | Readable, account?: string): Promise<{images: NodeImage[]; lines: ProgressMessage[]}> {
  const lines: ProgressMessage[] = [];
  const source = Buffer.isBuffer(archive) ? Readable.from(chunked(archive)) : archive;
  for await (const line of images.load(source, new AbortController().signal, account) as AsyncIterable<LoadLine>) {
    if ('result' in line) return {images: line.result.images, lines};
    lines.push(line);
  }
  throw new Error('the load ended without a result');
}

function* chunked(bytes: Buffer): Generator<Buffer> {
  for (let i = 0; i < bytes.length; i += 65_536) yield bytes.subarray(i, i + 65_536);
}

async function save(image: NodeImage, references: string[]): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of await images.save({images: [{imageId: image.imageId, manifest: image.manifest, references}]}, new AbortController().signal)) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}

const sizes = (image: BuiltImage): number[] => image.layers.map((l) => l.bytes.length);

describe('pull', () => {
  test('an image of three layers, with the lines the Engine prints', async () => {
    const image = buildImage([await busyboxLayer(), await buildLayer([{name: 'a', content: 'A'}]), await buildLayer([{name: 'b', content: 'B'}], 'gzip', 'oci')]);
    await pushImage(registry.url, 'app', ['1'], image);
    const result = await pull(`${registry.host}/app:1`);
    expect(result.image).toMatchObject({imageId: image.imageId, manifest: {digest: image.digest}, resolvedDigest: image.digest, references: []});
    expect(result.image.layers.map((l) => l.size)).toEqual(sizes(image));
    expect(result.image.size).toBeGreaterThan(500_000);
    expect(result.upToDate).toBe(false);
    for (const layer of image.layers) {
      const id = layer.digest.slice(7, 19);
      const statuses = result.lines.filter((l) => l.id === id).map((l) => l.status).filter((s, i, all) => s !== all[i - 1]);
      expect(statuses).toEqual(['Pulling fs layer', 'Downloading', 'Verifying Checksum', 'Download complete', 'Extracting', 'Pull complete']);
    }
    expect(result.lines.find((l) => l.status === 'Downloading')).toMatchObject({progressDetail: {current: expect.any(Number), total: expect.any(Number)}, progress: expect.stringMatching(/^\[=*>\s*\] +[\d.]+k?M?B\/[\d.]+k?M?B$/)});
    const again = await pull(`${registry.host}/app:1`);
    expect(again.upToDate).toBe(true);
    // As the Engine: of an image that is here whole its layers are not told.
    expect(again.lines).toEqual([]);
    expect(await images.prepare(image.imageId, image.digest)).toMatchObject({parentSnapshot: chainIds(image.layers.map((l) => l.diffId)).at(-1), config: {os: 'linux'}});
    expect(await images.list()).toEqual([image.imageId]);
  });

  test('by digest, and a digest that is not there', async () => {
    const image = buildImage([await buildLayer([{name: 'a', content: 'A'}])]);
    await pushImage(registry.url, 'digest', [], image);
    expect((await pull(`${registry.host}/digest@${image.digest}`)).image.imageId).toBe(image.imageId);
    const other = `sha256:${'0'.repeat(64)}`;
    await expect(pull(`${registry.host}/digest@${other}`)).rejects.toMatchObject({kind: 'notFound', message: `manifest for ${registry.host}/digest@${other} not found: manifest unknown: manifest unknown`});
  });

  test('a manifest list gives the platform asked for', async () => {
    const layer = await buildLayer([{name: 'x', content: 'x'}]);
    const here = buildImage([layer]);
    const arm = buildImage([await buildLayer([{name: 'arm'}])], {platform: {os: 'linux', architecture: 'arm', variant: 'v6'}});
    const index = await pushIndex(registry.url, 'multi', ['latest'], [arm, here]);
    const mine = await pull(`${registry.host}/multi:latest`);
    expect(mine.image).toMatchObject({imageId: here.imageId, resolvedDigest: index, manifest: {digest: here.digest}});
    expect((await pull(`${registry.host}/multi:latest`, {platform: 'linux/arm/v7'})).image.imageId).toBe(arm.imageId);
    await expect(pull(`${registry.host}/multi:latest`, {platform: 'linux/s390x'})).rejects.toMatchObject({kind: 'notFound', message: 'no matching manifest for linux/s390x in the manifest list entries'});
  });

  test.each(['none', 'gzip', 'zstd'] as const)('layers with compression %s', async (compression) => {
    const image = buildImage([await buildLayer([{name: 'file', content: `compressed with ${compression}`}], compression, 'oci')], {format: 'oci'});
    await pushImage(registry.url, `c-${compression}`, ['latest'], image);
    expect((await pull(`${registry.host}/c-${compression}:latest`)).image.layers[0].diffId).toBe(image.layers[0].diffId);
  });

  test('unknown names are refused in the Engine\'s words', async () => {
    await expect(pull(`${registry.host}/nothing:latest`)).rejects.toMatchObject({kind: 'notFound', message: `manifest for ${registry.host}/nothing:latest not found: manifest unknown: manifest unknown`});
    await expect(pull('127.0.0.1:1/x:latest')).rejects.toMatchObject({kind: 'unavailable', message: 'Get "http://127.0.0.1:1/v2/": dial tcp 127.0.0.1:1: connect: connection refused'});
  });

  test('two accounts hold one image; it goes with the second', async () => {
    const image = buildImage([await buildLayer([{name: 'shared', content: 'x'}])]);
    await pushImage(registry.url, 'shared', ['latest'], image);
    await Promise.all(['jill', 'jack'].map((account) => pull(`${registry.host}/shared:latest`, {account})));
    await images.remove(image.imageId, 'jill');
    await images.remove(image.imageId, 'jill');
    expect(await images.list()).toEqual([image.imageId]);
    await images.remove(image.imageId, 'jack');
    expect(await images.list()).toEqual([]);
    expect(await leftovers()).toEqual({blobs: [], snapshots: [], ingests: [], leases: []});
    await expect(images.prepare(image.imageId, image.digest)).rejects.toMatchObject({kind: 'notFound'});
  });

  test('ten pulls at once of images that share layers', async () => {
    const base = await buildLayer([{name: 'base', content: noise(3_000_000)}]);
    const built = await Promise.all(Array.from({length: 10}, async (_, i) => buildImage([base, await buildLayer([{name: `top${i}`, content: String(i)}])])));
    await Promise.all(built.map((image, i) => pushImage(registry.url, `many${i}`, ['latest'], image)));
    const results = await Promise.all(built.map((_, i) => pull(`${registry.host}/many${i}:latest`)));
    expect(results.map((r) => r.image.imageId)).toEqual(built.map((b) => b.imageId));
  });

  test('a layer whose diff id is not the config\'s is refused, and leaves nothing', async () => {
    const layer = await buildLayer([{name: 'x', content: 'x'}]);
    const image = buildImage([layer], {diffIds: [`sha256:${'1'.repeat(64)}`]});
    await pushImage(registry.url, 'mismatch', ['latest'], image);
    await expect(pull(`${registry.host}/mismatch:latest`)).rejects.toMatchObject({kind: 'invalid', message: expect.stringContaining('does not match the image\'s config')});
  });

  test('a bomb is stopped and taken away', async () => {
    const bomb = await buildLayer(await tarOf([{name: 'zeros', content: Buffer.alloc(300_000_000)}]));
    expect(bomb.bytes.length).toBeLessThan(2_000_000);
    await pushImage(registry.url, 'bomb', ['latest'], buildImage([bomb]));
    const careful = createAgentImages({containerd: world.client, log: silentLog(), limits: {unpackedLayerBytes: 20_000_000}});
    await expect(pull(`${registry.host}/bomb:latest`, {from: careful})).rejects.toMatchObject({kind: 'invalid', message: expect.stringContaining('unpacks to more than 20MB')});
    await careful.close();
  });

  test('a pull that is canceled leaves nothing', async () => {
    const image = buildImage([await buildLayer([{name: 'big', content: noise(20_000_000)}])]);
    await pushImage(registry.url, 'cancel', ['latest'], image);
    const abort = new AbortController();
    const pulling = (async () => {
      for await (const line of images.pull({account: 'default', reference: `${registry.host}/cancel:latest`}, undefined, abort.signal)) if ('status' in line && line.status === 'Downloading') abort.abort();
    })();
    await expect(pulling).rejects.toMatchObject({kind: 'canceled'});
  });

  test('a reader who leaves ends the pull', async () => {
    const image = buildImage([await buildLayer([{name: 'big', content: noise(20_000_000, 2)}])]);
    await pushImage(registry.url, 'leave', ['latest'], image);
    for await (const line of images.pull({account: 'default', reference: `${registry.host}/leave:latest`}, undefined, new AbortController().signal)) if ('status' in line && line.status === 'Downloading') break;
    expect(await images.list()).toEqual([]);
  });
});

describe('a write into the content store', () => {
  const options = (bytes: Buffer, expected?: string) => ({ref: `test-${bytes.length}-${expected ?? ''}`, total: bytes.length, expected, stallMs: 5000, commitMs: 20_000});
  const held = async (work: (client: TestContainerd['client']) => Promise<void>): Promise<void> => {
    await world.client.leases.create({id: 'test-writes'});
    try {
      await work(world.client.withLease('test-writes'));
    } finally {
      await world.client.leases.delete({id: 'test-writes', sync: true});
    }
  };
  const contentRoot = async (): Promise<string> => (await world.client.introspection.plugins({filters: ['type==io.containerd.content.v1']})).plugins[0].exports.root;
  const read = async (digest: string): Promise<Buffer> => {
    const chunks: Buffer[] = [];
    for await (const {data} of world.client.content.read({digest})) chunks.push(data);
    return Buffer.concat(chunks);
  };

  // The same promises by file and over gRPC: one suite for both ways.
  describe.each([['by file', contentRoot], ['over gRPC', () => Promise.resolve(undefined)], ['where the root is not this machine\'s', () => Promise.resolve('/nonexistent')]])('%s', (_way, root) => {
    test.each([0, 1, 1_048_576, 5_000_001].flatMap((size) => [[size, 'known beforehand'], [size, 'not known']] as const))('%d bytes of a digest %s', (size, how) => held(async (client) => {
      const bytes = noise(size, size);
      const digest = digestOf(bytes);
      const sink = (await openSink(client, await root(), options(bytes, how === 'not known' ? undefined : digest)))!;
      for (const chunk of chunked(bytes)) await sink.write(chunk);
      expect(sink.offset).toBe(size);
      expect(await sink.commit({'cetus/test': 'x'})).toBe(digest);
      expect((await read(digest)).equals(bytes)).toBe(true);
      expect((await client.content.info({digest})).info).toMatchObject({size, labels: {'cetus/test': 'x'}});
      expect(await openSink(client, await root(), options(bytes, digest))).toBeUndefined();
    }));

    test('resumed by the next who opens it', () => held(async (client) => {
      const bytes = noise(3_000_000, 9);
      const digest = digestOf(bytes);
      const first = (await openSink(client, await root(), options(bytes, digest)))!;
      for (const chunk of chunked(bytes.subarray(0, 2_500_000))) await first.write(chunk);
      await first.close();
      const second = (await openSink(client, await root(), options(bytes, digest)))!;
      expect(second.offset).toBeGreaterThan(1_000_000);
      expect(second.offset).toBeLessThanOrEqual(2_500_000);
      await second.write(bytes.subarray(second.offset));
      expect(await second.commit()).toBe(digest);
      expect((await read(digest)).equals(bytes)).toBe(true);
    }));

    test('begun anew', () => held(async (client) => {
      const bytes = noise(3_000_000, 10);
      const sink = (await openSink(client, await root(), options(bytes, digestOf(bytes))))!;
      await sink.write(noise(2_000_000, 11));
      await sink.restart();
      expect(sink.offset).toBe(0);
      await sink.write(bytes);
      expect(await sink.commit()).toBe(digestOf(bytes));
    }));

    test('refused where it is of other bytes, or too few', () => held(async (client) => {
      const bytes = noise(2_000_000, 12);
      for (const wrong of [noise(2_000_000, 13), bytes.subarray(0, 1_999_999)]) {
        const sink = (await openSink(client, await root(), options(bytes, digestOf(bytes))))!;
        await sink.write(wrong);
        await expect(sink.commit()).rejects.toMatchObject({kind: 'invalid', message: `filesystem layer verification failed for digest ${digestOf(bytes)}`});
        await client.content.abort({ref: options(bytes, digestOf(bytes)).ref});
      }
      expect((await leftovers()).blobs).toEqual([]);
    }));
  });

  test('a blob of another namespace is taken over, not shared by name', async () => {
    const bytes = noise(2_000_000, 13);
    await world.client.namespaces.create({namespace: {name: 'elsewhere'}});
    const other = connectContainerd({socket: world.process.socket, namespace: 'elsewhere', log: silentLog()});
    await other.leases.create({id: 'there'});
    const sink = (await openSink(other.withLease('there'), await contentRoot(), options(bytes, digestOf(bytes))))!;
    await sink.write(bytes);
    await sink.commit();
    await held(async (client) => {
      const mine = (await openSink(client, await contentRoot(), options(bytes, digestOf(bytes))))!;
      expect(await mine.commit()).toBe(digestOf(bytes));
    });
    await other.leases.delete({id: 'there', sync: true});
    other.close();
    await world.client.namespaces.delete({name: 'elsewhere'});
  });
});

describe('a registry that breaks off', () => {
  test('the next pull resumes where it stopped', async () => {
    const image = buildImage([await buildLayer([{name: 'big', content: noise(8_000_000, 5)}])]);
    await pushImage(registry.url, 'flaky', ['latest'], image);
    const {digest, bytes} = image.layers[0];
    const ranges: (string | undefined)[] = [];
    let broken = true;
    const flaky = http.createServer((req, res) => {
      if (!req.url!.includes(digest)) {
        void fetch(`${registry.url}${req.url}`, {method: req.method, headers: {accept: req.headers.accept ?? '*/*'}}).then(async (answer) => {
          res.writeHead(answer.status, {'content-type': answer.headers.get('content-type') ?? '', 'docker-content-digest': answer.headers.get('docker-content-digest') ?? ''});
          res.end(Buffer.from(await answer.arrayBuffer()));
        });
        return;
      }
      ranges.push(req.headers.range);
      const from = Number(/(\d+)/.exec(req.headers.range ?? '0')![1]);
      res.writeHead(from ? 206 : 200, {'content-range': `bytes ${from}-${bytes.length - 1}/${bytes.length}`, 'content-length': bytes.length - from});
      if (broken && from >= 4_000_000) res.destroy();
      else res.write(bytes.subarray(from, broken ? 4_000_000 : undefined), () => (broken ? res.destroy() : res.end()));
    });
    await new Promise<void>((resolve) => flaky.listen(0, '127.0.0.1', resolve));
    const host = `127.0.0.1:${(flaky.address() as AddressInfo).port}`;
    const impatient = createAgentImages({containerd: world.client, log: silentLog(), limits: {tries: 2, stallMs: 2000}});
    await expect(pull(`${host}/flaky:latest`, {from: impatient})).rejects.toMatchObject({kind: 'unavailable'});
    expect((await leftovers()).ingests).toEqual([`layer-${digest}`]);
    broken = false;
    ranges.length = 0;
    // Another process after a crash: what is half here is taken over.
    const successor = createAgentImages({containerd: world.client, log: silentLog()});
    expect((await pull(`${host}/flaky:latest`, {from: successor})).image.imageId).toBe(image.imageId);
    expect(Number(/(\d+)/.exec(ranges[0] ?? '0')![1])).toBeGreaterThan(1_000_000);
    await Promise.all([impatient.close(), successor.close()]);
    flaky.closeAllConnections();
    flaky.close();
  });
});

describe('a registry that asks for tokens', () => {
  let guarded: TestRegistry;
  let image: BuiltImage;
  beforeAll(async () => {
    guarded = await startRegistry({users: {jill: 's3cret'}});
    image = buildImage([await buildLayer([{name: 'private', content: 'p'}])]);
    for (const name of ['jill/private', 'public/app']) await pushImage(guarded.url, name, ['latest'], image, guarded.pushHeaders(name));
  });
  afterAll(() => guarded?.stop());

  test('anonymous callers get what is public', async () => {
    expect((await pull(`${guarded.host}/public/app:latest`)).image.imageId).toBe(image.imageId);
    expect(guarded.tokenRequests.at(-1)).toMatchObject({grant: 'anonymous', scope: 'repository:public/app:pull'});
  });

  test('name and password, or a refresh token, open what is private', async () => {
    expect((await pull(`${guarded.host}/jill/private:latest`, {auth: {username: 'jill', password: 's3cret'}})).image.imageId).toBe(image.imageId);
    expect(guarded.tokenRequests.at(-1)).toMatchObject({grant: 'password', account: 'jill'});
    expect((await pull(`${guarded.host}/jill/private:latest`, {auth: {auth: Buffer.from('jill:s3cret').toString('base64')}})).image.imageId).toBe(image.imageId);
    expect((await pull(`${guarded.host}/jill/private:latest`, {auth: {identitytoken: 'refresh-jill'}})).image.imageId).toBe(image.imageId);
    expect(guarded.tokenRequests.at(-1)).toMatchObject({grant: 'refresh_token', account: 'jill'});
  });

  test('without them it is denied as the Engine says it, and no secret is in the error', async () => {
    await expect(pull(`${guarded.host}/jill/private:latest`)).rejects.toMatchObject({
      kind: 'notFound', message: `pull access denied for ${guarded.host}/jill/private, repository does not exist or may require 'docker login': denied: requested access to the resource is denied`});
    const wrong = await pull(`${guarded.host}/jill/private:latest`, {auth: {username: 'jill', password: 'wr0ngpass'}}).catch((err: Error & {cause?: unknown; kind: string}) => err);
    expect(wrong).toMatchObject({kind: 'unauthorized', message: expect.stringMatching(/^Get "http:\/\/127\.0\.0\.1:\d+\/token": unauthorized: incorrect username or password$/)});
    expect(JSON.stringify([wrong, (wrong as Error).cause, (wrong as Error).stack])).not.toContain('wr0ngpass');
  });
});

describe('import', () => {
  const importing = async (archive: Buffer | Readable, more: Partial<ImportRequest> = {}, signal = new AbortController().signal): Promise<{image: NodeImage; lines: ProgressMessage[]}> => {
    const lines: ProgressMessage[] = [];
    const request = {account: 'default', created: '2026-01-01T00:00:00Z', message: 'from a test', config: {Cmd: ['sh']}, ...more};
    for await (const line of images.import(request, Buffer.isBuffer(archive) ? Readable.from(chunked(archive)) : archive, signal)) {
      if ('result' in line) return {...line.result, lines};
      lines.push(line);
    }
    throw new Error('the import ended without a result');
  };
  const packed: Record<string, (tar: Buffer) => Buffer> = {
    'as it is': (tar) => tar, gzip: (tar) => gzipSync(tar), zstd, xz: (tar) => execFileSync('xz', ['-c'], {input: tar}), bzip2: (tar) => execFileSync('bzip2', ['-c'], {input: tar}),
  };

  test.each(Object.keys(packed))('a tar, packed %s', async (how) => {
    const tar = await tarOf([{name: 'etc', type: 'directory'}, {name: 'etc/file', content: how}, {name: 'link', type: 'symlink', linkname: 'etc/file'}]);
    const {image} = await importing(packed[how]!(tar), {platform: 'linux/arm/v7'});
    expect(image.layers.map((l) => l.diffId)).toEqual([digestOf(tar)]);
    expect(image.config).toMatchObject({os: 'linux', architecture: 'arm', variant: 'v7', config: {Cmd: ['sh']}, created: '2026-01-01T00:00:00Z', history: [{comment: 'from a test'}]});
    expect(await images.prepare(image.imageId, image.manifest.digest)).toMatchObject({parentSnapshot: digestOf(tar)});
    // The same again is the same image, and held once.
    expect((await importing(packed[how]!(tar), {platform: 'linux/arm/v7'})).image.imageId).toBe(image.imageId);
    expect((await load(await save(image, ['docker.io/library/again:1']))).images[0]!.imageId).toBe(image.imageId);
  });

  test('nothing at all is an image without files', async () => {
    expect((await importing(Buffer.alloc(0))).image.layers).toHaveLength(1);
  });

  test('from an address: by redirect, with progress, and with what it says where it refuses', async () => {
    const tar = gzipSync(await tarOf([{name: 'far', content: noise(500_000)}]));
    const server = http.createServer((req, res) => {
      if (req.url === '/moved') return void res.writeHead(302, {location: '/archive?key=s3cret'}).end();
      if (req.url!.startsWith('/archive')) return void res.writeHead(200, {'content-length': tar.length}).end(tar);
      if (req.url === '/locked') return void res.writeHead(req.headers.authorization === `Basic ${Buffer.from('jill:pass word').toString('base64')}` ? 200 : 401).end(tar);
      if (req.url === '/short') return void res.writeHead(200, {'content-length': tar.length}).write(tar.subarray(0, 1000), () => res.destroy());
      res.writeHead(404).end('there is none');
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const address = `127.0.0.1:${(server.address() as AddressInfo).port}`;
    const none = Readable.from([]);
    try {
      const {lines} = await importing(none, {url: `${address}/moved`});
      expect(lines[0]).toEqual({status: `Downloading from http://${address}/moved`});
      expect(lines.at(-1)).toMatchObject({status: 'Importing', progressDetail: {current: tar.length, total: tar.length}});
      await importing(none, {url: `http://jill:pass%20word@${address}/locked`});
      await expect(importing(none, {url: `${address}/nowhere`})).rejects.toMatchObject({kind: 'notFound', message: `failed to GET http://${address}/nowhere with status 404 Not Found: there is none`});
      const refused = await importing(none, {url: `http://jill:s3cret@${address}/locked?key=s3cret`}).catch((err: Error) => err) as Error;
      expect(refused.message + String(refused.stack)).not.toContain('s3cret');
      await expect(importing(none, {url: `${address}/short`})).rejects.toMatchObject({kind: 'unavailable'});
      await expect(importing(none, {url: 'ftp://x/y'})).rejects.toMatchObject({kind: 'invalid', message: 'Get "ftp://x/y": unsupported protocol scheme "ftp"'});
      await expect(importing(none, {url: '127.0.0.1:1/x'})).rejects.toMatchObject({message: 'Get "http://127.0.0.1:1/x": dial tcp 127.0.0.1:1: connect: connection refused'});
    } finally {
      server.closeAllConnections();
      server.close();
    }
  });

  test('what is no tar, what is cut off and who hangs up leave nothing', async () => {
    const tar = await tarOf([{name: 'a', content: noise(200_000)}]);
    const none = await importing(noise(5_000)).catch((err: unknown) => err);
    expect(none).toMatchObject({kind: 'invalid', message: expect.stringMatching(/^failed to register layer: sha256:[0-9a-f]{64}: .*archive\/tar: invalid tar header/) as string});
    expect((none as Error).message).not.toMatch(/mount|tmpmounts/);
    for (const how of ['gzip', 'xz', 'bzip2']) await expect(importing(packed[how]!(tar).subarray(0, 100_000))).rejects.toMatchObject({kind: 'invalid'});
    await expect(importing(tar, {platform: 'windows/amd64'})).rejects.toMatchObject({kind: 'invalid', message: 'operating system is not supported: windows'});
    const abort = new AbortController();
    const endless = Readable.from((async function* () {
      for (;;) {
        yield Buffer.alloc(65_536);
        abort.abort();
        await new Promise((resolve) => setImmediate(resolve));
      }
    })());
    await expect(importing(endless, {}, abort.signal)).rejects.toMatchObject({kind: 'canceled'});
    expect(endless.destroyed).toBe(true);
  });

  test('whatever a tar says stays in its snapshot', async () => {
    const marker = `/tmp/cetus-import-${process.pid}`;
    const name = fc.oneof(fc.constantFrom(marker, `../../../../../../..${marker}`, 'out', `out${marker}`, 'dir', 'dir/../..', '.', '', 'a/b', '.wh.dir', 'dir/.wh..wh..opq'), fc.stringMatching(/^[ -~]{1,20}$/));
    const entry = fc.record({
      name, type: fc.constantFrom('file', 'directory', 'symlink', 'link', 'fifo', 'character-device', 'block-device'), linkname: fc.constantFrom('/', '/tmp', '..', marker, 'dir', 'out'),
      devmajor: fc.nat(10), devminor: fc.nat(10), mode: fc.nat(0o7777),
    });
    await fc.assert(fc.asyncProperty(fc.array(entry, {minLength: 1, maxLength: 8}), async (entries) => {
      const tar = await tarOf(entries.map((e) => ({...e, type: e.type as 'file', content: e.type === 'file' ? 'x' : undefined})));
      const made = await importing(tar).catch((err: unknown) => {
        if (!isCetusError(err, 'invalid')) throw err;
      });
      if (made) await images.remove(made.image.imageId, 'default');
      expect(fs.existsSync(marker)).toBe(false);
    }), {numRuns: 15});
  });
});

describe('push', () => {
  const push = async (image: NodeImage, reference: string, options: {sources?: Record<string, string[]>; from?: AgentImages; signal?: AbortSignal; auth?: RegistryAuth} = {}) => {
    const lines: ProgressMessage[] = [];
    const {sources = {}, from = images, signal = new AbortController().signal, auth} = options;
    for await (const line of from.push({imageId: image.imageId, manifest: image.manifest, reference, sources}, auth, signal)) {
      if ('result' in line) return {...line.result, statuses: lines.map((l) => `${l.id}: ${l.status}`).filter((s, i, all) => s !== all[i - 1])};
      lines.push(line);
    }
    throw new Error('the push ended without a result');
  };
  const short = (layer: {diffId: string}): string => layer.diffId.slice(7, 19);

  test.each(['docker', 'oci'] as const)('what was pulled (%s) goes up as it is, digest and all', async (format) => {
    const built = buildImage([await busyboxLayer(), await buildLayer([{name: format}], format === 'oci' ? 'zstd' : 'gzip', format)], {format});
    await pushImage(registry.url, `from-${format}`, ['1'], built);
    const {image} = await pull(`${registry.host}/from-${format}:1`);
    const done = await push(image, `${registry.host}/to-${format}:2`);
    expect(done).toMatchObject({digest: built.digest, size: built.manifest.length, mediaType: built.descriptor.mediaType});
    expect(done.statuses.filter((s) => !/Pushing$/.test(s)).slice(0, 2)).toEqual([`${short(built.layers[1])}: Preparing`, `${short(built.layers[0])}: Preparing`]);
    expect(done.statuses.filter((s) => /Pushed$/.test(s)).sort()).toEqual(built.layers.map((l) => `${short(l)}: Pushed`).sort());
    expect((await push(image, `${registry.host}/to-${format}:3`)).statuses.filter((s) => /exists$/.test(s))).toHaveLength(2);
    await images.remove(image.imageId, 'default');
    expect((await pull(`${registry.host}/to-${format}@${built.digest}`)).image.imageId).toBe(image.imageId);
  });

  test('layers that are kept uncompressed are compressed, once, and taken over from where they are', async () => {
    const built = buildImage([await buildLayer([{name: 'plain', content: noise(3_000_000)}], 'none'), await buildLayer([{name: 'top', content: 'x'}], 'none')]);
    const {images: [image]} = await load(await dockerArchive([{image: built, tags: ['plain:1']}]));
    // One piece at a time, as a large layer would go.
    const careful = createAgentImages({containerd: world.client, log: silentLog(), limits: {uploadBytes: 1_000_000, parallelUploads: 1}});
    const first = await push(image, `${registry.host}/plain:1`, {from: careful});
    await careful.close();
    expect(first.digest).not.toBe(built.digest);
    const again = await push(image, `${registry.host}/plain:2`);
    expect(again).toMatchObject({digest: first.digest, statuses: expect.arrayContaining([`${short(built.layers[0])}: Layer already exists`]) as string[]});
    const sources = Object.fromEntries(built.layers.map((l) => [l.diffId, ['nowhere', 'plain']]));
    const mounted = await push(image, `${registry.host}/elsewhere/plain:1`, {sources});
    expect(mounted.digest).toBe(first.digest);
    expect(mounted.statuses.filter((s) => /Mounted from plain$/.test(s))).toHaveLength(2);
    const pulled = await pull(`${registry.host}/elsewhere/plain:1`, {account: 'jill'});
    expect(pulled.image).toMatchObject({imageId: image.imageId, layers: built.layers.map(({diffId}) => ({diffId, mediaType: expect.stringMatching(/gzip$/) as string}))});
  });

  test('one that is canceled, and one whose registry refuses, leave nothing', async () => {
    const built = buildImage([await buildLayer([{name: 'big', content: noise(20_000_000, 3)}], 'none')]);
    const {images: [image]} = await load(await dockerArchive([{image: built, tags: ['big:1']}]));
    const abort = new AbortController();
    const pushing = (async () => {
      for await (const line of images.push({imageId: image.imageId, manifest: image.manifest, reference: `${registry.host}/big:1`, sources: {}}, undefined, abort.signal)) if ('status' in line && line.status === 'Pushing') abort.abort();
    })();
    await expect(pushing).rejects.toMatchObject({kind: 'canceled'});
    await expect(push(image, '127.0.0.1:1/big:1')).rejects.toMatchObject({kind: 'unavailable', message: 'Get "http://127.0.0.1:1/v2/": dial tcp 127.0.0.1:1: connect: connection refused'});
  });

  test('a registry that asks for tokens lets its own write, and nobody else', async () => {
    const locked = await startRegistry({users: {jill: 'p4ssw0rd', jack: 'p4ssw0rd'}});
    try {
      const {images: [image]} = await load(await dockerArchive([{image: buildImage([await buildLayer([{name: 'mine'}])]), tags: ['mine:1']}]));
      const as = (username: string): {auth: RegistryAuth} => ({auth: {username, password: 'p4ssw0rd'}});
      await push(image, `${locked.host}/jill/mine:1`, as('jill'));
      expect(locked.tokenRequests.at(-1)).toMatchObject({scope: 'repository:jill/mine:pull,push', account: 'jill'});
      for (const options of [{}, as('jack')]) await expect(push(image, `${locked.host}/jill/mine:2`, options)).rejects.toMatchObject({kind: 'forbidden', message: 'denied: requested access to the resource is denied'});
      await expect(push(image, `${locked.host}/jill/mine:2`, {auth: {username: 'jill', password: 'wrong'}})).rejects.toMatchObject({kind: 'unauthorized'});
    } finally {
      await locked.stop();
    }
  });
});

describe('load and save', () => {
  test('a docker-archive of an old engine, and the same image back', async () => {
    const image = buildImage([await busyboxLayer('none'), await buildLayer([{name: 'second', content: '2'}], 'none')]);
    const {images: [loaded], lines} = await load(await dockerArchive([{image, tags: ['busybox:latest', 'quay.io/me/bb:1']}]));
    expect(loaded).toMatchObject({imageId: image.imageId, references: ['docker.io/library/busybox:latest', 'quay.io/me/bb:1']});
    expect(lines.filter((l) => l.status === 'Loading layer').length).toBeGreaterThanOrEqual(2);
    const archive = await save(loaded, loaded.references);
    expect(createHash('sha256').update(archive).digest('hex')).toBe(createHash('sha256').update(await save(loaded, loaded.references)).digest('hex'));
    await images.remove(loaded.imageId, 'default');
    expect(await leftovers()).toEqual({blobs: [], snapshots: [], ingests: [], leases: []});
    expect((await load(archive)).images).toEqual([loaded]);
  });

  test.each(['plain', 'gzip', 'zstd'])('an OCI layout, %s, with digests intact', async (compression) => {
    const image = buildImage([await buildLayer([{name: 'f', content: 'f'}], 'gzip', 'oci'), await buildLayer([{name: 'g', content: 'g'}], 'zstd', 'oci')], {format: 'oci'});
    const tar = await ociArchive([{image, tags: ['docker.io/library/thing:2']}]);
    const {images: [loaded]} = await load(compression === 'gzip' ? gzipSync(tar) : compression === 'zstd' ? zstd(tar) : tar);
    expect(loaded).toMatchObject({imageId: image.imageId, manifest: {digest: image.digest}, references: ['docker.io/library/thing:2']});
    const archive = await save(loaded, loaded.references);
    await images.remove(loaded.imageId, 'default');
    expect((await load(archive)).images).toEqual([loaded]);
  });

  test('several images, one without a name; loading again changes nothing', async () => {
    const base = await buildLayer([{name: 'base'}], 'none');
    const one = buildImage([base]);
    const two = buildImage([base, await buildLayer([{name: 'two'}], 'none')]);
    const archive = await dockerArchive([{image: one, tags: ['one:1']}, {image: two, tags: []}]);
    const first = await load(archive, 'jill');
    expect(first.images.map((i) => [i.imageId, i.references])).toEqual([[one.imageId, ['docker.io/library/one:1']], [two.imageId, []]]);
    expect((await load(archive, 'jill')).images).toEqual(first.images);
    expect((await images.list()).sort()).toEqual([one.imageId, two.imageId].sort());
  });

  test('layers that an old engine linked to each other', async () => {
    const layer = await buildLayer([{name: 'same'}], 'none');
    const image = buildImage([layer, layer]);
    const archive = await tarOf([
      {name: 'config.json', content: image.config}, {name: 'one/layer.tar', content: layer.bytes},
      {name: 'two/layer.tar', type: 'symlink', linkname: '../one/layer.tar'},
      {name: 'manifest.json', content: JSON.stringify([{Config: 'config.json', RepoTags: ['twice:1'], Layers: ['one/layer.tar', 'two/layer.tar']}])},
    ]);
    expect((await load(archive)).images[0].imageId).toBe(image.imageId);
  });

  const broken: [string, () => Promise<Buffer>, object][] = [
    ['not a tar', () => Promise.resolve(Buffer.alloc(4096, 'x')), {kind: 'invalid', message: expect.stringContaining('invalid archive')}],
    ['empty', () => Promise.resolve(Buffer.alloc(0)), {kind: 'invalid', message: 'invalid archive: it is empty'}],
    ['cut off', async () => (await ociArchive([{image: buildImage([await buildLayer([{name: 'x', content: noise(400_000)}])]), tags: []}])).subarray(0, 200_000), {kind: 'invalid', message: 'invalid archive: unexpected end of data'}],
    ['a cut off gzip', async () => gzipSync(await ociArchive([{image: buildImage([await buildLayer([{name: 'x', content: noise(400_000)}])]), tags: []}])).subarray(0, 200_000), {kind: 'invalid', message: expect.stringContaining('unexpected end')}],
    ['a cut off zstd', async () => zstd(await ociArchive([{image: buildImage([await buildLayer([{name: 'x', content: noise(400_000)}])]), tags: []}])).subarray(0, 200_000), {kind: 'invalid'}],
    ['without a manifest', () => tarOf([{name: 'hello', content: 'x'}]), {kind: 'invalid', message: expect.stringContaining('neither manifest.json')}],
    ['a name with ..', () => tarOf([{name: '../../etc/passwd', content: 'x'}]), {kind: 'invalid', message: expect.stringContaining('leads out of it')}],
    ['an absolute name', () => tarOf([{name: '/etc/passwd', content: 'x'}]), {kind: 'invalid', message: expect.stringContaining('leads out of it')}],
    ['a link out', () => tarOf([{name: 'a/layer.tar', type: 'symlink', linkname: '../../../etc/passwd'}]), {kind: 'invalid', message: expect.stringContaining('leads out of it')}],
    ['a hard link out', () => tarOf([{name: 'a', type: 'link', linkname: '/etc/passwd'}]), {kind: 'invalid', message: expect.stringContaining('leads out of it')}],
    ['a device', () => tarOf([{name: 'a', type: 'block-device', devmajor: 8, devminor: 0}]), {kind: 'invalid', message: expect.stringContaining('block-device')}],
    ['a missing blob', async () => {
      const image = buildImage([await buildLayer([{name: 'x'}])]);
      return ociArchive([{image, tags: []}], [image.layers[0].digest]);
    }, {kind: 'invalid', message: expect.stringContaining('is missing')}],
    ['a blob that is not what its name says', () => tarOf([{name: `blobs/sha256/${'2'.repeat(64)}`, content: 'x'}]), {kind: 'invalid', message: expect.stringContaining('verification failed')}],
    ['links in a circle', () => tarOf([
      {name: 'a', type: 'symlink', linkname: 'b'}, {name: 'b', type: 'symlink', linkname: 'a'}, {name: 'c.json', content: '{}'},
      {name: 'manifest.json', content: JSON.stringify([{Config: 'a', RepoTags: [], Layers: []}])}]), {kind: 'invalid', message: expect.stringContaining('too many links')}],
    ['an invalid name of an image', async () => {
      const image = buildImage([await buildLayer([{name: 'x'}], 'none')]);
      return dockerArchive([{image, tags: ['Not A Name']}]);
    }, {kind: 'invalid'}],
    ['another image\'s digest for a name', async () => {
      const image = buildImage([await buildLayer([{name: 'x'}], 'none')]);
      return dockerArchive([{image, tags: [`pinned@sha256:${'0'.repeat(64)}`]}]);
    }, {kind: 'invalid', message: expect.stringContaining('invalid tag')}],
  ];
  test.each(broken)('%s is refused and leaves nothing', async (_name, archive, error) => {
    await expect(load(await archive())).rejects.toMatchObject(error);
    expect(await leftovers()).toEqual({blobs: [], snapshots: [], ingests: [], leases: []});
  });

  test('a name alone does not open another account\'s blob', async () => {
    const secret = buildImage([await buildLayer([{name: 'secret', content: 'of jill'}])]);
    await load(await ociArchive([{image: secret, tags: []}]), 'jill');
    await expect(load(await ociArchive([{image: secret, tags: []}], [secret.layers[0].digest]), 'jack')).rejects.toMatchObject({kind: 'invalid'});
    const lie = (await ociArchive([{image: secret, tags: []}], [secret.layers[0].digest])).subarray(0, -1024);
    const claimed = await tarOf([{name: `blobs/sha256/${secret.layers[0].digest.slice(7)}`, content: Buffer.alloc(secret.layers[0].bytes.length)}]);
    await expect(load(Buffer.concat([lie, claimed]), 'jack')).rejects.toMatchObject({kind: 'invalid', message: expect.stringContaining('verification failed')});
  });

  test('tricks inside a layer stay inside its snapshot', async () => {
    const layer = await buildLayer([
      {name: 'etc/', type: 'directory'}, {name: 'etc/out', type: 'symlink', linkname: '../../../../../tmp'},
      {name: 'etc/out/cetus-escaped', content: 'x'}, {name: '/absolute', content: 'x'}, {name: 'dev/', type: 'directory'},
      {name: 'dev/null', type: 'character-device', devmajor: 1, devminor: 3},
    ]);
    const top = await buildLayer([{name: 'etc/.wh.out'}, {name: '.wh.absolute'}]);
    const image = buildImage([layer, top]);
    await load(await ociArchive([{image, tags: []}]));
    // Under a lease: the collector, awake from an earlier test's deletion, would take a snapshot that nobody refers to.
    await world.client.leases.create({id: 'look'});
    const {mounts} = await world.client.withLease('look').snapshots.view({snapshotter: 'overlayfs', key: 'look', parent: chainIds(image.layers.map((l) => l.diffId))[0]});
    const fs = await import('node:fs');
    const root = mounts[0].source;
    expect(fs.existsSync('/tmp/cetus-escaped')).toBe(false);
    expect(fs.existsSync(`${root}/absolute`)).toBe(true);
    expect(fs.existsSync(`${root}/tmp/cetus-escaped`)).toBe(true);
    expect(fs.statSync(`${root}/dev/null`).isCharacterDevice()).toBe(true);
    await world.client.snapshots.remove({snapshotter: 'overlayfs', key: 'look'});
    await world.client.leases.delete({id: 'look'});
  });

  test('a large archive is streamed: memory does not grow with it', async () => {
    const image = buildImage(await bigLayers(150_000_000, 3, 'none'));
    const archive = await dockerArchive([{image, tags: ['big:1']}]);
    const before = process.memoryUsage();
    let peak = 0;
    const timer = setInterval(() => {
      peak = Math.max(peak, process.memoryUsage().external + process.memoryUsage().arrayBuffers - before.external - before.arrayBuffers);
    }, 5);
    expect((await load(archive)).images[0].imageId).toBe(image.imageId);
    clearInterval(timer);
    expect(peak).toBeLessThan(100_000_000);
  });
});
