/** What the Engine makes of a process that could not be started: an exit code for the shell's conventions, and the message it shows. */

export interface StartError {
  /** 127: the command does not exist. 126: it exists and cannot be run. 128: anything else. */
  exitCode: 126 | 127 | 128;
  message: string;
}

const NOT_FOUND = /executable file not found|no such file or directory|system cannot find the file specified/i;
const NOT_RUNNABLE = /permission denied|is a directory|exec format error/i;
const WRONG_KIND = /not a directory/i;

// As the Engine appends it where a bind mount meets the wrong kind of file.
const MOUNT_HINT = ': Are you trying to mount a directory onto a file (or vice-versa)? Check if the specified host path exists and is the expected type';

/** For errors of Runtime.createTask, startTask and exec. */
export function classifyStartError(err: unknown): StartError {
  const text = err instanceof Error ? err.message : String(err);
  // The Engine says which of its calls failed; containerd's own text follows unchanged.
  const message = text.startsWith('failed to create shim task') ? `failed to create task for container: ${text}` : text;
  if (WRONG_KIND.test(text)) return {exitCode: 127, message: message + MOUNT_HINT};
  if (NOT_FOUND.test(text)) return {exitCode: 127, message};
  if (NOT_RUNNABLE.test(text)) return {exitCode: 126, message};
  return {exitCode: 128, message};
}
