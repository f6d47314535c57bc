/**
 * Binds, Mounts, Tmpfs, VolumesFrom and the image's VOLUMEs into one list of resolved mounts, parents first, with the volumes they need.
 * Throws with the Engine's texts. Whether a bind's source exists only the node can say.
 */
import {posix} from 'node:path';
import {CetusError, isCetusError} from '../../base/errors';
import type {ResolvedMount} from '../../schema/container';
import type {HostConfig, Mount} from '../../schema/docker';
import {settingOf} from '../../schema/options/field';
import type {DatacenterConfig} from '../context';
import {forbidden, gate, unsupported} from './options';

/** A volume by what the person said of it; ids come later. */
export interface WantedVolume { name: string; anonymous: boolean; labels: Record<string, string>; options: Record<string, string>; /** of what its options bind */ within?: string }
export type WantedMount =
  | {type: 'volume'; volume: WantedVolume; destination: string; readOnly: boolean; noCopy: boolean; subpath?: string}
  | Exclude<ResolvedMount, {type: 'volume'}>;

const invalid = (message: string): CetusError => new CetusError('invalid', message);
const VOLUME_NAME = /^[a-zA-Z0-9][a-zA-Z0-9_.-]+$/;

export function checkVolumeName(name: string): void {
  if (name.length === 1) throw invalid(`create ${name}: volume name is too short, names should be at least two alphanumeric characters`);
  if (!VOLUME_NAME.test(name) || name.length > 255)
    throw invalid(`create ${name}: "${name}" includes invalid characters for a local volume name, only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, use absolute path`);
}

const DRIVER_OPTIONS = new Set(['type', 'o', 'device', 'size']);
/** What an option is nothing without, in the order in which the Engine's own list has them. */
const NEEDED: readonly (readonly [string, readonly string[]])[] = [['device', ['type']], ['type', ['device']], ['o', ['device', 'type']]];
const SIZE = /^\d+(\.\d+)? ?([kmgtp]i?)?b?$/i;

export function checkVolumeDriver(name: string, driver: string | undefined, options: Record<string, string>): void {
  if (driver && driver !== 'local') throw new CetusError('notFound', `create ${name}: error looking up volume plugin ${driver}: plugin "${driver}" not found`);
  const wrong = (what: string): CetusError => invalid(`create ${name}: ${what}`);
  for (const option of Object.keys(options)) if (!DRIVER_OPTIONS.has(option)) throw wrong(`invalid option: "${option}"`);
  const {size} = options;
  if (size !== undefined && !SIZE.test(size)) throw wrong(`invalid size: '${size}'`);
  if (size !== undefined && parseFloat(size) > 0) throw wrong('quota size requested but no quota support');
  for (const [option, needed] of NEEDED) {
    const missing = Object.hasOwn(options, option) ? needed.find((other) => !Object.hasOwn(options, other)) : undefined;
    if (missing) throw wrong(`missing required option: "${missing}"`);
  }
}

/** Mounting a device, a host path or a remote file system through a volume is a bind by another name. */
export function gateVolumeOptions(options: Record<string, string>, config: DatacenterConfig): {within?: string} {
  const {type = '', device = '', o = ''} = options;
  if (!type && !device) return {};
  const words = o.split(',');
  if (words.includes('bind') || words.includes('rbind')) {
    if (words.some((word) => /^r?shared$/.test(word))) checkPropagation('shared', config);
    return allowBind(device, config);
  }
  if (type !== 'tmpfs') gate(`volume driver option type=${type}`, 'allowPrivileged', config);
  return {};
}

/** Not the node's files of these names, but a socket that speaks to this datacenter: no configuration of binds is asked. */
const DOCKER_SOCKETS = new Set(['/var/run/docker.sock', '/run/docker.sock']);

