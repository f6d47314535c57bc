/** A cluster of three as plain objects, for what only looks at one and for what writes its state: a Coordination in memory, and peers' status documents. */
import {CetusError} from '../../lib/base/errors';
import type {ClusterView, Coordination, LivePeer, Monotonic} from '../../lib/manatee/coordination';
import type {ServerFacts} from '../../lib/manatee/server';
import {membersOf, roleOf, upstreamOf, type ClusterState, type HistoryEntry, type Peer} from '../../lib/manatee/state';
import type {StatusDocument} from '../../lib/manatee/status';

export const SYSTEM = '7000000000000000001';

export const peer = (id: string): Peer => ({id, host: `${id}.example`, port: 5432, statusUrl: `http://${id}.example:5433/`});
export const live = (id: string, more: Partial<LivePeer> = {}): LivePeer => ({...peer(id), systemId: SYSTEM, ready: true, restoredIn: 0, order: id.charCodeAt(0), mine: false, ...more});

export const three = (more: Partial<ClusterState> = {}): ClusterState => ({
  generation: 3, primary: peer('a'), sync: peer('b'), async: [peer('c')], deposed: [], initWal: '0/3000000', systemId: SYSTEM, freeze: null, oneNodeWriteMode: false, promote: null, ...more,
});

export function factsOf(state: ClusterState, id: string, more: Partial<ServerFacts> = {}): ServerFacts {
  const primary = state.primary.id === id;
  return {
    data: 'present', systemId: SYSTEM, process: 'running', downSinceMs: null, ran: primary ? 'primary' : 'standby', inRecovery: !primary, wal: primary ? '0/5000100' : '0/5000000',
    upstream: upstreamOf(state, id)?.id ?? null, receiving: !primary, diverged: false,
    acknowledger: primary ? (state.oneNodeWriteMode ? {kind: 'alone'} : state.sync ? {kind: 'peer', id: state.sync.id} : {kind: 'nobody'}) : {kind: 'nobody'},
    standbys: primary && state.sync ? [{id: state.sync.id, state: 'streaming', flushed: '0/5000000'}] : [], gate: primary ? 'open' : 'closed', generation: primary ? state.generation : 0, restoredIn: 0, ...more,
  };
}

export function documentOf(state: ClusterState, id: string, facts: Partial<ServerFacts> = {}, more: Partial<StatusDocument> = {}): StatusDocument {
  return {
    peer: peer(id), seen: {generation: state.generation, version: 7}, facts: factsOf(state, id, facts), leaseLeftMs: 2000, last: {step: 'wait', reason: 'nothing is to be done', error: null},
    trail: [], overrides: [{role: '', database: '', name: 'synchronous_commit', value: 'on'}], ...more,
  };
}

/** Time passes only while somebody sleeps; `onSleep` is where a test lets things happen. */
export class FakeTime implements Monotonic {
  private at = 0;
  onSleep: () => void = () => undefined;
  nowMs(): number {
    return this.at;
  }

  async sleep(ms: number): Promise<void> {
    this.at += ms;
    this.onSleep();
    await Promise.resolve();
  }
}

export class MemoryCoordination implements Coordination {
  version: number;
  entries: HistoryEntry[] = [];
  rebuild = new Set<string>();
  /** Called before each write: somebody else may be faster. */
  before: () => void = () => undefined;

  constructor(public state: ClusterState | null, public peers: LivePeer[]) {
    this.version = state ? 0 : -1;
    if (state) this.entries.push({at: '2026-01-01T00:00:00Z', by: 'a', reason: 'first', state});
  }

  write(state: ClusterState, by = 'somebody'): void {
    this.state = state;
    this.version += 1;
    this.entries.push({at: '2026-01-01T00:00:01Z', by, reason: `by ${by}`, state});
  }

  async view(): Promise<ClusterView> {
    return Promise.resolve({state: this.state, version: this.version, peers: [...this.peers], rebuild: [...this.rebuild]});
  }

  async declare({next, entry, version, absent}: Parameters<Coordination['declare']>[0]): Promise<void> {
    this.before();
    if (version !== this.version || absent.some((id) => this.peers.some((one) => one.id === id))) throw new CetusError('etagConflict', 'somebody wrote first');
    this.state = next;
    this.version += 1;
    this.entries.push({...entry, state: next});
    return Promise.resolve();
  }

  announce(): Promise<void> { return Promise.resolve(); }
  withdraw(): Promise<void> { return Promise.resolve(); }
  orderRebuild(id: string, wanted: boolean): Promise<void> {
    if (wanted) this.rebuild.add(id);
    else this.rebuild.delete(id);
    return Promise.resolve();
  }

  history(limit: number): Promise<HistoryEntry[]> { return Promise.resolve(this.entries.slice(-limit)); }
  leaseUntilMs(): number { return Infinity; }
  onChange(): () => void { return () => undefined; }
  close(): Promise<void> { return Promise.resolve(); }
}

export const allLive = (state: ClusterState): LivePeer[] => membersOf(state).filter(({id}) => roleOf(state, id) !== 'none').map(({id}) => live(id));
