/**
 * A request's body on a connection that was taken over behind the request's head, as a stream: framed by its length or by chunks. Unlike Node's own
 * reading of a body this can be given away half-way: `lend` says what another process of this machine needs to read the rest from the connection itself.
 * Ends with `canceled` where the client leaves before the end, with `timeout` where it is silent for too long.
 */
import type {Socket} from 'node:net';
import {Readable} from 'node:stream';
import {type HeldBack, holdBack} from '../base/descriptor';
import {CetusError} from '../base/errors';
import {type Framing, Unframer} from '../base/framing';
import type {LendableBody, Loan} from '../base/upload';

const AHEAD_BYTES = 1024 * 1024;

export class RawBody extends Readable implements LendableBody {
  private readonly unframer: Unframer;
  private readonly timer: NodeJS.Timeout;
  private held: HeldBack | undefined;

  constructor(private readonly socket: Socket, framing: Framing, private readonly silenceMs: number) {
    super({highWaterMark: AHEAD_BYTES});
    this.unframer = new Unframer(framing);
    this.timer = setTimeout(() => this.destroy(new CetusError('timeout', 'the request body stalled')), silenceMs);
    // The client may leave while nobody reads yet, or no longer; readers see it all the same.
    this.on('error', () => undefined);
    socket.pause();
    socket.on('data', this.onPiece).once('end', this.onLeft).once('close', this.onLeft);
    if (socket.destroyed) this.onLeft();
  }

  override _read(): void {
    if (!this.held) this.socket.resume();
  }

  override _destroy(err: Error | null, done: (err?: Error | null) => void): void {
    this.letGo();
    done(err);
  }

  lend(): Loan | undefined {
    const {socket} = this;
    if (this.destroyed || this.readableEnded || socket.destroyed) return undefined;
    socket.pause();
    // `onPiece` is called for each piece.
    while (socket.readableLength > 0 && socket.read() !== null);
    if (this.destroyed || this.unframer.done) return undefined;
    this.held = holdBack(socket);
    if (!this.held) return undefined;
    clearTimeout(this.timer);
    const read = (this.readableLength ? this.read() : null) as Buffer | null;
    return {descriptor: this.held.descriptor, read: read ?? Buffer.alloc(0), framing: this.unframer.state, silenceMs: this.silenceMs};
  }

  takeBack({read}: Loan): void {
    const {held} = this;
    if (!held || this.destroyed) return;
    this.held = undefined;
    if (read.length) this.unshift(read);
    held.release();
    this.timer.refresh();
    this.socket.resume();
  }

  private readonly onPiece = (piece: Buffer): void => {
    this.timer.refresh();
    try {
      const end = this.unframer.take(piece, 0, piece.length);
      if (end > 0 && !this.push(piece.subarray(0, end))) this.socket.pause();
    } catch (err) {
      return void this.destroy(err as Error);
    }
    if (!this.unframer.done) return;
    this.letGo();
    this.push(null);
  };

  private readonly onLeft = (): void => void this.destroy(new CetusError('canceled', 'the client left before its request was complete'));

  /** The connection is as if nobody had ever read it. */
  private letGo(): void {
    clearTimeout(this.timer);
    this.socket.off('data', this.onPiece).off('end', this.onLeft).off('close', this.onLeft).pause();
    this.held?.release();
    this.held = undefined;
  }
}