function dockerSocket(source: string, config: DatacenterConfig): {dockerSocket: true} | undefined {
  const path = posix.normalize(source);
  return DOCKER_SOCKETS.has(path) || config.ownSockets?.includes(path) ? {dockerSocket: true} : undefined;
}

/** The allowed directory that it is in, where not all are. That no link leads out of it only the node can see. */
function allowBind(source: string, config: DatacenterConfig): {within?: string} {
  gate(`bind mount of ${source}`, 'allowBinds', config);
  if (config.allowBinds === 'all') return {};
  const path = posix.normalize(source);
  const allowed = (config.allowBinds as string[]).map((p) => posix.normalize(p).replace(/(?<=.)\/$/, '')).filter((p) => path === p || path.startsWith(posix.normalize(`${p}/`)));
  if (allowed.length === 0) throw forbidden(`bind mount of ${source}`, `it is below no directory of ${settingOf('allowBinds')}`);
  // Of two within each other the outer: what lies on the way to the inner one may be rewritten by whoever has the outer.
  return {within: allowed.reduce((a, b) => (a.length <= b.length ? a : b))};
}

/** Where only some binds are allowed the node mounts them from a place of its own, from which nothing travels back. */
function checkPropagation(propagation: string, config: DatacenterConfig): void {
  if (config.allowBinds !== 'all' && /^r?shared$/.test(propagation)) throw forbidden(`propagation ${propagation}`, `it needs ${settingOf('allowBinds', 'all')}`);
}

/** Clients take "not found" from create for a missing image. */
function asMistake(check: () => void): void {
  try {
    check();
  } catch (err) {
    throw isCetusError(err, 'notFound') ? invalid(err.message) : err;
  }
}

function destinationOf(path: string, fail: (why: string) => CetusError): string {
  if (!path.startsWith('/')) throw fail(`invalid mount path: '${path}' mount path must be absolute`);
  const clean = posix.normalize(path).replace(/(?<=.)\/$/, '');
  if (clean === '/') throw fail("invalid specification: destination can't be '/'");
  return clean;
}

const PROPAGATION = new Set(['private', 'rprivate', 'shared', 'rshared', 'slave', 'rslave']);

/** Of each kind at most one. SELinux labels and consistency hints mean nothing on these nodes, as on an Engine without SELinux. */
const MODES: readonly ReadonlySet<string>[] = [new Set(['ro', 'rw']), new Set(['z', 'Z']), PROPAGATION, new Set(['nocopy']), new Set(['consistent', 'cached', 'delegated'])];

function modesOf(text: string, kinds = MODES): string[] {
  const modes = text === '' ? [] : text.split(',');
  for (const kind of kinds) if (modes.filter((mode) => kind.has(mode)).length > 1) throw invalid(`invalid mode: ${text}`);
  if (modes.some((mode) => !kinds.some((kind) => kind.has(mode)))) throw invalid(`invalid mode: ${text}`);
  return modes;
}

function parseBind(text: string, config: DatacenterConfig, driver?: string): WantedMount {
  const fail = (why?: string): CetusError => invalid(`invalid volume specification: '${text}'${why ? `: ${why}` : ''}`);
  const parts = text.split(':');
  if (parts.length > 3 || parts.slice(0, 2).some((p) => p === '')) throw fail();
  const [source, target, modes = ''] = parts.length === 1 ? [undefined, parts[0]!] : (parts as [string, string, string?]);
  const kind = source?.startsWith('/') ? 'bind' : 'volume';
  const destination = destinationOf(target, (why) => fail(`invalid mount config for type "${kind}": ${why}`));
  let readOnly = false;
  let noCopy = false;
  let propagation = '';
  for (const mode of modesOf(modes)) {
    if (mode === 'ro') readOnly = true;
    if (mode === 'nocopy') noCopy = true;
    if (PROPAGATION.has(mode)) propagation = mode;
  }
  const foreign = kind === 'bind' ? noCopy && 'VolumeOptions' : propagation && 'BindOptions';
  if (foreign) throw fail(`invalid mount config for type "${kind}": field ${foreign} must not be specified`);
  if (kind === 'bind') {
    const socket = dockerSocket(source!, config);
    if (socket) return {type: 'bind', source: posix.normalize(source!), destination, readOnly, propagation, createSource: false, ...socket};
    const within = allowBind(source!, config);
    checkPropagation(propagation, config);
    return {type: 'bind', source: posix.normalize(source!), destination, readOnly, propagation, createSource: true, ...within};
  }
  if (source !== undefined) checkVolumeName(source);
  asMistake(() => checkVolumeDriver(source ?? '', driver, {}));
  return {type: 'volume', volume: {name: source ?? '', anonymous: source === undefined, labels: {}, options: {}}, destination, readOnly, noCopy};
}

