/**
 * Containers of an account in memory, kept by the change feed: `ps` of a thousand must not read a thousand documents from the store
 * (README.md has the numbers). One view per account that is asked for, dropped when idle.
 *
 * Read-your-writes: whoever changes a container in this process calls `touch(id)` before answering; the next reader fetches what was
 * touched from the store before it looks. Among other endpoints what they have answered counts as touched here: the store is asked which keys have changes that
 * the feed has not brought yet, so that whoever comes back through another endpoint finds what they did. A change that arrives late never undoes a newer one (etags rise per key), and a deleted id is never used again.
 */
import type {Log} from '../../base/log';
import type {Clock} from '../../base/clock';
import {eq, or, and} from '../../moray/filter';
import type {Moray, Stored} from '../../moray/moray';
import {BUCKETS} from '../../schema/buckets';
import type {Container} from '../../schema/container';

const BUCKET = BUCKETS.containers.name;
const IDLE_MS = 10 * 60_000;
const RETRY_MS = 500;
/** More touched ids than this are cheaper to reload than to fetch. */
const MAX_TOUCHED = 500;

/** `container` undefined: it is gone; `last` is what was known before. */
export type Listener = (container: Container | undefined, last: Container | undefined) => void;

class AccountView {
  private readonly held = new Map<string, {container: Container; etag: string}>();
  private readonly gone = new Set<string>();
  private sorted: Container[] | undefined;
  private touched = new Set<string>();
  private readonly listeners = new Map<string, Set<Listener>>();
  private readonly stopped = new AbortController();
  private loaded: Promise<void>;
  private announceLoaded!: () => void;
  usedAt = 0;

  constructor(readonly account: string, private readonly moray: Moray, private readonly clock: Clock, private readonly log: Log, private readonly amongOthers: boolean) {
    this.loaded = new Promise((resolve) => { this.announceLoaded = resolve; });
    void this.follow();
  }

  get busy(): boolean {
    return this.listeners.size > 0;
  }

  close(): void {
    this.stopped.abort();
    this.announceLoaded();
  }

  touch(id: string): void {
    this.touched.add(id);
  }

  subscribe(id: string, listener: Listener): () => void {
    const set = this.listeners.get(id) ?? new Set();
    set.add(listener);
    this.listeners.set(id, set);
    return () => {
      set.delete(listener);
      if (set.size === 0) this.listeners.delete(id);
    };
  }

  /** A report arrived in this process: listeners need not wait for the feed. The view itself waits, because only the feed knows the order. */
  notice(container: Container): void {
    this.touch(container.id);
    for (const listener of this.listeners.get(container.id) ?? []) listener(container, undefined);
  }

  /** Newest first. */
  async all(): Promise<readonly Container[]> {
    await this.loaded;
    if (this.amongOthers) await this.askOthers();
    if (this.touched.size > 0) await this.refresh();
    this.sorted ??= [...this.held.values()].map((h) => h.container).sort((a, b) => (a.createdAtNs < b.createdAtNs ? 1 : a.createdAtNs > b.createdAtNs ? -1 : 0));
    return this.sorted;
  }

  /** Of other accounts as well: none of theirs is found as one of ours. */
  private async askOthers(): Promise<void> {
    const late = await this.moray.undelivered(BUCKET, MAX_TOUCHED);
    if (late) for (const id of late) this.touched.add(id);
    else await this.load();
  }

  private async refresh(): Promise<void> {
    const ids = [...this.touched];
    this.touched = new Set();
    try {
      if (ids.length > MAX_TOUCHED) return await this.load();
      const found = await this.moray.list<Container>(BUCKET, and(eq('account', this.account), or(...ids.map((id) => eq('_key', id)))));
      const missing = new Set(ids);
      for (const stored of found) {
        missing.delete(stored.key);
        this.apply(stored);
      }
      for (const id of missing) this.forget(id);
    } catch (err) {
      for (const id of ids) this.touched.add(id);
      throw err;
    }
  }

  private async follow(): Promise<void> {
    while (!this.stopped.signal.aborted) {
      try {
        // The feed first, the list second: what changes in between arrives twice and never not at all.
        const feed = await this.moray.watch<Container>(BUCKET, eq('account', this.account), {signal: this.stopped.signal});
        await this.load();
        this.announceLoaded();
        for await (const change of feed) {
          if (change.kind === 'put') this.apply(change);
          else this.forget(change.key, change.value);
        }
      } catch (err) {
        if (this.stopped.signal.aborted) return;
        this.log.warn({err, account: this.account}, 'following containers; trying again');
      }
      await this.clock.sleep(RETRY_MS, this.stopped.signal).catch(() => undefined);
    }
  }

  private async load(): Promise<void> {
    const seen = new Set<string>();
    const before = new Set(this.held.keys());
    for await (const stored of this.moray.find<Container>(BUCKET, eq('account', this.account))) {
      seen.add(stored.key);
      this.apply(stored);
    }
    // Only what was known before the list began can have gone missing in it.
    for (const id of before) if (!seen.has(id)) this.forget(id);
  }

  private apply(stored: Pick<Stored<Container>, 'key' | 'value' | 'etag'>): void {
    if (this.gone.has(stored.key)) return;
    const known = this.held.get(stored.key);
    if (known && BigInt(known.etag) >= BigInt(stored.etag)) return;
    this.held.set(stored.key, {container: stored.value, etag: stored.etag});
    if (known && this.sorted) {
      const at = this.sorted.indexOf(known.container);
      if (at >= 0) this.sorted[at] = stored.value;
    } else {
      this.sorted = undefined;
    }
    for (const listener of this.listeners.get(stored.key) ?? []) listener(stored.value, known?.container);
  }

  private forget(id: string, last?: Container): void {
    const known = this.held.get(id);
    if (this.gone.has(id)) return;
    this.gone.add(id);
    // Late changes come within the feed's lag; the newest few thousand deletions cover it many times.
    if (this.gone.size > 10_000) this.gone.delete(this.gone.values().next().value!);
    this.held.delete(id);
    if (known && this.sorted) this.sorted = this.sorted.filter((c) => c !== known.container);
    for (const listener of this.listeners.get(id) ?? []) listener(undefined, last ?? known?.container);
  }
}

export class ContainerViews {
  private readonly views = new Map<string, AccountView>();

  /** `amongOthers`: containers are changed by other processes too. */
  constructor(private readonly moray: Moray, private readonly clock: Clock, private readonly log: Log, private readonly amongOthers = false) {}

  private of(account: string): AccountView {
    let view = this.views.get(account);
    if (!view) this.views.set(account, (view = new AccountView(account, this.moray, this.clock, this.log, this.amongOthers)));
    view.usedAt = this.clock.now();
    return view;
  }

  /** The account's containers that a person may see, newest first. */
  async list(account: string): Promise<Container[]> {
    return (await this.of(account).all()).filter((c) => c.provisioning !== true);
  }

  touch(account: string, id: string): void {
    this.views.get(account)?.touch(id);
  }

  notice(container: Container): void {
    this.views.get(container.account)?.notice(container);
  }

  /** From the moment this resolves, no change of the container is missed. */
  async subscribe(account: string, id: string, listener: Listener): Promise<() => void> {
    const view = this.of(account);
    await view.all();
    return view.subscribe(id, listener);
  }

  dropIdle(): void {
    for (const [account, view] of this.views) {
      if (view.busy || this.clock.now() - view.usedAt < IDLE_MS) continue;
      view.close();
      this.views.delete(account);
    }
  }

  close(): void {
    for (const view of this.views.values()) view.close();
    this.views.clear();
  }
}
