import {createHash, randomBytes} from 'node:crypto';
import {Downloads, type BlobKeeper, type BlobSink} from '../../../lib/agent/images/downloads';
import {DEFAULT_LIMITS} from '../../../lib/agent/images/limits';
import {Repository} from '../../../lib/agent/images/registry/client';
import {Transport} from '../../../lib/agent/images/registry/transport';
import {systemClock} from '../../../lib/base/clock';
import {CetusError} from '../../../lib/base/errors';
import {LyingRegistry, rangeStart, sendRange} from './lying-registry';

/** A content store in memory, as strict as containerd's. */
class MemoryKeeper implements BlobKeeper {
  readonly blobs = new Map<string, Buffer>();
  readonly ingests = new Map<string, Buffer>();

  keepBlob(digest: string): Promise<boolean> {
    return Promise.resolve(this.blobs.has(digest));
  }
  abort(ref: string): Promise<void> {
    this.ingests.delete(ref);
    return Promise.resolve();
  }
  postpone(): Promise<void> {
    return Promise.resolve();
  }
  forget(): Promise<void> {
    return Promise.resolve();
  }
  writer(ref: string, total: number | undefined, expected: string | undefined): Promise<BlobSink | undefined> {
    if (this.blobs.has(expected!)) return Promise.resolve(undefined);
    const {ingests, blobs} = this;
    const now = (): Buffer => ingests.get(ref) ?? Buffer.alloc(0);
    return Promise.resolve({
      get offset() { return now().length; },
      restart: () => Promise.resolve(void ingests.delete(ref)),
      write: (chunk) => Promise.resolve(void ingests.set(ref, Buffer.concat([now(), chunk]))),
      commit: () => {
        const digest = `sha256:${createHash('sha256').update(now()).digest('hex')}`;
        if (digest !== expected || now().length !== total) return Promise.reject(new CetusError('invalid', `filesystem layer verification failed for digest ${expected}`));
        blobs.set(digest, now());
        ingests.delete(ref);
        return Promise.resolve(digest);
      },
      close: () => Promise.resolve(),
    });
  }
}

const bytes = randomBytes(1_000_000);
const layer = {mediaType: 'layer', digest: `sha256:${createHash('sha256').update(bytes).digest('hex')}`, size: bytes.length};
const path = `/v2/app/blobs/${layer.digest}`;
const limits = {...DEFAULT_LIMITS, stallMs: 250, connectMs: 1000, tries: 3};
const clock = {...systemClock, now: () => systemClock.now(), nowNs: () => systemClock.nowNs(), sleep: (_ms: number, signal?: AbortSignal) => systemClock.sleep(1, signal)};

