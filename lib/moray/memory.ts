/**
 * moray in memory, with the semantics of the real one: for model tests, unit tests and simulators, never for a running datacenter.
 * test/moray/conformance.ts holds both to the same behaviour. Every call is atomic: nothing is awaited in the middle of one.
 * Values are kept as JSON text, so that nothing a caller holds is ever shared with the store.
 */
import {systemClock, type Clock} from '../base/clock';
import {CetusError} from '../base/errors';
import type {BucketDefinition} from '../schema/bucket';
import {checkOp, checkPage, checkSignal, tooMany} from './checks';
import {checkDefinition, checkKey, compareText, DEFAULT_TOMBSTONE_RETENTION_MS, elementType, encodeValue, extract, identity, toSql, type Scalar} from './fields';
import {badCursor, etagConflict, notFound, staleCursor, uniqueConflict} from './failures';
import {bindFilter, bySort, checkSort, Indexed, matches} from './match';
import {LIST_LIMIT, type BatchOp, type BatchResult, type CallOptions, type Change, type Condition, type Etag, type FindOptions, type Moray, type Stored, type WatchOptions} from './moray';

interface Row { json: string; etag: Etag; mtime: number }
interface Entry { seq: number; kind: 'put' | 'delete'; key: string; json: string; etag: Etag; mtime: number }
interface Bucket {
  definition: BucketDefinition;
  rows: Map<string, Row>;
  /** unique field -> value -> key */
  unique: Map<string, Map<string, string>>;
  log: Entry[];
  /** The highest entry forgotten by retention. */
  trimmedSeq: number;
}

export interface MemoryMorayOptions { clock?: Clock }

export function createMemoryMoray(options: MemoryMorayOptions = {}): Moray {
  return new MemoryMoray(options.clock ?? systemClock);
}

class MemoryMoray implements Moray {
  private readonly buckets = new Map<string, Bucket>();
  private readonly waiting = new Set<() => void>();
  private lastEtag = 0;
  private lastSeq = 0;
  private closed = false;

  constructor(private readonly clock: Clock) {}

  async open(...definitions: BucketDefinition[]): Promise<void> {
    for (const definition of definitions) {
      checkDefinition(definition);
      const old = this.buckets.get(definition.name);
      if (old && old.definition.version >= definition.version) continue;
      const bucket: Bucket = {definition, rows: old?.rows ?? new Map(), unique: new Map(), log: old?.log ?? [], trimmedSeq: old?.trimmedSeq ?? 0};
      for (const [name, field] of Object.entries(definition.fields)) if (field.unique) bucket.unique.set(name, new Map());
      for (const [key, row] of bucket.rows) this.index(bucket, key, JSON.parse(row.json));
      this.buckets.set(definition.name, bucket);
    }
  }

  private bucket(name: string): Bucket {
    if (this.closed) throw new CetusError('unavailable', 'the store is closed');
    const bucket = this.buckets.get(name);
    if (!bucket) throw new CetusError('invalid', `bucket ${name} is not open`);
    return bucket;
  }

  private stored<T>(bucket: string, key: string, row: Row): Stored<T> {
    return {bucket, key, value: JSON.parse(row.json) as T, etag: row.etag, mtime: row.mtime};
  }

  async peek<T>(bucket: string, key: string, options: CallOptions = {}): Promise<Stored<T> | undefined> {
    checkSignal(options.signal);
    checkKey(key);
    const row = this.bucket(bucket).rows.get(key);
    return row && this.stored<T>(bucket, key, row);
  }

  async get<T>(bucket: string, key: string, options?: CallOptions): Promise<Stored<T>> {
    const found = await this.peek<T>(bucket, key, options);
    if (!found) throw notFound(bucket, key);
    return found;
  }

  async put<T>(bucket: string, key: string, value: T, condition: Condition & CallOptions = {}): Promise<Stored<T>> {
    await this.batch([{op: 'put', bucket, key, value, ...('etag' in condition ? {etag: condition.etag} : {})}], condition);
    const row = this.bucket(bucket).rows.get(key)!;
    return {bucket, key, value, etag: row.etag, mtime: row.mtime};
  }

  async delete(bucket: string, key: string, condition: {etag?: Etag} & CallOptions = {}): Promise<void> {
    await this.batch([{op: 'delete', bucket, key, ...('etag' in condition ? {etag: condition.etag} : {})}], condition);
  }

  async update(bucket: string, filter: string, patch: Record<string, unknown>, options?: CallOptions): Promise<number> {
    return (await this.batch([{op: 'update', bucket, filter, patch}], options))[0]!.count!;
  }

  async deleteMany(bucket: string, filter: string, options?: CallOptions): Promise<number> {
    return (await this.batch([{op: 'deleteMany', bucket, filter}], options))[0]!.count!;
  }

