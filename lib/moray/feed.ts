/**
 * The change feed of one bucket in one process: one poller for any number of watchers.
 *
 * A poll reads the log between the last entry delivered and pg_snapshot_xmin: whatever lies below is finished for ever, so nothing can appear
 * there later, and everything up to there is delivered in the log's order (store.ts). Its place is that entry and not xmin: see position.ts. A hint (our own commit, another process's NOTIFY)
 * and a timer lead to the same poll; a lost hint costs time, never a change.
 *
 * The newest entries are kept in a ring of bounded size. A watcher is only a place: it takes what follows its place from the ring, and
 * when it was so slow that the ring has moved on, from the database, page by page, until it has caught up. So a slow or absent reader
 * costs no memory. A place from which retention has already taken entries is `stale`.
 */
import {CetusError, isCetusError} from '../base/errors';
import type {Log} from '../base/log';
import type {BucketDefinition} from '../schema/bucket';
import {Deadline, type Connection, type Connections} from './connections';
import {staleCursor, translate} from './failures';
import {Indexed, matches, type BoundFilter} from './match';
import type {Change} from './moray';
import type {Row, Statement} from './pipeline';
import {BARRIER, below, comparePlaces, cursorOf, sees, type Place, type Position} from './position';
import {logTable} from './store';

const POLL_EVERY_MS = 1000;
/** After a poll its feed rests for as long as it took, no longer than this: on a quiet machine nothing, on a busy one polls are no more than half of what keeps it busy, and bring more each. */
const MOST_REST_MS = 25;
/** Before a reader whose horizon is older than the ring's beginning asks again. */
const BEHIND_MS = 20;
const PAGE = 500;
const RING_ENTRIES = 2000;
const RING_BYTES = 8 << 20;

interface Entry extends Place { deleted: boolean; key: string; json: string; etag: string; mtime: number; indexed: Indexed | undefined }
interface Page {
  entries: Entry[];
  /** All entries at or before it have been read: the last one's place. */
  upTo: Place;
  /** Everything below has been read, as far as this server knows; no place to keep (position.ts). undefined: the page is full. */
  horizon: Place | undefined;
  /** Committed changes wait for an older transaction. */
  pending: boolean;
}

/**
 * One statement, so that entries, horizon and the trimming mark are of one snapshot. Each part asks for an order that only the index has: prepared while the log was empty, a mere condition
 * is planned as a look at every row, and stays that until the server has analyzed the table.
 */
function pageStatement(bucket: string, after: Place): Statement {
  return {
    name: `feed_${bucket}`,
    text: `(SELECT 0, txid, seq, etag, mtime, deleted, key, value FROM ${logTable(bucket)}
        WHERE (txid, seq) > ($1::xid8, $2::bigint) AND txid < pg_snapshot_xmin(pg_current_snapshot()) ORDER BY txid, seq LIMIT ${PAGE})
      UNION ALL
      (SELECT 1, pg_snapshot_xmin(pg_current_snapshot()), trimmed_seq, 0, 0,
        (SELECT txid FROM ${logTable(bucket)} ORDER BY txid DESC, seq DESC LIMIT 1) >= pg_snapshot_xmin(pg_current_snapshot()), trimmed_txid::text || ' ' || pg_snapshot_xmax(pg_current_snapshot())::text, NULL
        FROM moray.buckets WHERE name = '${bucket}')`,
    values: [String(after.txid), String(after.seq)],
  };
}

function readPage(bucket: string, after: Place, rows: Row[]): Page {
  const meta = rows.find((row) => row[0] === '1');
  if (!meta) throw new CetusError('unavailable', `bucket ${bucket} is not in the catalogue`);
  const [trimmedTxid, xmax] = meta[6]!.split(' ').map(BigInt) as [bigint, bigint];
  // Beyond the newest transaction: a cursor of another database.
  if (comparePlaces(after, {txid: trimmedTxid, seq: BigInt(meta[2]!)}) < 0 || after.txid > xmax) throw staleCursor(bucket);
  const entries = rows.filter((row) => row[0] === '0').map((row): Entry => ({
    txid: BigInt(row[1]!), seq: BigInt(row[2]!), etag: row[3]!, mtime: Number(row[4]), deleted: row[5] === 't', key: row[6]!, json: row[7]!, indexed: undefined,
  }));
  entries.sort(comparePlaces);
  return {entries, upTo: entries.at(-1) ?? after, horizon: entries.length === PAGE ? undefined : below(BigInt(meta[1]!)), pending: meta[5] === 't'};
}

