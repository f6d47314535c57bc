/**
 * A process of its own for the mount(2) calls of one volume: Node has no such call, the kernel's own errno is wanted, and a server that does
 * not answer holds this process and not the agent. Calls as JSON on stdin (they may hold a password), the outcome as JSON on stdout.
 */
import {readFileSync, writeSync} from 'node:fs';
import type * as Koffi from 'koffi' with {'resolution-mode': 'import'};
import type {MountCall} from './driver-options';

const koffi = require('koffi') as typeof Koffi;
const libc = koffi.load('libc.so.6');
const mount = libc.func('int mount(const char *source, const char *target, const char *type, unsigned long flags, const char *data)') as (
  source: string | null, target: string, type: string | null, flags: number, data: string | null) => number;
const strerror = libc.func('const char *strerror(int errnum)') as (errno: number) => string;

export interface MountOutcome { /** Index of the call that was refused. */ failed?: number; why?: string }

const outcome = ((): MountOutcome => {
  const calls = JSON.parse(readFileSync(0, 'utf8')) as MountCall[];
  for (const [failed, call] of calls.entries()) {
    if (mount(call.source || null, call.target, call.type || null, call.flags, call.data || null) === 0) continue;
    const why = strerror(koffi.errno());
    return {failed, why: why.charAt(0).toLowerCase() + why.slice(1)};
  }
  return {};
})();
writeSync(1, JSON.stringify(outcome));
