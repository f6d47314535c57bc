import request from 'supertest';
import {pullReference} from '../../lib/docker/endpoints/images';
import {parseRegistryAuth} from '../../lib/docker/registry-auth';
import {CetusError} from '../../lib/base/errors';
import {RawClient} from './raw-client';
import {closeWorlds, until, world} from './world';

afterEach(closeWorlds);

/** superagent would parse the stream as one document. */
const asText = (res: request.Response, done: (err: Error | null, body: string) => void): void => {
  let text = '';
  res.setEncoding('utf8');
  (res as unknown as NodeJS.ReadableStream).on('data', (chunk: string) => { text += chunk; }).on('end', () => done(null, text));
};
const lines = (text: string): unknown[] => text.trim().split('\r\n').map((line) => JSON.parse(line) as unknown);

describe('pull', () => {
  it.each([
    ['busybox', 'latest', 'busybox:latest', false],
    ['busybox', '', 'busybox', true],
    ['busybox:1', '', 'busybox:1', false],
    ['busybox:1', '2', 'busybox:2', false],
    ['localhost:5000/a/b', '', 'localhost:5000/a/b', true],
    ['localhost:5000/a/b', '3', 'localhost:5000/a/b:3', false],
    ['busybox', `sha256:${'a'.repeat(64)}`, `busybox@sha256:${'a'.repeat(64)}`, false],
    [`busybox@sha256:${'a'.repeat(64)}`, '', `busybox@sha256:${'a'.repeat(64)}`, false],
  ])('fromImage=%s tag=%s means %s', (fromImage, tag, reference, allTags) => {
    expect(pullReference(fromImage, tag)).toEqual({reference, allTags});
  });

  it('streams progress as JSON lines', async () => {
    const {url, fake} = await world();
    const auth = {username: 'u', password: 'p?>'};
    const got = await request(url).post('/images/create?fromImage=busybox&tag=latest&platform=linux/amd64').set('X-Registry-Auth', Buffer.from(JSON.stringify(auth)).toString('base64url')).buffer(true).parse(asText as never);
    expect(got.status).toBe(200);
    expect(got.headers['content-type']).toBe('application/json');
    expect(lines(got.body as string)).toEqual([{status: 'Pulling from library/busybox', id: 'latest'}, {status: 'Status: Downloaded newer image for busybox:latest'}]);
    expect(fake.lastAuth).toEqual(auth);
    expect(fake.calls.at(-1)!.args).toEqual(['busybox:latest', {platform: 'linux/amd64'}]);
  });

  it('an error before the first line has a status, one after it a line', async () => {
    const {url} = await world();
    const missing = await request(url).post('/images/create?fromImage=missing&tag=1');
    expect(missing.status).toBe(404);
    expect(missing.body).toEqual({message: 'manifest unknown'});
    const broken = await request(url).post('/images/create?fromImage=broken&tag=1').buffer(true).parse(asText as never);
    expect(broken.status).toBe(200);
    expect(lines(broken.body as string).at(-1)).toEqual({errorDetail: {message: 'the registry went away'}, error: 'the registry went away'});
  });

  it('credentials that a registry refuses are not the client\'s towards us: no 401, at which the CLI would ask for a password', async () => {
    const {url} = await world();
    const refused = await request(url).post('/images/create?fromImage=locked&tag=1');
    expect(refused.status).toBe(403);
    expect(refused.body).toEqual({message: 'unauthorized: incorrect username or password'});
  });

  it.each([['fromImage=', 400], ['fromImage=UPPER', 400], ['fromImage=a&changes=CMD', 400]])('refuses ?%s', async (query, status) => {
    const {url} = await world();
    expect((await request(url).post(`/images/create?${query}`)).status).toBe(status);
  });
});

describe('registry credentials', () => {
  const value = {username: 'user', password: 'pä?~ÿ', serveraddress: 'r:5000'};
  it.each(['base64', 'base64url'] as const)('are read from %s, padded or not', (encoding) => {
    const text = Buffer.from(JSON.stringify(value)).toString(encoding);
    expect(parseRegistryAuth(text)).toEqual(value);
    expect(parseRegistryAuth(text.replace(/=+$/, ''))).toEqual(value);
  });

  it('are absent where the header is missing or says nothing', () => {
    expect(parseRegistryAuth(undefined)).toBeUndefined();
    expect(parseRegistryAuth(Buffer.from('{}').toString('base64'))).toBeUndefined();
  });

  it.each(['%%%', Buffer.from('{"password":"hunter2"').toString('base64'), Buffer.from('["hunter2"]').toString('base64')])('never appear in the error about %s', (header) => {
    const refuse = (): unknown => parseRegistryAuth(header);
    expect(refuse).toThrow(CetusError);
    try {
      refuse();
    } catch (err) {
      expect(`${(err as Error).stack}${String((err as Error).cause)}`).not.toContain('hunter2');
    }
  });
});

