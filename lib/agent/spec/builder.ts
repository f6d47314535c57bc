/**
 * From Docker's configuration to an OCI runtime spec, with the Engine's defaults: the agent's SpecBuilder. What a node cannot honour throws
 * `unsupported` naming the option; nothing is left out in silence. Reads the node's /dev and the container's passwd and group files; the rest is pure.
 */
import fs from 'node:fs';
import os from 'node:os';
import {CetusError} from '../../base/errors';
import type {Config, HostConfig} from '../../schema/docker';
import {notRunning} from '../container/ended';
import type {SpecBuilder, SpecInput} from '../parts';
import type {OciSpec} from '../runtime/runtime';
import {ALL_CAPABILITIES, available, capabilitiesFor} from './capabilities';
import {deviceNumber, devicesOf} from './devices';
import {DEFAULT_SHM_BYTES, INIT_PATH, mountsOf} from './mounts';
import {type CgroupAbilities, resourcesOf, rlimits} from './resources';
import {layersOf, readInside} from './root-files';
import {customSeccomp, defaultSeccomp, kernelHasX32, type OciSeccomp} from './seccomp';
import {recursiveReadOnly} from './read-only';
import {resolveUser, type User} from './user';

export interface SpecBuilderOptions {
  /** Parent of all containers' cgroups, without slashes: tells one agent's from another's. */
  cgroupParent: string;
  cgroups: CgroupAbilities;
  /** A static init (tini) for `--init`; '' where the node has none. */
  initPath: string;
  /** CapBnd of our own process. */
  capabilities?: readonly string[];
  kernelVersion?: string;
  /** Default: asked of the kernel's configuration. */
  x32?: boolean;
  /** Default: asked of the kernel and of runc. */
  recursiveReadOnly?: boolean;
}

const DEFAULT_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

export function createSpecBuilder(options: SpecBuilderOptions): SpecBuilder {
  const capabilities = options.capabilities ?? ownCapabilities();
  const kernelVersion = options.kernelVersion ?? os.release();
  const x32 = options.x32 ?? kernelHasX32(kernelVersion);
  const readOnly = options.recursiveReadOnly ?? recursiveReadOnly(kernelVersion);
  return {
    container: (input) => containerSpec(input, {...options, capabilities, kernelVersion, x32, recursiveReadOnly: readOnly}),
    process: async ({spec, config, pid}) => {
      const privileged = config.Privileged === true;
      const user = config.User || spec.config.User || '';
      return processOf({
        args: [...config.Cmd ?? []], tty: config.Tty === true, env: [...spec.config.Env ?? [], ...config.Env ?? []], hostname: spec.config.Hostname,
        cwd: config.WorkingDir || spec.config.WorkingDir || '/', consoleSize: config.ConsoleSize,
        user: resolveUser(user, spec.hostConfig.GroupAdd ?? [], (file) => readOf(spec.id, pid, file)),
        host: {...spec.hostConfig, Privileged: privileged || spec.hostConfig.Privileged}, capabilities,
      });
    },
    resources: (host) => resourcesOf(host, options.cgroups, deviceNumber),
  };
}

/** A file of a running container. */
function readOf(containerId: string, pid: number, file: string): string | undefined {
  const root = `/proc/${pid}/root`;
  try {
    return readInside([root], file);
  } catch (err) {
    const {code, path} = err as NodeJS.ErrnoException;
    if (path === root && (code === 'ENOENT' || code === 'ESRCH')) throw notRunning(containerId, err);
    throw err;
  }
}

type Known = Required<SpecBuilderOptions>;

