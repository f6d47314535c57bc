/** HostConfig: the Engine's checks and defaults, and what it reserves. Pure; `invalid` with the Engine's texts, `unsupported` naming the option. */
import {isIP} from 'node:net';
import {CetusError} from '../../base/errors';
import {MiB} from '../../base/units';
import {LOG_DRIVERS, LOG_OPTIONS_OF_ALL} from '../../schema/log-drivers';
import type {Reservation} from '../../schema/container';
import type {HostConfig, LogConfig, Resources, RestartPolicy} from '../../schema/docker';
import {settingOf} from '../../schema/options/field';
import type {DatacenterConfig} from '../context';
import {checkCapability} from './capabilities';
import {forbidden, gate, unsupported} from './options';

const MIN_MEMORY = 6 * MiB;
const invalid = (message: string): CetusError => new CetusError('invalid', message);

const MASKED = ['/proc/asound', '/proc/acpi', '/proc/interrupts', '/proc/kcore', '/proc/keys', '/proc/latency_stats', '/proc/timer_list', '/proc/timer_stats', '/proc/sched_debug',
  '/proc/scsi', '/sys/firmware', '/sys/devices/virtual/powercap'];
const READONLY = ['/proc/bus', '/proc/fs', '/proc/irq', '/proc/sys', '/proc/sysrq-trigger'];

export function checkResources(r: Resources): void {
  const memory = r.Memory ?? 0;
  const swap = r.MemorySwap ?? 0;
  const reservation = r.MemoryReservation ?? 0;
  if (memory < 0 || (memory > 0 && memory < MIN_MEMORY)) throw invalid('Minimum memory limit allowed is 6MB');
  if (memory > 0 && swap > 0 && swap < memory) throw invalid('Minimum memoryswap limit should be larger than memory limit, see usage');
  if (memory === 0 && swap > 0) throw invalid('You should always set the Memory limit when using Memoryswap limit, see usage');
  if (swap < -1) throw invalid(`Invalid value: ${swap}, memoryswap is a size, 0 or -1`);
  const swappiness = r.MemorySwappiness;
  if (swappiness !== null && swappiness !== undefined && (swappiness < -1 || swappiness > 100)) throw invalid(`Invalid value: ${swappiness}, valid memory swappiness range is 0-100`);
  if (reservation < 0 || (reservation > 0 && reservation < MIN_MEMORY)) throw invalid('Minimum memory reservation allowed is 6MB');
  if (memory > 0 && reservation > memory) throw invalid('Minimum memory limit can not be less than memory reservation limit, see usage');
  if ((r.NanoCpus ?? 0) > 0) {
    if ((r.CpuPeriod ?? 0) > 0) throw invalid('Conflicting options: Nano CPUs and CPU Period cannot both be set');
    if ((r.CpuQuota ?? 0) > 0) throw invalid('Conflicting options: Nano CPUs and CPU Quota cannot both be set');
  }
  if ((r.CpuShares ?? 0) < 0) throw invalid(`invalid CPU shares (${r.CpuShares}): value must be a positive integer`);
  if (r.CpuPeriod && (r.CpuPeriod < 1000 || r.CpuPeriod > 1_000_000)) throw invalid('CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)');
  if (r.CpuQuota && r.CpuQuota > 0 && r.CpuQuota < 1000) throw invalid('CPU cfs quota can not be less than 1ms (i.e. 1000)');
  for (const [name, list] of [['cpuset cpus', r.CpusetCpus], ['cpuset mems', r.CpusetMems]] as const)
    if (list && !list.split(',').every(isRange)) throw invalid(`Invalid value ${list} for ${name}: invalid format: ${list}`);
  if ((r.CpuRealtimePeriod ?? 0) !== 0 && (r.CpuRealtimeRuntime ?? 0) > r.CpuRealtimePeriod!) throw invalid('cpu real-time runtime cannot be higher than cpu real-time period');
  if (r.BlkioWeight && (r.BlkioWeight < 10 || r.BlkioWeight > 1000)) throw invalid('Range of blkio weight is from 10 to 1000');
  for (const limit of r.Ulimits ?? []) {
    if (!limit.Name) throw invalid('ulimit has no name');
    if (limit.Hard !== -1 && (limit.Soft === -1 || limit.Soft > limit.Hard)) throw invalid(`ulimit soft limit must be less than or equal to hard limit: ${limit.Soft} > ${limit.Hard}`);
  }
}

/** One number, or two that rise. */
function isRange(part: string): boolean {
  const match = /^(\d+)(?:-(\d+))?$/.exec(part);
  return match !== null && (match[2] === undefined || Number(match[1]) <= Number(match[2]));
}

