/** Registries that lie or stall, against a real `cetus up`: what they serve goes no further, and who waits for them has a bounded wait. */
import {LyingRegistry, rangeStart, sendRange} from '../agent/images/lying-registry';
import {type Answer, type Asked, ask, badInputSuite, datacenter, nothingIsLeft, q, SECRET} from '../harness/bad-input';
import {buildImage, buildLayer, busyboxLayer, digestOf, noise} from '../harness/images';
import {whereKept} from '../harness/secrets';
import {until} from '../harness/wait';

/** Who waits for a registry that stalls; begun first, so that the others' time is theirs too. */
let silent: {registry: LyingRegistry; answer: Promise<Answer>};
let halting: {registry: LyingRegistry; answer: Promise<Answer>; layer: Buffer; path: string};

badInputSuite({
  begin: async () => {
    silent = await silentRegistry();
    halting = await haltingRegistry();
  },
  end: () => Promise.all([silent.registry.stop(), halting.registry.stop()]),
});

const secretForms = (): RegExp => new RegExp([SECRET, Buffer.from(`jill:${SECRET}`).toString('base64').replace(/=+$/, '')].join('|'));

describe('a registry that', () => {
  let registry: LyingRegistry;
  beforeEach(async () => { registry = await new LyingRegistry().start(); });
  afterEach(() => registry.stop());

  const serve = async (name: string, change: (image: ReturnType<typeof buildImage>) => void = () => undefined): Promise<ReturnType<typeof buildImage>> => {
    const image = buildImage([await busyboxLayer()], {config: {Labels: {name}}});
    change(image);
    registry.serve(`/v2/${name}/manifests/1`, image.manifest, {'content-type': image.descriptor.mediaType, 'docker-content-digest': image.digest});
    registry.serve(`/v2/${name}/manifests/${image.digest}`, image.manifest, {'content-type': image.descriptor.mediaType});
    registry.serve(`/v2/${name}/blobs/${image.imageId}`, image.config);
    for (const layer of image.layers) registry.serve(`/v2/${name}/blobs/${layer.digest}`, layer.bytes);
    return image;
  };
  const pull = (reference: string, headers: Record<string, string> = {}): Promise<Answer> => {
    const at = reference.lastIndexOf(reference.includes('@') ? '@' : ':');
    return ask('POST', `/images/create?fromImage=${q(`${registry.host}/${reference.slice(0, at)}`)}&tag=${q(reference.slice(at + 1))}`, {headers});
  };

  test('serves another manifest than asked', async () => {
    await serve('honest');
    const wanted = digestOf('something else');
    registry.paths.set(`/v2/honest/manifests/${wanted}`, registry.paths.get('/v2/honest/manifests/1')!);
    expect((await pull(`honest@${wanted}`)).body).toMatch(/manifest verification failed|digest/i);
  });

  test('serves another layer', async () => {
    const image = await serve('liar');
    registry.serve(`/v2/liar/blobs/${image.layers[0].digest}`, noise(image.layers[0].bytes.length));
    expect((await pull('liar:1')).body).toMatch(/verification failed|digest/i);
  });

  test('serves another config', async () => {
    const image = await serve('actor');
    registry.serve(`/v2/actor/blobs/${image.imageId}`, noise(image.config.length));
    expect((await pull('actor:1')).body).toMatch(/verification failed|digest/i);
  });

  test('serves what is no manifest', async () => {
    registry.serve('/v2/joker/manifests/1', Buffer.from('{"schemaVersion":2,"layers":"none"}'), {'content-type': 'application/vnd.oci.image.manifest.v1+json'});
    const answer = await pull('joker:1');
    expect(answer.status >= 400 || /"error"/.test(answer.body)).toBe(true);
    expect(answer.status).not.toBe(500);
  });

  test('serves a manifest without end', async () => {
    registry.paths.set('/v2/talker/manifests/1', (req, res) => {
      if (req.method === 'HEAD') return void res.writeHead(405).end();
      res.setHeader('content-type', 'application/vnd.oci.image.manifest.v1+json');
      const write = (): void => { if (!res.destroyed) res.write(Buffer.alloc(65536, 0x20), () => setImmediate(write)); };
      write();
    });
    expect((await pull('talker:1')).body).toMatch(/larger|too large|limit|longer/);
  });

  test('says the password back: it goes no further', async () => {
    const auth = Buffer.from(JSON.stringify({username: 'jill', password: SECRET, serveraddress: registry.host})).toString('base64url');
    registry.paths.set('/v2/', (req, res) => {
      res.writeHead(401, {'www-authenticate': 'Basic realm="parrot"', 'content-type': 'application/json'});
      res.end(JSON.stringify({errors: [{code: 'UNAUTHORIZED', message: `no: ${req.headers.authorization ?? ''}`}]}));
    });
    registry.paths.set('/v2/parrot/manifests/1', (req, res) => {
      const given = req.headers.authorization ?? '';
      res.writeHead(401, {'www-authenticate': 'Basic realm="parrot"', 'content-type': 'application/json'});
      res.end(JSON.stringify({errors: [{code: 'UNAUTHORIZED', message: `no: ${given} ${Buffer.from(given.replace('Basic ', ''), 'base64').toString()}`}]}));
    });
    const answer = await pull('parrot:1', {'x-registry-auth': auth});
    expect(registry.to('/v2/parrot/manifests/1').some((r) => r.headers.authorization !== undefined)).toBe(true);
    expect(answer.body).toMatch(/unauthorized/);
    expect(answer.body).not.toMatch(secretForms());
    expect(await whereKept(datacenter(), [SECRET, Buffer.from(`jill:${SECRET}`).toString('base64'), auth])).toEqual([]);
  });
});

