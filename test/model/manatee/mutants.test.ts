/** Each planted mistake is found, as what it is, within so many schedules. How many it took is printed. */
import {ofLong} from '../../harness/long';
import {planted} from './mutants';
import {planOf, runPlan} from './schedule';

jest.setTimeout(300_000);

const AT_MOST = 1_500;

test.each(planted.map((one) => [one.mutant.name, one] as const))('%s', async (name, {mutant, kinds, faults, from = 1}) => {
  for (let seed = ofLong(from, 1); seed <= AT_MOST; seed += 1) {
    const {violation} = await runPlan(planOf(seed, faults), mutant);
    if (!violation || !kinds.includes(violation.kind)) continue;
    process.stdout.write(`    ${name}: found in schedule ${seed} (${violation.kind}: ${violation.what})\n`);
    return;
  }
  throw new Error(`not found in ${AT_MOST} schedules`);
});