export function checkRestartPolicy(policy: RestartPolicy | null | undefined): void {
  const name = policy?.Name ?? '';
  const count = policy?.MaximumRetryCount ?? 0;
  switch (name) {
    case '': case 'no': case 'always': case 'unless-stopped':
      if (count !== 0) throw invalid(`invalid restart policy: maximum retry count ${count < 0 ? 'cannot be negative' : "can only be used with 'on-failure'"}`);
      return;
    case 'on-failure':
      if (count < 0) throw invalid('invalid restart policy: maximum retry count cannot be negative');
      return;
    default:
      throw invalid(`invalid restart policy: unknown policy '${name as string}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'`);
  }
}

/** Values are read by the node, which refuses the create; options that name files and sockets of a node are for those who may bind them all. */
const NODE_FILES = ['syslog-tls-ca-cert', 'syslog-tls-cert', 'syslog-tls-key'];

function checkLogConfig(log: LogConfig | undefined, config: DatacenterConfig): LogConfig {
  const Type = log?.Type || 'json-file';
  const Config = log?.Config ?? {};
  const known = LOG_DRIVERS[Type];
  if (!known) throw new CetusError('unsupported', `logger: no log driver named '${Type}' is registered`, {info: {option: 'HostConfig.LogConfig.Type'}});
  for (const [name, value] of Object.entries(Config)) {
    if (!known.includes(name) && !(Type !== 'none' && LOG_OPTIONS_OF_ALL.includes(name)))
      throw invalid(`unknown log opt '${name}' for ${Type === 'local' ? 'log driver local' : `${Type} log driver`}`);
    if (name === 'max-buffer-size' && Config['mode'] !== 'non-blocking') throw invalid("logger: max-buffer-size option is only supported with 'mode=non-blocking'");
    if (name === 'max-size' && value !== '-1' && !/^\d+(\.\d+)?\s*([kmgt]?i?b?)$/i.test(value)) throw invalid(`invalid size: '${value}'`);
    if (name === 'max-file' && !/^[1-9]\d*$/.test(value)) throw invalid("max-file cannot be less than 1");
    if (name === 'compress' && !/^(true|false|1|0|t|f)$/i.test(value)) throw invalid(`invalid value '${value}' for log opt compress`);
    const ofNode = NODE_FILES.includes(name) || (name === 'syslog-address' && /^unix(gram)?:/.test(value));
    if (ofNode && config.allowBinds !== 'all') throw forbidden(`log opt ${name} ${value}`, `it needs ${settingOf('allowBinds', 'all')}`);
  }
  return {Type, Config};
}

const SECURITY = /^(no-new-privileges(?:[:=](true|false))?|seccomp=(unconfined|builtin|\{[\s\S]*\})|apparmor=[^\s]+|label=disable|label:disable|seccomp:unconfined|apparmor:unconfined)$/;

