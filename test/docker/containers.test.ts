import http from 'node:http';
import request from 'supertest';
import {formatNs, systemClock} from '../../lib/base/clock';
import type {Container} from '../../lib/schema/container';
import {containerListEntry} from '../../lib/docker/views/container-list';
import {type FakeDatacenter, fakeContainer} from './fake-datacenter';
import {RawClient} from './raw-client';
import {closeWorlds, until, world} from './world';

afterEach(closeWorlds);

const last = (fake: FakeDatacenter): unknown[] => {
  const {verb, args} = fake.calls.at(-1)!;
  return [verb, ...args];
};
const message = (got: request.Response): string => (got.body as {message: string}).message;

describe('create', () => {
  it('passes the body on as it was meant: Go spelling, words as lists, nulls left out, unknown fields ignored', async () => {
    const {url, fake} = await world();
    const got = await request(url).post('/v1.51/containers/create?name=/web').send({
      image: 'busybox', Cmd: 'ls', Entrypoint: null, Surprise: true, HostConfig: {memory: 64, Binds: null, Init: false, Whatever: {}, CapDrop: 'ALL'},
      NetworkingConfig: {EndpointsConfig: {net: {Aliases: ['a'], Unknown: 1}, other: null}},
    });
    expect(got.status).toBe(201);
    expect(got.body).toEqual({Id: [...fake.held.keys()][0], Warnings: []});
    expect(last(fake)).toEqual(['create', 'web', {
      Image: 'busybox', Cmd: ['ls'], HostConfig: {Memory: 64, Init: false, CapDrop: ['ALL']}, NetworkingConfig: {EndpointsConfig: {net: {Aliases: ['a']}, other: null}},
    }]);
  });

  it.each([
    [{Isolation: 'hyperv'}, 'HostConfig.Isolation'],
    [{Runtime: 'kata'}, 'HostConfig.Runtime'],
    [{DeviceRequests: [{Count: -1}]}, 'HostConfig.DeviceRequests'],
    [{StorageOpt: {size: '10G'}}, 'HostConfig.StorageOpt'],
    [{CpuCount: 2}, 'HostConfig.CpuCount'],
    [{CgroupParent: '/x'}, 'HostConfig.CgroupParent'],
  ])('refuses %j by name', async (hostConfig, option) => {
    const {url, fake} = await world();
    const got = await request(url).post('/containers/create').send({Image: 'x', HostConfig: hostConfig});
    expect(got.status).toBe(400);
    expect(message(got)).toContain(option);
    expect(fake.calls).toEqual([]);
  });

  it('lets the same options pass where they change nothing', async () => {
    const {url} = await world();
    const got = await request(url).post('/containers/create').send({
      Image: 'x', HostConfig: {Isolation: 'default', VolumeDriver: '', Runtime: 'runc', DeviceRequests: [], StorageOpt: {}, CpuCount: 0, CgroupParent: '', Links: null, ContainerIDFile: '/x'},
    });
    expect(got.status).toBe(201);
  });

  it.each([
    ['{', 'invalid JSON'],
    ['', 'invalid JSON: got EOF while reading request body'],
    ['null', 'config cannot be empty in order to create a container'],
    ['{"HostConfig":{"Memory":0}}', 'config cannot be empty in order to create a container'],
    ['{"Image":"x"} {}', 'invalid JSON: unexpected content after JSON'],
  ])('refuses the body %s', async (body, text) => {
    const {url} = await world();
    const got = await request(url).post('/containers/create').set('Content-Type', 'application/json').send(body);
    expect(got.status).toBe(400);
    expect(message(got)).toContain(text);
  });

  it('refuses another content type, and a body larger than the limit, and closes behind it', async () => {
    const {url, address} = await world({maxJsonBytes: 1000});
    const typed = await request(url).post('/containers/create').set('Content-Type', 'text/plain').send('{"Image":"x"}');
    expect(typed.status).toBe(400);
    expect(message(typed)).toBe("unsupported Content-Type header (text/plain): must be 'application/json'");
    const client = await RawClient.connect(address);
    client.send('POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n');
    // A body without an end: the answer comes all the same, and the connection ends.
    const feed = setInterval(() => client.socket.writable && client.send(`200\r\n${' '.repeat(512)}\r\n`), 1);
    const head = await client.head();
    expect(head).toMatchObject({status: 400, headers: {connection: 'close'}});
    expect((await client.rest()).toString()).toContain('larger than 1000 bytes');
    clearInterval(feed);
    client.close();
  });

  it('answers a name that is taken with 409', async () => {
    const {url} = await world();
    await request(url).post('/containers/create?name=a').send({Image: 'x'});
    const got = await request(url).post('/containers/create?name=a').send({Image: 'x'});
    expect(got.status).toBe(409);
    expect(message(got)).toContain('already in use');
  });
});

