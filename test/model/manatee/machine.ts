/** One peer's machine: its disk and Postgres, its sitter, their clock. What is done to it from outside is done here. */
import {Sitter} from '../../../lib/manatee/sitter';
import type {Coordination, Monotonic} from '../../../lib/manatee/coordination';
import type {PostgresServer} from '../../../lib/manatee/server';
import type {Peer} from '../../../lib/manatee/state';
import {SimCoordination} from './coordination';
import {Life} from './life';
import {SimPostgres} from './postgres';
import {SimServer} from './server';
import {emptyDisk} from './wal';
import type {World} from './world';

/** What may happen to a sitter at one of its calls; answers whether it is still there. */
export type CallHook = (machine: Machine, call: string, when: 'before' | 'after') => void;

export class Machine {
  readonly peer: Peer;
  readonly postgres: SimPostgres;
  up = false;
  removed = false;
  life: Life | null = null;
  /** When its disk was last lost. */
  diskLostAt = -Infinity;
  /** Until when an open gate of an older generation is explained by its having stood still. */
  excusedUntilMs = -Infinity;
  private bootedAtMs = 0;
  private standing = 0;
  private wallOffsetMs = 0;
  private epoch = 0;

  constructor(readonly world: World, readonly id: string) {
    this.peer = {id, host: id, port: 5432, statusUrl: `http://${id}`};
    this.postgres = new SimPostgres(world, id, () => this.clockMs());
  }

  /** Monotonic; starts anew with each boot. */
  clockMs(): number {
    return this.world.timeline.nowMs - this.bootedAtMs;
  }
  jumpWallClock(ms: number): void {
    this.wallOffsetMs += ms;
  }
  get standsStill(): boolean {
    return this.standing > 0;
  }

  boot(): void {
    if (this.up || this.removed) return;
    this.up = true;
    this.bootedAtMs = this.world.timeline.nowMs;
    this.world.trace(this.id, () => 'boots');
    this.startSitter();
  }

  powerOff(): void {
    if (!this.up) return;
    this.world.trace(this.id, () => 'the machine loses power');
    this.crashSitter();
    this.postgres.powerOff();
    this.up = false;
    this.standing = 0;
    this.epoch += 1;
  }

  loseDisk(): void {
    this.powerOff();
    this.postgres.disk = emptyDisk();
    this.diskLostAt = this.world.timeline.nowMs;
    this.world.trace(this.id, () => 'the disk is lost');
  }

  /** kill -9 of the sitter alone. */
  crashSitter(): void {
    if (!this.life) return;
    this.world.trace(this.id, () => 'the sitter is killed');
    const {life} = this;
    this.life = null;
    life.die();
  }

  startSitter(): void {
    if (!this.up || this.life) return;
    const {world, id} = this;
    const life = (this.life = new Life(world.timeline));
    for (let i = 0; i < this.standing; i += 1) life.stop();
    const {ensemble, network, random} = world;
    const {sessionTimeoutMs, restartGraceMs} = world.options;
    const coordination = this.hooked<Coordination>(life, world.mutant.coordination(new SimCoordination({ensemble, network, random, life, endpoint: id, sessionTimeoutMs, nowMs: () => this.clockMs()}), this),
      ['view', 'declare', 'announce', 'withdraw', 'orderRebuild'], ['history', 'leaseUntilMs', 'onChange', 'close']);
    const server = this.hooked<PostgresServer>(life, world.mutant.server(new SimServer(this.postgres, life), this),
      ['facts', 'initialise', 'start', 'stop', 'follow', 'promote', 'acknowledge', 'openGate', 'closeGate', 'restore'], ['permitUntil', 'onChange', 'close']);
    const sitter = new Sitter({
      self: this.peer, policy: {oneNodeWriteMode: world.options.oneNode && id === 'p1', restartGraceMs}, coordination, server, sessionTimeoutMs, clock: this.monotonic(life),
      wallClock: () => new Date(1_700_000_000_000 + world.timeline.nowMs + this.wallOffsetMs).toISOString(), log: world.log(id, life),
    });
    life.deliver(() => sitter.start());
  }

  /** SIGSTOP of everything, the watchdog too: it goes on with what it believed. */
  standStill(): void {
    if (!this.up) return;
    this.world.trace(this.id, () => 'the machine stands still');
    this.standing += 1;
    this.life?.stop();
    this.postgres.run?.life.stop();
    this.postgres.stopWatchdog();
  }
  goOn(epoch: number): void {
    if (!this.up || epoch !== this.epoch || this.standing === 0) return;
    this.world.trace(this.id, () => 'the machine goes on');
    this.standing -= 1;
    this.excusedUntilMs = this.world.timeline.nowMs + 200;
    this.postgres.proceedWatchdog();
    this.postgres.run?.life.proceed();
    this.life?.proceed();
    this.world.timeline.after(201, () => this.world.checker.fence());
  }
  get boots(): number {
    return this.epoch;
  }

  private monotonic(life: Life): Monotonic {
    return {
      nowMs: () => this.clockMs(),
      sleep: (ms, signal) => new Promise((resolve) => {
        if (signal?.aborted) return resolve();
        const wake = (): void => {
          timer.cancelled = true;
          resolve();
        };
        const timer = this.world.timeline.after(ms, () => life.deliver(() => {
          signal?.removeEventListener('abort', wake);
          resolve();
        }));
        signal?.addEventListener('abort', wake, {once: true});
      }),
    };
  }

  /** Lets a schedule strike at any call, before it takes effect or before its answer is seen. */
  private hooked<T extends object>(life: Life, target: T, calls: readonly (keyof T & string)[], others: readonly (keyof T & string)[]): T {
    const hooked: Record<string, unknown> = {};
    for (const name of others) hooked[name] = (target[name] as (...of: unknown[]) => unknown).bind(target);
    for (const name of calls) {
      hooked[name] = (...args: unknown[]) => new Promise((resolve, reject) => {
        this.world.onCall(this, name, 'before');
        const settled = (tell: () => void): void => {
          this.world.onCall(this, name, 'after');
          life.deliver(tell);
        };
        life.deliver(() => {
          ((target[name] as (...of: unknown[]) => Promise<unknown>)(...args)).then((value) => settled(() => resolve(value)), (err: unknown) => settled(() => reject(err as Error)));
        });
      });
    }
    return hooked as T;
  }
}
