/** Pure: snapshot in, decision and reasons out. No I/O, no clock, no randomness but the request's own. */
import type {Reservation} from '../schema/container';
import type {NodeAvailability, NodeLiveness} from '../schema/node';
import type {PlacementDecision, PlacementRequest} from '../schema/placement';
import type {NodeHardware} from './filters/hardware';

/** What placement knows of one node. Fed from the change feed, never read per request. */
export interface NodeView extends NodeHardware {
  id: string;
  name: string;
  platform: string;
  liveness: NodeLiveness;
  availability: NodeAvailability;
  labels: Record<string, string>;
  capacity: Reservation;
  reserved: Reservation;
}
export interface ContainerView {
  id: string;
  name: string;
  account: string;
  nodeId: string;
  labels: Record<string, string>;
  imageId: string;
  imageReference: string;
  ports: {protocol: string; hostIp: string; hostPort: number}[];
}

/** A maintained index: updates are O(1) or O(log n), `place` does no work proportional to the fleet. */
export interface PlacementIndex {
  putNode(node: NodeView): void;
  removeNode(id: string): void;
  putContainer(container: ContainerView): void;
  removeContainer(id: string): void;
  putImage(nodeId: string, imageId: string, references: string[]): void;
  removeImage(nodeId: string, imageId: string): void;
  /**
   * Throws CetusError `noSpace` (info.rejections: Rejection[]; the message says what would have fitted where) or `invalid` (a bad expression, or
   * hardware that no node has).
   */
  place(request: PlacementRequest): PlacementDecision;
}
