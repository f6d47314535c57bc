/**
 * What the agent asks of a container runtime. Two implementations: `containerd` and `fake`; one conformance test holds for both.
 * Nothing of Docker's vocabulary here: it knows OCI specs, snapshots and processes. Errors: CetusError notFound | conflict | invalid | unavailable.
 */
import type {Writable} from 'node:stream';

/** An OCI runtime spec, as containerd takes it. */
export type OciSpec = Record<string, unknown> & {process: {args: string[]; terminal?: boolean} & Record<string, unknown>};

export interface SnapshotMount { type: string; source: string; options: string[] }

/** One stream of a process's output. Until `read`, and while paused, every byte stays where it outlives the agent. */
export interface ProcessOutput {
  /**
   * Called once. `take` gets the bytes as they come, and has the chunk only until it returns: the memory is used again. `end` is called once, after
   * the last byte or when our end was let go.
   */
  read(take: (chunk: Buffer) => void, end: () => void): void;
  /** From its return on nothing is read: the process blocks once the FIFO is full. Legal within `take`. */
  pause(): void;
  resume(): void;
}

/**
 * Our ends of a process's stdio. Dropping them (agent restart) never ends the process and loses no byte: the FIFOs hold them.
 * Output streams end by themselves, after the last byte, once no process of the container writes to them any more.
 */
export interface ProcessIo {
  stdin?: Writable;
  stdout?: ProcessOutput;
  /** Absent with a terminal. */
  stderr?: ProcessOutput;
  /** Tells the process that no stdin will follow, after the last byte has been taken. Nothing with a terminal, as in the Engine. */
  closeStdin(): Promise<void>;
  /** Lets go of our ends without touching the process. */
  detach(): void;
}

export interface IoRequest { stdin: boolean; terminal: boolean }

export interface CreateRequest {
  id: string;
  /** Chain id of the image's unpacked layers: parent of the writable snapshot; '' = empty rootfs (tests). */
  parentSnapshot: string;
  labels: Record<string, string>;
}

export interface ProcessExit { containerId: string; /** '' for the container's own process */ execId: string; pid: number; exitCode: number; exitedAt: string }
export type RuntimeEvent =
  | ({kind: 'exit'} & ProcessExit)
  | {kind: 'oom'; containerId: string}
  | {kind: 'paused' | 'resumed'; containerId: string}
  /** First event of every subscription, and again whenever the connection to the runtime was lost and is back: look at everything. */
  | {kind: 'reconnected'};

export type TaskStatus = 'none' | 'created' | 'running' | 'paused' | 'stopped';
export interface RuntimeState { status: TaskStatus; pid: number; exitCode: number; exitedAt: string }

export interface Runtime {
  /** Connects and makes the namespace. */
  open(): Promise<void>;
  version(): Promise<{runtime: string; version: string; runc: string; snapshotter: string}>;
  /** Prepares the writable snapshot; the container is listed from now on. Repeatable: an existing one with the same id is success. */
  create(request: CreateRequest): Promise<void>;
  /** Mounts of the writable layer, for user look-up, cp, diff and export while nothing runs. */
  mounts(id: string): Promise<SnapshotMount[]>;
  /** Bytes of the writable layer. */
  usage(id: string): Promise<number>;
  /** Creates the task (the process is set up, not yet running). The spec is final. */
  createTask(id: string, spec: OciSpec, io: IoRequest): Promise<{pid: number; io: ProcessIo}>;
  startTask(id: string): Promise<void>;
  /** After an agent restart: opens the FIFOs of a process that may still run. execId '' = the container's own. */
  reattach(id: string, execId: string, io: IoRequest): Promise<ProcessIo>;
  /** A hint: an exec will be asked for in a moment, or has been, until the answer is called. What can be waited for beforehand is. */
  expectExec(): () => void;
  exec(id: string, execId: string, process: OciSpec['process'], io: IoRequest): Promise<{pid: number; io: ProcessIo}>;
  /** `all`: every process of the container. */
  kill(id: string, execId: string, signal: number, all?: boolean): Promise<void>;
  resize(id: string, execId: string, height: number, width: number): Promise<void>;
  pause(id: string): Promise<void>;
  resume(id: string): Promise<void>;
  /** OCI linux.resources, live. */
  updateResources(id: string, resources: Record<string, unknown>): Promise<void>;
  pids(id: string): Promise<number[]>;
  state(id: string): Promise<RuntimeState>;
  execState(id: string, execId: string): Promise<RuntimeState>;
  /** Removes the task (`conflict` while it runs) and its FIFOs; repeatable. Read the streams to their end first. */
  deleteTask(id: string): Promise<void>;
  deleteExec(id: string, execId: string): Promise<void>;
  /** Removes container object and snapshot; repeatable. */
  remove(id: string): Promise<void>;
  list(): Promise<{id: string; labels: Record<string, string>}[]>;
  snapshots(): Promise<string[]>;
  events(signal: AbortSignal): AsyncIterable<RuntimeEvent>;
  close(): Promise<void>;
}