function parseMount(mount: Mount, config: DatacenterConfig): WantedMount {
  const fail = (why: string): CetusError => invalid(`invalid mount config for type "${mount.Type ?? ''}": ${why}`);
  if (!mount.Target) throw fail('field Target must not be empty');
  const destination = destinationOf(mount.Target, fail);
  const readOnly = mount.ReadOnly ?? false;
  const foreign = (['bind', 'volume', 'tmpfs'] as const).find((k) => k !== mount.Type && mount[k === 'bind' ? 'BindOptions' : k === 'volume' ? 'VolumeOptions' : 'TmpfsOptions']);
  if (foreign) throw fail(`field ${foreign[0]!.toUpperCase()}${foreign.slice(1)}Options must not be specified`);
  switch (mount.Type) {
    case 'bind': {
      if (!mount.Source) throw fail('field Source must not be empty');
      if (!mount.Source.startsWith('/')) throw fail(`invalid mount path: '${mount.Source}' mount path must be absolute`);
      const options = mount.BindOptions ?? {};
      if (options.Propagation && !PROPAGATION.has(options.Propagation)) throw fail(`invalid propagation mode: ${options.Propagation}`);
      for (const name of ['ReadOnlyNonRecursive', 'ReadOnlyForceRecursive'] as const) if (options[name] && !readOnly) throw fail(`field BindOptions.${name} requires ReadOnly`);
      if (options.ReadOnlyForceRecursive && (options.ReadOnlyNonRecursive || options.NonRecursive)) throw fail('field BindOptions.ReadOnlyForceRecursive conflicts with non-recursive options');
      const depth = options.ReadOnlyForceRecursive ? {readOnlyDepth: 'all' as const} : options.ReadOnlyNonRecursive ? {readOnlyDepth: 'top' as const} : {};
      const socket = dockerSocket(mount.Source, config);
      if (socket) return {type: 'bind', source: posix.normalize(mount.Source), destination, readOnly, propagation: options.Propagation ?? '', createSource: false, ...socket};
      const within = allowBind(mount.Source, config);
      checkPropagation(options.Propagation ?? '', config);
      return {type: 'bind', source: posix.normalize(mount.Source), destination, readOnly, propagation: options.Propagation ?? '', nonRecursive: options.NonRecursive ?? false, createSource: options.CreateMountpoint ?? false, ...depth, ...within};
    }
    case 'volume': {
      const options = mount.VolumeOptions ?? {};
      const driverOptions = options.DriverConfig?.Options ?? {};
      const name = mount.Source ?? '';
      if (name) checkVolumeName(name);
      else if (readOnly) throw fail('must not set ReadOnly mode when using anonymous volumes');
      if (options.Subpath && (options.Subpath.startsWith('/') || options.Subpath.split('/').includes('..'))) throw fail('subpath must be a relative path within the volume');
      asMistake(() => checkVolumeDriver(name, options.DriverConfig?.Name, driverOptions));
      const within = gateVolumeOptions(driverOptions, config);
      return {type: 'volume', volume: {name, anonymous: name === '', labels: options.Labels ?? {}, options: driverOptions, ...within}, destination, readOnly, noCopy: options.NoCopy ?? false, ...(options.Subpath ? {subpath: options.Subpath} : {})};
    }
    case 'tmpfs': {
      if (mount.Source) throw fail('field Source must not be specified');
      const options = (mount.TmpfsOptions?.Options ?? []).map((pair) => pair.join('='));
      if (mount.TmpfsOptions?.SizeBytes) options.push(`size=${mount.TmpfsOptions.SizeBytes}`);
      if (mount.TmpfsOptions?.Mode) options.push(`mode=${mount.TmpfsOptions.Mode.toString(8)}`);
      if (readOnly) options.push('ro');
      return {type: 'tmpfs', destination, options};
    }
    case 'image': case 'cluster':
      throw unsupported(`mount of type ${mount.Type}`, 'use a volume, a bind or tmpfs');
    case 'npipe':
    default:
      throw fail('mount type unknown');
  }
}

