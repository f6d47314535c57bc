/**
 * Some thousand schedules with fixed seeds: nothing acknowledged is lost, nobody serves beside another, and everything comes right when faults stop. They run in
 * tools/simulate.mjs, as a million do: there a schedule costs two thirds of what it costs within jest.
 */
import {execFile} from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import {promisify} from 'node:util';
import {campaign, type Totals} from './campaign';
import {planOf, runPlan} from './schedule';

jest.setTimeout(600_000);

const SCHEDULES = Number(process.env.CETUS_SCHEDULES ?? 4_000);
const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'cetus-model-'));
afterAll(() => fs.rmSync(dir, {recursive: true, force: true}));

async function simulate(...args: string[]): Promise<{status: number; output: string}> {
  const told = await promisify(execFile)(process.execPath, [path.resolve(__dirname, '../../../tools/simulate.mjs'), '--workers', '1', ...args]).catch((err: {code: number; stdout: string; stderr: string}) => err);
  return {status: 'code' in told ? told.code : 0, output: told.stdout + told.stderr};
}

test(`${SCHEDULES} schedules, no violation`, async () => {
  const record = path.join(dir, 'all');
  const {status, output} = await simulate('--count', String(SCHEDULES), '--record', record);
  if (status !== 0) throw new Error(output);
  const {total} = JSON.parse(fs.readFileSync(record, 'utf8')) as {total: Totals};
  expect(total).toMatchObject({schedules: SCHEDULES, violations: []});
  // A simulator in which nothing happens finds nothing.
  expect(total.takeovers).toBeGreaterThan(SCHEDULES / 4);
  expect(total.acknowledged).toBeGreaterThan(SCHEDULES * 50);
});

/** What the million found, and what it was. */
test.each([
  [5195, 'a sitter that finds the gate of a hung server open moves its permit on by a lease that protects nobody'],
  [6843, 'the model took the last disk that had everything'],
  [30903, 'the model took the first disk while the word that it holds the database was on its way'],
  [51776, 'the model took the machine that alone had been declared to make the database, for ever'],
  [161041, 'the model took a disk on the ground of a state that its machine was just changing'],
])('seed %i: %s', async (seed) => {
  expect((await runPlan(planOf(seed))).violation).toBeNull();
});

test('a run that was interrupted goes on where it was, and ends with the same sums', async () => {
  const record = path.join(dir, 'parts');
  await simulate('--from', '300', '--count', '10', '--record', record);
  const {status, output} = await simulate('--from', '300', '--count', '25', '--record', record);
  expect(output).toContain('seeds 300 to 309 are done');
  expect(output).toContain('25 schedules, 0 violations');
  expect(status).toBe(0);
  expect((JSON.parse(fs.readFileSync(record, 'utf8')) as {total: Totals}).total).toEqual(await campaign.run(300, 25));
});

test('a violation is told with its seed, and ends with status 1', async () => {
  const {status, output} = await simulate('--count', '40', '--mutant', 'opens before the sync has caught up');
  expect(output).toMatch(/^violation: seed \d+: I4: /m);
  expect(status).toBe(1);
});

test('a seed is a schedule: twice the same, line by line', async () => {
  const lines: string[][] = [[], []];
  for (const run of lines) await runPlan(planOf(77), undefined, (line) => run.push(line));
  expect(lines[0]!.length).toBeGreaterThan(50);
  expect(lines[1]).toEqual(lines[0]);
});
