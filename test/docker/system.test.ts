import {Writable} from 'node:stream';
import http from 'node:http';
import net from 'node:net';
import request from 'supertest';
import {errorLine} from '../../lib/docker/errors';
import {LATE} from '../../lib/moray/failures';
import {requireTlsUnlessLoopback} from '../../lib/docker/listen';
import {OPERATIONS} from '../../lib/docker/operations';
import {createDockerServer} from '../../lib/docker/server';
import {createLog, silentLog} from '../../lib/base/log';
import {CetusError} from '../../lib/base/errors';
import {FakeDatacenter} from './fake-datacenter';
import {RawClient} from './raw-client';
import {closeWorlds, until, world} from './world';

afterEach(closeWorlds);

describe('ping', () => {
  it('answers GET and HEAD with the headers that clients negotiate by', async () => {
    const {url} = await world();
    const got = await request(url).get('/_ping');
    expect(got.status).toBe(200);
    expect(got.text).toBe('OK');
    expect(got.headers).toMatchObject({'api-version': '1.51', ostype: 'linux', 'docker-experimental': 'false', swarm: 'inactive', 'builder-version': '1'});
    expect(got.headers['content-type']).toMatch(/^text\/plain/);
    expect(got.headers.server).toMatch(/^Cetus\/0\.1\.0/);
    const head = await request(url).head('/v1.41/_ping');
    expect(head.status).toBe(200);
    expect(head.text ?? '').toBe('');
    expect(head.headers['api-version']).toBe('1.51');
  });

  it('takes a hundred kilobytes of headers: a client\'s credentials for all of its registries come in one', async () => {
    const {url} = await world();
    expect((await request(url).get('/_ping').set('X-Registry-Config', 'a'.repeat(100_000))).status).toBe(200);
    expect((await request(url).get('/_ping').set('X-Registry-Config', 'a'.repeat(200_000))).status).toBe(431);
  });

  it('says 503 with the same headers while the store is away', async () => {
    const fake = new FakeDatacenter();
    const datacenter = fake.datacenter();
    datacenter.system.ping = async () => { throw new CetusError('unavailable', 'no store'); };
    const edge = createDockerServer({datacenter, log: silentLog(), config: {version: '0.1.0'}});
    const address = await edge.listen({host: '127.0.0.1', port: 0});
    const got = await request(`http://127.0.0.1:${(address as {port: number}).port}`).get('/_ping');
    expect(got.status).toBe(503);
    expect(got.headers['api-version']).toBe('1.51');
    await edge.close();
  });
});

it('info names the registries without TLS: hosts as the indexes, blocks of addresses beside loopback', async () => {
  const edge = createDockerServer({datacenter: new FakeDatacenter().datacenter(), log: silentLog(), config: {version: '0.1.0', insecureRegistries: ['10.1.2.3:5000', '10.2.0.0/16']}});
  const {port} = await edge.listen({host: '127.0.0.1', port: 0}) as {port: number};
  const {body} = await request(`http://127.0.0.1:${port}`).get('/info') as {body: {RegistryConfig: object}};
  expect(body.RegistryConfig).toEqual({
    InsecureRegistryCIDRs: ['10.2.0.0/16', '127.0.0.0/8'], Mirrors: [],
    IndexConfigs: {'10.1.2.3:5000': {Name: '10.1.2.3:5000', Mirrors: [], Secure: false, Official: false}, 'docker.io': {Name: 'docker.io', Mirrors: [], Secure: true, Official: true}},
  });
  await edge.close();
});

