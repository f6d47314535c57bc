/**
 * The agent's protocol: HTTP/1.1 over a unix socket (one machine) or mutual TLS (a fleet). Version 1.
 *
 * Control plane -> agent
 *   POST /v1/tasks                      Task -> TaskAnswer; idempotent per (jobId, step): a repeated task gets the first answer
 *   GET  /v1/info                       -> NodeFacts
 *   GET  /v1/inventory                  -> Inventory (what really exists on the node; for recovery and leak checks)
 *   GET  /v1/containers/ID              -> ContainerObservation (live)
 *   POST /v1/containers/ID/attach       AttachQuery; Upgrade: cetus-stream -> 101, then stdin one way and frames the other
 *   GET  /v1/containers/ID/logs         LogsQuery -> frames (application/octet-stream), chunked, until the end or for ever with follow
 *   GET  /v1/containers/ID/top          ?args= -> {Titles, Processes}
 *   GET  /v1/containers/ID/stats        ?stream=&oneShot= -> NDJSON of the Engine's stats objects, a line each
 *   GET  /v1/containers/ID/changes      -> [{Path, Kind}]
 *   GET  /v1/containers/ID/usage        -> {sizeRw}: bytes of the writable layer (runtime.usage)
 *   GET  /v1/containers/ID/export       -> tar
 *   HEAD|GET|PUT /v1/containers/ID/archive  ?path=&noOverwriteDirNonDir=&copyUIDGID=; stat in X-Docker-Container-Path-Stat
 *   POST /v1/containers/ID/archive      as PUT; Upgrade: cetus-stream -> 101, then a plain tar to the end of the caller's bytes one way, and `{}` or a WireError as
 *                                       a line the other: the agent's worker reads the connection itself where that is a unix socket.
 *                                       X-Cetus-Loan: a LoanOffer as JSON -> before the answer a line {"taken": true | false}. After true the caller sends
 *                                       LOAN_GOOD and the bytes `before` the rest, and the worker reads the rest from the lent connection; after false, as without
 *   POST /v1/containers/ID/resize       ?h=&w=
 *   GET  /v1/volumes/ID/usage           -> {size}: bytes of the volume's files; -1 where counting them took too long; 404 where there is no such volume
 *   PUT  /v1/execs/ID                   {containerId, config: ExecConfig} -> 201; repeatable; 409 while the container does not run
 *   POST /v1/execs/ID/start             ExecStartQuery; Upgrade: cetus-stream -> 101 then as attach; without Upgrade (detached) -> 204
 *   GET  /v1/execs/ID                   -> ExecObservation
 *   POST /v1/execs/ID/resize            ?h=&w=
 *   POST /v1/images/pull                PullRequest; registry credentials in X-Registry-Auth -> NDJSON of PullLine, the last one {result}
 *   POST /v1/images/load                ?account=&platform=; tar (plain, gzip, zstd) -> NDJSON of LoadLine, the last one {result}
 *   POST /v1/images/import              ImportRequest as one line of JSON, then the tar (plain, gzip, bzip2, xz, zstd) unless it names a URL -> NDJSON of ImportLine, the last one {result}
 *   POST /v1/images/save                SaveRequest -> tar
 *   POST /v1/images/ensure              EnsureRequest; registry credentials in X-Registry-Auth -> NDJSON of EnsureLine, the last one {result}: this very image is the
 *                                       account's on this node, its blobs from peers and only what no peer gives from the registry
 *   GET  /v1/images                     -> NodeImages: what the node keeps for whom, and how full the disk is that it lies on
 *   POST /v1/registry                   RegistryQuestion; registry credentials in X-Registry-Auth -> its answer (RegistryAnswers)
 *   POST /v1/images/push                PushRequest; registry credentials in X-Registry-Auth -> NDJSON of PushLine, the last one {result}
 *   POST /v1/builds/prepare             BuildPrepare -> {hold}: the account's build engine runs and has these images; the hold ends with release, or
 *                                       a minute after its last stream
 *   POST /v1/builds/call                ?hold=&method=&path=; X-Registry-Config and the body are the engine's -> its answer's body as it comes; its
 *                                       refusal as a WireError
 *   POST /v1/builds/stream              ?hold=&path=; X-Docker-Expose-Session-* are the engine's; Upgrade: cetus-stream -> 101, then HTTP/2 as with the engine
 *   POST /v1/builds/built               {hold, imageIds} -> BuiltNames[]: these, and what else got a name since prepare
 *   POST /v1/builds/take                {hold, images: BuiltNames[]} -> NDJSON of LoadLine, the last one {result}
 *   POST /v1/builds/release             ?hold=
 *   GET  /v1/builds/usage               ?account= -> {BuildCache, BuilderSize} as the engine's
 *
 * Frames: with a terminal the bytes as they are; without one, Docker's multiplexed format: [stream 1|2, 0,0,0, length as u32 BE][bytes].
 * The agent makes the frames, so that an endpoint passes bytes on without looking at them.
 * Half-close: the end of the caller's bytes is the end of stdin; output continues.
 *
 * Queries: names as in the *Query types below; booleans 1 or 0, numbers decimal, consoleSize "HEIGHT,WIDTH" (absent for null), '' may be left out.
 * NDJSON streams that fail after their first line end with a line {"failure": WireError}; one that ends with neither result nor failure was cut off.
 *
 * Errors: a WireError as JSON; the status is statusOf(kind). Headers: X-Request-Id on all; X-Cetus-Epoch on tasks.
 * An answer to HEAD has no body: its error travels in X-Cetus-Error, base64 of the WireError's JSON.
 *
 * Node -> node (certificates of role node; the control plane may too), never an order
 *   HEAD|GET /v1/blobs/DIGEST           Range, If-Range -> the bytes, ETag "DIGEST". 404: it is not here. 503: too many are being served, for ?wait=SECONDS (0) already; or,
 *                                       with ?coming=1, it is on its way here and has not come in that time. Whoever takes checks the digest
 *
 * Agent -> control plane (fleet's listener)
 *   POST /v1/enroll                     EnrollRequest -> CertificateAnswer; the only call without a certificate (lib/schema/authority.ts)
 *   POST /v1/renew                      RenewRequest -> CertificateAnswer
 *   POST /v1/join                       NodeFacts -> {nodeId}
 *   POST /v1/heartbeat                  Heartbeat -> HeartbeatAnswer; `notFound`: join (again); `stale` with info.fenced: this life is over, stop what is marked, join as the next
 *   POST /v1/assignments                AssignmentQuestion -> AssignmentAnswer: asked once in each life, after the join and before anything that is marked is started
 *   POST /v1/docker                     Upgrade: cetus-docker, X-Cetus-Container: ID -> 101, then the Docker API as the account that has the container
 *   POST /v1/reports                    ReportBatch -> {ackedSeq}: the agent forgets reports up to it, never before
 */
