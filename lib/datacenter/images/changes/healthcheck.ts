/** HEALTHCHECK of a Dockerfile: flags and command into a health configuration; texts are the Engine's. Pure. */
import type {HealthConfig} from '../../../schema/docker';
import {type Instruction, invalid, jsonWords} from './words';

const FLAGS = {'interval': 'Interval', 'timeout': 'Timeout', 'start-period': 'StartPeriod', 'start-interval': 'StartInterval'} as const;
const UNIT_NS: Readonly<Record<string, number>> = {ns: 1, us: 1e3, 'µs': 1e3, ms: 1e6, s: 1e9, m: 60e9, h: 3600e9};
const DURATION = /^(?:\d+(?:\.\d*)?|\.\d+)(?:ns|us|µs|ms|s|m|h)/;

export function healthcheck({flags, rest}: Instruction): HealthConfig {
  const [, kind = '', args = ''] = /^(\S*)\s*(.*)$/s.exec(rest)!;
  if (kind === '') throw invalid('HEALTHCHECK requires at least one argument');
  if (kind.toUpperCase() === 'NONE') {
    if (args !== '') throw invalid('HEALTHCHECK NONE takes no arguments');
    if (flags.length) throw invalid('HEALTHCHECK NONE takes no arguments');
    return {Test: ['NONE']};
  }
  if (kind.toUpperCase() !== 'CMD') throw invalid(`Unknown type ${JSON.stringify(kind.toUpperCase())} in HEALTHCHECK (try CMD)`);
  const exec = jsonWords(args);
  if (args === '' || exec?.length === 0) throw invalid('Missing command after HEALTHCHECK CMD');
  return {Test: exec ? ['CMD', ...exec] : ['CMD-SHELL', args], ...Object.assign({}, ...flags.map(flag)) as HealthConfig};
}

function flag(text: string): HealthConfig {
  const at = text.indexOf('=');
  const name = at < 0 ? text : text.slice(0, at);
  const value = at < 0 ? '' : text.slice(at + 1);
  if (name !== 'retries' && !Object.hasOwn(FLAGS, name)) throw invalid(`unknown flag: --${name}`);
  if (at < 0) throw invalid(`missing a value on flag: --${name}`);
  if (name === 'retries') {
    if (!/^[+-]?\d+$/.test(value)) throw invalid(`strconv.ParseInt: parsing ${JSON.stringify(value)}: invalid syntax`);
    if (Number(value) < 0) throw invalid(`--retries cannot be negative (${Number(value)})`);
    return {Retries: Number(value)};
  }
  const ns = duration(value);
  if (ns < 1e6 && ns !== 0) throw invalid(`Interval ${JSON.stringify(name)} cannot be less than 1ms`);
  return {[FLAGS[name as keyof typeof FLAGS]]: ns};
}

function malformed(text: string, rest: string): Error {
  const unit = /^[\d.]+([^\d.]*)/.exec(rest)?.[1];
  const whole = JSON.stringify(text);
  return invalid(unit === undefined ? `time: invalid duration ${whole}` : unit === '' ? `time: missing unit in duration ${whole}` : `time: unknown unit ${JSON.stringify(unit)} in duration ${whole}`);
}

/** Nanoseconds, as Go writes durations. */
function duration(text: string): number {
  const negative = text.startsWith('-');
  let rest = text.replace(/^[+-]/, '');
  if (rest === '0') return 0;
  let ns = 0;
  if (rest === '') throw invalid(`time: invalid duration ${JSON.stringify(text)}`);
  while (rest !== '') {
    const part = DURATION.exec(rest)?.[0];
    if (part === undefined) throw malformed(text, rest);
    const amount = Number.parseFloat(part);
    ns += amount * UNIT_NS[part.replace(/^[\d.]+/, '')]!;
    rest = rest.slice(part.length);
  }
  return Math.round(negative ? -ns : ns);
}
