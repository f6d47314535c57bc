/**
 * One run of a simulated Postgres: from its start to its end, crash or shutdown. Commits wait as Postgres' do: flushed here first, then until the walsender
 * of the standby that *it* takes for the acknowledger hears that the place is flushed there; where the checkpointer takes nobody to be asked
 * for (`alone`), not at all. Each of these processes reads a changed rule when it sees the reload, not before.
 */
import type {Acknowledger} from '../../../lib/manatee/server';
import type {Peer} from '../../../lib/manatee/state';
import {Life} from './life';
import type {SimPostgres} from './postgres';
import {Stream} from './sender';
import {currentTli, type Disk, joins, nextRecord, type Rec} from './wal';

export interface Commit { rec: Rec; generation: number; answer: () => void }

const NOBODY: Acknowledger = {kind: 'nobody'};

export class Run {
  readonly life: Life;
  readonly disk: Disk;
  phase: 'starting' | 'running' = 'starting';
  inRecovery: boolean;
  /** A standby that has gone through all that lay on its disk; until then nobody knows how far it is. */
  recovered = false;
  configured: Acknowledger = NOBODY;
  checkpointerSees: Acknowledger = NOBODY;
  gate: 'closed' | 'open' = 'closed';
  stopping = false;
  readonly senders = new Map<string, Stream>();
  receiver: Stream | null = null;
  private waiting: Commit[] = [];
  private releasedLsn = 0;
  private flushing = false;
  private attempt = 0;

  constructor(readonly server: SimPostgres, readonly as: 'primary' | 'standby', public upstream: Peer | null) {
    this.disk = server.disk;
    this.life = new Life(server.world.timeline, false);
    this.inRecovery = as === 'standby';
  }

  // ---- the log ----

  append(kind: Rec['kind'], write = -1): Rec {
    const {disk, server} = this;
    const rec = nextRecord(disk.log.at(-1) ?? null, currentTli(disk), kind, server.world.timeline.nowMs, write);
    disk.log.push(rec);
    this.flush();
    return rec;
  }

  flush(): void {
    if (this.flushing || this.disk.flushed >= this.disk.log.length) return;
    this.flushing = true;
    const until = this.disk.log.length;
    this.life.after(this.server.world.random.latency(0.5) + this.disk.slowMs, () => {
      this.flushing = false;
      if (this.disk.full) return this.server.crash(this, 'PANIC: no space left on device');
      this.disk.flushed = Math.max(this.disk.flushed, until);
      this.flushedMore();
    });
  }

  private flushedMore(): void {
    for (const stream of this.senders.values()) stream.pump();
    this.receiver?.reply();
    this.release(this.releasedLsn);
    this.flush();
  }

  // ---- commits ----

  /** A client's write; `answer` is called when it is acknowledged. */
  commit(write: number, answer: () => void): Rec {
    const rec = this.append('commit', write);
    this.waiting.push({rec, generation: this.disk.generation, answer});
    return rec;
  }

  /** No client is connected any more: what they wait for happens, or not, and nobody tells them. */
  disconnectClients(): void {
    this.waiting = [];
  }

  private release(lsn: number): void {
    this.releasedLsn = Math.max(this.releasedLsn, lsn);
    const all = this.checkpointerSees.kind === 'alone';
    while (this.waiting.length) {
      const {rec} = this.waiting[0]!;
      if (rec.index >= this.disk.flushed || !(all || rec.lsn <= this.releasedLsn)) return;
      const commit = this.waiting.shift()!;
      this.server.world.checker.acknowledged(this.server, this, commit);
      commit.answer();
    }
  }

  /** A standby's answer has come, or its walsender has read the rule anew. */
  heardFrom(stream: Stream): void {
    if (stream.sees.kind === 'peer' && stream.sees.id === stream.standby.server.id && stream.state === 'streaming' && !this.inRecovery) this.release(stream.flushedLsn);
  }

  /** By whom a commit could be released now, by any process' rule. */
  possible(): Acknowledger {
    for (const rule of [this.configured, this.checkpointerSees, ...[...this.senders.values()].map((stream) => stream.sees)]) if (rule.kind !== 'nobody') return rule;
    return NOBODY;
  }

  /** Writes the rule; each process sees it in its own time. `done` when all have. */
  configure(rule: Acknowledger, done: () => void): void {
    const {random} = this.server.world;
    this.configured = rule;
    let unseen = 1;
    const seen = (): void => {
      unseen -= 1;
      if (unseen === 0) done();
    };
    this.life.after(random.latency(4), () => {
      if (this.configured === rule) this.checkpointerSees = rule;
      if (rule.kind === 'alone') this.release(0);
      seen();
    });
    for (const stream of this.senders.values()) {
      unseen += 1;
      this.life.after(random.latency(6), () => {
        if (this.configured === rule) stream.sees = rule;
        this.heardFrom(stream);
        seen();
      });
    }
  }

