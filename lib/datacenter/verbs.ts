/**
 * The verbs on nouns, free of HTTP: what lib/docker, lib/admin and lib/ingress call. Every call names the caller; nothing of another
 * account is ever visible through it. Filters, names and prefixes are resolved here, with the Engine's own error texts
 * ("No such container: x", ...). Answers are stored objects; Docker's JSON is made from them in lib/docker/views.
 */
import type {Duplex, Readable} from 'node:stream';
import type {AttachQuery, ExecObservation, ExecStartQuery, Inventory, LogsQuery, RegistryAnswers, SearchResult} from '../schema/agent';
import type {Container, ContainerStatus, ProxyProtocol} from '../schema/container';
import type {Config, CreateContainerBody, EndpointSettings, ExecConfig, ProgressMessage, RegistryAuth, Resources, RestartPolicy} from '../schema/docker';
import type {Job} from '../schema/job';
import type {TokenView} from '../fleet/authority/tokens';
import type {Node} from '../schema/node';
import type {Staying} from '../fleet/movable';
import type {Lost, SeenContainer} from './containers/lost';
import type {WantedPlatform} from './images/platform';
import type {DatacenterEvent, Exec, Image, IngressRow, Network, Volume} from '../schema/objects';

export interface Caller {
  account: string;
  /** X-Request-Id: travels into jobs, tasks and logs. */
  requestId: string;
  /** Aborted when the client hangs up; only reads, streams and pulls obey it, other changes are finished. */
  signal?: AbortSignal;
}

/** Docker's filters: name -> accepted values. Unknown names are refused by the verb ("invalid filter 'x'"). */
export type Filters = Record<string, string[]>;

export interface ListContainersQuery { all: boolean; limit?: number; size: boolean; filters: Filters }
export type WaitCondition = 'not-running' | 'next-exit' | 'removed';

export interface ContainerVerbs {
  create(caller: Caller, name: string | undefined, body: CreateContainerBody, platform?: string): Promise<{id: string; warnings: string[]}>;
  /** Newest first, as `docker ps`. `before`/`since`, status, label, name, id, ancestor, exited, health, network, volume, publish, expose, is-task. */
  list(caller: Caller, query: ListContainersQuery): Promise<SeenContainer[]>;
  /** By id, unique id prefix or name, as the Engine resolves. */
  get(caller: Caller, nameOrId: string): Promise<SeenContainer>;
  /** Bytes of the writable layer, and with the image below it. */
  size(caller: Caller, container: Container): Promise<{sizeRw: number; sizeRootFs: number}>;
  start(caller: Caller, nameOrId: string): Promise<void>;
  stop(caller: Caller, nameOrId: string, options: {timeoutSeconds?: number; signal?: string}): Promise<void>;
  restart(caller: Caller, nameOrId: string, options: {timeoutSeconds?: number; signal?: string}): Promise<void>;
  kill(caller: Caller, nameOrId: string, signal: string): Promise<void>;
  pause(caller: Caller, nameOrId: string): Promise<void>;
  unpause(caller: Caller, nameOrId: string): Promise<void>;
  rename(caller: Caller, nameOrId: string, newName: string): Promise<void>;
  update(caller: Caller, nameOrId: string, resources: Resources, restartPolicy?: RestartPolicy): Promise<{warnings: string[]}>;
  /** `link`: takes away the link of that name ("web/db"), and no container. */
  remove(caller: Caller, nameOrId: string, options: {force: boolean; volumes: boolean; link: boolean}): Promise<void>;
  /** What containers that are linked to others call these: "/web/db", by the others' ids. */
  linkNames(caller: Caller): Promise<ReadonlyMap<string, string[]>>;
  prune(caller: Caller, filters: Filters): Promise<{deleted: string[]; spaceReclaimed: number}>;
  /** Resolves when the wait is armed: no exit after that moment is missed. `outcome` resolves at the exit (or removal). */
  wait(caller: Caller, nameOrId: string, condition: WaitCondition): Promise<{outcome: Promise<{exitCode: number; error?: string}>}>;
  attach(caller: Caller, nameOrId: string, query: AttachQuery): Promise<{stream: Duplex; tty: boolean}>;
  logs(caller: Caller, nameOrId: string, query: LogsQuery): Promise<{stream: Readable; tty: boolean}>;
  top(caller: Caller, nameOrId: string, psArgs: string): Promise<{Titles: string[]; Processes: string[][]}>;
  stats(caller: Caller, nameOrId: string, query: {stream: boolean; oneShot: boolean}): Promise<Readable>;
  resize(caller: Caller, nameOrId: string, height: number, width: number): Promise<void>;
  changes(caller: Caller, nameOrId: string): Promise<{Path: string; Kind: number}[]>;
  export(caller: Caller, nameOrId: string): Promise<Readable>;
  statPath(caller: Caller, nameOrId: string, path: string): Promise<string>;
  getArchive(caller: Caller, nameOrId: string, path: string): Promise<{stat: string; body: Readable}>;
  putArchive(caller: Caller, nameOrId: string, query: {path: string; noOverwriteDirNonDir: boolean; copyUIDGID: boolean}, body: Readable): Promise<void>;
}

