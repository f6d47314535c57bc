import fc from 'fast-check';
import {EarlyUnpack} from '../../../lib/agent/images/early-unpack';
import {chainIds, MEDIA, sha256} from '../../../lib/agent/images/manifest';
import type {LayerToUnpack} from '../../../lib/agent/images/unpack';

const PLAIN = Buffer.from('layer!');
const GZIP = Buffer.from([0x1f, 0x8b, 8, 0, 0, 0]);

interface Item { file: {digest: string; size: number; head: Buffer}; document?: Buffer }
const layer = (name: string, head = PLAIN): Item => ({file: {digest: sha256(name), size: 10, head}});
const json = (value: object): Item => {
  const document = Buffer.from(JSON.stringify(value));
  return {file: {digest: sha256(document), size: document.length, head: document.subarray(0, 6)}, document};
};
const config = (diffIds: string[]): Item => json({rootfs: {type: 'layers', diff_ids: diffIds}});

async function run(items: Item[], unpack: (step: LayerToUnpack) => Promise<void> = () => Promise.resolve()): Promise<LayerToUnpack[]> {
  const steps: LayerToUnpack[] = [];
  const early = new EarlyUnpack(async (step) => {
    await unpack(step);
    steps.push(step);
  });
  for (const {file, document} of items) {
    early.add(file, document);
    await new Promise((resolve) => setImmediate(resolve));
  }
  await early.finish();
  return steps;
}

describe('unpacking while an archive is read', () => {
  const names = ['a', 'b', 'c', 'd'];
  const diffIds = names.map(sha256);

  test('whatever the order of the archive, every layer of the chain, each above the one before', async () => {
    const all = [...names.map((n) => layer(n)), config(diffIds)];
    await fc.assert(fc.asyncProperty(fc.shuffledSubarray(all, {minLength: all.length}), async (items) => {
      const steps = await run(items);
      expect(steps.map((s) => s.chainId)).toEqual(chainIds(diffIds));
      expect(steps.map((s) => s.parent)).toEqual(['', ...chainIds(diffIds).slice(0, -1)]);
      expect(steps.map((s) => s.layer.digest)).toEqual(diffIds);
    }), {numRuns: 50});
  });

  test('compressed layers wait for the manifest that tells which they are', async () => {
    const blobs = names.map((n) => layer(`${n}.gz`, GZIP));
    const conf = config(diffIds);
    const manifest = json({schemaVersion: 2, config: {digest: conf.file.digest}, layers: blobs.map(({file}) => ({mediaType: MEDIA.ociLayerGzip, digest: file.digest, size: 10}))});
    expect(await run([...blobs, conf])).toEqual([]);
    for (const order of [[manifest, conf], [conf, manifest]])
      expect((await run([...order, ...blobs.reverse()])).map((s) => [s.diffId, s.layer.mediaType])).toEqual(diffIds.map((d) => [d, MEDIA.ociLayerGzip]));
  });

  test('a layer that is missing stops its chain, and only that one', async () => {
    const other = [sha256('x'), sha256('y')];
    const steps = await run([config(diffIds), layer('a'), layer('c'), layer('d'), config(other), layer('x'), layer('y')]);
    expect(steps.map((s) => s.diffId)).toEqual([diffIds[0], ...other]);
  });

  test('a failure is left for the real unpacking', async () => {
    const tried: string[] = [];
    await run([config(diffIds), ...names.map((n) => layer(n))], (step) => {
      tried.push(step.diffId);
      return Promise.reject(new Error('broken'));
    });
    expect(tried).toEqual([diffIds[0]]);
  });

  test('nothing runs after the end', async () => {
    let release = (): void => undefined;
    const gate = new Promise<void>((resolve) => {
      release = resolve;
    });
    const begun: string[] = [];
    const early = new EarlyUnpack((step) => {
      begun.push(step.diffId);
      return gate;
    });
    for (const {file, document} of [config(diffIds), ...names.map((n) => layer(n))]) {
      early.add(file, document);
      await new Promise((resolve) => setImmediate(resolve));
    }
    const finished = early.finish();
    release();
    await finished;
    expect(begun).toEqual([diffIds[0]]);
  });

  test.each<object>([[], {rootfs: null}, {rootfs: {diff_ids: 'x'}}, {rootfs: {diff_ids: ['x']}}, {config: {digest: 1}, layers: [null]}, {config: {digest: sha256('c')}, layers: [null]}])('%j is nothing to unpack', async (value) => {
    expect(await run([json(value), layer('a')])).toEqual([]);
  });
});
