/** The operator's verbs against the real operator's API over a fake datacenter. */
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import {Command} from 'commander';
import {createAdminServer} from '../../lib/admin/server';
import {silentLog} from '../../lib/base/log';
import {addOperatorVerbs} from '../../lib/main/cli/verbs';
import {labelChange} from '../../lib/main/cli/nodes';
import {durationMs} from '../../lib/main/cli/pairs';
import {duration, table, toMs} from '../../lib/main/cli/print';
import {container, fakeDatacenter, job} from '../admin/fake-operator';

const dataDir = fs.mkdtempSync(path.join(os.tmpdir(), 'cetus-cli-'));
const server = createAdminServer({datacenter: fakeDatacenter(), log: silentLog()});
beforeAll(async () => {
  fs.mkdirSync(path.join(dataDir, 'run'));
  await server.listen({path: path.join(dataDir, 'run', 'admin.sock')});
});
afterAll(async () => {
  await server.close();
  fs.rmSync(dataDir, {recursive: true});
});

async function cetus(...args: string[]): Promise<string> {
  const program = new Command('cetus').option('--data <dir>', '', dataDir).exitOverride();
  addOperatorVerbs(program);
  const written: string[] = [];
  const spy = jest.spyOn(process.stdout, 'write').mockImplementation((text) => written.push(String(text)) > 0);
  try {
    await program.parseAsync(args, {from: 'user'});
  } finally {
    spy.mockRestore();
  }
  return written.join('');
}

test.each([
  [['node', 'ls'], /NAME.*\nrack1-a +alive/],
  [['node', 'inspect', 'rack1-a'], /node +rack1-a {2}node-1\nliveness +alive for .*heartbeats arrive\n[\s\S]*machine +linux\/amd64, 2 cpus, 16 ?GiB memory, 1 ?TiB disk[\s\S]*cgroup v1[\s\S]*certificate +4A until/i],
  [['node', 'label', 'rack1-a', 'disk=ssd', 'rack-'], /^rack1-a: disk=ssd\n$/],
  [['node', 'cordon', 'rack1-a', '--reason', 'a loud fan'], /rack1-a is cordoned/],
  [['node', 'uncordon', 'rack1-a'], /rack1-a is active/],
  [['node', 'drain', 'rack1-a'], /rack1-a is draining/],
  [['node', 'rm', 'rack1-a', '--force'], /is a member no more\nlost with it, 1 container:\n {2}default\/web, running\nlost with it, 1 volume:\n {2}default\/data/],
  [['node', 'token', '--ttl', '1h30m', '--label', 'rack=r2'], /^cetus1\.abcdefghij\.s{32}\.f{43}\n$/],
  [['node', 'tokens'], /abcdefghij +expired[\s\S]*usedusedus +used by node-1/],
  [['node', 'token-rm', 'abcdefghij'], /abcdefghij is good no more/],
  [['ps'], /^CONTAINER +NAME.*\ncccccccccccc +web +busybox +running/],
  [['ps', '--wide'], /NODE +RESERVED MEMORY +RESERVED CPUS[\s\S]*rack1-a/],
  [['job', 'ls'], /container\.provision +container\/cccccccccccc +succeeded +45\.0 ms/],
  [['job', 'show', 'job-1'], /place +succeeded +5\.0 ms[\s\S]*placed on rack1-a, 2 nodes considered[\s\S]*capacity left out 1 node: memory \(rack1-b\)/],
  [['why', 'web'], /web \(cccccccccccc\) is running on rack1-a/],
  [['volume', 'ls'], /data +default +rack1-a[\s\S]*unused +default +\(not used yet\)/],
  [['store', 'ls'], /containers +1 +1/],
])('cetus %j', async (args, expected) => {
  expect(await cetus(...args)).toMatch(expected);
});

test('--json is the answer itself', async () => {
  expect(JSON.parse(await cetus('job', 'show', 'job-1', '--json'))).toEqual(JSON.parse(JSON.stringify(job)));
  expect(JSON.parse((await cetus('store', 'find', 'containers', '(name=web)')).trim())).toMatchObject({key: container.id});
});

test('a find that the default limit cut short says so, beside its lines', async () => {
  const found = Array.from({length: 100}, (_, n) => ({bucket: 'events', key: String(n), value: {}, etag: 'e', mtime: 0}));
  const lines: string[] = [];
  const notices: string[] = [];
  const spies = [
    jest.spyOn(process.stdout, 'write').mockImplementation((text) => lines.push(String(text)) > 0),
    jest.spyOn(process.stderr, 'write').mockImplementation((text) => notices.push(String(text)) > 0),
  ];
  try {
    for (const args of [[], ['--limit', '100']]) {
      const program = new Command('cetus').option('--data <dir>', '', dataDir).exitOverride();
      addOperatorVerbs(program, () => (async () => found) as never);
      await program.parseAsync(['store', 'find', 'events', ...args], {from: 'user'});
    }
  } finally {
    for (const spy of spies) spy.mockRestore();
  }
  expect(lines.length).toBe(200);
  expect(notices).toEqual(['the first 100; --limit and --offset show more\n']);
});

test('errors are the API\'s own words, or say that nothing listens', async () => {
  await expect(cetus('job', 'show', 'nosuch')).rejects.toThrow('no such job: nosuch');
  await expect(cetus('node', 'ls', '--admin', path.join(dataDir, 'absent.sock'))).rejects.toThrow(/nothing answers at .*absent\.sock/);
  await expect(cetus('node', 'ls', '--admin', 'nonsense')).rejects.toThrow(/expected a socket's path/);
});

test('times and tables', () => {
  expect(toMs('2026-01-02T03:04:05.123456789Z') - toMs('2026-01-02T03:04:05.100000000Z')).toBeCloseTo(23.456789, 3);
  expect([0.04, 999, 1500, 200_000, 9e6, 3e8].map(duration)).toEqual(['0.0 ms', '999.0 ms', '1.5 s', '3 min', '3 h', '3 d']);
  expect(table(['A', 'LONG'], [['wide cell', 'x']])).toBe('A          LONG\nwide cell  x');
});

test('labels and durations as operators write them', () => {
  expect(labelChange(['rack=r1', 'empty=', 'odd=a=b-', 'gone-', 'bare'])).toEqual({add: {rack: 'r1', empty: '', odd: 'a=b-', bare: ''}, remove: ['gone']});
  expect(() => labelChange(['=x'])).toThrow(/expected KEY=VALUE/);
  expect([durationMs('90s'), durationMs('1h30m'), durationMs('7d')]).toEqual([90_000, 5_400_000, 604_800_000]);
  for (const wrong of ['', '5', '1w', 'h', '1h ', '-1h']) expect(() => durationMs(wrong)).toThrow(/expected for example/);
});
