/**
 * The classic mistakes, each planted between a correct sitter and its world, none in lib/. That the simulator finds every one of them is what says that its
 * silence means something (mutants.test.ts).
 */
import type {Coordination} from '../../../lib/manatee/coordination';
import type {PostgresServer} from '../../../lib/manatee/server';
import type {Fault, FaultKind, Target} from './faults';
import type {Machine} from './machine';
import {NO_MUTANT, type Mutant} from './mutant';
import {Random} from './random';
import {lsnText} from './wal';

const over = <T extends object>(real: T, changed: Partial<T>): T => new Proxy(real, {
  get(target, name) {
    const value = (changed as Record<string | symbol, unknown>)[name] ?? (Reflect.get(target, name) as unknown);
    return typeof value === 'function' ? (value as (...of: unknown[]) => unknown).bind(target) : value;
  },
});
const plant = (name: string, changed: Partial<Mutant>): Mutant => ({...NO_MUTANT, ...changed, name});
const onServer = (name: string, change: (real: PostgresServer, machine: Machine) => Partial<PostgresServer>): Mutant =>
  plant(name, {server: (real, machine) => over(real, change(real, machine))});
const onCoordination = (name: string, change: (real: Coordination, machine: Machine) => Partial<Coordination>): Mutant =>
  plant(name, {coordination: (real, machine) => over(real, change(real, machine))});

/** The state is written against the version of a second look, in place of the one that was decided from. */
const staleVersion = onCoordination('stale version', (real) => ({
  declare: async (declaration) => real.declare({...declaration, version: (await real.view()).version}),
}));

/** The sync goes on receiving while it takes over, and says how far it has replayed: a few records less than it has. */
const takeoverWhileStreaming = onServer('takeover by replay position while streaming', (real, {postgres}) => {
  let saysItStopped = false;
  return {
    follow: async (upstream) => {
      saysItStopped = upstream === null;
      if (upstream) await real.follow(upstream);
    },
    facts: async () => {
      const facts = await real.facts();
      if (!saysItStopped || !facts.inRecovery || facts.wal === null) return facts;
      return {...facts, upstream: null, receiving: false, wal: lsnText(postgres.disk.log[Math.max(0, postgres.disk.flushed - 3)])};
    },
    promote: async (generation) => {
      await real.follow(null);
      await real.promote(generation);
    },
  };
});

/** The gate opens as soon as the sync streams, whatever it has. */
const opensEarly = onServer('opens before the sync has caught up', (real) => ({
  facts: async () => {
    const facts = await real.facts();
    return facts.acknowledger.kind === 'peer' ? {...facts, standbys: [{id: facts.acknowledger.id, state: 'streaming', flushed: facts.wal!}]} : facts;
  },
}));

/** The gate is the session default default_transaction_read_only, which a session may set otherwise. */
const gateByDefault = plant('gate by a session default', {
  admits: ({postgres}, overrides) => postgres.run?.gate === 'open' || (overrides && postgres.run?.phase === 'running' && !postgres.run.inRecovery),
});

/** Whoever is first among the living takes over, with what it has: a lagging sync, or what it takes for enough. */
const anyWal = onServer('takeover without initWal', (real, {postgres, world}) => ({
  facts: async () => {
    const facts = await real.facts();
    const {state} = world.ensemble;
    return postgres.run?.inRecovery && facts.wal !== null && state ? {...facts, wal: state.initWal} : facts;
  },
}));

/** Primary and sync are gone: the next in the chain takes itself for the sync. */
const asyncTakesOver = onCoordination('an async takes over', (real, machine) => ({
  view: async () => {
    const view = await real.view();
    const {state, peers} = view;
    const gone = (id: string | undefined): boolean => !peers.some((peer) => peer.id === id);
    if (!state || !gone(state.primary.id) || !gone(state.sync?.id) || state.async[0]?.id !== machine.id) return view;
    return {...view, state: {...state, sync: state.async[0], async: state.async.slice(1)}};
  },
}));

/** From one acknowledger to the next directly: "nobody" is only said. */
const directChange = onServer('acknowledger changed directly', (real, {postgres, world}) => {
  let saysNobody = false;
  return {
    acknowledge: async (by) => {
      saysNobody = by.kind === 'nobody';
      const {run} = postgres;
      if (saysNobody) return;
      if (!run) return real.acknowledge(by);
      await new Promise<void>((resolve) => {
        run.life.deliver(() => run.configure(by, () => {
          world.timeline.touch();
          resolve();
        }));
      });
    },
    facts: async () => {
      const facts = await real.facts();
      return saysNobody ? {...facts, acknowledger: {kind: 'nobody'}} : facts;
    },
  };
});

