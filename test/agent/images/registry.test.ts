import {DEFAULT_LIMITS} from '../../../lib/agent/images/limits';
import {MEDIA, sha256} from '../../../lib/agent/images/manifest';
import {Repository} from '../../../lib/agent/images/registry/client';
import {Transport} from '../../../lib/agent/images/registry/transport';
import {systemClock} from '../../../lib/base/clock';
import type {RegistryAuth} from '../../../lib/schema/docker';
import {selfSigned} from '../../fleet/certificate';
import {LyingRegistry} from './lying-registry';

const limits = {...DEFAULT_LIMITS, stallMs: 300, connectMs: 1000, tries: 2, documentBytes: 10_000};
const clock = {now: () => systemClock.now(), nowNs: () => systemClock.nowNs(), sleep: (_ms: number, signal?: AbortSignal) => systemClock.sleep(1, signal)};
const manifest = Buffer.from(JSON.stringify({schemaVersion: 2, config: {}, layers: []}));
const SECRET = 'hunter2-very-secret';

describe('a repository', () => {
  let registry: LyingRegistry;
  let other: LyingRegistry;
  let transport: Transport;
  beforeEach(async () => {
    [registry, other] = await Promise.all([new LyingRegistry().start(), new LyingRegistry().start()]);
    transport = new Transport({limits});
  });
  afterEach(async () => {
    await transport.close();
    await Promise.all([registry.stop(), other.stop()]);
  });
  const repository = (auth?: RegistryAuth, host = registry.host, within = limits): Repository =>
    new Repository({transport, reference: {registry: host, repository: 'team/app', tag: '1'}, auth, limits: within, clock, signal: new AbortController().signal});
  const path = '/v2/team/app/manifests/1';
  const failure = (promise: Promise<unknown>): Promise<Error & {kind: string; cause?: Error}> => promise.then(() => { throw new Error('it succeeded'); }, (err: Error & {kind: string; cause?: Error}) => err);
  const holdsNoSecret = (err: Error & {cause?: Error}): void => {
    const all = [JSON.stringify(err), err.message, err.stack, JSON.stringify(err.cause), err.cause?.stack].join(' ');
    expect(all).not.toContain(SECRET);
    expect(all).not.toContain(Buffer.from(`jill:${SECRET}`).toString('base64'));
  };

  test('gives a manifest with its digest and type', async () => {
    registry.serve(path, manifest, {'content-type': MEDIA.ociManifest, 'docker-content-digest': sha256(manifest)});
    expect(await repository().manifest('1')).toEqual({bytes: manifest, mediaType: MEDIA.ociManifest, digest: sha256(manifest)});
    expect(await repository().resolve('1')).toEqual({digest: sha256(manifest), mediaType: MEDIA.ociManifest});
    expect(registry.to(path)[0].headers.accept).toContain(MEDIA.dockerList);
  });

  test('refuses a manifest of another digest, by header and by request', async () => {
    registry.serve(path, manifest, {'docker-content-digest': `sha256:${'0'.repeat(64)}`});
    await expect(repository().manifest('1')).rejects.toMatchObject({kind: 'invalid', message: `manifest verification failed for digest sha256:${'0'.repeat(64)}`});
    const asked = `sha256:${'1'.repeat(64)}`;
    registry.serve(`/v2/team/app/manifests/${asked}`, manifest, {'docker-content-digest': asked});
    await expect(repository().manifest(asked)).rejects.toMatchObject({kind: 'invalid'});
  });

  test('refuses an endless manifest', async () => {
    registry.paths.set(path, (_req, res) => {
      const timer = setInterval(() => res.write(Buffer.alloc(4096)), 1);
      res.on('close', () => clearInterval(timer));
    });
    await expect(repository().manifest('1')).rejects.toMatchObject({kind: 'invalid', message: expect.stringContaining('larger than 10000 bytes')});
  });

  test('gives up a manifest that never comes', async () => {
    registry.paths.set(path, () => undefined);
    await expect(repository().manifest('1')).rejects.toMatchObject({kind: 'timeout', message: `Get "http://${registry.host}${path}": net/http: request canceled (Client.Timeout exceeded while awaiting headers)`});
    expect(registry.to(path).length).toBe(2);
  });

  test('asks nothing again when patience is over', async () => {
    registry.paths.set(path, () => undefined);
    await expect(repository(undefined, undefined, {...limits, patienceMs: 10}).manifest('1')).rejects.toMatchObject({kind: 'timeout', info: {registry: registry.host}});
    expect(registry.to(path).length).toBe(1);
  });

  test.each([
    [404, '{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}', 'notFound', 'manifest for HOST/team/app:1 not found: manifest unknown: manifest unknown'],
    [404, '{"errors":[{"code":"NAME_UNKNOWN","message":"repository name not known to registry"}]}', 'notFound', 'repository HOST/team/app not found: name unknown: repository name not known to registry'],
    [403, '{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}', 'notFound', "pull access denied for HOST/team/app, repository does not exist or may require 'docker login': denied: requested access to the resource is denied"],
    [404, '<html>no</html>', 'notFound', 'manifest for HOST/team/app:1 not found: manifest unknown: manifest unknown'],
    [400, '{"errors":[{"code":"TAG_INVALID","message":"bad\\u0000tag"}]}', 'invalid', 'tag invalid: bad tag'],
    [500, 'oops', 'unavailable', 'received unexpected HTTP status: 500 Internal Server Error'],
    [429, '{"errors":[{"code":"TOOMANYREQUESTS","message":"slow down"}]}', 'unavailable', 'toomanyrequests: slow down'],
  ])('words status %d %s as the Engine does', async (status, body, kind, message) => {
    registry.paths.set(path, (_req, res) => res.writeHead(status).end(body));
    await expect(repository().manifest('1')).rejects.toMatchObject({kind, message: message.replace('HOST', registry.host)});
  });

  test('takes credentials nowhere that a redirect leads, and asks again for the range', async () => {
    registry.paths.set('/v2/', (_req, res) => res.writeHead(401, {'www-authenticate': 'Basic realm="r"'}).end());
    const digest = sha256('blob');
    registry.paths.set(`/v2/team/app/blobs/${digest}`, (_req, res) => res.writeHead(307, {location: `http://${other.host}/bucket/x?X-Amz-Signature=${SECRET}`}).end());
    other.serve('/bucket/x', Buffer.from('blob'));
    const {body} = await repository({username: 'jill', password: SECRET}).blob(digest, 0, new AbortController().signal);
    expect(Buffer.concat(await body.toArray() as Buffer[]).toString()).toBe('blob');
    expect(registry.to(`/v2/team/app/blobs/${digest}`)[0].headers.authorization).toMatch(/^Basic /);
    expect(other.to('/bucket/x')[0].headers.authorization).toBeUndefined();
    other.paths.set('/bucket/x', (_req, res) => res.destroy());
    holdsNoSecret(await failure(repository({username: 'jill', password: SECRET}).blob(digest, 0, new AbortController().signal)));
  });

  test.each([
    ['a loop', (host: string) => `http://${host}${path}`, 'redirects more than'],
    ['another scheme', () => 'file:///etc/passwd', 'not HTTPS'],
    ['plain HTTP elsewhere', () => 'http://192.0.2.1/x', 'not HTTPS'],
    ['an address with a password', (host: string) => `http://a:b@${host}/x`, 'invalid address'],
    ['nonsense', () => 'http://[', 'invalid address'],
  ])('refuses a redirect to %s', async (_name, location, message) => {
    registry.paths.set(path, (_req, res) => res.writeHead(302, {location: location(registry.host)}).end());
    await expect(repository().manifest('1')).rejects.toMatchObject({kind: 'invalid', message: expect.stringContaining(message)});
  });

  describe('that asks for tokens', () => {
    const guard = (realm = `http://${other.host}/token`, accepted = 'Bearer good'): void => {
      const challenge = {'www-authenticate': `Bearer realm="${realm}",service="svc"`};
      registry.paths.set('/v2/', (_req, res) => res.writeHead(401, challenge).end());
      registry.paths.set(path, (req, res) => (req.headers.authorization === accepted ? res.end(manifest) : res.writeHead(401, {'www-authenticate': `${challenge['www-authenticate']},scope="repository:team/app:pull",error="insufficient_scope"`}).end()));
    };

    test('gets one, once, with name and password sent to the token server only', async () => {
      guard();
      let query = '';
      other.paths.set('/token', (req, res) => {
        query = req.url!;
        res.end('{"token":"good"}');
      });
      const repo = repository({username: 'jill', password: SECRET});
      await Promise.all([repo.manifest('1'), repo.manifest('1'), repo.manifest('1')]);
      expect(other.to('/token').length).toBe(1);
      expect(other.to('/token')[0].headers.authorization).toBe(`Basic ${Buffer.from(`jill:${SECRET}`).toString('base64')}`);
      expect(query).toBe('/token?service=svc&scope=repository%3Ateam%2Fapp%3Apull&account=jill');
      expect(registry.requests.every((r) => !r.headers.authorization?.includes('Basic'))).toBe(true);
    });

    test('asks again when the token has expired', async () => {
      guard();
      const tokens = ['old', 'good'];
      other.paths.set('/token', (_req, res) => res.end(JSON.stringify({access_token: tokens.shift()})));
      expect((await repository().manifest('1')).bytes).toEqual(manifest);
      expect(other.to('/token').length).toBe(2);
    });

    test('is denied where the new token is no better', async () => {
      guard();
      other.paths.set('/token', (_req, res) => res.end('{"token":"bad"}'));
      await expect(repository().manifest('1')).rejects.toMatchObject({kind: 'notFound', message: expect.stringMatching(/^pull access denied for .*\/team\/app, repository does not exist or may require 'docker login': denied: requested access/)});
      expect(other.to('/token').length).toBe(2);
    });

    test('uses a token it was given', async () => {
      guard(undefined, `Bearer ${SECRET}`);
      expect((await repository({registrytoken: SECRET}).manifest('1')).bytes).toEqual(manifest);
      expect(other.to('/token').length).toBe(0);
    });

    test.each([['file:///etc/shadow'], ['ftp://x/'], ['nonsense'], ['http://192.0.2.1/token'], ['http://u:p@127.0.0.1/']])('sends nothing to the realm %s', async (realm) => {
      guard(realm);
      const err = await failure(repository({username: 'jill', password: SECRET}).manifest('1'));
      expect(err).toMatchObject({kind: 'invalid'});
      holdsNoSecret(err);
    });

    test.each([[401, '{"details":"incorrect username or password"}', 'unauthorized'], [200, 'no json', 'unavailable'], [200, '{}', 'unavailable'], [200, '{"token":"a\\nb"}', 'unavailable'], [500, '', 'unavailable']])('a token server that answers %d %s', async (status, body, kind) => {
      guard();
      other.paths.set('/token', (_req, res) => res.writeHead(status).end(body));
      const err = await failure(repository({username: 'jill', password: SECRET}).manifest('1'));
      expect(err).toMatchObject({kind, message: expect.stringContaining(`Get "http://${other.host}/token": `)});
      holdsNoSecret(err);
    });

    test('and for a password where there is none', async () => {
      registry.paths.set('/v2/', (_req, res) => res.writeHead(401, {'www-authenticate': 'Basic realm="x"'}).end());
      await expect(repository().manifest('1')).rejects.toMatchObject({kind: 'unauthorized', message: expect.stringContaining('no basic auth credentials')});
    });
  });

  test('a registry on this machine may show any certificate, and is not asked in plain HTTP then', async () => {
    const secure = await new LyingRegistry(selfSigned()).start();
    try {
      secure.serve(path, manifest, {'content-type': MEDIA.ociManifest});
      expect((await repository(undefined, secure.host).manifest('1')).bytes).toEqual(manifest);
      expect(transport.schemes.get(secure.host)).toBe('https:');
      // The same server by an address that is not loopback's: there its certificate counts.
      const far = repository(undefined, secure.host.replace('127.0.0.1', '0.0.0.0'));
      await expect(far.manifest('1')).rejects.toMatchObject({kind: 'unavailable', message: expect.stringMatching(/tls: failed to verify certificate: x509: /)});
    } finally {
      await secure.stop();
    }
  });

  test('only loopback and what is configured may speak plain HTTP', () => {
    const configured = new Transport({limits, insecureRegistries: ['registry.lan', 'other.lan:5000', '10.1.0.0/16']});
    const insecure = (host: string): boolean => configured.isInsecure(host);
    expect(['127.0.0.1:5000', '127.9.9.9', 'localhost:1', '[::1]:5000', 'registry.lan:5000', 'other.lan:5000', '10.1.2.3:5000'].every(insecure)).toBe(true);
    expect(['128.0.0.1', 'other.lan:5001', '10.2.0.1', 'localhost.evil.com', '127.0.0.1.evil.com', 'example.com'].some(insecure)).toBe(false);
    return configured.close();
  });

  test('a host that does not exist, and a port where nobody is', async () => {
    await expect(repository(undefined, 'no-such-host.invalid').manifest('1')).rejects.toMatchObject({kind: 'unavailable', message: expect.stringMatching(/^Get "https:\/\/no-such-host\.invalid\/v2\/": dial tcp: lookup no-such-host\.invalid: /)});
    await expect(repository(undefined, '127.0.0.1:1').manifest('1')).rejects.toMatchObject({kind: 'unavailable', message: 'Get "http://127.0.0.1:1/v2/": dial tcp 127.0.0.1:1: connect: connection refused'});
  });
});
