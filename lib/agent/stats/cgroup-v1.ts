/** Usage out of the files of cgroup v1, a hierarchy for each controller. Pure: `read(controller)(file)` gives the text. */
import {BLKIO_FIELDS, type BlkioEntry, type BlkioField, keyed, type ReadFile, single, type Usage} from './usage';

/** USER_HZ, which the kernel promises to programs whatever it uses itself. */
const TICK_NS = 10_000_000n;
/** The Engine's `stats`: what its library reads of memory.stat. Others that kernels add are left out. */
const MEMORY = ['cache', 'rss', 'rss_huge', 'mapped_file', 'dirty', 'writeback', 'pgpgin', 'pgpgout', 'pgfault', 'pgmajfault', 'inactive_anon', 'active_anon', 'inactive_file',
  'active_file', 'unevictable'];
/** Schedulers count more than the throttle does; where none is there, the throttle's counters are what is known. */
const SOURCES: Record<BlkioField, string[]> = {
  io_service_bytes: ['blkio.io_service_bytes_recursive', 'blkio.throttle.io_service_bytes_recursive', 'blkio.throttle.io_service_bytes'],
  io_serviced: ['blkio.io_serviced_recursive', 'blkio.throttle.io_serviced_recursive', 'blkio.throttle.io_serviced'],
  io_queue: ['blkio.io_queued_recursive'], io_service_time: ['blkio.io_service_time_recursive'], io_wait_time: ['blkio.io_wait_time_recursive'],
  io_merged: ['blkio.io_merged_recursive'], io_time: ['blkio.time_recursive'], sectors: ['blkio.sectors_recursive'],
};

export function usageV1(read: (controller: string) => ReadFile): Usage {
  const memory = read('memory');
  const pids = read('pids');
  return {
    cpu: cpuOf(read('cpuacct'), read('cpu')),
    memory: {
      usage: single(memory('memory.usage_in_bytes')), maxUsage: single(memory('memory.max_usage_in_bytes')), failcnt: single(memory('memory.failcnt')),
      limit: single(memory('memory.limit_in_bytes')), stats: memoryStats(keyed(memory('memory.stat'))),
    },
    pids: {current: single(pids('pids.current')), limit: single(pids('pids.max'))},
    blkio: blkioOf(read('blkio')),
  };
}

function cpuOf(cpuacct: ReadFile, cpu: ReadFile): Usage['cpu'] {
  const times = keyed(cpuacct('cpuacct.stat'));
  const throttling = keyed(cpu('cpu.stat'));
  return {
    total: single(cpuacct('cpuacct.usage')), perCpu: (cpuacct('cpuacct.usage_percpu') ?? '').trim().split(/\s+/).filter(Boolean).map(single),
    kernel: (times['system'] ?? 0n) * TICK_NS, user: (times['user'] ?? 0n) * TICK_NS,
    periods: throttling['nr_periods'] ?? 0n, throttledPeriods: throttling['nr_throttled'] ?? 0n, throttledTime: throttling['throttled_time'] ?? 0n,
  };
}

function memoryStats(found: Record<string, bigint>): Record<string, bigint> {
  const names = [...MEMORY, ...MEMORY.map((name) => `total_${name}`), 'hierarchical_memory_limit', 'hierarchical_memsw_limit'];
  return Object.fromEntries(names.map((name) => [name, found[name] ?? 0n]));
}

function blkioOf(read: ReadFile): Usage['blkio'] {
  const first = (names: string[]): BlkioEntry[] => {
    for (const name of names) {
      const text = read(name);
      if (text !== undefined) return entries(text);
    }
    return [];
  };
  return Object.fromEntries(BLKIO_FIELDS.map((field) => [field, first(SOURCES[field])]));
}

/** `MAJOR:MINOR Op VALUE`, or without the operation; the line of the total has no device. */
export function entries(text: string): BlkioEntry[] {
  return text.split('\n').flatMap((line) => {
    const [, major, minor, op, value] = /^(\d+):(\d+) (?:(\w+) )?(\d+)$/.exec(line) ?? [];
    return major === undefined ? [] : [{major: Number(major), minor: Number(minor), op: op ?? '', value: BigInt(value!)}];
  });
}
