import type {Reservation} from './container';

export type NodeLiveness = 'alive' | 'suspect' | 'lost' | 'fenced';
export type NodeAvailability = 'active' | 'cordoned' | 'draining';

/** What a node says of itself at join and with `GET /v1/info`. */
export interface NodeFacts {
  nodeId: string;
  name: string;
  /** "linux/amd64" */
  platform: string;
  architecture: string;
  kernelVersion: string;
  operatingSystem: string;
  osType: 'linux';
  cpus: number;
  /** The kernel's lists of what containers may be bound to, like "0-3". Agents of earlier versions did not say. */
  cpusetCpus?: string;
  cpusetMems?: string;
  memoryBytes: number;
  diskBytes: number;
  pids: number;
  cgroupVersion: 1 | 2;
  cgroupDriver: string;
  containerdVersion: string;
  runcVersion: string;
  /** The program that `--init` puts before a container's own, by its name, and what it says of its version; '' for none. Agents of earlier versions did not say. */
  initBinary?: string;
  initVersion?: string;
  /** Of its sources, where it says so; distributions leave that out. */
  initCommit?: string;
  snapshotter: string;
  /** It has what `docker build` needs. Agents of earlier versions did not say. */
  builds?: boolean;
  /** The directory on the node below which containers, volumes and images lie. Agents of earlier versions did not say. */
  rootDir?: string;
  /** Where fleet reaches it: "unix:///path" or "https://address:port". */
  agentUrl: string;
  agentVersion: string;
  labels: Record<string, string>;
  /** Rises each time the agent process starts. */
  bootGeneration: number;
}

/** Bucket `nodes`, key = nodeId. Written by join, by operator verbs and by the liveness batch; never per heartbeat. */
export interface Node {
  id: string;
  name: string;
  facts: NodeFacts;
  availability: NodeAvailability;
  liveness: NodeLiveness;
  livenessReason: string;
  livenessAt: string;
  /** Labels set by the operator; they win over facts.labels. */
  labels: Record<string, string>;
  joinedAt: string;
}

/** Bucket `reservations`, key = nodeId. Every placement is an etag-guarded write of this object. */
export interface NodeReservations {
  nodeId: string;
  total: Reservation;
  containers: Record<string, Reservation>;
}
