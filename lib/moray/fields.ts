/**
 * Indexed fields: what a bucket definition may say, how a field's value is taken from an object, which values its type accepts, and
 * how two of them compare. memory.ts and the filters in memory use it directly; store.ts sends the same canonical texts to Postgres,
 * so that SQL and memory agree (test/moray/agreement.ts compares them on generated objects).
 *
 * A value of the wrong type is refused at put (`invalid`): stored silently unindexed it would be a wrong answer later.
 * Numbers are exact decimals (JSON numbers, or decimal strings for what exceeds 2^53). Dates are RFC 3339 strings at a resolution
 * of one microsecond (Postgres' own; finer digits are cut off). Text compares by code point.
 */
import {isIP} from 'node:net';
import {CetusError, INTERNAL} from '../base/errors';
import type {BucketDefinition, IndexedField, IndexType} from '../schema/bucket';
import {KEY_FIELD} from './filter';

export type ScalarType = Exclude<IndexType, `${string}[]`>;
/** A comparable value: see `compare`. Absent fields are undefined. */
export type Scalar = string | bigint | boolean | Decimal;
export type FieldValue = Scalar | Scalar[] | undefined;

/** value * 10^exponent, without trailing zeros in value; `text` is how it was written. */
export interface Decimal { value: bigint; exponent: number; text: string }

export const MAX_KEY_BYTES = 1024;
export const MAX_VALUE_BYTES = 8 << 20;
/** A btree entry must fit a third of a page. */
const MAX_TEXT_BYTES = 2000;
const MAX_ARRAY = 1000;
export const DEFAULT_TOMBSTONE_RETENTION_MS = 3_600_000;

export function isArrayType(type: IndexType): boolean {
  return type.endsWith('[]');
}
export function elementType(type: IndexType): ScalarType {
  return (type.endsWith('[]') ? type.slice(0, -2) : type) as ScalarType;
}

const NAME = /^[a-z][a-z0-9]*(_[a-z0-9]+)*$/;
// Postgres cuts identifiers off after 63 bytes, and the longest of ours is BUCKET__FIELD__unique.
const FIELD_NAME = /^[A-Za-z][A-Za-z0-9_]{0,27}$/;
const PATH = /^[A-Za-z_-][A-Za-z0-9_-]*(\.[A-Za-z_-][A-Za-z0-9_-]*)*$/;
const TYPES = new Set<string>(['string', 'number', 'boolean', 'uuid', 'date', 'ip', 'subnet'].flatMap((t) => [t, `${t}[]`]));

/** Refuses (`invalid`) a definition that no store could keep its promises for. */
export function checkDefinition(definition: BucketDefinition): void {
  const bad = (why: string): never => {
    throw new CetusError('invalid', `bucket ${definition.name}: ${why}`);
  };
  if (!NAME.test(definition.name) || definition.name.length > 24) bad('a name is at most 24 lower case letters, digits and single underscores');
  if (!Number.isInteger(definition.version) || definition.version < 1 || definition.version > 30_000) bad('the version is a whole number from 1');
  for (const [name, field] of Object.entries(definition.fields)) {
    if (!FIELD_NAME.test(name)) bad(`field ${JSON.stringify(name)}: a name is at most 28 letters, digits and underscores`);
    if (!TYPES.has(field.type)) bad(`field ${name}: unknown type ${String(field.type)}`);
    if (field.unique && isArrayType(field.type)) bad(`field ${name}: an array cannot be unique`);
    if (!PATH.test(pathOf(name, field).join('.'))) bad(`field ${name}: bad path`);
  }
}

export function pathOf(name: string, field: IndexedField): string[] {
  return (field.path ?? name).split('.');
}

/** Postgres' text has neither NUL nor halves of surrogate pairs. */
function isStorable(text: string): boolean {
  return !/[\0\p{Surrogate}]/u.test(text);
}