describe('a registry that', () => {
  let registry: LyingRegistry;
  let transport: Transport;
  let keeper: MemoryKeeper;
  let downloads: Downloads;
  beforeEach(async () => {
    registry = await new LyingRegistry().start();
    transport = new Transport({limits});
    keeper = new MemoryKeeper();
    downloads = new Downloads(limits, clock);
  });
  afterEach(async () => {
    await transport.close();
    await registry.stop();
  });
  const source = (signal = new AbortController().signal): Repository => new Repository({transport, reference: {registry: registry.host, repository: 'app', tag: 'x'}, auth: undefined, limits, clock, signal});
  const fetch = (signal = new AbortController().signal, watch = (_n: number): void => undefined): Promise<void> => downloads.fetch(keeper, source(signal), layer, {}, watch, signal);

  test('serves a layer', async () => {
    registry.serve(path, bytes);
    const seen: number[] = [];
    await fetch(undefined, (n) => seen.push(n));
    expect(keeper.blobs.get(layer.digest)?.equals(bytes)).toBe(true);
    expect(seen.at(-1)).toBe(bytes.length);
    expect(seen).toEqual([...seen].sort((a, b) => a - b));
  });

  test('breaks off is asked for the rest, again and again while it brings something', async () => {
    registry.paths.set(path, (req, res) => {
      const from = rangeStart(req);
      sendRange(res, bytes, from, from + 200_000, from + 200_000 < bytes.length);
    });
    await fetch();
    expect(keeper.blobs.get(layer.digest)?.equals(bytes)).toBe(true);
    const starts = registry.to(path).map((r) => rangeStart({headers: r.headers} as never));
    expect(starts.length).toBeGreaterThanOrEqual(5);
    expect(starts).toEqual([...starts].sort((a, b) => a - b));
    expect(new Set(starts).size).toBe(starts.length);
  });

  test('knows no ranges begins anew, and what is here is skipped', async () => {
    let count = 0;
    registry.paths.set(path, (_req, res) => {
      count += 1;
      sendRange(res, bytes, 0, count === 1 ? 300_000 : bytes.length, count === 1);
    });
    await fetch();
    expect(keeper.blobs.get(layer.digest)?.equals(bytes)).toBe(true);
    expect(registry.to(path).length).toBe(2);
  });

  test('answers another range than asked is refused', async () => {
    registry.paths.set(path, (req, res) => {
      if (rangeStart(req) === 0) return sendRange(res, bytes, 0, 300_000, true);
      res.writeHead(206, {'content-range': `bytes 1-9/${bytes.length}`}).end('x');
    });
    await expect(fetch()).rejects.toMatchObject({kind: 'invalid', message: expect.stringContaining('another range')});
    expect(keeper.ingests.size).toBe(0);
  });

  test('sends more than its manifest says is cut off there', async () => {
    registry.paths.set(path, (_req, res) => {
      const endless = (): void => {
        while (res.write(bytes)) if (res.destroyed) return;
        res.once('drain', endless);
      };
      endless();
    });
    await expect(fetch()).rejects.toMatchObject({kind: 'invalid', message: expect.stringContaining('is longer than')});
    expect(keeper.ingests.size).toBe(0);
    expect(keeper.blobs.size).toBe(0);
  });

  test('sends other bytes is found out', async () => {
    registry.serve(path, randomBytes(bytes.length));
    await expect(fetch()).rejects.toMatchObject({kind: 'invalid', message: `filesystem layer verification failed for digest ${layer.digest}`});
    expect(keeper.ingests.size).toBe(0);
  });

  test('is honest where an earlier process left rubbish: fetched once more from the start', async () => {
    registry.paths.set(path, (req, res) => sendRange(res, bytes, rangeStart(req), bytes.length, false));
    keeper.ingests.set(`layer-${layer.digest}`, randomBytes(1000));
    await fetch();
    expect(keeper.blobs.get(layer.digest)?.equals(bytes)).toBe(true);
  });

  test('stalls is given up within its bounds; the next pull resumes', async () => {
    registry.paths.set(path, (req, res) => {
      res.writeHead(rangeStart(req) ? 206 : 200, {'content-length': bytes.length - rangeStart(req), 'content-range': `bytes ${rangeStart(req)}-${bytes.length - 1}/${bytes.length}`});
      if (rangeStart(req) === 0) res.write(bytes.subarray(0, 100_000));
      else res.flushHeaders();
    });
    const started = Date.now();
    await expect(fetch()).rejects.toMatchObject({kind: 'timeout'});
    expect(Date.now() - started).toBeLessThan(8000);
    expect(keeper.ingests.get(`layer-${layer.digest}`)?.length).toBe(100_000);
    registry.paths.set(path, (req, res) => sendRange(res, bytes, rangeStart(req), bytes.length, false));
    await fetch();
    expect(rangeStart({headers: registry.to(path).at(-1)!.headers} as never)).toBe(100_000);
  });

  test('stalls is not asked again when patience is over, and named', async () => {
    const impatient = {...limits, patienceMs: 100};
    registry.paths.set(path, (_req, res) => { res.writeHead(200, {'content-length': bytes.length}); res.write(bytes.subarray(0, 1000)); });
    const pulling = new Downloads(impatient, clock).fetch(keeper, new Repository({transport, reference: {registry: registry.host, repository: 'app', tag: 'x'}, auth: undefined, limits: impatient, clock, signal: new AbortController().signal}), layer, {}, () => undefined, new AbortController().signal);
    await expect(pulling).rejects.toMatchObject({kind: 'timeout', message: expect.stringContaining(registry.host), info: {registry: registry.host}});
    expect(registry.to(path)).toHaveLength(1);
  });

  test('drips is given up too', async () => {
    registry.paths.set(path, (_req, res) => {
      res.writeHead(200, {'content-length': bytes.length});
      const timer = setInterval(() => res.write('x'), 20);
      res.on('close', () => clearInterval(timer));
    });
    await expect(fetch()).rejects.toMatchObject({kind: 'timeout', message: expect.stringContaining('too slowly')});
  });

  test('fails for a moment is asked again', async () => {
    let failures = 2;
    registry.paths.set(path, (_req, res) => {
      if (failures > 0) {
        failures -= 1;
        res.writeHead(failures ? 503 : 429).end('busy');
        return;
      }
      res.end(bytes);
    });
    await fetch();
    expect(keeper.blobs.has(layer.digest)).toBe(true);
  });

  test('is asked once by many', async () => {
    registry.serve(path, bytes);
    await Promise.all(Array.from({length: 8}, () => fetch()));
    expect(registry.to(path).length).toBe(1);
  });

  test('serves one whose client hangs up: another takes over where it stopped', async () => {
    const hangsUp = new AbortController();
    let release = (): void => undefined;
    registry.paths.set(path, (req, res) => {
      if (rangeStart(req) > 0) return sendRange(res, bytes, rangeStart(req), bytes.length, false);
      res.writeHead(200, {'content-length': bytes.length});
      res.write(bytes.subarray(0, 150_000));
      release = () => hangsUp.abort();
    });
    const first = fetch(hangsUp.signal, (n) => {
      if (n >= 100_000) release();
    });
    const second = fetch();
    await expect(first).rejects.toMatchObject({name: 'AbortError'});
    await second;
    expect(keeper.blobs.get(layer.digest)?.equals(bytes)).toBe(true);
    expect(rangeStart({headers: registry.to(path).at(-1)!.headers} as never)).toBeGreaterThan(0);
  });
});
