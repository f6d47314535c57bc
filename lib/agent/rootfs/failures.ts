/** What goes wrong with a container's files, in the Engine's words. Where the Engine takes its own failure for the server's (500), so do we: clients match on it. */
import {CetusError, type WireError, asCetusError} from '../../base/errors';
import {codeOf} from './tree';

/** The request's own fault, though its kind is `internal`: nobody has to look into the logs for it. */
export const failed = (message: string): CetusError => new CetusError('internal', message, {info: {ofRequest: true}});

/** `info.file`: whoever knows how the caller called the container words it anew. */
export const missing = (path: string, container: string): CetusError => new CetusError('notFound', `Could not find the file ${path} in container ${container}`, {info: {file: path}});

export const UNEXPECTED_END = 'unexpected EOF';
export const INVALID_HEADER = 'archive/tar: invalid tar header';

const WORDS: Readonly<Record<string, string>> = {
  ENOENT: 'no such file or directory', ENOTDIR: 'not a directory', EISDIR: 'is a directory', EEXIST: 'file exists', ENOTEMPTY: 'directory not empty',
  ENAMETOOLONG: 'file name too long', EBUSY: 'device or resource busy', EROFS: 'read-only file system', ENOSPC: 'no space left on device', EDQUOT: 'disk quota exceeded',
  EPERM: 'operation not permitted', EACCES: 'permission denied', EINVAL: 'invalid argument', EXDEV: 'invalid cross-device link', ELOOP: 'too many levels of symbolic links',
  EFBIG: 'file too large', EMLINK: 'too many links', EIO: 'input/output error', ENXIO: 'no such device or address', ETXTBSY: 'text file busy', ENOMEM: 'cannot allocate memory',
};

/** An error of the system at `path` (as the container sees it), as Go prints it: what was tried, where, why. */
export function systemFailure(err: unknown, call: string, path: string): unknown {
  const words = WORDS[codeOf(err) ?? ''];
  return words === undefined || err instanceof CetusError ? err : failed(`${call} ${path}: ${words}`);
}

export function wireOf(err: unknown, path: string): WireError {
  return asCetusError(systemFailure(err, 'lstat', path)).toWire();
}
