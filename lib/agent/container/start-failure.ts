/** A failed start as the caller gets it: the Engine's text, its exit code, and `invalid` where the command itself is wrong. Pure. */
import {asCetusError, CetusError, type ErrorKind} from '../../base/errors';
import {classifyStartError} from '../runtime/start-error';

/** Failures of a start that say nothing about how far it came. */
export const UNHEARD: ReadonlySet<ErrorKind> = new Set(['unavailable', 'timeout', 'canceled']);

export interface StartFailure { error: CetusError; exitCode: number }

export function startFailure(err: unknown): StartFailure {
  const error = asCetusError(err);
  // The runtime's text says how the call ended, not what is wrong with the command.
  if (UNHEARD.has(error.kind)) return {error, exitCode: 128};
  // Refusals of our own parts (a taken port, a missing bind source, an unknown user) are worded already; what follows is the runtime's.
  if (!/OCI runtime|shim task|unable to start container process|exec: "/.test(error.message)) return {error, exitCode: 128};
  const {exitCode, message} = classifyStartError(err);
  return {error: new CetusError(exitCode === 128 ? error.kind : 'invalid', message, {cause: err, info: {...error.info, exitCode}}), exitCode};
}
