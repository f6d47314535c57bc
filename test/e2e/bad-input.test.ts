/** Requests that clients should not send, through real sockets, to a real `cetus up`: each gets a clear 4xx. */
import net from 'node:net';
import {gzipSync} from 'node:zlib';
import {type Asked, ask, badInputSuite, endpoint, nothingIsLeft, q, raw, SECRET} from '../harness/bad-input';
import {noise, tarOf} from '../harness/images';

badInputSuite();

const filters = (value: unknown): string => `filters=${q(typeof value === 'string' ? value : JSON.stringify(value))}`;
const create = (body: object | string): [string, string, Asked] => ['POST', '/containers/create', {body: typeof body === 'string' ? body : JSON.stringify({Image: 'busybox', Cmd: ['true'], ...body})}];
const text = (type: string): Asked => ({body: '{"Image":"busybox"}', headers: {'content-type': type}});

type Case = [what: string, request: [method: string, path: string, asked?: Asked], status: number | number[], says: RegExp];
const CASES: Case[] = [
  // Bodies
  ['cut JSON', create('{"Image":'), 400, /invalid JSON/],
  ['no body', ['POST', '/containers/create', {headers: {'content-type': 'application/json'}}], 400, /EOF/],
  ['null', create('null'), 400, /config cannot be empty/],
  ['a list', create('[]'), 400, /invalid JSON: json: cannot unmarshal array/],
  ['a word', create('"busybox"'), 400, /invalid JSON: json: cannot unmarshal string/],
  ['100,000 brackets', create('['.repeat(100_000)), 400, /invalid JSON/],
  ['100,000 nested objects', create(`{"Image":${'{"a":'.repeat(100_000)}1${'}'.repeat(100_000)}}`), 400, /invalid JSON|Image/],
  ['text/plain', ['POST', '/containers/create', text('text/plain')], 400, /Content-Type/],
  ['no media type', ['POST', '/containers/create', {body: '{}', headers: {}}], 400, /Content-Type/],
  ['a number for a text', create({Image: 5}), 400, /Image/],
  ['a text for a number', create({HostConfig: {Memory: '64m'}}), 400, /Memory/],
  ['half a byte', create({HostConfig: {Memory: 7e7 + 0.5}}), 400, /Memory/],
  ['more bytes than there are', create({HostConfig: {Memory: 1e300}}), 400, /Memory/],
  ['a list with holes, which are empty words', create({Cmd: ['echo', null]}), 201, /Id/],
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
  ['a path as an id', ['GET', `/containers/${q('../../images')}/json`], 301, /^\/images\/json$/],
  ['a rename to what is no name', ['POST', `/containers/box/rename?name=${q('a b')}`], 400, /Invalid container name/],
  ['a rename to itself', ['POST', '/containers/box/rename?name=box'], [400, 409], /same name|already in use/i],
  // Queries
  ['a limit that is no number', ['GET', '/containers/json?limit=many'], 400, /parsing "many": invalid syntax/],
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
  ['events since ever', ['GET', '/events?since=yesterday'], 400, /parsing "yesterday"/],
  ['logs of nothing', ['GET', '/containers/box/logs'], 400, /at least one stream/],
  ['logs since noon', ['GET', '/containers/box/logs?stdout=1&since=noon'], 400, /parsing "noon"/],
  ['a signal that is none', ['POST', '/containers/box/kill?signal=SIGFOO'], 400, /SIGFOO/],
  ['a stop that takes forever', ['POST', '/containers/box/stop?t=long'], 400, /parsing "long": invalid syntax/],
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
  ['a pull of half a digest', ['POST', '/images/create?fromImage=busybox&tag=sha256:abc'], 400, /invalid tag format/],
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
  ['two slashes', ['GET', '//containers/json'], 301, /^\/containers\/json$/],
  ['a way out', ['GET', '/containers/../../etc/passwd'], 301, /^\/etc\/passwd$/],
  ['another method', ['PATCH', '/containers/json'], [404, 405], /page not found/],
];

describe('refused at once', () => test.each(CASES)('%s', async (_what, request, status, says) => {
  const answer = await ask(...request);
  if (![status].flat().includes(answer.status)) throw new Error(`expected ${String(status)}, got ${answer.status}: ${answer.body.slice(0, 500)}`);
  // An address that is not clean is told where it leads, before anything is looked up (docker/paths.ts): there is no body.
  if (answer.status === 301) {
    expect(answer).toMatchObject({body: '', location: expect.stringMatching(says) as string});
    return;
  }
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
    ['30,000 headers', `GET /_ping HTTP/1.1\r\nHost: x\r\n${Array.from({length: 30_000}, (_, n) => `x${n}: 1\r\n`).join('')}\r\n`, /^HTTP\/1\.1 431 /],
    ['CONNECT', 'CONNECT example.test:443 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n', /^HTTP\/1\.1 4\d\d /],
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
      const socket = net.connect(endpoint(), () => {
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

nothingIsLeft();
