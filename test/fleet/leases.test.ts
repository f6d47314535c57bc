/** Leases in the store: what a heartbeat costs, who judges, and what must stand in the way of a fence. */
import {silentLog} from '../../lib/base/log';
import {CetusError} from '../../lib/base/errors';
import {fence, fenceAll} from '../../lib/fleet/fencing';
import {fenceDelayMs} from '../../lib/fleet/liveness';
import {Registry} from '../../lib/fleet/registry';
import {Renewals} from '../../lib/fleet/renewals';
import {Review} from '../../lib/fleet/review';
import {createMemoryMoray} from '../../lib/moray/memory';
import type {Moray} from '../../lib/moray/moray';
import type {HeartbeatAnswer} from '../../lib/schema/agent';
import {BUCKETS} from '../../lib/schema/buckets';
import {type LeaseRow, type Node, REVIEWER} from '../../lib/schema/node';
import {idle, SimClock} from '../workflow/world';
import {type Counted, counting} from './counting';
import {someFacts} from './objects';

const LEASE_MS = 15_000;
const FENCE_AFTER_MS = 60_000;
const DELAY_MS = fenceDelayMs(FENCE_AFTER_MS, LEASE_MS);

class Endpoint {
  readonly registry: Registry;
  readonly review: Review;

  constructor(readonly name: string, moray: Moray, readonly clock: SimClock) {
    const log = silentLog();
    this.registry = new Registry({moray, log, clock, endpoint: name, changed: (...of) => this.review.nodeChanged(...of)});
    this.review = new Review({moray, log, clock, registry: this.registry, endpoint: name, leaseMs: LEASE_MS, graceMs: 2 * LEASE_MS, fenceAfterMs: FENCE_AFTER_MS, nowMs: () => clock.now()});
  }

  async start(): Promise<this> {
    await this.registry.start();
    await this.review.start();
    return this;
  }

  async stop(): Promise<void> {
    await this.review.stop();
    await this.registry.stop();
  }

  join(nodeId: string, bootGeneration = 1, agentUrl = `https://${nodeId}:7071`): Promise<unknown> {
    return this.registry.join(someFacts({nodeId, name: nodeId, agentUrl, bootGeneration}));
  }

  beat(nodeId: string, bootGeneration = 1): Promise<HeartbeatAnswer> {
    return this.review.heartbeat({nodeId, bootGeneration, reportSeq: 0, runningContainers: 0});
  }
}

const joined = (id: string): Node => ({
  id, name: id, facts: someFacts({nodeId: id, name: id, agentUrl: `https://${id}:7071`}), availability: 'active', liveness: 'alive', livenessReason: 'joined', livenessAt: '', labels: {}, joinedAt: '',
});