export interface ExecVerbs {
  create(caller: Caller, containerNameOrId: string, config: ExecConfig): Promise<{id: string}>;
  /** The stream, or null where detached. */
  start(caller: Caller, execId: string, query: ExecStartQuery & {tty?: boolean}): Promise<{stream: Duplex | null; tty: boolean}>;
  get(caller: Caller, execId: string): Promise<{exec: Exec; live: ExecObservation | undefined}>;
  resize(caller: Caller, execId: string, height: number, width: number): Promise<void>;
  /** Those of the container that have not ended, oldest first; none where it does not run. */
  open(caller: Caller, container: Container): Promise<string[]>;
}

export interface CommitOptions {
  /** As the person wrote them; '' for an image without a name. */
  repository: string;
  tag: string;
  author: string;
  comment: string;
  /** Freeze what runs meanwhile. */
  pause: boolean;
  /** Dockerfile instructions. */
  changes: string[];
  /** In place of the container's own. */
  config?: Config;
}
export interface ImportOptions {
  /** As the person wrote them; '' for an image without a name. */
  repository: string;
  tag: string;
  /** '' for "Imported from" and the source. */
  message: string;
  /** Dockerfile instructions. */
  changes: string[];
  /** "linux/arm64"; undefined = the node's own. */
  platform?: string;
}
export type {Lost, SeenContainer, Staying, WantedPlatform};
export interface ListedImage {
  image: Image;
  references: string[];
  containers: number;
  /** Ids of those containers. */
  usedBy?: string[];
  /** Bytes that other images have as well; absent where nobody asked. */
  sharedSize?: number;
}
/** `ancestors`: what the image was made from, nearest first. */
export interface ImageHistory extends ListedImage { ancestors: {id: string; references: string[]}[] }
export interface ImageVerbs {
  /** `usedBy` is told where it is asked for. */
  list(caller: Caller, query: {all: boolean; filters: Filters; sharedSize?: boolean; usedBy?: boolean}): Promise<ListedImage[]>;
  history(caller: Caller, nameOrId: string, options?: {platform?: WantedPlatform}): Promise<ImageHistory>;
  /** `notFound` too where it is for another platform than the wanted one. By reference, id, unique id prefix, or name@digest. */
  get(caller: Caller, nameOrId: string, options?: {platform?: WantedPlatform}): Promise<ListedImage>;
  /** Progress as the Engine's; throws before the first line where nothing was begun. */
  pull(caller: Caller, reference: string, options: {platform?: string; allTags?: boolean}, auth?: RegistryAuth): AsyncIterable<ProgressMessage>;
  load(caller: Caller, archive: Readable, options: {quiet: boolean; platform?: WantedPlatform}): AsyncIterable<ProgressMessage>;
  save(caller: Caller, names: string[], options?: {platform?: WantedPlatform}): Promise<Readable>;
  /** From a tar, or from an address where one can be had. The last line is the image's id. */
  import(caller: Caller, source: Readable | string, options: ImportOptions): AsyncIterable<ProgressMessage>;
  /** `tag` '': the one in the name, or every tag of the repository. Progress as the Engine's; what the registry refuses comes after the first line. */
  push(caller: Caller, name: string, tag: string, options: {platform?: WantedPlatform}, auth?: RegistryAuth): AsyncIterable<ProgressMessage>;
  /** Of a registry: whether it takes the credentials. `unauthorized` where not. Nothing is kept. */
  login(caller: Caller, auth: RegistryAuth): Promise<{identityToken: string}>;
  /** Of Docker Hub, or of the registry that the term begins with. */
  search(caller: Caller, term: string, options: {limit?: number; filters: Filters}, auth?: RegistryAuth): Promise<SearchResult[]>;
  /** What a name stands for in its registry. */
  inspectRemote(caller: Caller, name: string, auth?: RegistryAuth): Promise<RegistryAnswers['inspect']>;
  /** An image of a container's files. Answered when it is recorded. */
  commit(caller: Caller, containerNameOrId: string, options: CommitOptions): Promise<{imageId: string}>;
  tag(caller: Caller, source: string, repository: string, tag: string): Promise<void>;
  remove(caller: Caller, nameOrId: string, options: {force: boolean; noPrune: boolean; platforms?: WantedPlatform[]}): Promise<({Untagged: string} | {Deleted: string})[]>;
  prune(caller: Caller, filters: Filters): Promise<{deleted: ({Untagged: string} | {Deleted: string})[]; spaceReclaimed: number}>;
}

