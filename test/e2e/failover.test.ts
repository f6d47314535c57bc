/**
 * The store's primary dies under a datacenter at work: `docker run` goes on in a loop, and requests are made beside it whose status is seen. What was
 * acknowledged is there, once; nobody waits for longer than a deadline; who is refused is told that trying again makes sense.
 */
import fs from 'node:fs';
import http from 'node:http';
import path from 'node:path';
import {silentLog} from '../../lib/base/log';
import {readLayout} from '../../lib/main/cluster/layout';
import {monotonic} from '../../lib/manatee/monotonic';
import {processesOf} from '../../lib/manatee/postgres/processes';
import type {ClusterState} from '../../lib/manatee/state';
import {createCoordination} from '../../lib/manatee/zookeeper/coordination';
import {datacenterWithBusybox} from '../harness/suite';
import {until} from '../harness/wait';

/** A call to the store has a deadline of 10 s, a request makes more than one, and a `docker run` several requests. */
const REQUEST_MS = 30_000;
const RUN_MS = 60_000;
const RUNNERS = 2;
const AFTERWARDS = 6;

interface Told { key: string; ms: number; sentMs: number; status: number; text: string }

const dc = datacenterWithBusybox({verb: 'cluster', cleanUp: async () => {
  const left = (await dc.docker(['ps', '-aq'])).stdout.split('\n').filter(Boolean);
  if (left.length) await dc.docker(['rm', '-fv', ...left], {timeoutMs: 120_000});
}});

/** By ZooKeeper's word. */
async function state(): Promise<ClusterState> {
  const coordination = createCoordination({...readLayout(dc.dataDir)!.zookeeper, sessionTimeoutMs: 6000, clock: monotonic, log: silentLog()});
  try {
    return await until('the state', async () => (await coordination.view()).state);
  } finally {
    await coordination.close();
  }
}

const dataOf = (peer: string): string => path.join(dc.dataDir, 'cluster', peer, 'data');

/** `docker run`, again and again, and every answer. */
class Runners {
  readonly told: Told[] = [];
  private ending = false;
  private readonly running: Promise<unknown>[];

  constructor(private readonly round: string) {
    this.running = [...Array.from({length: RUNNERS}, (_, i) => this.run(`${round}-${i}`)), this.create()];
  }

  get done(): Told[] { return this.told.filter(({status}) => status === 0 || status === 201); }
  get refused(): Told[] { return this.told.filter((told) => told.status !== 0 && told.status !== 201); }
  get slowestMs(): number { return Math.max(...this.told.map(({ms}) => ms)); }

  async stop(): Promise<void> {
    this.ending = true;
    await Promise.all(this.running);
  }

  private async run(name: string): Promise<void> {
    for (let n = 0; !this.ending; n += 1) {
      const [key, sentMs] = [`${name}-${n}`, performance.now()];
      const {status, stdout, stderr} = await dc.docker(['run', '-d', '--label', `key=${key}`, 'busybox', 'true'], {timeoutMs: 120_000});
      this.told.push({key, sentMs, ms: performance.now() - sentMs, status, text: status === 0 ? stdout.trim() : stderr});
    }
  }

  private async create(): Promise<void> {
    for (let n = 0; !this.ending; n += 1) {
      const [key, sentMs] = [`${this.round}-http-${n}`, performance.now()];
      const {status, body} = await post('/containers/create', {Image: 'busybox', Labels: {key}});
      this.told.push({key, sentMs, ms: performance.now() - sentMs, status, text: status === 201 ? (JSON.parse(body) as {Id: string}).Id : body});
    }
  }
}

function post(url: string, body: object): Promise<{status: number; body: string}> {
  const at = new URL(dc.running.listen[0]!.replace('tcp:', 'http:'));
  return new Promise((resolve, reject) => {
    const request = http.request({host: at.hostname, port: at.port, method: 'POST', path: url, headers: {'content-type': 'application/json'}}, (response) => {
      let text = '';
      response.setEncoding('utf8').on('data', (chunk: string) => { text += chunk; }).on('end', () => resolve({status: response.statusCode!, body: text}));
    });
    request.on('error', reject);
    request.end(JSON.stringify(body));
  });
}