import type {WireError} from '../base/errors';
import {type Framing, isFraming} from '../base/framing';
import type {RevokedSerials} from './authority';
import type {ContainerObservation, ContainerSpec, NetworkAttachment, PublishedPort, ResolvedLink} from './container';
import type {Config, Descriptor, ExecConfig, ImageConfigFile, ProgressMessage, Resources, RestartPolicy} from './docker';
import type {Network} from './objects';

/** What a node must know of a network to carry it. */
export interface NodeNetwork {
  id: string;
  account: string;
  name: string;
  bridgeName: string;
  subnet: string;
  gateway: string;
  internal: boolean;
  /** com.docker.network.* options that the node honours. */
  options: Record<string, string>;
  /** Of its segment across nodes. Absent: the network ends at the node. */
  vni?: number;
}

export function nodeNetwork(network: Network): NodeNetwork {
  const {id, account, name, bridgeName, subnet, gateway, internal, options, vni} = network;
  return {id, account, name, bridgeName, subnet, gateway, internal, options, ...(vni === undefined ? {} : {vni})};
}

/**
 * Where the addresses of one network are, for the nodes that carry it. Rows are merged, never taken as they come: of what is said of an address the
 * higher version is true, whoever said it and in whatever order it arrives. Versions are the store's etags, one sequence for all, in decimal.
 */
export interface NetworkTable {
  rows: TableRow[];
  /** Addresses that nobody holds since that version. */
  gone: {address: string; version: string}[];
  /** All nodes that are named in rows and have an underlay. Of two the higher generation is true; one without an entry cannot be reached. */
  nodes: TableNode[];
  /** The rows are all there are: what is not among them, and not newer than this version, is over. Absent: only changes. */
  asOf?: string;
}
/** An address that a container holds. Those of the receiving node itself are among them. */
export interface TableRow {
  address: string;
  mac: string;
  containerId: string;
  nodeId: string;
  /** Names by which others on the network may call it; the first is its own. Empty where the network knows no names. */
  aliases: string[];
  version: string;
}
/** `generation`: the node's bootGeneration when it said so. `port` absent: UNDERLAY_PORT. */
export interface TableNode { nodeId: string; address: string; port?: number; generation: number }

