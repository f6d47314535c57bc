/**
 * `--log-driver` and `--log-opt`, checked: what the driver does not know is refused with the Engine's wording, never ignored.
 * `local` is accepted and kept in the json-file format (with local's defaults of 5 files of 20 MB, compressed): one reader for both. `syslog` has the
 * Engine's cache beside it, a log as local's that `docker logs` reads, unless cache-disabled. mode=non-blocking changes nothing for a file: writing
 * one never waits for anybody.
 */
import os from 'node:os';
import {CetusError} from '../../base/errors';
import {compilePattern} from '../../base/pattern';
import type {LogConfig} from '../../schema/docker';
import {LOG_DRIVERS, LOG_OPTIONS_OF_ALL} from '../../schema/log-drivers';
import {parseSyslogOptions, type SyslogOptions} from './syslog/options';
import {type Tagged, tagOf} from './tag';

export interface LogOptions {
  driver: 'json-file' | 'local' | 'syslog' | 'none';
  /** There is a file that can be read. */
  cached: boolean;
  syslog?: SyslogOptions;
  /** mode=non-blocking: bytes that may wait for a server. */
  bufferBytes?: number;
  /** Bytes after which the file is rotated; Infinity = never. */
  maxBytes: number;
  maxFiles: number;
  compress: boolean;
  /** JSON object text for each entry's `attrs`, or ''. */
  attrs: string;
}

const MAX_FILES = 1000;
const DEFAULT_BUFFER_BYTES = 1_000_000;
const LOCAL_BYTES = 20 * 1024 * 1024;
const LOCAL_FILES = 5;
const UNITS: Record<string, number> = {'': 1, b: 1, k: 1024, m: 1024 ** 2, g: 1024 ** 3, t: 1024 ** 4};

export function parseLogOptions(log: LogConfig, spec: Tagged): LogOptions {
  const driver = log.Type || 'json-file';
  const options = log.Config ?? {};
  if (driver === 'none') {
    const [first] = Object.keys(options);
    if (first !== undefined) throw new CetusError('invalid', `unknown log opt '${first}' for none log driver`);
    return {driver, cached: false, maxBytes: Infinity, maxFiles: 1, compress: false, attrs: ''};
  }
  const bufferBytes = parseMode(options);
  const cache = parseCache(options);
  if (driver !== 'json-file' && driver !== 'local' && driver !== 'syslog')
    throw new CetusError('unsupported', `logger: no log driver named '${driver}' is registered`);
  for (const key of Object.keys(options))
    if (!LOG_DRIVERS[driver]!.includes(key) && !LOG_OPTIONS_OF_ALL.includes(key)) throw new CetusError('invalid', `unknown log opt '${key}' for ${driver} log driver`);
  if (options.tag) tagOf(options.tag, spec, '');
  if (driver === 'syslog') return {driver, ...cache, syslog: parseSyslogOptions(options), bufferBytes, attrs: ''};
  return {driver, cached: true, ...parseFiles(driver === 'local', options), bufferBytes, attrs: attributes(options, spec)};
}

function parseFiles(local: boolean, options: Record<string, string>): Pick<LogOptions, 'maxBytes' | 'maxFiles' | 'compress'> {
  const maxBytes = options['max-size'] ? parseSize(options['max-size']) : local ? LOCAL_BYTES : Infinity;
  const maxFiles = options['max-file'] ? parseCount(options['max-file']) : local ? LOCAL_FILES : 1;
  if (options['max-file'] && maxFiles > 1 && maxBytes === Infinity)
    throw new CetusError('invalid', "max-file cannot be specified without max-size");
  const compress = options.compress ? parseBoolean('log opt compress', options.compress) : local;
  if (options.compress && compress && !local && (maxFiles < 2 || maxBytes === Infinity))
    throw new CetusError('invalid', 'compress cannot be true when max-file is less than 2 or max-size is not set');
  return {maxBytes, maxFiles, compress};
}

