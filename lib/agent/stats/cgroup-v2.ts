/** Usage out of the files of cgroup v2, one directory for all. Pure. What v2 does not count (a peak, each processor, queues) the Engine leaves out as well. */
import {type BlkioEntry, keyed, type ReadFile, single, type Usage} from './usage';

/** The Engine's `stats` on cgroup v2. */
const MEMORY = ['anon', 'file', 'kernel_stack', 'slab', 'sock', 'shmem', 'file_mapped', 'file_dirty', 'file_writeback', 'anon_thp', 'inactive_anon', 'active_anon', 'inactive_file',
  'active_file', 'unevictable', 'slab_reclaimable', 'slab_unreclaimable', 'pgfault', 'pgmajfault', 'workingset_refault', 'workingset_activate', 'workingset_nodereclaim',
  'pgrefill', 'pgscan', 'pgsteal', 'pgactivate', 'pgdeactivate', 'pglazyfree', 'pglazyfreed', 'thp_fault_alloc', 'thp_collapse_alloc'];
const NO_LIMIT = 2n ** 64n - 1n;

export function usageV2(read: ReadFile): Usage {
  const cpu = keyed(read('cpu.stat'));
  const memory = keyed(read('memory.stat'));
  // Since Linux 5.9 refaults are counted apart for anonymous memory and files.
  memory['workingset_refault'] ??= (memory['workingset_refault_anon'] ?? 0n) + (memory['workingset_refault_file'] ?? 0n);
  memory['workingset_activate'] ??= (memory['workingset_activate_anon'] ?? 0n) + (memory['workingset_activate_file'] ?? 0n);
  const limit = read('memory.max')?.trim();
  return {
    cpu: {
      total: (cpu['usage_usec'] ?? 0n) * 1000n, kernel: (cpu['system_usec'] ?? 0n) * 1000n, user: (cpu['user_usec'] ?? 0n) * 1000n,
      periods: cpu['nr_periods'] ?? 0n, throttledPeriods: cpu['nr_throttled'] ?? 0n, throttledTime: (cpu['throttled_usec'] ?? 0n) * 1000n,
    },
    memory: {
      usage: single(read('memory.current')), failcnt: keyed(read('memory.events'))['oom'] ?? 0n,
      limit: limit === undefined || limit === 'max' ? NO_LIMIT : single(limit), stats: Object.fromEntries(MEMORY.map((name) => [name, memory[name] ?? 0n])),
    },
    pids: {current: single(read('pids.current')), limit: single(read('pids.max'))},
    blkio: {io_service_bytes: ioEntries(read('io.stat') ?? '')},
  };
}

/** `MAJOR:MINOR rbytes=1 wbytes=2 rios=...`; a device without traffic may stand there alone. */
export function ioEntries(text: string): BlkioEntry[] {
  return text.split('\n').flatMap((line) => {
    const [, major, minor, rest] = /^(\d+):(\d+) (.+)$/.exec(line) ?? [];
    if (major === undefined) return [];
    const counts = keyed(rest!.replaceAll(' ', '\n').replaceAll('=', ' '));
    const entry = (op: string, value = 0n): BlkioEntry => ({major: Number(major), minor: Number(minor), op, value});
    return [entry('read', counts['rbytes']), entry('write', counts['wbytes'])];
  });
}
