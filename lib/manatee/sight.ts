/**
 * What was last seen of ZooKeeper, and how long it may be decided from without asking again: until anything is said to have changed (each view arms
 * watches on all that it shows), and for `keepsMs` at most.
 *
 * Nothing is lost by it. A sitter may be stopped between a look and the step that follows, for as long as one likes; so no step's safety rests on the age of its
 * view: a declaration is made against its version, clients are let in within the lease alone, and what a session held is gone with a change
 * that is told. What it spares is a write that a quorum has to put on its disks, before each of a takeover's steps.
 */
import type {ClusterView, Monotonic} from './coordination';

export class Sight {
  private kept: {view: ClusterView; askedMs: number} | undefined;
  /** Since the last question was asked. */
  private changed = true;
  private asking: Promise<ClusterView | null> | undefined;
  private written: ClusterView | undefined;

  /** `look` never rejects; null: ZooKeeper does not answer. */
  constructor(private readonly look: () => Promise<ClusterView | null>, private readonly clock: Monotonic, private readonly keepsMs: number) {}

  hint(): void {
    this.changed = true;
  }

  /** What we have just written ourselves is so: the next step need not wait until it was read. Only the next: somebody may have gone on from there. */
  wrote(view: ClusterView): void {
    this.changed = true;
    this.written = view;
  }

  async view(): Promise<ClusterView | null> {
    const {written, kept} = this;
    this.written = undefined;
    if (written) return written;
    return kept && this.isFresh(kept) ? kept.view : this.ask();
  }

  /** For the turn after the step that begins now, so that it finds it looked. */
  ahead(): void {
    if (this.changed) void this.ask();
  }

  private isFresh(kept: {askedMs: number}): boolean {
    return !this.changed && this.clock.nowMs() - kept.askedMs < this.keepsMs;
  }

  /** One question that nothing has changed since is enough for all who ask. */
  private ask(): Promise<ClusterView | null> {
    if (this.asking && !this.changed) return this.asking;
    this.changed = false;
    this.kept = undefined;
    const askedMs = this.clock.nowMs();
    const asking = this.look().then((view) => {
      if (this.asking !== asking) return view;
      this.asking = undefined;
      this.kept = view ? {view, askedMs} : undefined;
      return view;
    });
    this.asking = asking;
    return asking;
  }
}
