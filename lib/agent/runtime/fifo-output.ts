/**
 * A process's output out of its FIFO. Guarantees: not a byte is read before somebody takes it, none rests in this process between read(2) and
 * `take`, and after `pause` none is read. So what an agent that dies takes along is what `take` had not made safe yet, and what it never
 * read is the next agent's. A Readable would fill its own buffer ahead of its reader: at its construction, and behind every pause.
 */
import fs from 'node:fs';
import net from 'node:net';
import type {ProcessOutput} from './runtime';

/** Of all FIFOs together: each read is done with before the next one begins. As much as a FIFO holds. */
const CHUNK = Buffer.allocUnsafeSlow(64 * 1024);

export class FifoOutput implements ProcessOutput {
  private fd: number | undefined;
  private socket: net.Socket | undefined;

  /** Takes over the read end. */
  constructor(fd: number) {
    this.fd = fd;
  }

  read(take: (chunk: Buffer) => void, end: () => void): void {
    const {fd} = this;
    this.fd = undefined;
    if (fd === undefined) return end();
    let over = false;
    const finish = (): void => {
      if (over) return;
      over = true;
      end();
    };
    const callback = (bytes: number): boolean => {
      take(CHUNK.subarray(0, bytes));
      return true;
    };
    // `onread` is documented for the constructor, too, and missing in its types.
    const options: net.SocketConstructorOpts & {onread: net.OnReadOpts} = {fd, readable: true, writable: false, onread: {buffer: CHUNK, callback}};
    this.socket = new net.Socket(options);
    // A reader that leaves early is not an accident of ours.
    this.socket.on('error', finish).once('end', finish).once('close', finish);
  }

  pause(): void {
    this.socket?.pause();
  }

  resume(): void {
    this.socket?.resume();
  }

  /** Lets go of our end; what is still in the FIFO stays there. */
  destroy(): void {
    this.socket?.destroy();
    this.release();
  }

  /** As `destroy`, where nobody has ever read. */
  release(): void {
    if (this.fd !== undefined) fs.closeSync(this.fd);
    this.fd = undefined;
  }
}
