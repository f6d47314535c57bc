/**
 * Query parameters, read as the Engine reads them (Go's form values): the first value of a name counts, booleans are false only when
 * they look false, and a filter document may have either of its two historic shapes. What cannot be read is `invalid`, never a default.
 */
import {CetusError} from '../base/errors';
import {parseJson} from '../base/json-syntax';
import type {Filters} from '../datacenter/verbs';

const MAX_FILTERS_BYTES = 64 * 1024;
const FALSE = new Set(['', '0', 'no', 'false', 'none']);
const RFC_3339 = /^\d{4}-\d\d-\d\dT/;
const SECOND_NS = 1_000_000_000n;
const INT64 = 2n ** 63n;

/** A number as Go reads it, with its words for what is none. */
function wholeNumber(text: string, by: 'Atoi' | 'ParseInt'): bigint {
  const wrong = (why: string): CetusError => new CetusError('invalid', `strconv.${by}: parsing ${JSON.stringify(text)}: ${why}`);
  // Nothing that long is in range, and reading it would take its time.
  if (!/^[+-]?\d+$/.test(text)) throw wrong('invalid syntax');
  const value = text.length > 100 ? INT64 : BigInt(text.replace(/^\+/, ''));
  if (value >= INT64 || value < -INT64) throw wrong('value out of range');
  return value;
}

const fractionNs = (digits = ''): bigint => BigInt(digits.replace(/^[+-]/, '').slice(0, 9).padEnd(9, '0'));

export class Query {
  private readonly values: URLSearchParams;

  constructor(private readonly raw: string) {
    this.values = new URLSearchParams(raw);
  }

  /** Refuses what is no query at all. Its own step, for some operations of the Engine never look. */
  check(): void {
    for (const part of this.raw.split('&')) {
      if (part.includes(';')) throw new CetusError('invalid', 'invalid semicolon separator in query');
      const escape = /%(?![0-9a-fA-F]{2}).{0,2}/s.exec(part);
      if (escape) throw new CetusError('invalid', `invalid URL escape ${JSON.stringify(escape[0])}`);
    }
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
    return value === null || value === '' ? undefined : Number(wholeNumber(value, 'Atoi'));
  }

  /** Seconds since the epoch with an optional fraction ("1700000000.000000001"), as nanoseconds. RFC 3339 is accepted as well. */
  timestampNs(name: string): bigint | undefined {
    const value = this.values.get(name);
    if (value === null || value === '') return undefined;
    const ms = RFC_3339.test(value) ? Date.parse(value) : NaN;
    if (!Number.isNaN(ms)) return BigInt(Math.floor(ms / 1000)) * SECOND_NS + fractionNs(/\.(\d{1,9})/.exec(value)?.[1]);
    const [whole, fraction] = value.split(/\.(.*)/s) as [string, string?];
    const seconds = wholeNumber(whole, 'ParseInt') * SECOND_NS;
    if (fraction !== undefined) wholeNumber(fraction, 'ParseInt');
    return whole.startsWith('-') ? seconds - fractionNs(fraction) : seconds + fractionNs(fraction);
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
