/** Capabilities: the kernel's list, the Engine's defaults, and what CapAdd and CapDrop make of them. Pure. Source: capabilities(7). */
import {CetusError} from '../../base/errors';

/** In the kernel's order: the index is the capability's number. */
export const ALL_CAPABILITIES: readonly string[] = ['CHOWN', 'DAC_OVERRIDE', 'DAC_READ_SEARCH', 'FOWNER', 'FSETID', 'KILL', 'SETGID', 'SETUID', 'SETPCAP', 'LINUX_IMMUTABLE',
  'NET_BIND_SERVICE', 'NET_BROADCAST', 'NET_ADMIN', 'NET_RAW', 'IPC_LOCK', 'IPC_OWNER', 'SYS_MODULE', 'SYS_RAWIO', 'SYS_CHROOT', 'SYS_PTRACE', 'SYS_PACCT', 'SYS_ADMIN',
  'SYS_BOOT', 'SYS_NICE', 'SYS_RESOURCE', 'SYS_TIME', 'SYS_TTY_CONFIG', 'MKNOD', 'LEASE', 'AUDIT_WRITE', 'AUDIT_CONTROL', 'SETFCAP', 'MAC_OVERRIDE', 'MAC_ADMIN', 'SYSLOG',
  'WAKE_ALARM', 'BLOCK_SUSPEND', 'AUDIT_READ', 'PERFMON', 'BPF', 'CHECKPOINT_RESTORE'].map((name) => `CAP_${name}`);

export const DEFAULT_CAPABILITIES: readonly string[] = ['CHOWN', 'DAC_OVERRIDE', 'FSETID', 'FOWNER', 'MKNOD', 'NET_RAW', 'SETGID', 'SETUID', 'SETFCAP', 'SETPCAP',
  'NET_BIND_SERVICE', 'SYS_CHROOT', 'KILL', 'AUDIT_WRITE'].map((name) => `CAP_${name}`);

/** Those that this kernel and our own bounding set have: asking runc for another fails the start. `boundingHex` is CapBnd of /proc/self/status. */
export function available(boundingHex: string): string[] {
  const bounding = BigInt(`0x${boundingHex.trim()}`);
  return ALL_CAPABILITIES.filter((_, bit) => (bounding >> BigInt(bit)) & 1n);
}

function normalize(name: string, option: string): string {
  const upper = name.toUpperCase();
  if (upper === 'ALL') return 'ALL';
  const full = upper.startsWith('CAP_') ? upper : `CAP_${upper}`;
  if (!ALL_CAPABILITIES.includes(full)) throw new CetusError('invalid', `invalid ${option}: unknown capability: "${name}"`);
  return full;
}

/** As the Engine: ALL may stand in either list; what is named explicitly on the other side wins over it. */
export function capabilitiesFor(options: {add?: string[] | null; drop?: string[] | null; privileged: boolean; available: readonly string[]}): string[] {
  if (options.privileged) return [...options.available];
  const add = (options.add ?? []).map((name) => normalize(name, 'CapAdd'));
  const drop = (options.drop ?? []).map((name) => normalize(name, 'CapDrop'));
  let base: readonly string[];
  if (add.includes('ALL')) base = options.available.filter((name) => !drop.includes(name));
  else if (drop.includes('ALL')) base = [];
  else base = DEFAULT_CAPABILITIES.filter((name) => !drop.includes(name));
  const wanted = new Set([...base, ...add.filter((name) => name !== 'ALL')]);
  const missing = [...wanted].filter((name) => add.includes(name) && !options.available.includes(name));
  if (missing.length) throw new CetusError('invalid', `invalid CapAdd: capability not supported by kernel or not available in the current environment: "${missing[0]}"`);
  return [...wanted].filter((name) => options.available.includes(name));
}
