/** What a volume holds: every file once, no directory, and no answer rather than a late one. */
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import {bytesBelow} from '../../../lib/agent/volumes/usage';

let root: string;
beforeEach(() => {
  root = fs.mkdtempSync(path.join(os.tmpdir(), 'cetus-usage-'));
  fs.mkdirSync(path.join(root, 'a/b'), {recursive: true});
  fs.writeFileSync(path.join(root, 'one'), Buffer.alloc(1000));
  fs.writeFileSync(path.join(root, 'a/b/two'), Buffer.alloc(234));
});
afterEach(() => fs.rmSync(root, {recursive: true}));

const forever = new AbortController().signal;

test('files below count once, links are not followed', async () => {
  expect(await bytesBelow(root, forever)).toBe(1234);
  fs.linkSync(path.join(root, 'one'), path.join(root, 'a/again'));
  fs.symlinkSync('/etc', path.join(root, 'etc'));
  expect(await bytesBelow(root, forever)).toBe(1234 + '/etc'.length);
  for (let i = 0; i < 100; i += 1) fs.writeFileSync(path.join(root, 'a', `f${i}`), 'x');
  expect(await bytesBelow(root, forever)).toBe(1334 + '/etc'.length);
});

test('too many, too long, nobody listens: not known', async () => {
  expect(await bytesBelow(root, forever, {entries: 3})).toBe(-1);
  expect(await bytesBelow(root, forever, {entries: 4})).toBe(1234);
  expect(await bytesBelow(root, forever, {deadlineMs: -1})).toBe(-1);
  expect(await bytesBelow(root, AbortSignal.abort())).toBe(-1);
});
