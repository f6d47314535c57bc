/**
 * Notices that the peer of a half-open stream is gone. A peer that closes its socket looks like one that has merely nothing more to say: both
 * send a FIN, after which Node looks at the socket no more until it has something to write; on a quiet stream that may be never.
 *
 * So from the FIN on, nothing is written, again and again: a write of no bytes puts nothing on the wire and fails where the kernel knows that
 * nobody reads. On a unix socket it knows at once. Over TCP it learns it from a reset, which the peer's kernel sends at once where bytes of ours
 * arrive or lay unread, and else for a keep-alive probe, once it has forgotten the socket (Linux: tcp_fin_timeout, 60 s).
 */
import type {Socket} from 'node:net';
import type {Duplex} from 'node:stream';

const PROBE_MS = 500;
const KEEP_ALIVE_MS = 5_000;
const NOTHING = Buffer.alloc(0);

/** The stream is destroyed when its peer turns out to be gone. Its errors are the caller's to listen for. `unread`: somebody else reads it, so that no FIN is seen here. */
export function noticeHangUp(stream: Duplex, unread = false): void {
  (stream as Socket).setKeepAlive?.(true, KEEP_ALIVE_MS);
  const transport = transportOf(stream);
  const probe = (): void => {
    // What is on its way tells just as well.
    if (!stream.writableEnded && stream.writableLength === 0 && transport.writable) transport.write(NOTHING);
  };
  const begin = (): void => {
    if (stream.destroyed) return;
    const timer = setInterval(probe, PROBE_MS);
    timer.unref();
    stream.once('close', () => clearInterval(timer));
  };
  if (unread || stream.readableEnded) begin();
  else stream.once('end', begin);
}

/** TLS swallows the failure of an empty write, so that goes to the socket below. Node has no public name for it; without one, TLS waits for its next byte. */
function transportOf(stream: Duplex): Duplex {
  const below = (stream as {_parent?: unknown})._parent as Socket | null | undefined;
  return below && typeof below.write === 'function' ? below : stream;
}
