/**
 * `--log-driver` and `--log-opt`, checked: what the driver does not know is refused with the Engine's wording, never ignored.
 * `local` is accepted and kept in the json-file format (with local's defaults of 5 files of 20 MB, compressed): one reader for both.
 */
import {CetusError} from '../../base/errors';
import type {ContainerSpec} from '../../schema/container';
import type {LogConfig} from '../../schema/docker';

export interface LogOptions {
  driver: 'json-file' | 'local' | 'none';
  /** Bytes after which the file is rotated; Infinity = never. */
  maxBytes: number;
  maxFiles: number;
  compress: boolean;
  /** JSON object text for each entry's `attrs`, or ''. */
  attrs: string;
}

const MAX_FILES = 1000;
const KNOWN = new Set(['max-size', 'max-file', 'compress', 'labels', 'labels-regex', 'env', 'env-regex', 'tag', 'mode', 'max-buffer-size']);
const KNOWN_LOCAL = new Set(['max-size', 'max-file', 'compress', 'mode', 'max-buffer-size']);
const UNITS: Record<string, number> = {'': 1, b: 1, k: 1024, m: 1024 ** 2, g: 1024 ** 3, t: 1024 ** 4};

export function parseLogOptions(log: LogConfig, spec: Pick<ContainerSpec, 'config'>): LogOptions {
  const driver = log.Type || 'json-file';
  const options = log.Config ?? {};
  if (driver === 'none') {
    const [first] = Object.keys(options);
    if (first !== undefined) throw new CetusError('invalid', `unknown log opt '${first}' for none log driver`);
    return {driver, maxBytes: Infinity, maxFiles: 1, compress: false, attrs: ''};
  }
  if (driver !== 'json-file' && driver !== 'local')
    throw new CetusError('unsupported', `logger: no log driver named '${driver}' is registered`);
  for (const key of Object.keys(options))
    if (!(driver === 'local' ? KNOWN_LOCAL : KNOWN).has(key)) throw new CetusError('invalid', `unknown log opt '${key}' for ${driver} log driver`);
  if (options.mode && options.mode !== 'blocking' && options.mode !== 'non-blocking')
    throw new CetusError('invalid', `logger: logging mode "${options.mode}" is not valid`);
  const local = driver === 'local';
  const maxBytes = options['max-size'] ? parseSize(options['max-size']) : local ? 20 * 1024 * 1024 : Infinity;
  const maxFiles = options['max-file'] ? parseCount(options['max-file']) : local ? 5 : 1;
  if (options['max-file'] && maxFiles > 1 && maxBytes === Infinity)
    throw new CetusError('invalid', "max-file cannot be specified without max-size");
  const compress = options.compress ? parseBoolean('compress', options.compress) : local;
  if (options.compress && compress && !local && (maxFiles < 2 || maxBytes === Infinity))
    throw new CetusError('invalid', 'compress cannot be true when max-file is less than 2 or max-size is not set');
  return {driver, maxBytes, maxFiles, compress, attrs: attributes(options, spec)};
}

function attributes(options: Record<string, string>, spec: Pick<ContainerSpec, 'config'>): string {
  const attrs: Record<string, string> = {};
  const labels = spec.config.Labels ?? {};
  const env = Object.fromEntries((spec.config.Env ?? []).map((e) => [e.split('=', 1)[0]!, e.slice(e.indexOf('=') + 1)]));
  pick(labels, options.labels, options['labels-regex'], attrs);
  pick(env, options.env, options['env-regex'], attrs);
  if (options.tag) {
    if (options.tag.includes('{{')) throw new CetusError('unsupported', 'log opt \'tag\' with a template is not supported');
    attrs.tag = options.tag;
  }
  return Object.keys(attrs).length ? JSON.stringify(attrs) : '';
}

function pick(from: Record<string, string>, names: string | undefined, pattern: string | undefined, into: Record<string, string>): void {
  for (const name of names ? names.split(',') : []) if (from[name] !== undefined) into[name] = from[name]!;
  if (!pattern) return;
  let regex: RegExp;
  try {
    regex = new RegExp(pattern);
  } catch (err) {
    throw new CetusError('invalid', `invalid regular expression in log options: ${pattern}`, {cause: err});
  }
  for (const [name, value] of Object.entries(from)) if (regex.test(name)) into[name] = value;
}

function parseSize(text: string): number {
  if (text === '-1') return Infinity;
  const match = /^(\d+(?:\.\d+)?) ?([kmgt]?)i?b?$/i.exec(text);
  if (!match) throw new CetusError('invalid', `invalid size: '${text}'`);
  const bytes = Math.floor(Number(match[1]) * UNITS[match[2]!.toLowerCase()]!);
  if (bytes <= 0) throw new CetusError('invalid', 'max-size must be a positive number');
  return bytes;
}

/** Of a new container's. Each rotation moves all files, and each reading opens them: more would be the node's trouble, not the container's. */
export function checkLogOptions(config: Parameters<typeof parseLogOptions>[0], spec: Parameters<typeof parseLogOptions>[1]): void {
  if (parseLogOptions(config, spec).maxFiles > MAX_FILES) throw new CetusError('invalid', `max-file cannot be more than ${MAX_FILES}`);
}

function parseCount(text: string): number {
  const n = Number(text);
  if (!Number.isInteger(n) || n < 1) throw new CetusError('invalid', 'max-file cannot be less than 1');
  return n;
}

function parseBoolean(name: string, text: string): boolean {
  if (/^(1|t|true)$/i.test(text)) return true;
  if (/^(0|f|false)$/i.test(text)) return false;
  throw new CetusError('invalid', `invalid value for log opt ${name}: ${text}`);
}
