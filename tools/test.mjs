#!/usr/bin/env node
// Runs the three worlds of tests one after another, each with as many workers as it bears, and closes with one line: N passed, N failed.
//   node tools/test.mjs [unit|integration|e2e ...]
// Integration runs one file at a time: its tests look at the whole machine. End to end two files do, half of them waiting for most of their time.
import {spawnSync} from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';

const WORLDS = {unit: [], integration: ['--runInBand'], e2e: ['--maxWorkers=2']};
const wanted = process.argv.slice(2).length ? process.argv.slice(2) : Object.keys(WORLDS);
const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'cetus-tests-'));
let passed = 0;
let failed = 0;
let broken = false;
for (const world of wanted) {
  if (!(world in WORLDS)) throw new Error(`no such world: ${world} (${Object.keys(WORLDS).join(', ')})`);
  const from = Date.now();
  const file = path.join(dir, `${world}.json`);
  const done = spawnSync(process.execPath, ['node_modules/jest/bin/jest.js', '--selectProjects', world, ...WORLDS[world], '--json', '--outputFile', file],
    {stdio: ['ignore', 'ignore', 'inherit']});
  const result = fs.existsSync(file) ? JSON.parse(fs.readFileSync(file, 'utf8')) : undefined;
  passed += result?.numPassedTests ?? 0;
  failed += (result?.numFailedTests ?? 0) + (result?.numRuntimeErrorTestSuites ?? 0);
  // A suite that could not run, or jest itself dying, is a failure even where no test says so.
  if (done.status !== 0 && !(result?.numFailedTests || result?.numRuntimeErrorTestSuites)) failed += 1;
  broken ||= done.status !== 0;
  console.log(`${world}: ${result?.numPassedTests ?? 0} passed, ${result?.numFailedTests ?? '?'} failed in ${Math.round((Date.now() - from) / 1000)} s`);
}
fs.rmSync(dir, {recursive: true});
console.log(`\n${passed} passed, ${failed} failed`);
process.exit(broken ? 1 : 0);
