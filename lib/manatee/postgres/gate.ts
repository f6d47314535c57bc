/**
 * The gate is pg_hba.conf: decided by the server before a client can say anything, so that nothing that a client sets, in a session, a role or a database,
 * opens it. Closing it is proven, in this order:
 *
 *   1. everyone who comes from now on is refused (configuration.ts), and a client that tries sees it
 *   2. whoever came before is ended: clients, and the server's children that it does not know of yet, which may be clients in the midst of
 *      their authentication, let in by the rules that were in force when they came
 *
 * A commit that waits for its standby while its connection is ended is not acknowledged: the client sees the connection break. Where the proof
 * takes too long, the server is ended at once, which proves it as well.
 */
import pg from 'pg';
import {CetusError} from '../../base/errors';
import type {Log} from '../../base/log';
import type {Monotonic} from '../coordination';
import {CLIENT, REPLICATION, SITTER} from './conf';
import {PROOF_MS, type Configuration} from './configuration';
import type {Postmaster} from './postmaster';
import {isCollector, processesOf, signal} from './processes';
import {once, type Session} from './session';

export interface ClientAddress { host: string; port: number; password: string }

type Attempt = {kind: 'in'; generation: number} | {kind: 'refused'} | {kind: 'unclear'; why: unknown};

export class Gate {
  constructor(
    private readonly configuration: Configuration, private readonly session: Session, private readonly address: ClientAddress,
    private readonly dataDir: string, private readonly postmaster: Postmaster, private readonly clock: Monotonic, private readonly log: Log, private readonly fence: (why: unknown) => Promise<void>,
  ) {}

  async open(generation: number): Promise<void> {
    const [row] = await this.session.ask<{recovery: boolean}>('SELECT pg_is_in_recovery() AS recovery');
    if (row!.recovery) throw new CetusError('conflict', 'a server in recovery has no gate for clients');
    try {
      // That it is open to whoever comes is what our own client sees.
      await this.configuration.loosen({gate: 'open', generation});
      const attempt = await this.attemptUntil((a) => a.kind === 'in' && a.generation === generation);
      if (attempt) throw new CetusError('unavailable', `the gate was opened, and a client of ours does not come in: ${explain(attempt)}`, {cause: attempt.kind === 'unclear' ? attempt.why : undefined});
    } catch (err) {
      await this.close();
      throw err;
    }
  }

  async close(): Promise<void> {
    if (this.configuration.wish.gate === 'closed') return;
    try {
      await this.prove(this.clock.nowMs() + PROOF_MS);
      this.configuration.settled({gate: 'closed'});
    } catch (err) {
      this.log.error({err}, 'it could not be proven that the gate is closed; ending the server');
      await this.fence(err);
    }
  }

  private async prove(until: number): Promise<void> {
    await this.configuration.apply({gate: 'closed'}, until);
    const attempt = await this.attemptUntil((a) => a.kind === 'refused', until);
    if (attempt) throw new CetusError('unavailable', `a client is not refused: ${explain(attempt)}`, {cause: attempt.kind === 'unclear' ? attempt.why : undefined});
    // Whoever is a child of the server now and was let in under the old rules. Later children are refused.
    let earlier: ReadonlySet<number> | undefined;
    for (;;) {
      const children = processesOf(this.dataDir).map((p) => p.pid).filter((pid) => pid !== this.postmaster.pid && !isCollector(pid));
      const known = new Map((await this.session.ask<{pid: number; client: boolean}>(
        `SELECT pid, backend_type = 'client backend' AND usename IS DISTINCT FROM $1 AND usename IS DISTINCT FROM $2 AS client FROM pg_stat_activity`, [SITTER, REPLICATION], 'known')).map((r) => [r.pid, r.client]));
      const suspects = children.filter((pid) => known.get(pid) !== false && (known.has(pid) || earlier === undefined || earlier.has(pid)));
      earlier ??= new Set(suspects);
      if (suspects.length === 0 && ![...known.values()].includes(true)) return;
      if (this.clock.nowMs() > until) throw new CetusError('unavailable', `${suspects.length} processes that may serve clients do not end`);
      for (const pid of suspects) signal(pid, 'SIGTERM');
      await this.clock.sleep(5);
    }
  }

  /** undefined: it came out as wished; otherwise how it came out last. */
  private async attemptUntil(wished: (attempt: Attempt) => boolean, until = this.clock.nowMs() + PROOF_MS): Promise<Attempt | undefined> {
    for (;;) {
      const attempt = await this.attempt();
      if (wished(attempt)) return undefined;
      if (this.clock.nowMs() > until) return attempt;
      await this.clock.sleep(5);
    }
  }

  /** As any client would, over the network's door. */
  private async attempt(): Promise<Attempt> {
    try {
      const generation = await once({...this.address, user: CLIENT, database: CLIENT, application_name: 'cetus_gate'},
        async (client) => Number((await client.query<{generation: string}>(`SELECT current_setting('cetus.generation') AS generation`)).rows[0]!.generation));
      return {kind: 'in', generation};
    } catch (err) {
      // invalid_authorization_specification, by a reject line; a wrong password would be another.
      return err instanceof pg.DatabaseError && err.code === '28000' ? {kind: 'refused'} : {kind: 'unclear', why: err};
    }
  }
}

const explain = (attempt: Attempt): string => (attempt.kind === 'in' ? `it comes in and reads generation ${attempt.generation}` : attempt.kind === 'refused' ? 'it is refused' : String(attempt.why));