describe('verbs without an answer of their own', () => {
  it.each([
    ['POST', '/containers/c/start', 204, ['start', 'c']],
    ['POST', '/containers/c/stop?t=5&signal=SIGINT', 304, ['stop', 'c', {timeoutSeconds: 5, signal: 'SIGINT'}]],
    ['POST', '/containers/c/stop?t=-1', 304, ['stop', 'c', {timeoutSeconds: -1}]],
    ['POST', '/containers/c/restart', 204, ['restart', 'c', {}]],
    ['POST', '/containers/c/kill', 409, ['kill', 'c', 'SIGKILL']],
    ['POST', '/containers/c/pause', 204, ['pause', 'c']],
    ['POST', '/containers/c/unpause', 204, ['unpause', 'c']],
    ['POST', '/containers/c/rename?name=d', 204, ['rename', 'c', 'd']],
    ['POST', '/containers/c/resize?h=40&w=80', 200, ['resize', 'c', 40, 80]],
    ['DELETE', '/containers/c?force=1&v=true&link=0', 204, ['remove', 'c', {force: true, volumes: true, link: false}]],
  ])('%s %s -> %i', async (method, path, status, call) => {
    const {url, fake} = await world();
    fake.add(fakeContainer({name: 'c'}));
    const got = await fetch(`${url}${path}`, {method});
    expect(got.status).toBe(status);
    expect(last(fake)).toEqual(call);
    if (status === 304) expect(await got.text()).toBe('');
  });

  it.each([
    ['POST', '/containers/c/stop?t=soon', 'invalid syntax'],
    ['POST', '/containers/c/resize?h=&w=80', 'invalid resize height'],
    ['POST', '/containers/c/rename', 'Neither old nor new names may be empty'],
    ['GET', '/containers/json?limit=x', 'invalid syntax'],
    ['GET', '/containers/json?before=c', 'the parameter "before" is not supported'],
    ['POST', '/containers/c/start?checkpoint=x', 'the parameter "checkpoint" is not supported'],
    ['GET', '/containers/c/logs', 'you must choose at least one stream'],
    ['POST', '/containers/c/wait?condition=never', 'invalid condition: "never"'],
    ['GET', '/containers/c/stats?one-shot=1', 'cannot have stream=true and one-shot=true'],
  ])('%s %s is refused: %s', async (method, path, text) => {
    const {url, fake} = await world();
    fake.add(fakeContainer({name: 'c'}));
    const got = await fetch(`${url}${path}`, {method});
    expect(got.status).toBe(400);
    expect(((await got.json()) as {message: string}).message).toContain(text);
  });

  it('refuses a host config at start', async () => {
    const {url, fake} = await world();
    fake.add(fakeContainer({name: 'c'}));
    const got = await request(url).post('/containers/c/start').send({Binds: []});
    expect(got.status).toBe(400);
    expect((await request(url).post('/containers/c/start').send({})).status).toBe(204);
    expect((await request(url).post('/containers/c/start')).status).toBe(304);
  });

  it('update leaves the policy alone where its name is empty', async () => {
    const {url, fake} = await world();
    const got = await request(url).post('/containers/c/update').send({Memory: 5, RestartPolicy: {Name: ''}});
    expect(got.body).toEqual({Warnings: null});
    expect(last(fake)).toEqual(['update', 'c', {Memory: 5}, undefined]);
  });
});

