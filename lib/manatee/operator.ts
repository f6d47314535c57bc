/**
 * What an operator can order: writes of the state, made as every other is, against the version that was read. Where somebody was faster it is looked at
 * anew, and what has come true meanwhile is a success. Nothing here speaks to a Postgres: an order is carried out by the sitters, and the verbs that
 * wait look at ZooKeeper and at the sitters' status until it is done, or say at their deadline how far it came.
 *
 * Errors: `notFound` no such peer or cluster; `conflict` it would be wrong, and the text says why and what to do instead; `timeout` not done in time (the order of
 * a promotion is taken back then, that of a rebuild stands); `unavailable` ZooKeeper does not answer.
 */
import {CetusError, isCetusError} from '../base/errors';
import type {ClusterView, Coordination, Monotonic} from './coordination';
import {isReady, live} from './decide/situation';
import {furthest, NO_WAL} from './lsn';
import {adopted, askStatus, givenUp, missed, report, type ClusterReport, type PeerReport, type StatusDocument} from './status';
import {adoptedState, alone, asksPromotion, frozen, notAlone, roleOf, unfrozen, withoutAsync, withoutDeposed, withoutWish, type ClusterState, type HistoryEntry, type Peer} from './state';
import {lasting, verify, type Finding} from './verify';

export interface OperatorOptions {
  coordination: Coordination;
  /** Whom the history names. */
  by: string;
  clock: Monotonic;
  /** RFC 3339. */
  wallClock: () => string;
  ask?: (peer: Peer) => Promise<StatusDocument>;
}

export interface Waiting {
  deadlineMs: number;
  /** What it waits for, each time that changes. */
  tell?: (text: string) => void;
}

interface Change { next: ClusterState; reason: string; absent?: string[] }

const TRIES = 20;
const LOOK_MS = 250;
const VERIFY_TRIES = 4;
const VERIFY_PAUSE_MS = 1000;
const HISTORY_LIMIT = 10_000;

export class Operator {
  private readonly ask: (peer: Peer) => Promise<StatusDocument>;

  constructor(private readonly options: OperatorOptions) {
    this.ask = options.ask ?? askStatus;
  }

  async status(): Promise<ClusterReport> {
    const {coordination} = this.options;
    const view = await coordination.view();
    // Who is missed is the least that a status says: an entry that cannot be read, which `verify` names, does not hide the rest.
    const history = await coordination.history(HISTORY_LIMIT).catch((err: unknown) => {
      if (isCetusError(err, 'invalid')) return [];
      throw err;
    });
    return report(view, this.ask, missed(history, view));
  }

  /** Oldest first. */
  history(limit: number): Promise<HistoryEntry[]> {
    return this.options.coordination.history(limit);
  }

  /** What is wrong and stays so for some seconds. */
  async verify(): Promise<{findings: Finding[]; report: ClusterReport; transitions: number}> {
    const collections: Finding[][] = [];
    for (;;) {
      const collected = await this.collect();
      collections.push(verify(collected));
      const findings = lasting(collections);
      if (findings.length === 0 || collections.length === VERIFY_TRIES) return {findings, report: collected, transitions: collected.history.length};
      await this.options.clock.sleep(VERIFY_PAUSE_MS);
    }
  }

  private async collect(): Promise<ClusterReport & {history: HistoryEntry[]}> {
    const {coordination} = this.options;
    for (let tries = 0; ; tries += 1) {
      const view = await coordination.view();
      const history = await coordination.history(HISTORY_LIMIT);
      const found = await report(view, this.ask, missed(history, view));
      // All of one version; a cluster that changes all the time is taken as it is found.
      if ((await coordination.view()).version === view.version || tries === TRIES) return {...found, history};
    }
  }

  // ---- orders ----

  async freeze(reason: string): Promise<ClusterState> {
    return this.change((state) => (state.freeze?.reason === reason ? undefined : {next: frozen(state, reason, this.options.by), reason: `frozen: ${reason}`}));
  }

