#!/usr/bin/env node
// The end-to-end tests with every client behind a proxy that checks each answer against the Engine API's schema, and what it saw in sum.
//   node tools/conformance.mjs PROXY.mjs [TEST-PATTERN]
// PROXY is a program that understands --target tcp://HOST:PORT --listen PORT --json REPORT and ends with its report at SIGTERM (test/harness/proxy.ts).
// Fails where a test fails or an answer does not fit.
import {spawnSync} from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';

const [proxy, pattern = 'test/e2e'] = process.argv.slice(2);
if (!proxy || !fs.existsSync(proxy)) {
  console.error('usage: make conformance PROXY=path/to/proxy.mjs [TESTS=pattern]');
  process.exit(2);
}
const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'cetus-conformance-'));
const report = path.join(dir, 'answers.ndjson');
const done = spawnSync(process.execPath, ['node_modules/jest/bin/jest.js', '--selectProjects', 'e2e', '--runInBand', '--testPathPatterns', pattern],
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
console.log(`${answers} answers checked, ${operations.size} operations, ${misfits.size} kinds out of schema`);
process.exit(done.status || (misfits.size || !answers ? 1 : 0));
