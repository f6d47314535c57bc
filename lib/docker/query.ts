/**
 * Query parameters, read as the Engine reads them (Go's form values): the first value of a name counts, booleans are false only when
 * they look false, and a filter document may have either of its two historic shapes. What cannot be read is `invalid`, never a default.
 */
import {CetusError} from '../base/errors';
import {parseJson} from '../base/json-syntax';
import type {Filters} from '../datacenter/verbs';

const MAX_FILTERS_BYTES = 64 * 1024;
const FALSE = new Set(['', '0', 'no', 'false', 'none']);
const SECONDS = /^(-?\d+)(?:\.(\d{1,9})\d*)?$/;

export class Query {
  private readonly values: URLSearchParams;

  constructor(raw: string) {
    this.values = new URLSearchParams(raw);
  }

  /** All of it, for somebody who reads it anew. */
  copy(): URLSearchParams {
    return new URLSearchParams(this.values);
  }

  has(name: string): boolean {
    return this.values.has(name);
  }

  text(name: string): string {
    return this.values.get(name) ?? '';
  }

  all(name: string): string[] {
    return this.values.getAll(name);
  }

  bool(name: string, missing = false): boolean {
    const value = this.values.get(name);
    return value === null ? missing : !FALSE.has(value.trim().toLowerCase());
  }

  int(name: string): number | undefined {
    const value = this.values.get(name);
    if (value === null || value === '') return undefined;
    const number = Number(value);
    if (!/^[+-]?\d+$/.test(value) || !Number.isSafeInteger(number))
      throw new CetusError('invalid', `invalid value for ${name}: strconv.ParseInt: parsing ${JSON.stringify(value)}: invalid syntax`);
    return number;
  }

  /** Seconds since the epoch with an optional fraction ("1700000000.000000001"), as nanoseconds. RFC 3339 is accepted as well. */
  timestampNs(name: string): bigint | undefined {
    const value = this.values.get(name);
    if (value === null || value === '') return undefined;
    const found = SECONDS.exec(value);
    if (found) {
      const ns = BigInt((found[2] ?? '').padEnd(9, '0'));
      const seconds = BigInt(found[1]!) * 1_000_000_000n;
      return found[1]!.startsWith('-') ? seconds - ns : seconds + ns;
    }
    const ms = /^\d{4}-\d\d-\d\dT/.test(value) ? Date.parse(value) : NaN;
    if (Number.isNaN(ms)) throw new CetusError('invalid', `invalid value for ${name}: failed to parse ${JSON.stringify(value)} as a timestamp`);
    const fraction = /\.(\d{1,9})/.exec(value)?.[1] ?? '';
    return BigInt(Math.floor(ms / 1000)) * 1_000_000_000n + BigInt(fraction.padEnd(9, '0'));
  }

  /** {"name": ["a", "b"]} or, as old clients write it, {"name": {"a": true, "b": true}}. */
  filters(name = 'filters'): Filters {
    const raw = this.values.get(name);
    if (raw === null || raw === '') return {};
    const wrong = (why: string): never => { throw new CetusError('invalid', `invalid filter: ${why}`); };
    if (raw.length > MAX_FILTERS_BYTES) wrong(`longer than ${MAX_FILTERS_BYTES} bytes`);
    let parsed: unknown;
    try {
      parsed = parseJson(raw);
    } catch (err) {
      throw new CetusError('invalid', `invalid filter: ${(err as Error).message}`, {cause: err});
    }
    if (parsed === null) return {};
    if (typeof parsed !== 'object' || Array.isArray(parsed)) return wrong('a JSON object is expected');
    const filters: Filters = Object.create(null) as Filters;
    for (const [key, given] of Object.entries(parsed)) {
      const list: unknown[] = Array.isArray(given) ? given
        : given && typeof given === 'object' ? Object.entries(given).map(([value, on]) => (typeof on === 'boolean' ? value : wrong(`'${key}' must map values to true`)))
          : wrong(`'${key}' must be a list of strings or a map of strings to booleans`);
      if (!list.every((value) => typeof value === 'string')) wrong(`'${key}' must hold strings`);
      filters[key] = [...new Set(list as string[])];
    }
    return filters;
  }
}
