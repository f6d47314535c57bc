/**
 * A connection's descriptor, for another process of this machine to read from while nothing is read here. Node has no public name for it: where there
 * is none (TLS, something else than a socket, another version of Node) the answer is undefined, and the bytes have to go through this process.
 */
import {Socket} from 'node:net';
import type {Duplex} from 'node:stream';
import {TLSSocket} from 'node:tls';

interface Handle { fd?: number; reading?: boolean; readStop?(): unknown; readStart?(): unknown }

/** What was not read stays in the kernel until `release`. */
export interface HeldBack { descriptor: number; release(): void }

/** Not for a stream that has bytes in its buffer: who takes the descriptor would miss them. */
export function holdBack(stream: Duplex): HeldBack | undefined {
  const handle = stream instanceof Socket && !(stream instanceof TLSSocket) ? (stream as {_handle?: Handle | null})._handle : undefined;
  if (!handle?.readStop || !handle.readStart || !(handle.fd! >= 0) || stream.readableLength) return undefined;
  // The stream waits for bytes from now on, so it does not ask for them again, whatever is called.
  stream.read(0);
  handle.readStop();
  handle.reading = false;
  let released = false;
  const release = (): void => {
    if (released || stream.destroyed) return;
    released = true;
    handle.reading = true;
    handle.readStart!();
  };
  return {descriptor: handle.fd!, release};
}