export type TaskBody =
  | {kind: 'container.create'; spec: ContainerSpec; volumes: {id: string; name: string; account: string; options: Record<string, string>; within?: string}[]; /** see Container.reschedule */ reschedule?: boolean}
  /** Networks are made on the node where they are missing. Attachments and ports are held by the caller. */
  | {kind: 'container.start'; containerId: string; networks: NodeNetwork[]; attachments: NetworkAttachment[]; ports: PublishedPort[]; links?: ResolvedLink[]; reschedule?: boolean}
  /** `timeoutSeconds` null: the container's own StopTimeout, else 10; -1: wait for ever. Stopping a stopped one is a success. */
  | {kind: 'container.stop'; containerId: string; timeoutSeconds: number | null; signal: string | null}
  | {kind: 'container.kill'; containerId: string; signal: string}
  | {kind: 'container.pause'; containerId: string}
  | {kind: 'container.unpause'; containerId: string}
  | {kind: 'container.update'; containerId: string; resources: Resources; restartPolicy: RestartPolicy | null; /** absent: as it is */ reschedule?: boolean}
  | {kind: 'container.rename'; containerId: string; name: string}
  /** Removing one that is not there is a success. `force` kills first. */
  | {kind: 'container.remove'; containerId: string; force: boolean}
  | {kind: 'network.ensure'; network: NodeNetwork}
  | {kind: 'network.remove'; networkId: string}
  /** Who is where on this network, from whoever at the control plane saw it change: merged into what the node knows. */
  | {kind: 'network.table'; network: NodeNetwork; table: NetworkTable}
  | {kind: 'network.connect'; containerId: string; network: NodeNetwork; attachment: NetworkAttachment}
  | {kind: 'network.disconnect'; containerId: string; networkId: string}
  /** `within`: where the options bind a directory of the node, the allowed one that it is below by its name. */
  | {kind: 'volume.ensure'; volumeId: string; name: string; account: string; options: Record<string, string>; within?: string}
  | {kind: 'volume.remove'; volumeId: string}
  | {kind: 'image.remove'; imageId: string; account: string}
  /** An image of the container's files as they are; `pause` freezes what runs meanwhile. `created` is the image's, so that a repetition makes the same. */
  | {kind: 'image.commit'; containerId: string; account: string; created: string; pause: boolean; author: string; comment: string; config: Config; containerConfig: Config};

export type TaskKind = TaskBody['kind'];

/** `epoch` is the job's lease epoch: the agent refuses (`stale`) one lower than the highest it has seen for the job. */
export interface Task { jobId: string; step: string; epoch: number; requestId: string; body: TaskBody }

/**
 * container.* tasks but remove answer with what is true afterwards. A start that fails (command missing, not executable, port taken)
 * answers an error whose info.observation is the ContainerObservation that is true afterwards.
 */
export interface TaskOutput {
  observation?: ContainerObservation;
  /** volume.ensure */
  mountpoint?: string;
  /** image.commit; the observation is the container's when it runs again. */
  image?: NodeImage;
}
export type TaskAnswer = {ok: true; output: TaskOutput} | {ok: false; error: WireError};

export interface AttachQuery {
  stdin: boolean;
  stdout: boolean;
  stderr: boolean;
  /** Replay the log first. */
  logs: boolean;
  /** Then follow. */
  stream: boolean;
  /** '' = the default, ctrl-p,ctrl-q. */
  detachKeys: string;
}
export interface LogsQuery {
  stdout: boolean;
  stderr: boolean;
  follow: boolean;
  timestamps: boolean;
  details: boolean;
  /** Nanoseconds since the epoch, decimal; '' = no bound. */
  sinceNs: string;
  untilNs: string;
  /** Lines, or -1 for all. */
  tail: number;
}
export interface ExecStartQuery {
  detachKeys: string;
  /** [height, width] of the terminal at start. */
  consoleSize: [number, number] | null;
  detach: boolean;
}