  async unfreeze(): Promise<ClusterState> {
    return this.change((state) => (state.freeze === null ? undefined : {next: unfrozen(state), reason: 'no longer frozen'}));
  }

  /** Makes a member primary and waits until it lets clients in. */
  async promote(id: string, waiting: Waiting): Promise<ClusterState> {
    const untilMs = this.options.clock.nowMs() + waiting.deadlineMs;
    const wished = await this.change((state, view) => {
      const role = roleOf(state, id);
      if (role === 'primary') return undefined;
      if (role === 'none') throw new CetusError('notFound', `${id} is no member of this cluster`);
      if (role === 'deposed') throw new CetusError('conflict', `${id} is deposed: its data have to be restored first, which its sitter does when it runs`);
      if (!isReady(live(view, id), state)) throw new CetusError('conflict', `${id} cannot be promoted: it is not ready (\`cetus db status\` says why)`);
      if (state.oneNodeWriteMode) throw new CetusError('conflict', `only ${state.primary.id} has all that was written in one-node-write mode: \`cetus db one-node-write off\` first`);
      if (state.promote?.peer === id && state.promote.generation === state.generation) return undefined;
      return {next: asksPromotion(state, id, this.options.by), reason: `${id} shall be primary`};
    });
    if (wished.primary.id !== id) await this.untilPrimary(id, untilMs, waiting);
    return this.untilOpen(id, untilMs, waiting);
  }

  private async untilPrimary(id: string, untilMs: number, waiting: Waiting): Promise<void> {
    await this.until(untilMs, waiting, async ({state}) => {
      if (state.primary.id === id) return true;
      if (state.promote?.peer === id) return `${id} to take over; it is ${roleOf(state, id)} in generation ${state.generation}`;
      const [last] = (await this.history(1)).slice(-1);
      throw new CetusError('conflict', `${id} was not promoted: ${last?.reason ?? 'the order is gone'}`);
    }).catch(async (err: unknown) => {
      if (!isCetusError(err, 'timeout')) throw err;
      // Nobody shall be surprised by it later.
      const now = await this.change((state) => (state.promote?.peer === id ? {next: withoutWish(state), reason: `${id} was not promoted in time`} : undefined));
      if (now.primary.id !== id) throw err;
    });
  }

  private async untilOpen(id: string, untilMs: number, waiting: Waiting): Promise<ClusterState> {
    return this.until(untilMs, waiting, async ({state}) => {
      if (state.primary.id !== id) throw new CetusError('conflict', `${id} became primary, and ${state.primary.id} after it`);
      const document = await this.ask(state.primary).catch((err: unknown) => err as Error);
      if (document instanceof Error) return `${id} is primary of generation ${state.generation}; ${document.message}`;
      if (document.facts?.gate === 'open' && document.facts.generation === state.generation) return true;
      return `${id} is primary of generation ${state.generation}, and lets clients in after: ${document.last?.reason ?? 'its start'}`;
    });
  }

  /** Orders a peer to throw its data away and copy them anew, and waits until it is a member again. */
  async rebuild(id: string, waiting: Waiting): Promise<void> {
    const {coordination, clock} = this.options;
    const untilMs = clock.nowMs() + waiting.deadlineMs;
    const view = await coordination.view();
    const state = this.stateOf(view);
    if (!live(view, id)) {
      if (roleOf(state, id) === 'none') throw new CetusError('notFound', `there is no peer ${id}`);
      throw new CetusError('conflict', `${id} is not there to do it: start its sitter first`);
    }
    if (state.primary.id === id) throw new CetusError('conflict', `${id} is the primary, whose data are the truth: promote another peer first`);
    if (!isReady(live(view, state.primary.id), state)) throw new CetusError('conflict', `the primary ${state.primary.id}, to copy from, is not ready`);
    if (state.sync?.id === id && !state.async.some((peer) => isReady(live(view, peer.id), state)))
      throw new CetusError('conflict', `${id} is the sync and there is no other peer that could be: it holds the only second copy`);
    await coordination.orderRebuild(id, true);
    await this.until(untilMs, waiting, async (now) => {
      if (now.view.rebuild.includes(id)) return this.doing(now.view, id, 'to begin');
      const role = roleOf(now.state, id);
      if ((role === 'sync' || role === 'async') && isReady(live(now.view, id), now.state)) return true;
      return this.doing(now.view, id, `${id} has its copy, and a place in the chain is to come`);
    });
  }

