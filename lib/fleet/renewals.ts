/**
 * When this process last SAW a sign of life of each node that beats anywhere, by its own clock: a renewal in some row, or a new life. Kept by every
 * endpoint, so that whoever takes the review over has seen as long as its predecessor. Never earlier than the sign itself: that is what fencing counts on.
 */
import type {LeaseRow} from '../schema/node';

interface Seen { atMs: number; /** by row */ counts: Map<string, number> }

export class Renewals {
  private readonly nodes = new Map<string, Seen>();
  /** Which nodes a row named, to notice those that left it. */
  private readonly rows = new Map<string, ReadonlySet<string>>();

  constructor(private readonly nowMs: () => number) {}

  atMs(nodeId: string): number | undefined {
    return this.nodes.get(nodeId)?.atMs;
  }

  /** It has joined, or entered a row. */
  alive(nodeId: string): void {
    const seen = this.nodes.get(nodeId);
    if (seen) seen.atMs = this.nowMs();
    else this.nodes.set(nodeId, {atMs: this.nowMs(), counts: new Map()});
  }

  row(key: string, {renewals}: LeaseRow): void {
    for (const [id, count] of Object.entries(renewals)) {
      const seen = this.nodes.get(id);
      if (seen?.counts.get(key) === count) continue;
      this.alive(id);
      this.nodes.get(id)!.counts.set(key, count);
    }
    for (const id of this.rows.get(key) ?? []) if (!Object.hasOwn(renewals, id)) this.nodes.get(id)?.counts.delete(key);
    this.rows.set(key, new Set(Object.keys(renewals)));
  }

  dropRow(key: string): void {
    for (const id of this.rows.get(key) ?? []) this.nodes.get(id)?.counts.delete(key);
    this.rows.delete(key);
  }

  forget(nodeId: string): void {
    this.nodes.delete(nodeId);
  }

  /** Whether this row says of the node what was seen already. */
  knows(key: string, nodeId: string, count: number): boolean {
    return this.nodes.get(nodeId)?.counts.get(key) === count;
  }

  /** This process stood still: what was said meanwhile is still to be read. */
  excuse(ms: number): void {
    const nowMs = this.nowMs();
    for (const seen of this.nodes.values()) seen.atMs = Math.min(nowMs, seen.atMs + ms);
  }
}
