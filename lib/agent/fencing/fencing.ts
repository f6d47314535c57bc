/**
 * Whether what is marked for rescheduling may run here, and its end when it may not (lib/fleet/README.md has the argument of which this is step 1 and 6).
 *
 * It may run until `fenceAfterMs` after the SENDING of the last heartbeat that was answered. It may be started in that time, once the present life has asked for its
 * assignments. A lease that ends and is renewed in the same life needs no further question: as long as a life is answered, it was never fenced.
 */
import {CetusError} from '../../base/errors';
import type {Clock} from '../../base/clock';
import type {Log} from '../../base/log';
import type {HeartbeatAnswer} from '../../schema/agent';
import type {Guard} from './guard-link';

export interface FencingParts {
  clock: Clock;
  log: Log;
  guard: Guard;
  /** CLOCK_BOOTTIME. */
  nowMs(): number;
  /** Marked containers of which something may run. */
  running(): string[];
  kill(ids: string[]): Promise<void>;
}

/** What was killed needs a moment to go, and what was under way is found by the next look. */
const LOOK_MS = 200;
/** A node can be given containers from its joining on; its first lease follows within moments. */
const FIRST_LEASE_MS = 5_000;

export class Fencing {
  private untilMs: number;
  private assigned = false;
  /** The present life has had a lease. */
  private leased = false;
  /** Marked ones of which the control plane knows nothing. */
  private barred: ReadonlySet<string> = new Set();
  private waiting: (() => void)[] = [];
  private lapsed = false;
  private readonly stop = new AbortController();
  private wake = new AbortController();
  private loop: Promise<void> = Promise.resolve();

  constructor(private readonly parts: FencingParts) {
    // What an earlier life may still run by.
    this.untilMs = parts.guard.left()?.untilMs ?? -Infinity;
  }

  /** Once the node's containers are known. */
  begin(): void {
    this.loop = this.watch();
  }

  async close(): Promise<void> {
    this.stop.abort(new CetusError('canceled', 'the agent closes'));
    this.wake.abort();
    await this.loop;
    this.parts.guard.close();
  }

  nowMs(): number {
    return this.parts.nowMs();
  }

  mark(id: string): void {
    this.parts.guard.mark(id);
  }

  unmark(id: string): void {
    this.parts.guard.unmark(id);
  }

  /** What is marked is exactly this. */
  marks(ids: ReadonlySet<string>): void {
    const {guard} = this.parts;
    for (const id of ids) guard.mark(id);
    for (const id of guard.marked()) if (!ids.has(id)) guard.unmark(id);
  }

  /** Of a heartbeat that was sent at that moment. */
  renewed(sentMs: number, {leaseMs, fenceAfterMs}: HeartbeatAnswer): void {
    const untilMs = fenceAfterMs === undefined ? Infinity : sentMs + fenceAfterMs;
    // Answers may overtake each other: a lease is never shortened by one. Of an unlimited one that is limited now, it is.
    if (untilMs < this.untilMs && this.untilMs !== Infinity) return;
    // First the guard: it must not strike while we believe ourselves covered.
    if (fenceAfterMs !== undefined || this.parts.guard.left()) this.parts.guard.extend(untilMs, untilMs + leaseMs / 4);
    this.untilMs = untilMs;
    this.leased = true;
    this.wake.abort();
    this.release();
  }

  /** The control plane calls this life fenced: whatever our clock says, it is over. */
  async lifeOver(): Promise<void> {
    this.parts.log.warn('this life of the node was fenced: what is marked for rescheduling is stopped');
    this.untilMs = -Infinity;
    this.assigned = false;
    this.leased = false;
    this.wake.abort();
    await this.killRunning();
  }

  /** A new life has joined. */
  joined(): void {
    this.assigned = false;
    this.leased = false;
  }

  assignedTo(unknown: readonly string[]): void {
    this.barred = new Set(unknown);
    this.assigned = true;
    this.release();
  }

  permits(id: string): boolean {
    return this.assigned && !this.barred.has(id) && this.parts.nowMs() < this.untilMs;
  }

  mustPermit(id: string): void {
    if (!this.permits(id)) throw new CetusError('unavailable', `container ${id} may be started elsewhere: this node has no lease under which it could run here`, {shown: 'the node that has the container has no lease at present'});
  }

  /** As mustPermit, for an order. One that comes between the joining and the first lease waits for that; one that comes after the end of a lease does not. */
  async admit(id: string): Promise<void> {
    if (!this.leased || !this.assigned) {
      const over = new AbortController();
      void this.parts.clock.sleep(FIRST_LEASE_MS, over.signal).then(() => over.abort(), () => undefined);
      await this.permitted(id, AbortSignal.any([over.signal, this.stop.signal]));
      over.abort();
    }
    this.mustPermit(id);
  }

  /** Resolves when it may be started. */
  async permitted(id: string, signal: AbortSignal): Promise<void> {
    while (!this.permits(id) && !signal.aborted) {
      await new Promise<void>((resolve) => {
        const wake = (): void => {
          signal.removeEventListener('abort', wake);
          resolve();
        };
        this.waiting.push(wake);
        signal.addEventListener('abort', wake, {once: true});
      });
    }
  }

  private release(): void {
    if (this.untilMs > this.parts.nowMs() && this.lapsed) {
      this.lapsed = false;
      this.parts.log.info('the lease is renewed: what is marked for rescheduling may run again');
    }
    for (const wake of this.waiting.splice(0)) wake();
  }

  private async watch(): Promise<void> {
    const {clock, log, nowMs} = this.parts;
    while (!this.stop.signal.aborted) {
      const leftMs = this.untilMs - nowMs();
      if (leftMs <= 0) await this.killRunning().catch((err: unknown) => log.error({err}, 'what is marked for rescheduling could not be stopped; trying again'));
      if (this.stop.signal.aborted) return;
      this.wake = new AbortController();
      // While nothing is marked, too: what is started after the end of the lease is refused, and what was under way is found.
      await clock.sleep(leftMs > 0 ? leftMs : LOOK_MS, AbortSignal.any([this.wake.signal, this.stop.signal])).catch(() => undefined);
    }
  }

  private async killRunning(): Promise<void> {
    const {log, running, kill} = this.parts;
    const ids = running();
    if (!ids.length) return;
    if (!this.lapsed) log.warn({containers: ids}, 'no endpoint has answered for so long that others may start them: what is marked for rescheduling is stopped');
    this.lapsed = true;
    await kill(ids);
  }
}