  private async doing(view: ClusterView, id: string, otherwise: string): Promise<string> {
    const peer = live(view, id);
    if (!peer) return `${id}, which is not there`;
    const document = await this.ask(peer).catch(() => undefined);
    return document?.last ? `${id}: ${document.last.error ?? document.last.reason}` : otherwise;
  }

  /** A peer that does not come back: it loses its place. One that comes back all the same is a newcomer. */
  async forget(id: string): Promise<ClusterState> {
    const history = await this.options.coordination.history(HISTORY_LIMIT);
    const after = await this.change((state, view) => {
      const role = roleOf(state, id);
      if (role === 'none' && !live(view, id) && !view.rebuild.includes(id) && !history.some((entry) => roleOf(entry.state, id) !== 'none'))
        throw new CetusError('notFound', `neither the cluster's state nor its history names a peer ${id}`);
      if (role === 'none' && !missed(history, view).some((peer) => peer.id === id)) return undefined;
      if (live(view, id)) throw new CetusError('conflict', `${id} is there, and would have its place back at once: stop its sitter first`);
      if (role === 'primary') throw new CetusError('conflict', `${id} is the primary: only the sync${state.sync ? ` ${state.sync.id}` : ''} may take its place, and does so when it can`);
      if (role === 'sync') throw new CetusError('conflict', `${id} is the sync: the primary takes another one when there is one; without any, \`cetus db one-node-write on\` lets it go on alone`);
      const next = role === 'deposed' ? withoutDeposed(state, id) : role === 'async' ? withoutAsync(state, id) : state;
      return {next, reason: givenUp(id), absent: [id]};
    });
    await this.options.coordination.orderRebuild(id, false);
    return after;
  }

  async oneNodeWrite(on: boolean): Promise<ClusterState> {
    const document = on ? await this.primaryDocument() : undefined;
    return this.change((state, view) => {
      if (state.oneNodeWriteMode === on) return undefined;
      if (on) {
        if (!isReady(live(view, state.primary.id), state)) throw new CetusError('conflict', `the primary ${state.primary.id}, which would write alone, is not there`);
        // Nobody can take over from this generation; the next one's initWal is read anew.
        return {next: alone(state, furthest(state.initWal, document?.facts?.wal ?? NO_WAL)), reason: 'one-node-write mode: the primary writes alone'};
      }
      if (!state.async.some((peer) => isReady(live(view, peer.id), state))) throw new CetusError('conflict', 'there is no other peer that is ready, so that no writes would be accepted: start one and wait until it is async');
      return {next: notAlone(state), reason: 'one-node-write mode is over'};
    });
  }

  private async primaryDocument(): Promise<StatusDocument | undefined> {
    const view = await this.options.coordination.view();
    return this.ask(this.stateOf(view).primary).catch(() => undefined);
  }