describe('load and save', () => {
  it('streams an archive in, and what came of it out', async () => {
    const {url, fake} = await world();
    const got = await fetch(`${url}/images/load?quiet=0`, {method: 'POST', body: Buffer.alloc(500_000), headers: {'Content-Type': 'application/x-tar'}});
    expect(lines(await got.text())).toEqual([{stream: 'Loaded 500000 bytes\n'}]);
    expect(fake.calls.at(-1)!.args).toEqual([{quiet: false}]);
  });

  it('refuses garbage with a status, also where more of it is still coming', async () => {
    const {url, address} = await world();
    const got = await fetch(`${url}/images/load`, {method: 'POST', body: 'not a tar'});
    expect(got.status).toBe(400);
    const client = await RawClient.connect(address);
    client.send('POST /images/load HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\nnot a tar');
    client.send(Buffer.alloc(1_000_000));
    expect(await client.head()).toMatchObject({status: 400, headers: {connection: 'close'}});
    expect(JSON.parse((await client.rest()).toString())).toEqual({message: 'not a tar archive'});
    client.close();
  });

  it('gives up an archive whose sender leaves', async () => {
    const {address, fake} = await world();
    const client = await RawClient.connect(address);
    client.send('POST /images/load HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nabc');
    await until('the load to begin', () => fake.calls.length === 1);
    client.close();
    await until('the load to fail', () => fake.failures.length === 1);
    expect(fake.failures[0]!.message).toBe('the client left before its request was complete');
  });

  it('saves one and several', async () => {
    const {url, fake} = await world();
    const one = await request(url).get('/images/a/b:1/get');
    expect(one.headers['content-type']).toBe('application/x-tar');
    expect(fake.calls.at(-1)!.args).toEqual([['a/b:1']]);
    await request(url).get('/images/get?names=a&names=b,c');
    expect(fake.calls.at(-1)!.args).toEqual([['a', 'b', 'c']]);
    expect((await request(url).get('/images/get')).status).toBe(400);
  });
});

describe('import', () => {
  it('from the body and from an address', async () => {
    const {url, fake} = await world();
    const got = await request(url).post('/images/create?fromSrc=-&repo=r&tag=t&message=m&changes=USER+x&changes=CMD+y&platform=linux/arm64').send('tar').buffer(true).parse(asText as never);
    expect(lines(got.body as string)).toEqual([{status: expect.stringMatching(/^sha256:/) as string}]);
    expect(fake.calls.at(-1)!.args).toEqual(['body', {repository: 'r', tag: 't', message: 'm', changes: ['USER x', 'CMD y'], platform: 'linux/arm64'}]);
    await request(url).post('/images/create?fromSrc=http://x/y.tar');
    expect(fake.calls.at(-1)!.args).toEqual(['http://x/y.tar', {repository: '', tag: '', message: '', changes: []}]);
  });
});

describe('platforms', () => {
  const arm = encodeURIComponent('{"os":"linux","architecture":"arm64"}');
  it('go to the verb, from the version on that knows them', async () => {
    const {url, fake} = await world();
    await request(url).get(`/images/busybox/get?platform=${arm}`);
    expect(fake.calls.at(-1)!.args).toEqual([['busybox'], {platform: {os: 'linux', architecture: 'arm64'}}]);
    await request(url).get(`/v1.47/images/busybox/get?platform=${arm}`);
    expect(fake.calls.at(-1)!.args).toEqual([['busybox']]);
    await request(url).delete(`/images/busybox?platforms=${arm}`);
    expect(fake.calls.at(-1)!.args).toEqual(['busybox', {force: false, noPrune: false, platforms: [{os: 'linux', architecture: 'arm64'}]}]);
  });

  it.each([['{}', 'both OS and Architecture must be provided'], ['{"variant":"v8"}', 'optional platform components provided, but OS and Architecture are not provided'], ['[]', 'failed to parse platform: an object is expected'], ['{"os":1}', 'failed to parse platform: os must be a string']])('%s is none', async (text, message) => {
    const {url} = await world();
    for (const path of ['json', 'history', 'get']) expect((await request(url).get(`/images/busybox/${path}?platform=${encodeURIComponent(text)}`)).body).toEqual({message});
  });

  it('and manifests do not go together at inspect', async () => {
    const {url} = await world();
    expect((await request(url).get(`/images/busybox/json?manifests=1&platform=${arm}`)).body).toEqual({message: 'conflicting options: manifests and platform options cannot both be set'});
    expect((await request(url).get('/images/busybox/json?manifests=1')).body).toMatchObject({Manifests: [{Kind: 'image', Available: true, ImageData: {Platform: {os: 'linux'}}}]});
    expect(((await request(url).get('/images/json?manifests=1')).body as object[])[0]).toMatchObject({Manifests: [{Kind: 'image', Size: {Content: expect.any(Number) as number}}]});
  });
});

