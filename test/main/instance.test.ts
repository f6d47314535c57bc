import {spawn} from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import {once} from 'node:events';
import {BlockClaims} from '../../lib/main/up/blocks';
import {blocksFor, loadInstance, lockDirectory} from '../../lib/main/up/instance';

let dir: string;
beforeEach(() => {
  dir = fs.mkdtempSync(path.join(os.tmpdir(), 'cetus-instance-'));
  fs.mkdirSync(path.join(dir, 'run'));
});
afterEach(() => fs.rmSync(dir, {recursive: true}));

test('one holder at a time, also of many who come at once', async () => {
  // What the lock of a version before this one left.
  fs.writeFileSync(path.join(dir, 'run', 'up.sock'), '');
  const asked = await Promise.allSettled(Array.from({length: 12}, () => lockDirectory(dir)));
  const [holder, ...more] = asked.flatMap((one) => (one.status === 'fulfilled' ? [one.value] : []));
  expect(more).toEqual([]);
  await expect(lockDirectory(dir)).rejects.toThrow('another cetus up runs on');
  holder!();
  (await lockDirectory(dir))();
});

test('the lock of a killed holder is free, that of a stopped one is not', async () => {
  const holder = spawn('flock', ['--no-fork', path.join(dir, 'run', 'up.lock'), 'sleep', '100'], {stdio: 'ignore'});
  for (let held = false; !held;) held = await lockDirectory(dir).then((unlock) => (unlock(), false), () => true);
  holder.kill('SIGSTOP');
  await expect(lockDirectory(dir)).rejects.toThrow('another cetus up runs on');
  holder.kill('SIGKILL');
  await once(holder, 'exit');
  (await lockDirectory(dir))();
});

const load = (dataDir: string, used: string[] = []) => loadInstance(dataDir, used, new BlockClaims(path.join(dir, 'claims')));
const blockOf = (instance: ReturnType<typeof load>): string => instance.addressPools[0]!.base;

test('an instance is made once; those beside it have prefixes and addresses of their own before any has a bridge', () => {
  const first = load(dir);
  expect(load(dir)).toEqual(first);
  const others = Array.from({length: 16}, (_, n) => path.join(dir, `other-${n}`));
  for (const other of others) fs.mkdirSync(other);
  const all = [first, ...others.map((other) => load(other))];
  expect(new Set(all.map(({prefix}) => prefix)).size).toBe(17);
  // Sixteen blocks there are; whoever comes then shares the last resort.
  expect(new Set(all.map(blockOf)).size).toBe(17);
  expect(blockOf(all[16]!)).toBe('172.16.0.0/12');
});

test('a copy of a data directory is refused beside the original, and is the datacenter once the original is gone', () => {
  const [original, copy, link] = ['original', 'copy', 'link'].map((name) => path.join(dir, name));
  fs.mkdirSync(original!);
  const instance = load(original!);
  fs.cpSync(original!, copy!, {recursive: true});
  fs.symlinkSync(original!, link!);
  expect(() => load(copy!)).toThrow(`${copy!} is a copy of ${original!}`);
  expect(load(link!)).toEqual(instance);
  expect(load(original!)).toEqual(instance);
  fs.rmSync(original!, {recursive: true});
  expect(load(copy!)).toEqual(instance);
});

test('the block of a data directory that is gone is free again, and comes back to its own after a reboot', () => {
  const claims = path.join(dir, 'claims');
  const gone = path.join(dir, 'gone');
  fs.mkdirSync(gone);
  const block = blockOf(load(gone));
  const file = path.join(claims, block.replace('/', '-'));
  // As its process would have left it.
  fs.writeFileSync(file, JSON.stringify({dataDir: gone, pid: 2 ** 22 + 1}));
  expect(new BlockClaims(claims).claim(block, dir)).toBe(false);
  fs.rmSync(claims, {recursive: true});
  expect(blockOf(load(gone))).toBe(block);
  expect(fs.existsSync(file)).toBe(true);
  fs.writeFileSync(file, JSON.stringify({dataDir: gone, pid: 2 ** 22 + 1}));
  fs.rmSync(gone, {recursive: true});
  expect(new BlockClaims(claims).claim(block, dir)).toBe(true);
  fs.writeFileSync(file, '{"dataDir');
  expect(new BlockClaims(claims).claim(block, dir)).toBe(true);
});

test('a block that the machine uses is not chosen', () => {
  const used = Array.from({length: 15}, (_, n) => `10.${n * 16}.3.4/24`);
  expect(blocksFor('any', used)).toEqual(['10.240.0.0/12']);
  expect(blocksFor('any', ['10.0.0.1/8'])).toEqual([]);
});
