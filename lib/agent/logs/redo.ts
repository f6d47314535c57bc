/**
 * A log's last step, written down before it is done (ID-json.log.open): the chunk that was read, the lines that were open before it, and where the
 * log ended. An agent that was killed anywhere behind `save` is made good by the next one, who cuts the log back to that end and does the
 * step again with the same stamps: no byte is lost, none comes twice, no entry stays torn.
 *
 * Two records take turns, because a kill may cut a write at a page: a torn record is known by its trailer, and the step of the one before it
 * was finished. Nothing is ever synced: this is about the agent's death, not the machine's. Called by the log's writer only.
 */
import {closeSync, constants, openSync, readFileSync, writeSync} from 'node:fs';
import {CetusError} from '../../base/errors';
import type {StreamNumber} from './encode';

/** The longest chunk of one step. */
export const MAX_STEP_BYTES = 64 * 1024;

export interface Step {
  /** `end`: the stream's open line is logged as it is. */
  kind: 'write' | 'end';
  stream: StreamNumber;
  /** The first of its entries' stamps. */
  seconds: number;
  nanos: number;
  /** Where the log ended, and which file it was. */
  size: number;
  inode: number;
  /** The step begins with a rotation: `inode` is the file before it, and the new one is empty. */
  rotates: boolean;
  open: Record<StreamNumber, Buffer>;
  chunk: Buffer;
}

const MAGIC = 0x43657475;
const HEADER_BYTES = 72;
const TRAILER_BYTES = 12;
/** Room for a chunk, two open lines of 16 KiB, header and trailer. */
const SLOT_BYTES = 128 * 1024;
const EMPTY = Buffer.alloc(0);
/** A record on its way, of whichever log: one write of one buffer is the quickest. */
const RECORD = Buffer.alloc(SLOT_BYTES);

export class RedoFile {
  private readonly fd: number;
  private serial = 0;

  constructor(private readonly path: string) {
    // Opened ahead of need: the first byte of a container waits in our memory for nothing.
    this.fd = openSync(path, constants.O_RDWR | constants.O_CREAT, 0o640);
  }

  /** The last step of which the record is whole. The next `save` overwrites the other one. */
  load(): Step | undefined {
    const bytes = readFileSync(this.path);
    const found = [0, 1].map((slot) => parse(bytes.subarray(slot * SLOT_BYTES, (slot + 1) * SLOT_BYTES)));
    const last = found.reduce((a, b) => ((b?.serial ?? 0) > (a?.serial ?? 0) ? b : a));
    this.serial = last?.serial ?? 0;
    return last?.step;
  }

  save({kind, stream, seconds, nanos, size, inode, rotates, open, chunk}: Step): void {
    const one = open[1];
    const two = open[2];
    const serial = this.serial + 1;
    RECORD.writeUInt32LE(MAGIC, 0);
    RECORD.writeDoubleLE(serial, 8);
    RECORD.writeDoubleLE(size, 16);
    RECORD.writeDoubleLE(inode, 24);
    RECORD.writeDoubleLE(seconds, 32);
    RECORD.writeUInt32LE(nanos, 40);
    RECORD[44] = stream;
    RECORD[45] = kind === 'end' ? 1 : 0;
    RECORD[46] = rotates ? 1 : 0;
    RECORD.writeUInt32LE(one.length, 48);
    RECORD.writeUInt32LE(two.length, 52);
    RECORD.writeUInt32LE(chunk.length, 56);
    let at = HEADER_BYTES;
    if (one.length) at += one.copy(RECORD, at);
    if (two.length) at += two.copy(RECORD, at);
    at += chunk.copy(RECORD, at);
    RECORD.writeUInt32LE(MAGIC, at);
    RECORD.writeDoubleLE(serial, at + 4);
    at += TRAILER_BYTES;
    const written = writeSync(this.fd, RECORD, 0, at, (serial % 2) * SLOT_BYTES);
    if (written !== at) throw new CetusError('internal', `${this.path}: no space left on device, ${written} bytes written of ${at}`);
    // Only now: the record of a step that was not taken down is overwritten by the next, never the one that is whole.
    this.serial = serial;
  }

  close(): void {
    closeSync(this.fd);
  }
}

function parse(slot: Buffer): {serial: number; step: Step} | undefined {
  if (slot.length < HEADER_BYTES + TRAILER_BYTES || slot.readUInt32LE(0) !== MAGIC) return undefined;
  const serial = slot.readDoubleLE(8);
  const lengths = [48, 52, 56].map((at) => slot.readUInt32LE(at));
  const trailer = HEADER_BYTES + lengths.reduce((sum, length) => sum + length, 0);
  if (trailer + TRAILER_BYTES > slot.length || slot.readUInt32LE(trailer) !== MAGIC || slot.readDoubleLE(trailer + 4) !== serial) return undefined;
  let at = HEADER_BYTES;
  const [one, two, chunk] = lengths.map((length) => (length ? slot.subarray(at, at += length) : EMPTY));
  return {
    serial,
    step: {
      kind: slot[45] ? 'end' : 'write', stream: slot[44] as StreamNumber, seconds: slot.readDoubleLE(32), nanos: slot.readUInt32LE(40),
      size: slot.readDoubleLE(16), inode: slot.readDoubleLE(24), rotates: slot[46] === 1, open: {1: one!, 2: two!}, chunk: chunk!,
    },
  };
}
