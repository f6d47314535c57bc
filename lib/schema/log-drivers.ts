/** The log drivers there are and the options that each knows: what the datacenter lets through and what nodes read. */
const CHOICE = ['labels', 'labels-regex', 'env', 'env-regex', 'tag'];

export const LOG_DRIVERS: Readonly<Record<string, readonly string[]>> = {
  'json-file': ['max-size', 'max-file', 'compress', ...CHOICE],
  local: ['max-size', 'max-file', 'compress'],
  syslog: ['syslog-address', 'syslog-facility', 'syslog-tls-ca-cert', 'syslog-tls-cert', 'syslog-tls-key', 'syslog-tls-skip-verify', 'syslog-format', ...CHOICE],
  none: [],
};
/** Of every driver but none: how it waits, and the log beside one that cannot be read back. */
export const LOG_OPTIONS_OF_ALL: readonly string[] = ['mode', 'max-buffer-size', 'cache-disabled', 'cache-max-size', 'cache-max-file', 'cache-compress'];
