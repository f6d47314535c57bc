/**
 * What the clients of a cluster were told: of each write whether it was acknowledged, refused (it has not happened) or neither, and when. Writes are
 * (writer, n); a writer makes them one after the other and never repeats one, so each may stand in the database once at most.
 */
export interface Acknowledged { sentMs: number; ackedMs: number }

class Writes {
  readonly acked = new Set<number>();
  readonly unknown = new Set<number>();
  readonly refused = new Set<number>();
  /** A writer's writes are acknowledged in their order. */
  lastAcked = 0;
}

export class Ledger {
  private readonly writers = new Map<string, Writes>();
  /** When something was acknowledged, in order of time. */
  readonly moments: Acknowledged[] = [];
  /** What must not be; a checker fails where there is anything. */
  readonly violations: string[] = [];

  writer(name: string): Writes {
    const found = this.writers.get(name) ?? new Writes();
    this.writers.set(name, found);
    return found;
  }

  acked(writer: string, n: number, sentMs: number): void {
    const writes = this.writer(writer);
    writes.acked.add(n);
    writes.lastAcked = n;
    this.moments.push({sentMs, ackedMs: performance.now()});
  }

  get counts(): {acked: number; unknown: number; refused: number} {
    const sum = {acked: 0, unknown: 0, refused: 0};
    for (const writes of this.writers.values()) for (const kind of ['acked', 'unknown', 'refused'] as const) sum[kind] += writes[kind].size;
    return sum;
  }

  /** What each writer had been told was done, by now. */
  promised(): Map<string, number> {
    return new Map([...this.writers].map(([name, {lastAcked}]) => [name, lastAcked]));
  }

  /** A copy of what must be there, taken before the look that it is compared with. */
  snapshot(): Map<string, Set<number>> {
    return new Map([...this.writers].map(([name, {acked}]) => [name, new Set(acked)]));
  }

  /** `found`: all writes of a writer that stand in the database, as often as they do. */
  compare(promised: Map<string, Set<number>>, found: Map<string, number[]>): string[] {
    const wrong: string[] = [];
    for (const [name, acked] of promised) {
      const there = new Set(found.get(name) ?? []);
      const missing = [...acked].filter((n) => !there.has(n));
      if (missing.length) wrong.push(`${missing.length} acknowledged writes of ${name} are missing: ${missing.slice(0, 20).join(', ')}`);
    }
    for (const [name, all] of found) {
      const {acked, refused} = this.writer(name);
      const doubled = all.length - new Set(all).size;
      if (doubled) wrong.push(`${doubled} writes of ${name} stand there more than once`);
      const impossible = all.filter((n) => refused.has(n) && !acked.has(n));
      if (impossible.length) wrong.push(`${impossible.length} writes of ${name} that were refused stand there: ${impossible.slice(0, 20).join(', ')}`);
    }
    return wrong;
  }

  /** The longest time from `sinceMs` on in which nothing was acknowledged; a write that was sent before counts for nothing. */
  outageMs(sinceMs: number): number {
    let [longest, last] = [0, sinceMs];
    for (const {ackedMs} of this.moments.filter((moment) => moment.sentMs >= sinceMs)) {
      longest = Math.max(longest, ackedMs - last);
      last = ackedMs;
    }
    return Math.max(longest, last === sinceMs ? performance.now() - sinceMs : 0);
  }
}
