import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import {findingsText, findZooKeeper, historyText, statusText} from '../../lib/main/cli/db';
import {report} from '../../lib/manatee/status';
import {documentOf, live, peer, three} from '../manatee/cluster';

let dir: string;
beforeEach(() => {
  dir = fs.mkdtempSync(path.join(os.tmpdir(), 'cetus-db-'));
  fs.mkdirSync(path.join(dir, 'run'));
});
afterEach(() => fs.rmSync(dir, {recursive: true}));
const put = (file: string, config: object): void => fs.writeFileSync(path.join(dir, 'run', file), JSON.stringify(config));

test('ZooKeeper is found by option, environment, data directory, in that order', () => {
  expect(() => findZooKeeper({data: dir}, {})).toThrow(/where is ZooKeeper\?/);
  put('endpoint.json', {postgresUrl: 'postgres://x'});
  expect(() => findZooKeeper({data: dir}, {})).toThrow(/where is ZooKeeper\?/);
  put('cluster.json', {zookeeper: {servers: 'c:1', path: '/c'}});
  expect(findZooKeeper({data: dir}, {})).toEqual({servers: 'c:1', path: '/c'});
  put('endpoint.json', {store: {zookeeper: {servers: 'e:1', path: '/e'}}});
  expect(findZooKeeper({data: dir}, {})).toEqual({servers: 'e:1', path: '/e'});
  expect(findZooKeeper({data: dir, zookeeperPath: '/o'}, {})).toEqual({servers: 'e:1', path: '/o'});
  const environment = {CETUS_ZOOKEEPER: 'v:1,w:2/v/w'};
  expect(findZooKeeper({data: dir}, environment)).toEqual({servers: 'v:1,w:2', path: '/v/w'});
  expect(findZooKeeper({data: dir, zookeeper: 'o:1'}, environment)).toEqual({servers: 'o:1', path: '/cetus/db'});
});

test('status for people: roles, lag, who is missing, what an operator ordered', async () => {
  const state = three({freeze: {reason: 'a move', by: 'jill'}});
  const found = await report({state, version: 1, peers: [live('a'), live('b')], rebuild: ['b']}, async ({id}) => {
    if (id === 'c') throw new Error('the sitter of c does not answer');
    return Promise.resolve(documentOf(state, id, {}, {trail: [{ageMs: 1500, wal: '0/5000100'}, {ageMs: 9000, wal: '0/5000000'}]}));
  });
  expect(statusText(found)).toBe(`generation 3, begins at 0/3000000: writes are accepted
missing: c
frozen by jill: a move
to be rebuilt: b

PEER  ROLE     GENERATION  WAL        LAG(bytes)  LAG(seconds)  GATE    STATE
a     primary  3           0/5000100  -           -             open    serving
b     sync     -           0/5000000  256         1.5           closed  streaming from a
c     async    -           -          -           -             -       missing`);
});

test('history and findings for people', async () => {
  expect(historyText([{at: '2026-01-02T03:04:05Z', by: 'b', reason: 'the primary a is gone', state: three({deposed: [{...peer('d'), deposedIn: 2}]})}])).toMatch(
    /^AT +GENERATION .*\n2026-01-02T03:04:05Z  3 +a +b +c +d +0\/3000000  b   the primary a is gone$/);
  const found = await report({state: three(), version: 1, peers: [], rebuild: []}, ({id}) => Promise.resolve(documentOf(three(), id)));
  expect(findingsText([], found, 4)).toBe('generation 3, 3 peers, 4 transitions: nothing is wrong');
  expect(findingsText([{kind: 'broken', rule: 'I4', subject: 'a', text: 'a acknowledges alone'}], found, 4)).toContain('broken    I4              a acknowledges alone');
});
