/** Schedules with fixed seeds (some hundred with CETUS_LONG=1, `make test-long`): no container ever runs twice, and each runs again when faults stop. Each planted mistake is found, as what it is. */
import {ofLong} from '../../harness/long';
import {planOf, runPlan} from './schedule';
import type {Mutant} from './world';

jest.setTimeout(600_000);

const SCHEDULES = ofLong(12, 600);
const AT_MOST = 2_000;

test(`${SCHEDULES} schedules`, async () => {
  const sum = {fences: 0, moves: 0, events: 0};
  for (let seed = 1; seed <= SCHEDULES; seed += 1) {
    const {violation, fences, moves, events} = await runPlan(planOf(seed));
    expect({seed, violation}).toEqual({seed, violation: undefined});
    sum.fences += fences;
    sum.moves += moves;
    sum.events += events;
  }
  process.stdout.write(`    ${SCHEDULES} schedules, ${sum.fences} fences, ${sum.moves} containers started elsewhere, ${sum.events} events\n`);
  // A model in which nothing happens proves nothing.
  expect(sum.fences).toBeGreaterThan(SCHEDULES / 2);
  expect(sum.moves).toBeGreaterThan(SCHEDULES / 2);
});

/** `from`: where the short set begins to look; the schedules before are known to show nothing. */
const PLANTED: {mutant: Mutant; kinds: string[]; from?: number}[] = [
  {mutant: {name: 'the lease is counted from the answer', countFromAnswer: true}, kinds: ['twice', 'fenced']},
  {mutant: {name: 'a fence that does not hold the rows', unguardedFence: true}, kinds: ['twice', 'fenced'], from: 85},
  {mutant: {name: 'wall clocks are compared', wallClocks: true}, kinds: ['twice', 'fenced']},
  {mutant: {name: 'containers leave a node that is only lost', evacuateLost: true}, kinds: ['twice']},
  {mutant: {name: 'restart policies before a lease', bootStarts: true}, kinds: ['twice', 'fenced']},
  {mutant: {name: 'a new life that does not ask for its assignments', noAssignments: true}, kinds: ['twice']},
  {mutant: {name: 'no guard beside the agent', noGuard: true}, kinds: ['twice', 'fenced']},
];

test.each(PLANTED.map((one) => [one.mutant.name, one] as const))('found: %s', async (name, {mutant, kinds, from = 1}) => {
  for (let seed = ofLong(from, 1); seed <= AT_MOST; seed += 1) {
    const {violation} = await runPlan(planOf(seed), mutant);
    if (!violation || !kinds.includes(violation.kind)) continue;
    process.stdout.write(`    ${name}: found in schedule ${seed} (${violation.kind}: ${violation.what})\n`);
    return;
  }
  throw new Error(`not found in ${AT_MOST} schedules`);
});