async function containerSpec(input: SpecInput, known: Known): Promise<OciSpec> {
  const {spec} = input;
  const {config, hostConfig: host} = spec;
  const privileged = host.Privileged === true;
  if (!isDefault(host.UsernsMode)) throw new CetusError('unsupported', `HostConfig.UsernsMode ${host.UsernsMode} is not supported`);
  const init = host.Init === true;
  if (init && !known.initPath) throw new CetusError('unsupported', 'HostConfig.Init is not supported on this node: it has no init program (tini)');

  const layers = layersOf(await input.rootMounts());
  const user = resolveUser(config.User ?? '', host.GroupAdd ?? [], (file) => readInside(layers, file));
  const args = [...config.Entrypoint ?? [], ...config.Cmd ?? []];
  if (args.length === 0) throw new CetusError('invalid', 'no command specified');
  const process = processOf({
    args: init ? [INIT_PATH, '--', ...args] : args, tty: config.Tty === true, env: config.Env ?? [], hostname: input.hostname,
    cwd: config.WorkingDir || '/', consoleSize: host.ConsoleSize, user, host, capabilities: known.capabilities,
  });
  const {devices, rules} = devicesOf(host);
  const namespaces = await namespacesOf(input, known.cgroups.version);
  const ownNetwork = spec.networkMode !== 'host';
  const seccomp = seccompOf(host, process.capabilities.bounding, known);

  return {
    ociVersion: '1.0.2',
    process,
    root: {path: 'rootfs', readonly: host.ReadonlyRootfs === true},
    ...(host.UTSMode === 'host' ? {} : {hostname: input.hostname}),
    mounts: mountsOf({
      privileged, readOnlyRoot: host.ReadonlyRootfs === true, ownNetwork, shmBytes: host.ShmSize || DEFAULT_SHM_BYTES, shm: shmOf(input),
      files: input.files, init: init ? known.initPath : '', mounts: input.mounts, recursiveReadOnly: known.recursiveReadOnly,
    }),
    ...(host.Annotations && Object.keys(host.Annotations).length ? {annotations: host.Annotations} : {}),
    linux: {
      cgroupsPath: `/${known.cgroupParent}/${spec.id}`,
      namespaces,
      devices,
      resources: {...resourcesOf(host, known.cgroups, deviceNumber), devices: rules},
      sysctl: sysctls(config, host, spec.networkMode === 'networks' || spec.networkMode === 'none'),
      ...(privileged ? {} : {maskedPaths: host.MaskedPaths ?? MASKED_PATHS, readonlyPaths: host.ReadonlyPaths ?? READONLY_PATHS}),
      ...(seccomp ? {seccomp} : {}),
      rootfsPropagation: propagation(input),
    },
  };
}

const MASKED_PATHS = ['/proc/asound', '/proc/acpi', '/proc/interrupts', '/proc/kcore', '/proc/keys', '/proc/latency_stats', '/proc/timer_list', '/proc/timer_stats',
  '/proc/sched_debug', '/proc/scsi', '/sys/firmware', '/sys/devices/virtual/powercap'];
const READONLY_PATHS = ['/proc/bus', '/proc/fs', '/proc/irq', '/proc/sys', '/proc/sysrq-trigger'];

interface ProcessInput {
  args: string[]; tty: boolean; env: readonly string[]; hostname: string | undefined; cwd: string;
  consoleSize: [number, number] | null | undefined; user: User; host: HostConfig; capabilities: readonly string[];
}

function processOf(p: ProcessInput): OciSpec['process'] & {capabilities: {bounding: string[]; effective: string[]; permitted: string[]}} {
  const caps = capabilitiesFor({add: p.host.CapAdd, drop: p.host.CapDrop, privileged: p.host.Privileged === true, available: p.capabilities});
  // The kernel empties the effective set of whoever is not root; an empty inheritable set keeps it from coming back through file capabilities.
  const forUser = p.user.uid === 0 ? caps : [];
  return {
    args: p.args, terminal: p.tty, cwd: p.cwd, env: environment(p),
    ...(p.tty && p.consoleSize?.[0] && p.consoleSize[1] ? {consoleSize: {height: p.consoleSize[0], width: p.consoleSize[1]}} : {}),
    user: {uid: p.user.uid, gid: p.user.gid, ...(p.user.additionalGids.length ? {additionalGids: p.user.additionalGids} : {})},
    capabilities: {bounding: caps, effective: forUser, permitted: forUser},
    noNewPrivileges: securityOptions(p.host).noNewPrivileges,
    rlimits: rlimits(p.host.Ulimits),
    oomScoreAdj: p.host.OomScoreAdj ?? 0,
  };
}

/** Defaults, then what image and person set; later wins, "NAME" without a value takes the name away. */
function environment(p: ProcessInput): string[] {
  const values = new Map<string, string>([['PATH', DEFAULT_PATH]]);
  if (p.hostname !== undefined) values.set('HOSTNAME', p.hostname);
  if (p.tty) values.set('TERM', 'xterm');
  for (const entry of p.env) {
    const at = entry.indexOf('=');
    if (at < 0) values.delete(entry);
    else values.set(entry.slice(0, at), entry.slice(at + 1));
  }
  return [...values].map(([name, value]) => `${name}=${value}`);
}

interface SecurityOptions { noNewPrivileges: boolean; /** undefined: the default filter; 'unconfined'; or a profile's text */ seccomp: string | undefined }

function securityOptions(host: HostConfig): SecurityOptions {
  const found: SecurityOptions = {noNewPrivileges: false, seccomp: undefined};
  for (const option of host.SecurityOpt ?? []) {
    const [, name, value] = /^([a-z-]+)(?:[=:]([\s\S]*))?$/.exec(option) ?? [];
    switch (name) {
      case 'no-new-privileges': found.noNewPrivileges = value === undefined || value === 'true'; break;
      case 'seccomp': found.seccomp = value === 'builtin' ? undefined : value; break;
      case 'systempaths': break; // the control plane has turned it into empty MaskedPaths and ReadonlyPaths
      case 'label': if (value === 'disable') break; throw unsupportedSecurity(option);
      case 'apparmor': if (value === 'unconfined') break; throw unsupportedSecurity(option);
      default: throw unsupportedSecurity(option);
    }
  }
  return found;
}

