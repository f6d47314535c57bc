/**
 * Places in a bucket's change feed, and their text (a cursor).
 *
 *   TXID.SEQ                  right after that log entry
 *   @XMIN:XMAX:ID,ID...       after everything that this snapshot sees, before everything else
 *
 * A place must outlive the server that it was read from. Transaction ids do only as far as its WAL does: after a crash, or at a standby that took
 * over, the ids of transactions that were rolled back a moment ago, and of which nothing was written out, are given anew. An entry that could be
 * read is written out and lies at the sync, and so every id up to it is used up for good. Of a snapshot that is true only once something that was
 * committed after it is (BARRIER). So positions are entries, or snapshots with a barrier behind them; never just "below xmin".
 */
import {badCursor} from './failures';
import type {Statement} from './pipeline';

/**
 * Writes to the WAL and to nothing else: its commit waits for disk and sync as every other does, and so for all that is before it in the WAL. It has to
 * be of the same server as the snapshot: in its transaction, or on its connection.
 */
export const BARRIER: Statement = {name: 'barrier', text: `SELECT pg_logical_emit_message(true, 'moray', '')`, values: []};

export interface Place { txid: bigint; seq: bigint }

export interface Snapshot { xmin: bigint; xmax: bigint; running: ReadonlySet<bigint> }

/** Where to go on reading; `seen` are transactions above it that the reader has had already, by the snapshot it began from. */
export interface Position extends Place { seen: Snapshot | undefined }

const MAX_SEQ = (1n << 63n) - 1n;

export function comparePlaces(a: Place, b: Place): number {
  if (a.txid !== b.txid) return a.txid < b.txid ? -1 : 1;
  return a.seq === b.seq ? 0 : a.seq < b.seq ? -1 : 1;
}

/** After every transaction below `txid`. */
export function below(txid: bigint): Place {
  return {txid: txid - 1n, seq: MAX_SEQ};
}

/** Postgres' text of a pg_snapshot: xmin:xmax:running,... */
export function parseSnapshot(text: string): Snapshot {
  const match = /^(\d{1,20}):(\d{1,20}):((?:\d{1,20}(?:,\d{1,20})*)?)$/.exec(text);
  if (!match) throw badCursor(text);
  return {xmin: BigInt(match[1]!), xmax: BigInt(match[2]!), running: new Set(match[3] === '' ? [] : match[3]!.split(',').map(BigInt))};
}

export function afterSnapshot(text: string): Position {
  const seen = parseSnapshot(text);
  return {...below(seen.xmin), seen};
}

export function sees(snapshot: Snapshot, txid: bigint): boolean {
  return txid < snapshot.xmax && !snapshot.running.has(txid);
}

export function parseCursor(cursor: string): Position {
  if (cursor.startsWith('@') && cursor.length < 100_000) return afterSnapshot(cursor.slice(1));
  const match = /^(\d{1,19})\.(\d{1,19})$/.exec(cursor);
  if (!match) throw badCursor(cursor);
  return {txid: BigInt(match[1]!), seq: BigInt(match[2]!), seen: undefined};
}

export function cursorOf(place: Place): string {
  return `${place.txid}.${place.seq}`;
}
