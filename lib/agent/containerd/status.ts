/**
 * gRPC statuses as CetusErrors. The status's own text is kept word for word: the agent recognises runc's messages in it. Where it is about the
 * call and not about the container (a deadline, a lost connection), clients are shown words of ours.
 */
import {status as Code, type ServiceError} from '@grpc/grpc-js';
import {CetusError, type ErrorKind, INTERNAL} from '../../base/errors';

const KINDS: Readonly<Partial<Record<Code, ErrorKind>>> = {
  [Code.NOT_FOUND]: 'notFound',
  [Code.ALREADY_EXISTS]: 'conflict',
  [Code.FAILED_PRECONDITION]: 'conflict',
  [Code.ABORTED]: 'conflict',
  [Code.INVALID_ARGUMENT]: 'invalid',
  [Code.OUT_OF_RANGE]: 'invalid',
  [Code.PERMISSION_DENIED]: 'forbidden',
  [Code.UNAUTHENTICATED]: 'forbidden',
  [Code.UNAVAILABLE]: 'unavailable',
  [Code.RESOURCE_EXHAUSTED]: 'unavailable',
  [Code.DEADLINE_EXCEEDED]: 'timeout',
  [Code.CANCELLED]: 'canceled',
  [Code.UNIMPLEMENTED]: 'notImplemented',
};

export const SHOWN: Readonly<Partial<Record<ErrorKind, string>>> = {
  timeout: 'the container runtime of the node did not answer in time',
  unavailable: 'the container runtime of the node cannot be reached now; try again',
  canceled: 'the container runtime of the node broke off',
  notImplemented: 'the container runtime of the node does not know how to do this',
};

/** A call's deadline ends it on either side. Where containerd's clock is the faster one, what comes is its context's error, which has no status of its own. */
function contextKind(details = ''): ErrorKind | undefined {
  const [, how] = /\bcontext (deadline exceeded|canceled)(?:: unknown)?$/.exec(details) ?? [];
  return how === undefined ? undefined : (how === 'canceled' ? 'canceled' : 'timeout');
}

/** `info.status` holds the gRPC name, so that a caller can tell ALREADY_EXISTS from FAILED_PRECONDITION. */
export function fromStatus(err: unknown, method: string): CetusError {
  if (err instanceof CetusError) return err;
  const {code, details} = err as Partial<ServiceError>;
  if (code === undefined) return new CetusError('internal', `containerd ${method}: ${err instanceof Error ? err.message : String(err)}`, {cause: err, shown: INTERNAL});
  const kind = KINDS[code] ?? (code === Code.UNKNOWN ? contextKind(details) : undefined) ?? 'internal';
  return new CetusError(kind, details || `containerd ${method} failed`, {cause: err, shown: SHOWN[kind], info: {status: Code[code], method}});
}

export function hasStatus(err: unknown, name: keyof typeof Code): boolean {
  return err instanceof CetusError && err.info.status === name;
}