const tmpfsWords = (options: string): string[] => (options === '' ? [] : options.split(','));

/** `inherited`: mounts of the containers in VolumesFrom; they give way to the request's own. */
export function wantedMounts(host: HostConfig, configVolumes: Record<string, object> | null | undefined, inherited: WantedMount[], config: DatacenterConfig): WantedMount[] {
  const byDestination = new Map<string, WantedMount>();
  const add = (mount: WantedMount): void => {
    if (byDestination.has(mount.destination)) throw invalid(`Duplicate mount point: ${mount.destination}`);
    byDestination.set(mount.destination, mount);
  };
  for (const text of host.Binds ?? []) add(parseBind(text, config, host.VolumeDriver));
  for (const mount of host.Mounts ?? []) add(parseMount(mount, config));
  for (const [path, options] of Object.entries(host.Tmpfs ?? {})) {
    const destination = destinationOf(path, invalid);
    // Of a mount that asks for the same, the Engine shows the mount.
    if (byDestination.get(destination)?.type !== 'tmpfs') add({type: 'tmpfs', destination, options: tmpfsWords(options)});
  }
  for (const mount of inherited) if (!byDestination.has(mount.destination)) byDestination.set(mount.destination, mount);
  for (const text of Object.keys(configVolumes ?? {})) {
    // Images say it without the slash, too.
    const mount = parseBind(/^[/:]|^$/.test(text) ? text : `/${text}`, config, host.VolumeDriver);
    if (mount.type !== 'volume' || text.includes(':')) throw invalid(`invalid volume specification: '${text}'`);
    if (!byDestination.has(mount.destination)) byDestination.set(mount.destination, mount);
  }
  const depth = (m: WantedMount): number => m.destination.split('/').length;
  return [...byDestination.values()].sort((a, b) => depth(a) - depth(b));
}

/** "name[:ro|rw]" of VolumesFrom. */
export function parseVolumesFrom(text: string): {container: string; readOnly: boolean} {
  if (!text) throw invalid('volumes-from specification cannot be an empty string');
  const at = text.indexOf(':');
  const container = at < 0 ? text : text.slice(0, at);
  const modes = modesOf(at < 0 ? '' : text.slice(at + 1), MODES.slice(0, 2));
  if (!container) throw invalid('invalid name or ID supplied: ""');
  return {container, readOnly: modes.includes('ro')};
}

export function inheritMounts(mounts: readonly ResolvedMount[], readOnly: boolean): WantedMount[] {
  return mounts.map((m): WantedMount => {
    if (m.type === 'volume')
      return {type: 'volume', volume: {name: m.name, anonymous: false, labels: {}, options: {}}, destination: m.destination, readOnly: m.readOnly || readOnly, noCopy: m.noCopy, ...(m.subpath ? {subpath: m.subpath} : {})};
    return m.type === 'bind' ? {...m, readOnly: m.readOnly || readOnly} : m;
  });
}