test.each(['Postgres', 'the whole peer'])('kill -9 of the primary: %s', async (what) => {
  const runners = new Runners(what === 'Postgres' ? 'p' : 'w');
  let struckMs: number;
  try {
    await until('work to be under way', () => runners.done.length >= 5, 60_000);
    const {primary: {id}} = await state();
    struckMs = performance.now();
    if (what === 'Postgres') process.kill(postmasterOf(id), 'SIGKILL');
    else signalAll([id], 'SIGSTOP', 'SIGKILL');
    await until('work to go on', () => runners.done.filter(({sentMs}) => sentMs > struckMs).length >= AFTERWARDS, 90_000);
  } finally {
    await runners.stop();
  }
  const gap = Math.min(...runners.done.filter(({sentMs}) => sentMs > struckMs).map(({sentMs, ms}) => sentMs + ms)) - struckMs;
  process.stderr.write(`${what}: ${runners.done.length} done, ${runners.refused.length} refused, the slowest answer ${Math.round(runners.slowestMs)} ms; next one begun and done after ${Math.round(gap)} ms\n`);
  await check(runners);
}, 240_000);

test('nobody is left to acknowledge for longer than a request may wait: it is refused in time, and done when somebody is back', async () => {
  const runners = new Runners('n');
  let wokenMs: number;
  try {
    await until('work to be under way', () => runners.done.length >= 5, 60_000);
    const {sync, async} = await until('a chain of three', async () => {
      const now = await state();
      return now.sync && now.async.length === 1 && now;
    }, 90_000);
    const others = [sync!.id, async[0]!.id];
    signalAll(others, 'SIGSTOP');
    try {
      await until('a refusal', () => runners.refused.length > 0, 60_000);
    } finally {
      signalAll(others, 'SIGCONT');
      wokenMs = performance.now();
    }
    await until('work to go on', () => runners.done.filter(({sentMs}) => sentMs > wokenMs).length >= AFTERWARDS, 90_000);
  } finally {
    await runners.stop();
  }
  process.stderr.write(`nobody: ${runners.done.length} done, ${runners.refused.length} refused (${runners.refused[0]!.text.trim()}), the slowest answer ${Math.round(runners.slowestMs)} ms\n`);
  await check(runners);
}, 240_000);

async function check(runners: Runners): Promise<void> {
  for (const {key, ms, status} of runners.told) expect({key, status, late: ms > (key.includes('http') ? REQUEST_MS : RUN_MS) && Math.round(ms)}).toMatchObject({late: false});
  for (const {status, text} of runners.refused) {
    expect(text).toMatch(/try again/i);
    // Also whose write is of unknown outcome: the store took it, and nobody has acknowledged it. Of the client's exit status there is no more to see.
    if (status >= 400) expect(status).toBe(503);
  }
  const there = await until('the list', async () => (await dc.ok(['ps', '-a', '--no-trunc', '--format', '{{.ID}} {{.Label "key"}}'])).split('\n').map((line) => line.split(' ') as [string, string]), 60_000);
  const ids = new Set(there.map(([id]) => id));
  expect(runners.done.filter(({text}) => !ids.has(text))).toEqual([]);
  const keys = there.map(([, key]) => key);
  expect(keys.filter((key, n) => keys.indexOf(key) !== n)).toEqual([]);
}

/** All that a peer consists of: its sitter, the watchdog, which names the data directory, and Postgres. */
function signalAll(peers: string[], ...signals: NodeJS.Signals[]): void {
  const pids = peers.flatMap((peer) => [dc.pids()[`sitter-${peer}`]!, ...watchdogsOf(peer), ...processesOf(dataOf(peer)).map(({pid}) => pid)]);
  for (const signal of signals) {
    for (const pid of pids) {
      try {
        process.kill(pid, signal);
      } catch {
        // it has ended
      }
    }
  }
}

function postmasterOf(peer: string): number {
  const all = processesOf(dataOf(peer));
  return all.find((one) => !all.some((other) => other.pid === one.parent))!.pid;
}

function watchdogsOf(peer: string): number[] {
  return fs.readdirSync('/proc').filter((name) => /^\d+$/.test(name)).map(Number).filter((pid) => {
    try {
      const command = fs.readFileSync(`/proc/${pid}/cmdline`, 'latin1').split('\0');
      return command.includes('cetus-watchdog') && command.includes(dataOf(peer));
    } catch {
      return false; // it has ended
    }
  });
}
