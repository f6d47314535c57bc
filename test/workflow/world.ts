/** A world for the engine's tests: a clock that moves only when everything waits, ids that repeat, and stores that die at a chosen write. */
import type {Clock} from '../../lib/base/clock';
import {CetusError} from '../../lib/base/errors';
import type {Ids} from '../../lib/base/ids';
import type {BatchOp, BatchResult, CallOptions, Condition, Moray, Stored} from '../../lib/moray/moray';

interface Timer { atMs: number; n: number; fire(): void }

export class SimClock implements Clock {
  private ms = Date.UTC(2026, 0, 1);
  private ns = 0n;
  private n = 0;
  private timers: Timer[] = [];

  now(): number { return this.ms; }

  nowNs(): bigint {
    const wall = BigInt(this.ms) * 1_000_000n;
    this.ns = wall > this.ns ? wall : this.ns + 1n;
    return this.ns;
  }

  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(signal.reason as Error);
      const timer: Timer = {atMs: this.ms + Math.ceil(ms), n: (this.n += 1), fire: () => {
        signal?.removeEventListener('abort', onAbort);
        resolve();
      }};
      const onAbort = (): void => {
        this.timers = this.timers.filter((t) => t !== timer);
        reject(signal!.reason as Error);
      };
      signal?.addEventListener('abort', onAbort, {once: true});
      this.timers.push(timer);
    });
  }

  /** Moves time from timer to timer until the promise settles; fails where nothing is left to wait for. */
  async until<T>(promise: Promise<T>, limitMs = 3600_000): Promise<T> {
    let settled = false;
    void promise.then(() => { settled = true; }, () => { settled = true; });
    const endMs = this.ms + limitMs;
    for (;;) {
      await idle();
      if (settled) return promise;
      if (!this.step() || this.ms > endMs) throw new Error(`nothing happens any more (at +${this.ms - endMs + limitMs} ms)`);
    }
  }

  /** Lets `ms` pass. */
  async pass(ms: number): Promise<void> {
    await this.until(this.sleep(ms), ms + 1);
  }

  private step(): boolean {
    let first: Timer | undefined;
    for (const t of this.timers) if (!first || t.atMs < first.atMs || (t.atMs === first.atMs && t.n < first.n)) first = t;
    if (!first) return false;
    this.timers = this.timers.filter((t) => t !== first);
    this.ms = Math.max(this.ms, first.atMs);
    first.fire();
    return true;
  }
}

/** Everything here is promises: one turn of the event loop lets all of them run as far as they can. */
export function idle(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

export class SeqIds implements Ids {
  private n = 0;
  constructor(private readonly salt = 0) {}
  hex64(): string { return (this.n += 1).toString(16).padStart(8, '0').padEnd(60, 'f') + this.salt.toString(16).padStart(4, '0'); }
  uuid(): string { return `00000000-0000-4000-8${this.salt.toString(16).padStart(3, '0')}-${(this.n += 1).toString(16).padStart(12, '0')}`; }
}

/** Deterministic numbers in [0, 1). */
export function seeded(seed: number): () => number {
  let state = seed >>> 0 || 1;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

export type Fate =
  /** The process dies; the write was not made / was made. */
  | 'die-before' | 'die-after'
  /** The process lives; the answer is lost. */
  | 'unheard-before' | 'unheard-after';

/** One process's connection to the store. A dead process's calls never come back. */
export class Connection implements Moray {
  writes = 0;
  dead = false;
  readonly died: Promise<void>;
  private die!: () => void;
  private readonly fates = new Map<number, Fate>();
  /** Called, and awaited, before each write. */
  onWrite?: (ops: BatchOp[]) => void | Promise<void>;

  constructor(private readonly inner: Moray) {
    this.died = new Promise((resolve) => { this.die = resolve; });
  }

  /** The nth write from now on. */
  doom(n: number, fate: Fate): this {
    this.fates.set(this.writes + n, fate);
    return this;
  }

  kill(): void {
    this.dead = true;
    this.die();
  }

  private async write<T>(ops: BatchOp[], perform: () => Promise<T>): Promise<T> {
    await this.alive();
    const fate = this.fates.get((this.writes += 1));
    if (fate === 'unheard-before') throw new CetusError('unavailable', 'the connection was reset');
    if (fate === 'die-before') this.kill();
    await this.alive();
    await this.onWrite?.(ops);
    const result = await perform();
    if (fate === 'unheard-after') throw new CetusError('unavailable', 'the connection was reset');
    if (fate === 'die-after') this.kill();
    await this.alive();
    return result;
  }

  private async alive(): Promise<void> {
    if (this.dead) await new Promise<never>(() => undefined);
  }

  private async read<T>(perform: () => Promise<T>): Promise<T> {
    await this.alive();
    const result = await perform();
    await this.alive();
    return result;
  }

  undelivered(bucket: string, most: number): Promise<string[] | undefined> { return this.read(() => this.inner.undelivered(bucket, most)); }
  open(...buckets: Parameters<Moray['open']>): Promise<void> { return this.read(() => this.inner.open(...buckets)); }
  get<T>(bucket: string, key: string, options?: CallOptions): Promise<Stored<T>> { return this.read(() => this.inner.get<T>(bucket, key, options)); }
  peek<T>(bucket: string, key: string, options?: CallOptions): Promise<Stored<T> | undefined> { return this.read(() => this.inner.peek<T>(bucket, key, options)); }
  put<T>(bucket: string, key: string, value: T, condition?: Condition & CallOptions): Promise<Stored<T>> {
    return this.write([{op: 'put', bucket, key, value}], () => this.inner.put(bucket, key, value, condition));
  }
  delete(bucket: string, key: string, condition?: Parameters<Moray['delete']>[2]): Promise<void> {
    return this.write([{op: 'delete', bucket, key}], () => this.inner.delete(bucket, key, condition));
  }
  update(...args: Parameters<Moray['update']>): Promise<number> { return this.write([], () => this.inner.update(...args)); }
  deleteMany(...args: Parameters<Moray['deleteMany']>): Promise<number> { return this.write([], () => this.inner.deleteMany(...args)); }
  async *find<T>(...args: Parameters<Moray['find']>): AsyncGenerator<Stored<T>> {
    await this.alive();
    yield* this.inner.find<T>(...args);
  }
  list<T>(...args: Parameters<Moray['list']>): Promise<Stored<T>[]> { return this.read(() => this.inner.list<T>(...args)); }
  count(...args: Parameters<Moray['count']>): Promise<number> { return this.read(() => this.inner.count(...args)); }
  batch(ops: BatchOp[], options?: CallOptions): Promise<BatchResult[]> { return this.write(ops, () => this.inner.batch(ops, options)); }
  watch<T>(...args: Parameters<Moray['watch']>): ReturnType<Moray['watch']> & Promise<AsyncIterable<never>> {
    return this.read(() => this.inner.watch<T>(...args)) as never;
  }
  close(): Promise<void> { return Promise.resolve(); }
}
