/**
 * A process's output out of its FIFO. Guarantees: not a byte is read before somebody takes it, none rests in this process between read(2) and
 * `take`, and after `pause` none is read. So what an agent that dies takes along is what `take` had not made safe yet, and what it never
 * read is the next agent's. A Readable would fill its own buffer ahead of its reader: at its construction, and behind every pause.
 * Whoever writes without end leaves the rest of the agent its turns: libuv alone reads a full FIFO 32 times before it looks at anything else,
 * which for lines of one byte (7 ms a chunk to log) took every start and exec on the node twelve times as long.
 */
import fs from 'node:fs';
import net from 'node:net';
import type {ProcessOutput} from './runtime';

/** Of all FIFOs together: each read is done with before the next one begins. As much as a FIFO holds. */
const CHUNK = Buffer.allocUnsafeSlow(64 * 1024);

/** What output may take of one turn of the event loop, all FIFOs together; the chunk that exceeds it is still done with. */
const TURN_MS = 2;
const turn = {spentMs: 0, ends: undefined as NodeJS.Immediate | undefined};

function spend(work: () => void): void {
  const before = performance.now();
  work();
  turn.spentMs += performance.now() - before;
  turn.ends ??= setImmediate(() => Object.assign(turn, {spentMs: 0, ends: undefined}));
}

export class FifoOutput implements ProcessOutput {
  private fd: number | undefined;
  private socket: net.Socket | undefined;
  private paused = false;

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
      spend(() => take(CHUNK.subarray(0, bytes)));
      if (turn.spentMs < TURN_MS) return true;
      // After the turn's end, which was asked for before.
      setImmediate(() => { if (!this.paused) this.socket?.resume(); });
      return false;
    };
    // `onread` is documented for the constructor, too, and missing in its types.
    const options: net.SocketConstructorOpts & {onread: net.OnReadOpts} = {fd, readable: true, writable: false, onread: {buffer: CHUNK, callback}};
    this.socket = new net.Socket(options);
    // A reader that leaves early is not an accident of ours.
    this.socket.on('error', finish).once('end', finish).once('close', finish);
  }

  pause(): void {
    this.paused = true;
    this.socket?.pause();
  }

  resume(): void {
    this.paused = false;
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
