import bunyan from 'bunyan';

/** bunyan's logger. One per process, `child({component})` per room; request and job ids travel as fields. */
export type Log = bunyan;

export interface LogOptions {
  name: string;
  level?: bunyan.LogLevelString;
  /** Default: standard error, so that standard output stays the program's own. */
  stream?: NodeJS.WritableStream;
}

// Values that may hold credentials are replaced before a record is written, wherever they appear at the top level.
const SECRET = /authorization|registry-auth|registry-config|password|secret|token|identitytoken/i;

export function createLog(options: LogOptions): Log {
  return bunyan.createLogger({
    name: options.name,
    level: options.level ?? 'info',
    stream: options.stream ?? process.stderr,
    serializers: {err: bunyan.stdSerializers.err, headers: redactHeaders},
  });
}

export function redactHeaders(headers: unknown): unknown {
  if (!headers || typeof headers !== 'object') return headers;
  return Object.fromEntries(Object.entries(headers).map(([k, v]) => [k, SECRET.test(k) ? '(redacted)' : v]));
}

/** A logger that writes nothing, for tests and tools. */
export function silentLog(): Log {
  return bunyan.createLogger({name: 'silent', streams: []});
}
