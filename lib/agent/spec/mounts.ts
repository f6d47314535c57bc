/** The mounts of a container: the Engine's own, then the person's, which replace those at the same place. Pure over what was resolved before. */
import path from 'node:path';
import {CetusError} from '../../base/errors';
import type {ResolvedMount} from '../../schema/container';
import {isMountFlag} from '../volumes/driver-options';

export interface OciMount { destination: string; type: string; source: string; options: string[] }

export const DEFAULT_SHM_BYTES = 64 << 20;

const tmpfs = (destination: string, source: string, options: string[]): OciMount => ({destination, type: 'tmpfs', source, options});
const bind = (destination: string, source: string, options: string[] = []): OciMount => ({destination, type: 'bind', source, options: ['rbind', ...options]});

export interface Surroundings {
  privileged: boolean;
  readOnlyRoot: boolean;
  /** A network namespace of its own: /sys may then be mounted; else the node's is bound. */
  ownNetwork: boolean;
  shmBytes: number;
  /** 'own' | 'none', or where the other container's (or the node's) shm is. */
  shm: 'own' | 'none' | {source: string};
  files: {hosts: string; hostname: string; resolvConf: string};
  /** Host path of the init binary to show at /sbin/docker-init; '' = none. */
  init: string;
  mounts: {mount: ResolvedMount; source: string}[];
  /** The node can make binds read-only with all that is mounted below them. */
  recursiveReadOnly: boolean;
}

export const INIT_PATH = '/sbin/docker-init';

export function mountsOf(s: Surroundings): OciMount[] {
  const sysOption = s.privileged ? 'rw' : 'ro';
  const system: OciMount[] = [
    {destination: '/proc', type: 'proc', source: 'proc', options: ['nosuid', 'noexec', 'nodev']},
    tmpfs('/dev', 'tmpfs', ['nosuid', 'strictatime', 'mode=755', 'size=65536k']),
    {destination: '/dev/pts', type: 'devpts', source: 'devpts', options: ['nosuid', 'noexec', 'newinstance', 'ptmxmode=0666', 'mode=0620', 'gid=5']},
    {destination: '/sys', type: 'sysfs', source: 'sysfs', options: ['nosuid', 'noexec', 'nodev', sysOption]},
    {destination: '/sys/fs/cgroup', type: 'cgroup', source: 'cgroup', options: [sysOption, 'nosuid', 'noexec', 'nodev', 'relatime']},
    // Shows the queues of whatever IPC namespace the container is in; a node need not have any mounted to show.
    {destination: '/dev/mqueue', type: 'mqueue', source: 'mqueue', options: ['nosuid', 'noexec', 'nodev']},
  ];
  // sysfs belongs to a network namespace; in another user's one it cannot be mounted, only bound.
  if (!s.ownNetwork) system[3] = bind('/sys', '/sys', ['nosuid', 'noexec', 'nodev', sysOption]);
  if (s.shm === 'own') system.push(tmpfs('/dev/shm', 'shm', ['nosuid', 'noexec', 'nodev', 'mode=1777', `size=${s.shmBytes}`]));
  else if (s.shm !== 'none') system.push(bind('/dev/shm', s.shm.source, ['nosuid', 'noexec', 'nodev']));

  const etc = ([['/etc/resolv.conf', s.files.resolvConf], ['/etc/hostname', s.files.hostname], ['/etc/hosts', s.files.hosts]] as const)
    .filter(([, source]) => source !== '').map(([destination, source]) => bind(destination, source, ['rprivate', ...(s.readOnlyRoot ? ['ro'] : [])]));
  const init = s.init ? [bind(INIT_PATH, s.init, ['ro', 'rprivate'])] : [];
  const asked = s.mounts.map(({mount, source}) => one(mount, source, s.recursiveReadOnly));
  const taken = new Set(asked.map((m) => m.destination));
  return [...[...system, ...etc, ...init].filter((m) => !taken.has(m.destination)), ...asked];
}

const PROPAGATIONS = new Set(['private', 'rprivate', 'shared', 'rshared', 'slave', 'rslave']);

function one(mount: ResolvedMount, source: string, recursiveReadOnly: boolean): OciMount {
  const destination = path.posix.normalize(mount.destination);
  switch (mount.type) {
    case 'tmpfs': return tmpfs(destination, 'tmpfs', tmpfsOptions(mount.options));
    case 'volume': return {destination, type: 'bind', source, options: ['rbind', 'rprivate', mount.readOnly ? 'ro' : 'rw']};
    case 'bind': {
      const propagation = mount.propagation || 'rprivate';
      if (!PROPAGATIONS.has(propagation)) throw new CetusError('invalid', `invalid propagation mode: ${propagation}`);
      return {destination, type: 'bind', source, options: [mount.nonRecursive ? 'bind' : 'rbind', propagation, mount.readOnly ? readOnlyOption(mount, recursiveReadOnly) : 'rw']};
    }
  }
}

function readOnlyOption(mount: Extract<ResolvedMount, {type: 'bind'}>, recursive: boolean): string {
  if (mount.readOnlyDepth === 'all' && !recursive) throw new CetusError('invalid', `failed to set bind-recursive mode "readonly" for ${mount.source}: this node cannot make mounts recursively read-only`);
  return recursive && mount.readOnlyDepth !== 'top' && !mount.nonRecursive ? 'rro' : 'ro';
}

const TMPFS_VALUES = new Set(['size', 'mode', 'uid', 'gid', 'nr_inodes', 'nr_blocks', 'mpol']);

/** The Engine's defaults, given up one by one where the person says the opposite; sizes with a unit as the kernel takes them. */
function tmpfsOptions(options: string[]): string[] {
  const asked = options.filter((option) => option !== 'defaults');
  for (const option of asked) {
    const [name, ...value] = option.split('=');
    if (option && !isMountFlag(option) && (!value.length || !TMPFS_VALUES.has(name!)))
      throw new CetusError('internal', `invalid tmpfs option [${[name, ...(value.length ? [value.join('=')] : [])].map((part) => JSON.stringify(part)).join(' ')}]`);
  }
  const opposite: Record<string, string> = {exec: 'noexec', suid: 'nosuid', dev: 'nodev'};
  const given = new Set(asked);
  const defaults = ['noexec', 'nosuid', 'nodev'].filter((option) => !given.has(option) && !asked.some((a) => opposite[a] === option));
  return [...defaults, ...asked.filter(Boolean)];
}

