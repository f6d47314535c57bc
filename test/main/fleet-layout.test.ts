/** Which hosts a fleet of test hosts has, and by what they are told apart. */
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import {loadLayout} from '../../lib/main/fleet/layout';
import {BlockClaims} from '../../lib/main/up/blocks';
import type {Instance} from '../../lib/main/up/instance';

let dir: string;
beforeEach(() => { dir = fs.mkdtempSync(path.join(os.tmpdir(), 'cetus-layout-')); });
afterEach(() => fs.rmSync(dir, {recursive: true}));
const claims = (): BlockClaims => new BlockClaims(path.join(dir, 'claims'));

test.each(['870a2', '870a0', '870af', '870a9'])('no two of 35 hosts have a prefix in common, nor one with the instance %s', (prefix) => {
  const {nodes} = loadLayout(dir, {prefix} as Instance, 35, false, claims());
  expect(new Set([prefix, ...nodes.map((node) => node.prefix)]).size).toBe(36);
  for (const node of nodes) expect(node.prefix).toMatch(/^870a[0-9a-z]$/);
});

test('hosts that were there stay as they were, also those that an earlier version named, and a smaller number takes none away', () => {
  const first = loadLayout(dir, {prefix: '870a2'} as Instance, 2, false, claims());
  first.nodes[1]!.prefix = '870a2';
  fs.writeFileSync(path.join(dir, 'fleet.json'), JSON.stringify(first));
  const again = loadLayout(dir, {prefix: '870a2'} as Instance, 1, true, claims());
  expect(again).toEqual(first);
  expect(loadLayout(dir, {prefix: '870a2'} as Instance, 3, true, claims()).nodes.map((node) => node.prefix)).toEqual(['870a1', '870a2', '870a3']);
});