describe('registries', () => {
  it('login, search, and what a name stands for', async () => {
    const {url, fake} = await world();
    expect((await request(url).post('/auth').send({username: 'u', password: 'p', serveraddress: 'r:5000', email: 'x'})).body).toEqual({Status: 'Login Succeeded', IdentityToken: ''});
    expect(fake.lastAuth).toEqual({username: 'u', password: 'p', serveraddress: 'r:5000'});
    expect((await request(url).post('/auth').send({password: 'wrong'})).status).toBe(401);
    expect((await request(url).get('/images/search?term=x&limit=3&filters={"stars":["2"]}')).body).toEqual([{name: 'found', description: 'a find', is_official: true, is_automated: false, star_count: 3}]);
    expect(fake.calls.at(-1)!.args).toEqual(['x', {limit: 3, filters: {stars: ['2']}}]);
    expect((await request(url).get('/images/search?term=x&limit=a')).status).toBe(400);
    expect((await request(url).get('/distribution/r:5000/a/b:1/json')).body).toMatchObject({Descriptor: {mediaType: 'm', size: 1}, Platforms: [{os: 'linux', architecture: 'amd64'}]});
    expect(fake.calls.at(-1)!.args).toEqual(['r:5000/a/b:1']);
  });

  it('push and commit say what was asked', async () => {
    const {url, fake} = await world();
    const platform = encodeURIComponent('{"os":"linux","architecture":"arm64"}');
    await request(url).post(`/images/r:5000/a/b/push?tag=1&platform=${platform}`);
    expect(fake.calls.at(-1)!.args).toEqual(['r:5000/a/b', '1', {platform: {os: 'linux', architecture: 'arm64'}}]);
    expect((await request(url).post('/images/a/push?platform=x')).status).toBe(400);
    const made = await request(url).post('/commit?container=c&repo=r&tag=t&author=a&comment=m&pause=0&changes=USER+x&changes=CMD+y').send({Cmd: 'one', OnBuild: ['RUN x']});
    expect(made.status).toBe(201);
    expect(fake.calls.at(-1)!.args).toEqual(['c', {repository: 'r', tag: 't', author: 'a', comment: 'm', pause: false, changes: ['USER x', 'CMD y'], config: {Cmd: ['one'], OnBuild: ['RUN x']}}]);
    await request(url).post('/commit?container=c');
    expect(fake.calls.at(-1)!.args).toEqual(['c', {repository: '', tag: '', author: '', comment: '', pause: true, changes: []}]);
  });
});

describe('by API version', () => {
  it('takes the name filter of before 1.41', async () => {
    const {url, fake} = await world();
    await request(url).get('/v1.40/images/json?filter=busybox');
    await request(url).get('/v1.41/images/json?filter=busybox');
    expect(fake.calls.map((c) => (c.args[0] as {filters: object}).filters)).toEqual([{reference: ['busybox']}, {}]);
  });

  it('shows untagged images as each version expects', async () => {
    const {url, fake} = await world();
    fake.images[0]!.references.length = 0;
    fake.images[0]!.image.repoDigests.length = 0;
    expect(((await request(url).get('/v1.42/images/json')).body as object[])[0]).toMatchObject({RepoTags: ['<none>:<none>'], RepoDigests: ['<none>@<none>'], VirtualSize: 4000});
    const now = ((await request(url).get('/v1.51/images/json')).body as object[])[0]!;
    expect(now).toMatchObject({RepoTags: [], RepoDigests: []});
    expect(now).not.toHaveProperty('VirtualSize');
  });

  it('keeps the fields that old clients read at inspect', async () => {
    const {url} = await world();
    expect((await request(url).get('/v1.41/images/busybox/json')).body).toMatchObject({ContainerConfig: {}, Container: '', VirtualSize: 4000, Config: {Hostname: '', Tty: false}});
    const now = (await request(url).get('/images/busybox/json')).body as {Config: object};
    expect(now).not.toHaveProperty('ContainerConfig');
    expect(now.Config).not.toHaveProperty('Hostname');
    const compose = {'User-Agent': 'docker-compose/1.29.2 docker-py/5.0.3 Linux/6.1'};
    expect((await request(url).get('/v1.51/images/busybox/json').set(compose)).body).toHaveProperty('ContainerConfig');
  });

  it('history: newest first, sizes at the layers', async () => {
    const {url} = await world();
    const got = await request(url).get('/images/busybox/history');
    expect(got.body).toMatchObject([{CreatedBy: 'CMD ["sh"]', Size: 0, Tags: ['busybox:latest']}, {CreatedBy: 'ADD rootfs', Size: 4000, Id: '<missing>', Tags: null}]);
  });
});
