/** pull, load, save, tag, history, rmi with the stock client against the distribution's registry. */
import {createHash} from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import {NOTHING_LEFT, run, startCetus, type TestDatacenter} from '../harness/cetus';
import {busyboxArchive} from '../harness/busybox';
import {buildImage, busyboxLayer, pushImage} from '../harness/images';
import {startRegistry, type TestRegistry} from '../harness/registry';

let dc: TestDatacenter;
let registry: TestRegistry;
beforeAll(async () => {
  [dc, registry] = await Promise.all([startCetus(), startRegistry()]);
  await dc.ok(['load', '-i', await busyboxArchive()]);
}, 120_000);
afterAll(async () => {
  await registry?.stop();
  expect(await dc.destroy()).toEqual(NOTHING_LEFT);
}, 120_000);

test('load, images, history, tag, rmi', async () => {
  expect(await dc.ok(['images', '--format', '{{.Repository}}:{{.Tag}}'])).toBe('busybox:latest');
  expect(await dc.ok(['history', '--format', '{{.CreatedBy}}', 'busybox'])).toBe('ADD busybox /');
  await dc.ok(['tag', 'busybox', 'mine:v1']);
  const id = await dc.ok(['inspect', '-f', '{{.Id}}', 'mine:v1']);
  expect(await dc.ok(['inspect', '-f', '{{.Id}}', 'busybox'])).toBe(id);
  expect((await dc.docker(['rmi', id])).stderr).toMatch(/image is referenced in multiple repositories/);
  expect(await dc.ok(['rmi', 'mine:v1'])).toBe('Untagged: mine:v1');
  expect((await dc.docker(['inspect', 'mine:v1'])).stderr).toMatch(/No such object: mine:v1/i);
});

test('save and load give the same image back, digests and all', async () => {
  const first = path.join(dc.dataDir, 'first.tar');
  await dc.ok(['save', '-o', first, 'busybox']);
  const id = await dc.ok(['inspect', '-f', '{{.Id}}', 'busybox']);
  await dc.ok(['rmi', 'busybox']);
  expect((await dc.docker(['run', '--rm', '--pull', 'never', 'busybox', 'true'])).status).toBe(125);
  expect(await dc.ok(['load', '-i', first])).toBe('Loaded image: busybox:latest');
  expect(await dc.ok(['inspect', '-f', '{{.Id}}', 'busybox'])).toBe(id);
  const second = path.join(dc.dataDir, 'second.tar');
  await dc.ok(['save', '-o', second, 'busybox']);
  const blobs = async (file: string): Promise<string[]> => (await run('tar', ['tf', file])).stdout.split('\n').filter((n) => n.startsWith('blobs/sha256/') && n.length > 70).sort();
  expect(await blobs(second)).toEqual(await blobs(first));
  const dir = fs.mkdtempSync(path.join(dc.dataDir, 'unpacked-'));
  await run('tar', ['xf', second, '-C', dir]);
  for (const blob of await blobs(second)) expect(createHash('sha256').update(fs.readFileSync(path.join(dir, blob))).digest('hex')).toBe(path.basename(blob));
});

test('an image in use is not removed', async () => {
  await dc.ok(['create', '--name', 'user', 'busybox', 'true']);
  expect((await dc.docker(['rmi', 'busybox'])).stderr).toMatch(/unable to remove repository reference "busybox" \(must force\) - container [0-9a-f]{12} is using its referenced image [0-9a-f]{12}/);
  await dc.ok(['rm', 'user']);
});

test('pull from a registry, and what it says when it cannot', async () => {
  await pushImage(registry.url, 'tools/box', ['v1'], buildImage([await busyboxLayer()]));
  const reference = `${registry.host}/tools/box:v1`;
  const printed = await dc.ok(['pull', reference]);
  expect(printed).toMatch(/v1: Pulling from tools\/box/);
  expect(printed).toMatch(/Digest: sha256:[0-9a-f]{64}/);
  expect(printed).toMatch(/Status: Downloaded newer image for /);
  expect(await dc.ok(['pull', reference])).toMatch(/Status: Image is up to date for /);
  expect(await dc.ok(['run', '--rm', reference, 'echo', 'from the registry'])).toBe('from the registry');
  const digest = await dc.ok(['inspect', '-f', '{{index .RepoDigests 0}}', reference]);
  expect(digest).toMatch(/tools\/box@sha256:[0-9a-f]{64}$/);
  await dc.ok(['rmi', reference]);
  await dc.ok(['pull', digest]);
  expect(await dc.ok(['run', '--rm', digest, 'echo', 'by digest'])).toBe('by digest');
  const missing = await dc.docker(['pull', `${registry.host}/tools/box:nosuch`]);
  expect(missing.status).toBe(1);
  expect(missing.stderr).toMatch(/manifest for .*tools\/box:nosuch not found: manifest unknown/);
  expect((await dc.docker(['pull', 'Bad:Reference:Here'])).stderr).toMatch(/invalid reference format/);
});

test('a truncated archive is refused and leaves nothing', async () => {
  const whole = fs.readFileSync(await busyboxArchive());
  const before = await dc.ok(['images', '-aq']);
  const done = await dc.docker(['load'], {input: whole.subarray(0, whole.length / 2)});
  expect(done.status).toBe(1);
  expect(done.stderr).toMatch(/unexpected end|unexpected EOF|truncated/i);
  expect(await dc.ok(['images', '-aq'])).toBe(before);
});
