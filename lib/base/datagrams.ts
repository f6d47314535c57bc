/**
 * Datagrams on a stream, as DNS has them over TCP (RFC 1035, 4.2.2): two bytes of length before each. For UDP through a connection; who writes faster than the
 * other side reads loses datagrams, as on any network, and memory never.
 */
import type {Duplex} from 'node:stream';

export const MAX_DATAGRAM_BYTES = 65_535;
/** Waiting to be sent: beyond it datagrams are dropped. */
export const MAX_QUEUED_BYTES = 1024 * 1024;

/** False where it was dropped. */
export function writeDatagram(stream: Duplex, datagram: Buffer): boolean {
  if (datagram.length > MAX_DATAGRAM_BYTES || stream.destroyed || stream.writableEnded || stream.writableLength > MAX_QUEUED_BYTES) return false;
  const length = Buffer.allocUnsafe(2);
  length.writeUInt16BE(datagram.length);
  stream.write(length);
  stream.write(datagram);
  return true;
}

/** `each` for every datagram that arrives whole. */
export function readDatagrams(stream: Duplex, each: (datagram: Buffer) => void): void {
  let rest: Buffer = Buffer.alloc(0);
  stream.on('data', (chunk: Buffer) => {
    let at = 0;
    const bytes = rest.length ? Buffer.concat([rest, chunk]) : chunk;
    while (bytes.length - at >= 2 && bytes.length - at - 2 >= bytes.readUInt16BE(at)) {
      const end = at + 2 + bytes.readUInt16BE(at);
      each(bytes.subarray(at + 2, end));
      at = end;
    }
    rest = bytes.subarray(at);
  });
}
