/**
 * Who reaches whom, each direction by itself. Messages between two ends arrive in order, as on a TCP connection: what meets a cut waits and
 * arrives when the cut is healed, late, where the receiving side still cares. Whether it does is for the receiver to know.
 */
import type {Random} from './random';
import type {Timeline} from './timeline';

interface Direction {
  cut: boolean;
  cutAt: number;
  /** No message overtakes the one before. */
  lastArrival: number;
  held: (() => void)[];
}

export class Network {
  private readonly directions = new Map<string, Direction>();

  constructor(private readonly timeline: Timeline, private readonly random: Random) {}

  /** `run` happens at the other end. */
  send(from: string, to: string, run: () => void, usualMs = 0.5): void {
    const direction = this.direction(from, to);
    if (direction.cut) {
      direction.held.push(run);
      return;
    }
    const arrival = Math.max(this.timeline.nowMs + this.random.latency(usualMs), direction.lastArrival);
    direction.lastArrival = arrival;
    this.timeline.after(arrival - this.timeline.nowMs, () => {
      if (direction.cut) direction.held.push(run);
      else run();
    });
  }

  cut(from: string, to: string): void {
    const direction = this.direction(from, to);
    if (!direction.cut) direction.cutAt = this.timeline.nowMs;
    direction.cut = true;
  }

  heal(from: string, to: string): void {
    const direction = this.direction(from, to);
    direction.cut = false;
    const held = direction.held;
    direction.held = [];
    for (const run of held) this.send(from, to, run);
  }

  healAll(): void {
    for (const key of this.directions.keys()) {
      const [from, to] = key.split('>');
      this.heal(from!, to!);
    }
  }

  reaches(from: string, to: string): boolean {
    return !this.direction(from, to).cut;
  }
  /** Both ways. */
  connected(a: string, b: string): boolean {
    return this.reaches(a, b) && this.reaches(b, a);
  }
  /** Since when one of the two directions has been cut, ms; 0 where neither is. */
  cutForMs(a: string, b: string): number {
    let longest = 0;
    for (const direction of [this.direction(a, b), this.direction(b, a)]) if (direction.cut) longest = Math.max(longest, this.timeline.nowMs - direction.cutAt);
    return longest;
  }

  private direction(from: string, to: string): Direction {
    const key = `${from}>${to}`;
    let direction = this.directions.get(key);
    if (!direction) this.directions.set(key, (direction = {cut: false, cutAt: 0, lastArrival: 0, held: []}));
    return direction;
  }
}
