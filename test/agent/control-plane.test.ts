/** Of several endpoints an agent speaks to one, and to the next where that one does not answer. */
import {once} from 'node:events';
import fs from 'node:fs';
import http from 'node:http';
import os from 'node:os';
import path from 'node:path';
import {connectControlPlane} from '../../lib/agent/control-plane';
import {CetusError} from '../../lib/base/errors';

let dir: string;
const servers: http.Server[] = [];
beforeEach(() => { dir = fs.mkdtempSync(path.join(os.tmpdir(), 'cetus-sink-')); });
afterEach(async () => {
  for (const server of servers.splice(0)) {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  }
  fs.rmSync(dir, {recursive: true});
});

async function endpoint(name: string, answer: () => {status: number; body: unknown}): Promise<{url: string; calls: () => number; server: http.Server}> {
  let calls = 0;
  const server = http.createServer((req, res) => {
    calls += 1;
    req.resume();
    const {status, body} = answer();
    res.writeHead(status, {'content-type': 'application/json'}).end(JSON.stringify(body));
  }).listen(path.join(dir, name));
  servers.push(server);
  await once(server, 'listening');
  return {url: `unix://${path.join(dir, name)}`, calls: () => calls, server};
}
const beat = {nodeId: 'n', bootGeneration: 1, reportSeq: 0, runningContainers: 0};
const lease = () => ({status: 200, body: {leaseMs: 15_000}});

test('one that does not answer is left for the next, which is kept', async () => {
  const second = await endpoint('second', lease);
  const sink = connectControlPlane([`unix://${path.join(dir, 'nobody')}`, second.url]);
  expect(await sink.heartbeat(beat)).toEqual({leaseMs: 15_000});
  const first = await endpoint('nobody', lease);
  await sink.heartbeat(beat);
  expect([first.calls(), second.calls()]).toEqual([0, 2]);
  second.server.closeAllConnections();
  await new Promise((resolve) => second.server.close(resolve));
  fs.rmSync(path.join(dir, 'second'), {force: true});
  await sink.heartbeat(beat);
  expect([first.calls(), second.calls()]).toEqual([1, 2]);
  await sink.close();
});

test('one that says no has answered: nobody else is asked', async () => {
  const first = await endpoint('first', () => ({status: 404, body: new CetusError('notFound', 'node n has not joined').toWire()}));
  const second = await endpoint('second', lease);
  const sink = connectControlPlane([first.url, second.url]);
  await expect(sink.heartbeat(beat)).rejects.toThrow('node n has not joined');
  expect(second.calls()).toBe(0);
  await sink.close();
});

test('where none answers it is said, and each has been asked', async () => {
  const sink = connectControlPlane([`unix://${path.join(dir, 'a')}`, `unix://${path.join(dir, 'b')}`]);
  await expect(sink.heartbeat(beat)).rejects.toMatchObject({kind: 'unavailable'});
  await sink.close();
});
