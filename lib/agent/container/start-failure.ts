/** A failed start as the caller gets it: the Engine's text, its exit code, and `invalid` where the command itself is wrong. Pure. */
import {asCetusError, CetusError} from '../../base/errors';
import {classifyStartError} from '../runtime/start-error';

export interface StartFailure { error: CetusError; exitCode: number }

export function startFailure(err: unknown): StartFailure {
  const error = asCetusError(err);
  // Refusals of our own parts (a taken port, a missing bind source, an unknown user) are worded already; what follows is the runtime's.
  if (!/OCI runtime|shim task|unable to start container process|exec: "/.test(error.message)) return {error, exitCode: 128};
  const {exitCode, message} = classifyStartError(err);
  return {error: new CetusError(exitCode === 128 ? error.kind : 'invalid', message, {cause: err, info: {...error.info, exitCode}}), exitCode};
}
