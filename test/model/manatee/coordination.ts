/**
 * What one process sees of the simulated ensemble: Coordination, with a connection that breaks, a session that may have expired meanwhile, and
 * answers that are lost. The lease is the real one's (zookeeper/lease.ts), on the process' own clock.
 */
import {CetusError} from '../../../lib/base/errors';
import type {Announcement, ClusterView, Coordination, Declaration} from '../../../lib/manatee/coordination';
import type {HistoryEntry} from '../../../lib/manatee/state';
import {Lease} from '../../../lib/manatee/zookeeper/lease';
import {type Connection, type Ensemble, type Operation, type Session, ZK} from './ensemble';
import type {Life} from './life';
import type {Network} from './network';
import type {Random} from './random';

export interface ClientOptions {
  ensemble: Ensemble;
  network: Network;
  random: Random;
  life: Life;
  endpoint: string;
  sessionTimeoutMs: number;
  /** The process' monotonic clock. */
  nowMs: () => number;
}

interface Pending { sentMs: number; settle: (result: {value: unknown} | {error: CetusError}) => void }

export class SimCoordination implements Coordination {
  private readonly listeners = new Set<() => void>();
  private readonly pending = new Set<Pending>();
  private connection: Connection | null = null;
  private session: Session | null = null;
  private heardMs: number;
  private readonly lease = new Lease();
  private closed = false;
  private beating = false;

  constructor(private readonly options: ClientOptions) {
    this.heardMs = options.nowMs();
    options.life.onDeath(() => this.hangUp());
    this.connect();
    this.keepAlive();
  }

  view(): Promise<ClusterView> {
    return this.ask({kind: 'view'}) as Promise<ClusterView>;
  }
  async declare(declaration: Declaration): Promise<void> {
    await this.ask({kind: 'declare', declaration});
  }
  async announce(announcement: Announcement): Promise<void> {
    await this.ask({kind: 'announce', announcement});
  }
  async withdraw(): Promise<void> {
    await this.ask({kind: 'withdraw', id: this.options.endpoint});
  }
  async orderRebuild(id: string, wanted: boolean): Promise<void> {
    await this.ask({kind: 'orderRebuild', id, wanted});
  }
  async history(limit: number): Promise<HistoryEntry[]> {
    return (await this.ask({kind: 'history', limit})) as HistoryEntry[];
  }

  leaseUntilMs(): number {
    return this.lease.until();
  }

  onChange(listener: () => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  /** An orderly goodbye: the session ends with it, where it arrives. */
  async close(): Promise<void> {
    const {session, connection} = this;
    const {ensemble, network, endpoint} = this.options;
    if (session && connection) network.send(endpoint, ZK, () => connection.open && ensemble.closeSession(session));
    this.closed = true;
    this.lease.ended();
    this.lost();
  }

  private ask(operation: Operation): Promise<unknown> {
    const {ensemble, network, endpoint, life, nowMs, random} = this.options;
    const connection = this.connection;
    if (!connection || this.closed) return Promise.reject(new CetusError('unavailable', 'no connection to ZooKeeper'));
    return new Promise((resolve, reject) => {
      const pending: Pending = {
        sentMs: nowMs(),
        settle: (result) => {
          if (!this.pending.delete(pending)) return;
          if ('value' in result) resolve(result.value);
          else reject(result.error);
        },
      };
      this.pending.add(pending);
      const declaration = operation.kind === 'declare' ? ensemble.sends(connection) : undefined;
      network.send(endpoint, ZK, () => ensemble.submit(connection, operation, (result) => network.send(ZK, endpoint, () => life.deliver(() => {
        if (this.connection !== connection) return;
        this.heardMs = nowMs();
        // A view begins with a write that changes nothing.
        if ('value' in result && operation.kind !== 'history') this.lease.answered(pending.sentMs, nowMs());
        pending.settle(result);
      })), declaration), random.chance(0.01) ? 20 : 0.4);
    });
  }

  private connect(): void {
    const {ensemble, network, endpoint, life, sessionTimeoutMs, random, nowMs} = this.options;
    if (this.closed || life.dead) return;
    const attempt: Connection = {
      endpoint, open: false, session: null, hinted: false, reporting: false, serverDied: false,
      onHint: () => life.deliver(() => this.connection === attempt && this.hint()),
      onBroken: () => life.deliver(() => this.connection === attempt && this.lost()),
    };
    let answered = false;
    const old = this.session;
    const askedMs = nowMs();
    network.send(endpoint, ZK, () => {
      // A connection that its client has given up, or a server that is not there: nobody answers.
      if (!ensemble.up || answered || life.dead) return;
      const session = ensemble.connect(attempt, old, sessionTimeoutMs);
      network.send(ZK, endpoint, () => life.deliver(() => {
        if (answered || this.closed) return;
        answered = true;
        this.heardMs = nowMs();
        this.session = session;
        if (session) {
          this.connection = attempt;
          this.lease.connected(askedMs, sessionTimeoutMs, !old);
        } else {
          this.lease.ended();
          this.connect();
        }
        this.hint();
      }));
    }, 1);
    life.after(sessionTimeoutMs / 4 + random.between(0, 200), () => {
      if (answered) return;
      answered = true;
      this.connect();
    });
  }

  /** A beat every sixth of the timeout, after the one before; a connection that says nothing for a third is given up. */
  private keepAlive(): void {
    const {life, sessionTimeoutMs, nowMs} = this.options;
    life.after(sessionTimeoutMs / 6, () => {
      if (this.closed) return;
      if (this.connection && nowMs() - this.heardMs > sessionTimeoutMs / 3) this.lost();
      if (this.connection && !this.beating) {
        this.beating = true;
        const over = (): void => {
          this.beating = false;
        };
        this.ask({kind: 'beat'}).then(over, over);
      }
      this.keepAlive();
    });
  }

  private lost(): void {
    this.hangUp();
    for (const pending of [...this.pending])
      pending.settle({error: new CetusError('unavailable', 'the connection to ZooKeeper was lost', {info: {outcome: 'unknown'}})});
    if (this.closed) return;
    this.hint();
    this.options.life.after(this.options.random.between(20, 200), () => this.connect());
  }

  /** The server hears of it where it can be reached; what is on its way there may still be carried out. */
  private hangUp(): void {
    const connection = this.connection;
    if (!connection) return;
    this.connection = null;
    const {ensemble, network, endpoint} = this.options;
    network.send(endpoint, ZK, () => ensemble.closeAtServer(connection));
  }

  private hint(): void {
    for (const listener of [...this.listeners]) listener();
  }
}
