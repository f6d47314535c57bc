/**
 * Places in Postgres' write-ahead log, as Postgres prints them: two hexadecimal halves of 64 bits, '0/3000060'. Text is what is stored and
 * shown; comparisons go by number, because '0/A' sorts after '0/10' as text.
 */
import {CetusError} from '../base/errors';

export type Lsn = string;

export const NO_WAL: Lsn = '0/0';

/** Throws `invalid`. */
export function lsnNumber(lsn: Lsn): bigint {
  const match = /^([0-9A-Fa-f]{1,8})\/([0-9A-Fa-f]{1,8})$/.exec(lsn);
  if (!match) throw new CetusError('invalid', `${JSON.stringify(lsn)} is no place in the write-ahead log`);
  return (BigInt(`0x${match[1]}`) << 32n) | BigInt(`0x${match[2]}`);
}

export function formatLsn(place: bigint): Lsn {
  return `${(place >> 32n).toString(16).toUpperCase()}/${(place & 0xffff_ffffn).toString(16).toUpperCase()}`;
}

/** Bytes from `b` to `a`: negative where a is behind. */
export const lsnDistance = (a: Lsn, b: Lsn): bigint => lsnNumber(a) - lsnNumber(b);

export const reached = (place: Lsn, wanted: Lsn): boolean => lsnDistance(place, wanted) >= 0n;

export const furthest = (a: Lsn, b: Lsn): Lsn => (reached(a, b) ? a : b);
