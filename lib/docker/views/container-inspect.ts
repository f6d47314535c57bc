/** `docker inspect CONTAINER`: GET /containers/ID/json. */
import {ZERO_TIME} from '../../base/clock';
import {SHORT_ID_LENGTH} from '../../base/ids';
import type {SeenContainer} from '../../datacenter/verbs';
import type {Container} from '../../schema/container';
import type {Config} from '../../schema/docker';
import {argv, isLive, lostText, mountPoints, networkViews, portMap} from './container';
import {hostConfigView} from './host-config';

/** They resolve no names. */
const PREDEFINED: ReadonlySet<string> = new Set(['bridge', 'host', 'none', 'default']);

export interface InspectFacts {
  /** Where a volume is on its node, by name; '' where unknown. */
  mountpointOf: (name: string) => string;
  /** Those that run, or wait to be started. */
  execIds: string[];
  /** Until API 1.44 the short id and the host name stood among a network's aliases; since then DNSNames has them. */
  namesAmongAliases: boolean;
  size?: {sizeRw: number; sizeRootFs: number};
}

export function containerInspect(container: SeenContainer, facts: InspectFacts): object {
  const [path = '', ...args] = argv(container);
  return {
    Id: container.id,
    Created: container.createdAt,
    Path: path,
    Args: args,
    State: stateView(container),
    Image: container.imageId,
    // These files are the node's; no path on the client's side of the API leads to them.
    ResolvConfPath: '',
    HostnamePath: '',
    HostsPath: '',
    LogPath: '',
    Name: `/${container.name}`,
    RestartCount: container.observation.restartCount,
    Driver: 'overlayfs',
    Platform: 'linux',
    MountLabel: '',
    ProcessLabel: '',
    AppArmorProfile: '',
    ExecIDs: facts.execIds.length ? facts.execIds : null,
    HostConfig: hostConfigView(container),
    GraphDriver: {Name: 'overlayfs', Data: {'com.cetus.node': container.node}},
    ...(facts.size ? {SizeRw: facts.size.sizeRw, SizeRootFs: facts.size.sizeRootFs} : {}),
    Mounts: mountPoints(container, facts.mountpointOf),
    Config: configView(container.spec.config, container.imageReference),
    NetworkSettings: networkSettings(container, facts.namesAmongAliases),
  };
}

function ownNames(container: Container): string[] {
  return [container.id.slice(0, SHORT_ID_LENGTH), container.spec.config.Hostname ?? ''].filter(Boolean);
}

function stateView(container: SeenContainer): object {
  const seen = container.observation;
  const {status, lost} = container;
  return {
    Status: status,
    Running: isLive(container),
    Paused: status === 'paused',
    Restarting: status === 'restarting',
    OOMKilled: seen.oomKilled,
    Dead: status === 'dead',
    Pid: lost ? 0 : seen.pid,
    ExitCode: seen.exitCode,
    Error: lost ? lostText(lost) : seen.error,
    StartedAt: seen.startedAt || ZERO_TIME,
    FinishedAt: seen.finishedAt || ZERO_TIME,
    ...(seen.health ? {
      Health: {
        Status: lost ? 'unhealthy' : seen.health.status,
        FailingStreak: seen.health.failingStreak,
        Log: seen.health.log.map((probe) => ({Start: probe.start, End: probe.end, ExitCode: probe.exitCode, Output: probe.output})),
      },
    } : {}),
  };
}

function configView(c: Config, image: string): object {
  return {
    Hostname: c.Hostname ?? '',
    Domainname: c.Domainname ?? '',
    User: c.User ?? '',
    AttachStdin: c.AttachStdin ?? false,
    AttachStdout: c.AttachStdout ?? false,
    AttachStderr: c.AttachStderr ?? false,
    ...(c.ExposedPorts && Object.keys(c.ExposedPorts).length ? {ExposedPorts: c.ExposedPorts} : {}),
    Tty: c.Tty ?? false,
    OpenStdin: c.OpenStdin ?? false,
    StdinOnce: c.StdinOnce ?? false,
    Env: c.Env ?? [],
    Cmd: c.Cmd ?? null,
    ...(c.Healthcheck ? {Healthcheck: c.Healthcheck} : {}),
    Image: image,
    Volumes: c.Volumes && Object.keys(c.Volumes).length ? c.Volumes : null,
    WorkingDir: c.WorkingDir ?? '',
    Entrypoint: c.Entrypoint ?? null,
    ...(c.NetworkDisabled ? {NetworkDisabled: true} : {}),
    ...(c.MacAddress ? {MacAddress: c.MacAddress} : {}),
    OnBuild: c.OnBuild ?? null,
    Labels: c.Labels ?? {},
    ...(c.StopSignal ? {StopSignal: c.StopSignal} : {}),
    ...(c.StopTimeout === undefined ? {} : {StopTimeout: c.StopTimeout}),
    ...(c.Shell?.length ? {Shell: c.Shell} : {}),
  };
}

function networkSettings(container: Container, namesAmongAliases: boolean): object {
  const networks = networkViews(container);
  if (namesAmongAliases)
    for (const [name, view] of Object.entries(networks)) if (!PREDEFINED.has(name)) view.Aliases = [...new Set([...view.Aliases ?? [], ...ownNames(container)])];
  // The top-level fields speak of the default bridge only; they are older than networks.
  const bridge = networks.bridge;
  return {
    Bridge: '',
    SandboxID: container.observation.startedAt !== ZERO_TIME && !container.spec.networkMode.startsWith('container:') ? container.id : '',
    SandboxKey: '',
    Ports: portMap(container),
    HairpinMode: false,
    LinkLocalIPv6Address: '',
    LinkLocalIPv6PrefixLen: 0,
    SecondaryIPAddresses: null,
    SecondaryIPv6Addresses: null,
    EndpointID: bridge?.EndpointID ?? '',
    Gateway: bridge?.Gateway ?? '',
    GlobalIPv6Address: '',
    GlobalIPv6PrefixLen: 0,
    IPAddress: bridge?.IPAddress ?? '',
    IPPrefixLen: bridge?.IPPrefixLen ?? 0,
    IPv6Gateway: '',
    MacAddress: bridge?.MacAddress ?? '',
    Networks: networks,
  };
}
