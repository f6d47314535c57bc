/**
 * The primary's part: it makes the database, comes up, keeps a sync, keeps the chain, lets clients in, and hands over where an operator wishes so.
 *
 * The rule of acknowledgement changes only by way of nobody, and a generation is declared only while it is nobody: then the WAL that is read is at
 * or beyond everything that was ever acknowledged, and it becomes initWal.
 */
import {reached} from '../lsn';
import type {Acknowledger} from '../server';
import {roleOf, withAsync, withoutAsync, withoutWish, withSync, type ClusterState, type Peer} from '../state';
import {act, wait, type Action} from './action';
import {hasForeignData, isAnnounced, isOverdue, isReady, live, missingAnnouncement, sameAcknowledger, wishedPrimary, type Member} from './situation';

const NOBODY: Acknowledger = {kind: 'nobody'};

export function primary(s: Member): Action {
  const {facts, state} = s;
  if (facts.data !== 'present' || hasForeignData(s)) return withoutData(s);
  if (facts.process !== 'running') return notRunning(s);
  if (facts.inRecovery) {
    // Declared while it was a standby. Whoever replays the former primary's WAL must not get any more of it.
    if (facts.upstream !== null || facts.receiving) return act({kind: 'follow', upstream: null}, 'it is the primary now');
    if (!sameAcknowledger(facts.acknowledger, NOBODY)) return act({kind: 'acknowledge', by: NOBODY}, 'before it is promoted');
    return act({kind: 'promote', generation: state.generation}, `it is the primary of generation ${state.generation}`);
  }
  if (state.systemId === null) return declare(s, {...state, systemId: facts.systemId}, [], 'made the database');
  return handOver(s) ?? changeSync(s) ?? keepChain(s) ?? serve(s);
}

const declare = (s: Member, next: ClusterState, absent: string[], reason: string): Action => act({kind: 'declare', next, version: s.view.version, absent}, reason);

function withoutData(s: Member): Action {
  const {facts, state} = s;
  if (state.systemId === null && facts.data === 'none') return act({kind: 'initialise'}, 'the first primary makes the database');
  if (isAnnounced(s)) return act({kind: 'withdraw'}, 'the data are gone; only the sync has them all');
  return wait(state.sync ? `${state.sync.id} has to take over: the data of this peer are gone` : 'the data are gone, and there is no sync that has them');
}

function notRunning(s: Member): Action {
  const {facts, state} = s;
  const syncLives = state.sync !== null && live(s.view, state.sync.id) !== undefined;
  // A sync without data takes nothing over: this one comes up, and hands over when the sync has everything.
  const handsOver = syncLives && wishedPrimary(state) === state.sync!.id && live(s.view, state.sync!.id)!.systemId === state.systemId;
  if (syncLives && (handsOver || (isOverdue(s) && state.freeze === null))) {
    // It may go on at any moment, its gate as it was: nobody takes over beside it.
    if (facts.process === 'hung') return act({kind: 'stop', how: 'immediate'}, 'Postgres does not answer');
    if (isAnnounced(s)) return act({kind: 'withdraw'}, handsOver ? `an operator wants ${state.sync!.id} to be primary` : 'Postgres does not come up');
    if (handsOver) return wait(`${state.sync!.id} is to take over`);
  }
  if (facts.process === 'hung') return isOverdue(s) ? act({kind: 'stop', how: 'immediate'}, 'Postgres does not answer') : wait('Postgres to answer');
  if (facts.process === 'starting') return wait('Postgres to come up');
  // A standby's data without a fork of the timeline would write another history under the former primary's timeline: it is promoted, not just started.
  const once = facts.ran === 'primary' || (facts.ran === 'never' && facts.restoredIn === 0);
  return once ? act({kind: 'start', as: 'primary', upstream: null}, 'it is the primary') : act({kind: 'start', as: 'standby', upstream: null}, 'it is the primary, and is to be promoted');
}

