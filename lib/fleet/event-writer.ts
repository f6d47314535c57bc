/**
 * Writes events that go with nothing else, of many containers in one transaction: one write at a time, with all that came while the one before was under way. A start's report is mostly such a one, for
 * the job that ordered the start writes the container itself; each in a transaction of its own they were every fifth of a provision's.
 *
 * Resolves when all of the caller's events are in the store, written now or known before (an event's key is made from its report). What the store refuses of one caller is no other's matter: then each is written alone.
 */
import {asCetusError, CetusError, isCetusError} from '../base/errors';
import type {BatchOp, Moray} from '../moray/moray';
import {BUCKETS} from '../schema/buckets';

/** A write that holds up the change feed must be short. */
const MOST_EVENTS = 128;

interface Waiting { events: readonly BatchOp[]; done(err?: CetusError): void }

export class EventWriter {
  private waiting: Waiting[] = [];
  private writing = false;

  constructor(private readonly moray: Moray) {}

  write(events: readonly BatchOp[]): Promise<void> {
    if (!events.length) return Promise.resolve();
    return new Promise((resolve, reject) => {
      this.waiting.push({events, done: (err) => (err ? reject(err) : resolve())});
      if (!this.writing) void this.drain();
    });
  }

  private async drain(): Promise<void> {
    this.writing = true;
    // Reports that arrived in one request come in the same turn.
    await Promise.resolve();
    while (this.waiting.length) {
      const now = this.next();
      const failed = await this.commit(now);
      // The store's own trouble is everybody's; anything else is somebody's.
      const shared = failed === undefined || now.length === 1 || failed.kind === 'unavailable' || failed.kind === 'timeout';
      for (const one of now) one.done(shared ? failed : await this.commit([one]));
    }
    this.writing = false;
  }

  private next(): Waiting[] {
    let count = 0;
    const over = this.waiting.findIndex(({events}, n) => (count += events.length) > MOST_EVENTS && n > 0);
    return over < 0 ? this.waiting.splice(0) : this.waiting.splice(0, over);
  }

  /** Of several events some may be known and others new: an acknowledgement that was lost, then a repetition with more behind it. The known ones are left out, and the rest is written. */
  private async commit(group: readonly Waiting[]): Promise<CetusError | undefined> {
    let fresh = group.flatMap(({events}) => events);
    while (fresh.length) {
      try {
        await this.moray.batch(fresh);
        return undefined;
      } catch (err) {
        const error = asCetusError(err, 'write events');
        const known = isCetusError(err, 'etagConflict') && err.info['bucket'] === BUCKETS.events.name ? err.info['key'] : undefined;
        const rest = fresh.filter((op) => !('key' in op && op.key === known));
        if (known === undefined || rest.length === fresh.length) return error;
        fresh = rest;
      }
    }
    return undefined;
  }
}
