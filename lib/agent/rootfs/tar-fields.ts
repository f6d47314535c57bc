/** Numbers as tars write them. Pure; what is none is an invalid header. */
import {INVALID_HEADER, failed} from './failures';

export const invalidHeader = (): Error => failed(INVALID_HEADER);

/** Octal digits among blanks and zeros, or, where the first bit is set, binary (GNU). */
export function number(block: Buffer, at: number, length: number): number {
  const first = block[at]!;
  if (first & 0x80) {
    let value = first & 0x40 ? -1n : 0n;
    for (let i = 0; i < length; i += 1) value = (value << 8n) | BigInt(i === 0 ? (first & 0x40 ? first : first & 0x7f) : block[at + i]!);
    const result = Number(BigInt.asIntN(64, value));
    if (BigInt.asIntN(64, value) !== value || !Number.isSafeInteger(result)) throw invalidHeader();
    return result;
  }
  const text = block.toString('latin1', at, at + length).replace(/^[ \0]+/, '').replace(/[ \0][^]*$/, '');
  if (text === '') return 0;
  if (!/^[0-7]+$/.test(text)) throw invalidHeader();
  return parseInt(text, 8);
}

export function whole(text: string): number {
  const value = Number(text);
  if (!/^-?\d+$/.test(text) || !Number.isSafeInteger(value)) throw invalidHeader();
  return value;
}
