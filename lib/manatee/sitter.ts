/**
 * One beside each Postgres: looks at ZooKeeper and at its server, decides (decide/), does that one thing, and looks again. It keeps nothing between two
 * turns that a decision depends on, so that a new sitter over the same data goes on where the old one ended.
 *
 * Beside the turns runs the pulse: it tells the watchdog until when the server may go on without hearing more of us. While clients are let in that
 * is the lease, and the gate is closed in an orderly way before it ends; else there is no end.
 */
import {isCetusError} from '../base/errors';
import type {Log} from '../base/log';
import type {ClusterView, Coordination, Monotonic} from './coordination';
import {decide} from './decide/decide';
import type {Action, Step} from './decide/action';
import {live, type Policy} from './decide/situation';
import {Interrupt} from './interrupt';
import {perform} from './perform';
import type {PostgresServer, ServerFacts} from './server';
import {Sight} from './sight';
import type {Peer} from './state';

export interface SitterOptions {
  self: Peer;
  policy: Policy;
  coordination: Coordination;
  server: PostgresServer;
  clock: Monotonic;
  /** RFC 3339. */
  wallClock: () => string;
  /** ZooKeeper's, as asked for. */
  sessionTimeoutMs: number;
  /** Looks again after so long even where nothing was said to have changed. Default: a sixth of the session's timeout. */
  pollMs?: number;
  log: Log;
}

/** What `cetus db status` shows of a peer. */
export interface SitterStatus {
  peer: Peer;
  view: ClusterView | null;
  facts: ServerFacts | null;
  /** Of the lease, at the time of the answer; 0: none. */
  leaseLeftMs: number;
  last: {action: Action; error?: string} | null;
}

interface Pause { pauseMs: number; signal: Interrupt }

/** After which a primary that lets nobody in looks again, half as long again each time: that its sync has caught up is told by nobody, and comes within a moment. */
const FIRST_LOOK_MS = 10;
const FIRST_RETRY_MS = 50;
const LAST_RETRY_MS = 2_000;

/** Done with our own Postgres, and changes nothing in ZooKeeper. */
const TOLD: ReadonlySet<Step['kind']> = new Set(['announce', 'withdraw', 'declare', 'rebuild']);
const isLocal = (step: Step): boolean => !TOLD.has(step.kind);

export class Sitter {
  private readonly ending = new Interrupt();
  private wake = new Interrupt();
  private readonly sight: Sight;
  private view: ClusterView | null = null;
  private facts: ServerFacts | null = null;
  private last: SitterStatus['last'] = null;
  private loops: Promise<unknown> = Promise.resolve();
  private readonly off: (() => void)[] = [];
  private retryMs = FIRST_RETRY_MS;
  private lookMs = FIRST_LOOK_MS;
  /** Clients are let in, or may be: true from before the gate is opened until it has been seen closed; undefined: not looked yet. */
  private serving: boolean | undefined;

  constructor(private readonly options: SitterOptions) {
    this.sight = new Sight(() => this.look(), options.clock, this.pollMs);
  }

  start(): void {
    const wake = (): void => this.wake.abort();
    const changed = (): void => {
      this.sight.hint();
      wake();
    };
    this.off.push(this.options.coordination.onChange(changed), this.options.server.onChange(wake));
    this.loops = Promise.all([this.turns(), this.pulse()]);
  }

  /** Ends looking and deciding; server, session and gate stay as they are. See `retire`. */
  async halt(): Promise<void> {
    this.ending.abort();
    this.wake.abort();
    for (const off of this.off.splice(0)) off();
    await this.loops;
  }

  /** An orderly end: clients out, the server down with everything sent to its standbys, our place given free, so that the sync need not wait for the session to expire. */
  async retire(): Promise<void> {
    await this.halt();
    const {server, coordination, log} = this.options;
    const stages: [string, () => Promise<void>][] = [['close the gate', () => this.closeForGood()], ['stop Postgres', () => server.stop('fast')], ['withdraw', () => coordination.withdraw()]];
    for (const [what, stage] of stages) await stage().catch((err: unknown) => log.warn({err}, `${what} while ending`));
    await server.close();
    await coordination.close();
  }

  private async closeForGood(): Promise<void> {
    await this.options.server.closeGate();
    // Nobody moves the lease on any more: its end must not break off what the standbys are still sent.
    this.options.server.permitUntil(Infinity);
  }

  status(): SitterStatus {
    const {self, clock, coordination} = this.options;
    return {peer: self, view: this.view, facts: this.facts, leaseLeftMs: Math.max(0, Math.round(coordination.leaseUntilMs() - clock.nowMs())), last: this.last};
  }

  private async turns(): Promise<void> {
    const {clock} = this.options;
    while (!this.ending.aborted) {
      // Whatever changes from here on is looked at in the next turn.
      this.wake = new Interrupt();
      if (this.ending.aborted) return;
      const {pauseMs, signal} = await this.turn().catch((err: unknown) => this.failed(err));
      if (pauseMs > 0) await clock.sleep(pauseMs, signal);
    }
  }

  /** Answers how long to wait before the next one, and what ends that wait. */
  private async turn(): Promise<Pause> {
    const {self, policy, server, clock} = this.options;
    const [view, facts] = await Promise.all([this.sight.view(), server.facts()]);
    this.view = view ?? this.view;
    this.facts = facts;
    this.serving = facts.gate === 'open';
    this.permit();
    const action = decide({self, policy, view, facts, nowMs: clock.nowMs(), leaseUntilMs: this.closesAtMs});
    this.tell(action);
    if (action.step.kind === 'wait') {
      this.last = {action};
      this.retryMs = FIRST_RETRY_MS;
      return {pauseMs: this.clientsWait(facts) ? this.hurried(facts) : this.untilNextLook(facts), signal: this.wake};
    }
    this.lookMs = FIRST_LOOK_MS;
    return this.perform(action);
  }

