/**
 * How many containers of one kind (an account's, a spread group's) lie on each schedulable node, as a histogram: it answers "what is the
 * smallest count any node offers" without looking at the nodes, which bounds the spread score of nodes not yet looked at.
 */
export class Tally {
  private readonly histogram = new Map<number, number>();
  private nodesWith = 0;

  /** A node's count went from `before` to `after`; 0 means the node is not in the histogram. */
  change(before: number, after: number): void {
    if (before > 0) this.add(before, -1);
    if (after > 0) this.add(after, 1);
  }

  private add(count: number, delta: number): void {
    this.nodesWith += delta;
    const n = (this.histogram.get(count) ?? 0) + delta;
    if (n === 0) this.histogram.delete(count);
    else this.histogram.set(count, n);
  }

  get empty(): boolean {
    return this.nodesWith === 0;
  }

  /** The smallest count among `schedulable` nodes. */
  least(schedulable: number): number {
    if (this.nodesWith < schedulable) return 0;
    let least = Infinity;
    for (const count of this.histogram.keys()) if (count < least) least = count;
    return least === Infinity ? 0 : least;
  }
}
