/** Who may read and write a container's files when: over a helper that does nothing until it is told. */
import fs from 'node:fs';
import os from 'node:os';
import {join} from 'node:path';
import {PassThrough, Readable} from 'node:stream';
import {CetusError} from '../../../lib/base/errors';
import {type Clock, systemClock} from '../../../lib/base/clock';
import {ContainerFiles, type FilesOwner} from '../../../lib/agent/rootfs/files';
import type {RootfsHelper, Watch} from '../../../lib/agent/rootfs/helper';
import type {View} from '../../../lib/agent/rootfs/protocol';
import type {ContainerSpec} from '../../../lib/schema/container';
import {makeSpec} from '../node';
import {until} from '../../harness/wait';

interface Order { kind: string; view: View; signal: AbortSignal; end(err?: Error): void }

let dataDir: string;
/** Sleeps until it is woken: `slept` are the milliseconds that were asked for. */
let slept: {ms: number; wake(): void}[];
let clock: Clock;
let orders: Order[];
let files: ContainerFiles;
let lent: string[];
let released: number;
let pid: number;
const never = new AbortController().signal;
const target = {path: '/', noOverwriteDirNonDir: false, copyUIDGID: false};
const archive = async (): Promise<Readable> => Readable.from(['tar']);

const owner = (over: Partial<ContainerSpec> = {}): FilesOwner => ({
  id: 'c1', cleaning: Promise.resolve(),
  spec: {...makeSpec('c1', ['true']), mounts: [
    {type: 'volume', volumeId: 'v1', name: 'v', destination: '/v', readOnly: true, noCopy: false, anonymous: false},
    {type: 'tmpfs', destination: '/t', options: []},
  ], ...over},
  rootMounts: async () => [{type: 'overlay', source: 'overlay', options: ['index=off', 'workdir=/w', 'upperdir=/u', 'lowerdir=/b:/a']}],
  settledAt: async (take) => take(pid),
});

/** An order that ends when the test says so, or when it is broken off. */
function order(kind: string, view: View, signal: AbortSignal, watch: Watch): Promise<void> {
  return new Promise((resolve, reject) => {
    let gone!: () => void;
    watch.started?.(new Promise((done) => (gone = done)));
    const end = (err?: Error): void => {
      watch.opened?.();
      gone();
      if (err) reject(err);
      else resolve();
    };
    signal.addEventListener('abort', () => end(signal.reason as Error), {once: true});
    orders.push({kind, view, signal, end});
  });
}

beforeEach(() => {
  dataDir = fs.mkdtempSync(join(os.tmpdir(), 'cetus-files-'));
  slept = [];
  clock = {now: () => systemClock.now(), nowNs: () => systemClock.nowNs(), sleep: (ms, signal) => new Promise((resolve, reject) => {
    signal?.addEventListener('abort', () => reject(signal.reason as Error), {once: true});
    slept.push({ms, wake: resolve});
  })} as Clock;
  [orders, lent, released, pid] = [[], [], 0, 0];
  const helper = {
    stat: async (view: View, _path: string, _container: string, signal: AbortSignal, watch: Watch) => {
      await order('stat', view, signal, watch);
      return {name: 'x'};
    },
    unpack: (view: View, _target: unknown, _archive: unknown, signal: AbortSignal, watch: Watch) => order('unpack', view, signal, watch),
    export: async (view: View, signal: AbortSignal, watch: Watch) => {
      await order('export', view, signal, watch);
      return new PassThrough();
    },
    close: () => undefined,
  } as unknown as RootfsHelper;
  files = new ContainerFiles({
    helper, dataDir, clock, dirOf: () => join(dataDir, 'none'),
    lend: async (spec, holder) => {
      lent.push(holder);
      return {mounts: spec.mounts.map((mount) => ({mount, source: '/src'})), release: async () => void (released += 1)};
    },
  });
});

afterEach(() => {
  files.close();
  fs.rmSync(dataDir, {recursive: true, force: true});
});

const arrived = (count: number): Promise<boolean> => until(`${count} orders`, () => orders.length === count);

