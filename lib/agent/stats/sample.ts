/**
 * The Engine's stats object from what was measured, as a line of JSON. Pure. Its shape is one for all versions of the API from 1.24 on. Numbers
 * are printed whole: a counter of 64 bits that passed through a double would come out as one that clients cannot read.
 */
import {ZERO_TIME} from '../../base/clock';
import type {Measured} from './meter';
import {BLKIO_FIELDS, type MachineUsage} from './usage';

export interface Sample extends Measured { read: string; machine: MachineUsage }

const raw = (_key: string, value: unknown): unknown => (typeof value === 'bigint' ? `@${value}@` : value);
const NUMBER = /"@(\d+)@"/g;

/** `before` fills precpu_stats; without one it is the Engine's zeroes. No sample at all: the container does not run. */
export function sampleLine(container: {id: string; name: string}, sample: Sample | undefined, before?: Sample): string {
  const stats = {
    name: `/${container.name}`, id: container.id, read: sample?.read ?? ZERO_TIME, preread: before?.read ?? ZERO_TIME,
    pids_stats: sample ? pidsOf(sample) : {}, blkio_stats: blkioOf(sample), num_procs: 0, storage_stats: {},
    cpu_stats: cpuOf(sample), precpu_stats: cpuOf(before), memory_stats: sample ? memoryOf(sample) : {},
    ...(sample && Object.keys(sample.networks).length > 0 ? {networks: sample.networks} : {}),
  };
  return `${JSON.stringify(stats, raw).replace(NUMBER, '$1')}\n`;
}

/** As in the Engine's JSON a zero is left out where no field is owed. */
function pidsOf({usage: {pids}}: Sample): object {
  return {...(pids.current ? {current: pids.current} : {}), ...(pids.limit ? {limit: pids.limit} : {})};
}

function blkioOf(sample: Sample | undefined): object {
  return Object.fromEntries(BLKIO_FIELDS.map((field) => [`${field}_recursive`, sample?.usage.blkio[field] ?? null]));
}

function cpuOf(sample: Sample | undefined): object {
  const cpu = sample?.usage.cpu;
  return {
    cpu_usage: {
      total_usage: cpu?.total ?? 0n, ...(cpu?.perCpu?.length ? {percpu_usage: cpu.perCpu} : {}), usage_in_kernelmode: cpu?.kernel ?? 0n, usage_in_usermode: cpu?.user ?? 0n,
    },
    ...(sample ? {system_cpu_usage: sample.machine.systemCpu, online_cpus: sample.machine.onlineCpus} : {}),
    throttling_data: {periods: cpu?.periods ?? 0n, throttled_periods: cpu?.throttledPeriods ?? 0n, throttled_time: cpu?.throttledTime ?? 0n},
  };
}

/** Without a limit of its own a container is limited by the machine. */
function memoryOf({usage: {memory}, machine}: Sample): object {
  return {
    usage: memory.usage, ...(memory.maxUsage ? {max_usage: memory.maxUsage} : {}), stats: memory.stats, ...(memory.failcnt ? {failcnt: memory.failcnt} : {}),
    limit: memory.limit > 0n && memory.limit < machine.memory ? memory.limit : machine.memory,
  };
}
