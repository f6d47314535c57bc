import fs from 'node:fs';
import bunyan from 'bunyan';

/** bunyan's logger. One per process, `child({component})` per room; request and job ids travel as fields. */
export type Log = bunyan;

export interface LogOptions {
  name: string;
  level?: bunyan.LogLevelString;
  /** Default: standard error, so that standard output stays the program's own. */
  stream?: LogStream;
}

/** All that a logger asks of where it writes to. */
export interface LogStream { write(record: string): unknown }

// Values that may hold credentials are replaced before a record is written, wherever they appear at the top level.
const SECRET = /authorization|registry-auth|registry-config|password|secret|token|identitytoken/i;

export function createLog(options: LogOptions): Log {
  return bunyan.createLogger({
    name: options.name,
    level: options.level ?? 'info',
    stream: (options.stream ?? process.stderr) as NodeJS.WritableStream,
    serializers: {err: bunyan.stdSerializers.err, headers: redactHeaders},
  });
}

export function redactHeaders(headers: unknown): unknown {
  if (!headers || typeof headers !== 'object') return headers;
  return Object.fromEntries(Object.entries(headers).map(([k, v]) => [k, SECRET.test(k) ? '(redacted)' : v]));
}

/**
 * A file, by name (appended to) or by descriptor. A record that the disk does not take is left out: a process that serves must not end because
 * it could not say so. Node's own streams throw then, or end for ever.
 */
export function logFile(file: string | number): LogStream {
  const fd = typeof file === 'number' ? file : fs.openSync(file, 'a', 0o600);
  let torn = false;
  return {
    write: (record) => {
      const bytes = Buffer.from(torn ? `\n${record}` : record);
      let at = 0;
      try {
        while (at < bytes.length) at += fs.writeSync(fd, bytes, at, bytes.length - at);
        torn = false;
      } catch {
        torn ||= at > 0;
      }
    },
  };
}

/** Standard output: of a process that `cetus up` started a file. Pipes and terminals are Node's business. */
export function standardOutput(): LogStream {
  return fs.fstatSync(1).isFile() ? logFile(1) : process.stdout;
}

/** A logger that writes nothing, for tests and tools. */
export function silentLog(): Log {
  return bunyan.createLogger({name: 'silent', streams: []});
}