  private async perform(action: Action): Promise<Pause> {
    const {self, coordination, server, wallClock} = this.options;
    if (action.step.kind === 'openGate') {
      // Before, not after: we may be stopped as soon as it is open.
      this.serving = true;
      this.permit();
    }
    try {
      if (isLocal(action.step)) this.sight.ahead();
      await perform(action.step, action.reason, {coordination, server, selfId: self.id, now: wallClock});
      this.seen(action.step);
      this.last = {action};
      this.retryMs = FIRST_RETRY_MS;
      return {pauseMs: 0, signal: this.wake};
    } catch (err) {
      this.sight.hint();
      const error = err instanceof Error ? err.message : String(err);
      if (this.last?.error !== error) this.options.log.warn({err, ...action}, `${action.step.kind} failed`);
      this.last = {action, error};
      // Somebody was faster: look at once at what is now.
      return isCetusError(err, 'etagConflict') ? {pauseMs: 1, signal: this.wake} : this.backOff();
    }
  }

  /** What a step of ours has made of the view that it was decided from. */
  private seen(step: Step): void {
    if (step.kind === 'declare') this.sight.wrote({...this.view!, state: step.next, version: step.version + 1});
    else if (!isLocal(step)) this.sight.hint();
  }

  private clientsWait({inRecovery, gate}: ServerFacts): boolean {
    return inRecovery === false && gate === 'closed';
  }

  private hurried(facts: ServerFacts): number {
    const pauseMs = Math.min(this.lookMs, this.untilNextLook(facts));
    this.lookMs = Math.min(this.lookMs * 1.5, this.pollMs);
    return pauseMs;
  }

  /** Not shortened by hints: what failed often makes one itself. */
  private backOff(): Pause {
    const pauseMs = Math.min(this.retryMs, this.facts ? this.untilNextLook(this.facts) : this.pollMs);
    this.retryMs = Math.min(this.retryMs * 2, LAST_RETRY_MS);
    return {pauseMs, signal: this.ending};
  }

  private failed(err: unknown): Pause {
    this.options.log.error({err}, 'a turn failed');
    return this.backOff();
  }

  private tell(action: Action): void {
    const before = this.last?.action;
    if (before?.step.kind === action.step.kind && before.reason === action.reason) return;
    this.options.log.info({...action}, action.step.kind === 'wait' ? `waiting: ${action.reason}` : `${action.step.kind}: ${action.reason}`);
  }

  /** null: ZooKeeper does not answer, or not before clients would have to be sent away. */
  private async look(): Promise<ClusterView | null> {
    const {coordination, clock, sessionTimeoutMs} = this.options;
    const answered = new Interrupt();
    const boundMs = this.serving ? Math.max(1, Math.min(this.closesAtMs - clock.nowMs(), sessionTimeoutMs / 2)) : sessionTimeoutMs / 2;
    try {
      return await Promise.race([coordination.view(), clock.sleep(boundMs, answered).then(() => null)]);
    } catch (err) {
      return this.blind(err);
    } finally {
      answered.abort();
    }
  }

  private blind(err: unknown): null {
    if (!isCetusError(err, 'unavailable') && !isCetusError(err, 'timeout')) this.options.log.error({err}, 'the state in ZooKeeper cannot be read');
    return null;
  }

  private get pollMs(): number {
    return this.options.pollMs ?? this.options.sessionTimeoutMs / 6;
  }

  /** The next look by the timer, or when the lease ends or the server's grace, if that comes first. */
  private untilNextLook(facts: ServerFacts): number {
    const {clock, policy} = this.options;
    const moments = [clock.nowMs() + this.pollMs];
    if (facts.gate === 'open') moments.push(this.closesAtMs);
    if (facts.downSinceMs !== null) moments.push(facts.downSinceMs + policy.restartGraceMs);
    const future = moments.map((moment) => moment - clock.nowMs()).filter((ms) => ms > 0);
    return Math.max(1, Math.min(...future));
  }

  private async pulse(): Promise<void> {
    const {clock, sessionTimeoutMs} = this.options;
    while (!this.ending.aborted) {
      this.permit();
      await clock.sleep(sessionTimeoutMs / 12, this.ending);
    }
  }

  /**
   * Says nothing where nothing is known (not looked yet, no lease), nor where the lease is of a session in which this peer has no node, which protects nobody: then what
   * was last permitted holds, by us or by the sitter before us. A server that hangs with its gate open would else outlive the session that its clients were let in by.
   */
  private permit(): void {
    const {server, coordination, self} = this.options;
    if (this.serving === undefined) return;
    if (!this.serving) return server.permitUntil(Infinity);
    const leaseUntilMs = coordination.leaseUntilMs();
    if (leaseUntilMs !== -Infinity && this.view && live(this.view, self.id)?.mine) server.permitUntil(leaseUntilMs);
  }

  /**
   * An eighth of the session before the lease ends, for closing the gate in an orderly way. Not after it: what a lease has to spare it may already have used, where the
   * ZooKeeper server died that we last spoke to (zookeeper/lease.ts); at its end the watchdog ends the server.
   */
  private get closesAtMs(): number {
    return this.options.coordination.leaseUntilMs() - this.options.sessionTimeoutMs / 8;
  }
}