export type BuildHeaders = Record<string, string | string[]>;
/** An engine that is at the account's disposal; to be closed. */
export interface OpenBuild {
  call(method: string, path: string, body: Readable | undefined, headers: BuildHeaders): Promise<Readable>;
  /** `/session`, `/grpc`: HTTP/2 follows. */
  stream(path: string, headers: BuildHeaders): Promise<Duplex>;
  /** These images of the engine, and whatever was given a name, are the account's when it resolves. */
  settle(imageIds: string[]): Promise<void>;
  close(): Promise<void>;
}
export interface BuildVerbs {
  open(caller: Caller): Promise<OpenBuild>;
  /** The engine's lines; the last of them when the image is there. `query` is the client's, `headers` are X-Registry-Config and Content-Type. Hanging up cancels. */
  build(caller: Caller, query: URLSearchParams, context: Readable, headers: BuildHeaders): AsyncIterable<ProgressMessage>;
  cancel(caller: Caller, id: string): Promise<void>;
  prune(caller: Caller, query: URLSearchParams): Promise<{CachesDeleted: string[] | null; SpaceReclaimed: number}>;
  /** As the engine tells it. */
  usage(caller: Caller): Promise<{BuildCache: unknown[]; BuilderSize: number}>;
  /** Is there a node that could build? */
  available(): Promise<boolean>;
}

/** The Engine's request as it came; what of it cannot be had is refused by name. */
export interface NetworkCreateBody {
  Name: string;
  Driver?: string;
  Scope?: string;
  Internal?: boolean;
  Attachable?: boolean;
  Ingress?: boolean;
  EnableIPv4?: boolean;
  EnableIPv6?: boolean;
  ConfigOnly?: boolean;
  ConfigFrom?: object;
  IPAM?: {
    Driver?: string;
    Config?: {Subnet?: string; Gateway?: string; IPRange?: string; AuxiliaryAddresses?: Record<string, string>}[] | null;
    Options?: Record<string, string>;
  } | null;
  Options?: Record<string, string>;
  Labels?: Record<string, string>;
  CheckDuplicate?: boolean;
}