export function checkKey(key: string): void {
  if (typeof key !== 'string' || key === '' || Buffer.byteLength(key) > MAX_KEY_BYTES || !isStorable(key))
    throw new CetusError('invalid', `a key is a string of 1 to ${MAX_KEY_BYTES} bytes without NUL`);
}

/** The JSON of an object, refused (`invalid`) where Postgres could not keep it. */
export function encodeValue(bucket: string, key: string, value: unknown): string {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw new CetusError('invalid', `${bucket}/${key}: a value is a JSON object`, {shown: 'a value is a JSON object'});
  const json = JSON.stringify(value);
  if (json.length > MAX_VALUE_BYTES || (json.length > MAX_VALUE_BYTES / 3 && Buffer.byteLength(json) > MAX_VALUE_BYTES))
    throw new CetusError('invalid', `${bucket}/${key}: larger than ${MAX_VALUE_BYTES} bytes`, {shown: `larger than ${MAX_VALUE_BYTES} bytes`});
  // jsonb has no NUL and no half surrogates; JSON.stringify writes both as escapes.
  if (json.includes('\\u') && /(?<!\\)(?:\\\\)*\\u(0000|d[89a-f])/.test(json))
    throw new CetusError('invalid', `${bucket}/${key}: text with NUL or half of a surrogate pair`, {shown: 'text with NUL or half of a surrogate pair'});
  return json;
}

function valueAt(object: unknown, path: readonly string[]): unknown {
  let at = object;
  for (const name of path) {
    if (typeof at !== 'object' || at === null || Array.isArray(at)) return undefined;
    at = Object.hasOwn(at, name) ? (at as Record<string, unknown>)[name] : undefined;
  }
  return at;
}

/** The field's value in an object; throws `invalid` where it is there and not of the field's type. null counts as absent. */
export function extract(bucket: string, name: string, field: IndexedField, object: unknown): FieldValue {
  const raw = valueAt(object, pathOf(name, field));
  if (raw === undefined || raw === null) return undefined;
  const type = elementType(field.type);
  const bad = (): never => {
    throw new CetusError('invalid', `bucket ${bucket}: field ${name} must be ${field.type}`, {shown: `${name} must be ${field.type}`, info: {bucket, field: name}});
  };
  if (isArrayType(field.type)) {
    if (!Array.isArray(raw) || raw.length > MAX_ARRAY) return bad();
    return raw.map((element) => fromJson(type, element) ?? bad());
  }
  return fromJson(type, raw) ?? bad();
}

function fromJson(type: ScalarType, raw: unknown): Scalar | undefined {
  switch (type) {
    case 'number':
      if (typeof raw === 'number') return Number.isFinite(raw) ? parseDecimal(String(raw)) : undefined;
      return typeof raw === 'string' ? parseDecimal(raw) : undefined;
    case 'boolean':
      return typeof raw === 'boolean' ? raw : undefined;
    default:
      return typeof raw === 'string' ? parseScalar(type, raw) : undefined;
  }
}

/** A filter's text as a value of the type; undefined where it is none. */
export function parseScalar(type: ScalarType, text: string): Scalar | undefined {
  switch (type) {
    case 'string': return text.length <= MAX_TEXT_BYTES && Buffer.byteLength(text) <= MAX_TEXT_BYTES && isStorable(text) ? text : undefined;
    case 'number': return parseDecimal(text);
    case 'boolean': return text === 'true' ? true : text === 'false' ? false : undefined;
    case 'uuid': return /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(text) ? text.toLowerCase() : undefined;
    case 'date': return parseDate(text);
    case 'ip': return addressBytes(text);
    case 'subnet': return parseSubnet(text);
  }
}

/** What Postgres is given for a value of the type: a text that its input function reads as the same value. */
export function toSql(type: ScalarType, value: Scalar): string {
  switch (type) {
    case 'number': return (value as Decimal).text;
    case 'date': return formatMicros(value as bigint);
    case 'ip': return formatAddress(value as string);
    case 'subnet': {
      const text = value as string;
      return `${formatAddress(text.slice(0, -4))}/${parseInt(text.slice(-3), 10)}`;
    }
    default: return String(value);
  }
}

