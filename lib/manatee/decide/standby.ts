/** The parts of those that follow: the sync, which takes over; the asyncs behind it; and peers that want to become one of them. */
import {reached} from '../lsn';
import {takenOver, upstreamOf, withoutWish, type Peer} from '../state';
import {act, wait, type Action} from './action';
import {announcementOf, hasForeignData, isAnnounced, isOverdue, isReady, live, missingAnnouncement, primaryServes, throwsAway, toBeRebuilt, wishedPrimary, type Member} from './situation';

export function sync(s: Member): Action {
  const {facts, state, view} = s;
  const mayTakeOver = live(view, state.primary.id) === undefined && (state.freeze === null || wishedPrimary(state) === s.self.id);
  // Nothing can have been written yet: whoever makes the database is as good as the one that did not.
  if (mayTakeOver && state.systemId === null) return takeOver(s, state.initWal);
  const lacking = asStandby(s, mayTakeOver ? null : state.primary);
  if (lacking) return lacking;
  if (mayTakeOver) {
    if (facts.wal === null) return wait('Postgres to go through its WAL');
    if (!reached(facts.wal, state.initWal) && wishedPrimary(state) === s.self.id)
      return act({kind: 'declare', next: withoutWish(state), version: view.version, absent: []}, `it cannot take over as an operator wanted: its WAL ends at ${facts.wal}, before ${state.initWal}`);
    if (!reached(facts.wal, state.initWal)) return wait(`the primary ${state.primary.id} is gone, and this peer cannot take over: its WAL ends at ${facts.wal}, before ${state.initWal}`);
    return takeOver(s, facts.wal);
  }
  return settled(s);
}

function takeOver(s: Member, wal: string): Action {
  const {state, view} = s;
  // A primary without a node is one that its own sync takes over from.
  if (!isAnnounced(s)) return act({kind: 'announce', announcement: announcementOf(s)}, 'before it takes over');
  const next = state.async.find((peer) => isReady(live(view, peer.id), state)) ?? null;
  return act({kind: 'declare', next: takenOver(state, wal, next), version: view.version, absent: [state.primary.id]},
    wishedPrimary(state) === s.self.id ? 'an operator wants this peer to be primary' : `the primary ${state.primary.id} is gone`);
}

export function async(s: Member): Action {
  return asStandby(s, upstreamOf(s.state, s.self.id)) ?? settled(s);
}

export function newcomer(s: Member): Action {
  return asStandby(s, s.state.primary) ?? settled(s);
}

/** What the server lacks to be a standby of `upstream` (null: of nobody, because it is about to take over); undefined: nothing. */
export function asStandby(s: Member, upstream: Peer | null): Action | undefined {
  const {facts, state} = s;
  if (state.systemId === null) return unfounded(s);
  // Whoever is about to take over has what others need, whatever was ordered before.
  if (facts.data !== 'present' || hasForeignData(s) || (throwsAway(s) && upstream)) return copied(s);
  const unfit = facts.ran === 'primary' || facts.inRecovery === false ? 'it was a primary' : facts.diverged && upstream ? `its history has left that of ${upstream.id}` : undefined;
  if (unfit) return rewound(s, unfit);
  if (facts.process === 'running') {
    if (facts.upstream !== (upstream?.id ?? null) || (!upstream && facts.receiving))
      return act({kind: 'follow', upstream}, upstream ? `its place is behind ${upstream.id}` : `the primary ${state.primary.id} is gone`);
    return undefined;
  }
  if (isOverdue(s)) {
    if (isAnnounced(s)) return act({kind: 'withdraw'}, 'Postgres does not come up');
    if (facts.process === 'hung') return act({kind: 'stop', how: 'immediate'}, 'Postgres does not answer');
  }
  if (facts.process !== 'stopped') return wait('Postgres to come up');
  return act({kind: 'start', as: 'standby', upstream}, upstream ? `its place is behind ${upstream.id}` : 'to see what it has');
}

function unfounded(s: Member): Action {
  const announcement = missingAnnouncement(s);
  return announcement ? act({kind: 'announce', announcement}, 'we are here') : wait(`the primary ${s.state.primary.id} to make the database`);
}

/** Begins anew: it says so first, because a sync without data is replaced while it copies. */
function copied(s: Member): Action {
  const {facts, state, self} = s;
  const why = toBeRebuilt(s) ? 'an operator ordered it' : hasForeignData(s) ? 'its data are of a founding that another peer won' : facts.data === 'broken' ? 'a rewind or a copy was broken off' : 'it has no data yet';
  const announcement = missingAnnouncement(s);
  if (announcement) return act({kind: 'announce', announcement}, why);
  if (state.sync?.id === self.id && toBeRebuilt(s) && facts.data === 'present') return wait('another peer to become the sync');
  if (!primaryServes(s)) return wait(`the primary ${state.primary.id}, to copy from`);
  if (facts.process !== 'stopped') return act({kind: 'stop', how: 'fast'}, why);
  return toBeRebuilt(s) ? act({kind: 'rebuild', from: state.primary, generation: state.generation}, why) : act({kind: 'restore', from: state.primary, how: 'copy', generation: state.generation}, why);
}

export function rewound(s: Member, why: string): Action {
  const {facts, state} = s;
  if (facts.process !== 'stopped') return act({kind: 'stop', how: 'fast'}, why);
  const announcement = missingAnnouncement(s);
  if (announcement) return act({kind: 'announce', announcement}, why);
  if (!primaryServes(s)) return wait(`the primary ${state.primary.id}, to rewind to`);
  return act({kind: 'restore', from: state.primary, how: 'rewind', generation: state.generation}, why);
}

export function settled(s: Member): Action {
  const announcement = missingAnnouncement(s);
  return announcement ? act({kind: 'announce', announcement}, 'what it has to say has changed') : wait('nothing is to be done');
}
