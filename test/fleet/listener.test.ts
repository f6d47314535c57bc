/** How many agents may speak at once: those whose lease is only being written are held, whatever their number; what is being read or applied is bounded. */
import fs from 'node:fs';
import http from 'node:http';
import os from 'node:os';
import path from 'node:path';
import {silentLog} from '../../lib/base/log';
import {Listener, type AgentCalls} from '../../lib/fleet/listener';
import {until} from '../harness/wait';

/** More than may report at once. */
const MANY = 1_200;
const WAVE = 200;

let dir: string;
let socketPath: string;
let listener: Listener;
let agent: http.Agent;
let held: number;
let reported: number;
let refused: number;
let release!: () => void;

beforeEach(async () => {
  dir = fs.mkdtempSync(path.join(os.tmpdir(), 'cetus-listener-'));
  socketPath = path.join(dir, 'fleet.sock');
  held = reported = refused = 0;
  const released = new Promise<void>((resolve) => { release = resolve; });
  const calls = {
    async heartbeat() {
      held += 1;
      await released;
      return {leaseMs: 15_000};
    },
    async assignments() {
      reported += 1;
      await released;
      return {};
    },
  } as unknown as AgentCalls;
  listener = new Listener({socketPath}, calls, silentLog());
  await listener.listen();
  agent = new http.Agent({keepAlive: false, maxSockets: Infinity});
});
afterEach(async () => {
  release();
  agent.destroy();
  await listener.close();
  fs.rmSync(dir, {recursive: true});
});

const call = (url: string, body: object): Promise<number> => new Promise((resolve, reject) => {
  http.request({socketPath, agent, method: 'POST', path: url, headers: {'content-type': 'application/json'}}, (res) => {
    if (res.statusCode === 503) refused += 1;
    res.resume().once('end', () => resolve(res.statusCode!));
  }).once('error', reject).end(JSON.stringify(body));
});
/** In waves: of connections that nobody has taken yet a socket bears some hundred. */
async function all(url: string, body: (n: number) => object, heard: () => number): Promise<Promise<number>[]> {
  const calls: Promise<number>[] = [];
  while (calls.length < MANY) {
    for (const to = calls.length + WAVE; calls.length < to;) calls.push(call(url, body(calls.length)));
    await until(`${calls.length} to be heard`, () => heard() === calls.length);
  }
  return calls;
}

test('heartbeats of more nodes than may report at once are all held until their leases are written, and hinder no report', async () => {
  const beats = await all('/v1/heartbeat', (n) => ({nodeId: `n${n}`, bootGeneration: 1, reportSeq: 0, runningContainers: 0}), () => held);
  const report = call('/v1/assignments', {nodeId: 'n1', bootGeneration: 1, containers: []});
  await until('it to be heard', () => reported === 1);
  release();
  expect(new Set(await Promise.all([...beats, report]))).toEqual(new Set([200]));
});

test('of calls that are worked on the surplus is told to come again', async () => {
  const calls = await all('/v1/assignments', (n) => ({nodeId: `n${n}`, bootGeneration: 1, containers: []}), () => reported + refused);
  expect([reported, refused]).toEqual([1_000, MANY - 1_000]);
  release();
  expect((await Promise.all(calls)).filter((status) => status === 200)).toHaveLength(1_000);
});
