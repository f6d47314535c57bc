/**
 * What one look at the running server shows: one statement on the kept connection. The rest of the facts is the sitter's own knowledge.
 *
 * The end of a standby's WAL. `pg_last_wal_replay_lsn()` alone lies while what was flushed before a restart is still being replayed, and
 * `pg_last_wal_receive_lsn()` is null or the beginning of a segment then. But the startup process asks for a stream, and sleeps before it tries again, only when it
 * has found nothing more to replay on its disk. So the end is known once it was seen in one of those two waits, or anything was received, in
 * this run of the server; from then on it is the further of the two.
 */
import {furthest, NO_WAL, type Lsn} from '../lsn';
import type {Standby} from '../server';
import {RESERVED} from './conf';
import type {Session} from './session';

const LOOK = `
WITH activity AS MATERIALIZED (SELECT pid, backend_type, wait_event, application_name FROM pg_stat_get_activity(NULL))
SELECT pg_is_in_recovery() AS recovery,
  pg_last_wal_receive_lsn()::text AS received,
  pg_last_wal_replay_lsn()::text AS replayed,
  CASE WHEN NOT pg_is_in_recovery() THEN pg_current_wal_flush_lsn()::text END AS flushed,
  (SELECT status FROM pg_stat_get_wal_receiver()) AS receiver,
  EXISTS (SELECT FROM activity WHERE backend_type = 'walreceiver') AS receiver_process,
  (SELECT wait_event FROM activity WHERE backend_type = 'startup') AS startup,
  (SELECT json_agg(json_build_object('id', application_name, 'state', s.state, 'flushed', s.flush_lsn))
     FROM pg_stat_get_wal_senders() s JOIN activity USING (pid) WHERE NOT starts_with(application_name, '${RESERVED}')) AS standbys`;

/** The names are the same in 14 to 18. */
const AT_THE_END = new Set(['RecoveryWalStream', 'RecoveryRetrieveRetryInterval']);

interface Row {
  recovery: boolean; received: Lsn | null; replayed: Lsn | null; flushed: Lsn | null; receiver: string | null; receiver_process: boolean; startup: string | null;
  standbys: {id: string; state: Standby['state']; flushed: Lsn | null}[] | null;
}

export interface Look {
  inRecovery: boolean;
  wal: Lsn | null;
  /** Of a standby: what it has gone through, whole records only. */
  replayed: Lsn | null;
  receiving: boolean;
  /** There is a process that receives, or is about to. */
  receiver: boolean;
  standbys: Standby[];
}

export class Looker {
  private atTheEnd = false;
  /** The furthest that this run has said of itself as a standby. */
  furthest: Lsn = NO_WAL;

  constructor(private readonly session: Session) {}

  /** The server has ended. */
  reset(): void {
    this.atTheEnd = false;
    this.furthest = NO_WAL;
  }

  async look(timeoutMs?: number): Promise<Look> {
    const ask = async (): Promise<Row> => (await this.session.ask<Row>(LOOK, [], 'look', timeoutMs))[0]!;
    let row = await ask();
    if (row.recovery && !this.atTheEnd && (row.received !== null || AT_THE_END.has(row.startup ?? ''))) {
      this.atTheEnd = true;
      // Within one statement the places may have been read before the wait was, and be those of a moment earlier.
      row = await ask();
    }
    return {
      inRecovery: row.recovery, wal: row.recovery ? this.standbyWal(row) : row.flushed, replayed: row.recovery ? row.replayed : null,
      receiving: row.receiver === 'streaming', receiver: row.receiver !== null || row.receiver_process,
      standbys: (row.recovery ? [] : row.standbys ?? []).map((s) => ({...s, flushed: s.flushed ?? NO_WAL})),
    };
  }

  private standbyWal(row: Row): Lsn | null {
    if (!this.atTheEnd) return null;
    const wal = furthest(row.received ?? NO_WAL, row.replayed ?? NO_WAL);
    this.furthest = furthest(this.furthest, wal);
    return wal;
  }
}
