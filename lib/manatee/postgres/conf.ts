/**
 * Everything that the server is told, as text. The sitter owns postgresql.auto.conf entirely: it is read last, so nothing that a base backup brings along or
 * an operator writes into postgresql.conf outranks it. ALTER SYSTEM would write there too; the next change of ours removes it.
 *
 * A `Wish` is the part that changes. `freshWish` is what every start begins with, and lets nothing through: nobody acknowledges, no client comes in.
 */
import type {Acknowledger} from '../server';
import type {Peer} from '../state';

/** The bootstrap superuser: the sitter, over the unix socket, by its system user. It has no password. */
export const SITTER = 'cetus_sitter';
/** Streams, copies and rewinds between peers. */
export const REPLICATION = 'cetus_replication';
/** The clients' role, and the database that it owns. */
export const CLIENT = 'cetus';
/** Names that begin so are not peers': nobody's, and those of our own copies and looks. */
export const RESERVED = 'cetus_';
export const NOBODY = 'cetus_none';
/**
 * Names stand in conninfo strings, in synchronous_standby_names (which Postgres compares without regard to case) and in application_name (63 bytes of
 * ASCII): what is legal in all of them, and equal in one only where it is equal in all.
 */
export const PEER_ID = /^(?!cetus_)[a-z0-9][a-z0-9_.-]{0,49}$/;

export interface Wish {
  acknowledger: Acknowledger;
  upstream: Peer | null;
  gate: 'closed' | 'open';
  generation: number;
}

export const freshWish = (upstream: Peer | null): Wish => ({acknowledger: {kind: 'nobody'}, upstream, gate: 'closed', generation: 0});

export interface Place {
  self: Peer;
  socketDir: string;
  listenHost: string;
  pgpass: string;
  settings: Record<string, string>;
}

const SETTINGS: Record<string, string> = {
  fsync: 'on', full_page_writes: 'on', synchronous_commit: 'on', wal_level: 'replica', hot_standby: 'on',
  // pg_rewind must see every page that changed, hint bits too.
  wal_log_hints: 'on',
  // One backend that dies badly would have the server start itself anew, with its gate as it was and, in versions before 2025, a moment in which commits
  // do not know yet that they have to wait. It ends instead, and the sitter starts it with everything closed.
  restart_after_crash: 'off',
  // Before it recovers from a crash the server has all of its directory on the disk. File by file that is a thousand flushes of which each waits for the device,
  // four seconds in which nobody writes; one for the filesystem takes 0.2 s, whoever else's pages it writes with ours.
  recovery_init_sync_method: 'syncfs',
  // Each 60 s: what a crash leaves to recover is a minute's WAL at most, well below a second's work for a store of small transactions.
  checkpoint_timeout: '60s', max_wal_size: '512MB', min_wal_size: '64MB',
  // No replication slots: the slot of a peer that does not come back keeps WAL until the disk is full, and each would have to be made anew on
  // whoever is upstream after a failover. A bound on the disk instead, and whoever was away for longer is copied anew.
  wal_keep_size: '1GB', max_replication_slots: '0', max_wal_senders: '16',
  // A peer whose machine died is noticed within 5 s on either end.
  wal_sender_timeout: '5s', wal_receiver_timeout: '5s', wal_receiver_status_interval: '1s', wal_retrieve_retry_interval: '100ms',
  tcp_keepalives_idle: '3', tcp_keepalives_interval: '1', tcp_keepalives_count: '3', tcp_user_timeout: '5000',
  // The longest that a connection which was let in under an open gate can take to become a client.
  authentication_timeout: '5s',
  max_connections: '120', superuser_reserved_connections: '8', password_encryption: 'scram-sha-256',
  // In the data directory, where the next start removes them: those of a server that was killed stay in /dev/shm for ever where its data have been replaced since.
  // What statistics need of it lies in the main segment.
  dynamic_shared_memory_type: 'mmap', min_dynamic_shared_memory: '4MB',
  shared_buffers: '64MB', work_mem: '8MB', maintenance_work_mem: '64MB',
  // Short queries only: neither compiling nor parallel workers ever pay.
  jit: 'off', max_parallel_workers_per_gather: '0', max_logical_replication_workers: '0', random_page_cost: '1.1', autovacuum_naptime: '15s',
  deadlock_timeout: '100ms', idle_in_transaction_session_timeout: '60s',
  // LOG ranks above ERROR here: refused conditions are everyday answers to the store's clients.
  log_min_messages: 'log', log_checkpoints: 'off', log_destination: 'stderr', logging_collector: 'off', log_line_prefix: '%m [%p] ',
  timezone: 'UTC', log_timezone: 'UTC', lc_messages: 'C',
};

