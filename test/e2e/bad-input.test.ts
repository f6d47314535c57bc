/**
 * What clients should not send, through real sockets, to a real `cetus up`: each gets a clear 4xx or a bounded wait, and at the end nothing is
 * left behind: no object, no file, no descriptor, no memory, no word of a credential.
 */
import fs from 'node:fs';
import http from 'node:http';
import net from 'node:net';
import path from 'node:path';
import {gzipSync} from 'node:zlib';
import {LyingRegistry, rangeStart, sendRange} from '../agent/images/lying-registry';
import {NOTHING_LEFT, startCetus, type TestDatacenter} from '../harness/cetus';
import {busyboxArchive} from '../harness/busybox';
import {buildImage, buildLayer, busyboxLayer, digestOf, noise, tarOf} from '../harness/images';
import {whereKept} from '../harness/secrets';
import {until} from '../harness/wait';

interface Answer { status: number; type: string; body: string; message: string }
/** `began` is told of each piece of the answer's body. */
interface Asked { body?: string | Buffer; headers?: Record<string, string>; timeoutMs?: number; signal?: AbortSignal; began?(): void }

let dc: TestDatacenter;
let address: {host: string; port: number};
let before: Footprint;
/** Who waits for a registry that stalls; begun first, so that the others' time is theirs too. */
let silent: {registry: LyingRegistry; answer: Promise<Answer>};
let halting: {registry: LyingRegistry; answer: Promise<Answer>; layer: Buffer; path: string};
/** Heads that never end; whether they were cut is looked at last. */
const loris: net.Socket[] = [];
/** Idle connections between endpoint and agent, which come and go. */
const POOLED = 8;
const SECRET = 'hunter2-never-to-be-seen';

beforeAll(async () => {
  dc = await startCetus();
  const {hostname, port} = new URL(dc.running.listen[0]);
  address = {host: hostname, port: Number(port)};
  await dc.ok(['load', '-i', await busyboxArchive()]);
  await dc.ok(['run', '-d', '--name', 'box', 'busybox', 'sleep', '10000']);
  await dc.ok(['run', '--rm', 'busybox', 'true']);
  await until('what made the world to be over', async () => {
    before = await footprint();
    return before.objects['locks'] === 0;
  });
  silent = await silentRegistry();
  halting = await haltingRegistry();
  for (let i = 0; i < 50; i += 1) {
    const socket = net.connect(address);
    socket.on('error', () => undefined).resume();
    socket.write('GET /_ping HTTP/1.1\r\nHost: x\r\nX-Slow: ');
    loris.push(socket);
  }
}, 240_000);
afterAll(async () => {
  for (const socket of loris) socket.destroy();
  await dc.docker(['rm', '-fv', 'box']);
  await Promise.all([silent.registry.stop(), halting.registry.stop()]);
  expect(await dc.destroy()).toEqual(NOTHING_LEFT);
}, 240_000);

interface Footprint { objects: Record<string, number>; node: Record<string, number>; files: string[]; descriptors: Record<string, number>; rss: Record<string, number> }

async function footprint(): Promise<Footprint> {
  const count = async (bucket: string): Promise<number> => (await dc.admin<unknown[]>(`/v1/store/${bucket}?limit=1000`)).length;
  const buckets = ['containers', 'images', 'image_refs', 'networks', 'subnets', 'addresses', 'ports', 'volumes', 'locks'];
  const [node] = await dc.admin<{name: string}[]>('/v1/nodes');
  const inventory = await dc.admin<Record<string, unknown[]>>(`/v1/nodes/${node.name}/inventory`);
  const pids = dc.pids();
  const ours = ['endpoint', 'agent'];
  return {
    objects: Object.fromEntries(await Promise.all(buckets.map(async (b) => [b, await count(b)] as const))),
    node: Object.fromEntries(Object.entries(inventory).map(([kind, list]) => [kind, list.length])),
    files: filesBelow(path.join(dc.dataDir, 'containerd')).filter((f) => /content\.v1\.content\/(ingest|blobs)\//.test(f)),
    descriptors: Object.fromEntries(ours.map((name) => [name, fs.readdirSync(`/proc/${pids[name]}/fd`).length])),
    rss: Object.fromEntries(ours.map((name) => [name, Number(fs.readFileSync(`/proc/${pids[name]}/statm`, 'utf8').split(' ')[1]) * 4096])),
  };
}

function filesBelow(directory: string): string[] {
  try {
    return fs.readdirSync(directory, {withFileTypes: true}).flatMap((e) => (e.isDirectory() ? filesBelow(path.join(directory, e.name)) : [path.join(directory, e.name)])).sort();
  } catch {
    return []; // gone while we looked
  }
}

function ask(method: string, target: string, {body, headers, timeoutMs = 60_000, signal, began}: Asked = {}): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const json = body !== undefined && headers === undefined ? {'content-type': 'application/json'} : {};
    const req = http.request({...address, method, path: target, agent: false, headers: {...json, ...headers}, timeout: timeoutMs, signal}, (res) => {
      let text = '';
      res.setEncoding('utf8').on('data', (c: string) => { text += c; began?.(); }).on('end', () => resolve({status: res.statusCode!, type: res.headers['content-type'] ?? '', body: text, message: messageOf(text)})).on('error', reject);
    });
    req.on('timeout', () => req.destroy(new Error(`${method} ${target} was not answered`))).on('error', reject);
    req.end(body);
  });
}

