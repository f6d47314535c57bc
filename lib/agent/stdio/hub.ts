/**
 * The one reader of a process's output, and the way to its stdin. Every chunk goes first to the log, then to each attached client; none is read
 * before `connect` gave it its log, or while somebody is waited for, so that a dying agent takes along no byte but those on their way into the log.
 *
 * Backpressure: a client with more than CLIENT_BUFFER bytes unsent pauses the reading for everybody (as the Engine does), so memory is
 * bounded and nobody loses a byte; a client that has not drained within STALL_MS is cut off, so it cannot stop the container for ever.
 * Clients may attach before the process exists: they get its output from the first byte. `ended` resolves after the last byte of both
 * streams has been handed on.
 */
import type {Writable} from 'node:stream';
import type {Clock} from '../../base/clock';
import type {StreamNumber} from '../logs/encode';
import type {ProcessIo, ProcessOutput} from '../runtime/runtime';
import {frameHeader} from './frames';

const CLIENT_BUFFER = 1024 * 1024;
export const STALL_MS = 120_000;

export interface LogTarget {
  /** Has the chunk only until it returns. */
  /** A promise: nothing more is to be read until it resolves. */
  write(stream: StreamNumber, chunk: Buffer): Promise<void> | undefined | void;
  end(stream: StreamNumber): void;
}

export interface HubClient {
  sink: Writable;
  stdout: boolean;
  stderr: boolean;
  /** Called once when the client is let go: the process has ended, or the client stalled. The sink is ended or destroyed by then. */
  onGone?(): void;
}

export class StdioHub {
  private readonly clients = new Set<HubClient>();
  private readonly blocked = new Map<HubClient, AbortController>();
  private sources: ProcessOutput[] = [];
  private open = 0;
  private io: ProcessIo | undefined;
  private log: LogTarget | undefined;
  private stdinWaiters: ((stdin: Writable | undefined) => void)[] = [];
  private logHold: (() => void) | undefined;
  private finished = false;
  private markEnded!: () => void;
  readonly ended = new Promise<void>((resolve) => (this.markEnded = resolve));

  constructor(private readonly tty: boolean, private readonly clock: Clock) {}

  get closed(): boolean {
    return this.finished;
  }

  /** Reads a process's output at this moment. */
  get connected(): boolean {
    return this.io !== undefined && !this.finished;
  }

  connect(io: ProcessIo, log?: LogTarget): void {
    this.io = io;
    this.log = log;
    this.source(io.stdout, 1);
    this.source(io.stderr, 2);
    if (this.open === 0) this.markEnded();
    io.stdin?.on('error', () => undefined); // EPIPE: the process closed its stdin; its output goes on
    for (const resolve of this.stdinWaiters) resolve(io.stdin);
    this.stdinWaiters = [];
    if (this.blocked.size) this.pause();
  }

  private source(output: ProcessOutput | undefined, stream: StreamNumber): void {
    if (!output) return;
    this.open += 1;
    this.sources.push(output);
    output.read((chunk) => this.deliver(stream, chunk), () => {
      this.log?.end(stream);
      this.open -= 1;
      if (this.open === 0) this.markEnded();
    });
  }

  private deliver(stream: StreamNumber, chunk: Buffer): void {
    const full = this.log?.write(stream, chunk);
    if (full) this.holdFor(full);
    if (this.clients.size) this.pass(stream, chunk);
  }

  /** One hold, however many chunks are read before the pause is heard. */
  private holdFor(full: Promise<void>): void {
    if (this.logHold) return;
    this.logHold = this.hold();
    void full.finally(() => {
      this.logHold?.();
      this.logHold = undefined;
    });
  }

  private pass(stream: StreamNumber, memory: Buffer): void {
    let chunk: Buffer | undefined;
    for (const client of this.clients) {
      if (stream === 1 ? !client.stdout : !client.stderr) continue;
      const {sink} = client;
      // Sinks keep what they cannot send yet, and the chunk's memory is not ours to keep.
      chunk ??= Buffer.from(memory);
      if (this.tty) {
        sink.write(chunk);
      } else {
        sink.cork();
        sink.write(frameHeader(stream, chunk.length));
        sink.write(chunk);
        sink.uncork();
      }
      if (sink.writableLength > CLIENT_BUFFER && !this.blocked.has(client)) this.block(client);
    }
  }

  private block(client: HubClient): void {
    const stall = new AbortController();
    this.blocked.set(client, stall);
    this.pause();
    client.sink.once('drain', () => this.unblock(client));
    this.clock.sleep(STALL_MS, stall.signal).then(() => {
      client.sink.destroy();
      this.detach(client);
    }, () => undefined);
  }

  private unblock(client: HubClient): void {
    this.blocked.get(client)?.abort();
    if (this.blocked.delete(client) && this.blocked.size === 0) for (const source of this.sources) source.resume();
  }

  private pause(): void {
    for (const source of this.sources) source.pause();
  }

  /** From now on the client gets every byte that is read. Held back bytes (a log replay) are the caller's: see `hold`. */
  attach(client: HubClient): void {
    if (this.finished) {
      client.sink.end();
      client.onGone?.();
      return;
    }
    this.clients.add(client);
    const gone = (): void => this.detach(client);
    client.sink.once('close', gone);
    client.sink.once('error', gone);
  }

  detach(client: HubClient): void {
    if (!this.clients.delete(client)) return;
    this.unblock(client);
    client.onGone?.();
  }

  /** Stops the reading while somebody replays the past to a new client; call the answer to go on. */
  hold(): () => void {
    const key: HubClient = {sink: undefined as never, stdout: false, stderr: false};
    this.blocked.set(key, new AbortController());
    this.pause();
    let released = false;
    return () => {
      if (released) return;
      released = true;
      this.unblock(key);
    };
  }

  /** The process's stdin, as soon as there is a process; undefined where it has none or never came to be. */
  stdin(): Promise<Writable | undefined> {
    if (this.io) return Promise.resolve(this.io.stdin);
    if (this.finished) return Promise.resolve(undefined);
    return new Promise((resolve) => this.stdinWaiters.push(resolve));
  }

  async closeStdin(): Promise<void> {
    await this.io?.closeStdin();
  }

  /** The process is over and `ended` has been waited for: clients see the end of the stream, and our ends of the FIFOs are let go. */
  finish(): void {
    if (this.finished) return;
    this.finished = true;
    this.markEnded();
    for (const client of [...this.clients]) {
      client.sink.end();
      this.detach(client);
    }
    for (const resolve of this.stdinWaiters) resolve(undefined);
    this.stdinWaiters = [];
    this.io?.detach();
  }

  /** Clients are let go, the process's stdin is left as it is: it was not they who ended it. */
  cutClients(): void {
    for (const client of [...this.clients]) {
      this.detach(client);
      client.sink.destroy();
    }
  }

  /** The agent goes, the process stays. */
  suspend(): void {
    this.finished = true;
    // An open line stays open for the next agent: the end of our streams is not the end of the process's.
    this.log = undefined;
    this.cutClients();
    for (const stall of this.blocked.values()) stall.abort();
    this.io?.detach();
  }
}
