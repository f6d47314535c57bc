/** What is asked of registries without fetching anything: login, inspect, search; against registries in this process. */
import fc from 'fast-check';
import {DEFAULT_LIMITS} from '../../../lib/agent/images/limits';
import {askRegistry, registryOf} from '../../../lib/agent/images/registry/questions';
import {splitTerm} from '../../../lib/agent/images/registry/search';
import {Transport} from '../../../lib/agent/images/registry/transport';
import {systemClock} from '../../../lib/base/clock';
import {isCetusError} from '../../../lib/base/errors';
import type {RegistryAuth} from '../../../lib/schema/docker';
import {buildImage, buildIndex, buildLayer} from '../../harness/images';
import {LyingRegistry} from './lying-registry';

const limits = {...DEFAULT_LIMITS, stallMs: 500, connectMs: 1000, tries: 1, documentBytes: 20_000};
const SECRET = 'hunter2-very-secret';

let registry: LyingRegistry;
let transport: Transport;
beforeEach(async () => {
  registry = await new LyingRegistry().start();
  transport = new Transport({limits});
});
afterEach(async () => {
  await transport.close();
  await registry.stop();
});
const parts = () => ({transport, limits, clock: systemClock});
const signal = new AbortController().signal;

describe('login', () => {
  const login = (auth: RegistryAuth, server = registry.host): Promise<{identityToken: string}> => askRegistry(parts(), {kind: 'login', server}, auth, signal);
  const jill = (password: string): RegistryAuth => ({username: 'jill', password});
  const askForBasic = (): void => {
    registry.paths.set('/v2/', (req, res) => {
      const right = req.headers.authorization === `Basic ${Buffer.from(`jill:${SECRET}`).toString('base64')}`;
      if (right) res.end('{}');
      else res.writeHead(401, {'www-authenticate': 'Basic realm="x"'}).end('{}');
    });
  };

  test('a registry that asks for nobody takes everybody', async () => {
    expect(await login({})).toEqual({identityToken: ''});
  });

  test('by name and password, wherever the address stands', async () => {
    askForBasic();
    for (const server of [registry.host, `http://${registry.host}`, `https://${registry.host}/v2/`]) expect(await login(jill(SECRET), server)).toEqual({identityToken: ''});
    await expect(login(jill('wrong'))).rejects.toMatchObject({kind: 'unauthorized', message: `login attempt to http://${registry.host}/v2/ failed with status: 401 Unauthorized`});
    await expect(login({})).rejects.toMatchObject({kind: 'unauthorized', message: 'no basic auth credentials'});
  });

  test('by token, with one for later where the registry gives it', async () => {
    registry.paths.set('/token', (req, res) => {
      const {searchParams} = new URL(req.url!, 'http://x');
      if (req.headers.authorization !== `Basic ${Buffer.from(`jill:${SECRET}`).toString('base64')}`) return void res.writeHead(401).end('{"details":"incorrect username or password"}');
      res.end(JSON.stringify({token: 't', ...(searchParams.get('offline_token') === 'true' ? {refresh_token: 'for-later'} : {})}));
    });
    registry.paths.set('/v2/', (req, res) => {
      if (req.headers.authorization === 'Bearer t') res.end('{}');
      else res.writeHead(401, {'www-authenticate': `Bearer realm="http://${registry.host}/token",service="x"`}).end();
    });
    expect(await login(jill(SECRET))).toEqual({identityToken: 'for-later'});
    await expect(login(jill('wrong'))).rejects.toMatchObject({kind: 'unauthorized', message: `Get "https://${registry.host}/v2/": unauthorized: incorrect username or password`});
  });

  test('no error holds a password', async () => {
    registry.paths.set('/v2/', (_req, res) => res.writeHead(401, {'www-authenticate': 'Basic realm="x"'}).end(SECRET));
    const err = await login(jill(SECRET)).catch((e: Error) => e) as Error;
    expect(JSON.stringify(err) + err.message + err.stack).not.toContain(SECRET);
  });

  test.each([['', 'docker.io'], ['https://index.docker.io/v1/', 'docker.io'], ['docker.io', 'docker.io'], ['r.example:5000', 'r.example:5000'], ['http://r.example/v2/', 'r.example'], ['r.example:443', 'r.example:443'], ['[::1]:5000', '[::1]:5000']])('%j is %s', (server, registry_) => {
    expect(registryOf(server)).toBe(registry_);
  });
});

