import http from 'node:http';
import {lagOf, report, serveStatus, askStatus, Trail, writable, type StatusServer} from '../../lib/manatee/status';
import type {SitterStatus} from '../../lib/manatee/sitter';
import {documentOf, factsOf, live, peer, three} from './cluster';

let servers: {close(): Promise<unknown> | void}[] = [];
afterEach(async () => {
  await Promise.all(servers.map((server) => server.close()));
  servers = [];
});

async function serve(status: Partial<SitterStatus>): Promise<StatusServer> {
  const state = three();
  const server = await serveStatus({
    status: () => ({peer: peer('a'), view: {state, version: 4, peers: [], rebuild: []}, facts: factsOf(state, 'a'), leaseLeftMs: 1234, last: {action: {step: {kind: 'wait'}, reason: 'nothing is to be done'}}, ...status}),
    overrides: () => Promise.resolve([]), nowMs: () => 1000,
  }, {host: '127.0.0.1', port: 0});
  servers.push(server);
  return server;
}
const at = (id: string, port: number) => ({...peer(id), statusUrl: `http://127.0.0.1:${port}/`});

test('a sitter shows what it knows; nothing but GET / is there', async () => {
  const {port} = await serve({});
  expect(await askStatus(at('a', port))).toEqual({
    peer: peer('a'), seen: {generation: 3, version: 4}, facts: factsOf(three(), 'a'), leaseLeftMs: 1234, last: {step: 'wait', reason: 'nothing is to be done', error: null},
    trail: [{ageMs: 0, wal: '0/5000100'}], overrides: [],
  });
  for (const [method, path] of [['POST', '/'], ['GET', '/x']]) expect((await fetch(`http://127.0.0.1:${port}${path}`, {method})).status).toBe(404);
});

test('however many ask, Postgres is asked once at a time', async () => {
  let asking = 0;
  let most = 0;
  const overrides = async () => {
    most = Math.max(most, (asking += 1));
    await new Promise((resolve) => { setImmediate(resolve); });
    asking -= 1;
    return [];
  };
  const server = await serveStatus({status: () => ({peer: peer('a'), view: null, facts: null, leaseLeftMs: 0, last: null}), overrides, nowMs: () => 1000}, {host: '127.0.0.1', port: 0});
  servers.push(server);
  await Promise.all(Array.from({length: 20}, () => askStatus(at('a', server.port))));
  expect(most).toBe(1);
});

test('before its first look a sitter answers, too', async () => {
  const {port} = await serve({view: null, facts: null, last: null, leaseLeftMs: -Infinity});
  expect(await askStatus(at('a', port))).toMatchObject({seen: null, facts: null, leaseLeftMs: 0, last: null, trail: []});
});

test('another peer at that address, one that is gone, and one that is none are unavailable', async () => {
  const {port} = await serve({});
  await expect(askStatus(at('b', port))).rejects.toMatchObject({kind: 'unavailable', message: expect.stringContaining('a answers there')});
  await servers.pop()!.close();
  await expect(askStatus(at('a', port))).rejects.toMatchObject({kind: 'unavailable'});
  const odd = http.createServer((_request, response) => response.end('hello')).listen(0, '127.0.0.1');
  servers.push({close: () => void odd.close()});
  await new Promise((resolve) => { odd.once('listening', resolve); });
  await expect(askStatus(at('a', (odd.address() as {port: number}).port))).rejects.toMatchObject({kind: 'unavailable'});
});

test('lag is the distance to the primary, and the age of the first thing that is missing', () => {
  const trail = new Trail();
  for (const [ms, wal] of [[0, '0/100'], [10_000, '0/200'], [10_500, '0/200'], [20_000, '0/300'], [30_000, null]] as const) trail.note(ms, wal);
  const primary = documentOf(three(), 'a', {wal: '0/300'}, {trail: trail.read(31_000)});
  const behind = (wal: string | null) => lagOf(primary, documentOf(three(), 'b', {wal}));
  expect(behind('0/300')).toEqual({bytes: 0n, seconds: 0});
  expect(behind('0/400')).toEqual({bytes: 0n, seconds: 0}); // asked a moment later
  expect(behind('0/200')).toEqual({bytes: 256n, seconds: 11});
  expect(behind('0/1FF')).toEqual({bytes: 257n, seconds: 21});
  expect(behind('0/50')).toEqual({bytes: 0x2b0n, seconds: null}); // longer than is remembered
  expect(behind(null)).toBeUndefined();
  expect(lagOf(null, primary)).toBeUndefined();
});

test('everybody with a place or a node is reported, the primary asked last', async () => {
  const asked: string[] = [];
  const found = await report({state: three(), version: 1, peers: [live('a'), live('c'), live('n')], rebuild: []}, async ({id}) => {
    asked.push(id);
    if (id === 'b') throw new Error('silent');
    return Promise.resolve(documentOf(three(), id));
  });
  expect(asked.at(-1)).toBe('a');
  expect(found.peers.map(({peer: {id}, role, live: there, unanswered}) => [id, role, there !== null, unanswered])).toEqual([['a', 'primary', true, null], ['b', 'sync', false, 'silent'], ['c', 'async', true, null], ['n', 'none', true, null]]);
  expect(writable(three(), found)).toBe('writes are accepted');
});
