/** The operator's API from the command line: one call, its answer or its error. */
import path from 'node:path';
import {Agent, request} from 'undici';
import {CetusError} from '../../base/errors';

const DEADLINE_MS = 30_000;

export type Call = <T>(method: 'GET' | 'POST', path: string) => Promise<T>;

/** `admin` is a socket's path, unix:///PATH, or http://HOST:PORT; undefined: the socket in the data directory. */
export function adminClient(admin: string | undefined, dataDir: string): Call {
  const where = admin ?? path.join(path.resolve(dataDir), 'run', 'admin.sock');
  const socketPath = where.startsWith('unix://') ? where.slice('unix://'.length) : where.startsWith('/') ? where : undefined;
  const origin = socketPath ? 'http://cetus' : where.replace(/\/$/, '');
  if (!socketPath && !/^https?:\/\//.test(where)) throw new CetusError('invalid', `--admin ${where}: expected a socket's path, unix:///PATH or http://HOST:PORT`);
  return async <T>(method: 'GET' | 'POST', url: string): Promise<T> => {
    const dispatcher = new Agent(socketPath ? {connect: {socketPath}} : {});
    try {
      const answer = await request(`${origin}${url}`, {method, dispatcher, headersTimeout: DEADLINE_MS, bodyTimeout: DEADLINE_MS});
      const body = await answer.body.json() as T & {code?: string; message?: string};
      if (answer.statusCode !== 200) throw new CetusError('invalid', body.message ?? `the operator's API answered ${answer.statusCode}`);
      return body;
    } catch (err) {
      const code = (err as NodeJS.ErrnoException).code;
      if (code === 'ENOENT' || code === 'ECONNREFUSED')
        throw new CetusError('unavailable', `nothing answers at ${where}: is Cetus running with this --data, or should --admin name another place?`);
      throw err;
    } finally {
      await dispatcher.close();
    }
  };
}