describe('wait', () => {
  it('sends its headers when it is armed and its body at the exit', async () => {
    const {port, fake} = await world();
    const held = fake.add(fakeContainer({name: 'c'}, {Cmd: ['exit', '7']}));
    const req = http.request({port, method: 'POST', path: '/v1.51/containers/c/wait?condition=next-exit'}).end();
    const res = await new Promise<http.IncomingMessage>((resolve) => req.on('response', resolve));
    expect(res.statusCode).toBe(200);
    expect(held.container.status).toBe('created');
    fake.start(held);
    const chunks: Buffer[] = [];
    for await (const chunk of res) chunks.push(chunk as Buffer);
    expect(JSON.parse(Buffer.concat(chunks).toString())).toEqual({StatusCode: 7});
  });

  it('is given up when the client leaves', async () => {
    const {url, fake} = await world();
    fake.add(fakeContainer({name: 'c'}));
    const leaving = new AbortController();
    await fetch(`${url}/containers/c/wait?condition=next-exit`, {method: 'POST', signal: leaving.signal});
    leaving.abort();
    await until('the departure', () => fake.departures === 1);
  });
});

describe('streams of bytes', () => {
  it('logs: raw or multiplexed by version and terminal, bounds in nanoseconds', async () => {
    const {url, fake} = await world();
    fake.add(fakeContainer({name: 'c'}));
    const got = await request(url).get('/containers/c/logs?stdout=1&tail=all&since=5.5&until=0').buffer(true).parse((res, done) => {
      const chunks: Buffer[] = [];
      res.on('data', (chunk: Buffer) => chunks.push(chunk)).on('end', () => done(null, Buffer.concat(chunks)));
    });
    expect(got.headers['content-type']).toBe('application/vnd.docker.multiplexed-stream');
    expect((got.body as Buffer).subarray(8, 15).toString()).toBe('line 1\n');
    expect(last(fake)).toEqual(['logs', 'c', {stdout: true, stderr: false, tail: -1, follow: false, timestamps: false, details: false, sinceNs: '5500000000', untilNs: ''}]);
    expect((await request(url).get('/v1.41/containers/c/logs?stdout=1&tail=10')).headers['content-type']).toBe('application/vnd.docker.raw-stream');
    expect((last(fake)[2] as {tail: number}).tail).toBe(10);
  });

  it('logs that follow end with the client', async () => {
    const {url, fake} = await world();
    fake.add(fakeContainer({name: 'c'}));
    const leaving = new AbortController();
    const got = await fetch(`${url}/containers/c/logs?stdout=1&follow=1`, {signal: leaving.signal});
    const reader = got.body!.getReader();
    expect(Buffer.from((await reader.read()).value!).subarray(8).toString()).toBe('first\n');
    leaving.abort();
    await until('the departure', () => fake.departures === 1);
  });

  it('stats pass as the node prints them, numbers of 64 bits too; one-shot is for those who know it', async () => {
    const {url, fake} = await world();
    fake.add(fakeContainer({name: 'c'}));
    const got = await fetch(`${url}/containers/c/stats`);
    expect(await got.text()).toBe('{"read":"x","limit":9223372036854771712}\n{"read":"y"}\n');
    expect(last(fake)).toEqual(['stats', 'c', {stream: true, oneShot: false}]);
    await (await fetch(`${url}/v1.40/containers/c/stats?one-shot=1`)).text();
    expect(last(fake)).toEqual(['stats', 'c', {stream: true, oneShot: false}]);
    await (await fetch(`${url}/v1.41/containers/c/stats?stream=0&one-shot=1`)).text();
    expect(last(fake)).toEqual(['stats', 'c', {stream: false, oneShot: true}]);
  });

  it('an upload is streamed to the verb; what the verb cannot do is 501', async () => {
    const {url, fake} = await world();
    fake.add(fakeContainer({name: 'c'}));
    const got = await fetch(`${url}/containers/c/archive?path=/tmp&copyUIDGID=1`, {method: 'PUT', body: Buffer.alloc(300_000)});
    expect(got.status).toBe(200);
    expect(last(fake)).toEqual(['putArchive', 'c', {path: '/tmp', noOverwriteDirNonDir: false, copyUIDGID: true}, 300_000]);
    expect((await fetch(`${url}/containers/c/export`)).status).toBe(501);
    expect((await fetch(`${url}/containers/c/archive?path=/x`, {method: 'HEAD'})).status).toBe(501);
    expect((await fetch(`${url}/containers/c/archive`)).status).toBe(400);
  });
});

