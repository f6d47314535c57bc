/**
 * One machine's Postgres: its data directory, the run of the moment, and the watchdog. What a sitter sees of it is server.ts.
 *
 * Verbs take time and call `done` with an error or nothing, unless the machine goes meanwhile. `Owner` is the sitter that asked: where it dies, copies and
 * rewinds die with it and leave 'broken'; what Postgres had been told already goes on.
 */
import {CetusError} from '../../../lib/base/errors';
import type {Acknowledger} from '../../../lib/manatee/server';
import type {Peer} from '../../../lib/manatee/state';
import {Life} from './life';
import {Run} from './run';
import {currentTli, type Disk, emptyDisk, nextRecord} from './wal';
import type {World} from './world';

export type Done = (error?: CetusError) => void;

const failed = (message: string): CetusError => new CetusError('unavailable', message);
const conflict = (message: string): CetusError => new CetusError('conflict', message);
/** SQL to a server that does not answer is given up after so long. */
const SQL_TIMEOUT_MS = 3_000;

export class SimPostgres {
  disk: Disk = emptyDisk();
  run: Run | null = null;
  /** Until when, on the machine's clock, the server may live without hearing from its sitter. */
  permitMs = Infinity;
  private watchdogDueMs = Infinity;
  private watchdog: Life;
  private readonly listeners = new Set<() => void>();

  constructor(readonly world: World, readonly id: string, readonly clockMs: () => number) {
    this.watchdog = new Life(world.timeline, false);
  }

  get process(): 'stopped' | 'starting' | 'running' {
    return this.run?.phase ?? 'stopped';
  }

  // ---- verbs ----

  initialise(owner: Life, done: Done): void {
    if (this.disk.data !== 'none') return done(conflict('there are data already'));
    owner.after(this.world.random.between(150, 600), () => {
      if (this.disk.full) return done(failed('initdb: no space left on device'));
      const systemId = this.world.systemId();
      const first = nextRecord(null, 1, 'init', this.world.timeline.nowMs);
      this.disk = {...emptyDisk(), full: this.disk.full, slowMs: this.disk.slowMs, data: 'present', systemId, log: [first], flushed: 1, branches: [{tli: 1, from: 0}], newestTli: 1};
      done();
    });
  }

  start(as: 'primary' | 'standby', upstream: Peer | null, done: Done): void {
    if (this.run) return done(this.run.as === as && this.run.phase === 'running' ? undefined : conflict('it is running already'));
    if (this.disk.data !== 'present') return done(failed(`its data are ${this.disk.data}`));
    const run = new Run(this, as, as === 'standby' ? upstream : null);
    this.run = run;
    this.world.trace(this.id, () => `Postgres starts as ${as}${upstream ? ` of ${upstream.id}` : ''}`);
    const over = this.onEnd(run, () => done(failed('it ended while it started')));
    run.life.after(this.world.random.between(80, 400), () => {
      if (this.disk.full) return this.crash(run, 'could not write lock file: no space left on device');
      run.phase = 'running';
      this.disk.ran = as;
      // What the last run left unflushed in the page cache is flushed by recovery.
      this.disk.flushed = this.disk.log.length;
      if (as === 'primary') {
        run.append('checkpoint');
        this.disk.keptFrom = Math.max(this.disk.keptFrom, this.disk.log.length - 400);
      }
      run.life.after(this.world.random.between(1, 200), () => {
        run.recovered = true;
        run.seekUpstream();
      });
      if (over()) done();
    });
  }

