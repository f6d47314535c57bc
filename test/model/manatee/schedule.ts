/** One schedule: a seed's world, its faults, and after them the quiet in which everything has to come right again. */
import {roleOf} from '../../../lib/manatee/state';
import type {Violation} from './checker';
import {Writer} from './clients';
import {type Fault, planFaults} from './faults';
import {Injector} from './inject';
import type {Mutant} from './mutant';
import {Random} from './random';
import {World, type WorldOptions} from './world';

const FAULTS_FROM_MS = 4_000;
/** After the last fault: sessions expire, copies are made, chains are built again. */
const REST_MS = 90_000;

export interface Plan { seed: number; options: WorldOptions; faults: Fault[]; untilMs: number }

export interface Outcome {
  violation: Violation | null;
  events: number;
  takeovers: number;
  acknowledged: number;
  faults: Map<string, number>;
  calls: Map<string, number>;
  /** How long it took to come to rest. */
  restMs: number;
}

export function planOf(seed: number, faults?: (random: Random) => Fault[]): Plan {
  const random = new Random(seed, 0);
  const untilMs = FAULTS_FROM_MS + random.between(3_000, 24_000);
  const options = {seed, peers: random.chance(0.7) ? 3 : random.chance(0.5) ? 4 : 2, sessionTimeoutMs: 4_000, restartGraceMs: random.chance(0.5) ? 1_000 : 3_000, founded: random.chance(0.75), oneNode: random.chance(0.2)};
  return {seed, options, faults: faults ? faults(random) : planFaults(random, options.founded ? 500 : 200, untilMs), untilMs};
}

export async function runPlan(plan: Plan, mutant?: Mutant, trace?: (line: string) => void): Promise<Outcome> {
  const world = new World({...plan.options, trace}, mutant);
  const {timeline, checker} = world;
  const injector = new Injector(world);
  for (const machine of world.machines.values()) timeline.after(world.random.between(0, 500), () => machine.boot());
  const writers = [0, 1].map((number) => new Writer(world, number, number ? 400 : 120));
  injector.plan(plan.faults);
  await timeline.run(plan.untilMs);
  if (!checker.violation) {
    injector.healAll();
    await settle(world, writers);
  }
  return {violation: checker.violation, events: timeline.events, takeovers: checker.takeovers, acknowledged: checker.acked.length, faults: injector.counts, calls: world.calls, restMs: timeline.nowMs - plan.untilMs};
}

async function settle(world: World, writers: readonly Writer[]): Promise<void> {
  const {timeline, checker} = world;
  const began = timeline.nowMs;
  let acknowledged: number | undefined;
  let missing = '';
  while (timeline.nowMs < began + REST_MS) {
    await timeline.run(timeline.nowMs + 250);
    if (checker.violation) return;
    const lacks = unrest(world);
    missing = lacks ?? 'an acknowledged write';
    if (lacks) acknowledged = undefined;
    else acknowledged ??= writers.reduce((sum, writer) => sum + writer.acknowledged, 0);
    if (acknowledged !== undefined && writers.reduce((sum, writer) => sum + writer.acknowledged, 0) > acknowledged) return checker.atEnd();
  }
  checker.fail('progress', `${REST_MS / 1000} s after the last fault: ${missing}`);
}

/** What is still missing of a whole cluster. */
function unrest(world: World): string | undefined {
  const {state} = world.ensemble;
  if (!state || state.systemId === null) return 'there is no cluster';
  const primary = world.machines.get(state.primary.id)!;
  const {run, disk} = primary.postgres;
  if (run?.gate !== 'open' || disk.generation !== state.generation) return `the primary ${primary.id} lets nobody in`;
  for (const {id} of world.living) {
    const role = roleOf(state, id);
    if (role === 'none' || role === 'deposed') return `${id} has no place in the chain (${role})`;
    if (id !== primary.id && !world.postgres(id)?.run?.receiver) return `${id} does not stream`;
  }
  return undefined;
}
