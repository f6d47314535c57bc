/**
 * A datacenter on a replicated store, as `make cluster` runs it: it begins as a `cetus up` with its own Postgres, whose store is moved into a cluster under a
 * running container; then the primary is moved, killed, and everything is killed and started again. The operator's verbs say what is so all along.
 */
import {spawn} from 'node:child_process';
import {once} from 'node:events';
import fs from 'node:fs';
import path from 'node:path';
import {busyboxArchive} from '../harness/busybox';
import {NOTHING_LEFT, PROGRAM, run, TestDatacenter, type Finished} from '../harness/cetus';
import {processesOf} from '../harness/leaks';
import {until} from '../harness/wait';

interface Report { view: {state: {generation: number; primary: {id: string}; sync: {id: string} | null; async: {id: string}[]; deposed: {id: string}[]}}; writable: string }

const dc = new TestDatacenter();
const db = (...args: string[]): Promise<Finished> => run(process.execPath, [PROGRAM, 'db', ...args, '--data', dc.dataDir], {timeoutMs: 150_000});
const status = async (): Promise<Report> => JSON.parse((await db('status', '--json')).stdout) as Report;
const dataOf = (id: string): string => path.join(dc.dataDir, 'cluster', id, 'data');

/** All three in their places, nothing broken, nothing degraded. */
async function whole(): Promise<Report> {
  await until('verify to find nothing', async () => {
    const {status: code, stdout} = await db('verify');
    if (code !== 0) throw new Error(stdout);
    return true;
  }, 120_000);
  return status();
}

afterAll(async () => {
  expect(await dc.destroy()).toEqual(NOTHING_LEFT);
}, 240_000);

test('the store of `cetus up` moves into a cluster: refused before, copied and compared, and its container runs on', async () => {
  await dc.up();
  await dc.ok(['load', '-i', await busyboxArchive()]);
  await dc.ok(['run', '-d', '--name', 'stays', 'busybox', 'sleep', '100000']);
  const pid = await dc.ok(['inspect', '-f', '{{.State.Pid}}', 'stays']);
  await dc.stop();
  const refused = await run(process.execPath, [PROGRAM, 'cluster', '--data', dc.dataDir, '--listen', '127.0.0.1:0']);
  expect([refused.status, refused.stderr]).toEqual([1, expect.stringContaining('cetus db import')]);

  const store = spawn(process.execPath, [PROGRAM, 'cluster', '--only-store', '--data', dc.dataDir], {stdio: ['ignore', 'pipe', 'pipe']});
  let said = '';
  for (const stream of [store.stdout, store.stderr]) stream.setEncoding('utf8').on('data', (text: string) => { said += text; });
  try {
    await until('the store alone', () => {
      if (store.exitCode !== null) throw new Error(said);
      return said.includes('store is ready');
    }, 180_000);
    const copied = await db('import', '--from-data', dc.dataDir);
    expect([copied.status, copied.stderr, copied.stdout]).toEqual([0, '', expect.stringMatching(/copied and compared: [1-9]\d* objects in [1-9]\d* buckets/)]);
    expect((await db('import', '--from-data', dc.dataDir)).stdout).toMatch(/has been copied before/);
  } finally {
    const gone = once(store, 'exit');
    store.kill('SIGINT');
    await gone;
  }
  expect(processesOf(dc.dataDir).filter((line) => /sitter|java|postgres/.test(line))).toEqual([]);

  const back = await run(process.execPath, [PROGRAM, 'up', '--data', dc.dataDir, '--listen', '127.0.0.1:0']);
  expect([back.status, back.stderr]).toEqual([1, expect.stringContaining('is a cluster')]);
  dc.verb = 'cluster';
  await dc.up();
  expect(await dc.ok(['ps', '--format', '{{.Names}}'])).toBe('stays');
  expect(await dc.ok(['inspect', '-f', '{{.State.Pid}}', 'stays'])).toBe(pid);
  expect(await dc.ok(['run', '--rm', 'busybox', 'echo', 'hello'])).toBe('hello');
  expect((await whole()).writable).toBe('writes are accepted');
}, 600_000);

test('an operator moves the primary; the primary dies with its sitter: containers are made all along, and none is lost', async () => {
  const before = await status();
  const next = before.view.state.sync!.id;
  const promoted = await db('promote', next);
  expect([promoted.status, promoted.stdout]).toEqual([0, expect.stringContaining(`${next} is primary of generation ${before.view.state.generation + 1}`)]);
  await whole();

  const made: string[] = [];
  const refusals: string[] = [];
  let making = true;
  const maker = (async () => {
    for (let n = 0; making; n += 1) {
      const done = await dc.docker(['create', '--name', `made-${n}`, 'busybox', 'true'], {timeoutMs: 60_000});
      if (done.status === 0) made.push(done.stdout.trim());
      else refusals.push(done.stderr);
    }
  })();
  await until('some containers', () => made.length >= 3);
  const {view: {state}} = await status();
  const sitter = dc.pids()[`sitter-${state.primary.id}`]!;
  const postmaster = Number(fs.readFileSync(path.join(dataOf(state.primary.id), 'postmaster.pid'), 'utf8').split('\n')[0]);
  process.kill(sitter, 'SIGKILL');
  process.kill(postmaster, 'SIGKILL');
  const then = made.length;
  await until('containers to be made again', () => made.length >= then + 3, 120_000);
  making = false;
  await maker;
  // Refused, where it was: clearly, and to be tried again.
  for (const text of refusals) expect(text).toMatch(/try again|already in use/);
  await whole();
  const listed = (await dc.ok(['ps', '-aq', '--no-trunc', '--filter', 'name=made-'])).split('\n');
  expect(made.filter((id) => !listed.includes(id))).toEqual([]);
  expect(new Set(listed).size).toBe(listed.length);
  await dc.ok(['rm', '-f', ...listed]);
}, 600_000);

test('everything is killed at once and started again: no orphan is in the way, the store and the container are there', async () => {
  const before = await whole();
  const history = JSON.parse((await db('history', '--json')).stdout) as {state: {generation: number}}[];
  await dc.stop('SIGKILL');
  await dc.up();
  expect(await dc.ok(['ps', '--format', '{{.Names}}'])).toBe('stays');
  const {view: {state}} = await whole();
  expect(state.generation).toBeGreaterThanOrEqual(before.view.state.generation);
  expect((JSON.parse((await db('history', '--json')).stdout) as unknown[]).slice(0, history.length)).toEqual(history);
  // In good order, nothing fails over.
  await dc.stop();
  await dc.up();
  const after = await whole();
  const reasons = (await db('history')).stdout.split('\n').slice(-8).join('\n');
  expect([after.view.state.generation, reasons]).toEqual([state.generation, reasons]);
}, 600_000);
