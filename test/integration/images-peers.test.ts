/**
 * Images between nodes: each node a real containerd and an agent's server, over mutual TLS. One download from a real registry whatever the number
 * of nodes; peers that lie, stall, break or die; what is served to whom; and after each test nothing is left.
 */
import fs from 'node:fs/promises';
import http from 'node:http';
import https from 'node:https';
import type {AddressInfo} from 'node:net';
import os from 'node:os';
import path from 'node:path';
import {Agent, request} from 'undici';
import {createAgentImages} from '../../lib/agent/images/agent-images';
import type {ImageLimits} from '../../lib/agent/images/limits';
import {AgentServer, type ServerParts} from '../../lib/agent/server/server';
import {silentLog} from '../../lib/base/log';
import type {EnsureRequest, EnsureResult, Peer, PullRequest} from '../../lib/schema/agent';
import {testContainerd, type TestContainerd} from '../harness/containerd';
import {bigLayers, buildImage, pushImage, type BuiltImage} from '../harness/images';
import {TestAuthority, type Identity} from '../harness/node-certificates';
import {startRegistry, type TestRegistry} from '../harness/registry';
import {until} from '../harness/wait';

const NAMESPACE = 'cetus-peers';
/** Of takers that meet peers who stall: long enough for an honest one on a busy machine. */
const IMPATIENT: Partial<ImageLimits> = {peerStallMs: 3_000};

class TestNode {
  images!: ReturnType<typeof createAgentImages>;
  peer!: Peer;
  private server!: AgentServer;
  constructor(readonly id: string, readonly world: TestContainerd, readonly identity: Identity) {}

  async open(limits: Partial<ImageLimits> = {}): Promise<this> {
    this.images = createAgentImages({containerd: this.world.client, log: silentLog(), limits, nodeId: () => this.id, peerTls: () => this.identity});
    // Of the agent only what serves images is here.
    this.server = new AgentServer({parts: {images: this.images}, log: silentLog()} as unknown as ServerParts);
    this.peer = {nodeId: this.id, url: await this.server.listen({host: '127.0.0.1', port: 0, tls: this.identity})};
    return this;
  }
  async close(): Promise<void> {
    await this.server.close();
    await this.images.close();
  }

  async ensure(asked: Omit<EnsureRequest, 'account'>, signal = new AbortController().signal): Promise<EnsureResult> {
    for await (const line of this.images.ensure({account: 'default', ...asked}, undefined, signal)) if ('result' in line) return line.result;
    throw new Error('no result');
  }
  async pull(asked: Omit<PullRequest, 'account'>): Promise<{imageId: string; taken?: {peers: number; registry: number}}> {
    for await (const line of this.images.pull({account: 'default', ...asked}, undefined, new AbortController().signal)) if ('result' in line) return {imageId: line.result.image.imageId, taken: line.result.taken};
    throw new Error('no result');
  }

  async leftovers(): Promise<string[]> {
    const {client} = this.world;
    const left: string[] = [];
    for await (const {info} of client.content.list({})) left.push(...info.map((i) => i.digest));
    for await (const {info} of client.snapshots.list({snapshotter: 'overlayfs'})) left.push(...info.map((i) => i.name));
    left.push(...(await client.content.listStatuses({})).statuses.map((s) => s.ref), ...(await client.leases.list({})).leases.map((l) => l.id));
    return left;
  }
  async clear(): Promise<void> {
    for (const {name} of (await this.world.client.images.list({})).images) await this.world.client.images.delete({name, sync: true});
    let left: string[] = [];
    await until('blobs, snapshots, ingests and leases to be gone', async () => (left = await this.leftovers()).length === 0).catch((err: Error) => { throw new Error(`${err.message}: ${left.join(' ')}`); });
  }
}