describe('leases', () => {
  let clock: SimClock;
  let moray: Moray;
  let counted: Counted;
  let endpoints: Endpoint[];
  const add = async (name: string): Promise<Endpoint> => {
    const endpoint = await new Endpoint(name, moray, clock).start();
    endpoints.push(endpoint);
    return endpoint;
  };
  const node = async (id: string): Promise<Node> => (await moray.get<Node>(BUCKETS.nodes.name, id)).value;
  const rows = async (): Promise<LeaseRow[]> => (await moray.list<LeaseRow>(BUCKETS.leases.name, '(&)')).filter((r) => r.key !== REVIEWER).map((r) => r.value);
  /** Beats as an agent's: a third of the lease apart, for so long. */
  const beating = async (endpoint: Endpoint, ids: string[], ms: number, bootGeneration = 1): Promise<void> => {
    for (const end = clock.now() + ms; clock.now() < end;) {
      await clock.until(Promise.all(ids.map((id) => endpoint.beat(id, bootGeneration))));
      await clock.pass(LEASE_MS / 3);
    }
  };

  beforeEach(() => {
    clock = new SimClock();
    ({moray, counted} = counting(createMemoryMoray({clock})));
    endpoints = [];
  });
  afterEach(async () => {
    for (const endpoint of endpoints) await clock.until(endpoint.stop());
    await moray.close();
  });

  test('a heartbeat is answered when its renewal is durable, and says how long what is marked may run', async () => {
    const a = await add('a');
    await a.join('n1');
    expect(await clock.until(a.beat('n1'))).toEqual({leaseMs: LEASE_MS, fenceAfterMs: FENCE_AFTER_MS});
    expect(await rows()).toEqual([{endpoint: 'a', shard: 0, renewals: {n1: 1}}]);
    expect((await node('n1')).lease).toEqual({row: 'a/0', bootGeneration: 1, fenceDelayMs: DELAY_MS});
    const second = a.beat('n1');
    await idle();
    expect((await rows())[0]!.renewals).toEqual({n1: 1});
    await clock.until(second);
    expect((await rows())[0]!.renewals).toEqual({n1: 2});
  });

  test('a node behind a unix socket costs no write at all, not even a row of leases', async () => {
    const a = await add('a');
    await a.join('n1', 1, 'unix:///run/agent.sock');
    const {commits} = counted;
    for (let i = 0; i < 60; i += 1) {
      expect(await a.beat('n1')).toEqual({leaseMs: LEASE_MS});
      await clock.pass(5_000);
    }
    expect(counted.commits).toBe(commits);
    await clock.pass(DELAY_MS + LEASE_MS);
    expect((await node('n1')).liveness).toBe('lost');
    expect(await moray.count(BUCKETS.leases.name, '(&)')).toBe(0);
  });

  test('10,000 nodes that beat at three endpoints cost the store less than 50 writes a second', async () => {
    const three = [await add('a'), await add('b'), await add('c')];
    const ids = Array.from({length: 10_000}, (_, i) => `node-${i}`);
    await moray.batch(ids.map((id) => ({op: 'put', bucket: BUCKETS.nodes.name, key: id, value: joined(id), etag: null})));
    await clock.pass(1_000);
    const round = (): Promise<unknown> => Promise.all(ids.map((id, i) => three[i % 3]!.beat(id)));
    await clock.until(round());
    const before = {...counted};
    const fromMs = clock.now();
    for (let i = 0; i < 4; i += 1) {
      const next = clock.sleep(LEASE_MS / 3);
      await clock.until(round());
      await clock.until(next);
    }
    const seconds = (clock.now() - fromMs) / 1000;
    const perSecond = (counted.rows - before.rows) / seconds;
    process.stdout.write(`    10,000 nodes: ${((counted.commits - before.commits) / seconds).toFixed(1)} commits and ${perSecond.toFixed(1)} rows a second\n`);
    expect(perSecond).toBeLessThan(50);
    expect((await moray.list<Node>(BUCKETS.nodes.name, '(liveness=alive)')).length).toBe(10_000);
  }, 120_000);

  test('agents that beat as they like, not in step, cost no more: a row waits a sixth of a lease for them', async () => {
    const a = await add('a');
    const ids = Array.from({length: 200}, (_, i) => `node-${i}`);
    await clock.until(Promise.all(ids.map((id) => a.join(id))));
    await clock.until(Promise.all(ids.map((id) => a.beat(id))));
    const {commits} = counted;
    const fromMs = clock.now();
    const beats: Promise<unknown>[] = [];
    for (let at = 0; at < 60_000; at += 25) {
      beats.push(a.beat(ids[(at / 25) % 200]!));
      await clock.pass(25);
    }
    await clock.until(Promise.all(beats));
    expect((counted.commits - commits) / ((clock.now() - fromMs) / 1000)).toBeLessThan(0.4 + 0.3);
  });

  test('suspect, lost, fenced; and the fenced life is refused for ever, the next one welcome', async () => {
    const a = await add('a');
    await a.join('n1');
    await a.join('n2');
    await beating(a, ['n1', 'n2'], 60_000);
    const seen: string[] = [];
    for (let at = 0; at < DELAY_MS + 2 * LEASE_MS; at += 1_000) {
      if (at % 5_000 === 0) await clock.until(a.beat('n2'));
      await clock.pass(1_000);
      const {liveness} = await node('n1');
      if (seen.at(-1)?.split(' ')[0] !== liveness) seen.push(`${liveness} ${Math.round(at / LEASE_MS)}`);
    }
    expect(seen.map((s) => s.split(' ')[0])).toEqual(['alive', 'suspect', 'lost', 'fenced']);
    expect((await node('n2')).liveness).toBe('alive');
    expect(await node('n1')).toMatchObject({fencedGeneration: 1, livenessReason: /no heartbeat for \d+ s/});
    expect((await rows())[0]!.renewals).not.toHaveProperty('n1');
    await expect(clock.until(a.beat('n1'))).rejects.toMatchObject({kind: 'stale', info: {fenced: true}});
    await expect(a.join('n1')).rejects.toMatchObject({kind: 'stale', info: {fenced: true}});
    await a.join('n1', 2);
    expect(await clock.until(a.beat('n1', 2))).toMatchObject({fenceAfterMs: FENCE_AFTER_MS});
    expect(await node('n1')).toMatchObject({liveness: 'alive', fencedGeneration: 1});
    await expect(clock.until(a.beat('n1'))).rejects.toMatchObject({kind: 'stale'});
  });

  test('a node that turns to another endpoint lives on, whoever reviews', async () => {
    const [a, b] = [await add('a'), await add('b')];
    await a.join('n1');
    await beating(a, ['n1'], 30_000);
    await beating(b, ['n1'], 2 * DELAY_MS);
    expect(await node('n1')).toMatchObject({liveness: 'alive', lease: {row: 'b/0'}});
    expect((await rows()).map((r) => r.endpoint).sort()).toEqual(['a', 'b']);
  });

  test('when the reviewer dies another endpoint takes over, and what it has seen counts', async () => {
    const [a, b] = [await add('a'), await add('b')];
    await a.join('n1');
    await beating(b, ['n1'], 60_000);
    const holder = (await moray.get<{holder: string}>(BUCKETS.leases.name, REVIEWER)).value.holder;
    const [dead] = endpoints.splice(holder === 'a' ? 0 : 1, 1);
    await clock.until(dead!.stop());
    const fromMs = clock.now();
    while ((await node('n1')).liveness !== 'fenced' && clock.now() - fromMs < 3 * DELAY_MS) await clock.pass(1_000);
    expect(clock.now() - fromMs).toBeGreaterThan(DELAY_MS - LEASE_MS);
    expect(clock.now() - fromMs).toBeLessThan(DELAY_MS + 2 * LEASE_MS);
  });

  test('a renewal that slips in before the fence is in the store stands in its way: at its endpoint, at another, in a row that nobody has seen', async () => {
    for (const how of ['same row', 'new row']) {
      const [a, b] = [await add('a'), await add('b')];
      await a.join('n1');
      await clock.until(a.beat('n1'));
      const stored = await moray.get<Node>(BUCKETS.nodes.name, 'n1');
      const renewals = new Renewals(() => clock.now());
      for (const row of await moray.list<LeaseRow>(BUCKETS.leases.name, '(&)')) if (row.key !== REVIEWER) renewals.row(row.key, row.value);
      const doomed = [{node: stored, seenMs: renewals.atMs('n1'), reason: 'silence', at: ''}];
      const view = {moray, renewals, remember: () => undefined};
      // Before the rows are read: they say something new.
      await clock.until((how === 'same row' ? a : b).beat('n1'));
      expect(await fence(view, doomed)).toEqual([]);
      // After they were read: the batch is refused.
      const now = await moray.get<Node>(BUCKETS.nodes.name, 'n1');
      const late = new Proxy(moray, {get: (target, property) => {
        if (property !== 'batch') return (Reflect.get(target, property) as (...x: unknown[]) => unknown).bind(target);
        return async (ops: never) => {
          await clock.until((how === 'same row' ? b : a).beat('n1'));
          return target.batch(ops);
        };
      }});
      await expect(fence({...view, moray: late}, [{...doomed[0]!, node: now, seenMs: renewals.atMs('n1')}])).rejects.toMatchObject({kind: 'etagConflict'});
      expect((await node('n1')).liveness).toBe('alive');
      for (const endpoint of endpoints.splice(0)) await clock.until(endpoint.stop());
      await moray.delete(BUCKETS.nodes.name, 'n1');
      for (const row of await moray.list<LeaseRow>(BUCKETS.leases.name, '(&)')) await moray.delete(BUCKETS.leases.name, row.key);
    }
  });

  test('what a try saw holds the next one back: a fence that met a renewal is not tried again as if it had not', async () => {
    const a = await add('a');
    for (const id of ['n1', 'n2']) await a.join(id);
    await clock.until(Promise.all([a.beat('n1'), a.beat('n2')]));
    const renewals = new Renewals(() => clock.now());
    for (const row of await moray.list<LeaseRow>(BUCKETS.leases.name, '(&)')) if (row.key !== REVIEWER) renewals.row(row.key, row.value);
    const doomed = await Promise.all(['n1', 'n2'].map(async (id) => ({node: await moray.get<Node>(BUCKETS.nodes.name, id), seenMs: renewals.atMs(id), reason: 'silence', at: ''})));
    await clock.until(a.beat('n1'));
    // The rows are read, then they change: all are tried again, one by one.
    let batches = 0;
    const late = new Proxy(moray, {get: (target, property) => {
      if (property !== 'batch') return (Reflect.get(target, property) as (...x: unknown[]) => unknown).bind(target);
      return async (ops: never) => {
        batches += 1;
        if (batches === 1) throw new CetusError('etagConflict', 'somebody was faster');
        return target.batch(ops);
      };
    }});
    const fenced = await fenceAll({moray: late, renewals, remember: () => undefined}, doomed);
    expect(fenced.map((n) => n.key)).toEqual(['n2']);
    expect((await node('n1')).liveness).toBe('alive');
  });

  test('an endpoint that restarts goes on in its rows, without a write of each node', async () => {
    const a = await add('a');
    for (const id of ['n1', 'n2', 'n3']) await a.join(id);
    await beating(a, ['n1', 'n2', 'n3'], 30_000);
    await clock.until(endpoints.pop()!.stop());
    const again = await add('a');
    const {etag} = await moray.get(BUCKETS.nodes.name, 'n1');
    await clock.until(Promise.all(['n1', 'n2', 'n3'].map((id) => again.beat(id))));
    expect((await moray.get(BUCKETS.nodes.name, 'n1')).etag).toBe(etag);
    expect(await rows()).toHaveLength(1);
  });

  test('an endpoint that slept while its nodes were fenced renews nothing of them', async () => {
    const [a, b] = [await add('a'), await add('b')];
    await a.join('n1');
    await clock.until(a.beat('n1'));
    // As if a's process had stood still from here on: only b sees what time passes.
    const stored = await moray.get<Node>(BUCKETS.nodes.name, 'n1');
    const renewals = new Renewals(() => clock.now());
    for (const row of await moray.list<LeaseRow>(BUCKETS.leases.name, '(&)')) if (row.key !== REVIEWER) renewals.row(row.key, row.value);
    const beat = a.beat('n1');
    expect(await fence({moray, renewals, remember: () => undefined}, [{node: stored, seenMs: renewals.atMs('n1'), reason: 'silence', at: ''}])).toHaveLength(1);
    await expect(clock.until(beat)).rejects.toMatchObject({kind: 'stale', info: {fenced: true}});
    await expect(clock.until(b.beat('n1'))).rejects.toMatchObject({kind: 'stale', info: {fenced: true}});
  });
});
