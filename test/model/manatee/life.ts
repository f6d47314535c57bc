/**
 * One run of one process. Whatever comes to it from outside (an answer, a timer, a message) comes through `deliver`: a stopped process
 * gets it when it is continued, in the order in which it came; a dead one never.
 */
import type {Timeline} from './timeline';

export class Life {
  dead = false;
  /** How many reasons there are for it to stand still: itself stopped, its machine stopped. */
  private stops = 0;
  private backlog: (() => void)[] = [];
  private readonly ends: (() => void)[] = [];

  /** `awaits`: it is real code, which a delivery may wake out of an await. What is simulated has callbacks only, and saves the look for that. */
  constructor(readonly timeline: Timeline, private readonly awaits = true) {}

  get stopped(): boolean {
    return this.stops > 0;
  }

  deliver(run: () => void): void {
    if (this.dead) return;
    if (this.stops > 0) {
      this.backlog.push(run);
      return;
    }
    if (this.awaits) this.timeline.touch();
    run();
  }

  after(delayMs: number, run: () => void): void {
    this.timeline.after(delayMs, () => this.deliver(run));
  }

  stop(): void {
    this.stops += 1;
  }

  proceed(): void {
    this.stops -= 1;
    if (this.stops > 0 || this.dead) return;
    const waiting = this.backlog;
    this.backlog = [];
    // One event each: what one of them wakes has run before the next, and may stop or end us.
    for (const run of waiting) this.timeline.after(0, () => this.deliver(run));
  }

  die(): void {
    if (this.dead) return;
    this.dead = true;
    this.backlog = [];
    for (const tell of this.ends) tell();
  }

  onDeath(tell: () => void): void {
    this.ends.push(tell);
  }
}
