/** Uploads to a registry that behaves, breaks off, forgets and lies. */
import {randomBytes} from 'node:crypto';
import type http from 'node:http';
import {Readable} from 'node:stream';
import {DEFAULT_LIMITS} from '../../../lib/agent/images/limits';
import {sha256} from '../../../lib/agent/images/manifest';
import {Repository} from '../../../lib/agent/images/registry/client';
import {Transport} from '../../../lib/agent/images/registry/transport';
import {Uploader} from '../../../lib/agent/images/registry/upload';
import {systemClock} from '../../../lib/base/clock';
import type {RegistryAuth} from '../../../lib/schema/docker';
import {LyingRegistry} from './lying-registry';

const PIECE = 64 * 1024;
const limits = {...DEFAULT_LIMITS, stallMs: 500, connectMs: 1000, tries: 3, uploadBytes: PIECE};
const clock = {now: () => systemClock.now(), nowNs: () => systemClock.nowNs(), sleep: (_ms: number, signal?: AbortSignal) => systemClock.sleep(1, signal)};
const SECRET = 'hunter2-very-secret';
const UPLOADS = '/v2/team/app/blobs/uploads/';
const SESSION = '/v2/team/app/session';

type Fate = 'serve' | 'break' | 'unavailable';

/** What a registry keeps of one upload, and what it does wrong with the nth request for it. */
class Uploads {
  received = Buffer.alloc(0);
  begun = 0;
  stored: Buffer | undefined;
  /** by "METHOD n" */
  readonly fates = new Map<string, Fate>();
  forgetful = false;
  mountable = new Set<string>();
  location = SESSION;
  headers: Record<string, string> = {};
  readonly said: string[] = [];
  private readonly counts = new Map<string, number>();

  constructor(registry: LyingRegistry) {
    registry.paths.set(UPLOADS, (req, res) => this.post(req, res));
    registry.paths.set(SESSION, (req, res) => void this.session(req, res));
  }

  private post(req: http.IncomingMessage, res: http.ServerResponse): void {
    const {searchParams} = new URL(req.url!, 'http://registry');
    const from = searchParams.get('from');
    if (from !== null && this.mountable.has(from)) return void res.writeHead(201, {location: `/v2/team/app/blobs/${searchParams.get('mount')}`}).end();
    this.begun += 1;
    this.received = Buffer.alloc(0);
    res.writeHead(202, {location: this.location, range: '0-0', ...this.headers}).end();
  }

  private async session(req: http.IncomingMessage, res: http.ServerResponse): Promise<void> {
    const method = req.method!;
    const nth = (this.counts.get(method) ?? 0) + 1;
    this.counts.set(method, nth);
    this.said.push(`${method} ${req.headers['content-range'] ?? ''}`.trim());
    const fate = this.fates.get(`${method} ${nth}`) ?? 'serve';
    if (fate === 'unavailable') {
      req.resume();
      return void res.writeHead(503).end();
    }
    if (method === 'GET') return void (this.forgetful ? res.writeHead(404).end('{"errors":[{"code":"BLOB_UPLOAD_UNKNOWN","message":"blob upload unknown"}]}') : res.writeHead(204, {location: SESSION, range: this.range()}).end());
    for await (const chunk of req) {
      this.received = Buffer.concat([this.received, chunk as Buffer]);
      if (fate === 'break') return void req.socket.destroy();
    }
    if (method === 'PATCH') return void res.writeHead(202, {location: SESSION, range: this.range()}).end();
    const digest = new URL(req.url!, 'http://registry').searchParams.get('digest');
    if (sha256(this.received) !== digest) return void res.writeHead(400).end('{"errors":[{"code":"DIGEST_INVALID","message":"provided digest did not match uploaded content"}]}');
    this.stored = this.received;
    res.writeHead(201).end();
  }

  private range(): string {
    return `0-${Math.max(0, this.received.length - 1)}`;
  }
}

