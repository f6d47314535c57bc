/** Why a process could not be started, in the Engine's words and exit codes: 127 not found, 126 not executable, 128 anything else. Pure. */
import {asCetusError, CetusError} from '../../base/errors';

const NOT_FOUND = /executable file not found|no such file or directory/i;
const NOT_ALLOWED = /permission denied|not a directory|is a directory|exec format error/i;

export interface StartFailure { error: CetusError; exitCode: number }

export function startFailure(err: unknown): StartFailure {
  return failureOf(err, 'failed to create task for container: ');
}

export function execFailure(err: unknown): StartFailure {
  return failureOf(err, '');
}

function failureOf(err: unknown, prefix: string): StartFailure {
  const error = asCetusError(err);
  // runc and the shim say it in their own words, which the Engine passes on behind its prefix.
  const fromRuntime = /runc|OCI runtime|shim|unable to start container process|exec:/i.test(error.message);
  if (!fromRuntime) return {error, exitCode: 128};
  const exitCode = NOT_FOUND.test(error.message) ? 127 : NOT_ALLOWED.test(error.message) ? 126 : 128;
  const message = prefix && !error.message.startsWith(prefix) ? `${prefix}${error.message}` : error.message;
  return {error: new CetusError(exitCode === 128 ? error.kind : 'invalid', message, {cause: err, info: {...error.info, exitCode}}), exitCode};
}
