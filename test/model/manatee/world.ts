/** A simulated cluster: machines, network, ZooKeeper, time, chance, and the checker that watches all of it. One seed, one world. */
import type {Log} from '../../../lib/base/log';
import {firstState} from '../../../lib/manatee/state';
import {Checker} from './checker';
import {Ensemble} from './ensemble';
import type {Life} from './life';
import {Machine} from './machine';
import {NO_MUTANT, type Mutant} from './mutant';
import {Network} from './network';
import type {SimPostgres} from './postgres';
import {Random} from './random';
import {Timeline} from './timeline';
import {nextRecord} from './wal';

export interface WorldOptions {
  seed: number;
  peers: number;
  sessionTimeoutMs: number;
  restartGraceMs: number;
  /** The first peer founds alone. */
  oneNode: boolean;
  /** Everybody has the same data already, and a place. */
  founded: boolean;
  trace?: (line: string) => void;
}

export class World {
  readonly timeline = new Timeline();
  readonly random: Random;
  readonly network: Network;
  readonly ensemble: Ensemble;
  readonly checker: Checker;
  readonly machines = new Map<string, Machine>();
  /** How often each step of decide was begun. */
  readonly calls = new Map<string, number>();
  onCall: (machine: Machine, call: string, when: 'before' | 'after') => void = () => undefined;
  private systems = 0;
  private timelines = 1;

  constructor(readonly options: WorldOptions, readonly mutant: Mutant = NO_MUTANT) {
    this.random = new Random(options.seed, 1);
    this.network = new Network(this.timeline, this.random);
    this.checker = new Checker(this);
    this.ensemble = new Ensemble(this.timeline, this.network, this.random, {declared: (...of) => this.checker.declared(...of), trace: (who, what) => this.trace(who, what)});
    for (let i = 1; i <= options.peers; i += 1) this.addMachine(`p${i}`);
    if (options.founded) this.found();
  }

  addMachine(id: string): Machine {
    const machine = new Machine(this, id);
    this.machines.set(id, machine);
    return machine;
  }

  postgres(id: string): SimPostgres | undefined {
    return this.machines.get(id)?.postgres;
  }

  get living(): Machine[] {
    return [...this.machines.values()].filter((machine) => !machine.removed);
  }

  systemId(): string {
    return `system-${++this.systems}`;
  }

  /**
   * The number of a new timeline. Postgres takes the next one that it knows to be free, and so do two servers that never heard of each other: their logs then
   * have the same number, and Postgres, pg_rewind too, takes them for the same. No two promotions may get the same number.
   */
  nextTimeline(newest: number): number {
    this.timelines = this.mutant.sameTimelines ? newest + 1 : Math.max(this.timelines, newest) + 1;
    return this.timelines;
  }

  trace(who: string, what: () => string): void {
    this.options.trace?.(`${(this.timeline.nowMs / 1000).toFixed(4).padStart(9)}  ${who.padEnd(9)} ${what()}`);
  }

  log(id: string, life: Life): Log {
    const tracing = this.options.trace !== undefined;
    const say = (level: string) => (fields: {err?: unknown; step?: {kind: string}; reason?: string}, text?: string): void => {
      if (!tracing || life.dead) return;
      const why = fields.err instanceof Error ? ` (${fields.err.message})` : '';
      this.trace(id, () => `${level}${text ?? JSON.stringify(fields)}${why}${fields.step?.kind === 'declare' ? ` ${JSON.stringify(fields.step)}` : ''}`);
    };
    return {info: say(''), warn: say('! '), error: say('!! '), debug: () => undefined, trace: () => undefined, child: () => this.log(id, life)} as unknown as Log;
  }

  /** All peers hold the first peer's database; their servers have yet to be started. */
  private found(): void {
    const machines = [...this.machines.values()];
    const systemId = this.systemId();
    const first = nextRecord(null, 1, 'init', 0);
    for (const [i, {postgres}] of machines.entries())
      Object.assign(postgres.disk, {data: 'present', systemId, log: [first], flushed: 1, branches: [{tli: 1, from: 0}], newestTli: 1, ran: i ? 'standby' : 'primary', restoredIn: i ? 1 : 0});
    this.ensemble.begin({...firstState(machines[0]!.peer, machines.slice(1).map((machine) => machine.peer), false), systemId});
  }
}