describe('a connection that came another way', () => {
  it('is served for the account that it was given, and ends with the server', async () => {
    const datacenter = new FakeDatacenter().datacenter();
    const accounts: string[] = [];
    const {list} = datacenter.containers;
    datacenter.containers.list = (caller, ...rest) => {
      accounts.push(caller.account);
      return list(caller, ...rest);
    };
    const other = createDockerServer({datacenter, log: silentLog(), config: {version: '0.1.0'}, accountOf: () => 'nobody'});
    const door = net.createServer({allowHalfOpen: true}, (socket) => other.adopt(socket, 'jill'));
    await new Promise<void>((resolve) => door.listen(0, '127.0.0.1', resolve));
    const url = `http://127.0.0.1:${(door.address() as net.AddressInfo).port}`;
    expect((await request(url).get('/containers/json').set('X-Account', 'jack')).status).toBe(200);
    expect(accounts).toEqual(['jill']);
    const idle = net.connect((door.address() as net.AddressInfo).port, '127.0.0.1');
    await new Promise((resolve) => idle.once('connect', resolve));
    idle.write('GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n');
    await new Promise((resolve) => idle.once('data', resolve));
    const ended = new Promise((resolve) => idle.once('close', resolve));
    await other.close();
    await ended;
    await new Promise((resolve) => door.close(resolve));
  });
});

describe('versions', () => {
  it.each([
    ['1.23', 'client version 1.23 is too old. Minimum supported API version is 1.24, please upgrade your client to a newer version'],
    ['1.99', 'client version 1.99 is too new. Maximum supported API version is 1.51'],
    ['2.0', 'client version 2.0 is too new. Maximum supported API version is 1.51'],
  ])('refuses %s as the Engine does', async (version, message) => {
    const {url} = await world();
    const got = await request(url).get(`/v${version}/version`);
    expect(got.status).toBe(400);
    expect(got.body).toEqual({message});
  });

  it.each(['/version', '/v1.24/version', '/v1.51/version'])('speaks %s', async (path) => {
    const {url} = await world();
    const got = await request(url).get(path);
    expect(got.status).toBe(200);
    expect(got.body).toMatchObject({Version: expect.stringMatching(/^28\.3\.0\+cetus\./), ApiVersion: '1.51', MinAPIVersion: '1.24', Os: 'linux', Arch: 'amd64'});
  });
});

/** Clients of HTTP clean paths by themselves. */
function raw(port: number, method: string, target: string): Promise<{status?: number; location?: string; length?: string}> {
  return new Promise((resolve, reject) => {
    http.request({host: '127.0.0.1', port, method, path: target, agent: false}, (res) => {
      res.resume().on('end', () => resolve({status: res.statusCode, location: res.headers.location, length: res.headers['content-length']}));
    }).on('error', reject).end();
  });
}

