import type {Config, EndpointSettings, HostConfig, LogConfig} from './docker';
import type {PlacementDecision} from './placement';

/**
 * The statuses that the Engine shows. `removing` and `dead` belong to the control plane; an agent only ever observes the others.
 *
 *   created -> running <-> paused        running -> restarting -> running
 *   running|restarting|paused -> exited -> running        any -> removing -> (gone | dead)
 */
export type ContainerStatus = 'created' | 'running' | 'paused' | 'restarting' | 'exited' | 'removing' | 'dead';

/** The network of containers without one, by its name: beside it there is no other, and nothing is plugged in for it. */
export const NO_NETWORK = 'none';

export interface HealthProbe { start: string; end: string; exitCode: number; output: string }
export interface HealthState {
  status: 'starting' | 'healthy' | 'unhealthy';
  failingStreak: number;
  /** The last five probes, oldest first. */
  log: HealthProbe[];
}

/**
 * What an agent knows of a container at one moment. `generation` is minted by the agent that runs the container and rises with every
 * transition; of two observations the one with the higher generation is the truth, whatever the order in which they arrive.
 */
export interface ContainerObservation {
  containerId: string;
  generation: number;
  status: Exclude<ContainerStatus, 'removing' | 'dead'>;
  /** 0 where nothing runs. */
  pid: number;
  exitCode: number;
  /** Why the process could not be started, as the Engine words it; '' otherwise. Also written by the chains where a start was refused before it reached the node. */
  error: string;
  oomKilled: boolean;
  /** RFC 3339 with nanoseconds, or ZERO_TIME. */
  startedAt: string;
  finishedAt: string;
  /** Restarts made by the restart policy since the last start by hand. */
  restartCount: number;
  /** Set once a person stopped it: `unless-stopped` and reboots look at this. */
  stoppedByUser?: boolean;
  /** It ended and holds nothing, and its restart policy wants it back after a reboot: the control plane is to start it, once. */
  wantsStart?: boolean;
  health?: HealthState;
}

/**
 * One resolved mount, in the order in which the runtime mounts them (parents first). A bind's `within` is the allowed directory that it is below
 * by its name; the node refuses a source that leads out of it by links. Optional: without it every source is allowed. `dockerSocket`: no path of
 * the node is meant, but a socket that speaks to the Docker API as the container's account. `readOnlyDepth`: whether a read-only one must, or must not,
 * be so for what is mounted below it; absent: where the node can.
 */
export type ResolvedMount =
  | {type: 'volume'; volumeId: string; name: string; destination: string; readOnly: boolean; noCopy: boolean; subpath?: string; anonymous: boolean}
  | {type: 'bind'; source: string; destination: string; readOnly: boolean; propagation: string; nonRecursive?: boolean; createSource: boolean; within?: string; dockerSocket?: boolean; readOnlyDepth?: 'top' | 'all'}
  | {type: 'tmpfs'; destination: string; options: string[]};

/** By label: the container is told who its client is. Which ports, and how: datacenter/create/proxy-protocol.ts. */
export const PROXY_PROTOCOL_LABEL = 'cetus.ingress.proxy-protocol';
export type ProxyProtocol = 'v1' | 'v2';

/** A port the container publishes. `hostPort` 0 asks for any free one: of `hostPortRange`, where there is one. */
export interface RequestedPort {
  protocol: 'tcp' | 'udp' | 'sctp'; containerPort: number; hostIp: string; hostPort: number; hostPortRange?: {from: number; to: number};
  /** Every connection to it begins with such a header (udp: every datagram). */
  proxyProtocol?: ProxyProtocol;
}
/** A port as it is held while the container runs. `atEndpoints`: its node opens nothing for it, endpoints alone do (lib/ingress/README.md); decided at each start. */
export type PublishedPort = Omit<RequestedPort, 'hostPortRange'> & {atEndpoints?: boolean};

/** What the container asked of one network; the key of Container.networks is the network's name. */
export interface NetworkRequest {
  networkId: string;
  settings: EndpointSettings;
}

/** One container's place on one network while it runs; everything the node needs to plug it in. */
export interface NetworkAttachment {
  networkId: string;
  networkName: string;
  endpointId: string;
  /** "172.18.0.2" */
  address: string;
  prefixLength: number;
  gateway: string;
  /** "02:42:ac:12:00:02" */
  mac: string;
  /** Names by which others on this network may call it. */
  aliases: string[];
  /** Names that this container alone uses for others on this network (EndpointSettings.Links). */
  links?: {name: string; alias: string}[];
  /** The network through which the default route goes. */
  isDefaultRoute: boolean;
  internal: boolean;
  /** Of EndpointSettings.GwPriority; absent: 0. */
  gwPriority?: number;
}