export class Feed {
  private ring: Entry[] = [];
  private ringBytes = 0;
  /** The ring holds everything after `from` and up to `head`. Undefined until the first poll. */
  private from: Place | undefined;
  private head: Place | undefined;
  private watchers = 0;
  private polling = false;
  private hinted = false;
  private timer: NodeJS.Timeout | undefined;
  private retryMs = 1;
  /** Of performance.now(). */
  private restsUntilMs = 0;
  private closed = false;
  private changed: {promise: Promise<void>; resolve(): void} = gate();

  /** `hinter` is the process's own connection for the feed, or undefined while it is being found again. */
  constructor(private readonly definition: BucketDefinition, private readonly connections: Connections, private readonly hinter: () => Connection | undefined, private readonly log: Log) {}

  get bucket(): string {
    return this.definition.name;
  }

  /** Something may have been committed. */
  hint(): void {
    this.retryMs = 1;
    if (this.watchers > 0) this.pollSoon(0);
  }

  private pollSoon(ms: number): void {
    if (this.closed) return;
    if (this.polling) {
      this.hinted ||= ms === 0;
      return;
    }
    clearTimeout(this.timer);
    const waitMs = Math.max(ms, this.restsUntilMs - performance.now());
    if (waitMs <= 0) void this.poll();
    else {
      this.timer = setTimeout(() => void this.poll(), waitMs);
      this.timer.unref();
    }
  }

  private async poll(): Promise<void> {
    this.polling = true;
    this.hinted = false;
    let nextMs = POLL_EVERY_MS;
    const began = performance.now();
    this.restsUntilMs = 0;
    try {
      const start = this.head ?? (await this.now());
      const page = await this.page(start);
      this.append(start, page);
      if (page.entries.length === PAGE) nextMs = 0;
      else {
        const now = performance.now();
        this.restsUntilMs = now + Math.min(now - began, MOST_REST_MS);
        // What we were told of is committed and hidden behind an older transaction, which will end in a moment.
        if (page.pending) nextMs = this.retryMs;
        this.retryMs = page.pending ? Math.min(this.retryMs * 2, 50) : 1;
      }
    } catch (err) {
      if (isCetusError(err, 'stale')) {
        // We were away for longer than the retention. Watchers before this point will be told so when they ask the database.
        this.ring = [];
        this.ringBytes = 0;
        this.head = this.from = undefined;
        nextMs = 0;
        this.announce();
      } else if (!this.closed) {
        this.log.debug({err, bucket: this.bucket}, 'poll');
        nextMs = 200;
      }
    } finally {
      this.polling = false;
      if (this.watchers > 0) this.pollSoon(this.hinted ? 0 : nextMs);
    }
  }

  private async now(): Promise<Place> {
    const statement = {text: 'SELECT pg_snapshot_xmin(pg_current_snapshot())', values: []};
    return this.connections.with(new Deadline(), async (connection) => below(BigInt((await connection.run([statement, BARRIER], new Deadline()))[0]![0]![0]!)));
  }

  private async page(after: Place): Promise<Page> {
    const statement = pageStatement(this.bucket, after);
    const hinter = this.hinter();
    try {
      const [rows] = hinter && !hinter.broken ? await hinter.run([statement], new Deadline()) : await this.connections.with(new Deadline(), (connection) => connection.run([statement], new Deadline()));
      return readPage(this.bucket, after, rows!);
    } catch (err) {
      throw translate(err, `changes of ${this.bucket}`);
    }
  }

  /** Everything behind the head, also what an older transaction still hides from the feed. One look-up in the log's index, of the few newest entries. */
  async undelivered(most: number): Promise<string[] | undefined> {
    while (this.head === undefined) {
      if (this.watchers === 0 || this.closed) return undefined;
      await this.changed.promise;
    }
    const {txid, seq} = this.head;
    const statement: Statement = {
      name: `undelivered_${this.bucket}`,
      text: `SELECT key FROM ${logTable(this.bucket)} WHERE (txid, seq) > ($1::xid8, $2::bigint) ORDER BY txid, seq LIMIT $3::int`,
      values: [String(txid), String(seq), String(most + 1)],
    };
    const [rows] = await this.connections.with(new Deadline(), (connection) => connection.run([statement], new Deadline())).catch((err: unknown) => {
      throw translate(err, `changes of ${this.bucket}`);
    });
    return rows!.length > most ? undefined : [...new Set(rows!.map(([key]) => key!))];
  }