/** In quotes, as postgresql.conf wants it. */
const quoted = (value: string): string => `'${value.replace(/\\/g, '\\\\').replace(/'/g, `''`)}'`;

export function connectionInfo(fields: Record<string, string>): string {
  return Object.entries(fields).map(([name, value]) => `${name}='${value.replace(/[\\']/g, '\\$&')}'`).join(' ');
}

/** For all that connects to a peer as the replication role: a dead machine is given up within seconds. */
export const towards = (peer: Peer, as: string, pgpass: string): Record<string, string> => ({
  host: peer.host, port: String(peer.port), user: REPLICATION, passfile: pgpass, application_name: as, connect_timeout: '3', keepalives_idle: '3', keepalives_interval: '1',
  keepalives_count: '3', tcp_user_timeout: '5000',
});

export function standbyNames(by: Acknowledger): string {
  return by.kind === 'alone' ? '' : `FIRST 1 ("${by.kind === 'nobody' ? NOBODY : by.id}")`;
}

/** `serial` is how one sees which configuration a process of the server goes by. */
export function autoConf(place: Place, wish: Wish, serial: number): string {
  const settings: Record<string, string> = {
    ...SETTINGS, ...place.settings,
    listen_addresses: place.listenHost, port: String(place.self.port), unix_socket_directories: place.socketDir, unix_socket_permissions: '0777',
    synchronous_standby_names: standbyNames(wish.acknowledger),
    primary_conninfo: wish.upstream ? connectionInfo(towards(wish.upstream, place.self.id, place.pgpass)) : '',
    primary_slot_name: '', recovery_target_timeline: 'latest',
    'cetus.generation': String(wish.generation), 'cetus.config': String(serial),
  };
  return `# Written by the sitter of ${place.self.id}; whatever else is put here is lost.\n${Object.entries(settings).map(([name, value]) => `${name} = ${quoted(value)}\n`).join('')}`;
}

/**
 * The gate. First match wins; a role or database that is not named is refused. The replication role reaches database `postgres` too, where pg_rewind reads files through functions.
 */
export function hba(gate: Wish['gate']): string {
  const hosts = ['0.0.0.0/0', '::/0'];
  return [
    `local all ${SITTER} peer map=cetus`,
    `local replication ${SITTER} peer map=cetus`,
    ...hosts.flatMap((addresses) => [`host replication ${REPLICATION} ${addresses} scram-sha-256`, `host postgres ${REPLICATION} ${addresses} scram-sha-256`]),
    ...(gate === 'open' ? [`local ${CLIENT} ${CLIENT} scram-sha-256`, ...hosts.map((addresses) => `host ${CLIENT} ${CLIENT} ${addresses} scram-sha-256`)] : []),
    'local all all reject',
    ...hosts.map((addresses) => `host all all ${addresses} reject`),
    '',
  ].join('\n');
}

export const ident = (systemUsers: string[]): string => [...new Set(systemUsers)].map((name) => `cetus "${name}" ${SITTER}\n`).join('');

/** libpq's password file: a colon or backslash in a password is escaped. */
export const passFile = (password: string): string => `*:*:*:${REPLICATION}:${password.replace(/[\\:]/g, '\\$&')}\n`;
