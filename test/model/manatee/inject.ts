/** Makes a planned fault happen, and end. `healAll` ends all of them at once: from then on the cluster has to come to rest. */
import {roleOf} from '../../../lib/manatee/state';
import {ZK} from './ensemble';
import type {Fault, Target} from './faults';
import type {Machine} from './machine';
import {Operator} from './operator';
import {holds} from './wal';
import type {World} from './world';

interface Ambush { countdown: number; when: 'before' | 'after'; strike: (machine: Machine) => void; target: Target }

const STRIKES = ['crashSitter', 'crashMachine', 'pauseMachine', 'pauseSitter', 'cutZk', 'zkServerDies', 'crashPostgres'] as const;

export class Injector {
  readonly counts = new Map<string, number>();
  private readonly ambushes: Ambush[] = [];
  private readonly undo = new Set<() => void>();
  private readonly operator: Operator;
  private quiet = false;

  constructor(private readonly world: World) {
    this.operator = new Operator(world);
    world.onCall = (machine, call, when) => this.onCall(machine, call, when);
  }

  plan(faults: readonly Fault[]): void {
    for (const fault of faults) this.world.timeline.after(fault.atMs - this.world.timeline.nowMs, () => this.happen(fault));
  }

  healAll(): void {
    this.quiet = true;
    this.ambushes.length = 0;
    this.world.trace('faults', () => 'none from now on');
    for (const undo of [...this.undo]) undo();
    this.world.network.healAll();
    for (const machine of this.world.living) {
      machine.boot();
      machine.startSitter();
    }
    this.operator.settle();
  }

  private happen(fault: Fault): void {
    if (this.quiet) return;
    const {world} = this;
    const machine = this.find(fault.target, fault.choice);
    this.counts.set(fault.kind, (this.counts.get(fault.kind) ?? 0) + 1);
    world.trace('faults', () => `${fault.kind} ${machine.id} for ${(fault.forMs / 1000).toFixed(2)} s`);
    this.apply(fault, machine);
  }

  private apply(fault: Fault, machine: Machine): void {
    const {world, operator} = this;
    const {ensemble} = world;
    const {id, postgres} = machine;
    const {choice, forMs} = fault;
    const other = world.living.filter((peer) => peer !== machine)[choice % Math.max(1, world.living.length - 1)] ?? machine;
    switch (fault.kind) {
      case 'crashSitter':
        machine.crashSitter();
        return this.later(forMs / 3, () => machine.startSitter());
      case 'crashPostgres':
        if (postgres.run) postgres.crash(postgres.run, 'kill -9');
        return;
      case 'crashMachine':
        machine.powerOff();
        return this.later(forMs, () => machine.boot());
      case 'pauseSitter': {
        const {life} = machine;
        life?.stop();
        return this.later(forMs, () => life?.proceed());
      }
      case 'pausePostgres': {
        const life = postgres.run?.life;
        life?.stop();
        return this.later(forMs, () => {
          life?.proceed();
          world.checker.fence();
        });
      }
      case 'pauseMachine': {
        const epoch = machine.boots;
        machine.standStill();
        return this.later(forMs, () => machine.goOn(epoch));
      }
      case 'cutFromZk': return this.cut([[ZK, id]], forMs);
      case 'cutToZk': return this.cut([[id, ZK]], forMs);
      case 'cutZk': return this.cut([[id, ZK], [ZK, id]], forMs);
      case 'cutPeers': return this.cut([[id, other.id], [other.id, id]], forMs);
      case 'cutPeerOneWay': return this.cut([[id, other.id]], forMs);
      case 'isolate': return this.cut([ZK, ...world.living.filter((peer) => peer !== machine).map((peer) => peer.id)].flatMap((end): [string, string][] => [[id, end], [end, id]]), forMs);
      case 'zkDown':
        ensemble.down();
        return this.later(forMs, () => ensemble.comeBack());
      case 'zkServerDies':
        return ensemble.dropServerOf(id);
      case 'zkStale':
        ensemble.staleMs.set(id, 3_000);
        return this.later(forMs, () => ensemble.staleMs.delete(id));
      case 'zkSlow':
        ensemble.slowMs = 50 + (choice % 900);
        return this.later(forMs, () => (ensemble.slowMs = 0));
      case 'diskFull':
        postgres.disk.full = true;
        return this.later(forMs, () => (postgres.disk.full = false));
      case 'diskSlow':
        postgres.disk.slowMs = 20 + (choice % 400);
        return this.later(forMs, () => (postgres.disk.slowMs = 0));
      case 'diskLost':
        if (!this.mayLoseDisk(machine)) return;
        machine.loseDisk();
        return this.later(forMs, () => machine.boot());
      case 'clockJump':
        return machine.jumpWallClock(((choice % 7) - 3) * 3_600_000);
      case 'atCall': {
        const strike = STRIKES[choice % STRIKES.length]!;
        this.ambushes.push({countdown: 1 + (choice >> 4) % 12, when: choice & 8 ? 'before' : 'after', target: fault.target, strike: (hit) => this.apply({...fault, kind: strike, choice: choice >> 3}, hit)});
        return;
      }
      case 'addPeer':
        if (world.machines.size < 6) world.addMachine(`p${world.machines.size + 1}`).boot();
        return;
      case 'removePeer':
        if (!this.mayLoseDisk(machine) || world.living.length < 4 || this.foundsAlone(machine)) return;
        machine.powerOff();
        machine.removed = true;
        machine.diskLostAt = world.timeline.nowMs;
        return;
      default:
        return operator.order(fault.kind, machine, forMs);
    }
  }