  private append(start: Place, page: Page): void {
    const first = this.from === undefined;
    this.from ??= start;
    for (const entry of page.entries) {
      this.ring.push(entry);
      this.ringBytes += entry.json.length;
    }
    this.head = page.upTo;
    let drop = 0;
    while (this.ring.length - drop > RING_ENTRIES || (this.ringBytes > RING_BYTES && drop < this.ring.length)) {
      this.ringBytes -= this.ring[drop]!.json.length;
      drop += 1;
    }
    if (drop > 0) {
      const {txid, seq} = this.ring[drop - 1]!;
      this.from = {txid, seq};
      this.ring.splice(0, drop);
    }
    if (first || page.entries.length) this.announce();
  }

  private announce(): void {
    this.changed.resolve();
    this.changed = gate();
  }

  /** Changes after `position` that match; ends with the signal or with close(). */
  async *changes<T>(position: Position, filter: BoundFilter, signal: AbortSignal | undefined): AsyncGenerator<Change<T>> {
    let place: Place = position;
    let {seen} = position;
    const stopped = (): boolean => this.closed || (signal?.aborted ?? false);
    this.watchers += 1;
    this.pollSoon(0);
    try {
      while (!stopped()) {
        const {changed, from} = this;
        if (from === undefined) {
          await untilAborted(changed.promise, signal);
          continue;
        }
        const page = comparePlaces(place, from) >= 0 ? undefined : await this.fromDatabase(place, signal);
        const entries = page?.entries ?? this.after(place);
        for (const entry of entries) {
          if (stopped()) return;
          place = {txid: entry.txid, seq: entry.seq};
          if (seen && sees(seen, entry.txid)) continue;
          entry.indexed ??= new Indexed(this.definition, entry.key, JSON.parse(entry.json));
          if (!this.matches(filter, entry.indexed)) continue;
          // Parsed anew for each reader: what one does with it is no other's business.
          yield {kind: entry.deleted ? 'delete' : 'put', bucket: this.bucket, key: entry.key, value: JSON.parse(entry.json) as T, etag: entry.etag, mtime: entry.mtime, cursor: cursorOf(entry)};
        }
        if (seen && place.txid >= seen.xmax) seen = undefined;
        if (page) {
          place = page.upTo;
          if (!page.horizon) continue;
          // Where the ring begins is a place to keep, so whoever has read up to there goes on from it.
          if (comparePlaces(page.horizon, from) >= 0) place = comparePlaces(place, from) > 0 ? place : from;
          else await untilAborted(new Promise((resolve) => setTimeout(resolve, BEHIND_MS)), signal);
        } else if (entries.length === 0) await untilAborted(changed.promise, signal);
      }
    } finally {
      this.watchers -= 1;
      if (this.watchers === 0) this.rest();
    }
  }

  /** A field's value that another version of the code wrote may not be of our type: no match, and the feed goes on. */
  private matches(filter: BoundFilter, object: Indexed): boolean {
    try {
      return matches(filter, object);
    } catch (err) {
      this.log.warn({err, bucket: this.bucket, key: object.key}, 'an object does not fit its definition');
      return false;
    }
  }

  private after(place: Place): Entry[] {
    let low = 0;
    let high = this.ring.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (comparePlaces(this.ring[middle]!, place) > 0) high = middle;
      else low = middle + 1;
    }
    return this.ring.slice(low);
  }

  /** Tries until the database answers. */
  private async fromDatabase(place: Place, signal: AbortSignal | undefined): Promise<Page> {
    for (;;) {
      try {
        return await this.page(place);
      } catch (err) {
        if (this.closed || signal?.aborted) return {entries: [], upTo: place, horizon: undefined, pending: false};
        if (!isCetusError(err, 'unavailable') && !isCetusError(err, 'timeout')) throw err;
        await untilAborted(new Promise((resolve) => setTimeout(resolve, 200)), signal);
      }
    }
  }

  private rest(): void {
    clearTimeout(this.timer);
    // Without a reader nobody polls, so the ring would have a hole when the next one comes.
    this.ring = [];
    this.ringBytes = 0;
    this.head = this.from = undefined;
  }

  close(): void {
    this.closed = true;
    clearTimeout(this.timer);
    this.announce();
  }
}

function gate(): {promise: Promise<void>; resolve(): void} {
  let resolve!: () => void;
  const promise = new Promise<void>((r) => { resolve = r; });
  return {promise, resolve};
}

/** Resolves also when the signal is aborted; leaves no listener behind. */
export async function untilAborted(promise: Promise<unknown>, signal: AbortSignal | undefined): Promise<void> {
  if (!signal) {
    await promise;
    return;
  }
  if (signal.aborted) return;
  let onAbort!: () => void;
  const aborted = new Promise<void>((resolve) => { onAbort = resolve; });
  signal.addEventListener('abort', onAbort, {once: true});
  try {
    await Promise.race([promise, aborted]);
  } finally {
    signal.removeEventListener('abort', onAbort);
  }
}
