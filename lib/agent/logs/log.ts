/**
 * Where a container's output goes: the file that `docker logs` reads (json-file, local, and the cache beside syslog), the syslog server, or both. The
 * file comes first: nothing waits for it, and what it has is not lost with the agent. One for each run of a container, written to by its hub only.
 */
import os from 'node:os';
import type {Clock} from '../../base/clock';
import {type Tagged, tagOf} from './tag';
import type {StreamNumber} from './encode';
import type {LogOptions} from './options';
import {connectSyslog} from './syslog/connect';
import {BUFFER_BYTES, type DeliveryTrouble, SyslogDelivery} from './syslog/delivery';
import {type LogTrouble, LogWriter} from './writer';

export interface LogParts { path: string; clock: Clock; trouble: LogTrouble; delivery: DeliveryTrouble }

export class ContainerLog {
  readonly writer: LogWriter | undefined;
  private readonly remote: SyslogDelivery | undefined;
  closed = false;

  constructor(options: LogOptions, container: Tagged, parts: LogParts) {
    this.writer = options.cached ? new LogWriter(parts.path, options, parts.clock, parts.trouble) : undefined;
    const {syslog} = options;
    if (!syslog) return;
    const hostname = os.hostname();
    this.remote = new SyslogDelivery({
      sender: {
        facility: syslog.facility, format: syslog.format, hostname, tag: tagOf(syslog.tag, container, hostname), pid: process.pid,
        counted: syslog.address.proto === 'tcp+tls' && syslog.format.startsWith('rfc5424'),
      },
      blocking: options.bufferBytes === undefined, bufferBytes: options.bufferBytes ?? BUFFER_BYTES, clock: parts.clock, trouble: parts.delivery,
      connect: () => connectSyslog(syslog),
    });
  }

  /** Of a container that starts: fails where its log's server cannot be reached. */
  async open(): Promise<void> {
    await this.remote?.open();
  }

  /** Of a container that runs. */
  openLater(): void {
    this.remote?.openLater();
  }

  write(stream: StreamNumber, chunk: Buffer): Promise<void> | undefined {
    this.writer?.write(stream, chunk);
    return this.remote?.write(stream, chunk);
  }

  end(stream: StreamNumber): void {
    this.writer?.end(stream);
    this.remote?.end(stream);
  }

  /** Bytes of lines that are still open. */
  openLine(stream: StreamNumber): Buffer {
    return this.writer?.open(stream) ?? Buffer.alloc(0);
  }

  /** `suspend`: the agent goes, the container stays. */
  async close(mode: 'end' | 'suspend' = 'end'): Promise<void> {
    this.closed = true;
    await Promise.all([this.writer?.close(mode), this.remote?.close()]);
  }
}
