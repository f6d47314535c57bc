/**
 * The one thing that all peers agree on: a JSON document in one ZooKeeper node, written only together with an entry of the history and only
 * against the version that the decision was taken from (coordination.ts). Every change of it is a function of this file.
 *
 *   I1  the generation rises by exactly one per declaration
 *   I2  within a generation primary, sync and initWal are fixed
 *   I3  the next primary is this generation's primary or sync
 *   I6  a primary that a takeover removed stands among the deposed until its data has been rewound or copied anew
 */
import {CetusError} from '../base/errors';
import {NO_WAL, reached, type Lsn} from './lsn';

/** Where a peer is to be found. `id` is chosen by its operator and never reused for another data directory. */
export interface Peer {
  id: string;
  /** Postgres. */
  host: string;
  port: number;
  /** The sitter's own small HTTP listener: facts for the operator (status.ts). */
  statusUrl: string;
}

export interface DeposedPeer extends Peer {
  /** The generation whose declaration removed it: it rejoins with data that have seen this one. */
  deposedIn: number;
}

export interface ClusterState {
  generation: number;
  primary: Peer;
  /** null: nobody acknowledges, so no write is accepted, unless oneNodeWriteMode. */
  sync: Peer | null;
  /** A chain: the first streams from the sync (from the primary, where there is none), each next one from the one before. */
  async: Peer[];
  deposed: DeposedPeer[];
  /** Whoever takes over from this generation must have at least this much: all that was acknowledged before it. */
  initWal: Lsn;
  /** Postgres' system identifier; null only in generation 1 until the first primary has made the database. */
  systemId: string | null;
  /** While set, only an operator changes generations. */
  freeze: {reason: string; by: string} | null;
  /** The primary accepts writes alone. For the beginning, and for an operator who knows that the others are gone for good. */
  oneNodeWriteMode: boolean;
  /** An operator's wish: this peer shall become primary. Void in every other generation. */
  promote: {peer: string; generation: number; by: string} | null;
}

/** One line of `cetus db history`; written in the same ZooKeeper transaction as the state that it led to. */
export interface HistoryEntry {
  /** RFC 3339, the writer's wall clock: for people, nothing depends on it. */
  at: string;
  /** A peer's id, or an operator's name. */
  by: string;
  reason: string;
  state: ClusterState;
}

export type Role = 'primary' | 'sync' | 'async' | 'deposed' | 'none';

export function roleOf(state: ClusterState, id: string): Role {
  if (state.primary.id === id) return 'primary';
  if (state.sync?.id === id) return 'sync';
  if (state.async.some((peer) => peer.id === id)) return 'async';
  return state.deposed.some((peer) => peer.id === id) ? 'deposed' : 'none';
}

/** Whom a peer streams from: the primary streams from nobody; whoever is not in the chain yet, from the primary. */
export function upstreamOf(state: ClusterState, id: string): Peer | null {
  if (state.primary.id === id) return null;
  const chain = [state.primary, ...(state.sync ? [state.sync] : []), ...state.async];
  const at = chain.findIndex((peer) => peer.id === id);
  return at > 0 ? chain[at - 1]! : state.primary;
}

export const membersOf = (state: ClusterState): Peer[] => [state.primary, ...(state.sync ? [state.sync] : []), ...state.async, ...state.deposed];

const withoutPeer = <P extends Peer>(peers: P[], id: string | undefined): P[] => peers.filter((peer) => peer.id !== id);
/** A stored peer is its address and nothing of what else the caller's object holds. */
const address = ({id, host, port, statusUrl}: Peer): Peer => ({id, host, port, statusUrl});

/** The first state. The database is made afterwards, by the primary that it names: until `systemId` is set nothing can have been written. */
export function firstState(primary: Peer, others: Peer[], oneNodeWriteMode: boolean): ClusterState {
  const [sync, ...async] = oneNodeWriteMode ? [] : others;
  return {
    generation: 1, primary: address(primary), sync: sync ? address(sync) : null, async: (oneNodeWriteMode ? others : async).map(address), deposed: [],
    initWal: NO_WAL, systemId: null, freeze: null, oneNodeWriteMode, promote: null,
  };
}

/** A database that exists already becomes a cluster of one. */
export function adoptedState(primary: Peer, systemId: string, wal: Lsn): ClusterState {
  return {...firstState(primary, [], true), systemId, initWal: wal};
}