/** From a plain registry of this machine; progress comes with the answer's body. */
const pullFrom = (registry: LyingRegistry, name: string, asked: Asked = {}): Promise<Answer> => ask('POST', `/images/create?fromImage=${q(`${registry.host}/${name}`)}&tag=1`, {timeoutMs: 110_000, ...asked});

async function silentRegistry(): Promise<typeof silent> {
  const registry = await new LyingRegistry().start();
  registry.paths.set('/v2/', () => undefined);
  return {registry, answer: pullFrom(registry, 'silent')};
}

/** Half a layer, and then nothing. */
async function haltingRegistry(wait = true): Promise<typeof halting> {
  const registry = await new LyingRegistry().start();
  // A layer of its own: those who want the same one share its download, wherever it comes from.
  const {manifest, descriptor, imageId, config, layers} = buildImage([await buildLayer([{name: 'noise', content: noise(300_000, registry.requests.length + Number(registry.host.split(':')[1]))}])]);
  registry.serve('/v2/halting/manifests/1', manifest, {'content-type': descriptor.mediaType, 'docker-content-digest': descriptor.digest});
  registry.serve(`/v2/halting/manifests/${descriptor.digest}`, manifest, {'content-type': descriptor.mediaType});
  registry.serve(`/v2/halting/blobs/${imageId}`, config);
  const [{bytes: layer, digest}] = layers;
  const path = `/v2/halting/blobs/${digest}`;
  registry.paths.set(path, (req, res) => {
    const from = rangeStart(req);
    res.writeHead(from ? 206 : 200, {'content-length': layer.length - from, ...(from ? {'content-range': `bytes ${from}-${layer.length - 1}/${layer.length}`} : {})});
    if (from < layer.length / 2) res.write(layer.subarray(from, layer.length / 2));
    else res.flushHeaders();
  });
  return {registry, layer, path, answer: wait ? pullFrom(registry, 'halting') : Promise.reject(new Error('nobody asked'))};
}