  stop(how: 'fast' | 'immediate', done: Done): void {
    const run = this.run;
    if (!run) return done();
    this.onEnd(run, () => done());
    const end = (): void => this.end(run, 'process');
    if (how === 'immediate') {
      this.world.timeline.after(this.world.random.between(2, 30), end);
      return;
    }
    // A server that stands still hears nothing: pg_ctl waits, and then kills.
    this.world.timeline.after(SQL_TIMEOUT_MS, end);
    run.life.deliver(() => {
      run.stopping = true;
      run.gate = 'closed';
      run.disconnectClients();
      if (!run.inRecovery && run.phase === 'running') run.append('checkpoint');
      const last = run.disk.log.at(-1)?.lsn ?? 0;
      const giveUpMs = this.world.timeline.nowMs + 1_000;
      const settled = (): void => {
        const behind = [...run.senders.values()].some((stream) => stream.state === 'streaming' && stream.flushedLsn < last);
        if (run.disk.flushed < run.disk.log.length || (behind && this.world.timeline.nowMs < giveUpMs)) return run.life.after(5, settled);
        end();
      };
      run.life.after(this.world.random.between(10, 60), settled);
    });
  }

  follow(upstream: Peer | null, done: Done): void {
    this.sql(done, (run, settle) => {
      if (!run.inRecovery) return settle(conflict('it is not a standby'));
      run.follow(upstream, () => settle());
    });
  }

  promote(done: Done): void {
    this.sql(done, (run, settle) => {
      if (!run.inRecovery) return settle();
      if (run.receiver) return settle(conflict(`it is still receiving from ${run.upstream?.id}`));
      run.promote(() => settle());
    });
  }

  acknowledge(by: Acknowledger, done: Done): void {
    this.sql(done, (run, settle) => {
      const possible = run.possible();
      if (by.kind !== 'nobody' && possible.kind !== 'nobody' && !(possible.kind === by.kind && (possible.kind !== 'peer' || possible.id === (by as {id: string}).id)))
        return settle(conflict('from one acknowledger to another by way of nobody only'));
      run.configure(by, () => settle());
    });
  }

  openGate(generation: number, done: Done): void {
    this.sql(done, (run, settle) => {
      if (run.inRecovery) return settle(conflict('it is in recovery'));
      run.life.after(this.world.random.latency(3), () => {
        if (run.stopping) return settle(failed('it is shutting down'));
        this.disk.generation = generation;
        run.gate = 'open';
        this.world.checker.gateOpened(this, run);
        settle();
      });
    });
  }

  closeGate(done: Done): void {
    this.sql(done, (run, settle) => run.life.after(this.world.random.latency(3), () => {
      run.gate = 'closed';
      run.disconnectClients();
      settle();
    }));
  }

  restore(owner: Life, from: Peer, how: 'rewind' | 'copy', generation: number, done: Done): void {
    const {world} = this;
    const source = world.postgres(from.id);
    if (this.run) return done(conflict('the server must be stopped'));
    if (how === 'rewind' && this.disk.data !== 'present') return done(failed(`nothing to rewind: its data are ${this.disk.data}`));
    const reachable = (): boolean => source?.run?.phase === 'running' && !source.run.inRecovery && !source.run.life.stopped && world.network.connected(this.id, from.id);
    owner.after(world.random.between(5, 50), () => {
      if (!reachable()) return done(failed(`${from.id} cannot be reached, or is in recovery`));
      const run = source!.run!;
      // pg_rewind compares timelines' numbers before anything else.
      if (how === 'rewind' && currentTli(this.disk) === currentTli(run.disk)) {
        this.disk.restoredIn = generation;
        this.disk.ran = 'standby';
        this.disk.diverged = false;
        return done();
      }
      this.disk.data = 'broken';
      const takes = how === 'copy' ? world.random.between(500, 2_500) : world.random.between(150, 900);
      owner.after(takes, () => {
        if (this.disk.full || !reachable() || source!.run !== run || (how === 'rewind' && world.random.chance(0.05))) return done(failed(`the ${how} broke off`));
        const {log, flushed, branches, newestTli, keptFrom, systemId} = run.disk;
        const kept = log.slice(0, flushed);
        this.disk = {...this.disk, data: 'present', systemId, log: kept, flushed, branches: branches.map((branch) => ({...branch})), newestTli, keptFrom, ran: 'standby', restoredIn: generation, generation: 0, diverged: false};
        world.trace(this.id, () => `${how} of ${from.id} done, ${flushed} records`);
        done();
      });
    });
  }

  // ---- ends ----