  private onCall(machine: Machine, call: string, when: 'before' | 'after'): void {
    const {world} = this;
    if (when === 'before') world.calls.set(call, (world.calls.get(call) ?? 0) + 1);
    if (this.quiet || call === 'facts' || call === 'view') return;
    for (const [i, ambush] of this.ambushes.entries()) {
      if (ambush.when !== when || !this.fits(machine, ambush.target)) continue;
      ambush.countdown -= 1;
      if (ambush.countdown > 0) continue;
      this.ambushes.splice(i, 1);
      world.trace('faults', () => `${when} ${machine.id}'s ${call}:`);
      return ambush.strike(machine);
    }
  }

  private fits(machine: Machine, target: Target): boolean {
    const {state} = this.world.ensemble;
    return target === 'any' || state === null || roleOf(state, machine.id) === target;
  }

  private find(target: Target, choice: number): Machine {
    const all = this.world.living;
    const fitting = all.filter((machine) => this.fits(machine, target));
    const list = fitting.length ? fitting : all;
    return list[choice % list.length]!;
  }

  /** Two failures at once are promised to nobody: a disk goes only where another one has everything, and its peer may become primary. */
  private mayLoseDisk(machine: Machine): boolean {
    const {ensemble, checker, machines} = this.world;
    const {state} = ensemble;
    // It may change who has what on its way.
    if (ensemble.hasUnderWay(machine.id)) return false;
    if (!state) return true;
    const role = roleOf(state, machine.id);
    // The first primary, whose word that the database is made may be on its way, has the only one.
    if (state.systemId === null) return role !== 'primary' || machine.postgres.disk.ran !== 'primary';
    if (role !== 'primary' && role !== 'sync') return true;
    const heir = role === 'primary' ? state.sync : state.primary;
    if (!heir) return false;
    const {removed, postgres: {disk}} = machines.get(heir.id)!;
    const complete = !removed && disk.data === 'present' && checker.acked.every((rec) => holds(disk, rec));
    return complete && (role === 'sync' || (disk.log[disk.flushed - 1]?.lsn ?? 0) >= Number(BigInt(`0x${state.initWal.split('/').map((half) => half.padStart(8, '0')).join('')}`)));
  }

  /** Declared alone and without a database yet: it may lose its disk and begin again, but nobody else may take its place, so one that never comes back is for an operator. */
  private foundsAlone(machine: Machine): boolean {
    const {state} = this.world.ensemble;
    return state?.systemId === null && state.sync === null && state.primary.id === machine.id;
  }

  private cut(directions: readonly [string, string][], forMs: number): void {
    const {network} = this.world;
    for (const [from, to] of directions) network.cut(from, to);
    this.later(forMs, () => {
      for (const [from, to] of directions) network.heal(from, to);
    });
  }

  /** Undone then, or when all faults end. */
  private later(ms: number, undo: () => void): void {
    const once = (): void => {
      if (this.undo.delete(once)) undo();
    };
    this.undo.add(once);
    this.world.timeline.after(ms, once);
  }
}
