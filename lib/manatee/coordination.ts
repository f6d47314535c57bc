/**
 * What manatee wants of ZooKeeper, and nothing of ZooKeeper itself: zookeeper/ has the real one, test/model/manatee a simulated one, and one
 * conformance test goes over both.
 *
 *   PATH/state            the ClusterState
 *   PATH/history/n-       sequential, one per write of the state; the newest 10,000 stay
 *   PATH/peers/ID         ephemeral: who is alive. The name is fixed, so that a transaction can demand that a peer is *absent*
 *                         (create and delete its node in the transaction: it fails where the node exists)
 *   PATH/rebuild/ID       an operator's order to a peer: throw your data away and copy them anew
 */
import type {Interruption} from './interrupt';
import type {ClusterState, HistoryEntry, Peer} from './state';

/** What a peer says of itself in its ephemeral node. */
export interface Announcement extends Peer {
  /** null: no database yet. */
  systemId: string | null;
  /** It has data of this cluster and can stream, or serve. Only such a peer is given a place. */
  ready: boolean;
  /** The generation during which its data were last rewound or copied; 0: never. */
  restoredIn: number;
}

export interface LivePeer extends Announcement {
  /** Who came first: ZooKeeper's creation transaction. */
  order: number;
  /** Made in our own present session. One of our id that is not goes away when the session that made it ends. */
  mine: boolean;
}

export interface ClusterView {
  /** null: there is no cluster yet. */
  state: ClusterState | null;
  /** The state node's version; -1 where there is none. */
  version: number;
  /** By `order`. */
  peers: LivePeer[];
  /** Ids of peers that an operator wants rebuilt. */
  rebuild: string[];
}

/** A write of the state: all of it, or nothing. */
export interface Declaration {
  next: ClusterState;
  entry: Omit<HistoryEntry, 'state'>;
  /** The version of the view that the decision was taken from; -1 creates. */
  version: number;
  /** Peers that the decision took for dead: where one of them is alive after all, nothing is written. */
  absent: string[];
}

export interface Coordination {
  /**
   * The current view: no older than the moment of the call (a read through the leader). Throws `unavailable` without a connection.
   */
  view(): Promise<ClusterView>;
  /**
   * Throws `etagConflict` where somebody wrote first or an absent peer was not absent, `unavailable` where there is no connection; with
   * info.outcome 'unknown' where the answer was lost: read again.
   */
  declare(declaration: Declaration): Promise<void>;
  /**
   * Makes our ephemeral node in the current session or changes what it says; takes the place of one that an earlier session of this id left. Throws
   * `conflict` where another process has since taken ours: two run under one id, and the later one has it.
   */
  announce(announcement: Announcement): Promise<void>;
  /** Takes it away; succeeds where there is none. */
  withdraw(): Promise<void>;
  /** Writes, or takes away, the order to rebuild a peer. */
  orderRebuild(id: string, wanted: boolean): Promise<void>;
  /** Newest last. */
  history(limit: number): Promise<HistoryEntry[]>;
  /**
   * Until this moment of the monotonic clock (ms) nobody can have seen our session expire. It moves on with every answer that went through the
   * leader, counted from when the question was *sent*, by two thirds of the session's timeout, or by less after a gap (zookeeper/lease.ts);
   * -Infinity before the first answer and after the session has expired.
   */
  leaseUntilMs(): number;
  /** Something changed: view, connection, session. A hint and never more; may come too often. */
  onChange(listener: () => void): () => void;
  close(): Promise<void>;
}

/** Monotonic, ms; in a simulation, the simulator's. Wall clocks jump. */
export interface Monotonic {
  nowMs(): number;
  /** Resolves after `ms` or when it is interrupted, whatever comes first; never rejects. */
  sleep(ms: number, signal?: Interruption): Promise<void>;
}