  /** PANIC, SIGKILL: what was written stays in the page cache, so it may well survive; what was only in memory is gone. */
  crash(run: Run, why: string): void {
    if (this.run !== run) return;
    this.world.trace(this.id, () => `Postgres crashes: ${why}`);
    this.end(run, 'process');
  }

  /** `machine`: nothing that was not flushed survives, and nobody is told that the connections are gone. */
  end(run: Run, how: 'process' | 'machine'): void {
    if (this.run !== run) return;
    this.run = null;
    run.life.die();
    run.disconnectClients();
    const {disk} = this;
    if (disk === run.disk) {
      const lost = how === 'machine' ? 0 : this.world.random.below(disk.log.length - disk.flushed + 1);
      disk.log.length = disk.flushed + lost;
      while (disk.branches.length > 1 && disk.branches.at(-1)!.tli > (disk.log.at(-1)?.tli ?? 0)) disk.branches.pop();
    }
    const streams = [...run.senders.values(), ...(run.receiver ? [run.receiver] : [])];
    for (const stream of streams) {
      const theirs = stream.upstream === run ? stream.standby : stream.upstream;
      if (how === 'process')
        this.world.network.send(this.id, theirs.server.id, () => theirs.life.deliver(() => (stream.upstream === run ? stream.leave() : stream.dropAtUpstream())));
    }
    for (const listener of [...this.listeners]) listener();
    for (const tell of this.endListeners.get(run) ?? []) tell();
    this.endListeners.delete(run);
  }

  onChange(listener: () => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  // ---- the watchdog ----

  permitUntil(momentMs: number): void {
    this.permitMs = momentMs;
    if (momentMs < this.watchdogDueMs) this.arm();
  }

  /** The sitter is gone. */
  orphaned(): void {
    if (this.permitMs === Infinity) this.watchdog.after(this.world.random.between(1, 20), () => this.permitMs === Infinity && this.run && this.crash(this.run, 'its watchdog: the sitter is gone'));
  }

  /** The machine stands still, or goes on. */
  stopWatchdog(): void {
    this.watchdog.stop();
  }
  proceedWatchdog(): void {
    this.watchdog.proceed();
  }
  /** The machine goes down; with the next boot there is a new one. */
  powerOff(): void {
    this.watchdog.die();
    this.watchdog = new Life(this.world.timeline, false);
    this.permitMs = Infinity;
    this.watchdogDueMs = Infinity;
    if (this.run) this.end(this.run, 'machine');
  }

  private arm(): void {
    const due = this.permitMs;
    this.watchdogDueMs = due;
    const watchdog = this.watchdog;
    watchdog.after(due - this.clockMs() + this.world.random.between(0, 5), () => {
      if (this.watchdogDueMs !== due || this.watchdog !== watchdog) return;
      this.watchdogDueMs = Infinity;
      if (this.permitMs > this.clockMs()) {
        if (this.permitMs !== Infinity) this.arm();
        return;
      }
      if (this.run) this.crash(this.run, 'its watchdog: the permit has run out');
      this.permitMs = Infinity;
    });
  }

  // ---- insides ----

  private readonly endListeners = new Map<Run, (() => void)[]>();

  /** The answer says whether it was still wanted, and ends it. */
  private onEnd(run: Run, tell: () => void): () => boolean {
    let wanted = true;
    const list = this.endListeners.get(run) ?? [];
    this.endListeners.set(run, list);
    list.push(() => {
      if (wanted) tell();
      wanted = false;
    });
    return () => {
      const was = wanted;
      wanted = false;
      return was;
    };
  }

  private sql(done: Done, run: (server: Run, settle: Done) => void): void {
    const server = this.run;
    if (!server || server.phase !== 'running') return done(failed('the server is not running'));
    const over = this.onEnd(server, () => done(failed('the server ended')));
    const settle: Done = (error) => {
      if (over()) done(error);
    };
    this.world.timeline.after(SQL_TIMEOUT_MS, () => settle(failed('the server does not answer')));
    server.life.deliver(() => run(server, settle));
  }
}
