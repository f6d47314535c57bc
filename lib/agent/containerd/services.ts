/**
 * The calls of containerd that Cetus makes, as promises: one interface per service, the deadlines of the slow ones. connect.ts makes the functions
 * from the definitions in proto/.
 */
import type * as m from './messages';

export interface CallOptions {
  /** Default: the method's own deadline (10 s; more for those that unpack or wait). Infinity: none. */
  deadlineMs?: number;
  signal?: AbortSignal;
  /** Lease under which objects made by this call are kept, overriding the client's. */
  lease?: string;
}

type Call<Req, Res> = (request: Req, options?: CallOptions) => Promise<Res>;
/** Iterating pulls: the server is held back while the caller is slow. Leaving the loop cancels the call. */
type Stream<Req, Res> = (request: Req, options?: CallOptions) => AsyncIterable<Res>;
type Empty = Record<string, never>;

export interface Containers {
  get: Call<{id: string}, {container: m.Container}>;
  create: Call<{container: m.Container}, {container: m.Container}>;
  update: Call<{container: m.Container; updateMask: m.FieldMask}, {container: m.Container}>;
  delete: Call<{id: string}, Empty>;
}
export interface ProcessKey { containerId: string; execId?: string }
export interface Tasks {
  create: Call<{containerId: string; rootfs: m.Mount[]; stdin?: string; stdout?: string; stderr?: string; terminal?: boolean; options?: m.Any}, {containerId: string; pid: number}>;
  start: Call<ProcessKey, {pid: number}>;
  delete: Call<{containerId: string}, m.Exit & {id: string; pid: number}>;
  deleteProcess: Call<Required<ProcessKey>, m.Exit & {id: string; pid: number}>;
  get: Call<ProcessKey, {process: m.Process}>;
  list: Call<{filter?: string}, {tasks: m.Process[]}>;
  kill: Call<ProcessKey & {signal: number; all?: boolean}, Empty>;
  exec: Call<{containerId: string; execId: string; stdin?: string; stdout?: string; stderr?: string; terminal?: boolean; spec: m.Any}, Empty>;
  resizePty: Call<ProcessKey & {width: number; height: number}, Empty>;
  closeIo: Call<ProcessKey & {stdin: boolean}, Empty>;
  pause: Call<{containerId: string}, Empty>;
  resume: Call<{containerId: string}, Empty>;
  listPids: Call<{containerId: string}, {processes: {pid: number; info: m.Any | null}[]}>;
  update: Call<{containerId: string; resources: m.Any}, Empty>;
  wait: Call<ProcessKey, m.Exit>;
}
export interface Snapshots {
  prepare: Call<m.SnapshotKey & {parent: string; labels?: m.Labels}, {mounts: m.Mount[]}>;
  view: Call<m.SnapshotKey & {parent: string; labels?: m.Labels}, {mounts: m.Mount[]}>;
  mounts: Call<m.SnapshotKey, {mounts: m.Mount[]}>;
  commit: Call<m.SnapshotKey & {name: string; labels?: m.Labels}, Empty>;
  remove: Call<m.SnapshotKey, Empty>;
  stat: Call<m.SnapshotKey, {info: m.SnapshotInfo}>;
  list: Stream<{snapshotter: string; filters?: string[]}, {info: m.SnapshotInfo[]}>;
  usage: Call<m.SnapshotKey, {size: number; inodes: number}>;
}
/** One write of a blob. Answers come in the order of requests; a refused request ends the write with its error. */
export interface ContentWrite {
  /** Sends one request and waits for its answer. At most a few MiB of data per request: containerd refuses messages above 16 MiB. */
  send(request: m.WriteContentRequest): Promise<m.WriteContentResponse>;
  /** Ends the stream; what was written stays as an unfinished ingest that a later write of the same ref resumes. Resolves when containerd has let go of it. */
  close(): Promise<void>;
}
export interface Content {
  info: Call<{digest: string}, {info: m.ContentInfo}>;
  update: Call<{info: {digest: string; labels: m.Labels}; updateMask: m.FieldMask}, {info: m.ContentInfo}>;
  list: Stream<{filters?: string[]}, {info: m.ContentInfo[]}>;
  read: Stream<{digest: string; offset?: number; size?: number}, {offset: number; data: Buffer}>;
  listStatuses: Call<{filters?: string[]}, {statuses: m.IngestStatus[]}>;
  write(options?: CallOptions): ContentWrite;
  abort: Call<{ref: string}, Empty>;
}
export interface Diff {
  apply: Call<{diff: m.Descriptor; mounts: m.Mount[]}, {applied: m.Descriptor}>;
  diff: Call<{left: m.Mount[]; right: m.Mount[]; mediaType: string}, {diff: m.Descriptor}>;
}
export interface Images {
  list: Call<{filters?: string[]}, {images: m.Image[]}>;
  create: Call<{image: m.Image}, {image: m.Image}>;
  delete: Call<{name: string; sync?: boolean}, Empty>;
}
export interface Leases {
  create: Call<{id: string; labels?: m.Labels}, {lease: m.Lease}>;
  delete: Call<{id: string; sync?: boolean}, Empty>;
  list: Call<{filters?: string[]}, {leases: m.Lease[]}>;
  addResource: Call<{id: string; resource: m.Resource}, Empty>;
  deleteResource: Call<{id: string; resource: m.Resource}, Empty>;
  listResources: Call<{id: string}, {resources: m.Resource[]}>;
}
export interface Namespaces {
  create: Call<{namespace: m.Namespace}, {namespace: m.Namespace}>;
  delete: Call<{name: string}, Empty>;
}
export interface Events {
  publish: Call<{topic: string; event: m.Any}, Empty>;
  subscribe: Stream<{filters?: string[]}, m.Envelope>;
}
export interface Version { version: Call<Empty, {version: string; revision: string}> }
export interface Introspection { plugins: Call<{filters?: string[]}, {plugins: m.Plugin[]}> }

