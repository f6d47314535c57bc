/**
 * A parsed request body by its description (lib/schema/options), as the Engine's decoder reads it: keys in any case become the API's own,
 * null is left out, what is ignored and what the API does not know is left out, a value of the wrong type is refused in Go's words. Then the refusals: what is
 * not supported is named. Pure; what comes out has exactly the type that is claimed for it.
 */
import {CetusError} from '../base/errors';
import {type Fields, MAX, type Struct, type Wire, isNeutral} from '../schema/options/field';

type Json = Record<string, unknown>;
/** Where we are: the innermost struct's name and the names of the fields that led here. */
interface Place { struct: string; path: readonly string[] }

const isObject = (value: unknown): value is Json => typeof value === 'object' && value !== null && !Array.isArray(value);

export function decode(wire: Wire, given: unknown): unknown {
  return read(wire, given, {struct: '', path: []});
}

function read(wire: Wire, given: unknown, at: Place): unknown {
  switch (wire.kind) {
    case 'string':
      if (typeof given !== 'string') throw mismatch(wire, given, at);
      return notLonger(given, wire.maxLength, at);
    case 'bool':
      if (typeof given !== 'boolean') throw mismatch(wire, given, at);
      return given;
    case 'int':
      if (typeof given !== 'number' || !Number.isInteger(given) || given < wire.min || given > wire.max) throw mismatch(wire, given, at, typeof given === 'number');
      // There is no -0 in Go.
      return given === 0 ? 0 : given;
    case 'words':
      if (typeof given === 'string') return [notLonger(given, MAX.longText, at)];
      if (!Array.isArray(given) || !given.every((word) => word === null || typeof word === 'string')) throw mismatch(wire, given, at);
      return notMore(given, MAX.items, at).map((word) => notLonger((word ?? '') as string, MAX.longText, at));
    case 'list':
      if (!Array.isArray(given)) throw mismatch(wire, given, at);
      return sized(notMore(given, wire.maxItems, at), wire.exactly).map((item) => (item === null ? zero(wire.of) : read(wire.of, item, at)));
    case 'map': {
      if (!isObject(given)) throw mismatch(wire, given, at);
      const entries = notMore(Object.entries(given), MAX.items, at);
      return fromEntries(entries.map(([key, item]) => [notLonger(key, MAX.longText, at), item === null ? zero(wire.of) : read(wire.of, item, at)]));
    }
    case 'empty':
      if (!isObject(given)) throw mismatch(wire, given, at);
      return given;
    case 'struct':
      if (!isObject(given)) throw mismatch(wire, given, at);
      return readStruct(wire, given, at);
  }
}

function readStruct(wire: Struct, given: Json, at: Place): Json {
  const {fields} = wire;
  const struct = wire.go.slice(wire.go.lastIndexOf('.') + 1);
  const out: Json = {};
  for (const [key, value] of Object.entries(given)) {
    const name = Object.hasOwn(fields, key) ? key : spelled(fields, key);
    // Of two spellings of one name the right one counts.
    if (name === undefined || value === null || (name !== key && Object.hasOwn(given, name))) continue;
    const {wire: inner, disposition} = fields[name]!;
    const decoded = read(inner, value, {struct, path: [...at.path, name]});
    // What is ignored goes no further, so that nothing behind the edge can be changed by it.
    if (disposition.is !== 'ignored') out[name] = decoded;
  }
  return out;
}

const spellings = new WeakMap<Fields, Map<string, string>>();
function spelled(fields: Fields, key: string): string | undefined {
  let known = spellings.get(fields);
  if (!known) spellings.set(fields, known = new Map(Object.keys(fields).map((name) => [name.toLowerCase(), name])));
  return known.get(key.toLowerCase());
}

/** A client may name a key `__proto__`. */
function fromEntries(entries: [string, unknown][]): Json {
  const out: Json = {};
  for (const [key, value] of entries) Object.defineProperty(out, key, {value, enumerable: true, writable: true, configurable: true});
  return out;
}

const sized = (items: unknown[], exactly?: number): unknown[] => (exactly === undefined ? items : Array.from({length: exactly}, (_, n) => items[n] ?? null));

/** What null stands for among the elements of a list or a map. */
function zero(wire: Wire): unknown {
  switch (wire.kind) {
    case 'string': return '';
    case 'bool': return false;
    case 'int': return 0;
    case 'empty': return {};
    case 'struct': return wire.pointer ? null : {};
    case 'list': case 'map': case 'words': return null;
  }
}

function mismatch(wire: Wire, given: unknown, at: Place, withNumber = false): CetusError {
  const value = Array.isArray(given) ? 'array' : typeof given === 'object' ? 'object' : typeof given === 'boolean' ? 'bool' : typeof given === 'number' && withNumber ? `number ${given}` : typeof given;
  const where = at.path.length ? `Go struct field ${at.struct}.${at.path.join('.')}` : 'Go value';
  return new CetusError('invalid', `invalid JSON: json: cannot unmarshal ${value} into ${where} of type ${wire.go}`);
}

const tooLong = (at: Place, limit: number, what: string): CetusError => new CetusError('invalid', `invalid JSON: ${at.path.join('.') || 'the body'} has more than ${limit} ${what}`);

function notLonger(text: string, limit: number, at: Place): string {
  if (text.length > limit) throw tooLong(at, limit, 'characters');
  return text;
}

function notMore<T>(items: T[], limit: number, at: Place): T[] {
  if (items.length > limit) throw tooLong(at, limit, 'elements');
  return items;
}

/** 400 for the first option that is not supported and asks for something, by its place in the body. */
export function refuseUnsupported(wire: Wire, value: unknown, place = ''): void {
  if (value === null || value === undefined) return;
  if (wire.kind === 'list') (value as unknown[]).forEach((item, n) => refuseUnsupported(wire.of, item, `${place}[${n}]`));
  if (wire.kind === 'map') for (const [key, item] of Object.entries(value)) refuseUnsupported(wire.of, item, `${place}[${key}]`);
  if (wire.kind !== 'struct') return;
  for (const [name, item] of Object.entries(value as Json)) {
    const {wire: inner, disposition} = wire.fields[name]!;
    const option = place ? `${place}.${name}` : name;
    if (disposition.is !== 'refused') refuseUnsupported(inner, item, option);
    else if (!isNeutral(disposition, item)) throw new CetusError('unsupported', `the option ${option} is not supported by Cetus: ${disposition.why}`);
  }
}
