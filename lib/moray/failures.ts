/** What Postgres and the network say, in moray's words. The only place that knows SQLSTATEs. */
import {CetusError, INTERNAL, isCetusError} from '../base/errors';
import {StatementError} from './pipeline';
import type {BatchOp} from './moray';

/** Raised by moray's own functions in the database; DETAIL is JSON. */
export const ETAG_CONFLICT = 'CE001';

/** What clients are told: of buckets, keys, etags and SQL they know nothing. */
const SHOWN = {
  away: 'the store of the datacenter cannot be reached now; try again',
  late: 'the store of the datacenter did not answer in time; try again',
  full: 'the store of the datacenter is out of resources',
  crowded: 'others are changing the same at this moment; try again',
  gone: 'it is gone: somebody else removed it at this moment',
  value: 'a value that cannot be stored',
};

export const LATE = {shown: SHOWN.late, info: {late: 'store'}} as const;

interface PgError extends Error { code?: string; detail?: string; constraint?: string; severity?: string }

/** Connection lost, refused, shutting down, starting up, too many connections, read-only: another try may reach a primary. */
const UNAVAILABLE = /^(08...|57P0[1-5]|53300|25006|ECONNREFUSED|ECONNRESET|ENOENT|EPIPE|ETIMEDOUT|EHOSTUNREACH|ENETUNREACH|ENOTFOUND|EAI_AGAIN|EACCES)$/;
/** Deadlock, serialization, a server that takes no writes: rolled back for certain, so anything may be tried again. */
const ROLLED_BACK = /^(40001|40P01|55P03|25006)$/;

function pgError(err: unknown): PgError | undefined {
  const inner = err instanceof StatementError ? err.cause : err;
  // Not instanceof: an error of the runtime's own may come from another realm.
  return typeof inner === 'object' && inner !== null && 'message' in inner ? (inner as PgError) : undefined;
}

export function isConnectionFailure(err: unknown): boolean {
  const inner = pgError(err);
  if (!inner) return false;
  if (inner.code !== undefined) return UNAVAILABLE.test(inner.code);
  return /^(Connection terminated|timeout expired|Client (was|has)|Client has encountered|This socket|write EPIPE|read ECONNRESET)/.test(inner.message) || inner.message.includes('not queryable');
}

export function isRolledBack(err: unknown): boolean {
  return ROLLED_BACK.test(pgError(err)?.code ?? '');
}

/** No connection was to be had until the deadline: nothing was sent. */
export function unreachable(cause: unknown): CetusError {
  return new CetusError('unavailable', 'the store cannot be reached', {cause, shown: SHOWN.away, info: {outcome: 'none'}});
}

/** Committed at a server whose standby need not have it: it may be there or gone tomorrow. */
export function unreplicated(): CetusError {
  return new CetusError('unavailable', 'the wait for the synchronous standby was canceled', {shown: SHOWN.away, info: {outcome: 'unknown'}});
}

/** `op` is the operation of the failed statement, where there is one. */
export function translate(err: unknown, doing: string, op?: BatchOp): CetusError {
  if (isCetusError(err)) return err;
  const inner = pgError(err);
  const code = inner?.code ?? '';
  if (code === ETAG_CONFLICT) {
    const {bucket, key, expected, actual} = JSON.parse(inner!.detail!) as {bucket: string; key: string; expected: string | null; actual: string | null};
    return etagConflict(bucket, key, expected, actual);
  }
  if (code === '23505' && inner?.constraint) return unique(inner, op, err);
  if (isConnectionFailure(err)) return new CetusError('unavailable', `${doing}: the store cannot be reached (${inner?.message ?? 'connection lost'})`, {cause: err, shown: SHOWN.away});
  if (isRolledBack(err)) return new CetusError('unavailable', `${doing}: others are writing the same objects`, {cause: err, shown: SHOWN.crowded});
  if (code === '57014') return new CetusError('timeout', `${doing}: the store did not answer in time`, {cause: err, ...LATE});
  if (code.startsWith('53')) return new CetusError('unavailable', `${doing}: the store is out of resources (${inner!.message})`, {cause: err, shown: SHOWN.full});
  if (code.startsWith('22') || code.startsWith('54')) return new CetusError('invalid', `${doing}: ${inner!.message}`, {cause: err, shown: SHOWN.value});
  return new CetusError('internal', `${doing}: ${inner?.message ?? String(err)}`, {cause: err, shown: INTERNAL});
}

export function etagConflict(bucket: string, key: string, expected: string | null, actual: string | null): CetusError {
  return new CetusError('etagConflict', `${bucket}/${key}: expected ${expected === null ? 'nothing' : `etag ${expected}`}, found ${actual === null ? 'nothing' : `etag ${actual}`}`, {shown: SHOWN.crowded, info: {bucket, key, expected, actual}});
}
export function uniqueConflict(bucket: string, field: string, value: string): CetusError {
  return new CetusError('conflict', `${bucket}: another object has ${field} ${JSON.stringify(value)}`, {shown: SHOWN.crowded, info: {bucket, field, value}});
}
export function notFound(bucket: string, key: string): CetusError {
  return new CetusError('notFound', `${bucket}/${key} does not exist`, {shown: SHOWN.gone, info: {bucket, key}});
}
export function staleCursor(bucket: string): CetusError {
  return new CetusError('stale', `${bucket}: changes after this cursor are no longer kept; begin again`, {shown: 'what happened since then is no longer known; ask anew', info: {bucket}});
}
export function badCursor(cursor: string): CetusError {
  return new CetusError('invalid', `bad cursor ${JSON.stringify(cursor.slice(0, 100))}`);
}

/** Index names are BUCKET__FIELD__unique (store.ts). */
function unique(inner: PgError, op: BatchOp | undefined, cause: unknown): CetusError {
  const match = /^(.+?)__(.+)__unique$/.exec(inner.constraint!);
  if (!match) return new CetusError('internal', inner.message, {cause, shown: INTERNAL});
  const value = /^Key \([^)]*\)=\((.*)\) already exists\.$/s.exec(inner.detail ?? '')?.[1] ?? '';
  return uniqueConflict(op?.bucket ?? match[1]!, match[2]!, value);
}
