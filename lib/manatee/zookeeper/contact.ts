/**
 * Contact with ZooKeeper for as long as the process runs: a session, and a new one where that one has expired; kept alive by a question every
 * sixth of its timeout, where nobody else asks. Nothing here is repeated for a caller: what the expired session held is gone, and `changed` says so.
 */
import {CetusError} from '../../base/errors';
import type {Log} from '../../base/log';
import type {Monotonic} from '../coordination';
import {Session} from './session';

export interface ContactOptions {
  servers: string;
  sessionTimeoutMs: number;
  clock: Monotonic;
  log: Log;
  /** What keeps the session alive and finds a server that has stalled. */
  beat(session: Session): Promise<unknown>;
}

/** While there is no connection: the next look whether there is one. */
const IDLE_MS = 50;

export class Contact {
  private readonly listeners = new Set<() => void>();
  private readonly closing = new AbortController();
  private current: Session;
  /** Sessions that were ours, this process's: what they left may be taken over. */
  private readonly own = new Set<string>();

  constructor(private readonly options: ContactOptions) {
    if (!/^[^\s:,/]+:\d+(,[^\s:,/]+:\d+)*$/.test(options.servers)) throw new CetusError('invalid', `${JSON.stringify(options.servers)} is no list of ZooKeeper servers, host:port,host:port`);
    this.current = this.begin();
    void this.beat();
  }

  /** Throws `unavailable` where there is no connection now. */
  session(): Session {
    if (!this.current.connected()) throw new CetusError('unavailable', `there is no connection to ZooKeeper at ${this.options.servers}`);
    return this.current;
  }

  connected(): boolean { return this.current.connected(); }
  leaseUntilMs(): number { return this.current.leaseUntilMs(); }
  isOwn(session: string): boolean { return this.own.has(session); }

  onChange(listener: () => void): () => void {
    this.listeners.add(listener);
    return () => { this.listeners.delete(listener); };
  }

  /** Throws `unavailable` where no connection came. */
  async ready(timeoutMs: number): Promise<void> {
    if (this.connected()) return;
    let stop = (): void => undefined;
    const waited = new AbortController();
    stop = this.onChange(() => { if (this.connected()) waited.abort(); });
    await this.options.clock.sleep(timeoutMs, AbortSignal.any([waited.signal, this.closing.signal]));
    stop();
    this.session();
  }

  async close(): Promise<void> {
    this.closing.abort();
    this.listeners.clear();
    await this.current.close();
  }

  private begin(): Session {
    const {servers, sessionTimeoutMs, clock, log} = this.options;
    return new Session({
      servers, sessionTimeoutMs, clock, log,
      changed: () => this.changed(),
      expired: () => {
        if (this.closing.signal.aborted) return;
        this.current = this.begin();
        this.changed();
      },
    });
  }

  private changed(): void {
    // The first call comes from within the first session's constructor at the earliest, never before it is assigned: connecting takes a turn.
    if (this.current.connected()) this.own.add(this.current.id());
    for (const listener of [...this.listeners]) listener();
  }

  /**
   * Whatever else a quorum has answered meanwhile is as good as a beat. Two rhythms beside each other would be no safer, and have the servers hear of us on
   * average a thirtieth of the timeout later: by that much later do they notice that we have died.
   */
  private async beat(): Promise<void> {
    const {clock, beat, log} = this.options;
    const {signal} = this.closing;
    let beaten: {session: Session; sentMs: number} | undefined;
    while (!signal.aborted) {
      const session = this.current;
      const sentMs = Math.max(session.agreedMs(), beaten?.session === session ? beaten.sentMs : -Infinity);
      const restMs = session.connected() ? sentMs + session.timeoutMs() / 6 - clock.nowMs() : IDLE_MS;
      if (restMs > 0) {
        await clock.sleep(restMs, signal);
        continue;
      }
      beaten = {session, sentMs: clock.nowMs()};
      // A beat that is lost has told the session already, which looks for another server.
      await beat(session).catch((err) => log.debug({err}, 'a beat was lost'));
    }
  }
}
