/**
 * LDAP-style filters: the grammar, the parser, and the builder that callers use so that no value is ever taken for syntax.
 *
 *   (&(owner=jill)(state=running)(memory>=64))   (|(a=1)(!(b=*)))   (name=web*)   (&) everything   (|) nothing
 *
 * A leaf is false where the field is absent, and `!` is its plain negation: two-valued logic, not LDAP's "undefined", so that
 * `(!(state=running))` finds what has no state. An array matches a leaf when one of its elements does.
 *
 * Why not the npm package ldap-filter: its values decode `\c3\a9` byte-wise into two characters, nesting is unbounded recursion,
 * its objects match by JavaScript's coercions (which SQL does not share), and it has no types. A test compares the two parsers.
 */
import {CetusError} from '../base/errors';

export type Filter =
  | {op: 'and'; of: Filter[]}
  | {op: 'or'; of: Filter[]}
  | {op: 'not'; of: Filter}
  | {op: 'eq' | 'ge' | 'le'; field: string; value: string}
  | {op: 'present'; field: string}
  | {op: 'substring'; field: string; initial: string; any: string[]; final: string};

export const MAX_FILTER_LENGTH = 1 << 20;
const MAX_DEPTH = 64;
const MAX_LEAVES = 20_000;

const FIELD = /[A-Za-z_][A-Za-z0-9_]*/y;

/** The key of the object is a field of every bucket. */
export const KEY_FIELD = '_key';

export type FilterValue = string | number | bigint | boolean;

/** A value as it stands in a filter: the four characters of the syntax, and NUL, become \XX. */
export function escapeValue(value: FilterValue): string {
  return String(value).replace(/[\\*()\0]/g, (c) => `\\${c.charCodeAt(0).toString(16).padStart(2, '0')}`);
}

function fieldName(field: string): string {
  FIELD.lastIndex = 0;
  const match = FIELD.exec(field);
  if (!match || match[0].length !== field.length) throw new CetusError('invalid', `bad filter: ${JSON.stringify(field)} is not a field name`);
  return field;
}

/** Everything. */
export const ALL = '(&)';
/** Nothing. */
export const NONE = '(|)';

export function eq(field: string, value: FilterValue): string {
  return `(${fieldName(field)}=${escapeValue(value)})`;
}
export function ge(field: string, value: FilterValue): string {
  return `(${fieldName(field)}>=${escapeValue(value)})`;
}
export function le(field: string, value: FilterValue): string {
  return `(${fieldName(field)}<=${escapeValue(value)})`;
}
export function present(field: string): string {
  return `(${fieldName(field)}=*)`;
}
export function startsWith(field: string, prefix: string): string {
  return prefix === '' ? present(field) : `(${fieldName(field)}=${escapeValue(prefix)}*)`;
}
export function endsWith(field: string, suffix: string): string {
  return suffix === '' ? present(field) : `(${fieldName(field)}=*${escapeValue(suffix)})`;
}
export function contains(field: string, part: string): string {
  return part === '' ? present(field) : `(${fieldName(field)}=*${escapeValue(part)}*)`;
}
/** Of no filters: everything. */
export function and(...filters: string[]): string {
  return filters.length === 1 ? filters[0]! : `(&${filters.join('')})`;
}
/** Of no filters: nothing. */
export function or(...filters: string[]): string {
  return filters.length === 1 ? filters[0]! : `(|${filters.join('')})`;
}
export function not(filter: string): string {
  return `(!${filter})`;
}
/** One of the values; of no values: nothing. */
export function oneOf(field: string, values: readonly FilterValue[]): string {
  return or(...values.map((value) => eq(field, value)));
}

/** The text of a filter tree; `parseFilter` of it is the same tree. */
export function formatFilter(filter: Filter): string {
  switch (filter.op) {
    case 'and': return `(&${filter.of.map(formatFilter).join('')})`;
    case 'or': return `(|${filter.of.map(formatFilter).join('')})`;
    case 'not': return `(!${formatFilter(filter.of)})`;
    case 'eq': return `(${filter.field}=${escapeValue(filter.value)})`;
    case 'ge': return `(${filter.field}>=${escapeValue(filter.value)})`;
    case 'le': return `(${filter.field}<=${escapeValue(filter.value)})`;
    case 'present': return `(${filter.field}=*)`;
    case 'substring': return `(${filter.field}=${[filter.initial, ...filter.any, filter.final].map(escapeValue).join('*')})`;
  }
}