function messageOf(text: string): string {
  try {
    return String((JSON.parse(text) as {message?: string}).message);
  } catch {
    return '';
  }
}

/** Everything that came for these bytes until the server ended or `quiet`. */
function raw(bytes: string | Buffer, boundMs = 30_000): Promise<string> {
  return new Promise((resolve) => {
    let text = '';
    const socket = net.connect(address, () => socket.write(bytes));
    const timer = setTimeout(() => socket.destroy(), boundMs);
    socket.on('data', (c: Buffer) => { text += c.toString('latin1'); }).on('error', () => undefined).on('close', () => { clearTimeout(timer); resolve(text); });
  });
}

const q = encodeURIComponent;
const filters = (value: unknown): string => `filters=${q(typeof value === 'string' ? value : JSON.stringify(value))}`;
const create = (body: object | string): [string, string, Asked] => ['POST', '/containers/create', {body: typeof body === 'string' ? body : JSON.stringify({Image: 'busybox', Cmd: ['true'], ...body})}];
const text = (type: string): Asked => ({body: '{"Image":"busybox"}', headers: {'content-type': type}});

type Case = [what: string, request: [method: string, path: string, asked?: Asked], status: number | number[], says: RegExp];
const CASES: Case[] = [
  // Bodies
  ['cut JSON', create('{"Image":'), 400, /invalid JSON/],
  ['no body', ['POST', '/containers/create', {headers: {'content-type': 'application/json'}}], 400, /EOF/],
  ['null', create('null'), 400, /JSON/],
  ['a list', create('[]'), 400, /object/],
  ['a word', create('"busybox"'), 400, /object/],
  ['100,000 brackets', create('['.repeat(100_000)), 400, /invalid JSON/],
  ['100,000 nested objects', create(`{"Image":${'{"a":'.repeat(100_000)}1${'}'.repeat(100_000)}}`), 400, /invalid JSON|Image/],
  ['text/plain', ['POST', '/containers/create', text('text/plain')], 400, /Content-Type/],
  ['no media type', ['POST', '/containers/create', {body: '{}', headers: {}}], 400, /Content-Type/],
  ['a number for a text', create({Image: 5}), 400, /Image/],
  ['a text for a number', create({HostConfig: {Memory: '64m'}}), 400, /Memory/],
  ['half a byte', create({HostConfig: {Memory: 7e7 + 0.5}}), 400, /Memory/],
  ['more bytes than there are', create({HostConfig: {Memory: 1e300}}), 400, /Memory/],
  ['a list with holes', create({Cmd: ['echo', null]}), 400, /Cmd/],
  ['no image', create('{"Cmd":["true"]}'), 400, /no image specified/],
  ['an unknown image', create({Image: 'nosuch:x'}), 404, /No such image: nosuch:x/],
  ['an image name with dots', create({Image: '../../etc'}), [400, 404], /invalid reference format|No such image/],
  ['NUL in a command', create({Cmd: ['echo', '\0']}), 400, /NUL|null|\\u0000|character/i],
  ['NUL in a label', create({Labels: {'a\0': 'b'}}), 400, /NUL|null|\\u0000|character/i],
  ['NUL in a variable', create({Env: ['A=\0']}), 400, /NUL|null|\\u0000|character/i],
  ['half a character', create('{"Image":"busybox","Labels":{"a":"\\ud800"}}'), 400, /surrogate|Unicode|character|UTF/i],
  ['bytes that are no UTF-8', ['POST', '/containers/create', {body: Buffer.concat([Buffer.from('{"Image":"busybox","Labels":{"a":"'), Buffer.from([0xff, 0xfe]), Buffer.from('"}}')]), headers: {'content-type': 'application/json'}}], [400, 201], /UTF|^undefined$/],
  ['a variable without a name', create({Env: ['=x']}), 400, /invalid environment variable/],
  ['a relative mount', create({HostConfig: {Binds: ['/tmp:../x']}}), 400, /absolute/],
  ['a mount over everything', create({HostConfig: {Binds: ['/tmp:/']}}), 400, /destination can't be '\/'/],
  ['a volume called ..', create({HostConfig: {Binds: ['..:/x']}}), 400, /volume name|invalid/],
  ['a port that is none', create({HostConfig: {PortBindings: {'99999/tcp': [{}]}}}), 400, /port/],
  ['a host port that is none', create({HostConfig: {PortBindings: {'80/tcp': [{HostPort: '-1'}]}}}), 400, /port/],
  ['a foreign protocol', create({ExposedPorts: {'80/xyz': {}}}), 400, /proto/],
  ['a host name with a space', create({Hostname: 'a b'}), 400, /hostname/],
  // Names and ids
  ['a name with a path', ['POST', `/containers/create?name=${q('../../x')}`, create({})[2]], 400, /Invalid container name/],
  ['a name with NUL', ['POST', '/containers/create?name=a%00b', create({})[2]], 400, /Invalid container name/],
  ['a name of one letter', ['POST', '/containers/create?name=a', create({})[2]], 400, /Invalid container name/],
  ['a name of 5,000 letters', ['POST', `/containers/create?name=${'a'.repeat(5000)}`, create({})[2]], 400, /Invalid container name/],
  ['a name that is taken', ['POST', '/containers/create?name=box', create({})[2]], 409, /Conflict. The container name "\/box" is already in use by container "[0-9a-f]{64}"/],
  ['an unknown id', ['GET', '/containers/nosuch/json'], 404, /No such container: nosuch/],
  ['an id with NUL', ['GET', '/containers/a%00b/json'], [400, 404], /./],
  ['an id of 5,000 letters', ['GET', `/containers/${'f'.repeat(5000)}/json`], 404, /No such container/],
  ['an id with filter characters', ['GET', `/containers/${q('*)(name=*')}/json`], 404, /No such container/],
  ['an id with a broken escape', ['GET', '/containers/%ZZ/json'], [400, 404], /./],
  ['a path as an id', ['GET', `/containers/${q('../../images')}/json`], 404, /No such container/],
  ['a rename to what is no name', ['POST', `/containers/box/rename?name=${q('a b')}`], 400, /Invalid container name/],
  ['a rename to itself', ['POST', '/containers/box/rename?name=box'], [400, 409], /same name|already in use/i],
  // Queries
  ['a limit that is no number', ['GET', '/containers/json?limit=many'], 400, /limit/],
  ['half a filter', ['GET', '/containers/json?filters=%7B'], 400, /invalid filter/],
  ['a list of filters', ['GET', `/containers/json?${filters([1])}`], 400, /invalid filter/],
  ['an unknown filter', ['GET', `/containers/json?${filters({nosuch: ['x']})}`], 400, /invalid filter 'nosuch'/],
  ['an unknown status', ['GET', `/containers/json?${filters({status: ['flying']})}`], 400, /flying/],
  ['an exit code that is none', ['GET', `/containers/json?${filters({exited: ['x']})}`], 400, /exited|invalid/],
  ['a name pattern without end', ['GET', `/containers/json?${filters({name: ['/((/']})}`], 400, /invalid filter 'name=/],
  ['before nobody', ['GET', `/containers/json?${filters({before: ['nosuch']})}`], 404, /nosuch/],
  ['filters of images', ['GET', `/images/json?${filters({nosuch: ['x']})}`], 400, /nosuch/],
  ['filters of networks', ['GET', `/networks?${filters({nosuch: ['x']})}`], 400, /nosuch/],
  ['filters of volumes', ['GET', `/volumes?${filters({nosuch: ['x']})}`], 400, /nosuch/],
  ['filters of events', ['GET', `/events?until=1&${filters({nosuch: ['x']})}`], 400, /nosuch/],
  ['events backwards', ['GET', '/events?since=20&until=10'], 400, /cannot be after/],
  ['events since ever', ['GET', '/events?since=yesterday'], 400, /since/],
  ['logs of nothing', ['GET', '/containers/box/logs'], 400, /at least one stream/],
  ['logs since noon', ['GET', '/containers/box/logs?stdout=1&since=noon'], 400, /since/],
  ['a signal that is none', ['POST', '/containers/box/kill?signal=SIGFOO'], 400, /SIGFOO/],
  ['a stop that takes forever', ['POST', '/containers/box/stop?t=long'], 400, /invalid value for t/],
  ['a condition that is none', ['POST', '/containers/box/wait?condition=tired'], 400, /tired/],
  ['a terminal without a size', ['POST', '/containers/box/resize'], 400, /resize/],
  ['a terminal of negative size', ['POST', '/containers/box/resize?h=-1&w=10'], 400, /resize/],
  ['a type of usage that is none', ['GET', '/system/df?type=gold'], 400, /gold/],
  ['a path that is empty', ['GET', '/containers/box/archive'], 400, /path/],
  // The other nouns
  ['an exec of nothing', ['POST', '/containers/box/exec', {body: '{"Cmd":[]}'}], 400, /No exec command/],
  ['an exec with NUL', ['POST', '/containers/box/exec', {body: '{"Cmd":["a\\u0000"]}'}], 400, /NUL|null|\\u0000|character/i],
  ['an unknown exec', ['POST', '/exec/nosuch/start', {body: '{}'}], 404, /No such exec instance: nosuch/],
  ['less memory than none', ['POST', '/containers/box/update', {body: '{"Memory":-5}'}], 400, /memory/i],
  ['a network without a name', ['POST', '/networks/create', {body: '{}'}], 400, /[Nn]ame/],
  ['a network of 99 bits', ['POST', '/networks/create', {body: JSON.stringify({Name: 'bad', IPAM: {Config: [{Subnet: '10.1.0.0/99'}]}})}], 400, /subnet|10\.1\.0\.0/i],
  ['a gateway elsewhere', ['POST', '/networks/create', {body: JSON.stringify({Name: 'bad', IPAM: {Config: [{Subnet: '10.214.0.0/24', Gateway: '10.9.9.9'}]}})}], 400, /gateway|10\.9\.9\.9/i],
  ['a network with NUL', ['POST', '/networks/create', {body: '{"Name":"a\\u0000b"}'}], 400, /./],
  ['an unknown driver', ['POST', '/networks/create', {body: '{"Name":"bad","Driver":"pigeon"}'}], [400, 404], /pigeon/],
  ['a volume with a path', ['POST', '/volumes/create', {body: '{"Name":"../x"}'}], 400, /volume name/],
  ['a volume of another driver', ['POST', '/volumes/create', {body: '{"Name":"xx","Driver":"nfs"}'}], [400, 404], /nfs/],
  ['a volume with NUL in a label', ['POST', '/volumes/create', {body: '{"Name":"xx","Labels":{"a":"\\u0000"}}'}], 400, /NUL|null|\\u0000|character/i],
  ['a pull of no name', ['POST', '/images/create?fromImage=&tag=x'], 400, /invalid reference/],
  ['a pull with a space', ['POST', `/images/create?fromImage=${q('a b')}`], 400, /invalid reference/],
  ['a pull with dots', ['POST', `/images/create?fromImage=${q('../../x')}`], 400, /invalid reference/],
  ['a pull of a broken tag', ['POST', `/images/create?fromImage=busybox&tag=${q('a b')}`], 400, /invalid reference|invalid tag/],
  ['a pull of half a digest', ['POST', '/images/create?fromImage=busybox&tag=sha256:abc'], 400, /invalid reference|digest/],
  ['a tag with a space', ['POST', `/images/busybox/tag?repo=${q('a b')}`], 400, /invalid reference/],
  ['a tag with NUL', ['POST', '/images/busybox/tag?repo=a&tag=%00'], 400, /invalid/],
  ['a save of nothing', ['GET', '/images/get?names='], 400, /names/],
  ['a save of nobody', ['GET', '/images/get?names=nosuch'], 404, /nosuch/],
  ['a load of nothing', ['POST', '/images/load'], 400, /archive/],
  ['credentials that are no JSON', ['POST', '/images/create?fromImage=127.0.0.1:1/x&tag=1', {headers: {'x-registry-auth': Buffer.from(SECRET).toString('base64url')}}], 400, /X-Registry-Auth/],
  ['credentials that are no base64', ['POST', '/images/create?fromImage=127.0.0.1:1/x&tag=1', {headers: {'x-registry-auth': `{${SECRET}`}}], 400, /X-Registry-Auth/],
  // Versions and paths
  ['too old', ['GET', '/v1.23/containers/json'], 400, /client version 1\.23 is too old\. Minimum supported API version is 1\.24/],
  ['too new', ['GET', '/v1.99/containers/json'], 400, /client version 1\.99 is too new\. Maximum supported API version is 1\.51/],
  ['far too new', ['GET', '/v99999999999999999999.1/info'], 400, /too new/],
  ['no version', ['GET', '/v1./info'], [400, 404], /./],
  ['many dots', ['GET', '/v1.2.3.4/info'], [400, 404], /./],
  ['a word for a version', ['GET', '/vnew/info'], 404, /page not found/],
  ['nothing', ['GET', '/'], 404, /page not found/],
  ['two slashes', ['GET', '//containers/json'], 404, /page not found/],
  ['a way out', ['GET', '/containers/../../etc/passwd'], 404, /page not found|No such/],
  ['another method', ['PATCH', '/containers/json'], [404, 405], /page not found/],
];

describe('refused at once', () => test.each(CASES)('%s', async (_what, request, status, says) => {
  const answer = await ask(...request);
  if (![status].flat().includes(answer.status)) throw new Error(`expected ${String(status)}, got ${answer.status}: ${answer.body.slice(0, 500)}`);
  if (answer.status < 400) return void await cleanUp(answer.body);
  expect(answer.type).toBe('application/json');
  expect(answer.message).toMatch(says);
  expect(answer.body).not.toContain(SECRET);
}));

/** Where either answer is right, the container that was made is taken away again. */
async function cleanUp(body: string): Promise<void> {
  const {Id} = JSON.parse(body) as {Id: string};
  expect((await ask('DELETE', `/containers/${Id}?force=1`)).status).toBe(204);
}

test('a prefix that two containers share is ambiguous', async () => {
  // Of 17 ids two begin alike.
  const made = await Promise.all(Array.from({length: 17}, async () => (JSON.parse((await ask(...create({}))).body) as {Id: string}).Id));
  const first = made.map((id) => id[0]);
  const shared = first.find((letter, at) => first.indexOf(letter) !== at)!;
  const answer = await ask('GET', `/containers/${shared}/json`);
  expect(answer.status).toBe(400);
  expect(answer.message).toMatch(new RegExp(`multiple IDs found with provided prefix: ${shared}`));
  expect((await ask('DELETE', `/containers/${shared}?force=1`)).status).toBe(400);
  for (const id of made) expect((await ask('DELETE', `/containers/${id}`)).status).toBe(204);
});

describe('what is hardly HTTP', () => {
  test.each<[string, string | Buffer, RegExp]>([
    ['noise', noise(4096), /^HTTP\/1\.1 400 /],
    ['a TLS greeting', Buffer.from('16030100c8010000c40303', 'hex'), /^HTTP\/1\.1 400 /],
    ['a space in the target', 'GET /containers/a b/json HTTP/1.1\r\nHost: x\r\n\r\n', /^HTTP\/1\.1 400 /],
    ['both lengths', 'POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n', /^HTTP\/1\.1 400 /],
    ['two lengths', 'POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef', /^HTTP\/1\.1 400 /],
    ['a length that is none', 'POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Length: many\r\n\r\n', /^HTTP\/1\.1 400 /],
    ['a chunk that is none', 'POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n', /^HTTP\/1\.1 400 /],
    ['a header of a megabyte', `GET /_ping HTTP/1.1\r\nHost: x\r\nX-Long: ${'a'.repeat(1 << 20)}\r\n\r\n`, /^HTTP\/1\.1 431 /],
    ['20,000 headers', `GET /_ping HTTP/1.1\r\nHost: x\r\n${Array.from({length: 20_000}, (_, n) => `x${n}: 1\r\n`).join('')}\r\n`, /^HTTP\/1\.1 431 /],
    ['CONNECT', 'CONNECT example.test:443 HTTP/1.1\r\nHost: x\r\n\r\n', /^(HTTP\/1\.1 4\d\d |$)/],
  ])('%s', async (_what, bytes, answers) => {
    expect(await raw(bytes)).toMatch(answers);
    expect((await ask('GET', '/_ping')).status).toBe(200);
  });
});

describe('bodies without end', () => {
  /** Sends until it is answered or cut; says how much was taken and what came. */
  function pour(head: string, chunk: Buffer, boundBytes: number): Promise<{sent: number; answer: string}> {
    return new Promise((resolve) => {
      let sent = 0;
      let answer = '';
      const socket = net.connect(address, () => {
        socket.write(head);
        const more = (): void => {
          while (!socket.destroyed && sent < boundBytes) {
            sent += chunk.length;
            if (!socket.write(chunk)) return void socket.once('drain', more);
          }
          if (sent >= boundBytes) socket.destroy();
        };
        more();
      });
      socket.on('data', (c: Buffer) => { answer += c.toString('latin1'); }).on('error', () => undefined).on('close', () => resolve({sent, answer}));
    });
  }
  const piece = Buffer.concat([Buffer.from('10000\r\n'), Buffer.alloc(0x10000, 0x20), Buffer.from('\r\n')]);
  const BOUND = 1 << 30;

  test('in chunks, to create: refused at the limit, and what still comes is not read for long', async () => {
    const {sent, answer} = await pour('POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n', piece, BOUND);
    expect(answer).toMatch(/^HTTP\/1\.1 400 [\s\S]*larger than/);
    expect(sent).toBeLessThan(BOUND);
  });

  test('of a terabyte, as announced: refused before it begins', async () => {
    expect(await raw('POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000000000000\r\n\r\n{')).toMatch(/^HTTP\/1\.1 400 [\s\S]*larger than/);
  });

  test('to an exec that is hijacked', async () => {
    const {answer} = await pour('POST /exec/nosuch/start HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nTransfer-Encoding: chunked\r\n\r\n', piece, BOUND);
    expect(answer).toMatch(/^HTTP\/1\.1 4\d\d /);
  });

  test('where none is expected', async () => {
    const {answer} = await pour('GET /_ping HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n', piece, BOUND);
    expect(answer).toMatch(/^HTTP\/1\.1 200 /);
  });

  test('an archive that is no archive, without end', async () => {
    const {sent, answer} = await pour('POST /images/load HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n', piece, BOUND);
    expect(answer).toMatch(/invalid archive/);
    expect(sent).toBeLessThan(BOUND);
  });

  test('an archive whose documents are a bomb', async () => {
    const bomb = gzipSync(await tarOf([{name: 'oci-layout', content: '{}'}, {name: 'manifest.json', content: Buffer.alloc(256 << 20, 0x20)}]), {level: 1});
    const answer = await ask('POST', '/images/load', {body: bomb, headers: {'content-type': 'application/x-tar'}});
    expect(answer.body).toMatch(/documents are larger than/);
  });
});

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
    expect(await whereKept(dc, [SECRET, Buffer.from(`jill:${SECRET}`).toString('base64'), auth])).toEqual([]);
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
  const jobs = async (reference: string): Promise<string[]> => (await dc.admin<{workflow: string; target: string; execution: string}[]>('/v1/jobs?limit=1000'))
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
    const [first, second] = clients.map(({signal}, n) => pullFrom(registry, 'halting', {signal, began: () => shown.add(n)}).catch((err: Error) => err.name));
    // Both are shown how it goes: the second is there before the first leaves.
    await until('the layer to be asked for, for both', () => open.size === 1 && shown.size === 2);
    clients[0].abort();
    expect(await first).toBe('AbortError');
    expect((await ask('GET', '/_ping')).status).toBe(200);
    expect(open.size).toBe(1);
    clients[1].abort();
    expect(await second).toBe('AbortError');
    await until('the download to end', () => open.size === 0, 15_000);
    await until('the job to be canceled', async () => (await jobs(`${registry.host}/halting`)).join() === 'canceled', 15_000);
    expect(registry.to(path)).toHaveLength(1);
    await registry.stop();
  });

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
    await dc.ok(['rmi', `${registry.host}/halting:1`]);
  }, 240_000);
});