/** A text that is the same exactly for equal values of one type. */
export function identity(value: Scalar): string {
  return typeof value === 'object' ? `${value.value}e${value.exponent}` : String(value);
}

/** Order of two values of one type, as Postgres orders them. */
export function compare(type: ScalarType, a: Scalar, b: Scalar): number {
  switch (type) {
    case 'string': case 'ip': return compareText(a as string, b as string);
    case 'uuid': return a === b ? 0 : (a as string) < (b as string) ? -1 : 1;
    case 'boolean': return Number(a) - Number(b);
    case 'date': return a === b ? 0 : (a as bigint) < (b as bigint) ? -1 : 1;
    case 'number': return compareDecimal(a as Decimal, b as Decimal);
    case 'subnet': return compareSubnet(a as string, b as string);
  }
}

/** By code point, which is the order of UTF-8 bytes and of collation "C"; UTF-16 order differs above U+D7FF. */
export function compareText(a: string, b: string): number {
  const n = Math.min(a.length, b.length);
  for (let i = 0; i < n; i += 1) {
    let x = a.charCodeAt(i);
    let y = b.charCodeAt(i);
    if (x === y) continue;
    if (x >= 0xd800 && y >= 0xd800) {
      x = x >= 0xe000 ? x - 0x800 : x + 0x2000;
      y = y >= 0xe000 ? y - 0x800 : y + 0x2000;
    }
    return x - y;
  }
  return a.length - b.length;
}

const DECIMAL = /^(-?)(\d{1,400})(?:\.(\d{1,400}))?(?:[eE]([+-]?\d{1,3}))?$/;

function parseDecimal(text: string): Decimal | undefined {
  const match = DECIMAL.exec(text);
  if (!match) return undefined;
  const fraction = match[3] ?? '';
  const digits = (match[2]! + fraction).replace(/0+$/, '');
  if (/^0*$/.test(digits)) return {value: 0n, exponent: 0, text};
  // Without trailing zeros, so that equal numbers have equal parts: 10, 1e1 and 10.0.
  const dropped = match[2]!.length + fraction.length - digits.length;
  return {value: BigInt(match[1] + digits), exponent: Number(match[4] ?? 0) - fraction.length + dropped, text};
}

function compareDecimal(a: Decimal, b: Decimal): number {
  let x = a.value;
  let y = b.value;
  if (a.exponent > b.exponent) x *= 10n ** BigInt(a.exponent - b.exponent);
  else if (b.exponent > a.exponent) y *= 10n ** BigInt(b.exponent - a.exponent);
  return x === y ? 0 : x < y ? -1 : 1;
}

const DATE = /^(\d{4})-(\d\d)-(\d\d)T([01]\d|2[0-3]):([0-5]\d):([0-5]\d)(?:\.(\d{1,9}))?(Z|[+-](?:0\d|1[0-4]):[0-5]\d)$/;

/** Microseconds since the epoch. */
function parseDate(text: string): bigint | undefined {
  const match = DATE.exec(text);
  if (!match) return undefined;
  const [, year, month, day, hour, minute, second, fraction = '', zone] = match;
  const date = new Date(0);
  date.setUTCFullYear(Number(year), Number(month) - 1, Number(day));
  if (year === '0000' || date.getUTCMonth() !== Number(month) - 1 || date.getUTCDate() !== Number(day)) return undefined;
  date.setUTCHours(Number(hour), Number(minute), Number(second));
  const offsetMinutes = zone === 'Z' ? 0 : (zone![0] === '-' ? -1 : 1) * (Number(zone!.slice(1, 3)) * 60 + Number(zone!.slice(4)));
  return BigInt(date.getTime() - offsetMinutes * 60_000) * 1000n + BigInt(fraction.padEnd(6, '0').slice(0, 6));
}

