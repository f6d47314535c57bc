/**
 * The configuration that the server goes by, and how to know that it does. SIGHUP only asks: the postmaster reads the files when it gets to it, hands the
 * signal on to each process, and each of those reads them when *it* gets to it. What `apply` proves is the first half: the gate is the new one for
 * all who come, and every older process has its signal. Where an older process matters (a walsender, the startup process, the checkpointer), the verb proves the rest.
 */
import path from 'node:path';
import pg from 'pg';
import {CetusError} from '../../base/errors';
import type {Monotonic} from '../coordination';
import type {Acknowledger} from '../server';
import {autoConf, freshWish, hba, ident, passFile, type Place, type Wish} from './conf';
import type {Home} from './home';
import type {Postmaster} from './postmaster';
import type {Session} from './session';

/** As long as anything here may take to be proven; then whoever wanted to tighten the rules ends the server. */
export const PROOF_MS = 10_000;

export class Configuration {
  /** The loosest that may be in effect: it is widened before the server is told and narrowed after it is proven. */
  private believed: Wish = freshWish(null);
  private serial = 0;
  /** What pg_hba.conf says, as far as we have written it. */
  private rules: string | undefined;

  constructor(
    private readonly place: Place, private readonly replicationPassword: string, private readonly home: Home, private readonly postmaster: Postmaster,
    private readonly session: Session, private readonly clock: Monotonic,
  ) {}

  get wish(): Readonly<Wish> {
    return this.believed;
  }

  /** The server has ended: whatever it went by is gone with it, and the next one begins afresh. */
  reset(wish = freshWish(null)): void {
    this.believed = wish;
  }

  /** All that a server of this directory needs to start, and nothing of what a copy or a rewind has brought. */
  async prepare(wish: Wish, data = this.home.data): Promise<void> {
    const us = process.getuid!() === 0 ? ['root', this.home.user.name] : [this.home.user.name];
    await this.home.write(this.home.pgpass, passFile(this.replicationPassword));
    await this.home.write(path.join(data, 'postgresql.conf'), '# Everything is in postgresql.auto.conf, which is the sitter\'s.\n');
    await this.home.write(path.join(data, 'pg_ident.conf'), ident(us));
    this.rules = undefined;
    await this.write(wish, data);
    this.believed = wish;
  }

  /** Returns when everyone who comes from now on goes by it. Throws `unavailable` where that cannot be had by then (monotonic ms). */
  async apply(change: Partial<Wish>, until = this.clock.nowMs() + PROOF_MS): Promise<void> {
    await this.loosen(change, until);
    await this.roundAfterwards();
  }

  /** Written, and the server asked to read it: what proves that it has is the caller's. */
  async ask(change: Partial<Wish>): Promise<void> {
    const next = {...this.believed, ...change};
    await this.write(next, this.home.data);
    this.believed = {...next, gate: this.believed.gate === 'open' ? 'open' : next.gate, acknowledger: looser(this.believed.acknowledger, next.acknowledger)};
    this.postmaster.reload();
  }

  /** For what only allows more, where nothing is lost if another process is told a moment later: returns when one of the server's goes by it. A process less to wait for. */
  async loosen(change: Partial<Wish>, until = this.clock.nowMs() + PROOF_MS): Promise<void> {
    await this.ask(change);
    const serial = String(this.serial);
    for (let why: unknown; ; ) {
      try {
        const seen = (await this.session.ask<{serial: string}>(`SELECT current_setting('cetus.config') AS serial`, [], 'serial'))[0]!.serial;
        if (seen === serial) return;
        why = `it goes by ${seen}, not ${serial}`;
      } catch (err) {
        why = err;
      }
      if (!this.postmaster.alive || this.clock.nowMs() > until) throw new CetusError('unavailable', 'our Postgres does not take its new configuration', {cause: why});
      await this.clock.sleep(1);
    }
  }

  /**
   * The process that answered has had its signal; the postmaster may still be handing it on. It does that in one go, the rules of pg_hba.conf
   * included, before it sees to any connection. So whoever connects now and gets an answer, be it that all places are taken, was seen to afterwards.
   */
  async roundAfterwards(): Promise<void> {
    await this.session.fresh(async () => undefined).catch((err: unknown) => {
      if (!(err instanceof pg.DatabaseError)) throw err;
    });
  }

  /** What was tightened is proven. */
  settled(proven: Pick<Partial<Wish>, 'gate' | 'acknowledger'>): void {
    this.believed = {...this.believed, ...proven};
  }

  private async write(wish: Wish, data: string): Promise<void> {
    this.serial += 1;
    const rules = hba(wish.gate);
    if (this.rules !== rules) {
      this.rules = undefined;
      await this.home.write(path.join(data, 'pg_hba.conf'), rules);
      this.rules = rules;
    }
    await this.home.write(path.join(data, 'postgresql.auto.conf'), autoConf(this.place, wish, this.serial));
  }
}

const STRICTNESS: Record<Acknowledger['kind'], number> = {alone: 0, peer: 1, nobody: 2};
const looser = (a: Acknowledger, b: Acknowledger): Acknowledger => (STRICTNESS[a.kind] < STRICTNESS[b.kind] ? a : b);
