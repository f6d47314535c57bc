import type {Reservation} from './container';
import type {Resources} from './docker';

export interface PlacementRequest {
  account: string;
  /** Hints and labels that filters and spread scores read. */
  containerName: string;
  labels: Record<string, string>;
  reservation: Reservation;
  /** What its node must have, reserved or not; undefined: nothing in particular. */
  hardware?: Hardware;
  /** "linux/amd64", or undefined where any will do. */
  platform?: string;
  /** Image reference and id: locality score, affinity:image. */
  imageReference: string;
  imageId: string;
  /** Nodes that hold volumes which the container needs; more than one distinct node is an error that names them. */
  pinnedNodes: {nodeId: string; volumeName: string}[];
  ports: {protocol: string; hostIp: string; hostPort: number}[];
  /** Swarm classic syntax, e.g. "affinity:container==web", "constraint:rack!=r1", "constraint:node==~n1". */
  expressions: string[];
}

/** Of a container's limits what is refused where the machine has less: 0 and '' ask for nothing. */
export interface Hardware {
  nanoCpus: number;
  /** Lists like "0-2,7". */
  cpusetCpus: string;
  cpusetMems: string;
}

/** Undefined where the limits ask for nothing of the kind. */
export function hardwareOf({NanoCpus = 0, CpusetCpus = '', CpusetMems = ''}: Resources): Hardware | undefined {
  return NanoCpus === 0 && CpusetCpus === '' && CpusetMems === '' ? undefined : {nanoCpus: NanoCpus, cpusetCpus: CpusetCpus, cpusetMems: CpusetMems};
}

export type FilterName = 'liveness' | 'cordon' | 'platform' | 'hardware' | 'capacity' | 'constraint' | 'affinity' | 'volume' | 'port';

/** Why nodes were left out: data, so that `cetus why` and the "no space" error print the same facts. */
export interface Rejection {
  filter: FilterName;
  /** The expression, resource or volume that rejected. */
  detail: string;
  count: number;
  /** Up to five node names. */
  examples: string[];
}

export interface NodeScore {
  nodeId: string;
  node: string;
  /** Higher is better. */
  total: number;
  parts: {spreadAccount: number; spreadLabel: number; imageLocality: number; utilization: number; soft: number};
}

export interface PlacementDecision {
  nodeId: string;
  node: string;
  considered: number;
  score: NodeScore;
  /** The next best, at most four. */
  alternatives: NodeScore[];
  rejections: Rejection[];
}
