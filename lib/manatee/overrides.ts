/**
 * Settings that outrank the server's own, for a role, a database, or all: an operator may have made a role acknowledge without its sync, and nothing in
 * the cluster's state shows it. Read by the sitter over its own socket, shown in its status, judged by verify.ts.
 */
import pg from 'pg';

export interface Override {
  /** '' where it is for all. */
  role: string;
  database: string;
  name: string;
  value: string;
}

const TIMEOUT_MS = 1500;

/** Those of roles and databases, and of the server those that decide whether a commit lasts. */
const OVERRIDES = `
SELECT coalesce(r.rolname, '') AS role, coalesce(d.datname, '') AS database, split_part(s.setting, '=', 1) AS name, substr(s.setting, position('=' in s.setting) + 1) AS value
FROM pg_db_role_setting x CROSS JOIN LATERAL unnest(x.setconfig) AS s(setting) LEFT JOIN pg_roles r ON r.oid = x.setrole LEFT JOIN pg_database d ON d.oid = x.setdatabase
UNION ALL SELECT '', '', name, setting FROM pg_settings WHERE name IN ('synchronous_commit', 'fsync', 'full_page_writes')
ORDER BY 1, 2, 3`;

/** null where the server does not answer. */
export async function readOverrides(at: {host: string; port: number; user: string}): Promise<Override[] | null> {
  const client = new pg.Client({...at, database: 'postgres', connectionTimeoutMillis: TIMEOUT_MS, query_timeout: TIMEOUT_MS, application_name: 'cetus_status'});
  client.on('error', () => undefined);
  try {
    await client.connect();
    return (await client.query<Override & pg.QueryResultRow>(OVERRIDES)).rows;
  } catch {
    return null;
  } finally {
    await client.end().catch(() => undefined);
  }
}