export interface NetworkVerbs {
  create(caller: Caller, body: NetworkCreateBody): Promise<{id: string; warning: string}>;
  list(caller: Caller, filters: Filters): Promise<Network[]>;
  get(caller: Caller, nameOrId: string): Promise<Network>;
  /** Running containers on it, for inspect. */
  containers(caller: Caller, network: Network): Promise<Container[]>;
  remove(caller: Caller, nameOrId: string): Promise<void>;
  connect(caller: Caller, nameOrId: string, containerNameOrId: string, settings: EndpointSettings): Promise<void>;
  disconnect(caller: Caller, nameOrId: string, containerNameOrId: string, force: boolean): Promise<void>;
  prune(caller: Caller, filters: Filters): Promise<{deleted: string[]}>;
}

/** `node`: where it is, by name, once it has been used; absent in a datacenter of one node. */
export type PlacedVolume = Volume & {node?: string};

export interface VolumeVerbs {
  create(caller: Caller, body: {Name?: string; Driver?: string; DriverOpts?: Record<string, string>; Labels?: Record<string, string>}): Promise<PlacedVolume>;
  list(caller: Caller, filters: Filters): Promise<{volumes: PlacedVolume[]; warnings: string[]}>;
  get(caller: Caller, name: string): Promise<PlacedVolume>;
  remove(caller: Caller, name: string, force: boolean): Promise<void>;
  prune(caller: Caller, filters: Filters): Promise<{deleted: string[]; spaceReclaimed: number}>;
}

export interface EventVerbs {
  /** From `sinceNs` (or now), through the past in order, then live until `untilNs` or the caller's signal. A reader that falls too far behind gets an error, never a gap. */
  stream(caller: Caller, query: {sinceNs?: bigint; untilNs?: bigint; filters: Filters}): Promise<AsyncIterable<DatacenterEvent>>;
  /** Events that change no state (attach, resize, exec_create, top...): durable within a moment, never in the way of the request. */
  emit(caller: Caller, event: Omit<DatacenterEvent, 'account' | 'timeNs'>): void;
}

/** The fleet, for whoever looks: `docker node`. What changes it is the operator's. */
export interface NodeVerbs {
  /** `id`, `name` (both by prefix), `label`, `node.label`, `role`, `membership`. */
  list(caller: Caller, filters: Filters): Promise<Node[]>;
  /** By id, name or unique id prefix. */
  get(caller: Caller, idOrName: string): Promise<Node>;
}

export interface SystemFacts {
  id: string;
  name: string;
  nodes: Node[];
  containers: Record<'running' | 'paused' | 'stopped' | 'total', number>;
  images: number;
  totalMemoryBytes: number;
  totalCpus: number;
  /** Of the store, for `docker info`. */
  postgresVersion: string;
}
export interface SystemVerbs {
  info(caller: Caller): Promise<SystemFacts>;
  diskUsage(caller: Caller): Promise<{images: ListedImage[]; containers: {container: Container; sizeRw: number}[]; volumes: {volume: Volume; size: number; refCount: number}[]; layersSize: number}>;
  /** Are the store and at least one node there? Throws `unavailable`. */
  ping(): Promise<void>;
}

/** What went with a node that was removed. */
export interface RemovedNode {
  id: string;
  name: string;
  containers: {id: string; account: string; name: string; status: ContainerStatus}[];
  volumes: {account: string; name: string}[];
}
/** What operators decide about nodes (members.ts). */
export interface MemberVerbs {
  label(nodeIdOrName: string, change: {add?: Record<string, string>; remove?: string[]}): Promise<Node>;
  cordon(nodeIdOrName: string, reason: string): Promise<Node>;
  uncordon(nodeIdOrName: string): Promise<Node>;
  drain(nodeIdOrName: string, reason: string): Promise<Node>;
  /** `conflict`: it lives, or holds what would be lost, and not by force. Repeatable until it is gone. */
  remove(nodeIdOrName: string, force: boolean): Promise<RemovedNode>;
  createToken(request: {ttlSeconds?: number; labels?: Record<string, string>}): Promise<{token: string; url: string} & TokenView>;
  tokens(): Promise<TokenView[]>;
  removeToken(id: string): Promise<{id: string}>;
  certificates(nodeId: string): Promise<{serial: string; notAfter: string}[]>;
  running(nodeId: string): Promise<number>;
}
export interface NodeDetail {
  node: Node;
  reserved: import('../schema/container').Reservation;
  containers: number;
  running: number;
  /** Of Cetus' own authority; the newest last. */
  certificates: {serial: string; notAfter: string}[];
  /** What stays on a node that is drained, and why; at most so many as are worth telling. Empty where it is not drained. */
  staying: Staying[];
}

