/** What one run of a sitter sees of its machine's Postgres. Answers come through the sitter's life: late where it stands still, never where it died. */
import type {CetusError} from '../../../lib/base/errors';
import type {Acknowledger, PostgresServer, ServerFacts} from '../../../lib/manatee/server';
import type {Peer} from '../../../lib/manatee/state';
import type {Life} from './life';
import type {Done, SimPostgres} from './postgres';
import {lastFlushed, lsnText} from './wal';

export class SimServer implements PostgresServer {
  private downSinceMs: number | null = null;
  private meant: boolean;
  private readonly unsubscribe: () => void;
  private readonly listeners = new Set<() => void>();

  constructor(private readonly postgres: SimPostgres, private readonly life: Life) {
    this.meant = postgres.run !== null;
    life.onDeath(() => {
      this.unsubscribe();
      postgres.orphaned();
    });
    this.unsubscribe = postgres.onChange(() => {
      if (this.meant) this.downSinceMs ??= postgres.clockMs();
      life.after(postgres.world.random.latency(1), () => {
        for (const listener of [...this.listeners]) listener();
      });
    });
  }

  /** Always answers: a server that stands still is 'hung'. */
  facts(): Promise<ServerFacts> {
    const {postgres, life} = this;
    return new Promise((resolve) => {
      life.after(postgres.world.random.latency(0.3), () => {
        if (!postgres.run?.life.stopped) return resolve(this.seen(false));
        life.after(700, () => resolve(this.seen(Boolean(postgres.run?.life.stopped))));
      });
    });
  }

  private seen(hung: boolean): ServerFacts {
    const {postgres} = this;
    if (postgres.process === 'running' && !hung) this.downSinceMs = null;
    if (hung) this.downSinceMs ??= postgres.clockMs();
    return this.now(hung);
  }

  initialise(): Promise<void> {
    return this.verb((done) => this.postgres.initialise(this.life, done));
  }
  start(as: 'primary' | 'standby', upstream: Peer | null): Promise<void> {
    return this.verb((done) => {
      this.meant = true;
      this.postgres.start(as, upstream, (error) => {
        if (error) this.downSinceMs ??= this.postgres.clockMs();
        else this.downSinceMs = null;
        done(error);
      });
    });
  }
  stop(how: 'fast' | 'immediate'): Promise<void> {
    return this.verb((done) => {
      this.meant = false;
      this.downSinceMs = null;
      this.postgres.stop(how, done);
    });
  }
  follow(upstream: Peer | null): Promise<void> {
    return this.verb((done) => this.postgres.follow(upstream, done));
  }
  promote(_generation: number): Promise<void> {
    return this.verb((done) => this.postgres.promote(done));
  }
  acknowledge(by: Acknowledger): Promise<void> {
    return this.verb((done) => this.postgres.acknowledge(by, done));
  }
  openGate(generation: number): Promise<void> {
    return this.verb((done) => this.postgres.openGate(generation, done));
  }
  closeGate(): Promise<void> {
    return this.verb((done) => this.postgres.closeGate(done));
  }
  restore(from: Peer, how: 'rewind' | 'copy', generation: number): Promise<void> {
    return this.verb((done) => this.postgres.restore(this.life, from, how, generation, done));
  }
  permitUntil(moment: number): void {
    this.postgres.permitUntil(moment);
  }
  onChange(listener: () => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }
  async close(): Promise<void> {
    this.unsubscribe();
  }

  /** Everything as it is at this moment. */
  private now(hung: boolean): ServerFacts {
    const {disk, run, process} = this.postgres;
    const running = run?.phase === 'running' && !hung ? run : null;
    const known = running !== null && (!running.inRecovery || running.recovered);
    return {
      data: disk.data, systemId: disk.data === 'present' ? disk.systemId : null, process: hung ? 'hung' : process, downSinceMs: running ? null : this.downSinceMs, ran: disk.ran,
      inRecovery: running ? running.inRecovery : null, wal: known ? lsnText(lastFlushed(disk)) : null,
      upstream: run?.upstream?.id ?? null, receiving: Boolean(run?.receiver), diverged: disk.diverged, acknowledger: run ? run.possible() : {kind: 'nobody'},
      standbys: running && !running.inRecovery ? [...running.senders.values()].map((stream) => ({id: stream.standby.server.id, state: stream.state, flushed: stream.flushedText()})) : [],
      gate: run?.gate ?? 'closed', generation: disk.generation, restoredIn: disk.restoredIn,
    };
  }

  private verb(run: (done: Done) => void): Promise<void> {
    const {life, postgres} = this;
    const {random} = postgres.world;
    return new Promise((resolve, reject) => {
      life.after(random.latency(0.2), () => run((error?: CetusError) => life.after(random.latency(0.2), () => (error ? reject(error) : resolve()))));
    });
  }
}
