/**
 * moray's contract: typed buckets of JSON objects on Postgres (and, for models and unit tests, in memory: both pass one conformance test).
 * Every error is a CetusError: `notFound`, `etagConflict` {bucket, key, expected, actual}, `conflict` (unique index: {bucket, field, value}),
 * `invalid` (filter on an unindexed field, bad filter, a value that is not of an indexed field's type), `unavailable` (retryable), `timeout`,
 * `stale` (a cursor older than what the change feed keeps).
 */
import type {BucketDefinition} from '../schema/bucket';

/** A fresh token per write, from one sequence; 64 bits, so a string. Never a checksum of the value. */
export type Etag = string;

export interface Stored<T> {
  bucket: string;
  key: string;
  value: T;
  etag: Etag;
  /** ms since the epoch, the store's clock */
  mtime: number;
}

/** etag absent: whatever is there; null: must not exist; a token: must be exactly that. */
export interface Condition { etag?: Etag | null }
export interface CallOptions {
  /** ms from now; default 10 s */
  deadlineMs?: number;
  signal?: AbortSignal;
  /** Of a step of a job: ask the store, also for what the job itself wrote a moment ago (workflow/own-writes.ts). */
  fresh?: boolean;
}
export interface FindOptions extends CallOptions {
  sort?: {field: string; order: 'asc' | 'desc'}[];
  limit?: number;
  offset?: number;
}

/** `list` without a limit refuses more. */
export const LIST_LIMIT = 100_000;

export type BatchOp =
  | {op: 'put'; bucket: string; key: string; value: unknown; etag?: Etag | null}
  /** Without an etag, deleting what is not there succeeds (count 0). */
  | {op: 'delete'; bucket: string; key: string; etag?: Etag}
  /** Merges `patch` at the top level of every match. */
  | {op: 'update'; bucket: string; filter: string; patch: Record<string, unknown>}
  | {op: 'deleteMany'; bucket: string; filter: string}
  /** Fails the batch unless the object's etag is this one (null: absent). Writes nothing. */
  | {op: 'check'; bucket: string; key: string; etag: Etag | null};
/** One per op, in order: the new etag of a put; the count of delete, update and deleteMany. */
export interface BatchResult { etag?: Etag; count?: number }

export interface Change<T> {
  kind: 'put' | 'delete';
  bucket: string;
  key: string;
  /** The value as of this change; of a delete, the last value. */
  value: T;
  etag: Etag;
  mtime: number;
  /**
   * Opaque; pass it as `since` to continue right after this change, also after a restart or a failover. Of the objects listed for
   * 'beginning' only the last has a place of its own: continuing from another one of them lists them again.
   */
  cursor: string;
}
export interface WatchOptions {
  /** A cursor; 'now' = changes committed after watch() resolved; 'beginning' = every live object first, then changes. Default 'now'. */
  since?: string;
  signal?: AbortSignal;
}

export interface Moray {
  /** Creates the table or brings it to the definition's version; resolves when it can be used (reindexing goes on behind). */
  open(...buckets: BucketDefinition[]): Promise<void>;
  get<T>(bucket: string, key: string, options?: CallOptions): Promise<Stored<T>>;
  /** undefined where get would throw notFound. */
  peek<T>(bucket: string, key: string, options?: CallOptions): Promise<Stored<T> | undefined>;
  put<T>(bucket: string, key: string, value: T, condition?: Condition & CallOptions): Promise<Stored<T>>;
  /** Without an etag, deleting what is not there succeeds. */
  delete(bucket: string, key: string, condition?: {etag?: Etag} & CallOptions): Promise<void>;
  update(bucket: string, filter: string, patch: Record<string, unknown>, options?: CallOptions): Promise<number>;
  deleteMany(bucket: string, filter: string, options?: CallOptions): Promise<number>;
  /** Streams; memory does not grow with the result. `filter` is LDAP style; build it with `filter.ts`, which escapes. */
  find<T>(bucket: string, filter: string, options?: FindOptions): AsyncIterable<Stored<T>>;
  /** find, collected; refuses (`invalid`) more than 100,000 rows without an explicit limit. */
  list<T>(bucket: string, filter: string, options?: FindOptions): Promise<Stored<T>[]>;
  count(bucket: string, filter: string, options?: CallOptions): Promise<number>;
  /** Ordered, one transaction, all or nothing. */
  batch(ops: BatchOp[], options?: CallOptions): Promise<BatchResult[]>;
  /**
   * Every committed change in commit order, none missed (also not the versions that were overwritten since). Resolves once the
   * starting point is fixed. Ends when the signal is aborted or the store closed; throws `stale` where the feed no longer reaches back.
   */
  watch<T>(bucket: string, filter: string, options?: WatchOptions): Promise<AsyncIterable<Change<T>>>;
  /**
   * Keys of objects with changes that are committed by now and that watchers here may not have been given yet, by whichever process they were made: for who
   * keeps a copy by a watch and is asked what is so now. undefined: more than `most` changes, or nobody watches the bucket here.
   */
  undelivered(bucket: string, most: number): Promise<string[] | undefined>;
  close(): Promise<void>;
}
