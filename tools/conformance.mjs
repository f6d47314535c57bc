#!/usr/bin/env node
// The end-to-end tests with every client behind a proxy that checks each answer against the Engine API's schema, and what it saw in sum.
//   node tools/conformance.mjs PROXY.mjs [TEST-PATTERN]
// A run of all the tests must exercise each operation of a container host; one of a part only names those that it did not.
// PROXY is a program that understands --target tcp://HOST:PORT --listen PORT --json REPORT and ends with its report at SIGTERM (test/harness/proxy.ts).
// Fails where a test fails, an answer does not fit, or an operation was not exercised; a refusal with 501 is no exercise.
import {spawnSync} from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import operationTable from '../dist/docker/operations.js';

const WHOLE = 'test/e2e';
/** Of a swarm, of plugins, and two that clients ask and the API's description lacks. */
const NOT_OF_A_HOST = /^\/(swarm|services|tasks|nodes|secrets|configs|plugins|grpc$|build\/cancel$)/;
const [proxy, pattern = WHOLE] = process.argv.slice(2);
if (!proxy || !fs.existsSync(proxy)) {
  console.error('usage: make conformance PROXY=path/to/proxy.mjs [TESTS=pattern]');
  process.exit(2);
}
const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'cetus-conformance-'));
const report = path.join(dir, 'answers.ndjson');
const done = spawnSync(process.execPath, ['node_modules/jest/bin/jest.js', '--selectProjects', 'e2e', '--maxWorkers=2', '--testPathPatterns', pattern],
  {stdio: 'inherit', env: {...process.env, CETUS_TEST_PROXY: path.resolve(proxy), CETUS_TEST_PROXY_REPORT: report}});
const rows = fs.existsSync(report) ? fs.readFileSync(report, 'utf8').trim().split('\n').filter(Boolean).map((line) => JSON.parse(line)) : [];
fs.rmSync(dir, {recursive: true});

const operations = new Map();
const misfits = new Set();
for (const {id, statuses, problems} of rows) {
  const sum = operations.get(id) ?? {};
  for (const [status, count] of Object.entries(statuses)) sum[status] = (sum[status] ?? 0) + count;
  operations.set(id, sum);
  for (const problem of problems) misfits.add(`${id}: ${problem}`);
}
const answers = [...operations.values()].flatMap((statuses) => Object.values(statuses)).reduce((a, b) => a + b, 0);
for (const [id, statuses] of [...operations].sort(([a], [b]) => (a < b ? -1 : 1)))
  console.log(`  ${id.padEnd(24)} ${Object.entries(statuses).map(([status, count]) => `${status} x${count}`).join(', ')}`);
for (const misfit of misfits) console.log(`  OUT OF SCHEMA ${misfit}`);
console.log(`${answers} answers of ${operations.size} operations checked`);
const core = operationTable.OPERATIONS.filter(({path: at}) => !NOT_OF_A_HOST.test(at)).map(({id}) => id);
const missing = core.filter((id) => !Object.keys(operations.get(id) ?? {}).some((status) => status !== '501'));
console.log(`${core.length - missing.length} of ${core.length} container-host operations exercised, ${misfits.size} kinds of answer out of schema`);
if (missing.length) console.log(`  never exercised: ${missing.join(' ')}`);
process.exit(done.status || (misfits.size || !answers || (pattern === WHOLE && missing.length) ? 1 : 0));
