// Clients of a cluster: who is primary, and how long nobody's write is acknowledged.
import pg from 'pg';
import {sleep} from './processes.mjs';

const CONNECT_MS = 1000;
const BETWEEN_MS = 10;

export async function connect(url) {
  const client = new pg.Client({connectionString: url, connectionTimeoutMillis: CONNECT_MS, keepAlive: true});
  client.on('error', () => undefined);
  try {
    await client.connect();
    return client;
  } catch (err) {
    drop(client);
    throw err;
  }
}

/** At once: who is dead answers no goodbye. */
export function drop(client) {
  client.connection.stream.destroy();
}

export const isPrimary = async (client) => (await client.query('SELECT pg_is_in_recovery() AS standby')).rows[0].standby === false;

/** A connection to whoever of `urls` is out of recovery; undefined: nobody is. */
export async function primaryOf(urls) {
  for (const url of urls) {
    const client = await connect(url).catch(() => undefined);
    if (!client) continue;
    if (await isPrimary(client).catch(() => false)) return client;
    drop(client);
  }
  return undefined;
}

/**
 * Tries to write until a write is acknowledged; the moment of that. `urls` are asked all at once and again and again, as libpq asks a list of hosts with
 * target_session_attrs=read-write, only more eagerly: `servers()` is called before each round, and may itself know where the primary is.
 * `write(client)` must be one acknowledged write.
 */
export async function firstWrite(servers, write) {
  const open = new Set();
  let at;
  const one = async (n) => {
    while (at === undefined) {
      let client;
      try {
        const url = (await servers())[n];
        if (url === undefined) throw new Error('nobody');
        client = await connect(url);
        open.add(client);
        if (at === undefined && await isPrimary(client)) {
          await write(client);
          at ??= performance.now();
        }
      } catch { /* not this one, not now */ }
      if (client) {
        open.delete(client);
        drop(client);
      }
      if (at === undefined) await sleep(BETWEEN_MS);
    }
  };
  const count = (await servers()).length || 1;
  // A commit on a primary that has lost its standbys hangs until that server goes; the others' answer ends it here.
  await Promise.race(Array.from({length: count}, (_, n) => one(n)));
  for (const client of open) drop(client);
  return at;
}
