/**
 * An empty database: initdb, then roles, database and rights by a single process without network (postgres --single), where no commit waits for a
 * standby. Made beside and renamed, so that a crash in the middle leaves nothing that looks like a database.
 */
import {execFile, spawn} from 'node:child_process';
import {rename, rm} from 'node:fs/promises';
import path from 'node:path';
import {promisify} from 'node:util';
import {CetusError} from '../../base/errors';
import {CLIENT, REPLICATION, SITTER} from './conf';
import {syncDirectory, syncFilesystem, type Home} from './home';
import {environment} from './postmaster';

const run = promisify(execFile);

export interface Passwords { client: string; replication: string }

/**
 * Of a segment of the WAL. Who is promoted copies the segment in which it forks, whole, and flushes it before anybody may write: of the usual 16 MB that took a
 * takeover a tenth of a second.
 */
const SEGMENT_MB = 4;

const literal = (text: string): string => `'${text.replace(/'/g, `''`)}'`;

/** What pg_rewind reads its source with. Rights on functions belong to a database: this one. */
const REWIND_FUNCTIONS = ['pg_ls_dir(text, boolean, boolean)', 'pg_stat_file(text, boolean)', 'pg_read_binary_file(text)', 'pg_read_binary_file(text, bigint, bigint, boolean)'];

const statements = (passwords: Passwords): string[] => [
  // A backslash is a backslash.
  'SET standard_conforming_strings = on',
  `SET password_encryption = 'scram-sha-256'`,
  `CREATE ROLE ${REPLICATION} LOGIN REPLICATION PASSWORD ${literal(passwords.replication)}`,
  ...REWIND_FUNCTIONS.map((signature) => `GRANT EXECUTE ON FUNCTION pg_catalog.${signature} TO ${REPLICATION}`),
  `GRANT pg_read_all_stats TO ${REPLICATION}`,
  `CREATE ROLE ${CLIENT} LOGIN PASSWORD ${literal(passwords.client)}`,
  `CREATE DATABASE ${CLIENT} OWNER ${CLIENT}`,
];

export async function initialise(binDir: string, home: Home, passwords: Passwords): Promise<void> {
  await rm(home.making, {recursive: true, force: true});
  const {uid, gid} = home.user;
  const as = {env: environment(), cwd: home.root, ...(process.getuid!() === 0 ? {uid, gid} : {})};
  try {
    await run(path.join(binDir, 'initdb'), ['-D', home.making, '-U', SITTER, '--encoding=UTF8', '--locale=C', '--data-checksums', `--wal-segsize=${SEGMENT_MB}`, '--auth=reject', '--no-instructions', '--no-sync'], as);
    await single(path.join(binDir, 'postgres'), home.making, statements(passwords), as);
    await syncFilesystem(home.making);
    await home.remember({ran: 'never', restoredIn: 0, generation: 0});
    await rename(home.making, home.data);
    await syncDirectory(home.root);
  } catch (err) {
    await rm(home.making, {recursive: true, force: true}).catch(() => undefined);
    const said = (err as {stderr?: string}).stderr?.trim().split('\n').slice(-5).join('; ');
    throw new CetusError('unavailable', `no database could be made: ${said ?? (err as Error).message}`, {cause: err});
  }
}

/** A line is a statement there, and one that fails does not end it: it says ERROR and reads on. */
function single(binary: string, dataDir: string, lines: string[], as: {env: NodeJS.ProcessEnv; cwd: string}): Promise<void> {
  return new Promise((resolve, reject) => {
    const child = spawn(binary, ['--single', '-F', '-D', dataDir, '-c', 'log_min_messages=error', '-c', 'log_min_error_statement=panic', 'postgres'], {...as, stdio: ['pipe', 'ignore', 'pipe']});
    let said = '';
    child.stderr!.on('data', (chunk: Buffer) => { said += chunk.toString(); });
    child.stdin!.on('error', () => undefined);
    child.once('error', reject);
    child.once('close', (code) => {
      if (code === 0 && !/(ERROR|FATAL|PANIC):/.test(said)) resolve();
      else reject(new CetusError('internal', `postgres --single ended with ${code}: ${said.trim().split('\n').slice(-5).join('; ')}`));
    });
    child.stdin!.end(lines.map((line) => `${line}\n`).join(''));
  });
}
