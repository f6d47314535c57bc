// What matters of Postgres' settings: Patroni's servers get those that our sitter gives ours (lib/manatee/postgres/conf.ts).
export const SETTINGS = {
  fsync: 'on', full_page_writes: 'on', synchronous_commit: 'on', wal_level: 'replica', hot_standby: 'on', wal_log_hints: 'on',
  recovery_init_sync_method: 'syncfs', checkpoint_timeout: '60s', max_wal_size: '512MB', min_wal_size: '64MB', wal_keep_size: '1GB', max_wal_senders: 16, max_replication_slots: 16,
  wal_sender_timeout: '5s', wal_receiver_timeout: '5s', wal_receiver_status_interval: '1s', wal_retrieve_retry_interval: '100ms',
  max_connections: 120, shared_buffers: '64MB', work_mem: '8MB', maintenance_work_mem: '64MB', jit: 'off', max_parallel_workers_per_gather: 0, random_page_cost: 1.1,
};
