/**
 * `node no-sync.js COMMAND ARGUMENT...` becomes COMMAND, for which, and for all that it starts, fsync and its kin succeed at once: a filter of seccomp
 * answers them in place of the kernel. What an engine writes is a cache; waiting for the disk is a third of a build that changes nothing, and most of an
 * `apt-get install`. Who calls must take what was written for lost where the machine goes down (unsynced.ts).
 *
 * Where the filter cannot be had (another architecture, a kernel without it) COMMAND runs as it would anyway; 127 where there is none.
 */
import {arch, constants} from 'node:os';
import process from 'node:process';
import type * as Koffi from 'koffi' with {'resolution-mode': 'import'};

// Its types call it a module of the other kind; it comes as both.
const koffi = require('koffi') as typeof Koffi;
const libc = koffi.load('libc.so.6');
const prctl = libc.func('int prctl(int option, unsigned long mode, const void *program)') as (option: number, mode: number, program: Buffer) => number;
const signal = libc.func('void *signal(int number, intptr_t action)') as (number: number, action: number) => unknown;
const fcntl = libc.func('int fcntl(int fd, int command, int value)') as (fd: number, command: number, value: number) => number;
const execvp = libc.func('int execvp(const char *file, const char **arguments)') as (file: string, args: (string | null)[]) => number;

const PR_SET_SECCOMP = 22;
const SECCOMP_MODE_FILTER = 2;
const SIG_DFL = 0;
const F_SETFD = 2;

/** AUDIT_ARCH_* of linux/audit.h, and the numbers of fsync, fdatasync, sync, syncfs, sync_file_range, msync. */
const CALLS: Readonly<Record<string, {arch: number; numbers: readonly number[]}>> = {
  x64: {arch: 0xc000003e, numbers: [74, 75, 162, 306, 277, 26]},
  arm64: {arch: 0xc00000b7, numbers: [82, 83, 81, 267, 84, 227]},
};

const LOAD_WORD = 0x20;
const JUMP_IF_EQUAL = 0x15;
const RETURN = 0x06;
const ALLOW = 0x7fff0000;
/** SECCOMP_RET_ERRNO with the number 0, which is success. */
const SUCCEED = 0x00050000;
/** In struct seccomp_data. */
const NUMBER_AT = 0;
const ARCH_AT = 4;

/** struct sock_filter, one after the other: of the native architecture's calls those named succeed, all others are made. */
export function filter({arch: native, numbers}: {arch: number; numbers: readonly number[]}): Buffer {
  const allowAt = 3 + numbers.length;
  const program = [
    [LOAD_WORD, 0, 0, ARCH_AT],
    [JUMP_IF_EQUAL, 0, allowAt - 2, native],
    [LOAD_WORD, 0, 0, NUMBER_AT],
    ...numbers.map((number, i) => [JUMP_IF_EQUAL, numbers.length - i, 0, number]),
    [RETURN, 0, 0, ALLOW],
    [RETURN, 0, 0, SUCCEED],
  ] as const;
  const bytes = Buffer.alloc(program.length * 8);
  for (const [i, [code, yes, no, value]] of program.entries()) {
    bytes.writeUInt16LE(code!, i * 8);
    bytes.writeUInt8(yes!, i * 8 + 2);
    bytes.writeUInt8(no!, i * 8 + 3);
    bytes.writeUInt32LE(value!, i * 8 + 4);
  }
  return bytes;
}

function install(): void {
  const calls = CALLS[arch()];
  if (!calls) return;
  const instructions = filter(calls);
  // struct sock_fprog: how many, and where.
  const program = Buffer.alloc(16);
  program.writeUInt16LE(instructions.length / 8);
  program.writeBigUInt64LE(BigInt(koffi.address(instructions)), 8);
  if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, program) !== 0) process.stderr.write('no filter of seccomp: what is written waits for the disk\n');
}

function main([file, ...args]: string[]): void {
  if (file === undefined) {
    process.stderr.write('usage: no-sync COMMAND ARGUMENT...\n');
    process.exit(2);
  }
  install();
  // Ignored signals stay ignored in what is executed; Node ignores this one.
  signal(constants.signals.SIGPIPE, SIG_DFL);
  // It closes these three to whom it starts, too.
  for (const fd of [0, 1, 2]) fcntl(fd, F_SETFD, 0);
  execvp(file, [file, ...args, null]);
  process.stderr.write(`${file} cannot be executed\n`);
  process.exit(127);
}

if (require.main === module) main(process.argv.slice(2));