describe('an upload', () => {
  let registry: LyingRegistry;
  let transport: Transport;
  let uploads: Uploads;
  beforeEach(async () => {
    registry = await new LyingRegistry().start();
    transport = new Transport({limits});
    uploads = new Uploads(registry);
  });
  afterEach(async () => {
    await transport.close();
    await registry.stop();
  });
  const uploader = (auth?: RegistryAuth): Uploader => new Uploader(new Repository({
    transport, reference: {registry: registry.host, repository: 'team/app', tag: '1'}, auth, access: {kind: 'push', from: ['team/base']}, limits, clock, signal: new AbortController().signal,
  }), limits, clock);
  const send = async (bytes: Buffer, with_ = uploader(), signal = new AbortController().signal): Promise<{sent: number; retried: number}> => {
    let [sent, retried] = [0, 0];
    const open = (offset: number, length: number): Readable => Readable.from([bytes.subarray(offset, offset + length)], {objectMode: false});
    await with_.send({digest: sha256(bytes), size: bytes.length, open}, undefined, {sent: (n) => { sent = n; }, retrying: () => { retried += 1; }}, signal);
    return {sent, retried};
  };

  test('small ones go in one request, and empty ones too', async () => {
    for (const bytes of [randomBytes(PIECE), Buffer.alloc(0)]) {
      uploads.said.length = 0;
      expect(await send(bytes)).toEqual({sent: bytes.length, retried: 0});
      expect(uploads.stored).toEqual(bytes);
      expect(uploads.said).toEqual(['PUT']);
    }
  });

  test('large ones go piece by piece', async () => {
    const bytes = randomBytes(2 * PIECE + 10);
    await send(bytes);
    expect(uploads.stored).toEqual(bytes);
    expect(uploads.said).toEqual([`PATCH 0-${PIECE - 1}`, `PATCH ${PIECE}-${2 * PIECE - 1}`, `PATCH ${2 * PIECE}-${2 * PIECE + 9}`, 'PUT']);
  });

  test('a registry that wants larger pieces gets them', async () => {
    uploads.headers = {'oci-chunk-min-length': String(3 * PIECE)};
    const bytes = randomBytes(2 * PIECE + 10);
    await send(bytes);
    expect(uploads.said).toEqual(['PUT']);
  });

  test('one that breaks off goes on where the registry is', async () => {
    const bytes = randomBytes(5 * PIECE);
    uploads.fates.set('PATCH 2', 'break').set('PATCH 4', 'unavailable');
    expect(await send(bytes)).toEqual({sent: bytes.length, retried: 2});
    expect(uploads.stored).toEqual(bytes);
    expect(uploads.begun).toBe(1);
  });

  test('one that the registry has forgotten begins anew', async () => {
    const bytes = randomBytes(3 * PIECE);
    uploads.forgetful = true;
    uploads.fates.set('PATCH 2', 'break');
    await send(bytes);
    expect(uploads.stored).toEqual(bytes);
    expect(uploads.begun).toBe(2);
  });

  test('one that goes on with other bytes than were sent begins anew', async () => {
    const bytes = randomBytes(3 * PIECE);
    uploads.fates.set('PATCH 2', 'break');
    const sending = send(bytes);
    const corrupt = setInterval(() => {
      if (uploads.said.includes('GET')) return;
      if (uploads.received.length > 0) uploads.received = Buffer.from(uploads.received).fill(0, 0, 10);
    }, 0);
    await sending.finally(() => clearInterval(corrupt));
    expect(uploads.stored).toEqual(bytes);
  });

  test('a registry that never recovers is given up, in its words', async () => {
    for (let n = 1; n < 20; n += 1) uploads.fates.set(`PUT ${n}`, 'unavailable');
    await expect(send(randomBytes(10))).rejects.toMatchObject({kind: 'unavailable', message: 'received unexpected HTTP status: 503 Service Unavailable'});
    expect(uploads.said.filter((s) => s === 'PUT')).toHaveLength(3);
  });

  test('what is refused is not sent again', async () => {
    registry.paths.set(UPLOADS, (_req, res) => res.writeHead(403).end('{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}'));
    await expect(send(randomBytes(10))).rejects.toMatchObject({kind: 'forbidden', message: 'denied: requested access to the resource is denied'});
    expect(registry.to(UPLOADS)).toHaveLength(1);
  });

  test('ends with its signal', async () => {
    const abort = new AbortController();
    registry.paths.set(SESSION, () => abort.abort(new Error('left')));
    await expect(send(randomBytes(3 * PIECE), uploader(), abort.signal)).rejects.toThrow('left');
  });

  test('a layer is taken over from another repository, or goes up where it cannot be', async () => {
    uploads.mountable.add('team/base');
    const up = uploader();
    expect(await up.mount(`sha256:${'a'.repeat(64)}`, 'team/base')).toBe('mounted');
    const session = await up.mount(`sha256:${'a'.repeat(64)}`, 'team/other');
    expect(session).toMatchObject({location: new URL(`http://${registry.host}${SESSION}`)});
  });

  test('is there already, or is not', async () => {
    const [there, missing] = [`sha256:${'a'.repeat(64)}`, `sha256:${'b'.repeat(64)}`];
    registry.serve(`/v2/team/app/blobs/${there}`, Buffer.alloc(0));
    expect([await uploader().exists(there), await uploader().exists(missing)]).toEqual([true, false]);
  });

  test.each(['ftp://x/', 'http://u:p@127.0.0.1/', 'http://'])('an upload is not followed to %j', async (location) => {
    uploads.location = location;
    await expect(send(randomBytes(10))).rejects.toMatchObject({kind: 'invalid'});
  });

  test('credentials stay with the registry, wherever its uploads go', async () => {
    const elsewhere = await new LyingRegistry().start();
    elsewhere.paths.set('/store', (req, res) => {
      req.resume().on('end', () => res.writeHead(201).end());
    });
    registry.paths.set('/v2/', (req, res) => (req.headers.authorization ? res.end('{}') : res.writeHead(401, {'www-authenticate': 'Basic realm="x"'}).end()));
    uploads.location = `http://${elsewhere.host}/store?signature=1`;
    await send(randomBytes(10), uploader({username: 'jill', password: SECRET}));
    expect(registry.to(UPLOADS)[0]!.headers.authorization).toMatch(/^Basic /);
    expect(elsewhere.requests.map((r) => [r.method, r.headers.authorization])).toEqual([['PUT', undefined]]);
    await elsewhere.stop();
  });

  test('a token is asked for writing, and for reading where layers may be taken from', async () => {
    const asked: string[][] = [];
    registry.paths.set('/token', (req, res) => {
      asked.push(new URL(req.url!, 'http://x').searchParams.getAll('scope'));
      res.end('{"token":"t"}');
    });
    registry.paths.set('/v2/', (_req, res) => res.writeHead(401, {'www-authenticate': `Bearer realm="http://${registry.host}/token",service="x"`}).end());
    await send(randomBytes(10));
    expect(asked).toEqual([['repository:team/app:pull,push', 'repository:team/base:pull']]);
  });
});
