/** Docker's list filters: names and values as the Engine accepts and refuses them. Pure. */
import {type Pattern, compilePattern} from '../base/pattern';
import {CetusError} from '../base/errors';
import type {Filters} from './verbs';

export function invalidFilter(name: string, values?: readonly string[]): CetusError {
  return new CetusError('invalid', values ? `invalid filter '${name}=[${values.join(' ')}]'` : `invalid filter '${name}'`);
}

export function acceptFilters(filters: Filters, accepted: readonly string[]): void {
  for (const name of Object.keys(filters)) if (!accepted.includes(name)) throw invalidFilter(name);
}

export const valuesOf = (filters: Filters, name: string): readonly string[] => filters[name] ?? [];
export const has = (filters: Filters, name: string): boolean => valuesOf(filters, name).length > 0;

/** A filter that takes one boolean; undefined where it is absent. */
export function booleanFilter(filters: Filters, name: string): boolean | undefined {
  const values = valuesOf(filters, name);
  if (values.length === 0) return undefined;
  const truths = values.map((v) => (['1', 't', 'true', 'True', 'TRUE', 'T'].includes(v) ? true : ['0', 'f', 'false', 'False', 'FALSE', 'F'].includes(v) ? false : undefined));
  if (truths.includes(undefined) || new Set(truths).size > 1) throw invalidFilter(name, values);
  return truths[0];
}

/** key or key=value; all of them must hold. */
export function labelsMatch(wanted: readonly string[], labels: Readonly<Record<string, string>>): boolean {
  return wanted.every((text) => {
    const at = text.indexOf('=');
    const key = at < 0 ? text : text.slice(0, at);
    return Object.hasOwn(labels, key) && (at < 0 || labels[key] === text.slice(at + 1));
  });
}

/** `label` must hold and `label!` must not: the pair that lists and prunes share. */
export function labelFilters(filters: Filters): (labels: Readonly<Record<string, string>>) => boolean {
  const wanted = valuesOf(filters, 'label');
  const unwanted = valuesOf(filters, 'label!');
  return (labels) => labelsMatch(wanted, labels) && !unwanted.some((text) => labelsMatch([text], labels));
}

/** Names: as the Engine, a value is the name itself or a regular expression found in it. No value: everything. */
export function nameMatcher(filters: Filters, name: string): (subject: string) => boolean {
  const values = valuesOf(filters, name);
  if (values.length === 0) return () => true;
  let patterns: Pattern[];
  try {
    patterns = values.map((v) => compilePattern(`/${v}/`));
  } catch {
    throw invalidFilter(name, values);
  }
  return (subject) => values.includes(subject) || patterns.some((p) => p.matches(subject));
}

/** Ids: prefix, as people write them. */
export function idMatcher(filters: Filters, name: string): (id: string) => boolean {
  const values = valuesOf(filters, name);
  if (values.length === 0) return () => true;
  return (id) => values.some((v) => id.startsWith(v) || id.replace(/^sha256:/, '').startsWith(v.replace(/^sha256:/, '')));
}

const UNITS: Record<string, number> = {ns: 1e-6, us: 1e-3, 'µs': 1e-3, ms: 1, s: 1000, m: 60_000, h: 3_600_000};

/** `until`: a duration before now ("10m", "1h30m"), seconds since the epoch, or a date. Milliseconds since the epoch. */
export function untilFilter(filters: Filters, nowMs: number): number | undefined {
  const values = valuesOf(filters, 'until');
  if (values.length === 0) return undefined;
  if (values.length > 1) throw new CetusError('invalid', 'more than one until filter specified');
  const text = values[0]!;
  if (/^(\d+(\.\d*)?(ns|us|µs|ms|s|m|h))+$/.test(text)) {
    let ms = 0;
    for (const [, amount, unit] of text.matchAll(/(\d+(?:\.\d*)?)(ns|us|µs|ms|s|m|h)/g)) ms += Number(amount) * UNITS[unit!]!;
    return nowMs - ms;
  }
  if (/^\d+(\.\d+)?$/.test(text)) return Number(text) * 1000;
  const date = Date.parse(text);
  if (Number.isNaN(date)) throw new CetusError('invalid', `failed to parse value as time or duration: ${JSON.stringify(text)}`);
  return date;
}
