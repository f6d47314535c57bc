/** Bound filters and sort orders as SQL with bound parameters: nothing of a caller's ever becomes SQL text. */
import type {BucketDefinition, IndexType} from '../schema/bucket';
import {elementType, isArrayType, toSql, type ScalarType} from './fields';
import {KEY_FIELD} from './filter';
import {checkSort, type BoundFilter} from './match';

export const COLUMN_TYPE: Record<ScalarType, string> = {
  string: 'text', number: 'numeric', boolean: 'boolean', uuid: 'uuid', date: 'timestamptz', ip: 'inet', subnet: 'cidr',
};

export function quote(identifier: string): string {
  return `"${identifier.replaceAll('"', '""')}"`;
}

/** Numbers the parameters of one statement. */
export class Parameters {
  readonly values: (string | null)[] = [];

  add(value: string): string {
    this.values.push(value);
    return `$${this.values.length}`;
  }
}

export function where(filter: BoundFilter, parameters: Parameters): string {
  switch (filter.op) {
    case 'and': return filter.of.length === 0 ? 'TRUE' : `(${filter.of.map((part) => where(part, parameters)).join(' AND ')})`;
    case 'or': return either(filter.of, parameters);
    // Not NOT: an absent field makes its comparison NULL, and our filters know only true and false.
    case 'not': return `(${where(filter.of, parameters)}) IS NOT TRUE`;
    case 'present': return `${column(filter.field)} IS NOT NULL`;
    case 'eq': {
      const value = parameter(filter.type, toSql(elementType(filter.type), filter.value), parameters);
      return isArrayType(filter.type) ? `${column(filter.field)} @> ARRAY[${value}]` : `${column(filter.field)} = ${value}`;
    }
    case 'ge': case 'le': {
      const value = parameter(filter.type, toSql(elementType(filter.type), filter.value), parameters);
      if (isArrayType(filter.type)) return `${value} ${filter.op === 'ge' ? '<=' : '>='} ANY(${column(filter.field)})`;
      return `${column(filter.field)} ${filter.op === 'ge' ? '>=' : '<='} ${value}`;
    }
    case 'substring': {
      const pattern = `${like(filter.initial)}%${filter.any.map((part) => `${like(part)}%`).join('')}${like(filter.final)}`;
      if (isArrayType(filter.type)) return `EXISTS (SELECT FROM unnest(${column(filter.field)}) _element WHERE _element LIKE ${parameters.add(pattern)}::text)`;
      // A pattern that is a parameter finds no index; the range of its beginning does.
      const range = filter.initial === '' ? '' : `${column(filter.field)} >= ${parameters.add(filter.initial)}::text AND `;
      const end = successor(filter.initial);
      const below = end === undefined ? '' : `${column(filter.field)} < ${parameters.add(end)}::text AND `;
      return `(${range}${below}${column(filter.field)} LIKE ${parameters.add(pattern)}::text)`;
    }
  }
}

/** Many values of one field become one array, so that a long list is one parameter and one shape of statement. */
function either(parts: BoundFilter[], parameters: Parameters): string {
  if (parts.length === 0) return 'FALSE';
  const values = new Map<string, {type: IndexType; values: string[]}>();
  const rest: string[] = [];
  for (const part of parts) {
    if (part.op !== 'eq' || isArrayType(part.type)) {
      rest.push(where(part, parameters));
      continue;
    }
    const of = values.get(part.field) ?? {type: part.type, values: []};
    of.values.push(toSql(elementType(part.type), part.value));
    values.set(part.field, of);
  }
  const lists = [...values].map(([field, of]) => `${column(field)} = ANY(${parameters.add(arrayLiteral(of.values))}::${COLUMN_TYPE[elementType(of.type)]}[])`);
  return `(${[...lists, ...rest].join(' OR ')})`;
}

export function arrayLiteral(values: readonly string[]): string {
  return `{${values.map((value) => `"${value.replace(/["\\]/g, '\\$&')}"`).join(',')}}`;
}

function column(field: string): string {
  return field === KEY_FIELD ? '_key' : quote(field);
}

function parameter(type: IndexType, value: string, parameters: Parameters): string {
  return `${parameters.add(value)}::${COLUMN_TYPE[elementType(type)]}`;
}

function like(text: string): string {
  return text.replace(/[\\%_]/g, '\\$&');
}

/** The least text that is greater than every text with this beginning, in order of code points; undefined where there is none. */
function successor(text: string): string | undefined {
  const points = [...text].map((c) => c.codePointAt(0)!);
  while (points.length) {
    const last = points.pop()!;
    if (last < 0x10ffff) return String.fromCodePoint(...points, last === 0xd7ff ? 0xe000 : last + 1);
  }
  return undefined;
}

export function orderBy(definition: BucketDefinition, sort: readonly {field: string; order: 'asc' | 'desc'}[], keyed: boolean): string {
  const keys = checkSort(definition, sort).map(({field, sign}) => `${column(field)} ${sign > 0 ? 'ASC' : 'DESC'}`);
  return keys.length || keyed ? ` ORDER BY ${[...keys, '_key'].join(', ')}` : '';
}
