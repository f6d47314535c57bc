import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import {beginUnsynced, isLost, writtenOut} from '../../../lib/agent/build/unsynced';

let dir: string;
beforeEach(() => { dir = fs.mkdtempSync(path.join(os.tmpdir(), 'cetus-unsynced-')); });
afterEach(() => fs.rmSync(dir, {recursive: true}));

test('what was written before anybody left out the waiting is to be trusted', () => {
  expect(isLost(dir)).toBe(false);
});

test('an engine that was killed goes on with what it wrote, for the machine still has it', () => {
  beginUnsynced(dir);
  expect(isLost(dir)).toBe(false);
});

test('after another boot it is lost, unless it was written out at an orderly end', async () => {
  beginUnsynced(dir, 'the boot before');
  expect(isLost(dir)).toBe(true);
  await writtenOut(dir);
  expect(isLost(dir)).toBe(false);
});

test('an end of what never began says nothing', async () => {
  await writtenOut(dir);
  expect(fs.readdirSync(dir)).toEqual([]);
});