/** Between the nodes and the registry: counts what it answers, and holds bytes back when it is told to. */
class CountingProxy {
  bytes = 0;
  blobs: string[] = [];
  gate: Promise<void> = Promise.resolve();
  host = '';
  private readonly server = http.createServer((req, res) => void this.pass(req, res));
  constructor(private readonly target: string) {}
  async start(): Promise<this> {
    await new Promise<void>((resolve) => this.server.listen(0, '127.0.0.1', resolve));
    this.host = `127.0.0.1:${(this.server.address() as AddressInfo).port}`;
    return this;
  }
  private async pass(req: http.IncomingMessage, res: http.ServerResponse): Promise<void> {
    if (/\/blobs\//.test(req.url!) && req.method === 'GET') {
      this.blobs.push(req.url!.split('/').at(-1)!);
      await this.gate;
    }
    const answer = await request(`${this.target}${req.url!}`, {method: req.method as 'GET', headers: {accept: String(req.headers.accept ?? '*/*'), ...(req.headers.range ? {range: req.headers.range} : {})}});
    res.writeHead(answer.statusCode, answer.headers as http.OutgoingHttpHeaders);
    for await (const chunk of answer.body as AsyncIterable<Buffer>) {
      this.bytes += chunk.length;
      res.write(chunk);
    }
    res.end();
  }
  stop(): void {
    this.server.closeAllConnections();
    this.server.close();
  }
}

let directory: string;
let authority: TestAuthority;
let registry: TestRegistry;
let proxy: CountingProxy;
let nodes: TestNode[];
let image: BuiltImage;

beforeAll(async () => {
  directory = await fs.mkdtemp(path.join(os.tmpdir(), 'cetus-peers-'));
  authority = new TestAuthority(directory);
  registry = await startRegistry();
  nodes = await Promise.all(['n1', 'n2', 'n3', 'n4'].map(async (id) => new TestNode(id, await testContainerd(NAMESPACE), authority.identity(id, 'node')).open()));
  image = buildImage(await bigLayers(11_300_000, 3));
  await pushImage(registry.url, 'app', ['1'], image);
});
afterAll(async () => {
  for (const node of nodes ?? []) {
    await node.close();
    await node.world.stop();
  }
  await registry?.stop();
  await fs.rm(directory, {recursive: true, force: true});
});
beforeEach(async () => { proxy = await new CountingProxy(registry.url).start(); });
afterEach(async () => {
  proxy.stop();
  await Promise.all(nodes.map((node) => node.clear()));
});

const blobBytes = (): number => image.config.length + image.layers.reduce((sum, l) => sum + l.bytes.length, 0);
const wanted = (peers: Peer[], reference?: string): Omit<EnsureRequest, 'account'> => ({imageId: image.imageId, manifest: image.descriptor, peers, ...(reference ? {reference} : {})});

describe('one download', () => {
  test('four nodes, one after the first: the registry gives each byte once', async () => {
    const [first, ...others] = nodes;
    await first!.pull({reference: `${proxy.host}/app:1`});
    const peers = nodes.map((n) => n.peer);
    const results = await Promise.all(others.map((node) => node.ensure(wanted(peers, `${proxy.host}/app@${image.digest}`))));
    for (const result of results) {
      expect(result.image).toMatchObject({imageId: image.imageId, manifest: {digest: image.digest}});
      expect(result.taken).toEqual({peers: blobBytes() - image.config.length + image.config.length + image.manifest.length, registry: 0});
      expect(result.complaints.filter((c) => c.kind !== 'lacks' && c.kind !== 'busy')).toEqual([]);
    }
    expect([...proxy.blobs].sort()).toEqual([image.imageId, ...image.layers.map((l) => l.digest)].sort());
    expect(proxy.bytes / (blobBytes() + image.manifest.length)).toBeLessThan(1.01);
    for (const node of nodes) expect(await node.images.prepare(image.imageId, image.digest)).toMatchObject({config: {os: 'linux'}});
  });

  test('four nodes at the same moment: the others wait for the one that fetches', async () => {
    let open!: () => void;
    proxy.gate = new Promise((resolve) => { open = resolve; });
    const peers = nodes.map((n) => n.peer);
    const [first, ...others] = nodes;
    const leading = first!.pull({reference: `${proxy.host}/app:1`, peers});
    await until('the first to ask for the config', () => proxy.blobs.length === 1);
    open();
    await until('the first to ask for a layer', () => proxy.blobs.length > 1);
    const results = await Promise.all(others.map((node) => node.pull({reference: `${proxy.host}/app:1`, peers})));
    await leading;
    for (const {imageId, taken} of results) {
      expect(imageId).toBe(image.imageId);
      expect(taken!.registry).toBe(0);
    }
    for (const {digest} of image.layers) expect(proxy.blobs.filter((d) => d === digest)).toHaveLength(1);
  });

  test('two nodes at once from one that serves a single blob at a time', async () => {
    const [giver, ...takers] = nodes;
    await giver!.close();
    await giver!.open({servedBlobs: 1});
    await giver!.pull({reference: `${registry.host}/app:1`});
    const results = await Promise.all(takers.map((node) => node.ensure(wanted([giver!.peer]))));
    for (const {complaints} of results) expect(complaints).toEqual([]);
    await giver!.close();
    await giver!.open();
  });
});

