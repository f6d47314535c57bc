/**
 * Two half-open streams made one: bytes both ways with backpressure, the end of one direction is handed on and leaves the other as it is, and
 * nobody is left with a stream whose other half is gone. What a stream that ended in good order has still to say is written before that.
 */
import type {Duplex} from 'node:stream';
import {noticeHangUp} from '../../base/hang-up';

/** For a peer that has been told the end and goes on talking. */
const LINGER_MS = 5_000;

export function join(one: Duplex, other: Duplex): void {
  for (const [from, to] of [[one, other], [other, one]] as const) {
    from.on('error', () => undefined);
    from.once('close', () => close(from, to));
    noticeHangUp(from);
    from.pipe(to);
  }
}

function close(gone: Duplex, left: Duplex): void {
  if (left.destroyed) return;
  if (!gone.readableEnded) return void left.destroy();
  left.unpipe();
  left.resume();
  const linger = (): void => void setTimeout(() => left.destroy(), LINGER_MS).unref();
  if (left.writableFinished) linger();
  else left.once('finish', linger).end();
}
