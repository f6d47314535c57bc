/**
 * Looks at every declaration, every acknowledgement and every opened gate as it happens, with the knowledge of all disks that nobody inside has. The first
 * violation ends the schedule.
 */
import {lsnNumber} from '../../../lib/manatee/lsn';
import {type ClusterState, illegalStep} from '../../../lib/manatee/state';
import type {SimPostgres} from './postgres';
import type {Commit, Run} from './run';
import {holds, lastFlushed, type Rec} from './wal';
import type {World} from './world';

export interface Violation { kind: string; what: string; atMs: number }

export class Checker {
  violation: Violation | null = null;
  readonly acked: Rec[] = [];
  readonly declarations = new Map<string, number>();
  takeovers = 0;
  gates = 0;

  constructor(private readonly world: World) {}

  fail(kind: string, what: string): void {
    if (this.violation) return;
    this.violation = {kind, what, atMs: this.world.timeline.nowMs};
    this.world.trace('CHECKER', () => `${kind}: ${what}`);
    this.world.timeline.halt();
  }

  declared(before: ClusterState | null, after: ClusterState, by: string, reason: string): void {
    const {world} = this;
    world.trace('zk', () => `generation ${after.generation} by ${by}: ${reason} -- primary ${after.primary.id}, sync ${after.sync?.id ?? 'none'}, async [${after.async.map((peer) => peer.id).join(' ')}], deposed [${after.deposed.map((peer) => peer.id).join(' ')}], initWal ${after.initWal}${after.freeze ? ', frozen' : ''}${after.oneNodeWriteMode ? ', alone' : ''}${after.promote ? `, promote ${after.promote.peer}` : ''}`);
    const wrong = before ? illegalStep(before, after) : undefined;
    if (wrong) return this.fail('step', wrong);
    if (!before || after.generation === before.generation) return;
    const primary = world.postgres(after.primary.id)!;
    const initWal = Number(lsnNumber(after.initWal));
    if (after.primary.id !== before.primary.id) {
      this.takeovers += 1;
      if (before.systemId !== null) {
        if (primary.run?.receiver) this.fail('I5', `${after.primary.id} takes over while it receives from ${primary.run.upstream?.id ?? 'nobody'}`);
        if ((lastFlushed(primary.disk)?.lsn ?? 0) < initWal) this.fail('I5', `${after.primary.id} takes over with ${after.initWal}, which it does not have`);
      }
    } else if (primary.run && primary.run.possible().kind !== 'nobody')
      this.fail('rule', `${after.primary.id} declares generation ${after.generation} while ${JSON.stringify(primary.run.possible())} acknowledges`);
    this.hasAll(primary, `declares generation ${after.generation}`);
    const beyond = this.acked.at(-1);
    if (beyond && beyond.lsn > initWal) this.fail('initWal', `write ${beyond.write} was acknowledged at ${beyond.lsn.toString(16)}, beyond the initWal ${after.initWal} of generation ${after.generation}`);
  }

  acknowledged(server: SimPostgres, run: Run, {rec}: Commit): void {
    const {world} = this;
    const state = world.ensemble.state!;
    this.acked.push(rec);
    if (run.gate !== 'open') this.fail('gate', `${server.id} acknowledges write ${rec.write} while its gate is closed`);
    const current = world.machines.get(state.primary.id)!;
    if (current.id !== server.id && !holds(current.postgres.disk, rec))
      return this.fail('lost', `${server.id} acknowledges write ${rec.write}, which ${current.id}, primary of generation ${state.generation}, does not have`);
    const mine = this.lastStateOf(server.id);
    const sync = mine?.sync && world.machines.get(mine.sync.id);
    if (sync && sync.diskLostAt < rec.atMs && !holds(sync.postgres.disk, rec))
      this.fail('unsafe', `${server.id} acknowledges write ${rec.write}, which its sync ${sync.id} has not flushed`);
  }

  gateOpened(server: SimPostgres, run: Run): void {
    const {world} = this;
    this.gates += 1;
    const {generation} = run.disk;
    world.trace(server.id, () => `opens its gate for generation ${generation}`);
    const state = world.ensemble.history.findLast((entry) => entry.state.generation === generation)?.state;
    if (!state || state.primary.id !== server.id) return this.fail('gate', `${server.id} opens its gate in generation ${generation}, in which it is not primary`);
    const rule = run.possible();
    const sync = state.sync && world.machines.get(state.sync.id);
    if (rule.kind === 'alone' ? sync !== null : rule.kind === 'peer' && rule.id !== sync?.id) this.fail('I4', `${server.id} opens its gate in generation ${generation} by the rule ${JSON.stringify(rule)}`);
    if (sync && sync.diskLostAt === -Infinity) {
      const initWal = Number(lsnNumber(state.initWal));
      const needed = run.disk.log.findLast((rec) => rec.lsn <= initWal);
      if (needed && !holds(sync.postgres.disk, needed)) this.fail('I4', `${server.id} opens its gate in generation ${generation} before its sync ${sync.id} has ${state.initWal}`);
    }
    if (state.generation === world.ensemble.state!.generation) this.hasAll(server, `opens its gate in generation ${generation}`);
    this.fence();
  }

  /** Readers: two servers that both answer are one too many. */
  fence(): void {
    const {world} = this;
    const open = [...world.machines.values()].filter(({postgres: {run}, standsStill}) => run?.gate === 'open' && !run.life.stopped && !standsStill);
    if (open.length < 2) return;
    const current = world.ensemble.state!;
    const stale = open.filter((machine) => machine.id !== current.primary.id || machine.postgres.disk.generation !== current.generation);
    if (open.length - stale.filter((machine) => machine.excusedUntilMs >= world.timeline.nowMs).length > 1)
      this.fail('fence', `${open.map((machine) => `${machine.id} (generation ${machine.postgres.disk.generation})`).join(' and ')} both let clients in`);
  }

  /** At the very end: everything that was acknowledged is there, once. */
  atEnd(): void {
    const state = this.world.ensemble.state!;
    const {disk} = this.world.postgres(state.primary.id)!;
    this.hasAll(this.world.postgres(state.primary.id)!, 'is the last primary');
    const seen = new Set<number>();
    for (const rec of disk.log) {
      if (rec.kind !== 'commit') continue;
      if (seen.has(rec.write)) return this.fail('doubled', `write ${rec.write} is there twice`);
      seen.add(rec.write);
    }
  }

  private hasAll(server: SimPostgres, doing: string): void {
    const missing = this.acked.find((rec) => !holds(server.disk, rec));
    if (missing) this.fail('lost', `${server.id} ${doing} without write ${missing.write}, which was acknowledged (at ${missing.lsn.toString(16)} of timeline ${missing.tli})`);
  }

  private lastStateOf(id: string): ClusterState | undefined {
    return this.world.ensemble.history.findLast((entry) => entry.state.primary.id === id)?.state;
  }
}
