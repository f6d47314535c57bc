/**
 * How a request's fields are described: what may stand there (in the types of the Engine's own decoder, whose words the errors use) and what
 * becomes of it. Every field of every body that a client may send has exactly one row in the files beside this one; lib/docker decodes by
 * them, lib/datacenter checks by them, and lib/docker/README.md shows them. Pure data.
 */

/** What whoever runs a datacenter decides of it: fields of an endpoint's configuration. */
export type PolicyField = 'allowPrivileged' | 'allowHostNetwork' | 'allowBinds';

const FLAGS: Record<PolicyField, string> = {allowPrivileged: '--no-privileged', allowHostNetwork: '--no-host-network', allowBinds: '--binds'};

/** In their words: the option of `cetus up`, then the field that an endpoint's own configuration has for it. */
export const settingOf = (policy: PolicyField, value?: string): string => `\`cetus up ${FLAGS[policy]}${value ? ` ${value}` : ''}\` (policy.${policy} of an endpoint's configuration)`;

/** What becomes of a field or parameter that says anything. */
export type Disposition =
  | {is: 'honoured'; note?: string}
  /** Honoured where the operator's configuration allows it; else 403 naming it. */
  | {is: 'gated'; by: PolicyField; note?: string}
  /** 400 naming it, unless it says one of `neutral` or nothing at all (null, "", 0, false, [], {}). */
  | {is: 'refused'; why: string; neutral?: readonly unknown[]}
  /** Taken whatever it says, for a reason. */
  | {is: 'ignored'; why: string};

export type Wire =
  | {kind: 'string'; go: string; maxLength: number}
  | {kind: 'bool'; go: 'bool'}
  | {kind: 'int'; go: string; min: number; max: number}
  /** `exactly`: that many elements, the missing ones null, what is more left out. */
  | {kind: 'list'; go: string; of: Wire; maxItems: number; exactly?: number}
  | {kind: 'map'; go: string; of: Wire}
  /** One string stands for a list of one. */
  | {kind: 'words'; go: 'string'}
  /** An object of which nothing is read. */
  | {kind: 'empty'; go: string}
  | Struct;
/** `pointer`: null among the elements of a list or map stays null, where it else stands for an empty object. */
export interface Struct {kind: 'struct'; go: string; fields: Readonly<Record<string, Field>>; pointer?: boolean}
export interface Field { wire: Wire; disposition: Disposition }
export type Fields = Struct['fields'];

const MAX_TEXT = 65_536;
const MAX_LONG_TEXT = 262_144;
const MAX_ITEMS = 10_000;

export const text = (go = 'string'): Wire => ({kind: 'string', go, maxLength: MAX_TEXT});
const longText: Wire = {kind: 'string', go: 'string', maxLength: MAX_LONG_TEXT};
export const bool: Wire = {kind: 'bool', go: 'bool'};
// JavaScript's numbers are coarser than Go's at the far end; no real limit reaches it.
export const int64 = (go = 'int64'): Wire => ({kind: 'int', go, min: -(2 ** 63), max: 2 ** 63});
export const int: Wire = int64('int');
export const uint16: Wire = {kind: 'int', go: 'uint16', min: 0, max: 65_535};
export const uint32 = (go = 'uint32'): Wire => ({kind: 'int', go, min: 0, max: 2 ** 32 - 1});
export const uint64: Wire = {kind: 'int', go: 'uint64', min: 0, max: 2 ** 64};
export const list = (of: Wire, go = `[]${of.go}`): Wire => ({kind: 'list', go, of, maxItems: MAX_ITEMS});
export const map = (of: Wire, go = `map[string]${of.go}`): Wire => ({kind: 'map', go, of});
export const pair = (of: Wire): Wire => ({kind: 'list', go: `[2]${of.go}`, of, maxItems: MAX_ITEMS, exactly: 2});
export const strings = list(longText);
export const stringMap = map(longText);
export const words: Wire = {kind: 'words', go: 'string'};
export const emptyObjects = (go: string): Wire => map({kind: 'empty', go: 'struct {}'}, go);
export const anyObject = (go: string): Wire => ({kind: 'empty', go});
export const MAX = {text: MAX_TEXT, longText: MAX_LONG_TEXT, items: MAX_ITEMS} as const;

/** A field of which nothing more is to be said is honoured. */
export function struct(go: string, fields: Readonly<Record<string, Wire | Field>>, more: {pointer?: boolean} = {}): Struct {
  const entries = Object.entries(fields).map(([name, given]): [string, Field] => [name, 'wire' in given ? given : {wire: given, disposition: {is: 'honoured'}}]);
  return {kind: 'struct', go, fields: Object.fromEntries(entries), ...more};
}

export const honoured = (wire: Wire, note: string): Field => ({wire, disposition: {is: 'honoured', note}});
export const gated = (wire: Wire, by: PolicyField = 'allowPrivileged'): Field => ({wire, disposition: {is: 'gated', by}});
export const refused = (wire: Wire, why: string, ...neutral: unknown[]): Field => ({wire, disposition: {is: 'refused', why, ...(neutral.length ? {neutral} : {})}});
export const ignored = (wire: Wire, why: string): Field => ({wire, disposition: {is: 'ignored', why}});

/** Null, and what a client sends when nobody asked for anything. */
export function asksNothing(value: unknown): boolean {
  if (value === undefined || value === null || value === '' || value === 0 || value === false) return true;
  if (Array.isArray(value)) return value.length === 0 || value.every((v) => v === 0);
  return typeof value === 'object' && Object.values(value).every(asksNothing);
}

/** Does a refused field's value change nothing? */
export const isNeutral = (disposition: {neutral?: readonly unknown[]}, value: unknown): boolean => asksNothing(value) || (disposition.neutral?.includes(value) ?? false);
