/**
 * One error type for every room. It knows what went wrong in the domain's words and nothing of HTTP:
 * lib/docker/errors.ts and lib/admin translate a kind to a status once, at the edge.
 *
 * An error that reaches a Docker client is shown to a person, so where the Engine has a wording for the mistake, the thrower uses that
 * wording. Where the message speaks of our own insides (a path of the node, a status of gRPC, a bucket), `shown` is what a person is told.
 */
export type ErrorKind =
  | 'invalid'        // the request itself is wrong
  | 'unsupported'    // a well-formed option that Cetus refuses, named in the message
  | 'unauthorized'   // credentials are missing or wrong (towards us or towards a registry)
  | 'forbidden'      // understood, and not allowed by configuration or state
  | 'notFound'
  | 'notModified'    // already in the state asked for
  | 'conflict'       // another object or state stands in the way
  | 'etagConflict'   // somebody else wrote first; the caller decides whether to retry
  | 'noSpace'        // no node can take it; the message says what would have fitted where
  | 'stale'          // the caller's lease epoch or generation is older than the one known here
  | 'timeout'        // the deadline passed
  | 'canceled'
  | 'unavailable'    // a part we need cannot be reached now; retrying is sensible
  | 'notImplemented' // what is there cannot do it, whatever is asked: a log driver that cannot be read, a call that containerd has not
  | 'internal';

const KINDS: ReadonlySet<string> = new Set<ErrorKind>(['invalid', 'unsupported', 'unauthorized', 'forbidden',
  'notFound', 'notModified', 'conflict', 'etagConflict', 'noSpace', 'stale', 'timeout', 'canceled', 'unavailable',
  'notImplemented', 'internal']);

/** What crosses a process boundary. Causes stay on the side where they happened, in its log. */
export interface WireError {
  kind: ErrorKind;
  message: string;
  /** Where it is not the message. */
  shown?: string;
  info?: Record<string, unknown>;
}

export interface CetusErrorOptions {
  cause?: unknown;
  /** What clients are told in place of the message, which is for logs and operators. Default: the message. */
  shown?: string;
  /** Facts for programs: identifiers, expected and actual values. Never credentials. */
  info?: Record<string, unknown>;
}

export class CetusError extends Error {
  override readonly name = 'CetusError';
  readonly kind: ErrorKind;
  readonly info: Record<string, unknown>;
  readonly shown: string;

  constructor(kind: ErrorKind, message: string, options: CetusErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : {cause: options.cause});
    this.kind = kind;
    this.info = options.info ?? {};
    this.shown = options.shown ?? message;
  }

  toWire(): WireError {
    const shown = this.shown === this.message ? {} : {shown: this.shown};
    return {kind: this.kind, message: this.message, ...shown, ...(Object.keys(this.info).length ? {info: this.info} : {})};
  }
}

export function isCetusError(err: unknown, kind?: ErrorKind): err is CetusError {
  return err instanceof CetusError && (kind === undefined || err.kind === kind);
}

/** Of the system's errors those that tell a person what to do, as C's library words them. The others speak of files that are ours. */
const SYSTEM_ERRORS: Readonly<Record<string, string>> = {
  ENOSPC: 'no space left on device', EDQUOT: 'disk quota exceeded', EROFS: 'read-only file system', EIO: 'input/output error',
  EMFILE: 'too many open files', ENFILE: 'too many open files in system', ENOMEM: 'cannot allocate memory',
};
export const INTERNAL = 'internal error; the logs of the datacenter say more';

/** Any thrown value as a CetusError; what is not ours already becomes `internal`, keeps its cause, and shows nothing of its text to clients. */
export function asCetusError(err: unknown, doing?: string): CetusError {
  if (err instanceof CetusError) return err;
  const message = err instanceof Error ? err.message : String(err);
  const shown = SYSTEM_ERRORS[(err as NodeJS.ErrnoException | null)?.code ?? ''] ?? INTERNAL;
  return new CetusError('internal', doing ? `${doing}: ${message}` : message, {cause: err, shown});
}

export function fromWire(wire: unknown): CetusError {
  const w = wire as Partial<WireError> | null;
  if (w && typeof w.message === 'string' && typeof w.kind === 'string' && KINDS.has(w.kind))
    return new CetusError(w.kind, w.message, {info: w.info, ...(typeof w.shown === 'string' ? {shown: w.shown} : {})});
  return new CetusError('internal', 'an answer that is not an error description', {shown: INTERNAL, info: {answer: wire as never}});
}

/** Proves to the compiler that a union is exhausted. */
export function unreachable(value: never): never {
  throw new CetusError('internal', `unhandled case ${JSON.stringify(value)}`);
}
