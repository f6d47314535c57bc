/** Many schedules, or one to be read: what tools/simulate.mjs asks for. Results are plain data that add up across threads. */
import {describeFault, FAULT_KINDS} from './faults';
import type {Mutant} from './mutant';
import {planted} from './mutants';
import {planOf, runPlan, type Outcome, type Plan} from './schedule';

export interface Totals {
  schedules: number;
  events: number;
  takeovers: number;
  acknowledged: number;
  virtualMs: number;
  /** By the number of takeovers in it. */
  byTakeovers: Record<string, number>;
  faults: Record<string, number>;
  calls: Record<string, number>;
  slowestRestMs: number;
  violations: {seed: number; kind: string; what: string}[];
}

function empty(): Totals {
  return {schedules: 0, events: 0, takeovers: 0, acknowledged: 0, virtualMs: 0, byTakeovers: {}, faults: {}, calls: {}, slowestRestMs: 0, violations: []};
}

const count = (into: Record<string, number>, key: string, by: number): void => {
  into[key] = (into[key] ?? 0) + by;
};

function add(total: Totals, part: Totals): void {
  for (const key of ['schedules', 'events', 'takeovers', 'acknowledged', 'virtualMs'] as const) total[key] += part[key];
  for (const key of ['byTakeovers', 'faults', 'calls'] as const) for (const [name, n] of Object.entries(part[key])) count(total[key], name, n);
  total.slowestRestMs = Math.max(total.slowestRestMs, part.slowestRestMs);
  total.violations.push(...part.violations);
}

function note(total: Totals, seed: number, plan: Plan, outcome: Outcome): void {
  total.schedules += 1;
  total.events += outcome.events;
  total.takeovers += outcome.takeovers;
  total.acknowledged += outcome.acknowledged;
  total.virtualMs += plan.untilMs + outcome.restMs;
  count(total.byTakeovers, String(Math.min(outcome.takeovers, 5)), 1);
  for (const [kind, n] of outcome.faults) count(total.faults, kind, n);
  for (const [call, n] of outcome.calls) count(total.calls, call, n);
  total.slowestRestMs = Math.max(total.slowestRestMs, outcome.restMs);
  if (outcome.violation) total.violations.push({seed, kind: outcome.violation.kind, what: outcome.violation.what});
}

const mutantOf = (name: string | undefined): Mutant | undefined => {
  if (name === undefined) return undefined;
  const found = planted.find(({mutant}) => mutant.name === name);
  if (!found) throw new Error(`no planted mistake is called ${name}: ${planted.map(({mutant}) => mutant.name).join(', ')}`);
  return found.mutant;
};

async function run(from: number, schedules: number, mutant?: string): Promise<Totals> {
  const total = empty();
  for (let seed = from; seed < from + schedules; seed += 1) {
    const plan = planOf(seed);
    try {
      note(total, seed, plan, await runPlan(plan, mutantOf(mutant)));
    } catch (err) {
      // A mistake of the model's, or of the sitter's: the seed shows it, and the others go on.
      total.schedules += 1;
      total.violations.push({seed, kind: 'thrown', what: err instanceof Error ? err.message : String(err)});
    }
  }
  return total;
}

/** Drops faults one by one as long as the same kind of violation remains. */
export async function shrink(plan: Plan, kind: string, mutant?: string): Promise<Plan> {
  let smallest = plan;
  for (let changed = true; changed;) {
    changed = false;
    for (let i = smallest.faults.length - 1; i >= 0; i -= 1) {
      const fewer = {...smallest, faults: smallest.faults.filter((_, at) => at !== i)};
      if ((await runPlan(fewer, mutantOf(mutant))).violation?.kind !== kind) continue;
      smallest = fewer;
      changed = true;
    }
  }
  return smallest;
}

interface Show { trace: boolean; shrink: boolean; mutant?: string; print: (line: string) => void }

/** Answers whether the seed violates something. */
async function show(seed: number, {trace, shrink: smaller, mutant, print}: Show): Promise<boolean> {
  let plan = planOf(seed);
  const first = (await runPlan(plan, mutantOf(mutant))).violation;
  if (smaller && first) plan = await shrink(plan, first.kind, mutant);
  print(`seed ${seed}: ${JSON.stringify(plan.options)}, quiet from ${(plan.untilMs / 1000).toFixed(2)} s`);
  for (const fault of plan.faults) print(`  ${describeFault(fault)}`);
  const {violation, takeovers, acknowledged, events} = await runPlan(plan, mutantOf(mutant), trace ? print : undefined);
  print(`${events} events, ${takeovers} takeovers, ${acknowledged} acknowledged writes`);
  print(violation ? `${(violation.atMs / 1000).toFixed(4)} s: ${violation.kind}: ${violation.what}` : 'no violation');
  return violation !== null;
}

function table(total: Totals): string[] {
  const list = (of: Record<string, number>, keys = Object.keys(of).sort()): string => keys.map((key) => `${key} ${of[key] ?? 0}`).join(', ');
  return [
    `faults: ${list(total.faults, FAULT_KINDS)}`,
    `calls of sitters: ${list(total.calls)}`,
    `takeovers: ${total.takeovers}; schedules by takeovers (5: and more): ${list(total.byTakeovers)}`,
    `acknowledged writes: ${total.acknowledged}; events: ${total.events}; simulated: ${(total.virtualMs / 3_600_000).toFixed(1)} hours; longest way back to a whole cluster: ${(total.slowestRestMs / 1000).toFixed(1)} s`,
  ];
}

export const campaign = {empty, add, run, show, table};