/**
 * The same places, with the default route where the Engine puts it: the highest priority, then the first name; none on a network without a way out,
 * whose containers do not even reach the node's own addresses.
 */
export function withDefaultRoute(attachments: readonly NetworkAttachment[]): NetworkAttachment[] {
  const [best] = attachments.filter((a) => !a.internal).sort((a, b) => (b.gwPriority ?? 0) - (a.gwPriority ?? 0) || (a.networkName < b.networkName ? -1 : 1));
  return attachments.map((a) => ({...a, isDefaultRoute: a === best}));
}

/** HostConfig.Links: another container under a name of this one's own. `name`: what that was called when the link was made. */
export interface ContainerLink { containerId: string; name: string; alias: string }
/** A link at the start of its container. `ports`: "5432/tcp", what the other exposes. */
export interface ResolvedLink { alias: string; name: string; hostname: string; address: string; ports: string[]; env: string[] }

/** The same places, under the container's new name. */
export function renamedIn(attachments: NetworkAttachment[], from: string, to: string): NetworkAttachment[] {
  return attachments.map((a) => ({...a, aliases: a.aliases.map((alias) => (alias === from ? to : alias))}));
}

/** Everything an agent needs to make and run a container without asking anybody again. Fixed at create; `docker update` replaces it. */
export interface ContainerSpec {
  id: string;
  account: string;
  /** Without a leading slash. Informational on the node (hosts file, logs' tags). */
  name: string;
  image: {
    /** Config digest "sha256:...". */
    id: string;
    /** As the person wrote it. */
    reference: string;
    /** Digest of the manifest by which the node's content store knows it. */
    manifestDigest: string;
  };
  /** Image config and request merged: what runs. Entrypoint + Cmd are the arguments. */
  config: Config;
  hostConfig: HostConfig;
  logConfig: LogConfig;
  mounts: ResolvedMount[];
  /** 'none' | 'host' | 'container:ID' | 'networks'. As it was created: one of 'none' that has left that network may be plugged into others. */
  networkMode: string;
  /** Nanoseconds resolution, RFC 3339. */
  createdAt: string;
}

export interface Reservation { memoryBytes: number; nanoCpus: number; diskBytes: number; pids: number }

/** Bucket `containers`, key = id. */
export interface Container {
  id: string;
  account: string;
  name: string;
  /** account/name, unique: the store itself refuses a second owner of a name. */
  accountName: string;
  links?: ContainerLink[];
  spec: ContainerSpec;
  /** The request's Config.Image. */
  imageReference: string;
  imageId: string;
  /** Node name; fixed at provision in this version. */
  node: string;
  nodeId: string;
  status: ContainerStatus;
  observation: ContainerObservation;
  autoRemove: boolean;
  labels: Record<string, string>;
  /** Requested networks by name. */
  networks: Record<string, NetworkRequest>;
  /** Held while it runs (kept while restarting), empty otherwise. */
  attachments: NetworkAttachment[];
  requestedPorts: RequestedPort[];
  publishedPorts: PublishedPort[];
  /** Ids of the volumes it uses; indexed, so that `volume rm` can refuse. */
  volumeIds: string[];
  /** Ids of anonymous volumes that `rm -v` and --rm delete. */
  anonymousVolumeIds: string[];
  reservation: Reservation;
  /**
   * True from create's first commit (which takes the name and the capacity) until the node has it: verbs show nothing of such a
   * container and treat its id as unknown; its name is taken. Written by container.provision only.
   */
  provisioning?: boolean;
  /**
   * Its node has been told that it may go elsewhere, and stops it when its lease ends: set after the node has confirmed, cleared before it is told
   * otherwise. Only such a container is started elsewhere when its node is fenced.
   */
  reschedule?: boolean;
  /**
   * Taken from its former node, and not yet there on `nodeId`, where it has capacity and addresses only: nothing of it runs anywhere. `leaving`: it is still `from`'s, which is to stop
   * it. `start`: false where a person stopped it on the way. `since`: RFC 3339.
   */
  moving?: {from: string; since: string; start: boolean; leaving?: boolean};
  /** The job that placed it: `cetus why` reads the reasons there, and the copy here survives the job's retention. */
  provisionJobId: string;
  placement: PlacementDecision | null;
  createdAt: string;
  /** Nanoseconds since the epoch, as a decimal string: sorts `docker ps`. */
  createdAtNs: string;
}