describe('inspect', () => {
  const inspect = (reference: string) => askRegistry(parts(), {kind: 'inspect', reference: `${registry.host}/${reference}`}, undefined, signal);

  test('an image and an index', async () => {
    const image = buildImage([await buildLayer([{name: 'x'}])], {platform: {os: 'linux', architecture: 'arm', variant: 'v7'}});
    const index = buildIndex([image]);
    registry.serve('/v2/app/manifests/1', image.manifest, {'content-type': image.descriptor.mediaType});
    registry.serve(`/v2/app/manifests/${index.digest}`, index.bytes, {'content-type': index.mediaType});
    registry.serve(`/v2/app/blobs/${image.imageId}`, image.config);
    const platforms = [{os: 'linux', architecture: 'arm', variant: 'v7'}];
    expect(await inspect('app:1')).toEqual({descriptor: {mediaType: image.descriptor.mediaType, digest: image.digest, size: image.manifest.length}, platforms});
    expect(await inspect(`app@${index.digest}`)).toEqual({descriptor: {mediaType: index.mediaType, digest: index.digest, size: index.bytes.length}, platforms});
    registry.paths.delete(`/v2/app/blobs/${image.imageId}`);
    expect(await inspect('app:1')).toMatchObject({platforms: []});
  });

  test('what is not there', async () => {
    await expect(inspect('nothing:1')).rejects.toMatchObject({kind: 'notFound', message: 'manifest unknown: manifest unknown'});
  });
});

describe('search', () => {
  const search = (term: string, auth?: RegistryAuth) => askRegistry(parts(), {kind: 'search', term, limit: 7}, auth, signal);

  test('of a registry of the first version', async () => {
    registry.paths.set('/v1/_ping', (_req, res) => res.end('true'));
    let asked = '';
    registry.paths.set('/v1/search', (req, res) => {
      asked = req.url!;
      res.end(JSON.stringify({results: [{name: 'a/b', description: 'what', is_official: true, star_count: 3, is_automated: true}, null, {name: 7}]}));
    });
    expect(await search(`${registry.host}/two words`, {username: 'jill', password: SECRET})).toEqual({results: [{name: 'a/b', description: 'what', isOfficial: true, stars: 3}, {name: '', description: '', isOfficial: false, stars: 0}, {name: '', description: '', isOfficial: false, stars: 0}]});
    expect(asked).toBe('/v1/search?q=two+words&n=7');
    expect(registry.to('/v1/search')[0]!.headers).toMatchObject({'x-docker-token': 'true', authorization: expect.stringMatching(/^Basic /)});
    expect(registry.to('/v1/_ping')[0]!.headers.authorization).toBeUndefined();
  });

  test('what goes wrong is said in the Engine\'s words', async () => {
    await expect(search(`${registry.host}/x`)).rejects.toMatchObject({message: 'Unexpected status code 404'});
    registry.serve('/v1/search', Buffer.from('<html>'));
    await expect(search(`${registry.host}/x`)).rejects.toMatchObject({message: 'error decoding registry search results: not JSON'});
    registry.serve('/v1/search', Buffer.alloc(30_000));
    await expect(search(`${registry.host}/x`)).rejects.toMatchObject({kind: 'invalid', message: expect.stringContaining('larger than') as string});
    await expect(search('127.0.0.1:1/x')).rejects.toMatchObject({kind: 'unavailable', message: expect.stringMatching(/^invalid registry endpoint "http:\/\/127\.0\.0\.1:1\/v1\/"\. HTTPS attempt: Get .* connection refused\. HTTP attempt: Get .* connection refused$/) as string});
  });

  test('which registry a term means', () => {
    expect([splitTerm('library/x'), splitTerm('docker.io/library/x'), splitTerm('a/b'), splitTerm('localhost/b'), splitTerm('r:5000/a/b')])
      .toEqual([{host: 'index.docker.io', words: 'x'}, {host: 'index.docker.io', words: 'x'}, {host: 'index.docker.io', words: 'a/b'}, {host: 'localhost', words: 'b'}, {host: 'r:5000', words: 'a/b'}]);
    fc.assert(fc.property(fc.string(), (term) => {
      try {
        const {host} = splitTerm(term);
        expect(new URL(`https://${host}/v1/`).username).toBe('');
      } catch (err) {
        if (!isCetusError(err, 'invalid')) throw err;
      }
    }));
  });
});
