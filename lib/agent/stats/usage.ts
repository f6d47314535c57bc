/**
 * What a container has used at one moment, in the kernel's own numbers. Counters are bigints: the Engine's are 64 bits wide, and some of them
 * ("no limit") are larger than a double holds. `undefined`: this kind of control group does not count it.
 */
export interface BlkioEntry { major: number; minor: number; op: string; value: bigint }

export interface Usage {
  /** Nanoseconds. */
  cpu: {total: bigint; kernel: bigint; user: bigint; perCpu?: bigint[]; periods: bigint; throttledPeriods: bigint; throttledTime: bigint};
  memory: {usage: bigint; maxUsage?: bigint; failcnt: bigint; limit: bigint; stats: Record<string, bigint>};
  /** `limit` 0: none. */
  pids: {current: bigint; limit: bigint};
  /** Fields of the Engine's blkio_stats without `_recursive`; `undefined` is its null. */
  blkio: Partial<Record<BlkioField, BlkioEntry[]>>;
}

export const BLKIO_FIELDS = ['io_service_bytes', 'io_serviced', 'io_queue', 'io_service_time', 'io_wait_time', 'io_merged', 'io_time', 'sectors'] as const;
export type BlkioField = (typeof BLKIO_FIELDS)[number];

export interface InterfaceUsage { rx_bytes: bigint; rx_packets: bigint; rx_errors: bigint; rx_dropped: bigint; tx_bytes: bigint; tx_packets: bigint; tx_errors: bigint; tx_dropped: bigint }

/** The machine at that moment. */
export interface MachineUsage { /** Nanoseconds of all processors. */ systemCpu: bigint; onlineCpus: number; /** Bytes. */ memory: bigint }

/** A file of a control group: undefined where it does not exist. Any other failure throws. */
export type ReadFile = (name: string) => string | undefined;

const WHOLE = /^\d+$/;

/** A number on its own; 0 for "max", for what is missing and for what is no number. */
export function single(text: string | undefined): bigint {
  const word = text?.trim() ?? '';
  return WHOLE.test(word) ? BigInt(word) : 0n;
}

/** Lines of `key value`. */
export function keyed(text: string | undefined): Record<string, bigint> {
  const found: Record<string, bigint> = {};
  for (const line of (text ?? '').split('\n')) {
    const [key, value] = line.split(' ');
    if (key && value !== undefined && WHOLE.test(value)) found[key] = BigInt(value);
  }
  return found;
}

/** /proc/stat: the first seven times of the line of all processors, as the Engine adds them up, and how many processors there are. */
export function machineCpu(procStat: string, ticksPerSecond = 100n): Pick<MachineUsage, 'systemCpu' | 'onlineCpus'> {
  const lines = procStat.split('\n');
  const times = lines.find((line) => line.startsWith('cpu '))?.trim().split(/\s+/).slice(1, 8) ?? [];
  const ticks = times.reduce((sum, word) => sum + single(word), 0n);
  return {systemCpu: ticks * 1_000_000_000n / ticksPerSecond, onlineCpus: lines.filter((line) => /^cpu\d/.test(line)).length};
}

/** /proc/PID/net/dev, without the loopback. */
export function interfaces(netDev: string): Record<string, InterfaceUsage> {
  const found: Record<string, InterfaceUsage> = {};
  for (const line of netDev.split('\n').slice(2)) {
    const [name, rest] = line.split(':');
    if (rest === undefined || name!.trim() === 'lo') continue;
    const n = rest.trim().split(/\s+/).map(single);
    found[name!.trim()] = {
      rx_bytes: n[0] ?? 0n, rx_packets: n[1] ?? 0n, rx_errors: n[2] ?? 0n, rx_dropped: n[3] ?? 0n,
      tx_bytes: n[8] ?? 0n, tx_packets: n[9] ?? 0n, tx_errors: n[10] ?? 0n, tx_dropped: n[11] ?? 0n,
    };
  }
  return found;
}