describe('routes', () => {
  it.each([['GET', '/nothing'], ['POST', '/v1.41/containers'], ['PUT', '/info'], ['PATCH', '/info'], ['OPTIONS', '/info'], ['GET', '/'], ['GET', '/containers/%zz/json']])('%s %s is "page not found"', async (method, path) => {
    const {port} = await world();
    const got = await fetch(`http://127.0.0.1:${port}${path}`, {method});
    expect(got.status).toBe(404);
    expect(await got.json()).toEqual({message: 'page not found'});
    expect(got.headers.get('api-version')).toBe('1.51');
  });

  // What dockerd 20.10 answers.
  it.each([
    ['//info', '/info'], ['//containers//json?all=1&x=%20', '/containers/json?all=1&x=%20'], ['/v1.99//info', '/v1.99/info'], ['//nosuch/', '/nosuch/'], ['/a/.', '/a'], ['/a/..', '/'], ['/./', '/'], ['/..', '/'],
    ['/a/../b/', '/b/'], ['/info//', '/info/'], ['/images/a//b%20c%3Fd/json', '/images/a/b%20c%3Fd/json'], ['/x/%2e%2e/y', '/y'], ['/%2fevil.com', '/evil.com'], ["/a//('!*)/%5B", '/a/%28%27%21%2A%29/%5B'],
  ])('%s is redirected to %s, whatever the method', async (target, to) => {
    const {port, fake} = await world();
    for (const method of ['GET', 'POST', 'DELETE']) expect(await raw(port, method, target)).toEqual({status: 301, location: to, length: '0'});
    expect(fake.calls).toEqual([]);
  });

  it.each(['/a%2e%2e', '/x/..y', '/info/', '/containers/%zz//json'])('%s is no path to clean', async (target) => {
    const {port} = await world();
    expect((await raw(port, 'GET', target)).status).toBe(404);
  });

  it('has all 107 operations of the API once, and two that the Engine has besides', () => {
    expect(OPERATIONS).toHaveLength(109);
    expect(new Set(OPERATIONS.map((o) => o.id)).size).toBe(109);
    expect(new Set(OPERATIONS.map((o) => `${o.method} ${o.path}`)).size).toBe(109);
    expect(OPERATIONS.filter((o) => o.group === 'build').map((o) => o.path)).toEqual(['/build', '/build/prune', '/session', '/build/cancel', '/grpc']);
  });

  it('takes image names with slashes, plain and escaped', async () => {
    const {url, fake} = await world();
    await request(url).post('/images/registry:5000/a/b/tag?repo=x/y&tag=1');
    await request(url).delete('/v1.41/images/a%2Fb:1?force=1');
    expect(fake.calls.map((c) => [c.verb, ...c.args])).toEqual([
      ['tag', 'registry:5000/a/b', 'x/y', '1'], ['image.remove', 'a/b:1', {force: true, noPrune: false}],
    ]);
  });

  it.each(['http://elsewhere.example', 'null', 'http://127.0.0.1'])('refuses what a web page asks for (Origin: %s), also where a stream is meant', async (origin) => {
    const {url, fake} = await world();
    for (const path of ['/containers/prune', '/v1.41/containers/web/kill', '/containers/web/attach?stream=1', '/exec/abc/start', '/images/create?fromImage=busybox']) {
      const got = await request(url).post(path).set('Origin', origin);
      expect([got.status, (got.body as {message: string}).message]).toEqual([403, 'requests of web pages (with an Origin header) are refused']);
    }
    expect(fake.calls).toEqual([]);
  });

  it('honours a request id, and mints one for what cannot be one', async () => {
    const {url, fake} = await world();
    const given = await request(url).get('/containers/json').set('X-Request-Id', 'abc-1');
    expect(given.headers['x-request-id']).toBe('abc-1');
    expect(fake.lastCaller).toMatchObject({account: 'default', requestId: 'abc-1'});
    const minted = await request(url).get('/containers/json').set('X-Request-Id', 'no spaces, please');
    expect(minted.headers['x-request-id']).toMatch(/^[0-9a-f-]{36}$/);
  });
});

describe('errors', () => {
  const refusal = async (thrown: unknown): Promise<{status: number; message: string; log: string}> => {
    let log = '';
    const datacenter = new FakeDatacenter().datacenter();
    datacenter.system.info = async () => { throw thrown; };
    const edge = createDockerServer({datacenter, config: {version: '0.1.0'}, log: createLog({name: 'edge', stream: new Writable({write: (chunk: Buffer, _e, done) => { log += chunk.toString(); done(); }})})});
    const {port} = await edge.listen({host: '127.0.0.1', port: 0}) as {port: number};
    const got = await request(`http://127.0.0.1:${port}`).get('/info');
    await edge.close();
    return {status: got.status, message: (got.body as {message: string}).message, log};
  };

  it.each([
    ['a file of ours', Object.assign(new Error("ENOENT: no such file or directory, open '/proc/1/root'"), {code: 'ENOENT'}), 500, /^internal error; the logs of the datacenter say more$/],
    ['a bug', new TypeError("Cannot read properties of undefined (reading 'x')"), 500, /^internal error/],
    ['the store\'s insides', new CetusError('etagConflict', 'images/default: expected etag 7, found etag 8', {shown: 'others were faster'}), 409, /^others were faster$/],
    ['a store that is late', new CetusError('timeout', 'put containers/c1 took longer than 10000 ms', LATE), 503, /^the store of the datacenter did not answer in time; try again$/],
    ['a node that is late', new CetusError('timeout', 'node n1 did not answer in time'), 504, /^node n1 did not answer in time$/],
    ['what was worded for clients', new CetusError('conflict', 'container x is paused'), 409, /^container x is paused$/],
  ])('%s: the client gets words for it, the log the cause', async (_what, thrown, status, message) => {
    const got = await refusal(thrown);
    expect(got.status).toBe(status);
    expect(got.message).toMatch(message);
    if (!got.message.includes(thrown.message)) expect(got.log).toContain(JSON.stringify(thrown.message).slice(1, -1));
  });
});

