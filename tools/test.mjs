#!/usr/bin/env node
// Runs the worlds of tests, each with as many workers as it bears; says how long each took and which files took longest, and closes with one line: N passed, N failed.
//   node tools/test.mjs [unit|cluster|store|integration|e2e|fleet ...]
// Most of them wait more than they compute, for sessions and leases to end, processes to begin: one after another they would leave the machine idle. A test looks
// at what is its own only, by its data directory, prefix or tag. Within integration one file runs at a time, because they have a control group in common; end to end
// runs by itself: the processes of a datacenter have precedence (lib/main/priority.ts), so that beside several of them no other test would come to anything.
// `fleet` is end to end again, on three nodes behind two endpoints, and only when it is asked for: what makes its own fleet, or is about one machine's parts, is left out.
// Without CETUS_LONG=1 (`make test-long`) the files of the long kind (jest.config.cjs) are left out, and others play a short set (test/harness/long.ts).
import {spawn} from 'node:child_process';
import {once} from 'node:events';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';

const WORLDS = {unit: ['--maxWorkers=2'], cluster: ['--runInBand'], store: ['--runInBand'], integration: ['--runInBand'], e2e: ['--maxWorkers=3']};
const NOT_OF_A_FLEET = 'test/e2e/(fleet.*|join|cluster|failover|shared-containerd|start)\\.test\\.ts$';
const FLEET = {project: 'e2e', args: ['--runInBand', '--testPathIgnorePatterns', '/node_modules/', NOT_OF_A_FLEET], env: {CETUS_FLEET: process.env.CETUS_FLEET ?? '3'}};
const SHORT = process.env.CETUS_LONG === '1' ? {} : {CETUS_SHORT: '1'};
/** What stands in one row runs at the same time. */
const ROWS = [['unit', 'cluster', 'store', 'integration'], ['e2e'], ['fleet']];
const SLOWEST = 5;
const LINGER_MS = 30_000;
/** No file takes as long: a loop that some failed test has left turns round on itself. */
const SILENT_MS = process.env.CETUS_LONG === '1' ? 3_600_000 : 900_000;
const wanted = process.argv.slice(2).length ? process.argv.slice(2) : Object.keys(WORLDS);
for (const world of wanted) if (!(world in WORLDS) && world !== 'fleet') throw new Error(`no such world: ${world} (${[...Object.keys(WORLDS), 'fleet'].join(', ')})`);
const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'cetus-tests-'));
let passed = 0;
let failed = 0;
let broken = false;
const took = [];

/** A socket that some test has forgotten would keep jest, and everybody who waits for it, for ever: its results are written, so that is said, and it is ended. */
async function ended(child, file, world) {
  const end = once(child, 'exit');
  let heardMs = Date.now();
  child.stderr.on('data', () => { heardMs = Date.now(); }).pipe(process.stderr, {end: false});
  for (let writtenMs; ;) {
    const exit = await Promise.race([end, new Promise((resolve) => setTimeout(resolve, 1000))]);
    if (exit) return exit;
    if (!fs.existsSync(file)) {
      if (Date.now() - heardMs < SILENT_MS) continue;
      console.log(`${world}: no file has ended for ${SILENT_MS / 60_000} minutes; it is ended`);
      child.kill('SIGKILL');
      return end;
    }
    writtenMs ??= Date.now();
    if (Date.now() - writtenMs < LINGER_MS) continue;
    console.log(`${world}: something that a test has opened keeps its process; it is ended`);
    child.kill('SIGKILL');
    await end;
    const {success} = JSON.parse(fs.readFileSync(file, 'utf8'));
    return [success ? 0 : 1];
  }
}

async function run(world) {
  const from = Date.now();
  const file = path.join(dir, `${world}.json`);
  const {project, args, env} = world === 'fleet' ? FLEET : {project: world, args: WORLDS[world], env: SHORT};
  // Where several values follow a word of jest's, another word ends them.
  const child = spawn(process.execPath, ['node_modules/jest/bin/jest.js', '--selectProjects', project, ...args, '--json', '--outputFile', file],
    {stdio: ['ignore', 'ignore', 'pipe'], env: {...process.env, ...env}});
  const [status] = await ended(child, file, world);
  const result = fs.existsSync(file) ? JSON.parse(fs.readFileSync(file, 'utf8')) : undefined;
  passed += result?.numPassedTests ?? 0;
  failed += (result?.numFailedTests ?? 0) + (result?.numRuntimeErrorTestSuites ?? 0);
  // A suite that could not run, or jest itself dying, is a failure even where no test says so.
  if (status !== 0 && !(result?.numFailedTests || result?.numRuntimeErrorTestSuites)) failed += 1;
  broken ||= status !== 0;
  for (const {name, startTime, endTime} of result?.testResults ?? []) took.push({file: path.relative(process.cwd(), name), seconds: Math.round((endTime - startTime) / 1000)});
  console.log(`${world}: ${result?.numPassedTests ?? 0} passed, ${result?.numFailedTests ?? '?'} failed in ${Math.round((Date.now() - from) / 1000)} s`);
}

const from = Date.now();
for (const row of ROWS) await Promise.all(row.filter((world) => wanted.includes(world)).map(run));
fs.rmSync(dir, {recursive: true});
const slowest = took.sort((a, b) => b.seconds - a.seconds).slice(0, SLOWEST);
console.log(`\nin ${Math.round((Date.now() - from) / 1000)} s; longest took ${slowest.map(({file, seconds}) => `${file} ${seconds} s`).join(', ')}`);
console.log(`${passed} passed, ${failed} failed`);
process.exit(broken ? 1 : 0);
