/** An agent's way to several endpoints: the next one when one fails, none twice in one call, and refusals are answers. */
import fs from 'node:fs';
import http from 'node:http';
import os from 'node:os';
import path from 'node:path';
import {connectControlPlane} from '../../lib/agent/control-plane';
import {CetusError} from '../../lib/base/errors';

interface Endpoint { url: string; heard: string[]; server: http.Server; answer: {status: number; body: unknown} }

const open: Endpoint[] = [];
const sinks: {close(): Promise<void>}[] = [];
const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'cetus-turn-'));

afterAll(() => fs.rmSync(directory, {recursive: true, force: true}));

async function endpoint(name: string): Promise<Endpoint> {
  const made: Endpoint = {url: '', heard: [], server: http.createServer(), answer: {status: 200, body: {leaseMs: 1}}};
  made.server.on('request', (req: http.IncomingMessage, res: http.ServerResponse) => {
    made.heard.push(req.url ?? '');
    req.resume();
    res.writeHead(made.answer.status, {'content-type': 'application/json'}).end(JSON.stringify(made.answer.body));
  });
  const socket = path.join(directory, `${name}.sock`);
  await new Promise<void>((resolve) => made.server.listen(socket, resolve));
  made.url = `unix://${socket}`;
  open.push(made);
  return made;
}
const down = (at: Endpoint): Promise<unknown> => new Promise((resolve) => {
  at.server.close(resolve);
  at.server.closeAllConnections();
});
const reach = (urls: string | string[], first = 0): ReturnType<typeof connectControlPlane> => {
  const sink = connectControlPlane(urls, undefined, first);
  sinks.push(sink);
  return sink;
};
const beat = {nodeId: 'n', bootGeneration: 1, reportSeq: 0, runningContainers: 0};

afterEach(async () => {
  for (const sink of sinks.splice(0)) await sink.close();
  for (const at of open.splice(0)) if (at.server.listening) await down(at);
});

test('stays with the endpoint that answers', async () => {
  const [a, b] = [await endpoint('a'), await endpoint('b')];
  const sink = reach([a.url, b.url], 1);
  for (let i = 0; i < 3; i += 1) await sink.heartbeat(beat);
  expect([a.heard.length, b.heard.length]).toEqual([0, 3]);
});

test('turns to the next within the same call, stays there, and comes round', async () => {
  const [a, b, c] = [await endpoint('a'), await endpoint('b'), await endpoint('c')];
  const sink = reach([a.url, b.url, c.url], 1);
  await sink.heartbeat(beat);
  await down(b);
  await sink.heartbeat(beat);
  await sink.reports({nodeId: 'n', bootGeneration: 1, reports: []});
  expect([a.heard, c.heard]).toEqual([[], ['/v1/heartbeat', '/v1/reports']]);
  await down(c);
  await sink.heartbeat(beat);
  expect(a.heard).toEqual(['/v1/heartbeat']);
});

test('an endpoint that says it cannot now is left; one that refuses is heard', async () => {
  const [a, b] = [await endpoint('a'), await endpoint('b')];
  const sink = reach([a.url, b.url], 0);
  a.answer = {status: 503, body: new CetusError('unavailable', 'the store is away').toWire()};
  await expect(sink.heartbeat(beat)).resolves.toEqual({leaseMs: 1});
  b.answer = {status: 404, body: new CetusError('notFound', 'node n has not joined').toWire()};
  await expect(sink.heartbeat(beat)).rejects.toMatchObject({kind: 'notFound', message: 'node n has not joined'});
  expect([a.heard.length, b.heard.length]).toEqual([1, 2]);
});

test('calls that fail together turn away once', async () => {
  const [a, b, c] = [await endpoint('a'), await endpoint('b'), await endpoint('c')];
  const sink = reach([a.url, b.url, c.url], 0);
  await down(a);
  await Promise.all([1, 2, 3, 4].map(() => sink.heartbeat(beat)));
  expect([b.heard.length, c.heard.length]).toEqual([4, 0]);
});

test('when none answers each has been asked once, and the last one\'s failure is told with its address', async () => {
  const [a, b] = [await endpoint('a'), await endpoint('b')];
  await down(a);
  b.answer = {status: 503, body: new CetusError('unavailable', 'stopping').toWire()};
  const sink = reach([b.url, a.url], 0);
  await expect(sink.heartbeat(beat)).rejects.toMatchObject({kind: 'unavailable', message: expect.stringContaining(a.url)});
  expect(b.heard.length).toBe(1);
});

test('an address of another kind, and no address, are refused', () => {
  expect(() => connectControlPlane('http://10.0.0.1:80')).toThrow(/unix:\/\/ or https:\/\//);
  expect(() => connectControlPlane([])).toThrow(/no control plane/);
});