function checkSecurity(options: string[] | null | undefined, config: DatacenterConfig): void {
  for (const option of options ?? []) {
    // A profile of one's own may allow everything.
    if (/^systempaths=unconfined$/.test(option) || /^seccomp[:=](unconfined|\{)/.test(option) || /^apparmor[:=]unconfined$/.test(option)) gate(`HostConfig.SecurityOpt ${option.slice(0, 40)}`, 'allowPrivileged', config);
    else if (!SECURITY.test(option)) {
      if (!/[=:]|^no-new-privileges$/.test(option)) throw invalid(`invalid --security-opt 1: "${option}"`);
      if (!/^(seccomp|apparmor|label|systempaths)[=:]/.test(option)) throw invalid(`invalid --security-opt 2: "${option}"`);
      throw unsupported(`HostConfig.SecurityOpt ${option}`, 'nodes do not enforce it');
    }
  }
}

/** The Engine's own set. Any other reaches past the container: to the kernel, to devices, to others' processes and files, or its limits. */
const CONTAINED = new Set(['CHOWN', 'DAC_OVERRIDE', 'FSETID', 'FOWNER', 'MKNOD', 'NET_RAW', 'SETGID', 'SETUID', 'SETFCAP', 'SETPCAP', 'NET_BIND_SERVICE', 'SYS_CHROOT', 'KILL', 'AUDIT_WRITE']);

/** `--privileged` by its parts. */
function checkPrivileges(host: HostConfig, config: DatacenterConfig): void {
  for (const [option, names] of [['CapAdd', host.CapAdd], ['CapDrop', host.CapDrop]] as const) for (const name of names ?? []) checkCapability(option, name);
  for (const name of host.CapAdd ?? []) if (!CONTAINED.has(name.toUpperCase().replace(/^CAP_/, ''))) gate(`HostConfig.CapAdd ${name}`, 'allowPrivileged', config);
  for (const [option, given, least] of [['MaskedPaths', host.MaskedPaths, MASKED], ['ReadonlyPaths', host.ReadonlyPaths, READONLY]] as const)
    if (given && !least.every((path) => given.includes(path))) gate(`HostConfig.${option}`, 'allowPrivileged', config);
}

const MODE_NAMES = {IpcMode: 'IPC', PidMode: 'PID', UTSMode: 'UTS', UsernsMode: 'user namespace', CgroupnsMode: 'cgroup namespace'} as const;

/** IpcMode, PidMode, UTSMode, UsernsMode, CgroupnsMode: whose namespaces. `container:` references are resolved by the caller. */
function checkNamespaces(host: HostConfig, config: DatacenterConfig): void {
  for (const [option, value, own] of [['IpcMode', host.IpcMode, ['', 'private', 'shareable', 'none']], ['PidMode', host.PidMode, ['']], ['UTSMode', host.UTSMode, ['']],
    ['UsernsMode', host.UsernsMode, ['']], ['CgroupnsMode', host.CgroupnsMode, ['', 'private']]] as const) {
    const mode = value ?? '';
    if ((own as readonly string[]).includes(mode)) continue;
    if (mode === 'host') gate(`HostConfig.${option} host`, 'allowPrivileged', config);
    else if (!(mode.startsWith('container:') && (option === 'IpcMode' || option === 'PidMode'))) throw invalid(`invalid ${MODE_NAMES[option]} mode: ${mode}`);
  }
}

function checkExtraHost(host: string): void {
  const address = host.replace(/^[^:=]+[:=]/, '').replace(/^\[(.*)\]$/, '$1');
  if (address !== 'host-gateway' && isIP(address) === 0) throw invalid(`invalid IP address in add-host: "${address}"`);
}

/** Checked, and with the defaults that inspect shows. Mounts, ports and networks have their own files. */
export function settleHostConfig(given: HostConfig, config: DatacenterConfig): HostConfig {
  checkResources(given);
  checkRestartPolicy(given.RestartPolicy);
  if (given.AutoRemove && !['', 'no'].includes(given.RestartPolicy?.Name ?? '')) throw invalid("can't create 'AutoRemove' container with restart policy");
  if (given.OomScoreAdj !== undefined && (given.OomScoreAdj < -1000 || given.OomScoreAdj > 1000)) throw invalid(`Invalid value ${given.OomScoreAdj}, range for oom score adj is [-1000, 1000]`);
  if ((given.ShmSize ?? 0) < 0) throw invalid('SHM size can not be less than 0');
  checkSecurity(given.SecurityOpt, config);
  checkPrivileges(given, config);
  checkNamespaces(given, config);
  for (const host of given.ExtraHosts ?? []) if (!/^[^:=]+[:=].+$/.test(host)) throw invalid(`bad format for add-host: "${host}"`);
  for (const host of given.ExtraHosts ?? []) checkExtraHost(host);
  for (const address of given.Dns ?? []) if (!/^[0-9a-fA-F:.]+$/.test(address)) throw invalid(`invalid DNS server address: ${address}`);
  const unconfinedPaths = given.Privileged || given.SecurityOpt?.includes('systempaths=unconfined');
  const swap = given.Memory && !given.MemorySwap ? given.Memory * 2 : given.MemorySwap;
  return {
    ...given,
    LogConfig: checkLogConfig(given.LogConfig, config),
    RestartPolicy: {Name: given.RestartPolicy?.Name || 'no', MaximumRetryCount: given.RestartPolicy?.MaximumRetryCount ?? 0},
    IpcMode: given.IpcMode || 'private',
    CgroupnsMode: given.CgroupnsMode || (given.Privileged ? 'host' : 'private'),
    ShmSize: given.ShmSize || 64 * MiB,
    Runtime: 'runc',
    MaskedPaths: given.MaskedPaths ?? (unconfinedPaths ? null : MASKED),
    ReadonlyPaths: given.ReadonlyPaths ?? (unconfinedPaths ? null : READONLY),
    ...(swap === undefined ? {} : {MemorySwap: swap}),
  };
}

/** What a container with these limits holds of its node. How many cpus there are decides placement, and whether a limit below 0 is one. */
export function reservationOf(r: Resources, config: DatacenterConfig): Reservation {
  const cpuLimit = r.NanoCpus || (r.CpuQuota && r.CpuQuota > 0 ? (r.CpuQuota / (r.CpuPeriod || 100_000)) * 1e9 : 0);
  return {
    memoryBytes: r.Memory || r.MemoryReservation || (config.defaultMemoryBytes ?? 0),
    nanoCpus: Math.ceil(Math.max(0, cpuLimit) / (config.cpuOvercommit ?? 8)),
    diskBytes: 0,
    pids: r.PidsLimit && r.PidsLimit > 0 ? r.PidsLimit : 0,
  };
}
