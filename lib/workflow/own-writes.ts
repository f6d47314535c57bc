/**
 * What a job itself wrote or checked in the commit a moment ago, so that its next step need not ask the store for it: a step begins by reading what
 * the step before has written, and each such read is a round trip on the way of every request.
 *
 * No promise rests on it. A remembered object is what the store held at that commit; it is handed out within FRESH_MS and twice at most (to an act, and to
 * the plan behind it); a plan that decides from it writes or checks under its etag as it does with anything it reads, and where somebody was faster
 * the conflict clears the memory and the plan reads anew. Who waits for somebody else's change asks with `fresh`.
 */
import type {BatchOp, BatchResult, CallOptions, Moray, Stored} from '../moray/moray';
import type {Clock} from '../base/clock';
import {CetusError} from '../base/errors';

const FRESH_MS = 250;

/** A step that asks more often wants to know what others do. */
const USES = 2;

interface Known { stored: Stored<unknown>; untilMs: number; uses: number }

export class OwnWrites {
  private readonly known = new Map<string, Known>();
  /** Read by plans since the last commit: a check of the same etag in it proves that they still hold. */
  private readonly read = new Map<string, Stored<unknown>>();
  /** The store as the job's steps see it. */
  readonly moray: Moray;

  constructor(store: Moray, private readonly clock: Clock) {
    const peek = (bucket: string, key: string, options: CallOptions = {}): Promise<Stored<unknown> | undefined> => this.peek(store, bucket, key, options);
    const get = async (bucket: string, key: string, options: CallOptions = {}): Promise<Stored<unknown>> => {
      const found = this.take(bucket, key, options);
      if (found) return found;
      const stored = await store.get<unknown>(bucket, key, options);
      this.read.set(name(bucket, key), stored);
      return stored;
    };
    this.moray = new Proxy(store, {
      get(target, property) {
        if (property === 'peek') return peek;
        if (property === 'get') return get;
        const value = Reflect.get(target, property) as unknown;
        return typeof value === 'function' ? value.bind(target) : value;
      },
    });
  }

  committed(ops: readonly BatchOp[], results: readonly BatchResult[]): void {
    const untilMs = this.clock.now() + FRESH_MS;
    this.known.clear();
    for (const [n, op] of ops.entries()) {
      if (op.op === 'put') {
        const {bucket, key, value} = op;
        this.known.set(name(bucket, key), {stored: {bucket, key, value, etag: results[n]!.etag!, mtime: this.clock.now()}, untilMs, uses: USES});
      } else if (op.op === 'check') {
        const seen = this.read.get(name(op.bucket, op.key));
        if (seen && seen.etag === op.etag) this.known.set(name(op.bucket, op.key), {stored: seen, untilMs, uses: USES});
      } else if (op.op === 'delete') {
        this.known.delete(name(op.bucket, op.key));
      } else {
        // Which objects it changed nobody says.
        for (const [key, {stored}] of this.known) if (stored.bucket === op.bucket) this.known.delete(key);
      }
    }
    this.read.clear();
  }

  forget(): void {
    this.known.clear();
    this.read.clear();
  }

  private async peek(store: Moray, bucket: string, key: string, options: CallOptions): Promise<Stored<unknown> | undefined> {
    const found = this.take(bucket, key, options);
    if (found) return found;
    const stored = await store.peek<unknown>(bucket, key, options);
    if (stored) this.read.set(name(bucket, key), stored);
    return stored;
  }

  private take(bucket: string, key: string, options: CallOptions): Stored<unknown> | undefined {
    const at = name(bucket, key);
    const known = this.known.get(at);
    if (!known) return undefined;
    known.uses -= 1;
    if (options.fresh || known.uses === 0) this.known.delete(at);
    if (options.fresh || this.clock.now() >= known.untilMs) return undefined;
    if (options.signal?.aborted) throw new CetusError('canceled', 'the caller gave up', {cause: options.signal.reason});
    // As it would come from the store: what JSON drops is dropped, and nobody shares it.
    const stored: Stored<unknown> = {...known.stored, value: JSON.parse(JSON.stringify(known.stored.value))};
    this.read.set(at, stored);
    return stored;
  }
}

function name(bucket: string, key: string): string {
  return `${bucket}/${key}`;
}