export interface ExecObservation {
  id: string;
  containerId: string;
  running: boolean;
  /** null until it has ended. */
  exitCode: number | null;
  /** 0 where nothing runs. */
  pid: number;
  config: ExecConfig;
  /** It has ended. */
  canRemove: boolean;
}

/** A node, and where its agent serves blobs (NodeFacts.agentUrl). */
export interface Peer { nodeId: string; url: string }
/** Why a node was given up as a source of blobs. `lied`: its bytes have another digest, or are more than there are. `busy`: it serves as many as it can. */
export interface PeerComplaint { nodeId: string; digest: string; kind: 'unreachable' | 'lacks' | 'busy' | 'broke' | 'stalled' | 'lied'; reason: string }
/** Bytes of blobs that came from where; what was here already is in neither. */
export interface TakenBytes { peers: number; registry: number }

export interface PullRequest {
  account: string;
  /** Normalised, with registry: "docker.io/library/busybox:latest" or "...@sha256:...". */
  reference: string;
  /** "linux/amd64[/variant]"; undefined = the node's own. */
  platform?: string;
  /** Asked for blobs before the registry is, in this order; the manifest is the registry's to tell. Absent: nobody. */
  peers?: Peer[];
}
export interface EnsureRequest {
  account: string;
  imageId: string;
  /** Of this very manifest: an image id may have several. */
  manifest: Descriptor;
  /** Who has it, or is getting it. Asked in this order. */
  peers: Peer[];
  /** Normalised, with a digest: where a registry has it (Image.repoDigests). Absent: nowhere but at the peers. */
  reference?: string;
}
/** `complaints` are for people (a node that lies has a broken disk, or is not ours): nothing of theirs came into the image. */
export interface EnsureResult { image: NodeImage; upToDate: boolean; taken: TakenBytes; complaints: PeerComplaint[] }
export type EnsureLine = ProgressMessage | {result: EnsureResult};
export interface NodeImages {
  /** Who holds what: one entry per account, image and manifest. */
  images: {account: string; imageId: string; manifestDigest: string}[];
  /** Of the file system that images lie on; 0 of 0 where it cannot be looked at. */
  disk: {totalBytes: number; freeBytes: number};
}
/** An image as a node has it: everything moray needs for its Image object. */
export interface NodeImage {
  imageId: string;
  manifest: Descriptor;
  /** The digest that the reference resolved to (an index's, where there was one): what RepoDigests shows. */
  resolvedDigest: string;
  config: ImageConfigFile;
  layers: {digest: string; mediaType: string; size: number; diffId: string; unpackedSize: number}[];
  /** Bytes of the unpacked layers. */
  size: number;
  /** References named by the archive (load), normalised; empty for pull. */
  references: string[];
}
export type PullLine = ProgressMessage | {result: {image: NodeImage; upToDate: boolean; /** absent where nobody was asked */ taken?: TakenBytes; complaints?: PeerComplaint[]}};
export type LoadLine = ProgressMessage | {result: {images: NodeImage[]}};
export interface PushRequest {
  imageId: string;
  manifest: Descriptor;
  /** Normalised, with a tag. */
  reference: string;
  /** By diff id: repositories of the same registry that may have the layer. Asked in this order. */
  sources: Record<string, string[]>;
}
/** The manifest as the registry has it now. */
export interface PushResult { digest: string; size: number; mediaType: string }
export type PushLine = ProgressMessage | {result: PushResult};
export interface ImportRequest {
  account: string;
  created: string;
  message: string;
  config: Config;
  /** "linux/amd64[/variant]"; undefined = the node's own. */
  platform?: string;
  /** Where the archive is, if it does not follow. May hold a password: never stored or logged. */
  url?: string;
}
export type ImportLine = ProgressMessage | {result: {image: NodeImage}};
/** Asked of a registry by a node, because nodes are who reach registries. `server` as people name it; '' is Docker Hub. */
export type RegistryQuestion = {kind: 'login'; server: string} | {kind: 'inspect'; reference: string} | {kind: 'tags'; reference: string} | {kind: 'search'; term: string; limit: number};
export interface SearchResult { name: string; description: string; isOfficial: boolean; stars: number }
export interface RegistryAnswers {
  /** What may stand for the password from now on; '' where the registry gives nothing. */
  login: {identityToken: string};
  inspect: {descriptor: Descriptor; platforms: NonNullable<Descriptor['platform']>[]};
  /** Of the repository that the reference names. */
  tags: {tags: string[]};
  search: {results: SearchResult[]};
}
/** What to write for each image: names for manifest.json and repositories. */
export interface SaveRequest { images: {imageId: string; manifest: Descriptor; references: string[]}[] }