const unsupportedSecurity = (option: string): CetusError => new CetusError('unsupported', `HostConfig.SecurityOpt ${option} is not supported: this node has no such policy`);

function seccompOf(host: HostConfig, capabilities: readonly string[], known: Known): OciSeccomp | undefined {
  const {seccomp} = securityOptions(host);
  if (seccomp === 'unconfined' || (host.Privileged && seccomp === undefined)) return undefined;
  return seccomp === undefined ? defaultSeccomp(capabilities, process.arch, known.x32) : customSeccomp(seccomp, capabilities, known.kernelVersion);
}

interface Namespace { type: string; path?: string }

async function namespacesOf(input: SpecInput, cgroupVersion: 1 | 2): Promise<Namespace[]> {
  const {hostConfig: host, networkMode} = input.spec;
  const namespaces: Namespace[] = [{type: 'mount'}];
  if (networkMode !== 'host') namespaces.push({type: 'network', ...(input.netnsPath ? {path: input.netnsPath} : {})});
  if (host.UTSMode !== 'host') namespaces.push({type: 'uts'});
  for (const [type, mode] of [['pid', host.PidMode], ['ipc', host.IpcMode]] as const) {
    if (mode === 'host') continue;
    const other = joined(mode);
    namespaces.push(other ? {type, path: `/proc/${await input.pidOf(other)}/ns/${type}`} : {type});
  }
  // As the Engine: private where the node has the unified hierarchy alone, the node's own elsewhere; privileged containers see the node's.
  const cgroup = host.CgroupnsMode || (cgroupVersion === 2 && !host.Privileged ? 'private' : 'host');
  if (cgroup === 'private') namespaces.push({type: 'cgroup'});
  return namespaces;
}

function shmOf(input: SpecInput): 'own' | 'none' | {source: string} {
  if (input.spec.hostConfig.IpcMode === 'none') return 'none';
  return input.shm ? {source: input.shm} : 'own';
}

const joined = (mode: string | undefined): string | undefined => (mode?.startsWith('container:') ? mode.slice('container:'.length) : undefined);
const isDefault = (mode: string | undefined): boolean => mode === undefined || mode === '' || mode === 'host';

function sysctls(config: Config, host: HostConfig, ownNetwork: boolean): Record<string, string> {
  return {
    // So that programs without privileges may listen on port 80 and ping, as the Engine has it since 20.10.
    ...(ownNetwork ? {'net.ipv4.ip_unprivileged_port_start': '0', 'net.ipv4.ping_group_range': '0 2147483647'} : {}),
    ...(config.Domainname && host.UTSMode !== 'host' ? {'kernel.domainname': config.Domainname} : {}),
    ...host.Sysctls ?? {},
  };
}

/** A mount that is to share with the node needs its way up to share as well. */
function propagation(input: SpecInput): string {
  const asked = input.mounts.map(({mount}) => (mount.type === 'bind' ? mount.propagation : ''));
  if (asked.some((p) => p === 'shared' || p === 'rshared')) return 'rshared';
  return asked.some((p) => p === 'slave' || p === 'rslave') ? 'rslave' : 'rprivate';
}

function ownCapabilities(): string[] {
  const status = fs.readFileSync('/proc/self/status', 'utf8');
  const bounding = /^CapBnd:\s*([0-9a-f]+)/m.exec(status)?.[1];
  return bounding ? available(bounding) : [...ALL_CAPABILITIES];
}

/** What this node's cgroups can do, looked up once. */
export function cgroupAbilities(root = '/sys/fs/cgroup'): CgroupAbilities {
  if (fs.existsSync(`${root}/cgroup.controllers`)) {
    const controllers = fs.readFileSync(`${root}/cgroup.controllers`, 'utf8').split(/\s+/);
    return {version: 2, swap: controllers.includes('memory') && fs.existsSync('/proc/swaps'), blkioWeight: controllers.includes('io'), pids: controllers.includes('pids')};
  }
  return {
    version: 1, swap: fs.existsSync(`${root}/memory/memory.memsw.limit_in_bytes`), pids: fs.existsSync(`${root}/pids`),
    blkioWeight: fs.existsSync(`${root}/blkio/blkio.weight`) || fs.existsSync(`${root}/blkio/blkio.bfq.weight`),
  };
}