  /**
   * Makes a cluster of one of a peer that has a database and belongs to none: one that existed before, or what is left where ZooKeeper has lost its memory. `anyway`:
   * although others have data too; the peer's are the truth from then on.
   */
  async adopt(id: string, anyway: boolean): Promise<ClusterState> {
    const {coordination, by, wallClock} = this.options;
    const found = await this.status();
    const {view} = found;
    if (view.state) throw new CetusError('conflict', `there is a cluster already, with the primary ${view.state.primary.id}`);
    const peer = found.peers.find((one) => one.peer.id === id);
    if (!peer?.live) throw new CetusError('notFound', `there is no peer ${id}: its sitter has to run${found.peers.length ? `; there are ${found.peers.map((one) => one.peer.id).join(', ')}` : ''}`);
    if (!peer.document?.facts || peer.document.facts.systemId === null || peer.document.facts.data !== 'present') throw new CetusError('conflict', `${id} has no whole database: ${peer.unanswered ?? 'nothing to adopt'}`);
    const rivals = found.peers.filter((other) => other !== peer && (other.document?.facts?.data === 'present' || other.unanswered !== null));
    if (rivals.length && !anyway)
      throw new CetusError('conflict', `others have data too, and all that ${id} has not would be thrown away: ${[peer, ...rivals].map(shortly).join('; ')}. The one that was primary in the highest generation has everything; --anyway takes ${id}`);
    const {facts} = peer.document;
    // Clients that still know the generation of before go on with a higher one; and no data may seem to have been restored in one that is to come. A copy
    // of a peer that is gone remembers the latter alone, and the history, where only the state was lost, all of them.
    const former = (await coordination.history(HISTORY_LIMIT)).map(({state}) => state.generation);
    const generation = Math.max(0, ...former, ...found.peers.flatMap(({document}) => [document?.facts?.generation ?? 0, document?.facts?.restoredIn ?? 0])) + 1;
    const next: ClusterState = {...adoptedState(peer.live, facts.systemId!, facts.wal ?? NO_WAL), generation};
    await coordination.declare({next, entry: {at: wallClock(), by, reason: adopted(id)}, version: view.version, absent: []});
    return next;
  }

  // ---- how ----

  private stateOf(view: ClusterView): ClusterState {
    if (!view.state) throw new CetusError('notFound', 'there is no cluster here: no state under this path in ZooKeeper');
    return view.state;
  }

  /** `what` answers undefined where nothing is to be done. Answers the state as it is then. */
  private async change(what: (state: ClusterState, view: ClusterView) => Change | undefined): Promise<ClusterState> {
    const {coordination, by, wallClock} = this.options;
    let failure: unknown;
    for (let tries = 0; tries < TRIES; tries += 1) {
      const view = await coordination.view();
      const state = this.stateOf(view);
      const change = what(state, view);
      if (!change) return state;
      try {
        await coordination.declare({next: change.next, entry: {at: wallClock(), by, reason: change.reason}, version: view.version, absent: change.absent ?? []});
        return change.next;
      } catch (err) {
        // Somebody was faster, or it is not known whether we were: look.
        if (!isCetusError(err, 'etagConflict') && !(isCetusError(err) && err.info.outcome === 'unknown')) throw err;
        failure = err;
      }
    }
    throw new CetusError('conflict', 'the state changes all the time', {cause: failure});
  }

  /** `done` answers true, or what is waited for. */
  private async until(untilMs: number, waiting: Waiting, done: (now: {state: ClusterState; view: ClusterView}) => Promise<true | string>): Promise<ClusterState> {
    const {coordination, clock} = this.options;
    let told = '';
    for (;;) {
      try {
        const view = await coordination.view();
        const state = this.stateOf(view);
        const answer = await done({state, view});
        if (answer === true) return state;
        if (answer !== told) waiting.tell?.(answer);
        told = answer;
      } catch (err) {
        if (!isCetusError(err, 'unavailable')) throw err;
        told = err.message;
      }
      if (clock.nowMs() >= untilMs) throw new CetusError('timeout', `not done after ${waiting.deadlineMs / 1000} s; it waits for ${told}`);
      await clock.sleep(LOOK_MS);
    }
  }
}

function shortly({peer, document, unanswered}: PeerReport): string {
  const facts = document?.facts;
  return facts ? `${peer.id} (database ${facts.systemId}, was ${facts.ran}, generation ${facts.generation})` : `${peer.id} (${unanswered})`;
}

