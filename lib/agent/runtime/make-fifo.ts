/** mkfifo(3), which Node does not have, in place of a process that makes them. Throws Node's kind of error. */
import {getSystemErrorName} from 'node:util';
import type * as Koffi from 'koffi' with {'resolution-mode': 'import'};

// Its types call it a module of the other kind; it comes as both.
const koffi = require('koffi') as typeof Koffi;
const mkfifo = koffi.load('libc.so.6').func('int mkfifo(const char *path, unsigned int mode)') as (path: string, mode: number) => number;

export function makeFifo(path: string, mode: number): void {
  if (mkfifo(path, mode) === 0) return;
  const errno = koffi.errno();
  const code = getSystemErrorName(-errno);
  throw Object.assign(new Error(`${code}: mkfifo '${path}'`), {code, errno: -errno, syscall: 'mkfifo'});
}
