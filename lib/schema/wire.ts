/**
 * The HTTP status of each error kind between our own processes (agent protocol, both ways). The receiver reads the WireError, not the status;
 * the status is for proxies, logs and people with curl. Docker clients get theirs from lib/docker/errors.ts.
 */
import type {ErrorKind} from '../base/errors';

const STATUS: Readonly<Record<ErrorKind, number>> = {
  invalid: 400, unsupported: 400, unauthorized: 401, forbidden: 403, notFound: 404, notModified: 409, conflict: 409, etagConflict: 412,
  noSpace: 507, stale: 409, timeout: 504, canceled: 499, unavailable: 503, notImplemented: 501, internal: 500,
};

/** notModified is 409 here: a 304 may not carry the body that says what was not modified. */
export function statusOf(kind: ErrorKind): number {
  return STATUS[kind];
}
