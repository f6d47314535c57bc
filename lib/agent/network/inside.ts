/**
 * Work inside network namespaces without a process inside: a netlink socket belongs for ever to the namespace that it was made in. The one thread of
 * JavaScript goes there for the three calls that make it, none of which waits for anybody, and comes back before anything else of ours can run.
 *
 * The kernel takes one change of interfaces at a time on the whole machine, and whoever asks waits: that is done on a thread of libuv's pool,
 * one at a time, so that our files are not kept waiting with it.
 */
import {closeSync, openSync, writeFileSync} from 'node:fs';
import {getSystemErrorMap} from 'node:util';
import type * as Koffi from 'koffi' with {'resolution-mode': 'import'};
import {Turns} from '../turns';
import {networkingFailed} from './failures';
import {answersIn, commandMessage, indexQuery, type LinkCommand, needsIndex} from './netlink';

// Its types call it a module of the other kind; it comes as both.
const koffi = require('koffi') as typeof Koffi;
const libc = koffi.load('libc.so.6');
const setns = libc.func('int setns(int fd, int type)') as (fd: number, type: number) => number;
const socket = libc.func('int socket(int family, int type, int protocol)') as (family: number, type: number, protocol: number) => number;
const send = libc.func('long send(int fd, const void *bytes, size_t length, int flags)');
const sendAside = send.async as (fd: number, bytes: Buffer, length: number, flags: number, done: (err: unknown, sent: number) => void) => void;
const receive = libc.func('long recv(int fd, _Out_ void *bytes, size_t length, int flags)') as (fd: number, bytes: Buffer, length: number, flags: number) => number;

const CLONE_NEWNET = 0x40000000;
const AF_NETLINK = 16;
const SOCK_RAW_CLOEXEC = 0o2000003;
const NETLINK_ROUTE = 0;
const MSG_DONTWAIT = 0x40;
/** The kernel's largest datagram here, a link with everything there is to say of it, has less than 4. */
const DATAGRAM_BYTES = 32 * 1024;
const DEADLINE_MS = 5_000;
/** Only IPv4 is carried: no link-local addresses, no router solicitations. Loopback keeps ::1. */
const NO_IPV6 = '/proc/sys/net/ipv6/conf/default/disable_ipv6';

export interface Inside {
  /** All of them are tried; rejects with what the kernel said of those that it refused. */
  run(commands: LinkCommand[]): Promise<void>;
  /** The namespace stays. */
  close(): void;
}

export class Namespaces {
  private home: number | undefined;
  private readonly turns = new Turns();
  private readonly answer = Buffer.alloc(DATAGRAM_BYTES);

  /** `unavailable` where there is no such namespace, or we may not. */
  open(path: string): Inside {
    try {
      this.home ??= openSync('/proc/thread-self/ns/net', 'r');
      return new Opened(socketIn(path, this.home), this.home, this.turns, this.answer);
    } catch (err) {
      throw networkingFailed(`open network namespace ${path}`, {kind: 'unavailable', cause: err});
    }
  }

  /** After the last namespace has been closed. */
  async close(): Promise<void> {
    await this.turns.settled();
    if (this.home !== undefined) closeSync(this.home);
    this.home = undefined;
  }
}

class Opened implements Inside {
  /** Of interfaces, as far as known; asked for together with what makes them. */
  private readonly indexes = new Map<string, number>();
  private sequence = 0;
  private running: Promise<void> = Promise.resolve();

  constructor(private readonly fd: number, private readonly home: number, private readonly turns: Turns, private readonly answer: Buffer) {}

  run(commands: LinkCommand[]): Promise<void> {
    const work = this.turns.hold('kernel', () => this.perform(commands));
    this.running = work.catch(() => undefined);
    return withDeadline(work);
  }

  close(): void {
    void this.running.then(() => closeSync(this.fd));
  }

  private async perform(commands: LinkCommand[]): Promise<void> {
    const unknown = commands.filter(command => (needsIndex(command) || command.do === 'pair') && !this.indexes.has(command.name)).map(command => command.name);
    const behind = unknown.length ? commands.filter(needsIndex) : [];
    const errors = await this.ask(behind.length ? commands.filter(command => !needsIndex(command)) : commands, [...new Set(unknown)]);
    if (behind.length) errors.push(...await this.ask(behind, []));
    if (errors.length) throw networkingFailed(errors.join('; '));
  }

  private async ask(commands: LinkCommand[], queries: string[]): Promise<string[]> {
    const first = this.sequence + 1;
    const messages = commands.map(command => commandMessage(command, this.sequence += 1, {peerNamespaceFd: this.home, index: this.indexes.get(command.name) ?? 0}));
    messages.push(...queries.map(name => indexQuery(name, this.sequence += 1)));
    const whole = Buffer.concat(messages);
    const sent = await new Promise<number>((resolve, reject) => {
      sendAside(this.fd, whole, whole.length, 0, (err, bytes) => (err ? reject(networkingFailed('ask the kernel', {cause: err})) : resolve(Number(bytes))));
    });
    if (sent !== whole.length) throw networkingFailed('the kernel does not take orders for interfaces', {kind: 'unavailable'});

    // The kernel works on them while they are being sent, so the answers are here.
    const open = new Map([...commands.map(describe), ...queries.map(name => `find ${name}`)].map((what, n) => [first + n, what]));
    const errors: string[] = [];
    while (open.size) {
      const bytes = Number(receive(this.fd, this.answer, this.answer.length, MSG_DONTWAIT));
      if (bytes <= 0) throw networkingFailed(`no answer of the kernel to: ${[...open.values()].join('; ')}`, {kind: 'unavailable'});
      for (const answer of answersIn(this.answer.subarray(0, bytes))) {
        const what = open.get(answer.sequence);
        if (what === undefined) continue;
        if (answer.kind === 'link') {
          const query = queries[answer.sequence - first - commands.length];
          if (query !== undefined) this.indexes.set(query, answer.index);
          continue;
        }
        open.delete(answer.sequence);
        if (answer.errno) errors.push(`${what}: ${getSystemErrorMap().get(-answer.errno)?.join(', ') ?? `error ${answer.errno}`}`);
      }
    }
    for (const command of commands) if (command.do === 'remove') this.indexes.delete(command.name);
    return errors;
  }
}

function describe(command: LinkCommand): string {
  return Object.values(command).join(' ');
}

function socketIn(path: string, home: number): number {
  const there = openSync(path, 'r');
  try {
    if (setns(there, CLONE_NEWNET) !== 0) throw new Error(`setns ${path}: ${lastError()}`);
    try {
      try { writeFileSync(NO_IPV6, '1'); } catch { /* a kernel without IPv6 */ }
      const fd = socket(AF_NETLINK, SOCK_RAW_CLOEXEC, NETLINK_ROUTE);
      if (fd < 0) throw new Error(`socket: ${lastError()}`);
      return fd;
    } finally {
      // Nothing of us may go on in there, with a container's network for the machine's own.
      if (setns(home, CLONE_NEWNET) !== 0) process.abort();
    }
  } finally {
    closeSync(there);
  }
}

function lastError(): string {
  return getSystemErrorMap().get(-koffi.errno())?.join(', ') ?? 'unknown error';
}

function withDeadline(work: Promise<void>): Promise<void> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(networkingFailed(`the kernel did not answer within ${DEADLINE_MS} ms`, {kind: 'timeout'})), DEADLINE_MS);
    work.then(resolve, reject).finally(() => clearTimeout(timer));
  });
}
