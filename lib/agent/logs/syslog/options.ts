/**
 * The options of the log driver syslog, checked in the Engine's words. Pure but for files that an address or TLS names, which are the node's and
 * are looked at when a container starts (connect.ts).
 */
import {CetusError} from '../../../base/errors';
import type {Format} from './format';

export interface SyslogOptions {
  address: SyslogAddress;
  /** Already shifted: a message's priority is this and its severity. */
  facility: number;
  format: Format;
  /** A template as written; see tag.ts. */
  tag: string;
  tls: {ca?: string; cert?: string; key?: string; skipVerify: boolean};
}
export type SyslogAddress = {proto: 'local'} | {proto: 'udp' | 'tcp' | 'tcp+tls'; host: string; port: number} | {proto: 'unix' | 'unixgram'; path: string};

const FACILITIES = ['kern', 'user', 'mail', 'daemon', 'auth', 'syslog', 'lpr', 'news', 'uucp', 'cron', 'authpriv', 'ftp'];
const DAEMON = 3;
const DEFAULT_PORT = 514;
const FORMATS: Record<string, Format> = {'': 'unix', rfc3164: 'rfc3164', rfc5424: 'rfc5424', rfc5424micro: 'rfc5424micro'};
const invalid = (message: string): CetusError => new CetusError('invalid', message);

export function parseSyslogOptions(options: Record<string, string>): SyslogOptions {
  const format = FORMATS[options['syslog-format'] ?? ''];
  const address = parseAddress(options['syslog-address'] ?? '');
  const facility = parseFacility(options['syslog-facility'] ?? '');
  if (!format) throw invalid('Invalid syslog format');
  return {
    address, facility, format, tag: options.tag || '{{.ID}}',
    tls: {ca: options['syslog-tls-ca-cert'] || undefined, cert: options['syslog-tls-cert'] || undefined, key: options['syslog-tls-key'] || undefined, skipVerify: options['syslog-tls-skip-verify'] !== undefined},
  };
}

function parseFacility(text: string): number {
  if (text === '') return DAEMON << 3;
  const local = /^local([0-7])$/.exec(text);
  const number = /^\d+$/.test(text) ? Number(text) : local ? 16 + Number(local[1]) : FACILITIES.indexOf(text);
  if (number < 0 || number > 23) throw invalid('invalid syslog facility');
  return number << 3;
}

function parseAddress(text: string): SyslogAddress {
  if (text === '') return {proto: 'local'};
  const [, proto, rest] = /^(tcp\+tls|tcp|udp|unixgram|unix):\/\/(.*)$/.exec(text) ?? [];
  if (proto === undefined) throw invalid(`syslog-address should be in form proto://address, got ${text}`);
  if (proto === 'unix' || proto === 'unixgram') return {proto, path: rest!};
  const [, host, port] = /^(\[[^\]]*\]|[^:/?#]*)(?::(\d{1,5}))?\/?$/.exec(rest!) ?? [];
  if (host === undefined || Number(port ?? 0) > 65_535) throw invalid(`syslog-address should be in form proto://address, got ${text}`);
  return {proto: proto as 'tcp', host: host.replace(/^\[|\]$/g, '') || '127.0.0.1', port: Number(port ?? DEFAULT_PORT)};
}