const secretForms = (): RegExp => new RegExp([SECRET, Buffer.from(`jill:${SECRET}`).toString('base64').replace(/=+$/, '')].join('|'));

describe('clients that', () => {
  test('stop reading logs: the source waits, memory does not grow', async () => {
    await dc.ok(['run', '-d', '--name', 'talker', '--log-opt', 'max-size=10m', 'busybox', 'yes', 'a rather long line that is said again and again']);
    const readers = Array.from({length: 10}, () => {
      const socket = net.connect(address);
      socket.on('error', () => undefined).pause();
      socket.write('GET /containers/talker/logs?follow=1&stdout=1 HTTP/1.1\r\nHost: x\r\n\r\n');
      return socket;
    });
    const from = Date.now();
    let peak = 0;
    await until('three seconds of it', async () => {
      const {rss} = await footprint();
      peak = Math.max(peak, rss.endpoint - before.rss.endpoint, rss.agent - before.rss.agent);
      return Date.now() - from > 3_000;
    });
    expect(peak).toBeLessThan(250 << 20);
    for (const socket of readers) socket.destroy();
    await dc.ok(['rm', '-f', 'talker']);
  });

  test('stop reading events', async () => {
    const socket = net.connect(address);
    socket.on('error', () => undefined).pause();
    socket.write('GET /events HTTP/1.1\r\nHost: x\r\n\r\n');
    for (let n = 0; n < 20; n += 1) expect((await ask('POST', `/images/busybox/tag?repo=event&tag=t${n}`)).status).toBe(201);
    expect((await ask('GET', '/_ping')).status).toBe(200);
    for (let n = 0; n < 20; n += 1) expect((await ask('DELETE', `/images/event:t${n}`)).status).toBe(200);
    socket.destroy();
  });

  test('hang up in the middle, 200 of them', async () => {
    const requests = [
      'POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"Image":"busy',
      'GET /events HTTP/1.1\r\nHost: x\r\n\r\n',
      'GET /containers/box/logs?follow=1&stdout=1&stderr=1 HTTP/1.1\r\nHost: x\r\n\r\n',
      'POST /containers/box/wait HTTP/1.1\r\nHost: x\r\n\r\n',
      'POST /containers/box/attach?stream=1&stdout=1 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n',
      'POST /images/load HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n',
      'GET /images/busybox/get HTTP/1.1\r\nHost: x\r\n\r\n',
      'GET /containers/json HTTP/1.1\r\nHost: x\r\n',
    ];
    const pids = {...dc.pids()};
    await Promise.all(Array.from({length: 200}, (_, n) => new Promise<void>((resolve) => {
      const socket = net.connect(address, () => {
        socket.write(requests[n % requests.length]);
        // Some at once, some when the answer has begun.
        setTimeout(() => socket.destroy(), (n % 10) * 20);
      });
      socket.on('error', () => undefined).on('close', () => resolve());
    })));
    expect((await ask('GET', '/_ping')).status).toBe(200);
    expect(await dc.ok(['run', '--rm', 'busybox', 'echo', 'still here'])).toBe('still here');
    expect({...dc.pids()}).toEqual(pids);
  });

  test('never end their head are cut', async () => {
    await until('all of them to be cut', () => loris.every((socket) => socket.destroyed), 150_000);
  }, 240_000);
});

test('nothing is left, and nothing grows', async () => {
  const {objects, node, files} = before;
  await until('everything to be as it was', async () => {
    const now = await footprint();
    expect({objects: now.objects, node: now.node, files: now.files}).toEqual({objects, node, files});
    // More than 800 connections were opened above; what may stay are pools.
    for (const name of Object.keys(now.descriptors)) expect({name, descriptors: now.descriptors[name] <= before.descriptors[name] + POOLED}).toEqual({name, descriptors: true});
    return true;
    // Over TCP a client that merely closed is known to be gone when its kernel has forgotten it, after a minute (lib/base/hang-up.ts).
  }, 240_000);
  // Garbage is memory, too, until it is collected.
  await until('memory to be what it was', async () => {
    const {rss} = await footprint();
    for (const name of Object.keys(rss)) expect(rss[name] - before.rss[name]).toBeLessThan(200 << 20);
    return true;
  });
  expect(await whereKept(dc, [SECRET])).toEqual([]);
}, 240_000);
