/** A pipe of 64 KiB between a fake process and whoever reads or writes it: it outlives its ends' owners, as a FIFO does. */
import {Writable} from 'node:stream';
import type {ProcessOutput} from './runtime';

const CAPACITY_BYTES = 64 * 1024;

export class FakePipe {
  private chunks: Buffer[] = [];
  private bytes = 0;
  private ended = false;
  private broken = false;
  private wake: (() => void)[] = [];

  /** Waits while the pipe is full; false where nobody will read. */
  async write(chunk: Buffer): Promise<boolean> {
    while (this.bytes >= CAPACITY_BYTES && !this.broken && !this.ended) await this.changed();
    if (this.broken || this.ended) return false;
    this.chunks.push(chunk);
    this.bytes += chunk.length;
    this.notify();
    return true;
  }

  /** null at the end, and for a reader that has gone while it waited: what it would have got is the next one's. */
  async read(isGone: () => boolean = () => false): Promise<Buffer | null> {
    while (this.chunks.length === 0 && !this.ended && !this.broken) await this.changed();
    if (isGone()) return null;
    const chunk = this.chunks.shift() ?? null;
    this.bytes -= chunk?.length ?? 0;
    this.notify();
    return chunk;
  }

  end(): void {
    this.ended = true;
    this.notify();
  }

  breakReader(): void {
    this.broken = true;
    this.chunks = [];
    this.notify();
  }

  output(): FakeOutput {
    return new FakeOutput(this);
  }

  writable(): Writable {
    return new Writable({
      highWaterMark: CAPACITY_BYTES,
      write: (chunk: Buffer, _encoding, callback) => {
        this.write(chunk).then(taken => callback(taken ? null : Object.assign(new Error('write EPIPE'), {code: 'EPIPE'})), callback);
      },
    });
  }

  changed(): Promise<void> {
    return new Promise(resolve => { this.wake.push(resolve); });
  }

  notify(): void {
    for (const wake of this.wake.splice(0)) wake();
  }
}

/** One reader's end of a pipe. */
class FakeOutput implements ProcessOutput {
  private paused = false;
  private gone = false;

  constructor(private readonly pipe: FakePipe) {}

  read(take: (chunk: Buffer) => void, end: () => void): void {
    const idle = (): boolean => this.paused || this.gone;
    void (async () => {
      while (!this.gone) {
        if (this.paused) {
          await this.pipe.changed();
          continue;
        }
        const chunk = await this.pipe.read(idle);
        if (chunk) take(chunk);
        else if (!idle()) break;
      }
      end();
    })();
  }

  pause(): void {
    this.paused = true;
    this.pipe.notify();
  }

  resume(): void {
    this.paused = false;
    this.pipe.notify();
  }

  destroy(): void {
    this.gone = true;
    this.pipe.notify();
  }
}
