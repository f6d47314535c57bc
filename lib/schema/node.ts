import type {Reservation} from './container';

export type NodeLiveness = 'alive' | 'suspect' | 'lost' | 'fenced';
export type NodeAvailability = 'active' | 'cordoned' | 'draining';

/** Where other nodes reach this one with the traffic of containers: VXLAN over UDP. */
export interface Underlay {
  /** IPv4, an address of the node's own; no two nodes have the same. */
  address: string;
  /** Bytes of the largest packet that gets from node to node; a container's is 50 shorter. */
  mtu: number;
  /** Absent: UNDERLAY_PORT. */
  port?: number;
}
export const UNDERLAY_PORT = 4789;

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
  /** Absent: its networks end at the node, as on a single machine. */
  underlay?: Underlay;
  agentVersion: string;
  labels: Record<string, string>;
  /** Rises each time the agent process starts. */
  bootGeneration: number;
}

/**
 * Bucket `leases`, key = ENDPOINT/SHARD: the nodes that beat at this endpoint, with the number of renewals of each. Written by that endpoint, under the
 * row's etag, and by whoever fences a node, which leaves the row. A heartbeat is answered once the number that it raised is durable. Numbers only
 * say that something has changed: when, each reader knows by its own clock.
 */
export interface LeaseRow { endpoint: string; shard: number; renewals: Record<string, number> }

/** Bucket `leases`, key = REVIEWER: whose turn it is to write liveness. It changes while the holder lives; who has not seen it change for a lease takes it. Only an economy. */
export interface ReviewerLock { holder: string; turns: number }
export const REVIEWER = 'reviewer';

/** In which row the present life's lease is renewed. A node enters a row only by a write of this: so whoever has read the node, then the rows, has seen all. */
export interface NodeLease {
  row: string;
  bootGeneration: number;
  /** What the endpoint of this row answers heartbeats with, and all that has to be waited out before the node may be called fenced: whoever fences goes by this and not by a setting of its own. Absent: nobody fences it. */
  fenceDelayMs?: number;
}

export type DriftKind =
  /** The store says that it is here; the node does not have it. */
  | 'container.missing' | 'volume.missing' | 'image.missing'
  /** It is there, but what it had written is not. */
  | 'container.files'
  /** It is assigned to another node. */
  | 'container.moved'
  /** The store knows nothing of it. */
  | 'container.unknown' | 'volume.unknown'
  /** The node knows a later transition than the store. */
  | 'container.state';
/** One difference between what the store says of a node and what the node has. `done`: what was done about it, '' where an operator has to decide. */
export interface DriftFinding { kind: DriftKind; id: string; name: string; detail: string; done: string }
/** `at`: of the comparison that found it. */
export interface NodeDrift { at: string; findings: DriftFinding[] }

/** Bucket `nodes`, key = nodeId. Written by join, by operator verbs, by the liveness batch, and when a node turns to another endpoint; never per heartbeat. */
export interface Node {
  id: string;
  name: string;
  facts: NodeFacts;
  availability: NodeAvailability;
  /** Why and since when it is cordoned or drained, in the operator's words. Absent: it never was, or nothing was said. */
  availabilityReason?: string;
  availabilityAt?: string;
  /** Set while an operator takes it out of the fleet: its certificates are revoked, its containers are forgotten without asking it, and it does not come back. */
  removing?: boolean;
  liveness: NodeLiveness;
  livenessReason: string;
  livenessAt: string;
  /** Labels set by the operator; they win over facts.labels. */
  labels: Record<string, string>;
  joinedAt: string;
  /** Absent before the first heartbeat of a life, and in stores of before. A node behind a unix socket is never fenced: its row is only the name of the endpoint that judges it. */
  lease?: NodeLease;
  /** The life that was fenced, kept by the joins that follow: heartbeats of it and of earlier ones are refused for ever. */
  fencedGeneration?: number;
  /** The last comparison that found something; absent where the node has what it should. Written by the reconciliation only, when it changes. */
  drift?: NodeDrift;
  /** The last who showed a good token in this node's name or id and has not its key, and was refused: often the machine itself, with a new disk. Gone when the node joins again. */
  claim?: NodeClaim;
}

/** `nodeId`: what the claimant calls itself. `message`: what it was answered. */
export interface NodeClaim { at: string; nodeId: string; message: string }

/**
 * Bucket `remains`, key = NODE/CONTAINER or NODE/VOLUME: what a node that was fenced may still have of what is no more, written in the commit that forgot it. Once the node is back it is taken away there, and then here.
 * Without it a container on a node of which the store knows nothing is nobody's to remove.
 */
export interface Remains { nodeId: string; containerId?: string; volumeIds: string[]; at: string }
export const remainsKey = (nodeId: string, id: string): string => `${nodeId}/${id}`;

/** Bucket `reservations`, key = nodeId. Every placement is an etag-guarded write of this object. */
export interface NodeReservations {
  nodeId: string;
  total: Reservation;
  containers: Record<string, Reservation>;
}
