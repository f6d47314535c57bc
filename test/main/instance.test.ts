import {execFile} from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import net from 'node:net';
import {once} from 'node:events';
import {chooseBlock, loadInstance, lockDirectory} from '../../lib/main/up/instance';

let dir: string;
beforeEach(() => {
  dir = fs.mkdtempSync(path.join(os.tmpdir(), 'cetus-instance-'));
  fs.mkdirSync(path.join(dir, 'run'));
});
afterEach(() => fs.rmSync(dir, {recursive: true}));

test('one holder at a time; whoever asks in vain does the holder no harm', async () => {
  const unlock = await lockDirectory(dir);
  for (let n = 0; n < 20; n += 1) await expect(lockDirectory(dir)).rejects.toThrow('another cetus up runs on');
  // Those who hang up in the rudest way there is.
  for (let n = 0; n < 20; n += 1) {
    const socket = net.connect(path.join(dir, 'run', 'up.sock'));
    await once(socket, 'connect');
    socket.destroy();
  }
  await expect(lockDirectory(dir)).rejects.toThrow('another cetus up runs on');
  unlock();
  (await lockDirectory(dir))();
});

test('the lock of a killed holder is free', async () => {
  const script = `require('net').createServer().listen(${JSON.stringify(path.join(dir, 'run', 'up.sock'))}, () => process.kill(process.pid, 'SIGKILL'))`;
  await new Promise((resolve) => execFile(process.execPath, ['-e', script], resolve));
  expect(fs.existsSync(path.join(dir, 'run', 'up.sock'))).toBe(true);
  (await lockDirectory(dir))();
});

test('an instance is made once, and two have different prefixes and addresses of their own', () => {
  const first = loadInstance(dir, []);
  expect(loadInstance(dir, [])).toEqual(first);
  const other = fs.mkdtempSync(path.join(os.tmpdir(), 'cetus-instance-'));
  const second = loadInstance(other, [first.addressPools[0]!.base.replace('.0.0/12', '.0.1/20')]);
  fs.rmSync(other, {recursive: true});
  expect(second.prefix).not.toBe(first.prefix);
  expect(second.addressPools[0]!.base).not.toBe(first.addressPools[0]!.base);
});

test('a block that the machine uses is not chosen', () => {
  const used = Array.from({length: 15}, (_, n) => `10.${n * 16}.3.4/24`);
  expect(chooseBlock('any', used)).toBe('10.240.0.0/12');
  expect(chooseBlock('any', ['10.0.0.1/8'])).toBe('172.16.0.0/12');
});
