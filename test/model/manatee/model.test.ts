/** Some thousand schedules with fixed seeds: nothing acknowledged is lost, nobody serves beside another, and everything comes right when faults stop. */
import {describeFault} from './faults';
import {planOf, runPlan} from './schedule';

jest.setTimeout(300_000);

const SCHEDULES = Number(process.env.CETUS_SCHEDULES ?? 1_500);

test(`${SCHEDULES} schedules, no violation`, async () => {
  let takeovers = 0;
  let acknowledged = 0;
  for (let seed = 1; seed <= SCHEDULES; seed += 1) {
    const plan = planOf(seed);
    const outcome = await runPlan(plan);
    if (outcome.violation) throw new Error(`seed ${seed}: ${outcome.violation.kind}: ${outcome.violation.what}\n${plan.faults.map(describeFault).join('\n')}`);
    takeovers += outcome.takeovers;
    acknowledged += outcome.acknowledged;
  }
  // A simulator in which nothing happens finds nothing.
  expect(takeovers).toBeGreaterThan(SCHEDULES / 4);
  expect(acknowledged).toBeGreaterThan(SCHEDULES * 50);
});

test('a seed is a schedule: twice the same, line by line', async () => {
  const lines: string[][] = [[], []];
  for (const run of lines) await runPlan(planOf(77), undefined, (line) => run.push(line));
  expect(lines[0]!.length).toBeGreaterThan(50);
  expect(lines[1]).toEqual(lines[0]);
});