/** The sync becomes primary of the next generation. `wal` is all that it has, read after it had stopped receiving. */
export function takenOver(state: ClusterState, wal: Lsn, sync: Peer | null): ClusterState {
  if (!state.sync) throw new CetusError('internal', 'a takeover without a sync');
  if (!reached(wal, state.initWal)) throw new CetusError('internal', `a takeover with WAL ${wal}, behind ${state.initWal}`);
  return {
    ...state, generation: state.generation + 1, primary: state.sync, sync: sync && address(sync), async: withoutPeer(state.async, sync?.id),
    deposed: [...withoutPeer(state.deposed, state.primary.id), {...state.primary, deposedIn: state.generation + 1}], initWal: wal, promote: null,
    oneNodeWriteMode: false,
  };
}

/**
 * The primary takes another sync (or its first). `wal` was read while nobody could acknowledge. The old sync stays in the chain where it is
 * alive (`keepOld`, a promotion of an async); otherwise it comes back as a newcomer does.
 */
export function withSync(state: ClusterState, sync: Peer, wal: Lsn, keepOld: boolean): ClusterState {
  const rest = withoutPeer(state.async, sync.id);
  const generation = state.generation + 1;
  return {
    ...state, generation, sync: address(sync), async: keepOld && state.sync ? [state.sync, ...rest] : rest, initWal: wal, oneNodeWriteMode: false,
    promote: state.promote?.peer === sync.id && state.promote.generation === state.generation ? {...state.promote, generation} : null,
  };
}

/** Alone from now on, by an operator's order. */
export function alone(state: ClusterState, wal: Lsn): ClusterState {
  return {...state, generation: state.generation + 1, sync: null, async: state.sync ? [state.sync, ...state.async] : state.async, initWal: wal, oneNodeWriteMode: true, promote: null};
}

// ---- within a generation ----

/** No longer alone: from now on nobody acknowledges until the primary has taken a sync, which is a generation of its own. */
export const notAlone = (state: ClusterState): ClusterState => ({...state, oneNodeWriteMode: false});

export function withAsync(state: ClusterState, peer: Peer): ClusterState {
  return {...state, async: [...withoutPeer(state.async, peer.id), address(peer)], deposed: withoutPeer(state.deposed, peer.id)};
}
export function withoutAsync(state: ClusterState, id: string): ClusterState {
  return {...state, async: withoutPeer(state.async, id)};
}
export function withoutDeposed(state: ClusterState, id: string): ClusterState {
  return {...state, deposed: withoutPeer(state.deposed, id)};
}

// ---- an operator's, within a generation ----

export const frozen = (state: ClusterState, reason: string, by: string): ClusterState => ({...state, freeze: {reason, by}});
export const unfrozen = (state: ClusterState): ClusterState => ({...state, freeze: null});
/** Asks for another primary, by name; the peers see to it (decide/). Void with the generation. */
export const asksPromotion = (state: ClusterState, peer: string, by: string): ClusterState => ({...state, promote: {peer, generation: state.generation, by}});
/** It has come true, cannot, or is taken back. */
export const withoutWish = (state: ClusterState): ClusterState => ({...state, promote: null});

/** What a legal step from one state to the next may be; answers what is wrong, or undefined. The simulator and `verify` ask it of every step. */
export function illegalStep(before: ClusterState, after: ClusterState): string | undefined {
  const rise = after.generation - before.generation;
  if (rise !== 0 && rise !== 1) return `I1: generation ${before.generation} is followed by ${after.generation}`;
  if (before.systemId !== null && after.systemId !== before.systemId) return 'the system identifier changed';
  if (rise === 0) {
    if (after.primary.id !== before.primary.id) return 'I2: the primary changed within a generation';
    if (after.sync?.id !== before.sync?.id) return 'I2: the sync changed within a generation';
    if (after.initWal !== before.initWal) return 'I2: initWal changed within a generation';
    if (!before.oneNodeWriteMode && after.oneNodeWriteMode) return 'I2: one-node-write mode began within a generation';
  } else {
    if (after.primary.id !== before.primary.id && after.primary.id !== before.sync?.id) return `I3: ${after.primary.id} became primary and was neither primary nor sync`;
    if (!reached(after.initWal, before.initWal)) return `I5: initWal fell from ${before.initWal} to ${after.initWal}`;
    if (after.primary.id !== before.primary.id && !after.deposed.some((peer) => peer.id === before.primary.id)) return `I6: ${before.primary.id} was taken over from and is not deposed`;
  }
  const members = membersOf(after).map((peer) => peer.id);
  return new Set(members).size === members.length ? undefined : `a peer has two places: ${members.join(', ')}`;
}