export interface Services {
  containers: Containers;
  tasks: Tasks;
  snapshots: Snapshots;
  content: Content;
  diff: Diff;
  images: Images;
  leases: Leases;
  namespaces: Namespaces;
  events: Events;
  version: Version;
  introspection: Introspection;
}

/** Where a service is found in the definitions. */
export const SERVICE_NAMES: Record<keyof Services, string> = {
  containers: 'containerd.services.containers.v1.Containers',
  tasks: 'containerd.services.tasks.v1.Tasks',
  snapshots: 'containerd.services.snapshots.v1.Snapshots',
  content: 'containerd.services.content.v1.Content',
  diff: 'containerd.services.diff.v1.Diff',
  images: 'containerd.services.images.v1.Images',
  leases: 'containerd.services.leases.v1.Leases',
  namespaces: 'containerd.services.namespaces.v1.Namespaces',
  events: 'containerd.services.events.v1.Events',
  version: 'containerd.services.version.v1.Version',
  introspection: 'containerd.services.introspection.v1.Introspection',
};

export const DEFAULT_DEADLINE_MS = 10_000;

/** Calls that do real work: unpacking, starting processes on a busy machine, or waiting for one to end. */
export const DEADLINES_MS: Readonly<Record<string, number>> = {
  'diff.apply': 30 * 60_000,
  'diff.diff': 30 * 60_000,
  'tasks.create': 60_000,
  'tasks.start': 60_000,
  'tasks.delete': 60_000,
  'tasks.deleteProcess': 60_000,
  'tasks.wait': Infinity,
  'snapshots.prepare': 60_000,
  'snapshots.commit': 60_000,
  'snapshots.remove': 60_000,
  'snapshots.usage': 60_000,
  'snapshots.list': 60_000,
  'content.write': Infinity,
  'content.read': Infinity,
  'content.list': 60_000,
  'leases.delete': 60_000,
  'images.delete': 60_000,
  'events.subscribe': Infinity,
};
