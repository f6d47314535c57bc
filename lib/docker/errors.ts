/**
 * Error -> status, once. Everything below the edge throws CetusError with a kind and knows nothing of HTTP; every answer >= 400 of the edge
 * is `{"message": "..."}` and is made from this table. Whoever adds a kind must add a row: the compiler insists.
 */
import {type CetusError, type ErrorKind, asCetusError} from '../base/errors';

const STATUS: Record<ErrorKind, number> = {
  invalid: 400,
  unsupported: 400,
  unauthorized: 401,
  forbidden: 403,
  notFound: 404,
  notModified: 304,
  conflict: 409,
  // Somebody else wrote first and the verb gave up retrying: for a client that is a conflict like any other.
  etagConflict: 409,
  stale: 409,
  // "Come back later", not "your request is wrong": the CLI prints the message, schedulers retry a 503.
  noSpace: 503,
  unavailable: 503,
  // Clients that cancel are gone; whoever is still there was canceled by an operator or a shutdown.
  canceled: 503,
  timeout: 504,
  notImplemented: 501,
  internal: 500,
};

/** Mistakes that the Engine has not classified: it answers 500, and clients compare. */
const UNCLASSIFIED: Readonly<Record<string, readonly ErrorKind[]>> = {
  ContainerUnpause: ['conflict'],
  ContainerTop: ['invalid'],
  NetworkDisconnect: ['forbidden'],
};

export interface ErrorAnswer { status: number; error: CetusError }

export function errorAnswer(thrown: unknown, operationId?: string): ErrorAnswer {
  const error = asCetusError(thrown);
  const unclassified = operationId !== undefined && UNCLASSIFIED[operationId]?.includes(error.kind);
  // Not a node or a registry but our own store, which another server takes over: to be asked again, as any other moment without one.
  const overdue = error.kind === 'timeout' && error.info['late'] === 'store';
  return {status: unclassified ? 500 : overdue ? STATUS.unavailable : STATUS[error.kind], error};
}

/** The Engine's error document. */
export function errorBody(message: string): string {
  return `${JSON.stringify({message})}\n`;
}

/** The last line of a progress stream that failed after its first line was sent. */
export function errorLine(message: string): {errorDetail: {message: string}; error: string} {
  return {errorDetail: {message}, error: message};
}
