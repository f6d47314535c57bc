/**
 * Whether our data can follow their upstream, as was seen at the last attempts to stream. A hint that costs nothing while all is well: only where a stream does not
 * come about are the two servers asked why (upstream.ts). What was found stays, over a stop as well, until there is a stream, another upstream, or other data.
 */
import type {Log} from '../../base/log';
import type {Monotonic} from '../coordination';
import type {Peer} from '../state';
import type {Configuration} from './configuration';
import type {Look} from './facts';
import type {Postmaster} from './postmaster';
import type {Session} from './session';
import {hasDiverged, isRemoved} from './upstream';

/** A stream that is to come about does within this, or it is looked why it does not; and again after as long. */
const LOOK_MS = 500;

export class Divergence {
  private upstreamId: string | null = null;
  /** Since when a stream has been missing. */
  private missing: {sinceMs: number; logFrom: number} | null = null;
  private looked: {atMs: number; running: boolean} = {atMs: -Infinity, running: false};

  constructor(
    private readonly configuration: Configuration, private readonly session: Session, private readonly postmaster: Postmaster, private readonly replicationPassword: string,
    private readonly clock: Monotonic, private readonly log: Log, private readonly changed: () => void,
  ) {}

  get found(): boolean {
    return this.upstreamId !== null;
  }

  /** Known otherwise than by looking. */
  from(upstream: Peer): void {
    this.upstreamId = upstream.id;
  }

  /** What was found out about one upstream says nothing of another. */
  towards(upstream: Peer): void {
    if (this.upstreamId !== upstream.id) this.upstreamId = null;
    this.missing = null;
  }

  /** The server has ended. */
  pause(): void {
    this.missing = null;
  }

  /** The data are others now. */
  mended(): void {
    this.upstreamId = null;
  }

  /** `look`: null where the server did not answer. */
  consider(look: Look | null): void {
    const {upstream} = this.configuration.wish;
    const now = this.clock.nowMs();
    if (!this.postmaster.alive || !upstream || look?.receiving || look?.inRecovery === false) {
      this.missing = null;
      if (look?.receiving) this.upstreamId = null;
      return;
    }
    if (this.missing === null) {
      // A message of a removed segment comes again with every attempt: older ones may be about another upstream.
      const missing = {sinceMs: now, logFrom: Infinity};
      this.missing = missing;
      void this.postmaster.logEnd().then((end) => { missing.logFrom = end; });
    }
    const {missing} = this;
    if (now - missing.sinceMs < LOOK_MS || this.looked.running || now - this.looked.atMs < LOOK_MS) return;
    this.looked = {atMs: now, running: true};
    void this.ask(upstream, missing, look).catch((err: unknown) => this.log.debug({err}, 'the upstream was not asked')).finally(() => { this.looked = {atMs: this.clock.nowMs(), running: false}; });
  }

  private async ask(upstream: Peer, missing: {logFrom: number}, look: Look | null): Promise<void> {
    await this.postmaster.shortenLog();
    const diverged = isRemoved(await this.postmaster.said(missing.logFrom)) || (look?.replayed ? await hasDiverged(this.session, upstream, look.replayed, this.replicationPassword) : false);
    if (this.configuration.wish.upstream?.id !== upstream.id || diverged === this.found) return;
    this.upstreamId = diverged ? upstream.id : null;
    if (diverged) this.log.warn({upstream: upstream.id}, 'our data cannot follow this upstream');
    this.changed();
  }
}
