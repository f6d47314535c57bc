/** The operator's API from the command line: one call, its answer or its error. */
import http from 'node:http';
import https from 'node:https';
import path from 'node:path';
import {text as readText} from 'node:stream/consumers';
import {CetusError} from '../../base/errors';

const DEADLINE_MS = 30_000;

type Method = 'GET' | 'POST' | 'DELETE';
export type Call = <T>(method: Method, path: string, body?: object) => Promise<T>;

/** `admin` is a socket's path, unix:///PATH, or http://HOST:PORT; undefined: the socket in the data directory. */
export function adminClient(admin: string | undefined, dataDir: string): Call {
  const where = admin ?? path.join(path.resolve(dataDir), 'run', 'admin.sock');
  const socketPath = where.startsWith('unix://') ? where.slice('unix://'.length) : where.startsWith('/') ? where : undefined;
  const origin = socketPath ? 'http://cetus' : where.replace(/\/$/, '');
  if (!socketPath && !/^https?:\/\//.test(where)) throw new CetusError('invalid', `--admin ${where}: expected a socket's path, unix:///PATH or http://HOST:PORT`);
  return async <T>(method: Method, url: string, sent?: object): Promise<T> => {
    try {
      const {status, text} = await ask(`${origin}${url}`, {method, socketPath}, sent === undefined ? undefined : JSON.stringify(sent));
      const body = JSON.parse(text) as T & {code?: string; message?: string};
      if (status !== 200) throw new CetusError('invalid', body.message ?? `the operator's API answered ${status}`);
      return body;
    } catch (err) {
      const code = (err as NodeJS.ErrnoException).code;
      if (code === 'ENOENT' || code === 'ECONNREFUSED')
        throw new CetusError('unavailable', `nothing answers at ${where}: is Cetus running with this --data, or should --admin name another place?`);
      if (code === 'EACCES') throw new CetusError('forbidden', `${where} is open to root alone`);
      throw err;
    }
  };
}

/** Node's own client: undici would cost each of the operator's commands, and `cetus up` for its whole life, 10 MB and 50 ms. */
function ask(url: string, options: http.RequestOptions, body: string | undefined): Promise<{status: number; text: string}> {
  return new Promise((resolve, reject) => {
    const request = (url.startsWith('https:') ? https : http).request(url, {...options, agent: false, signal: AbortSignal.timeout(DEADLINE_MS)}, (answer) => {
      readText(answer).then((text) => resolve({status: answer.statusCode!, text}), reject);
    });
    if (body !== undefined) request.setHeader('content-type', 'application/json').setHeader('content-length', Buffer.byteLength(body));
    request.once('error', reject).end(body);
  });
}