/** An operator wants another primary: clients out, everything to the sync, an orderly end; the sync takes over as from a dead one. */
function handOver(s: Member): Action | undefined {
  const {facts, state, self, view} = s;
  const wished = wishedPrimary(state);
  if (wished === undefined) return undefined;
  const role = roleOf(state, wished);
  const fits = (role === 'sync' || role === 'async') && isReady(live(view, wished), state);
  if (wished === self.id || !fits) return declare(s, withoutWish(state), [], wished === self.id ? `${wished} is the primary` : `${wished} cannot be promoted: it is not a member that is ready`);
  if (role === 'async') return undefined; // first it becomes the sync: changeSync
  const sync = facts.standbys.find((standby) => standby.id === wished && standby.state === 'streaming');
  if (!sync) return undefined;
  if (facts.gate === 'open') return act({kind: 'closeGate'}, `an operator wants ${wished} to be primary`);
  if (facts.wal === null || !reached(sync.flushed, facts.wal)) return wait(`${wished} to have all of the WAL`);
  return act({kind: 'stop', how: 'fast'}, `an operator wants ${wished} to be primary, and it has everything`);
}

function changeSync(s: Member): Action | undefined {
  const {facts, state, view} = s;
  const chosen = nextSync(s);
  if (!chosen) return undefined;
  if (facts.acknowledger.kind !== 'nobody') return act({kind: 'acknowledge', by: NOBODY}, chosen.why);
  if (facts.wal === null) return wait('to know the end of the WAL');
  if (!reached(facts.wal, state.initWal)) return wait(`its WAL ends at ${facts.wal}, before ${state.initWal}: these are not the data that it was primary with`);
  const old = state.sync && live(view, state.sync.id);
  const absent = state.sync && !old ? [state.sync.id] : [];
  return declare(s, withSync(state, chosen.peer, facts.wal, isReady(old ?? undefined, state)), absent, chosen.why);
}

/** Who shall be sync in place of the present one; undefined: nobody, or nobody could. */
function nextSync({state, view}: Member): {peer: Peer; why: string} | undefined {
  const wished = wishedPrimary(state);
  const wishedAsync = state.async.find((peer) => peer.id === wished && isReady(live(view, peer.id), state));
  if (wishedAsync) return {peer: wishedAsync, why: `an operator wants ${wishedAsync.id} to be primary, so it becomes the sync first`};
  if (state.oneNodeWriteMode || state.freeze !== null) return undefined;
  const first = state.async.find((peer) => isReady(live(view, peer.id), state));
  if (!first) return undefined;
  if (state.sync === null) return {peer: first, why: 'there was no sync'};
  const sync = live(view, state.sync.id);
  if (!sync) return {peer: first, why: `the sync ${state.sync.id} is gone`};
  // A server that is only being restarted is waited for.
  return sync.systemId === state.systemId ? undefined : {peer: first, why: `the sync ${state.sync.id} has no data any more`};
}

function keepChain(s: Member): Action | undefined {
  const {state, view} = s;
  const gone = state.async.find((peer) => !live(view, peer.id));
  if (gone) return declare(s, withoutAsync(state, gone.id), [gone.id], `the async ${gone.id} is gone`);
  for (const peer of view.peers) {
    if (!isReady(peer, state)) continue;
    const role = roleOf(state, peer.id);
    const restored = role === 'deposed' && state.deposed.some((old) => old.id === peer.id && peer.restoredIn >= old.deposedIn);
    if (role === 'none' || restored) return declare(s, withAsync(state, peer), [], restored ? `${peer.id} is back, its data restored` : `${peer.id} has joined`);
  }
  return undefined;
}

function serve(s: Member): Action {
  const {facts, state} = s;
  const wanted: Acknowledger = state.oneNodeWriteMode ? {kind: 'alone'} : state.sync ? {kind: 'peer', id: state.sync.id} : NOBODY;
  if (!sameAcknowledger(facts.acknowledger, wanted)) {
    const direct = facts.acknowledger.kind === 'nobody' || wanted.kind === 'nobody';
    return act({kind: 'acknowledge', by: direct ? wanted : NOBODY}, `the rule of generation ${state.generation}`);
  }
  const announcement = missingAnnouncement(s);
  if (announcement) return act({kind: 'announce', announcement}, 'the primary is up');
  if (facts.gate === 'open' && facts.generation === state.generation) return wait('nothing is to be done');
  if (s.nowMs >= s.leaseUntilMs) return wait('a sign of life from ZooKeeper');
  if (wanted.kind === 'nobody') return wait('a peer that can be the sync');
  if (wanted.kind === 'peer') {
    const sync = facts.standbys.find((standby) => standby.id === wanted.id);
    if (!sync || sync.state !== 'streaming' || !reached(sync.flushed, state.initWal)) return wait(`the sync ${wanted.id} to catch up`);
  }
  return act({kind: 'openGate', generation: state.generation}, wanted.kind === 'alone' ? 'one-node-write mode' : `the sync ${(wanted as {id: string}).id} has caught up`);
}
