/** Datagrams on unix sockets (/dev/log), which Node.js does not have: a descriptor of libc's. Sending never waits. */
import {closeSync} from 'node:fs';
import {getSystemErrorName} from 'node:util';
import type * as Koffi from 'koffi' with {'resolution-mode': 'import'};

const AF_UNIX = 1;
const SOCK_DGRAM_CLOEXEC = 2 | 0o2000000;
const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;
const MAX_PATH_BYTES = 107;

interface Libc {
  socket(domain: number, type: number, protocol: number): number;
  connect(fd: number, address: Buffer, length: number): number;
  send(fd: number, bytes: Buffer, length: number, flags: number): number;
  errno(): number;
}
let loaded: Libc | undefined;

function libc(): Libc {
  if (loaded) return loaded;
  const koffi = require('koffi') as typeof Koffi;
  const lib = koffi.load('libc.so.6');
  loaded = {
    socket: lib.func('int socket(int domain, int type, int protocol)') as Libc['socket'],
    connect: lib.func('int connect(int fd, const void *address, unsigned int length)') as Libc['connect'],
    send: lib.func('long send(int fd, const void *bytes, size_t length, int flags)') as Libc['send'],
    errno: () => koffi.errno(),
  };
  return loaded;
}

export class UnixDatagrams {
  private readonly fd: number;

  /** Throws Node's kind of error where nobody listens there. */
  constructor(path: string) {
    const name = Buffer.from(path);
    if (name.length > MAX_PATH_BYTES) throw failure('connect', 'ENAMETOOLONG');
    this.fd = libc().socket(AF_UNIX, SOCK_DGRAM_CLOEXEC, 0);
    if (this.fd < 0) throw lastFailure('socket');
    const address = Buffer.alloc(2 + name.length + 1);
    address.writeUInt16LE(AF_UNIX, 0);
    name.copy(address, 2);
    if (libc().connect(this.fd, address, address.length) === 0) return;
    const err = lastFailure('connect');
    closeSync(this.fd);
    throw err;
  }

  /** false: the other side is full, the datagram was not taken. Throws where nobody listens any more. */
  send(bytes: Buffer): boolean {
    if (libc().send(this.fd, bytes, bytes.length, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0) return true;
    const err = lastFailure('send');
    if (err.code === 'EAGAIN' || err.code === 'ENOBUFS') return false;
    throw err;
  }

  close(): void {
    closeSync(this.fd);
  }
}

function lastFailure(call: string): NodeJS.ErrnoException {
  return failure(call, getSystemErrorName(-libc().errno()));
}

function failure(call: string, code: string): NodeJS.ErrnoException {
  return Object.assign(new Error(`${call} ${code}`), {code, syscall: call});
}