  private select(bucket: Bucket, filter: string): Indexed[] {
    const bound = bindFilter(bucket.definition, filter);
    const found: Indexed[] = [];
    for (const [key, row] of bucket.rows) {
      const object = new Indexed(bucket.definition, key, JSON.parse(row.json));
      if (matches(bound, object)) found.push(object);
    }
    return found;
  }

  async *find<T>(name: string, filter: string, options: FindOptions = {}): AsyncIterable<Stored<T>> {
    checkSignal(options.signal);
    const bucket = this.bucket(name);
    checkSort(bucket.definition, options.sort ?? []);
    checkPage(options);
    const found = this.select(bucket, filter).sort(bySort(bucket.definition, options.sort ?? []));
    const offset = options.offset ?? 0;
    const rows = found.slice(offset, options.limit === undefined ? undefined : offset + options.limit).map((object) => ({key: object.key, row: bucket.rows.get(object.key)!}));
    for (const {key, row} of rows) {
      checkSignal(options.signal);
      yield this.stored<T>(name, key, row);
    }
  }

  async list<T>(bucket: string, filter: string, options: FindOptions = {}): Promise<Stored<T>[]> {
    const rows: Stored<T>[] = [];
    for await (const row of this.find<T>(bucket, filter, options)) {
      rows.push(row);
      if (options.limit === undefined && rows.length > LIST_LIMIT) throw tooMany(bucket);
    }
    return rows;
  }

  async count(bucket: string, filter: string, options: CallOptions = {}): Promise<number> {
    checkSignal(options.signal);
    return this.select(this.bucket(bucket), filter).length;
  }

  async batch(ops: BatchOp[], options: CallOptions = {}): Promise<BatchResult[]> {
    checkSignal(options.signal);
    for (const op of ops) checkOp(op);
    const undo: (() => void)[] = [];
    const logged: [Bucket, Entry][] = [];
    try {
      const results = ops.map((op) => this.apply(op, undo, logged));
      for (const [bucket, entry] of logged) bucket.log.push(entry);
      for (const bucket of new Set(logged.map(([b]) => b))) this.trim(bucket);
      if (logged.length) this.wake();
      return results;
    } catch (err) {
      for (const step of undo.reverse()) step();
      throw err;
    }
  }

  private apply(op: BatchOp, undo: (() => void)[], logged: [Bucket, Entry][]): BatchResult {
    const bucket = this.bucket(op.bucket);
    switch (op.op) {
      case 'check':
        this.expect(bucket, op.key, op.etag);
        return {};
      case 'put':
        if (op.etag !== undefined) this.expect(bucket, op.key, op.etag);
        return {etag: this.write(bucket, op.key, op.value, undo, logged)};
      case 'delete':
        if (op.etag !== undefined) this.expect(bucket, op.key, op.etag);
        return {count: this.remove(bucket, op.key, undo, logged)};
      case 'update': {
        const found = this.select(bucket, op.filter);
        for (const {key} of found) this.write(bucket, key, {...(JSON.parse(bucket.rows.get(key)!.json) as object), ...op.patch}, undo, logged);
        return {count: found.length};
      }
      case 'deleteMany': {
        const found = this.select(bucket, op.filter);
        for (const {key} of found) this.remove(bucket, key, undo, logged);
        return {count: found.length};
      }
    }
  }

  private expect(bucket: Bucket, key: string, expected: Etag | null): void {
    const actual = bucket.rows.get(key)?.etag ?? null;
    if (actual !== expected) throw etagConflict(bucket.definition.name, key, expected, actual);
  }

  private write(bucket: Bucket, key: string, value: unknown, undo: (() => void)[], logged: [Bucket, Entry][]): Etag {
    const json = encodeValue(bucket.definition.name, key, value);
    const object: unknown = JSON.parse(json);
    // Checked before anything is touched, so that a refusal in the middle leaves no half-made index entries.
    for (const [name, field] of Object.entries(bucket.definition.fields)) extract(bucket.definition.name, name, field, object);
    const old = bucket.rows.get(key);
    if (old) this.unindex(bucket, key, old.json);
    undo.push(() => {
      this.unindex(bucket, key, json);
      if (old) {
        bucket.rows.set(key, old);
        this.index(bucket, key, JSON.parse(old.json));
      } else bucket.rows.delete(key);
    });
    this.index(bucket, key, object);
    const row: Row = {json, etag: String((this.lastEtag += 1)), mtime: this.clock.now()};
    bucket.rows.set(key, row);
    logged.push([bucket, {seq: (this.lastSeq += 1), kind: 'put', key, ...row}]);
    return row.etag;
  }

