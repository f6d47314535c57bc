/** Limits as the OCI spec wants them, for a start and, live, for `docker update`. Pure over what the machine's cgroups can do. */
import {CetusError} from '../../base/errors';
import type {HostConfig, ThrottleDevice, Ulimit} from '../../schema/docker';

export interface CgroupAbilities { version: 1 | 2; swap: boolean; blkioWeight: boolean; pids: boolean }

const CPU_PERIOD_US = 100_000;

export function resourcesOf(host: HostConfig, can: CgroupAbilities, deviceNumber: (path: string) => {major: number; minor: number}): Record<string, unknown> {
  const memory: Record<string, unknown> = {};
  if (host.Memory) memory.limit = host.Memory;
  if (host.MemoryReservation) memory.reservation = host.MemoryReservation;
  // Without swap accounting only the default, which comes with every memory limit, and "no limit" may be left out unsaid.
  if (host.MemorySwap && can.swap) memory.swap = host.MemorySwap;
  else if (host.MemorySwap && host.MemorySwap !== -1 && host.MemorySwap !== 2 * (host.Memory ?? 0)) throw missing('MemorySwap', 'does not account swap');
  if (host.MemorySwappiness !== undefined && host.MemorySwappiness !== null && host.MemorySwappiness >= 0) {
    if (can.version !== 1) throw missing('MemorySwappiness', 'has no swappiness of a container\'s own (control groups v2)');
    memory.swappiness = host.MemorySwappiness;
  }
  if (host.OomKillDisable) {
    if (can.version !== 1) throw missing('OomKillDisable', 'cannot do without the OOM killer (control groups v2)');
    memory.disableOOMKiller = true;
  }

  const cpu: Record<string, unknown> = {};
  if (host.CpuShares) cpu.shares = host.CpuShares;
  if (host.NanoCpus) Object.assign(cpu, {period: CPU_PERIOD_US, quota: Math.round(host.NanoCpus / 1e9 * CPU_PERIOD_US)});
  if (host.CpuPeriod) cpu.period = host.CpuPeriod;
  if (host.CpuQuota) cpu.quota = host.CpuQuota;
  if (host.CpuRealtimePeriod) cpu.realtimePeriod = host.CpuRealtimePeriod;
  if (host.CpuRealtimeRuntime) cpu.realtimeRuntime = host.CpuRealtimeRuntime;
  if (host.CpusetCpus) cpu.cpus = host.CpusetCpus;
  if (host.CpusetMems) cpu.mems = host.CpusetMems;

  const blockIO: Record<string, unknown> = {};
  if (host.BlkioWeight) {
    if (!can.blkioWeight) throw missing('BlkioWeight', 'has no block I/O weights');
    blockIO.weight = host.BlkioWeight;
  }
  if (host.BlkioWeightDevice?.length && !can.blkioWeight) throw missing('BlkioWeightDevice', 'has no block I/O weights');
  const throttle = (devices: ThrottleDevice[] | null | undefined): object[] | undefined => (devices?.length ? devices.map((d) => ({...deviceNumber(d.Path ?? ''), rate: d.Rate ?? 0})) : undefined);
  for (const [name, value] of Object.entries({
    throttleReadBpsDevice: throttle(host.BlkioDeviceReadBps), throttleWriteBpsDevice: throttle(host.BlkioDeviceWriteBps),
    throttleReadIOPSDevice: throttle(host.BlkioDeviceReadIOps), throttleWriteIOPSDevice: throttle(host.BlkioDeviceWriteIOps),
    weightDevice: host.BlkioWeightDevice?.length ? host.BlkioWeightDevice.map((d) => ({...deviceNumber(d.Path ?? ''), weight: d.Weight ?? 0})) : undefined,
  })) if (value) blockIO[name] = value;

  if (host.PidsLimit && host.PidsLimit > 0 && !can.pids) throw missing('PidsLimit', 'does not limit the number of processes');
  const pids = host.PidsLimit && can.pids ? {limit: host.PidsLimit > 0 ? host.PidsLimit : -1} : undefined;
  return {
    ...(Object.keys(memory).length ? {memory} : {}), ...(Object.keys(cpu).length ? {cpu} : {}), ...(Object.keys(blockIO).length ? {blockIO} : {}), ...(pids ? {pids} : {}),
  };
}

const missing = (option: string, why: string): CetusError => new CetusError('unsupported', `HostConfig.${option} is not supported: this node's kernel ${why}`);

const RLIMITS = new Set(['core', 'cpu', 'data', 'fsize', 'locks', 'memlock', 'msgqueue', 'nice', 'nofile', 'nproc', 'rss', 'rtprio', 'rttime', 'sigpending', 'stack', 'as']);

/** -1 is "no limit". */
export function rlimits(ulimits: readonly Ulimit[] | null | undefined): {type: string; soft: number; hard: number}[] {
  return (ulimits ?? []).map(({Name, Soft, Hard}) => {
    const name = Name.toLowerCase();
    if (!RLIMITS.has(name)) throw new CetusError('invalid', `invalid ulimit type: ${Name}`);
    return {type: `RLIMIT_${name.toUpperCase()}`, soft: unlimited(Soft), hard: unlimited(Hard)};
  });
}

/** 2^64 - 2048: infinity itself, 2^64 - 1, does not survive JSON's doubles; this does, and no resource comes near it. */
const UNLIMITED = 18446744073709549568;
const unlimited = (value: number): number => (value < 0 ? UNLIMITED : value);
