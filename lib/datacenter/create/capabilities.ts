/** The capabilities that a person may name (capabilities(7)); whether a node's kernel has them, the node says at the start. Pure. */
import {CetusError} from '../../base/errors';

const KNOWN: ReadonlySet<string> = new Set(('ALL CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW '
  + 'IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL '
  + 'SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE').split(' '));

export function checkCapability(option: 'CapAdd' | 'CapDrop', name: string): void {
  const bare = name.toUpperCase().replace(/^CAP_/, '');
  if (!KNOWN.has(bare)) throw new CetusError('invalid', `invalid ${option}: unknown capability: "CAP_${bare}"`);
}
