/**
 * Tells the feeds that there may be something new: ours at once, those of other processes by NOTIFY, after the commit and outside it.
 * Only ever a hint: one that is lost makes a change late (the feeds' timers find it), never missing.
 *
 * Holds one connection that listens, notifies and serves the feeds' polls; finds a new one when it is lost.
 */
import type {Log} from '../base/log';
import {Deadline, type Connection, type Connections} from './connections';
import {untilAborted} from './feed';

const CHANNEL = 'moray';
const NOTIFY_GAP_MS = 8;
const RECONNECT_MS = 200;

export class Hints {
  /** Undefined while there is none. */
  connection: Connection | undefined;
  private readonly toNotify = new Set<string>();
  private readonly toWake = new Set<string>();
  private notifying = false;
  private listening: Promise<void> | undefined;

  /** `wake` looks at a bucket's changes, or at those of all where none is named. */
  constructor(
    private readonly connections: Connections, private readonly wake: (bucket?: string) => void, private readonly closing: AbortSignal, private readonly log: Log,
  ) {}

  begin(): void {
    this.listening ??= this.listen();
  }

  /** Resolves after `closing` was aborted and the connection let go. */
  async ended(): Promise<void> {
    await this.listening;
  }

  /** Whoever committed goes first: with an order to a node, or an answer. Looking at once took a create 3 ms of waiting behind its own feeds' polls. */
  committed(bucket: string): void {
    this.toNotify.add(bucket);
    this.toWake.add(bucket);
    if (this.toWake.size > 1) return;
    setImmediate(() => {
      const buckets = [...this.toWake];
      this.toWake.clear();
      for (const each of buckets) this.wake(each);
      void this.notify();
    });
  }

  /**
   * NOTIFY inside the write's own transaction would take a lock of the whole database at commit and so queue up every commit behind
   * the disk; here it costs a commit nothing. What comes within NOTIFY_GAP_MS goes together: one for each of a run of single writes made
   * them a tenth slower.
   */
  private async notify(): Promise<void> {
    if (this.notifying) return;
    this.notifying = true;
    try {
      while (this.toNotify.size > 0 && this.connection && !this.connection.broken) {
        await new Promise((resolve) => setTimeout(resolve, NOTIFY_GAP_MS));
        if (!this.connection || this.connection.broken) break;
        const buckets = [...this.toNotify].join(',');
        this.toNotify.clear();
        await this.connection.run([{name: 'notify', text: `SELECT pg_notify('${CHANNEL}', $1)`, values: [buckets]}], new Deadline());
      }
    } catch (err) {
      this.log.debug({err}, 'notify'); // the others' timers find the change
    } finally {
      this.notifying = false;
    }
  }

  private async listen(): Promise<void> {
    while (!this.closing.aborted) {
      try {
        const connection = await this.connections.dedicated();
        const ended = new Promise<void>((resolve) => connection.onEnd(resolve));
        connection.onNotification((payload) => { for (const bucket of payload.split(',')) this.wake(bucket); });
        // A lost notification is a late hint; it need not wait for the disk. The polls are always the same walk along an index: planning them anew each time was a twelfth of all that
        // the server did, and a plan to keep must not be that of the empty log that it was made before.
        await connection.script(`SET synchronous_commit = off; SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off; LISTEN ${CHANNEL}`, new Deadline());
        this.connection = connection;
        this.wake();
        await untilAborted(ended, this.closing);
        this.connection = undefined;
        connection.destroy();
      } catch (err) {
        this.log.debug({err}, 'the feed has no connection');
        await untilAborted(new Promise((resolve) => setTimeout(resolve, RECONNECT_MS).unref()), this.closing);
      }
    }
  }
}