describe('events', () => {
  it('prints nanoseconds exactly, with the old fields beside the new', async () => {
    const {url, fake} = await world();
    fake.events.push({account: 'default', type: 'container', action: 'start', actorId: 'c1', attributes: {image: 'busybox', name: 'web'}, timeNs: '1700000000123456789'});
    const got = await request(url).get('/events?since=1700000000.000000001&until=1700000001&filters=' + encodeURIComponent('{"type":{"container":true}}'));
    expect(got.text).toContain('"timeNano":1700000000123456789');
    expect(JSON.parse(got.text)).toMatchObject({status: 'start', id: 'c1', from: 'busybox', Type: 'container', Action: 'start', Actor: {ID: 'c1'}, scope: 'local', time: 1700000000});
    expect(fake.calls[0]!.args[0]).toMatchObject({sinceNs: 1700000000000000001n, untilNs: 1700000001000000000n, filters: {type: ['container']}});
  });

  it('cuts the stream of a reader that fell too far behind: no end that looks whole', async () => {
    const datacenter = new FakeDatacenter().datacenter();
    const events = {...datacenter.events, stream: async () => (async function* () {
      yield {account: 'default', type: 'container' as const, action: 'start', actorId: 'c1', attributes: {}, timeNs: '1700000000123456789'};
      throw new CetusError('stale', 'changes after this cursor are no longer kept');
    })()};
    const edge = createDockerServer({datacenter: {...datacenter, events}, log: silentLog(), config: {version: '0'}});
    const {port} = (await edge.listen({host: '127.0.0.1', port: 0})) as {port: number};
    const answer = await fetch(`http://127.0.0.1:${port}/events`);
    expect(answer.status).toBe(200);
    await expect(answer.text()).rejects.toThrow();
    await edge.close();
  });

  it('ends the stream when the client leaves', async () => {
    const {url, fake} = await world();
    const leaving = new AbortController();
    const got = await fetch(`${url}/events`, {signal: leaving.signal});
    expect(got.status).toBe(200);
    leaving.abort();
    await until('the departure', () => fake.departures === 1);
  });

  it('wait for a client that does not read, and end when it leaves', async () => {
    const {address, fake} = await world();
    const attributes = {text: 'x'.repeat(1000)};
    for (let n = 0; n < 50_000; n += 1) fake.events.push({account: 'default', type: 'container', action: 'start', actorId: 'c', attributes, timeNs: '1700000000000000000'});
    const client = await RawClient.connect(address);
    client.send('GET /events?since=1 HTTP/1.1\r\nHost: x\r\n\r\n');
    client.socket.pause();
    let seen = -1;
    await until('the events to come to rest', () => {
      const resting = fake.eventsRead > 0 && fake.eventsRead === seen;
      seen = fake.eventsRead;
      return resting;
    });
    expect(fake.eventsRead).toBeLessThan(fake.events.length);
    client.close();
    await until('the departure', () => fake.departures === 1);
  });

  it.each(['since=yesterday', 'until=x', 'since=20&until=10', 'filters=%7B', 'filters=%5B%5D', 'filters=%7B%22a%22%3A1%7D'])('refuses %s', async (query) => {
    const {url} = await world();
    const got = await request(url).get(`/events?${query}`);
    expect(got.status).toBe(400);
    expect(typeof (got.body as {message: string}).message).toBe('string');
  });
});

