/** All that a decision may be taken from, and the questions that the roles have in common. Pure. */
import type {Announcement, ClusterView, LivePeer} from '../coordination';
import type {Acknowledger, ServerFacts} from '../server';
import {type ClusterState, type Peer, roleOf} from '../state';

export interface Policy {
  /** Found a cluster alone; says nothing about one that exists. */
  oneNodeWriteMode: boolean;
  /** How long a server that does not run is waited for before its peer gives its place away. */
  restartGraceMs: number;
}

export interface Situation {
  self: Peer;
  policy: Policy;
  /** null: ZooKeeper does not answer. */
  view: ClusterView | null;
  facts: ServerFacts;
  /** Monotonic. */
  nowMs: number;
  leaseUntilMs: number;
}

/** The same with a cluster to belong to. */
export interface Member extends Situation {
  view: ClusterView;
  state: ClusterState;
}

export const live = (view: ClusterView, id: string): LivePeer | undefined => view.peers.find((peer) => peer.id === id);

/** Has this peer been ordered to throw its data away? */
export const toBeRebuilt = (s: Situation): boolean => s.view?.rebuild.includes(s.self.id) ?? false;

/** Does it carry out such an order now? Not as primary, whose data all others live on, and not as a sync that nobody can replace. */
export function throwsAway(s: Situation): boolean {
  const state = s.view?.state ?? null;
  if (!toBeRebuilt(s) || state === null) return toBeRebuilt(s);
  const role = roleOf(state, s.self.id);
  return role !== 'primary' && (role !== 'sync' || state.async.some((peer) => isReady(live(s.view!, peer.id), state)));
}

/** Its data are there, of this cluster, and its server runs. */
export const isReady = (peer: LivePeer | undefined, state: ClusterState): boolean => peer !== undefined && peer.ready && peer.systemId === state.systemId;

/** Whether the primary can be copied from and followed. */
export const primaryServes = ({view, state}: Member): boolean => isReady(live(view, state.primary.id), state);

export const hasForeignData = ({facts, state}: Member): boolean =>
  facts.data === 'present' && state.systemId !== null && facts.systemId !== null && facts.systemId !== state.systemId;

/** Nobody was ever let in and they are nobody's copy: the leftovers of a founding that another peer won. */
export const heldNothing = ({facts}: Situation): boolean => facts.generation === 0 && facts.restoredIn === 0;

/** What this peer has to say of itself now. */
export function announcementOf(s: Situation): Announcement {
  const {facts, view, self} = s;
  const state = view?.state ?? null;
  // Who is going to throw its data away has none to offer.
  const systemId = facts.data === 'present' && !throwsAway(s) ? facts.systemId : null;
  return {id: self.id, host: self.host, port: self.port, statusUrl: self.statusUrl, systemId, ready: state !== null && serves(s, state), restoredIn: facts.restoredIn};
}

function serves({self, facts}: Situation, state: ClusterState): boolean {
  if (facts.data !== 'present' || facts.process !== 'running' || facts.systemId !== state.systemId) return false;
  switch (roleOf(state, self.id)) {
    case 'primary': return facts.inRecovery === false;
    // Members whose upstream has just gone are as good as before; whoever wants to become one shows that its history fits.
    case 'sync': case 'async': return facts.inRecovery === true && !facts.diverged;
    case 'deposed': case 'none': return facts.inRecovery === true && facts.receiving && !facts.diverged;
  }
}

/** undefined: what stands there is what should. */
export function missingAnnouncement(s: Situation & {view: ClusterView}): Announcement | undefined {
  const wanted = announcementOf(s);
  const found = live(s.view, s.self.id);
  const same = found?.mine && (Object.keys(wanted) as (keyof Announcement)[]).every((key) => found[key] === wanted[key]);
  return same ? undefined : wanted;
}

export const isAnnounced = (s: Situation & {view: ClusterView}): boolean => live(s.view, s.self.id)?.mine ?? false;

export function sameAcknowledger(a: Acknowledger, b: Acknowledger): boolean {
  return a.kind === b.kind && (a.kind !== 'peer' || a.id === (b as {id: string}).id);
}

/** Has the server been away for longer than it is waited for? */
export const isOverdue = ({facts, policy, nowMs}: Situation): boolean =>
  facts.process !== 'running' && facts.downSinceMs !== null && nowMs - facts.downSinceMs > policy.restartGraceMs;

/** An operator's wish that holds in this generation. */
export const wishedPrimary = (state: ClusterState): string | undefined =>
  state.promote?.generation === state.generation ? state.promote.peer : undefined;