/** Throws `invalid`, naming the position, on anything that is not a filter. */
export function parseFilter(text: string): Filter {
  if (typeof text !== 'string') throw new CetusError('invalid', 'bad filter: not a string');
  if (text.length > MAX_FILTER_LENGTH) throw new CetusError('invalid', `bad filter: longer than ${MAX_FILTER_LENGTH} characters`);
  return new Parser(text.trim()).parse();
}

class Parser {
  private at = 0;
  private leaves = 0;

  constructor(private readonly text: string) {}

  parse(): Filter {
    const filter = this.filter(0);
    if (this.at !== this.text.length) throw this.error('something follows the end');
    return filter;
  }

  private error(what: string): CetusError {
    return new CetusError('invalid', `bad filter: ${what} at position ${this.at} of ${JSON.stringify(this.text.slice(0, 200))}`);
  }

  private expect(char: string): void {
    if (this.text[this.at] !== char) throw this.error(`expected '${char}'`);
    this.at += 1;
  }

  private filter(depth: number): Filter {
    if (depth > MAX_DEPTH) throw this.error(`nested deeper than ${MAX_DEPTH}`);
    this.expect('(');
    const filter = this.body(depth);
    this.expect(')');
    return filter;
  }

  private body(depth: number): Filter {
    switch (this.text[this.at]) {
      case '&':
        this.at += 1;
        return {op: 'and', of: this.list(depth)};
      case '|':
        this.at += 1;
        return {op: 'or', of: this.list(depth)};
      case '!':
        this.at += 1;
        return {op: 'not', of: this.filter(depth + 1)};
      default:
        return this.leaf();
    }
  }

  private list(depth: number): Filter[] {
    const of: Filter[] = [];
    while (this.text[this.at] === '(') of.push(this.filter(depth + 1));
    return of;
  }

  private leaf(): Filter {
    this.leaves += 1;
    if (this.leaves > MAX_LEAVES) throw this.error(`more than ${MAX_LEAVES} comparisons`);
    FIELD.lastIndex = this.at;
    const match = FIELD.exec(this.text);
    if (!match) throw this.error('expected a field name');
    const field = match[0];
    this.at += field.length;
    const two = this.text.slice(this.at, this.at + 2);
    if (two === '>=' || two === '<=') {
      this.at += 2;
      const parts = this.value();
      if (parts.length > 1) throw this.error(`'*' cannot be compared with ${two}`);
      return {op: two === '>=' ? 'ge' : 'le', field, value: parts[0]!};
    }
    if (two[0] !== '=') throw this.error("expected '=', '>=' or '<='");
    this.at += 1;
    const parts = this.value();
    if (parts.length === 1) return {op: 'eq', field, value: parts[0]!};
    if (parts.every((part) => part === '')) return {op: 'present', field};
    return {op: 'substring', field, initial: parts[0]!, any: parts.slice(1, -1).filter((part) => part !== ''), final: parts.at(-1)!};
  }

  /** The pieces between unescaped stars, up to the closing parenthesis, which stays. */
  private value(): string[] {
    const end = this.text.indexOf(')', this.at);
    if (end < 0) throw this.error("expected ')'");
    const raw = this.text.slice(this.at, end);
    const parts = raw.split('*').map((piece) => this.unescape(piece));
    this.at = end;
    return parts;
  }

  private unescape(piece: string): string {
    if (piece.includes('(')) throw this.error("'(' in a value must be written \\28");
    if (!piece.includes('\\')) return piece;
    // Runs of \XX are UTF-8 bytes (RFC 4515), so they are decoded together.
    return piece.replace(/(?:\\[0-9a-fA-F]{2})+|\\/g, (run) => {
      if (run === '\\') throw this.error('a backslash that is not followed by two hexadecimal digits');
      const bytes = Buffer.from(run.replaceAll('\\', ''), 'hex');
      const text = bytes.toString('utf8');
      if (!Buffer.from(text, 'utf8').equals(bytes)) throw this.error('escaped bytes that are not UTF-8');
      return text;
    });
  }
}