describe('where it may listen', () => {
  it.each([['127.0.0.1', true], ['127.9.9.9', true], ['::1', true], ['[::1]', true], ['localhost', true], ['0.0.0.0', false], ['10.0.0.1', false], ['::', false], ['', false], ['127.0.0.1.example.com', false]])('%s loopback: %s', (host, yes) => {
    const check = (): void => requireTlsUnlessLoopback({host, port: 1}, false);
    if (yes) expect(check).not.toThrow();
    else expect(check).toThrow(/without TLS/);
    expect(() => requireTlsUnlessLoopback({host, port: 1}, true)).not.toThrow();
  });

  it('refuses by itself', () => {
    const edge = createDockerServer({datacenter: new FakeDatacenter().datacenter(), log: silentLog(), config: {version: '0'}});
    expect(() => edge.listen({host: '0.0.0.0', port: 0})).toThrow(/without TLS/);
  });
});

it('logs requests without credentials, at every level', async () => {
  const written: string[] = [];
  const stream = new Writable({write: (chunk: Buffer, _encoding, done) => {
    written.push(chunk.toString());
    done();
  }});
  const edge = createDockerServer({datacenter: new FakeDatacenter().datacenter(), log: createLog({name: 't', level: 'trace', stream}), config: {version: '0'}});
  const {port} = (await edge.listen({host: '127.0.0.1', port: 0})) as {port: number};
  const auth = Buffer.from('{"username":"u","password":"hunter2"}').toString('base64');
  await fetch(`http://127.0.0.1:${port}/v1.41/images/create?fromImage=broken&tag=1`, {method: 'POST', headers: {'X-Registry-Auth': auth, Authorization: 'Basic hunter2', 'X-Request-Id': 'r-1'}}).then((got) => got.text());
  await until('the log line', () => written.some((line) => line.includes('"answered"')));
  await edge.close();
  const line = JSON.parse(written.find((l) => l.includes('"answered"'))!) as Record<string, unknown>;
  expect(line).toMatchObject({component: 'docker', requestId: 'r-1', operation: 'ImageCreate', method: 'POST', path: '/images/create', api: '1.41', status: 200, account: 'default'});
  expect(written.join('')).not.toMatch(new RegExp(`hunter2|${auth}`));
});

it('an attach behind an unanswered request on the same connection is cut, never mixed up with it', async () => {
  const {address, fake} = await world();
  const client = await RawClient.connect(address);
  client.send('GET /events HTTP/1.1\r\nHost: x\r\n\r\nPOST /containers/c/attach HTTP/1.1\r\nHost: x\r\n\r\n');
  await client.rest();
  expect(fake.calls.some((c) => c.verb === 'attach')).toBe(false);
});

it('what is not HTTP is told so and cut', async () => {
  const {address} = await world();
  const client = await RawClient.connect(address);
  client.send('\x16\x03\x01 hello\r\n\r\n');
  expect((await client.head()).status).toBe(400);
  await client.rest();
});

it('what is not HTTP leaves no connection behind when its client goes', async () => {
  const {address, edge} = await world();
  const http = (edge.server as unknown as {server: import('node:net').Server}).server;
  const client = await RawClient.connect(address);
  client.send('\x16\x03\x01 hello\r\n\r\n');
  await client.head();
  client.socket.end();
  let left = 1;
  await until('the connection to be gone', () => {
    http.getConnections((_err, count) => { left = count; });
    return left === 0;
  }, 2_000);
});

it('writes the error line of a progress stream', () => {
  expect(errorLine('x')).toEqual({errorDetail: {message: 'x'}, error: 'x'});
});
