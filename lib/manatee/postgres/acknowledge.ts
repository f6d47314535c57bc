/**
 * Whose flush lets a commit be acknowledged. Three kinds of process have a say, each by the configuration that it has read itself:
 *
 * - The checkpointer keeps the shared flag "commits wait at all", which a backend looks at when it commits. It is false exactly while the names are empty
 *   ('alone'). That is why nobody is a name that nobody has: going from a peer to nobody and on to another never touches the flag. Leaving
 *   'alone' does, and there is no view that shows it; so a commit of ours is made to wait before we say that commits do.
 * - Each walsender decides whether what its standby has flushed releases waiting commits. One that still goes by the former rule is told from
 *   one that does not by `sync_priority`, which it writes itself when it reads its configuration, before it decides anything by the new one.
 *   (`sync_state` is useless: the backend that asks computes it from its own configuration.) One that does not get there is ended.
 * - The backend that waits only sleeps until it is woken.
 */
import {CetusError} from '../../base/errors';
import type {Monotonic} from '../coordination';
import type {Acknowledger} from '../server';
import {PROOF_MS, type Configuration} from './configuration';
import {connect, discard, type Session} from './session';

/** A walsender that is busy sending takes this long to look at its signals at most; one that takes longer is stuck. */
const WALSENDER_MS = 500;

const same = (a: Acknowledger, b: Acknowledger): boolean => a.kind === b.kind && (a.kind !== 'peer' || b.kind !== 'peer' || a.id === b.id);

const name = (by: Acknowledger): string => (by.kind === 'peer' ? by.id : by.kind === 'alone' ? 'the server alone' : 'nobody');

/** The first releases in which backends wait until the checkpointer has set the flag ("handling of synchronous_standby_names immediately after startup"). */
const FIXED_IN: Readonly<Record<number, number>> = {14: 18, 15: 13, 16: 9, 17: 5};

/** `version`: server_version_num. */
export function waitsFromTheStart(version: number): boolean {
  const major = Math.floor(version / 10_000);
  return major >= 18 || version % 10_000 >= (FIXED_IN[major] ?? Infinity);
}

export class Acknowledgement {
  /** The last change ended as it should: a repetition needs to do nothing. */
  private proven = true;
  /** The shared flag was seen to be set, in this run of the server, and has not been touched since. */
  private waits = false;

  constructor(private readonly configuration: Configuration, private readonly session: Session, private readonly clock: Monotonic, private readonly fence: (why: unknown) => Promise<void>) {}

  /** The server has ended: the next begins with nobody. */
  reset(): void {
    this.proven = true;
    this.waits = false;
  }

  async by(next: Acknowledger): Promise<void> {
    const former = this.configuration.wish.acknowledger;
    if (this.proven && same(former, next)) return;
    if (former.kind !== 'nobody' && next.kind !== 'nobody' && !same(former, next))
      throw new CetusError('conflict', `${name(former)} acknowledges: before ${name(next)} does, nobody must`);
    if (next.kind === 'peer') await this.certain();
    this.proven = false;
    try {
      if (next.kind === 'peer') await this.configuration.loosen({acknowledger: next});
      else await this.configuration.apply({acknowledger: next});
      if (next.kind === 'alone') this.waits = false;
      if (former.kind === 'peer' && next.kind === 'nobody') await this.withoutOldRule(former.id);
      if (former.kind === 'alone' && next.kind === 'nobody') await this.commitsWait();
    } catch (err) {
      if (next.kind !== 'nobody') throw err;
      // Whoever wants nobody is about to rely on it. A server that is down acknowledges nothing.
      await this.fence(err);
      throw new CetusError('unavailable', 'it could not be proven that nobody acknowledges; the server was ended', {cause: err});
    }
    this.configuration.settled({acknowledger: next});
    this.proven = true;
  }

  /** Returns when no walsender of this peer goes by a configuration in which it could release a commit. */
  private async withoutOldRule(id: string): Promise<void> {
    const began = this.clock.nowMs();
    for (;;) {
      // Its priority is shown as 0 too while it has flushed nothing, so that says nothing then.
      const old = await this.session.ask<{pid: number; undecided: boolean}>(
        `SELECT s.pid, s.flush_lsn IS NULL AS undecided FROM pg_stat_get_wal_senders() s JOIN pg_stat_get_activity(NULL) a USING (pid)
         WHERE lower(a.application_name) = lower($1) AND (s.sync_priority <> 0 OR s.flush_lsn IS NULL)`, [id], 'old-rule');
      if (old.length === 0) return;
      const waited = this.clock.nowMs() - began;
      if (waited > PROOF_MS) throw new CetusError('unavailable', `a walsender of ${id} does not end`);
      const stuck = old.filter(({undecided}) => undecided || waited > WALSENDER_MS);
      if (stuck.length) await this.session.ask(`SELECT pg_terminate_backend(pid) FROM unnest($1::int[]) pid`, [stuck.map(({pid}) => pid)]);
      await this.clock.sleep(2);
    }
  }

  /**
   * For whoever is about to let clients in, or a peer acknowledge: makes sure, once in a run of the server, that commits wait at all. The flag is set by
   * the checkpointer when it begins; versions before May 2025 let a backend that is faster than that commit without a wait, and are put to the test, which
   * takes a server that has just been promoted a tenth of a second.
   */
  async certain(): Promise<void> {
    if (this.waits || this.configuration.wish.acknowledger.kind !== 'nobody') return;
    const [row] = await this.session.ask<{recovery: boolean; version: number}>(`SELECT pg_is_in_recovery() AS recovery, current_setting('server_version_num')::int AS version`);
    if (row!.recovery) return;
    if (waitsFromTheStart(row!.version)) this.waits = true;
    else await this.commitsWait();
  }

  /** Returns when a commit was seen to wait for a standby. Nobody may release it. */
  private async commitsWait(): Promise<void> {
    const until = this.clock.nowMs() + PROOF_MS;
    const client = await connect(this.session.config);
    try {
      const {pid} = (await client.query<{pid: number}>('SELECT pg_backend_pid() AS pid')).rows[0]!;
      for (;;) {
        let done = false;
        // A message in the log that nobody reads: the smallest commit there is.
        const commit = client.query(`SELECT pg_logical_emit_message(true, 'cetus', '')`);
        const settled = commit.then(() => { done = true; }, () => { done = true; });
        while (!done) {
          const [row] = await this.session.ask<{wait_event: string | null}>('SELECT wait_event FROM pg_stat_get_activity($1)', [pid], 'waits');
          if (row?.wait_event === 'SyncRep') {
            await this.session.ask('SELECT pg_terminate_backend($1)', [pid]);
            await settled;
            this.waits = true;
            return;
          }
          if (this.clock.nowMs() > until) throw new CetusError('unavailable', 'a commit was not seen to wait for a standby');
          await this.clock.sleep(1);
        }
        if (this.clock.nowMs() > until) throw new CetusError('unavailable', 'commits do not wait for a standby');
      }
    } finally {
      discard(client);
    }
  }
}
