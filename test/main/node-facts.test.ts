/** What a node says of its init: its own words, or that there is none. */
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import {initFacts} from '../../lib/main/node-facts';

let dir: string;
beforeEach(() => { dir = fs.mkdtempSync(path.join(os.tmpdir(), 'cetus-init-')); });
afterEach(() => fs.rmSync(dir, {recursive: true}));

const program = (says: string): string => {
  const file = path.join(dir, 'tini');
  fs.writeFileSync(file, `#!/bin/sh\n${says}\n`, {mode: 0o755});
  return file;
};

test.each([
  ['echo "tini version 0.19.0 - git.de40ad0"', '0.19.0', 'de40ad0'],
  ['echo "tini version 0.19.0"', '0.19.0', ''],
  ['echo "something else 3"', '', ''],
  ['exit 1', '', ''],
])('%s', async (says, initVersion, initCommit) => {
  expect(await initFacts(program(says))).toEqual({initBinary: 'tini', initVersion, initCommit});
});

test('there is none', async () => {
  expect(await initFacts('')).toEqual({initBinary: '', initVersion: '', initCommit: ''});
});