/** The reload is asked for and taken for done. */
const reloadBelieved = onServer('reload believed effective', (real, {postgres, world}) => ({
  acknowledge: async (by) => {
    void real.acknowledge(by).catch(() => undefined);
    await new Promise<void>((resolve) => {
      world.timeline.after(1, () => {
        world.timeline.touch();
        resolve();
      });
    });
  },
  facts: async () => ({...(await real.facts()), acknowledger: postgres.run?.configured ?? {kind: 'nobody'}}),
}));

/** The lease is counted from the answer: what lay between question and answer is given away. */
const leaseFromAnswer = onCoordination('lease from the answer', (real, machine) => {
  let untilMs = -Infinity;
  const counted = async <T>(answer: Promise<T>): Promise<T> => {
    const value = await answer;
    untilMs = machine.clockMs() + (machine.world.options.sessionTimeoutMs * 2) / 3;
    return value;
  };
  return {
    view: () => counted(real.view()),
    declare: (declaration) => counted(real.declare(declaration)),
    announce: (announcement) => counted(real.announce(announcement)),
    leaseUntilMs: () => (real.leaseUntilMs() === -Infinity ? -Infinity : Math.max(untilMs, real.leaseUntilMs())),
  };
});

/** A promotion takes the next number that its server knows to be free, as Postgres does. */
const sameTimelines = plant('timelines by the next free number', {sameTimelines: true});

/** ZooKeeper is slow, so that a question is on its way when the primary's sitter is stopped; when it goes on, it is cut off. */
function stoppedWithAQuestion(random: Random): Fault[] {
  const stopped = random.between(5_000, 7_000);
  const fault = (atMs: number, kind: FaultKind, target: Target, forMs: number): Fault => ({atMs, kind, target, forMs, choice: random.below(1 << 20)});
  return [
    fault(stopped - 1_000, 'zkSlow', 'any', 1_000),
    fault(stopped, 'pauseSitter', 'primary', random.between(1_500, 3_600)),
    fault(stopped + random.between(300, 2_500), 'cutZk', 'primary', 8_000),
  ];
}

/**
 * The primary's machine dies, and the next one's as soon as it is promoted, while the third cannot stream from it: that one takes over without having heard of its
 * timeline. By chance alone once in 4,000 since nobody takes over unannounced, only to be taken over from at once.
 */
function twoTakeoversInARow(random: Random): Fault[] {
  const diesMs = random.between(4_500, 7_000);
  // As inject.ts reads them: its machine crashes after the second of its own calls as primary (the promotion), or after the third.
  const choice = random.pick([22, 36]);
  return [
    {atMs: diesMs, kind: 'crashMachine', target: 'primary', forMs: random.between(8_000, 12_000), choice: random.below(1 << 20)},
    {atMs: diesMs + 1, kind: 'atCall', target: 'primary', forMs: random.between(5_000, 10_000), choice},
    {atMs: diesMs + random.between(300, 2_500), kind: 'cutPeers', target: 'sync', forMs: 12_000, choice: random.below(1 << 20)},
  ];
}

export interface Planted {
  mutant: Mutant;
  /** As what it has to be found. */
  kinds: readonly string[];
  /** What its schedules are made of, where a thing has to come together that chance alone brings once in 1,300. */
  faults?: (random: Random) => Fault[];
  /** Where the short set begins to look; the schedules before are known to show nothing. */
  from?: number;
}

export const planted: readonly Planted[] = [
  {mutant: staleVersion, kinds: ['step'], from: 280},
  {mutant: takeoverWhileStreaming, kinds: ['I5', 'initWal', 'lost']},
  {mutant: opensEarly, kinds: ['I4']},
  {mutant: gateByDefault, kinds: ['gate']},
  {mutant: anyWal, kinds: ['I5', 'initWal', 'lost']},
  {mutant: asyncTakesOver, kinds: ['step']},
  {mutant: directChange, kinds: ['rule', 'unsafe', 'lost']},
  {mutant: reloadBelieved, kinds: ['rule', 'unsafe', 'lost']},
  {mutant: leaseFromAnswer, kinds: ['fence'], faults: stoppedWithAQuestion, from: 495},
  {mutant: sameTimelines, kinds: ['corruption', 'lost', 'I4'], faults: twoTakeoversInARow},
];