function formatMicros(micros: bigint): string {
  const inSecond = ((micros % 1_000_000n) + 1_000_000n) % 1_000_000n;
  const ms = Number((micros - inSecond) / 1000n);
  const date = new Date(ms);
  // An offset may move the first day of year 1 before it; Postgres calls that year 1 BC.
  if (date.getUTCFullYear() < 1) return `0001-${date.toISOString().slice(-19, -5)}.${inSecond.toString().padStart(6, '0')}Z BC`;
  if (date.getUTCFullYear() > 9999) return `${date.toISOString().slice(2, -5)}.${inSecond.toString().padStart(6, '0')}Z`;
  return `${date.toISOString().slice(0, 19)}.${inSecond.toString().padStart(6, '0')}Z`;
}

/** Family and bytes in hexadecimal, so that comparing text compares addresses: version 4 first, as Postgres has it. */
function addressBytes(text: string): string | undefined {
  const family = isIP(text);
  if (family === 4) return `4${text.split('.').map((part) => Number(part).toString(16).padStart(2, '0')).join('')}`;
  if (family !== 6 || text.includes('%')) return undefined;
  let groups = text;
  const tail = /^(.*:)(\d+)\.(\d+)\.(\d+)\.(\d+)$/.exec(text);
  if (tail) groups = `${tail[1]}${(Number(tail[2]) * 256 + Number(tail[3])).toString(16)}:${(Number(tail[4]) * 256 + Number(tail[5])).toString(16)}`;
  const [head = '', rest] = groups.split('::');
  const left = head === '' ? [] : head.split(':');
  const right = rest === undefined || rest === '' ? [] : rest.split(':');
  const zeros = rest === undefined ? [] : new Array<string>(8 - left.length - right.length).fill('0');
  return `6${[...left, ...zeros, ...right].map((group) => group.toLowerCase().padStart(4, '0')).join('')}`;
}

function formatAddress(bytes: string): string {
  const hex = bytes.slice(1);
  if (bytes[0] === '4') return hex.match(/../g)!.map((byte) => parseInt(byte, 16)).join('.');
  return hex.match(/.{4}/g)!.join(':');
}

/** Address bytes, '/', prefix length in three digits. Bits right of the prefix must be zero, as Postgres' cidr wants it. */
function parseSubnet(text: string): string | undefined {
  const match = /^([^/]+)\/(\d{1,3})$/.exec(text);
  const bytes = match && addressBytes(match[1]!);
  if (!match || !bytes) return undefined;
  const prefix = Number(match[2]);
  const bits = bytes[0] === '4' ? 32 : 128;
  if (prefix > bits || String(prefix) !== match[2]) return undefined;
  if ((BigInt(`0x${bytes.slice(1)}`) & ((1n << BigInt(bits - prefix)) - 1n)) !== 0n) return undefined;
  return `${bytes}/${match[2]!.padStart(3, '0')}`;
}

/** Postgres' order of cidr: family, then the bits that both prefixes cover, then the shorter prefix first. */
function compareSubnet(a: string, b: string): number {
  if (a[0] !== b[0]) return a[0]! < b[0]! ? -1 : 1;
  const bits = a[0] === '4' ? 32 : 128;
  const prefixA = Number(a.slice(-3));
  const prefixB = Number(b.slice(-3));
  const shift = BigInt(bits - Math.min(prefixA, prefixB));
  const x = BigInt(`0x${a.slice(1, -4)}`) >> shift;
  const y = BigInt(`0x${b.slice(1, -4)}`) >> shift;
  return x === y ? prefixA - prefixB : x < y ? -1 : 1;
}

/** The type by which a filter or a sort may name this field. */
export function fieldType(definition: BucketDefinition, name: string): IndexType {
  if (name === KEY_FIELD) return 'string';
  const field = Object.hasOwn(definition.fields, name) ? definition.fields[name] : undefined;
  if (!field) throw new CetusError('invalid', `bucket ${definition.name} has no index on field ${JSON.stringify(name)}`, {shown: INTERNAL, info: {bucket: definition.name, field: name}});
  return field.type;
}
