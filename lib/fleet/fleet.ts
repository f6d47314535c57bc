/** The control plane's side of nodes: who they are, whether they live, and a client to the agent on each. */
import type {Duplex, Readable} from 'node:stream';
import type {AttachQuery, BuildPrepare, BuiltNames, EnsureLine, EnsureRequest, ExecObservation, ExecStartQuery, ImportLine, ImportRequest, Inventory, LoadLine, LogsQuery, NodeImages, NodeNetwork, PullLine, PullRequest, PushLine, PushRequest, RegistryAnswers, RegistryQuestion, SaveRequest, Task, TaskOutput} from '../schema/agent';
import type {ContainerObservation} from '../schema/container';
import type {ExecConfig, RegistryAuth} from '../schema/docker';
import type {TokenView} from './authority/tokens';
import type {Node, NodeFacts} from '../schema/node';

/** Errors arrive as the agent's own CetusErrors; a node that cannot be reached is `unavailable`, a late answer `timeout`. */
export interface AgentClient {
  task(task: Task, options?: {deadlineMs?: number; signal?: AbortSignal}): Promise<TaskOutput>;
  info(): Promise<NodeFacts>;
  inventory(): Promise<Inventory>;
  observe(containerId: string): Promise<ContainerObservation>;
  /** A raw duplex: allowHalfOpen; end() is the end of stdin; bytes are the agent's frames. */
  attach(containerId: string, query: AttachQuery): Promise<Duplex>;
  /** A connection to a port of the container, half-open both ways; of udp lib/base/datagrams.ts's frames. `unavailable`: nobody answers there. */
  dial(containerId: string, protocol: 'tcp' | 'udp', port: number): Promise<Duplex>;
  logs(containerId: string, query: LogsQuery, signal?: AbortSignal): Promise<Readable>;
  top(containerId: string, psArgs: string): Promise<{Titles: string[]; Processes: string[][]}>;
  stats(containerId: string, query: {stream: boolean; oneShot: boolean}, signal?: AbortSignal): Promise<Readable>;
  changes(containerId: string): Promise<{Path: string; Kind: number}[]>;
  /** Bytes of the container's writable layer. */
  usage(containerId: string): Promise<{sizeRw: number}>;
  /** Bytes of the volume's files; -1 where counting them would take too long. */
  volumeUsage(volumeId: string): Promise<{size: number}>;
  export(containerId: string): Promise<Readable>;
  statPath(containerId: string, path: string): Promise<string>;
  getArchive(containerId: string, path: string): Promise<{stat: string; body: Readable}>;
  putArchive(containerId: string, query: {path: string; noOverwriteDirNonDir: boolean; copyUIDGID: boolean}, body: Readable): Promise<void>;
  resize(containerId: string, height: number, width: number): Promise<void>;
  putExec(execId: string, containerId: string, config: ExecConfig): Promise<void>;
  /** Resolves to a duplex, or to null where `detach`. */
  startExec(execId: string, query: ExecStartQuery): Promise<Duplex | null>;
  observeExec(execId: string): Promise<ExecObservation>;
  resizeExec(execId: string, height: number, width: number): Promise<void>;
  pull(request: PullRequest, auth: RegistryAuth | undefined, signal?: AbortSignal): AsyncIterable<PullLine>;
  /** An image that other nodes have, on this one too. */
  ensure(request: EnsureRequest, auth: RegistryAuth | undefined, signal?: AbortSignal): AsyncIterable<EnsureLine>;
  /** What the node keeps for whom. */
  heldImages(): Promise<NodeImages>;
  /** `account` holds the images against the node's collector until remove; default: the default account. */
  load(archive: Readable, signal?: AbortSignal, account?: string, platform?: string): AsyncIterable<LoadLine>;
  askRegistry<Q extends RegistryQuestion>(question: Q, auth: RegistryAuth | undefined, signal?: AbortSignal): Promise<RegistryAnswers[Q['kind']]>;
  /** `archive` where the request names no URL. */
  import(request: ImportRequest, archive: Readable | undefined, signal?: AbortSignal): AsyncIterable<ImportLine>;
  push(request: PushRequest, auth: RegistryAuth | undefined, signal?: AbortSignal): AsyncIterable<PushLine>;
  save(request: SaveRequest, signal?: AbortSignal): Promise<Readable>;
  readonly builds: AgentBuilds;
}

/** Builds of one account, by an engine of its own on the node. What is done under a hold sees the images that were named when it was given. */
export interface AgentBuilds {
  prepare(request: BuildPrepare): Promise<string>;
  /** The engine's answer as it comes; its refusals are errors with its own words. */
  call(hold: string, method: string, path: string, body: Readable | undefined, headers: Record<string, string>, signal?: AbortSignal): Promise<Readable>;
  /** `/session` or `/grpc`: HTTP/2 follows. */
  open(hold: string, path: string, headers: Record<string, string | string[]>): Promise<Duplex>;
  built(hold: string, imageIds: string[]): Promise<BuiltNames[]>;
  take(hold: string, images: BuiltNames[], signal?: AbortSignal): AsyncIterable<LoadLine>;
  release(hold: string): Promise<void>;
  usage(account: string): Promise<{BuildCache: unknown[]; BuilderSize: number}>;
}

/** Where the containers of networks are, for the nodes that carry them. */
export interface NetworkTables {
  /** Two nodes or more have an underlay: networks reach across. */
  readonly active: boolean;
  /** Resolves when the node knows who is on these networks as of now, and where; at once where it has nobody to know of. `timeout`, `unavailable`: it could not be told. */
  prepare(nodeId: string, networks: NodeNetwork[]): Promise<void>;
  /** Who has the addresses of the network, by address, as far as this process has heard; undefined where it hears nothing. Not to be kept. */
  held(networkId: string): ReadonlyMap<string, {containerId: string}> | undefined;
}

/** Join tokens of the authority; `url` is where a machine joins. */
export interface FleetTokens {
  readonly url: string;
  create(request: {ttlMs?: number; labels?: Record<string, string>}): Promise<{token: string} & TokenView>;
  list(): Promise<TokenView[]>;
  remove(id: string): Promise<void>;
}

export interface Fleet {
  /** Absent on one machine, and where certificates come from files. */
  readonly tokens?: FleetTokens;
  /** By node id or name; `notFound` where there is none. */
  node(idOrName: string): Promise<Node>;
  nodes(): Promise<Node[]>;
  /** `unavailable` for a node that is not alive. */
  agent(nodeId: string): Promise<AgentClient>;
  /** Those that are lost or fenced, by id, as this process knows. Absent: none ever is. */
  readonly away?: ReadonlyMap<string, Node>;
  /** Told of each change of a node's liveness that this process hears of; returns how to stop listening. */
  onLiveness?(listener: (node: Node) => void): () => void;
  /** Absent: networks end at their nodes. */
  readonly tables?: NetworkTables;
}