/** What operators may ask; lib/admin is their only caller. Not bound to an account. */
export interface OperatorVerbs {
  nodes(): Promise<Node[]>;
  node(idOrName: string): Promise<NodeDetail>;
  members: MemberVerbs;
  /** What really exists on the node: for leak checks and drift. */
  inventory(nodeIdOrName: string): Promise<Inventory>;
  containers(query: {account?: string; node?: string; status?: ContainerStatus; limit?: number}): Promise<SeenContainer[]>;
  container(nameOrId: string, account?: string): Promise<SeenContainer>;
  /** Of all accounts, by account and name, with the node that has it. */
  volumes(query: {account?: string; node?: string; limit?: number}): Promise<PlacedVolume[]>;
  /** What each endpoint says of its published ports. */
  ingresses(): Promise<IngressRow[]>;
  jobs(query: {execution?: string; target?: string; workflow?: string; limit?: number}): Promise<Job[]>;
  job(id: string): Promise<Job>;
  cancelJob(id: string): Promise<Job>;
  retryJob(id: string): Promise<Job>;
  /** The placement of a container and the job that made it; or, for a refused create, the failed job. */
  why(containerNameOrId: string): Promise<{container: SeenContainer | null; job: Job | null}>;
  buckets(): Promise<{name: string; version: number; objects: number}[]>;
  objects(bucket: string, filter: string, query: {limit?: number; offset?: number; sort?: string}): Promise<import('../moray/moray').Stored<unknown>[]>;
  object(bucket: string, key: string): Promise<import('../moray/moray').Stored<unknown>>;
}

/** A host port that a container holds, as an endpoint wants it. */
export interface Publication {
  protocol: 'tcp' | 'udp';
  /** '' or 0.0.0.0: every address. */
  hostIp: string;
  hostPort: number;
  account: string;
  containerId: string;
  containerPort: number;
  nodeId: string;
  /** The node opens nothing for it. */
  atEndpoints: boolean;
  proxyProtocol?: ProxyProtocol;
}
export interface PublicationListener {
  /** `key` is of the row: one port may have two rows for a moment, the former holder's and the next one's. */
  put(key: string, publication: Publication): void;
  drop(key: string): void;
}
/** Published ports, for lib/ingress. Not bound to an account: the ports of an endpoint are everybody's. */
export interface PublicationVerbs {
  /** Resolves once everything there was has been given; changes follow until the signal is aborted. A broken feed is opened again by itself, and what was missed is given then. */
  follow(listener: PublicationListener, signal: AbortSignal): Promise<void>;
  /** Where the node is reached from here; undefined: it is on this very machine. `notFound`. */
  addressOf(nodeId: string): Promise<string | undefined>;
  /** By the node's agent, for what the node opens to nobody. Half-open; of udp lib/base/datagrams.ts's frames. */
  dial(publication: Publication): Promise<Duplex>;
  /** What this endpoint says of its ports; undefined: it ends. */
  announce(endpoint: string, row: IngressRow | undefined): Promise<void>;
}

export interface Datacenter {
  containers: ContainerVerbs;
  execs: ExecVerbs;
  images: ImageVerbs;
  builds: BuildVerbs;
  networks: NetworkVerbs;
  volumes: VolumeVerbs;
  events: EventVerbs;
  nodes: NodeVerbs;
  publications: PublicationVerbs;
  system: SystemVerbs;
  operator: OperatorVerbs;
}
