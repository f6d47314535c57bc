/**
 * A request's body of any length, for a reader that may give it up: not the request itself, which a reader that gives up would destroy, and
 * Node the connection with it, answer and all. The request is read ahead by 1 MiB at most. What arrives in pieces (clients cut bodies into
 * 32 KiB, sockets into 64) comes out in lumps: each piece costs every stream on its way as much as a lump does. Nothing is held back for it:
 * a lump is what one turn of the event loop brought.
 */
import type {IncomingMessage} from 'node:http';
import {Readable} from 'node:stream';
import {CetusError} from './errors';
import type {Framing} from './framing';

/** What another process of this machine needs to read the rest of a body from its connection. */
export interface Loan {
  /** Of this process; good for as long as the body is not destroyed. */
  descriptor: number;
  /** What was read already, and belongs before the rest. */
  read: Buffer;
  framing: Framing;
  /** A sender that is silent for longer has given up. */
  silenceMs: number;
}

/** A body that others may go on reading. Until it is taken back or destroyed nothing is read here. */
export interface LendableBody extends Readable {
  /** undefined where that cannot be, or nothing is left to be read. */
  lend(): Loan | undefined;
  takeBack(loan: Loan): void;
}

export const isLendable = (body: Readable): body is LendableBody => typeof (body as Partial<LendableBody>).lend === 'function';

const LUMP_BYTES = 256 * 1024;
const AHEAD_BYTES = 1024 * 1024;

/** `heard` is called for each piece. Ends with `canceled` where the sender leaves before its end. */
export function uploadBody(req: IncomingMessage, heard: () => void = () => undefined): Readable {
  let pieces: Buffer[] = [];
  let bytes = 0;
  let turn: NodeJS.Immediate | undefined;
  const body = new Readable({highWaterMark: AHEAD_BYTES, read: () => void req.resume()});
  const flush = (): void => {
    if (turn) clearImmediate(turn);
    turn = undefined;
    if (bytes === 0 || body.destroyed) return;
    const lump = pieces.length === 1 ? pieces[0]! : Buffer.concat(pieces, bytes);
    [pieces, bytes] = [[], 0];
    if (!body.push(lump)) req.pause();
  };
  const onData = (piece: Buffer): void => {
    heard();
    pieces.push(piece);
    bytes += piece.length;
    if (bytes >= LUMP_BYTES) flush();
    else turn ??= setImmediate(flush);
  };
  const onEnd = (): void => {
    flush();
    body.push(null);
  };
  // The sender may leave while nobody reads yet, or no longer; readers see it all the same.
  body.on('error', () => undefined);
  body.once('close', () => {
    if (turn) clearImmediate(turn);
    pieces = [];
    req.off('data', onData).off('end', onEnd);
    if (!req.readableEnded) req.pause();
  });
  req.once('aborted', () => body.destroy(new CetusError('canceled', 'the client left before its request was complete')));
  req.on('data', onData).once('end', onEnd);
  return body;
}
