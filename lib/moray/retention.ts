/**
 * Takes old entries from the buckets' logs. Any process does it for the buckets it has open; a lock keeps two from doing it at once.
 * Entries go in the feed's order only, together with the mark of the last one gone, so that a reader behind it is told (`stale`).
 */
import type {Log} from '../base/log';
import {DEFAULT_TOMBSTONE_RETENTION_MS} from './fields';
import type {BucketDefinition} from '../schema/bucket';
import {Deadline, type Connections} from './connections';
import {LOCK_CLASS, logTable} from './store';

const PAGE = 5000;
const MIN_EVERY_MS = 250;
const MAX_EVERY_MS = 60_000;

function trimStatement(bucket: string): string {
  // An entry that is still to appear sorts at or above xmin, so what goes is always a beginning of the log.
  return `
WITH held AS MATERIALIZED (SELECT pg_try_advisory_xact_lock(${LOCK_CLASS.trim}, hashtext('${bucket}')) AS mine),
young AS MATERIALIZED (
  SELECT txid FROM ${logTable(bucket)} WHERE mtime >= moray.now_ms() - (SELECT retention_ms FROM moray.buckets WHERE name = '${bucket}') ORDER BY txid, seq LIMIT 1),
cut AS MATERIALIZED (SELECT least(pg_snapshot_xmin(pg_current_snapshot()), (SELECT txid FROM young)) AS txid FROM held WHERE mine),
old AS MATERIALIZED (SELECT txid, seq FROM ${logTable(bucket)} WHERE txid < (SELECT txid FROM cut) ORDER BY txid, seq LIMIT ${PAGE}),
gone AS (DELETE FROM ${logTable(bucket)} l USING old WHERE l.txid = old.txid AND l.seq = old.seq RETURNING l.txid),
last AS (SELECT txid, seq FROM old ORDER BY txid DESC, seq DESC LIMIT 1),
marked AS (UPDATE moray.buckets b SET trimmed_txid = last.txid, trimmed_seq = last.seq FROM last WHERE b.name = '${bucket}' RETURNING 1)
SELECT count(*) FROM gone`;
}

export class Retention {
  private readonly timers = new Map<string, NodeJS.Timeout>();
  private closed = false;

  constructor(private readonly connections: Connections, private readonly log: Log) {}

  add(definition: BucketDefinition): void {
    const {name, tombstoneRetentionMs = DEFAULT_TOMBSTONE_RETENTION_MS} = definition;
    if (this.timers.has(name)) return;
    this.schedule(name, Math.min(Math.max(tombstoneRetentionMs / 4, MIN_EVERY_MS), MAX_EVERY_MS));
  }

  private schedule(bucket: string, everyMs: number): void {
    if (this.closed) return;
    // Processes that started together do not come together.
    const timer = setTimeout(() => {
      void this.trim(bucket).catch((err: unknown) => { if (!this.closed) this.log.warn({err, bucket}, 'trimming the change log'); }).finally(() => this.schedule(bucket, everyMs));
    }, everyMs * (0.75 + Math.random() / 2));
    timer.unref();
    this.timers.set(bucket, timer);
  }

  private async trim(bucket: string): Promise<void> {
    for (;;) {
      const [rows] = await this.connections.with(new Deadline(), (connection) => connection.run([{name: `trim_${bucket}`, text: trimStatement(bucket), values: []}], new Deadline()));
      if (this.closed || Number(rows![0]![0]) < PAGE) return;
    }
  }

  close(): void {
    this.closed = true;
    for (const timer of this.timers.values()) clearTimeout(timer);
  }
}