describe('a peer that', () => {
  type Answer = (req: http.IncomingMessage, res: http.ServerResponse, bytes: Buffer, from: number) => void;
  const asked: string[] = [];
  const taken = async (limits?: Partial<ImageLimits>): Promise<void> => {
    await nodes[1]!.close();
    await nodes[1]!.open(limits);
  };
  beforeAll(() => taken(IMPATIENT));
  afterAll(() => taken());

  /** In the place of a node of that id. */
  async function impostor(answer: Answer, use: (peer: Peer) => Promise<void>, identity = authority.identity('n0', 'node')): Promise<void> {
    const blobs = new Map([[image.digest, image.manifest], [image.imageId, image.config], ...image.layers.map((l) => [l.digest, l.bytes] as const)]);
    asked.length = 0;
    const server = https.createServer({...identity, requestCert: true, rejectUnauthorized: true}, (req, res) => {
      const digest = /sha256:[0-9a-f]+/.exec(req.url!)![0];
      asked.push(`${digest} ${req.headers.range ?? ''}`);
      const bytes = blobs.get(digest)!;
      const from = Number(/bytes=(\d+)-/.exec(req.headers.range ?? '')?.[1] ?? 0);
      const small = digest === image.digest || digest === image.imageId;
      if (small) honest(req, res, bytes, from);
      else answer(req, res, bytes, from);
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    try {
      await use({nodeId: 'n0', url: `https://127.0.0.1:${(server.address() as AddressInfo).port}`});
    } finally {
      server.closeAllConnections();
      server.close();
    }
  }
  const head = (res: http.ServerResponse, bytes: Buffer, from: number): http.ServerResponse =>
    (from > 0 ? res.writeHead(206, {'content-length': bytes.length - from, 'content-range': `bytes ${from}-${bytes.length - 1}/${bytes.length}`}) : res.writeHead(200, {'content-length': bytes.length}));
  const honest: Answer = (_req, res, bytes, from) => void head(res, bytes, from).end(bytes.subarray(from));

  const BAD: [name: string, kind: string, answer: Answer][] = [
    ['gives other bytes', 'lied', (_req, res, bytes, from) => void head(res, bytes, from).end(Buffer.alloc(bytes.length - from, 'x'))],
    ['stops in the middle', 'broke', (_req, res, bytes, from) => { head(res, bytes, from).write(bytes.subarray(from, Math.floor(bytes.length / 2)), () => res.destroy()); }],
    ['says that there is less', 'lied', (_req, res, bytes) => void res.writeHead(200, {'content-length': 1000}).end(bytes.subarray(0, 1000))],
    ['has no end', 'broke', (_req, res, bytes) => {
      const more = (): void => { if (!res.destroyed) res.write(bytes, () => setImmediate(more)); };
      res.writeHead(200);
      more();
    }],
    ['says nothing', 'stalled', (_req, res, bytes, from) => void head(res, bytes, from).write(bytes.subarray(from, from + 10))],
    ['drips other bytes', 'stalled', (_req, res, bytes, from) => {
      head(res, bytes, from);
      const timer = setInterval(() => res.write(Buffer.from('x')), 20);
      res.once('close', () => clearInterval(timer));
    }],
    ['sends another range', 'broke', (_req, res, bytes, from) => {
      if (from > 0) return void res.writeHead(206, {'content-length': 10, 'content-range': `bytes 0-9/${bytes.length}`}).end(bytes.subarray(0, 10));
      head(res, bytes, from).write(bytes.subarray(0, 1_000_000), () => res.destroy());
    }],
    ['answers with an error', 'broke', (_req, res) => void res.writeHead(500, {'content-length': 0}).end()],
  ];
  test.each(BAD)('%s is given up, and another asked', async (_name, kind, answer) => {
    const [good, taker] = nodes;
    await good!.pull({reference: `${registry.host}/app:1`});
    await impostor(answer, async (bad) => {
      const {image: taken, complaints} = await taker!.ensure(wanted([bad, good!.peer]));
      expect(taken.imageId).toBe(image.imageId);
      expect(complaints.filter((c) => c.nodeId === 'n0').map((c) => c.kind)).toEqual([kind]);
      expect(complaints.filter((c) => c.nodeId !== 'n0')).toEqual([]);
    });
  });
  test.each(BAD)('%s, and nobody else: the registry, or an error that leaves nothing', async (_name, kind, answer) => {
    const [, taker] = nodes;
    await impostor(answer, async (bad) => {
      const failure = await taker!.ensure(wanted([bad])).then(() => undefined, (err: Error) => err);
      expect(failure).toMatchObject({kind: 'unavailable', message: expect.stringContaining('no node gives sha256:')});
      const {taken, complaints} = await taker!.ensure(wanted([bad], `${proxy.host}/app@${image.digest}`));
      expect(complaints.map((c) => c.kind)).toEqual([kind]);
      expect(taken.registry).toBeGreaterThan(0);
      // Where somebody began with other bytes, the registry's end of the blob was in vain.
      expect(proxy.bytes).toBeLessThanOrEqual((kind === 'stalled' ? 2 : 1) * blobBytes());
    });
  });

  test('dies in the middle: the next one goes on from there', async () => {
    const [, taker, good] = nodes;
    const [layer] = image.layers;
    await good!.pull({reference: `${registry.host}/app:1`});
    await impostor((_req, res, bytes, from) => void head(res, bytes, from).write(bytes.subarray(from, 1_300_000), () => res.destroy()), async (bad) => {
      const ranges: string[] = [];
      await impostorOf(good!, ranges, async (witness) => {
        const {taken} = await taker!.ensure(wanted([bad, witness]));
        expect(taken.peers).toBeLessThan(blobBytes() + image.manifest.length + 4 * 64 * 1024);
      });
      expect(ranges.some((r) => Number(/bytes=(\d+)-/.exec(r)?.[1] ?? 0) > 500_000)).toBe(true);
      expect(layer!.bytes.length).toBeGreaterThan(1_300_000);
    });
  });

  test('comes back after the taker was cut off: it goes on where it stopped', async () => {
    const [, taker] = nodes;
    let broken = true;
    await impostor((req, res, bytes, from) => {
      if (!broken) return honest(req, res, bytes, from);
      // Held back, not cut off: what a connection's end takes along is not ours to say.
      head(res, bytes, from).write(bytes.subarray(from, 1_300_000));
    }, async (peer) => {
      await expect(taker!.ensure(wanted([peer]))).rejects.toMatchObject({kind: 'unavailable'});
      await taker!.close();
      // Its next life: nothing in memory, what was half fetched on disk.
      await taker!.open(IMPATIENT);
      broken = false;
      asked.length = 0;
      expect((await taker!.ensure(wanted([peer]))).image.imageId).toBe(image.imageId);
      expect(asked.some((line) => Number(/bytes=(\d+)-/.exec(line)?.[1] ?? 0) > 500_000)).toBe(true);
    });
  });

  test('is another node than the one that was meant gets no word', async () => {
    const [, taker] = nodes;
    await impostor(honest, async (peer) => {
      await expect(taker!.ensure(wanted([{...peer, nodeId: 'n9'}]))).rejects.toMatchObject({kind: 'unavailable'});
      expect(asked).toEqual([]);
    });
    const strangers = new TestAuthority(directory, 'strangers');
    await impostor(honest, async (peer) => {
      await expect(taker!.ensure(wanted([peer]))).rejects.toMatchObject({kind: 'unavailable'});
      expect(asked).toEqual([]);
    }, strangers.identity('n0', 'node'));
  });

  /** The node, with a witness before it who notes the ranges. */
  async function impostorOf(node: TestNode, ranges: string[], use: (peer: Peer) => Promise<void>): Promise<void> {
    const dispatcher = new Agent({connect: {...authority.identity('n8', 'node')}});
    const server = https.createServer({...authority.identity('n7', 'node'), requestCert: true, rejectUnauthorized: true}, (req, res) => void (async () => {
      if (req.headers.range) ranges.push(req.headers.range);
      const answer = await request(`${node.peer.url}${req.url!}`, {dispatcher, headers: req.headers.range ? {'range': req.headers.range, 'if-range': String(req.headers['if-range'])} : {}});
      res.writeHead(answer.statusCode, answer.headers as http.OutgoingHttpHeaders);
      answer.body.pipe(res);
    })());
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    try {
      await use({nodeId: 'n7', url: `https://127.0.0.1:${(server.address() as AddressInfo).port}`});
    } finally {
      await dispatcher.destroy();
      server.closeAllConnections();
      server.close();
    }
  }
});

describe('who may take', () => {
  const ask = async (node: TestNode, identity: Identity, at: string, method: 'GET' | 'HEAD' | 'POST' = 'GET', headers: Record<string, string> = {}): Promise<{status: number; body: Buffer; headers: Record<string, unknown>}> => {
    const dispatcher = new Agent({connect: identity});
    try {
      const answer = await request(`${node.peer.url}${at}`, {dispatcher, method, headers});
      return {status: answer.statusCode, body: Buffer.from(await answer.body.arrayBuffer()), headers: answer.headers};
    } finally {
      await dispatcher.destroy();
    }
  };

  test('nodes take blobs and give no orders; endpoints may both; nobody else anything', async () => {
    const [node] = nodes;
    await node!.pull({reference: `${registry.host}/app:1`});
    const [layer] = image.layers;
    const at = `/v1/blobs/${layer!.digest}`;
    const asNode = authority.identity('n6', 'node');
    expect(await ask(node!, asNode, at)).toMatchObject({status: 200, body: layer!.bytes, headers: {'etag': `"${layer!.digest}"`, 'accept-ranges': 'bytes'}});
    expect(await ask(node!, asNode, at, 'HEAD')).toMatchObject({status: 200, headers: {'content-length': String(layer!.bytes.length)}});
    expect(await ask(node!, asNode, at, 'GET', {'range': 'bytes=10-19', 'if-range': `"${layer!.digest}"`})).toMatchObject({status: 206, body: layer!.bytes.subarray(10, 20)});
    expect(await ask(node!, asNode, at, 'GET', {'range': 'bytes=10-19', 'if-range': '"another"'})).toMatchObject({status: 200, body: layer!.bytes});
    expect(await ask(node!, asNode, at, 'GET', {range: `bytes=${layer!.bytes.length}-`})).toMatchObject({status: 416});
    expect(await ask(node!, asNode, `/v1/blobs/sha256:${'0'.repeat(64)}`)).toMatchObject({status: 404});
    expect(await ask(node!, asNode, '/v1/blobs/..%2f..%2fetc%2fpasswd')).toMatchObject({status: 400});
    for (const order of ['/v1/images', '/v1/info', '/v1/inventory']) expect(await ask(node!, asNode, order)).toMatchObject({status: 403});
    expect(await ask(node!, asNode, '/v1/tasks', 'POST')).toMatchObject({status: 403});
    expect(await ask(node!, authority.identity('e1', 'endpoint'), at)).toMatchObject({status: 200});
    expect(await ask(node!, authority.identity('e1', 'endpoint'), '/v1/images')).toMatchObject({status: 200});
    expect(await ask(node!, authority.identity('guest', 'guest'), at)).toMatchObject({status: 401});
    await expect(ask(node!, new TestAuthority(directory, 'others').identity('n6', 'node'), at)).rejects.toThrow();
  });

  test('what a node keeps, and how full its disk is', async () => {
    const [node] = nodes;
    await node!.pull({reference: `${registry.host}/app:1`});
    const {images, disk} = await node!.images.held();
    expect(images).toEqual([{account: 'default', imageId: image.imageId, manifestDigest: image.digest}]);
    expect(disk.totalBytes).toBeGreaterThan(disk.freeBytes);
    expect(disk.freeBytes).toBeGreaterThan(0);
  });
});