describe('ps with 1,000 containers', () => {
  it('costs a few milliseconds', async () => {
    
    const startedAt = formatNs(systemClock.nowNs());
    const many: Container[] = Array.from({length: 1000}, (_, n) => {
      const c = fakeContainer({name: `c${n}`, status: 'running', publishedPorts: [{protocol: 'tcp', containerPort: 80, hostIp: '0.0.0.0', hostPort: n + 1}]}, {Cmd: ['sh', '-c', 'sleep 1'], Labels: {a: 'b'}});
      c.observation = {...c.observation, status: 'running', startedAt};
      return c;
    });
    const build = (): number => JSON.stringify(many.map((c) => containerListEntry(c, Date.now()))).length;
    for (let n = 0; n < 5; n += 1) build();
    const times = Array.from({length: 9}, () => {
      const from = performance.now();
      build();
      return performance.now() - from;
    }).sort((a, b) => a - b);
    // A shape check rather than a benchmark: it fails when somebody makes it quadratic, not when the machine is busy.
    expect(times[4]).toBeLessThan(100);
    if (process.env.CETUS_PRINT_TIMES) process.stderr.write(`1,000 rows: ${times[4]!.toFixed(2)} ms\n`);
  });
});

describe('what nobody meant', () => {
  it.each([
    ['GET', '/containers/a%00b/json', 'No such container: a\0b'],
    ['POST', '/containers/a%00b/exec', 'No such container: a\0b'],
    ['GET', '/exec/a%00b/json', 'No such exec instance: a\0b'],
    ['GET', '/images/a%00b/json', 'No such image: a\0b'],
    ['GET', '/networks/a%00b', 'network a\0b not found'],
    ['GET', '/volumes/a%00b', 'get a\0b: no such volume'],
  ])('a name with a NUL is nobody\'s: %s %s', async (method, path, said) => {
    const {url, fake} = await world();
    const got = method === 'GET' ? await request(url).get(path) : await request(url).post(path).send({Cmd: ['true']});
    expect([got.status, message(got)]).toEqual([404, said]);
    expect(fake.calls).toEqual([]);
  });

  it('a body deeper than a stack is refused in Go\'s words', async () => {
    const {url} = await world();
    const deep = `${'{"HostConfig":'.repeat(100_000)}1${'}'.repeat(100_000)}`;
    const got = await request(url).post('/containers/create').set('Content-Type', 'application/json').send(`{"Image":"busybox","HostConfig":{"Annotations":${deep}}}`);
    expect(got.status).toBe(400);
    expect(message(got)).not.toMatch(/stack/);
    const open = await request(url).post('/containers/create').set('Content-Type', 'application/json').send('['.repeat(100_000));
    expect([open.status, message(open)]).toEqual([400, 'invalid JSON: exceeded max depth']);
  });
});
