/** Parts that a container's list entry and its inspect document share: state, status text, ports, mounts, networks. */
import {ZERO_TIME} from '../../base/clock';
import type {SeenContainer} from '../../datacenter/verbs';
import type {Container, ResolvedMount} from '../../schema/container';
import type {EndpointSettings} from '../../schema/docker';
import {humanDuration} from './time';

/** The Status column of `docker ps`. */
export function statusText(container: SeenContainer, nowMs: number): string {
  const {lost} = container;
  if (!lost) return ownText(container, nowMs);
  const where = `(node ${lost.node} is ${lost.liveness})`;
  if (lost.goesElsewhere) return `Restarting elsewhere ${where}`;
  return container.status === 'dead' && lost.was !== 'dead' ? `Lost ${where}` : `${ownText(container, nowMs)} ${where}`;
}

/** State.Error of a container that nobody can ask. */
export function lostText({node, liveness, since, reason, was}: NonNullable<SeenContainer['lost']>): string {
  return `node ${node} is ${liveness} since ${since}: ${reason}; last known: ${was}`;
}

function ownText(container: Container, nowMs: number): string {
  const seen = container.observation;
  const since = (time: string): string => humanDuration(nowMs - Date.parse(time));
  switch (container.status) {
    case 'running': {
      const health = seen.health ? ` (${seen.health.status === 'starting' ? 'health: starting' : seen.health.status})` : '';
      return `Up ${since(seen.startedAt)}${health}`;
    }
    case 'paused':
      return `Up ${since(seen.startedAt)} (Paused)`;
    case 'restarting':
      return `Restarting (${seen.exitCode}) ${since(seen.finishedAt)} ago`;
    case 'removing':
      return 'Removal In Progress';
    case 'dead':
      return 'Dead';
    case 'created':
      return 'Created';
    case 'exited':
      return seen.finishedAt === ZERO_TIME ? 'Created' : `Exited (${seen.exitCode}) ${since(seen.finishedAt)} ago`;
  }
}

/** Entrypoint and command as the process gets them. */
export function argv(container: Container): string[] {
  const {Entrypoint, Cmd} = container.spec.config;
  return [...(Entrypoint ?? []), ...(Cmd ?? [])];
}

const LIVE: ReadonlySet<string> = new Set(['running', 'paused', 'restarting']);
export const isLive = (container: Container): boolean => LIVE.has(container.status);

/** Published ports while it runs; exposed but unpublished ones are null, as the Engine shows them. */
export function portMap(container: Container): Record<string, {HostIp: string; HostPort: string}[] | null> {
  if (!isLive(container)) return {};
  const ports: Record<string, {HostIp: string; HostPort: string}[] | null> = {};
  for (const name of Object.keys(container.spec.config.ExposedPorts ?? {})) ports[name.includes('/') ? name : `${name}/tcp`] = null;
  for (const p of container.publishedPorts)
    (ports[`${p.containerPort}/${p.protocol}`] ??= []).push({HostIp: p.hostIp || '0.0.0.0', HostPort: String(p.hostPort)});
  return ports;
}

export interface MountPointView { Type: string; Name?: string; Source: string; Destination: string; Driver?: string; Mode: string; RW: boolean; Propagation: string }

/** `mountpointOf` knows where a volume is on its node; a list entry does without. tmpfs mounts of `--tmpfs` are not shown, as in the Engine. */
export function mountPoints(container: Container, mountpointOf: (name: string) => string): MountPointView[] {
  const asTmpfsOption = container.spec.hostConfig.Tmpfs ?? {};
  return container.spec.mounts
    .filter((m) => m.type !== 'tmpfs' || !Object.hasOwn(asTmpfsOption, m.destination))
    .map((m) => mountPoint(m, mountpointOf, modeOf(container, m)));
}

/** The options of `-v` as they were written; a named volume without any, or one of `--mount`, has the Engine's "z". */
function modeOf(container: Container, m: ResolvedMount): string {
  const {Binds} = container.spec.hostConfig;
  for (const bind of Binds ?? []) {
    const [, destination, mode = ''] = bind.split(':');
    if (destination === m.destination && mode) return mode;
  }
  return m.type === 'volume' && !Object.hasOwn(container.spec.config.Volumes ?? {}, m.destination) ? 'z' : '';
}

function mountPoint(m: ResolvedMount, mountpointOf: (name: string) => string, mode: string): MountPointView {
  switch (m.type) {
    case 'volume':
      return {Type: 'volume', Name: m.name, Source: mountpointOf(m.name), Destination: m.destination, Driver: 'local', Mode: mode, RW: !m.readOnly, Propagation: ''};
    case 'bind':
      return {Type: 'bind', Source: m.source, Destination: m.destination, Mode: mode, RW: !m.readOnly, Propagation: m.propagation || 'rprivate'};
    case 'tmpfs':
      return {Type: 'tmpfs', Source: '', Destination: m.destination, Mode: '', RW: true, Propagation: ''};
  }
}

/** What was asked of each network, and, while it runs, what it got. */
export function networkViews(container: Container): Record<string, EndpointSettings> {
  const views: Record<string, EndpointSettings> = {};
  for (const [name, {networkId, settings}] of Object.entries(container.networks)) {
    const held = container.attachments.find((a) => a.networkId === networkId);
    views[name] = {
      IPAMConfig: settings.IPAMConfig ?? null,
      Links: settings.Links ?? null,
      Aliases: settings.Aliases ?? null,
      MacAddress: held?.mac ?? settings.MacAddress ?? '',
      DriverOpts: settings.DriverOpts ?? null,
      GwPriority: settings.GwPriority ?? 0,
      // A network is joined at the first start.
      NetworkID: held || container.observation.startedAt !== ZERO_TIME ? networkId : '',
      EndpointID: held?.endpointId ?? '',
      Gateway: held?.gateway ?? '',
      IPAddress: held?.address ?? '',
      IPPrefixLen: held?.prefixLength ?? 0,
      IPv6Gateway: '',
      GlobalIPv6Address: '',
      GlobalIPv6PrefixLen: 0,
      DNSNames: held ? held.aliases : null,
    };
  }
  return views;
}

/** What HostConfig.NetworkMode shows: the Engine has called its default "bridge" in answers since 1.47. */
export function networkMode(container: Container): string {
  const asked = container.spec.hostConfig.NetworkMode;
  return !asked || asked === 'default' ? 'bridge' : asked;
}