  senderGone(stream: Stream): void {
    if (this.senders.get(stream.standby.server.id) === stream) this.senders.delete(stream.standby.server.id);
  }

  // ---- receiving ----

  /** Tries to stream, again and again, from whoever is its upstream. */
  seekUpstream(): void {
    const attempt = ++this.attempt;
    const {upstream, server} = this;
    const {world} = server;
    if (!upstream || !this.inRecovery || this.receiver || this.life.dead || this.stopping) return;
    const again = (): void => this.life.after(world.random.between(100, 500), () => attempt === this.attempt && this.seekUpstream());
    this.life.after(1_500, () => attempt === this.attempt && !this.receiver && this.seekUpstream());
    world.network.send(server.id, upstream.id, () => {
      const other = world.postgres(upstream.id)?.run;
      const answer = (run: () => void): void => world.network.send(upstream.id, server.id, () => this.life.deliver(() => attempt === this.attempt && run()));
      if (!other || other.phase !== 'running' || (other.inRecovery && !other.recovered) || other.stopping) return answer(again);
      other.life.deliver(() => {
        if (other.disk.systemId !== this.disk.systemId) return answer(again);
        const joint = joins(other.disk, this.disk);
        if (joint.kind === 'from') {
          other.senders.get(server.id)?.dropAtUpstream();
          const stream = new Stream(other, this, joint.index);
          other.senders.set(server.id, stream);
          world.network.send(upstream.id, server.id, () => this.life.deliver(() => {
            if (attempt !== this.attempt) return stream.leave();
            this.receiver = stream;
            this.disk.diverged = false;
            this.disk.newestTli = Math.max(this.disk.newestTli, currentTli(other.disk));
            stream.reply();
          }));
          return stream.begin();
        }
        if (joint.kind === 'garbage') world.checker.fail('corruption', `${server.id} and ${upstream.id} have the same timelines and different logs: ${server.id} can never stream again`);
        answer(() => {
          const diverged = joint.kind === 'diverged';
          if (diverged && !this.disk.diverged) world.trace(server.id, () => `cannot stream from ${upstream.id}: ${joint.why}`);
          this.disk.diverged = diverged;
          again();
        });
      });
    });
  }

  receive(stream: Stream, records: Rec[]): void {
    const {disk, server} = this;
    if (this.receiver !== stream) return;
    for (const rec of records) {
      const last = disk.log.at(-1) ?? null;
      if (rec.before !== last) {
        server.world.checker.fail('corruption', `${server.id} takes record ${rec.lsn.toString(16)} of ${stream.upstream.server.id}, whose past is not its own`);
        return;
      }
      if (rec.tli > currentTli(disk)) disk.branches.push({tli: rec.tli, from: last!.lsn});
      disk.log.push(rec);
    }
    this.flush();
  }

  receiverGone(stream: Stream): void {
    if (this.receiver !== stream) return;
    this.receiver = null;
    // What was written and not flushed: the walreceiver flushes it as it goes.
    this.flush();
    this.life.after(this.server.world.random.between(20, 200), () => this.seekUpstream());
  }

  /** `done` when it has stopped receiving from the old one, and has flushed all that it received. */
  follow(upstream: Peer | null, done: () => void): void {
    if (upstream?.id !== this.upstream?.id) this.disk.diverged = false;
    this.upstream = upstream;
    this.attempt += 1;
    this.receiver?.leave();
    if (upstream) {
      this.seekUpstream();
      return done();
    }
    const settled = (): void => {
      if (this.disk.flushed >= this.disk.log.length) return done();
      this.flush();
      this.life.after(1, settled);
    };
    settled();
  }

  /** All that it has is replayed, then a new timeline begins. */
  promote(done: () => void): void {
    const {disk, server} = this;
    this.attempt += 1;
    this.upstream = null;
    this.receiver?.leave();
    this.life.after(server.world.random.latency(40), () => {
      const tli = server.world.nextTimeline(Math.max(disk.newestTli, currentTli(disk)));
      disk.branches.push({tli, from: disk.log.at(-1)?.lsn ?? 0});
      disk.newestTli = tli;
      this.append('fork');
      const settled = (): void => {
        if (disk.flushed < disk.log.length) return this.life.after(1, settled);
        // As pg_control says: in recovery until the fork is safe.
        disk.ran = 'primary';
        this.inRecovery = false;
        done();
      };
      settled();
    });
  }
}