describe('a registry that stalls', () => {
  const jobs = async (reference: string): Promise<string[]> => (await datacenter().admin<{workflow: string; target: string; execution: string}[]>('/v1/jobs?limit=1000'))
    .filter((job) => job.workflow === 'image.pull' && job.target.includes(reference)).map((job) => job.execution);

  test('lets go with the last of its clients, before it has answered anything', async () => {
    const registry = await new LyingRegistry().start();
    const open = new Set<unknown>();
    registry.paths.set('/v2/', (_req, res) => { open.add(res); res.on('close', () => open.delete(res)); });
    const client = new AbortController();
    const gone = pullFrom(registry, 'deserted', {signal: client.signal}).catch((err: Error) => err.name);
    await until('the registry to be asked', () => open.size === 1);
    client.abort();
    expect(await gone).toBe('AbortError');
    await until('the download to end', () => open.size === 0, 15_000);
    await until('the job to be canceled', async () => (await jobs(`${registry.host}/deserted`)).join() === 'canceled', 15_000);
    await registry.stop();
  });

  test('in the middle of a layer: the first client leaves, the second still waits, then it leaves too', async () => {
    const {registry, path, answer} = await haltingRegistry(false);
    answer.catch(() => undefined);
    const half = registry.paths.get(path)!;
    const open = new Set<unknown>();
    registry.paths.set(path, (req, res) => { open.add(res); res.on('close', () => open.delete(res)); half(req, res); });
    const clients = [new AbortController(), new AbortController()];
    const shown = new Set<number>();
    const pulls = clients.map(({signal}, n) => pullFrom(registry, 'halting', {signal, began: () => shown.add(n)}).catch((err: Error) => err.name));
    // Both are shown how it goes: the second is there before the first leaves. At another endpoint it waits for the first one's job, and is shown nothing yet.
    await until('the layer to be asked for, for both', () => open.size === 1 && shown.size === (datacenter().isFleet ? 1 : 2));
    const [first] = shown;
    const second = 1 - first!;
    clients[first!].abort();
    expect(await pulls[first!]).toBe('AbortError');
    expect((await ask('GET', '/_ping')).status).toBe(200);
    // The first one's job ends once that client is known to be gone: over TCP within a minute for each hop (lib/base/hang-up.ts).
    if (datacenter().isFleet) await until('the second to ask for the layer', () => registry.to(path).length === 2 && open.size === 1, 150_000);
    expect(open.size).toBe(1);
    clients[second].abort();
    expect(await pulls[second]).toBe('AbortError');
    await until('the download to end', () => open.size === 0, datacenter().isFleet ? 150_000 : 15_000);
    await until('each job to be canceled', async () => new Set(await jobs(`${registry.host}/halting`)).size === 1 && (await jobs(`${registry.host}/halting`))[0] === 'canceled', 15_000);
    expect(registry.to(path)).toHaveLength((await jobs(`${registry.host}/halting`)).length);
    if (!datacenter().isFleet) expect(registry.to(path)).toHaveLength(1);
    await registry.stop();
  }, 400_000);

  test('is named to who waits, within its bounds', async () => {
    const {status, message} = await silent.answer;
    expect(status).toBe(504);
    expect(message).toContain(`Get "http://${silent.registry.host}/v2/": net/http: request canceled`);
    expect(silent.registry.requests.length).toBeLessThanOrEqual(3);
  }, 240_000);

  test('in the middle of a layer: likewise, and the next pull takes the rest', async () => {
    const {registry, answer, path, layer} = halting;
    const {body} = await answer;
    expect(body).toMatch(/"error":/);
    expect(body).toContain(registry.host);
    expect(registry.to(path).length).toBeLessThanOrEqual(3);
    registry.paths.set(path, (req, res) => sendRange(res, layer, rangeStart(req), layer.length, false));
    expect((await pullFrom(registry, 'halting')).body).toMatch(/Downloaded newer image/);
    await datacenter().ok(['rmi', `${registry.host}/halting:1`]);
  }, 240_000);
});

nothingIsLeft();