  private remove(bucket: Bucket, key: string, undo: (() => void)[], logged: [Bucket, Entry][]): number {
    const old = bucket.rows.get(key);
    if (!old) return 0;
    this.unindex(bucket, key, old.json);
    bucket.rows.delete(key);
    undo.push(() => {
      bucket.rows.set(key, old);
      this.index(bucket, key, JSON.parse(old.json));
    });
    logged.push([bucket, {seq: (this.lastSeq += 1), kind: 'delete', key, json: old.json, etag: String((this.lastEtag += 1)), mtime: this.clock.now()}]);
    return 1;
  }

  private index(bucket: Bucket, key: string, object: unknown): void {
    for (const [name, values] of bucket.unique) {
      const field = bucket.definition.fields[name]!;
      const value = extract(bucket.definition.name, name, field, object) as Scalar | undefined;
      if (value === undefined) continue;
      const holder = values.get(identity(value));
      if (holder !== undefined && holder !== key) throw uniqueConflict(bucket.definition.name, name, toSql(elementType(field.type), value));
      values.set(identity(value), key);
    }
  }

  private unindex(bucket: Bucket, key: string, json: string): void {
    const object: unknown = JSON.parse(json);
    for (const [name, values] of bucket.unique) {
      const value = extract(bucket.definition.name, name, bucket.definition.fields[name]!, object) as Scalar | undefined;
      if (value !== undefined && values.get(identity(value)) === key) values.delete(identity(value));
    }
  }

  private trim(bucket: Bucket): void {
    const until = this.clock.now() - (bucket.definition.tombstoneRetentionMs ?? DEFAULT_TOMBSTONE_RETENTION_MS);
    let n = 0;
    while (n < bucket.log.length && bucket.log[n]!.mtime < until) n += 1;
    if (n === 0) return;
    bucket.trimmedSeq = bucket.log[n - 1]!.seq;
    bucket.log.splice(0, n);
  }

  private wake(): void {
    for (const resume of [...this.waiting]) resume();
  }

  async watch<T>(name: string, filter: string, options: WatchOptions = {}): Promise<AsyncIterable<Change<T>>> {
    checkSignal(options.signal);
    const bucket = this.bucket(name);
    const bound = bindFilter(bucket.definition, filter);
    const since = options.since ?? 'now';
    const startSeq = since === 'now' || since === 'beginning' ? this.lastSeq : parseCursor(since);
    if (startSeq < bucket.trimmedSeq || startSeq > this.lastSeq) throw staleCursor(name);
    const listed = since === 'beginning'
      ? this.select(bucket, filter).sort((a, b) => compareText(a.key, b.key)).map(({key}) => ({key, row: bucket.rows.get(key)!}))
      : [];
    return this.changes<T>(name, bound, listed, startSeq, options.signal);
  }

  /** A change wakes its watchers in the turn in which it is made. */
  async undelivered(name: string, _most: number): Promise<string[] | undefined> {
    this.bucket(name);
    return [];
  }

  private async *changes<T>(name: string, bound: ReturnType<typeof bindFilter>, listed: {key: string; row: Row}[], startSeq: number, signal?: AbortSignal): AsyncGenerator<Change<T>> {
    for (const [n, {key, row}] of listed.entries()) {
      if (signal?.aborted || this.closed) return;
      yield {kind: 'put', ...this.stored<T>(name, key, row), cursor: n === listed.length - 1 ? String(startSeq) : 'beginning'};
    }
    let at = startSeq;
    while (!signal?.aborted && !this.closed) {
      const bucket = this.bucket(name);
      if (at < bucket.trimmedSeq) throw staleCursor(name);
      const next = after(bucket.log, at);
      if (!next) {
        await this.change(signal);
        continue;
      }
      at = next.seq;
      const value = JSON.parse(next.json) as T;
      if (matches(bound, new Indexed(bucket.definition, next.key, value)))
        yield {kind: next.kind, bucket: name, key: next.key, value, etag: next.etag, mtime: next.mtime, cursor: String(at)};
    }
  }

  private change(signal?: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const resume = (): void => {
        this.waiting.delete(resume);
        signal?.removeEventListener('abort', resume);
        resolve();
      };
      this.waiting.add(resume);
      signal?.addEventListener('abort', resume, {once: true});
    });
  }

  async close(): Promise<void> {
    this.closed = true;
    this.wake();
  }
}

/** The first entry with a higher seq; the log is ordered. */
function after(log: Entry[], seq: number): Entry | undefined {
  let low = 0;
  let high = log.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (log[middle]!.seq > seq) high = middle;
    else low = middle + 1;
  }
  return log[low];
}

function parseCursor(cursor: string): number {
  if (!/^\d{1,15}$/.test(cursor)) throw badCursor(cursor);
  return Number(cursor);
}