/** undefined: blocking. */
function parseMode(options: Record<string, string>): number | undefined {
  const {mode = ''} = options;
  if (mode !== '' && mode !== 'blocking' && mode !== 'non-blocking') throw new CetusError('invalid', `logger: logging mode not supported: ${mode}`);
  const size = options['max-buffer-size'];
  if (size === undefined) return mode === 'non-blocking' ? DEFAULT_BUFFER_BYTES : undefined;
  if (mode !== 'non-blocking') throw new CetusError('invalid', "logger: max-buffer-size option is only supported with 'mode=non-blocking'");
  return bytesOf(size, (text) => `error parsing option max-buffer-size: invalid size: '${text}'`);
}

/** What lies beside a driver whose log cannot be read back. */
function parseCache(options: Record<string, string>): Pick<LogOptions, 'cached' | 'maxBytes' | 'maxFiles' | 'compress'> {
  const flag = (name: string, fallback: boolean): boolean => {
    const text = options[name];
    return text === undefined || text === '' ? fallback : parseBoolean(`option ${name}`, text);
  };
  const size = options['cache-max-size'];
  const files = options['cache-max-file'];
  return {
    cached: !flag('cache-disabled', false), maxBytes: size ? bytesOf(size, (text) => `invalid size: '${text}'`) : LOCAL_BYTES, maxFiles: files ? parseCount(files) : LOCAL_FILES,
    compress: flag('cache-compress', true),
  };
}

function attributes(options: Record<string, string>, spec: Tagged): string {
  const attrs: Record<string, string> = {};
  const labels = spec.config.Labels ?? {};
  const env = Object.fromEntries((spec.config.Env ?? []).map((e) => [e.split('=', 1)[0]!, e.slice(e.indexOf('=') + 1)]));
  pick(labels, options.labels, options['labels-regex'], attrs);
  pick(env, options.env, options['env-regex'], attrs);
  if (options.tag) attrs.tag = tagOf(options.tag, spec, os.hostname());
  return Object.keys(attrs).length ? JSON.stringify(attrs) : '';
}

function pick(from: Record<string, string>, names: string | undefined, pattern: string | undefined, into: Record<string, string>): void {
  for (const name of names ? names.split(',') : []) if (from[name] !== undefined) into[name] = from[name]!;
  if (!pattern) return;
  // In linear time: names and pattern are the same stranger's, and the agent's thread is everybody's.
  const {matches} = compilePattern(`/${pattern}/`);
  for (const [name, value] of Object.entries(from)) if (matches(name)) into[name] = value;
}

function parseSize(text: string): number {
  if (text === '-1') return Infinity;
  const bytes = bytesOf(text, (wrong) => `invalid size: '${wrong}'`);
  if (bytes <= 0) throw new CetusError('invalid', 'max-size must be a positive number');
  return bytes;
}

function bytesOf(text: string, message: (wrong: string) => string): number {
  const match = /^(\d+(?:\.\d+)?) ?([kmgt]?)i?b?$/i.exec(text);
  if (!match) throw new CetusError('invalid', message(text));
  return Math.floor(Number(match[1]) * UNITS[match[2]!.toLowerCase()]!);
}

/** Of a new container's. Each rotation moves all files, and each reading opens them: more would be the node's trouble, not the container's. */
export function checkLogOptions(config: LogConfig, spec: Tagged): void {
  if (parseLogOptions(config, spec).maxFiles > MAX_FILES) throw new CetusError('invalid', `max-file cannot be more than ${MAX_FILES}`);
}

function parseCount(text: string): number {
  const n = Number(text);
  if (!Number.isInteger(n) || n < 1) throw new CetusError('invalid', 'max-file cannot be less than 1');
  return n;
}

function parseBoolean(what: string, text: string): boolean {
  if (/^(1|t|true)$/i.test(text)) return true;
  if (/^(0|f|false)$/i.test(text)) return false;
  throw new CetusError('invalid', `invalid value for ${what}: ${text}`);
}
