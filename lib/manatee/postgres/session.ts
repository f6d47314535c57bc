/**
 * The sitter's own connections to its server: superuser, over the unix socket. One is kept for all that is asked again and again; a new one is made
 * where only a process that began after a certain moment proves something. Nothing here waits without a bound.
 */
import pg from 'pg';
import {CetusError, asCetusError} from '../../base/errors';
import {SITTER} from './conf';

export const ANSWER_MS = 5000;

/** Rejects with `timeout` after so many ms; what is then to be done with the loser is the caller's business. */
export async function within<T>(ms: number, what: string, promise: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  try {
    return await Promise.race([promise, new Promise<never>((_, reject) => { timer = setTimeout(() => reject(new CetusError('timeout', `${what} took longer than ${ms} ms`)), ms); })]);
  } finally {
    clearTimeout(timer);
  }
}

/** Connects, or rejects within the bound and leaves nothing behind. Losing the connection later is told by the next query. */
export async function connect(config: pg.ClientConfig, timeoutMs = ANSWER_MS): Promise<pg.Client> {
  const client = new pg.Client(config);
  client.on('error', () => undefined);
  try {
    await within(timeoutMs, 'connecting to Postgres', client.connect());
    return client;
  } catch (err) {
    discard(client);
    throw err;
  }
}

/** Without a word: a server that does not answer would not answer to a farewell either. */
export function discard(client: pg.Client): void {
  (client as unknown as {connection: {stream: {destroy(): void}}}).connection.stream.destroy();
}

export async function once<T>(config: pg.ClientConfig, use: (client: pg.Client) => Promise<T>, timeoutMs = ANSWER_MS): Promise<T> {
  const client = await connect(config, timeoutMs);
  try {
    return await within(timeoutMs, 'a question to Postgres', use(client));
  } finally {
    discard(client);
  }
}

export class Session {
  private kept: Promise<pg.Client> | undefined;

  constructor(private readonly socketDir: string, private readonly port: number) {}

  get config(): pg.ClientConfig {
    return {host: this.socketDir, port: this.port, user: SITTER, database: 'postgres', application_name: 'cetus_sitter'};
  }

  /** Throws `unavailable`; the connection is then given up. */
  async ask<R extends pg.QueryResultRow>(text: string, values: unknown[] = [], name?: string, timeoutMs = ANSWER_MS): Promise<R[]> {
    const opening = (this.kept ??= connect(this.config, timeoutMs));
    try {
      const answer = opening.then((client) => client.query<R>({text, values, ...(name ? {name} : {})}));
      return (await within(timeoutMs, 'a question to Postgres', answer)).rows;
    } catch (err) {
      if (this.kept === opening) this.kept = undefined;
      void opening.then(discard, () => undefined);
      throw new CetusError('unavailable', `our Postgres does not answer: ${asCetusError(err).message}`, {cause: err});
    }
  }

  /** On a connection of its own, made now. */
  fresh<T>(use: (client: pg.Client) => Promise<T>, timeoutMs = ANSWER_MS): Promise<T> {
    return once(this.config, use, timeoutMs);
  }

  drop(): void {
    const kept = this.kept;
    this.kept = undefined;
    void kept?.then(discard, () => undefined);
  }
}
