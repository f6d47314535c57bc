/**
 * A filter bound to a bucket: checked once (unindexed fields and values that are none of the field's type are `invalid`), then
 * evaluated over objects in memory. sql.ts compiles the same bound tree, so the two cannot disagree about what a filter says.
 */
import {CetusError, INTERNAL} from '../base/errors';
import type {BucketDefinition, IndexType} from '../schema/bucket';
import {compare, elementType, extract, fieldType, isArrayType, parseScalar, type FieldValue, type Scalar} from './fields';
import {KEY_FIELD, parseFilter, type Filter} from './filter';

export type BoundFilter =
  | {op: 'and'; of: BoundFilter[]}
  | {op: 'or'; of: BoundFilter[]}
  | {op: 'not'; of: BoundFilter}
  | {op: 'eq' | 'ge' | 'le'; field: string; type: IndexType; value: Scalar}
  | {op: 'present'; field: string; type: IndexType}
  | {op: 'substring'; field: string; type: IndexType; initial: string; any: string[]; final: string};

export function bindFilter(definition: BucketDefinition, text: string): BoundFilter {
  return bind(definition, parseFilter(text));
}

function bind(definition: BucketDefinition, filter: Filter): BoundFilter {
  switch (filter.op) {
    case 'and': case 'or':
      return {op: filter.op, of: filter.of.map((part) => bind(definition, part))};
    case 'not':
      return {op: 'not', of: bind(definition, filter.of)};
    case 'present':
      return {op: 'present', field: filter.field, type: fieldType(definition, filter.field)};
    case 'substring': {
      const type = fieldType(definition, filter.field);
      const invalid = elementType(type) !== 'string' ? `field ${filter.field} is ${type}: only strings have parts`
        : [filter.initial, ...filter.any, filter.final].some((part) => parseScalar('string', part) === undefined) ? `field ${filter.field}: a part is too long or not text` : '';
      if (invalid) throw new CetusError('invalid', `bad filter: ${invalid}`, {shown: INTERNAL, info: {bucket: definition.name, field: filter.field}});
      return {...filter, type};
    }
    case 'eq': case 'ge': case 'le': {
      const type = fieldType(definition, filter.field);
      const value = parseScalar(elementType(type), filter.value);
      if (value === undefined)
        throw new CetusError('invalid', `bad filter: ${JSON.stringify(filter.value.slice(0, 100))} is not ${elementType(type)}, as field ${filter.field} is`, {shown: INTERNAL, info: {bucket: definition.name, field: filter.field}});
      return {op: filter.op, field: filter.field, type, value};
    }
  }
}

/** The indexed values of one object, computed when first asked for. */
export class Indexed {
  private readonly values = new Map<string, FieldValue>();

  constructor(private readonly definition: BucketDefinition, readonly key: string, private readonly object: unknown) {}

  get(name: string): FieldValue {
    if (name === KEY_FIELD) return this.key;
    if (!this.values.has(name)) this.values.set(name, extract(this.definition.name, name, this.definition.fields[name]!, this.object));
    return this.values.get(name);
  }
}

export function matches(filter: BoundFilter, object: Indexed): boolean {
  switch (filter.op) {
    case 'and': return filter.of.every((part) => matches(part, object));
    case 'or': return filter.of.some((part) => matches(part, object));
    case 'not': return !matches(filter.of, object);
    case 'present': return object.get(filter.field) !== undefined;
    default: {
      const value = object.get(filter.field);
      if (value === undefined) return false;
      return Array.isArray(value) ? value.some((element) => leaf(filter, element)) : leaf(filter, value);
    }
  }
}

function leaf(filter: Extract<BoundFilter, {op: 'eq' | 'ge' | 'le' | 'substring'}>, value: Scalar): boolean {
  switch (filter.op) {
    case 'eq': return compare(elementType(filter.type), value, filter.value) === 0;
    case 'ge': return compare(elementType(filter.type), value, filter.value) >= 0;
    case 'le': return compare(elementType(filter.type), value, filter.value) <= 0;
    case 'substring': return hasParts(value as string, filter);
  }
}

function hasParts(text: string, filter: {initial: string; any: string[]; final: string}): boolean {
  if (!text.startsWith(filter.initial)) return false;
  let at = filter.initial.length;
  for (const part of filter.any) {
    const found = text.indexOf(part, at);
    if (found < 0) return false;
    at = found + part.length;
  }
  return text.length - at >= filter.final.length && text.endsWith(filter.final);
}

/** Compares two objects by sort keys as Postgres does: absent last when ascending, first when descending; then by key. */
export function bySort(definition: BucketDefinition, sort: readonly {field: string; order: 'asc' | 'desc'}[]): (a: Indexed, b: Indexed) => number {
  const keys = checkSort(definition, sort);
  return (a, b) => {
    for (const {field, type, sign} of keys) {
      const x = a.get(field) as Scalar | undefined;
      const y = b.get(field) as Scalar | undefined;
      if (x === undefined && y === undefined) continue;
      const order = x === undefined ? 1 : y === undefined ? -1 : compare(elementType(type), x, y);
      if (order !== 0) return order * sign;
    }
    return compare('string', a.key, b.key);
  };
}

export function checkSort(definition: BucketDefinition, sort: readonly {field: string; order: 'asc' | 'desc'}[]): {field: string; type: IndexType; sign: 1 | -1}[] {
  return sort.map(({field, order}) => {
    const type = fieldType(definition, field);
    if (isArrayType(type)) throw new CetusError('invalid', `field ${field} is ${type}: an array has no order`, {shown: INTERNAL, info: {bucket: definition.name, field}});
    if (order !== 'asc' && order !== 'desc') throw new CetusError('invalid', `sort order is asc or desc, not ${String(order)}`);
    return {field, type, sign: order === 'asc' ? 1 : -1};
  });
}
