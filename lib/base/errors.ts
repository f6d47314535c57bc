/**
 * One error type for every room. It knows what went wrong in the domain's words and nothing of HTTP:
 * lib/docker/errors.ts and lib/admin translate a kind to a status once, at the edge.
 *
 * The message of an error that reaches a Docker client is shown to a person, so where the Engine has a
 * wording for the mistake, the thrower uses that wording.
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
  | 'notImplemented' // a whole operation that does not exist yet, named in the message
  | 'internal';

const KINDS: ReadonlySet<string> = new Set<ErrorKind>(['invalid', 'unsupported', 'unauthorized', 'forbidden',
  'notFound', 'notModified', 'conflict', 'etagConflict', 'noSpace', 'stale', 'timeout', 'canceled', 'unavailable',
  'notImplemented', 'internal']);

/** What crosses a process boundary. Causes stay on the side where they happened, in its log. */
export interface WireError {
  kind: ErrorKind;
  message: string;
  info?: Record<string, unknown>;
}

export interface CetusErrorOptions {
  cause?: unknown;
  /** Facts for programs: identifiers, expected and actual values. Never credentials. */
  info?: Record<string, unknown>;
}

export class CetusError extends Error {
  override readonly name = 'CetusError';
  readonly kind: ErrorKind;
  readonly info: Record<string, unknown>;

  constructor(kind: ErrorKind, message: string, options: CetusErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : {cause: options.cause});
    this.kind = kind;
    this.info = options.info ?? {};
  }

  toWire(): WireError {
    return {kind: this.kind, message: this.message, ...(Object.keys(this.info).length ? {info: this.info} : {})};
  }
}

export function isCetusError(err: unknown, kind?: ErrorKind): err is CetusError {
  return err instanceof CetusError && (kind === undefined || err.kind === kind);
}

/** Any thrown value as a CetusError; what is not ours already becomes `internal` and keeps its cause. */
export function asCetusError(err: unknown, doing?: string): CetusError {
  if (err instanceof CetusError) return err;
  const message = err instanceof Error ? err.message : String(err);
  return new CetusError('internal', doing ? `${doing}: ${message}` : message, {cause: err});
}

export function fromWire(wire: unknown): CetusError {
  const w = wire as Partial<WireError> | null;
  if (w && typeof w.message === 'string' && typeof w.kind === 'string' && KINDS.has(w.kind))
    return new CetusError(w.kind, w.message, {info: w.info});
  return new CetusError('internal', 'an answer that is not an error description', {info: {answer: wire as never}});
}

/** Proves to the compiler that a union is exhausted. */
export function unreachable(value: never): never {
  throw new CetusError('internal', `unhandled case ${JSON.stringify(value)}`);
}
