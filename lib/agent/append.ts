/**
 * Appending to a file of ours: all the bytes are there afterwards, or the file is as it was. A disk that is nearly full takes the first part of a
 * write and says so by a number only; what it took would make the next line unreadable. Called by whoever keeps a file of lines: logs, ledgers, records.
 */
import {ftruncateSync, writeSync} from 'node:fs';

/** `end`: the file's length in bytes before. Throws what the disk said. */
export function appendWhole(fd: number, bytes: Uint8Array, end: number): void {
  try {
    for (let at = 0; at < bytes.length;) at += writeSync(fd, bytes, at, bytes.length - at);
  } catch (err) {
    // Making a file shorter needs no room.
    ftruncateSync(fd, end);
    throw err;
  }
}
