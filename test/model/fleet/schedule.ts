/** A seed's schedule: who is hit by what, when, for how long; then quiet, in which everything has to come right. */
import {Random} from '../manatee/random';
import type {Endpoint} from './endpoint';
import type {Violation} from './checker';
import type {Machine} from './machine';
import {type Mutant, World} from './world';

const LEASE_MS = 3_000;
const SETTLE_MS = 15_000;
const TROUBLE_MS = 120_000;
const QUIET_MS = 180_000;

type Fault =
  | {kind: 'stop agent' | 'kill agent' | 'freeze node' | 'reboot node' | 'slow containerd' | 'cut node off' | 'deafen node'; node: number}
  | {kind: 'stop endpoint' | 'kill endpoint' | 'cut store' | 'cut store answers'; endpoint: number}
  | {kind: 'cut node from endpoint' | 'cut answers to node'; node: number; endpoint: number};
export interface Plan { seed: number; endpoints: number; nodes: number; containers: number; faults: {atMs: number; forMs: number; fault: Fault}[] }

const KINDS: readonly Fault['kind'][] = [
  'stop agent', 'stop agent', 'kill agent', 'freeze node', 'reboot node', 'slow containerd', 'cut node off', 'cut node off', 'deafen node',
  'stop endpoint', 'kill endpoint', 'cut store', 'cut store answers', 'cut node from endpoint', 'cut answers to node',
];

export function planOf(seed: number): Plan {
  const random = new Random(seed, 3);
  const endpoints = 1 + random.below(3);
  const nodes = 2 + random.below(3);
  const faults = Array.from({length: 2 + random.below(10)}, () => ({
    atMs: SETTLE_MS + random.between(0, TROUBLE_MS), forMs: random.chance(0.5) ? random.between(200, 8_000) : random.between(8_000, 60_000),
    fault: {kind: random.pick(KINDS), node: random.below(nodes), endpoint: random.below(endpoints)} as Fault,
  }));
  return {seed, endpoints, nodes, containers: 2 + random.below(4), faults};
}

export interface Outcome { violation: Violation | undefined; fences: number; moves: number; events: number; settledMs: number }

export async function runPlan(plan: Plan, mutant?: Mutant, trace?: (line: string) => void): Promise<Outcome> {
  let fences = 0;
  let moves = 0;
  const count = (line: string): void => {
    if (line.includes('is fenced')) fences += 1;
    if (line.includes('(fenced) to')) moves += 1;
    trace?.(line);
  };
  const {seed, endpoints, nodes, containers, faults} = plan;
  const world = await new World({seed, endpoints, nodes, containers, leaseMs: LEASE_MS, trace: count}, mutant).open();
  const ids = Array.from({length: containers}, (_, i) => `c${i + 1}`);
  let overMs = SETTLE_MS;
  for (const {atMs, forMs, fault} of faults) {
    overMs = Math.max(overMs, atMs + forMs);
    world.timeline.after(atMs, () => {
      world.trace('FAULT', () => `${fault.kind} ${JSON.stringify(fault)} for ${Math.round(forMs)} ms`);
      const heal = inject(world, fault);
      world.timeline.after(forMs, () => {
        world.timeline.touch();
        heal();
      });
    });
  }
  await world.timeline.run(overMs + 1);
  let settledMs = 0;
  for (; !world.checker.violation && settledMs < QUIET_MS && !(settledMs >= 30_000 && world.checker.settled(ids)); settledMs += 5_000) await world.timeline.run(overMs + 1 + settledMs + 5_000);
  if (!world.checker.violation) world.checker.ended(ids);
  return {violation: world.checker.violation, fences, moves, events: world.timeline.events, settledMs};
}

/** Answers how it ends. */
function inject(world: World, fault: Fault): () => void {
  const machine = (): Machine => world.machines[(fault as {node: number}).node]!;
  const endpoint = (): Endpoint => world.endpoints[(fault as {endpoint: number}).endpoint]!;
  const all = (cuts: (() => void)[]) => () => cuts.forEach((heal) => heal());
  switch (fault.kind) {
    case 'stop agent': {
      const life = machine().agent?.life;
      life?.stop();
      return () => life?.proceed();
    }
    case 'kill agent': {
      const hit = machine();
      hit.killAgent();
      return () => hit.startAgent();
    }
    case 'freeze node': return machine().freeze();
    case 'reboot node':
      machine().reboot();
      return () => undefined;
    case 'slow containerd': {
      const hit = machine();
      hit.slowMs += 12_000;
      return () => { hit.slowMs -= 12_000; };
    }
    case 'cut node off': return all(world.endpoints.flatMap(({name}) => [world.ways.cut(machine().name, name), world.ways.cut(name, machine().name)]));
    // Its heartbeats arrive, and nothing comes back.
    case 'deafen node': return all(world.endpoints.map(({name}) => world.ways.cut(name, machine().name)));
    case 'stop endpoint': {
      const {life} = endpoint();
      life.stop();
      return () => life.proceed();
    }
    case 'kill endpoint': {
      const hit = endpoint();
      hit.kill();
      return () => hit.start();
    }
    case 'cut store': return all([world.ways.cut(endpoint().name, 'store'), world.ways.cut('store', endpoint().name)]);
    case 'cut store answers': return world.ways.cut('store', endpoint().name);
    case 'cut node from endpoint': return world.ways.cut(machine().name, endpoint().name);
    case 'cut answers to node': return world.ways.cut(endpoint().name, machine().name);
  }
}