/** What a build may stand on, and where its steps' network is. */
export interface BuildPrepare {
  account: string;
  network: NodeNetwork;
  /** Whether steps may use the node's own network. */
  hostNetwork: boolean;
  images: {imageId: string; manifest: Descriptor; /** normalised */ references: string[]}[];
}
/** An image of the build engine, with the names that it has there. */
export interface BuiltNames { imageId: string; references: string[]; repoDigests: string[] }

export interface Inventory {
  containers: {id: string; observation: ContainerObservation}[];
  /** Snapshot keys, network namespaces, bridges, nftables chains, FIFO paths, mounts: whatever must not leak, by kind. */
  snapshots: string[];
  namespaces: string[];
  bridges: string[];
  publishedPorts: PublishedPort[];
  volumes: string[];
  images: string[];
  execs: string[];
  /** Of those above the ones that are there by name only. Agents of earlier versions did not look. */
  lacking?: {volumes: string[]; images: string[]};
}

/** The event that the Engine would emit for this transition. `comeback` is none: it asks for a start (ContainerObservation.wantsStart). */
export type ReportAction = 'comeback' | 'start' | 'die' | 'restart' | 'stop' | 'kill' | 'pause' | 'unpause' | 'oom' | 'health_status' | 'update';

/**
 * Reports are the only source of the events of their actions: each report makes its event once (by `seq`), also where a task's answer
 * brought the same observation earlier. The chains make the events that no agent sees (create, destroy, rename, connect, ...).
 */
export type Report = {
  /** Rises by one per report of this node, for ever. */
  seq: number;
  /** RFC 3339 with nanoseconds: when it happened, not when it was sent. */
  at: string;
} & (
  | {kind: 'container'; action: ReportAction; attributes: Record<string, string>; observation: ContainerObservation}
  | {kind: 'exec'; execId: string; containerId: string; exitCode: number}
);

export interface Heartbeat {
  nodeId: string;
  bootGeneration: number;
  /** The highest seq in the ledger. */
  reportSeq: number;
  runningContainers: number;
  /** RevokedSerials.version that the agent has. Absent: it wants none. */
  revokedVersion?: string;
}
export interface HeartbeatAnswer {
  /** The next one is due within a third of this. */
  leaseMs: number;
  /**
   * So long after the node SENT this heartbeat, by its own clock, what is marked for rescheduling may run without another answer; then it must be stopped, for it
   * may be started elsewhere. Absent: nobody fences this node.
   */
  fenceAfterMs?: number;
  /** Where the agent has another version of it. */
  revoked?: RevokedSerials;
}
/** All containers that the node has. */
export interface AssignmentQuestion { nodeId: string; bootGeneration: number; containers: string[] }
/** `moved`: assigned to another node by now, and to be removed here. Of one that is in neither list the store knows nothing; it stays as it is, and is not started. */
export interface AssignmentAnswer { own: string[]; moved: string[] }
export interface ReportBatch { nodeId: string; bootGeneration: number; reports: Report[] }

export const LOAN_HEADER = 'x-cetus-loan';
/** With a task: the boot generation of the node for which it is meant. Endpoints of earlier versions do not say it. */
export const LIFE_HEADER = 'x-cetus-life';
/** What says that the lent descriptor is still what it was when it was offered. */
export const LOAN_GOOD = Buffer.from('\n');

/** A body's rest on a connection of the caller's process, which reads nothing from it meanwhile. `before`: how many bytes of the body the caller has read already. */
export interface LoanOffer { descriptor: number; before: number; framing: Framing; silenceMs: number }

/** undefined where there is none, or none that can be understood: then the bytes come as without. */
export function loanOffer(header: string | string[] | undefined): LoanOffer | undefined {
  if (typeof header !== 'string') return undefined;
  try {
    const {descriptor, before, framing, silenceMs} = JSON.parse(header) as Record<string, unknown>;
    return isCount(descriptor) && isCount(before) && isCount(silenceMs) && isFraming(framing) ? {descriptor, before, framing, silenceMs} : undefined;
  } catch {
    return undefined;
  }
}

const isCount = (given: unknown): given is number => Number.isSafeInteger(given) && (given as number) >= 0;