test('a stopped container is its layers with volumes and no tmpfs, a running one its process', async () => {
  const reads = files.stat(owner(), '/', never);
  await arrived(1);
  expect(orders[0]!.view).toMatchObject({
    kind: 'still', writable: false, layers: ['/u', '/b', '/a'], options: expect.arrayContaining(['workdir=/w']) as unknown,
    mounts: [{destination: '/v', source: '/src', readOnly: true}],
  });
  orders[0]!.end();
  await reads;
  expect([lent.length, released]).toEqual([1, 1]);
  pid = 77;
  const live = files.stat(owner(), '/', never);
  await arrived(2);
  expect(orders[1]!.view).toMatchObject({kind: 'live', pid: 77, containerId: 'c1'});
  expect((orders[1]!.view as {mounts: {destination: string}[]}).mounts.map((m) => m.destination)).toEqual(['/v', '/t', '/etc/hosts', '/etc/hostname', '/etc/resolv.conf']);
  orders[1]!.end();
  await live;
  const whole = files.export(owner(), never);
  await arrived(3);
  expect(orders[2]!.view).toMatchObject({kind: 'live', mounts: []});
  orders[2]!.end();
  await whole;
  expect(lent.length).toBe(1);
});

test('archives go in one after the other, whoever leaves the queue', async () => {
  const first = files.unpack(owner(), target, archive, never);
  await arrived(1);
  const leaving = new AbortController();
  const second = files.unpack(owner(), target, archive, leaving.signal);
  const third = files.unpack(owner(), target, archive, never);
  const stat = files.stat(owner(), '/', never);
  await arrived(2);
  expect(orders.map((o) => o.kind)).toEqual(['unpack', 'stat']);
  orders[1]!.end();
  await stat;
  leaving.abort(new CetusError('canceled', 'left'));
  orders[0]!.end();
  await first;
  await expect(second).rejects.toMatchObject({kind: 'canceled'});
  await arrived(3);
  orders[2]!.end();
  await third;
  expect(released).toBe(lent.length);
});

test('a start waits for what is being written, and not for ever', async () => {
  await files.quiet('c1');
  const reading = files.stat(owner(), '/', never);
  const writing = files.unpack(owner(), target, archive, never);
  await arrived(2);
  let quiet = false;
  const start = files.quiet('c1').then(() => (quiet = true));
  await until('its patience', () => slept.length === 1);
  expect([quiet, slept[0]!.ms]).toEqual([false, 10_000]);
  slept[0]!.wake();
  await expect(writing).rejects.toMatchObject({kind: 'conflict', message: expect.stringContaining('was started before all of the archive had arrived') as unknown});
  await start;
  orders.find((o) => o.kind === 'stat')!.end();
  await reading;
});

test('a removal cuts everybody off', async () => {
  const reading = files.stat(owner(), '/', never);
  const writing = files.unpack(owner(), target, archive, never);
  const refused = Promise.all([expect(reading).rejects.toMatchObject({kind: 'notFound'}), expect(writing).rejects.toMatchObject({kind: 'notFound'})]);
  await arrived(2);
  await files.drop('c1');
  await refused;
  expect(released).toBe(lent.length);
});

test('a process that ends before the worker gets there is looked for again', async () => {
  pid = 5;
  const reading = files.stat(owner(), '/', never);
  await arrived(1);
  pid = 0;
  orders[0]!.end(new CetusError('stale', 'has ended'));
  (await until('a pause', () => slept[0])).wake();
  await arrived(2);
  expect(orders[1]!.view.kind).toBe('still');
  orders[1]!.end();
  expect(await reading).toEqual({name: 'x'});
});

test('a read-only root is told to the worker, and the user whom everything is to belong to', async () => {
  const told: Record<string, unknown>[] = [];
  const helper = {unpack: async (_view: View, order: Record<string, unknown>, _a: unknown, _s: unknown, watch: Watch) => {
    told.push(order);
    watch.opened?.();
  }, close: () => undefined} as unknown as RootfsHelper;
  const own = new ContainerFiles({helper, dataDir, clock, dirOf: () => dataDir, lend: async () => ({mounts: [], release: async () => undefined})});
  const spec = makeSpec('c1', ['true']);
  await own.unpack(owner({hostConfig: {...spec.hostConfig, ReadonlyRootfs: true}, config: {...spec.config, User: 'web'}}), {...target, copyUIDGID: true}, archive, never);
  await own.unpack(owner({config: {...spec.config, User: 'web'}}), target, archive, never);
  expect(told).toEqual([expect.objectContaining({readOnlyRoot: true, user: 'web'}), expect.not.objectContaining({user: 'web'})]);
  own.close();
});
