/** The chains and the engine over real Postgres: what the store in memory lets pass, this one must too; and what the two commits cost. */
import {systemClock} from '../../lib/base/clock';
import {silentLog} from '../../lib/base/log';
import {createMoray} from '../../lib/moray/postgres';
import type {Moray} from '../../lib/moray/moray';
import {BUCKETS} from '../../lib/schema/buckets';
import type {ChainName} from '../../lib/schema/chains';
import type {Container} from '../../lib/schema/container';
import type {Job} from '../../lib/schema/job';
import {CHAINS} from '../../lib/jobs/chains/index';
import {usePostgres} from '../harness/postgres';
import {until} from '../harness/wait';
import {SCENES, type Scene} from '../jobs/scenarios';
import {ACCOUNT, Datacenter, type TestClock} from '../jobs/world';

const clock: TestClock = Object.assign(Object.create(systemClock) as typeof systemClock, {
  until: <T>(promise: Promise<T>): Promise<T> => promise,
  pass: (ms: number): Promise<void> => systemClock.sleep(ms),
});

const stores: Moray[] = [];
afterEach(async () => {
  for (const store of stores.splice(0)) await store.close();
});
const postgres = usePostgres({prepare: async (url) => {
  const store = createMoray({url, log: silentLog()});
  await store.open(...Object.values(BUCKETS));
  await store.close();
}});

async function datacenter(): Promise<Datacenter> {
  const store = createMoray({url: await postgres.freshDatabase(), log: silentLog()});
  stores.push(store);
  return new Datacenter(true, {clock, store}).open();
}

describe.each(CHAINS.map((c) => c.name as ChainName))('%s', (name) => {
  it('succeeds and leaves nothing', async () => {
    const scene = SCENES[name] as Scene<ChainName>;
    const dc = await datacenter();
    await scene.prepare(dc);
    await dc.settle();
    const events = (await dc.events()).length;
    await dc.put(name, scene.params(dc), scene.secrets?.());
    expect(await dc.leaks()).toEqual([]);
    expect((await dc.events()).slice(events).sort()).toEqual([...scene.events].sort());
  });
});

it('many containers from two processes come, run and go without a leftover', async () => {
  const dc = await datacenter();
  const runners = [dc.runner(), dc.runner()];
  const run = (n: number, workflow: ChainName, params: unknown): Promise<unknown> => runners[n % 2]!.run({workflow, account: ACCOUNT, params, requestId: `r${n}`});
  const reservation = {memoryBytes: 1, nanoCpus: 0, diskBytes: 0, pids: 0};
  const requestedPorts = [{protocol: 'tcp' as const, containerPort: 80, hostIp: '', hostPort: 0}];
  await Promise.all(Array.from({length: 40}, async (_, n) => {
    await run(n, 'container.provision', dc.provision(dc.draft(`c${n}`, `web${n}`, {reservation, requestedPorts})));
    await run(n, 'container.start', {containerId: `c${n}`});
  }));
  const containers = [...(await dc.all<Container>('containers')).values()];
  expect(new Set(containers.map((c) => c.attachments[0]!.address)).size).toBe(40);
  expect(new Set(containers.map((c) => c.publishedPorts[0]!.hostPort)).size).toBe(40);
  await dc.settle();
  expect(await dc.leaks()).toEqual([]);
  await Promise.all(containers.map((c, n) => run(n, 'container.destroy', {containerId: c.id, force: true, removeVolumes: true})));
  await dc.settle();
  expect((await dc.all('containers')).size).toBe(0);
  expect(await dc.leaks()).toEqual([]);
});

it('a runner finds what is queued, what has expired and what is old', async () => {
  const dc = await datacenter();
  const runner = dc.runner(dc.store, {pollMs: 100, retentionMs: 0});
  const queued = await runner.enqueue({workflow: 'volume.create', account: ACCOUNT, params: {volume: dc.volume('v1', 'data')}, requestId: 'r'});
  const orphan = await runner.enqueue({workflow: 'volume.create', account: ACCOUNT, params: {volume: dc.volume('v2', 'more')}, requestId: 'r'});
  const stored = await dc.store.get<Job>('jobs', orphan.id);
  await dc.store.put('jobs', orphan.id, {...stored.value, execution: 'running', lease: {runner: 'dead', epoch: 3, untilMs: Date.now() - 1}}, {etag: stored.etag});
  await runner.start();
  try {
    await expect(runner.wait(queued.id, 40_000)).resolves.toMatchObject({execution: 'succeeded'});
    await expect(runner.wait(orphan.id, 40_000)).resolves.toMatchObject({execution: 'succeeded'});
    expect([...(await dc.all('volumes')).keys()].sort()).toEqual(['v1', 'v2']);
    expect((await dc.all('locks')).size).toBe(0);
  } finally {
    await runner.stop();
  }
  const sweeper = dc.runner(dc.store, {retentionMs: 0});
  await sweeper.start();
  await until('all of them to be swept away', async () => (await dc.jobs()).length === 0);
  await sweeper.stop();
});
