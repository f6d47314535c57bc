/** Docker's multiplexed stream: [1|2, 0,0,0, length as u32 BE][bytes]. The payload is never copied; header and payload leave in one writev. */
import type {StreamNumber} from '../logs/encode';

export const HEADER_BYTES = 8;

export function frameHeader(stream: StreamNumber, length: number): Buffer {
  const header = Buffer.allocUnsafe(HEADER_BYTES);
  header[0] = stream;
  header[1] = 0;
  header[2] = 0;
  header[3] = 0;
  header.writeUInt32BE(length, 4);
  return header;
}

/** For short texts that we make ourselves (an exec's error). */
export function frame(stream: StreamNumber, payload: Buffer): Buffer {
  return Buffer.concat([frameHeader(stream, payload.length), payload]);
}
