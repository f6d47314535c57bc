/** The store as one process sees it: the real one in memory behind a way that takes time, loses questions and answers, and holds the change feed up. */
import {CetusError} from '../../../lib/base/errors';
import type {BatchOp, Change, Moray, WatchOptions} from '../../../lib/moray/moray';
import type {Party, Ways} from './process';

const PATIENCE_MS = 4_000;
const FEED_LOOK_MS = 40;

export function storeOf(store: Moray, ways: Ways, who: Party, hooks: {batch(ops: BatchOp[]): BatchOp[]; wrote(ops: BatchOp[]): void}): Moray {
  const call = <T>(perform: () => Promise<T>): Promise<T> => new Promise((resolve, reject) => {
    let over = false;
    const end = (settle: () => void): void => {
      if (over) return;
      over = true;
      settle();
    };
    who.life.after(PATIENCE_MS, () => end(() => reject(new CetusError('unavailable', 'the store does not answer', {info: {outcome: 'unknown'}}))));
    const back = (settle: () => void): void => ways.send('store', who.name, () => who.life.deliver(() => end(settle)));
    // It happens whatever becomes of who asked: that is what makes outcomes unknown.
    ways.send(who.name, 'store', () => {
      ways.timeline.touch();
      perform().then((value) => back(() => resolve(value)), (err: Error) => back(() => reject(err)));
    });
  });
  const wait = (ms: number): Promise<void> => new Promise((resolve) => who.life.after(ms, resolve));

  async function* feed<T>(changes: AsyncIterable<Change<T>>): AsyncGenerator<Change<T>> {
    for await (const change of changes) {
      await wait(ways.delayMs());
      while (!ways.isOpen('store', who.name)) await wait(FEED_LOOK_MS);
      yield change;
    }
  }

  const batch = (ops: BatchOp[]): ReturnType<Moray['batch']> => call(async () => {
    const results = await store.batch(hooks.batch(ops));
    hooks.wrote(ops);
    return results;
  });
  return {
    open: (...buckets) => store.open(...buckets),
    get: (bucket, key) => call(() => store.get(bucket, key)),
    peek: (bucket, key) => call(() => store.peek(bucket, key)),
    put: async (bucket, key, value, condition = {}) => {
      const [result] = await batch([{op: 'put', bucket, key, value, ...('etag' in condition ? {etag: condition.etag} : {})}]);
      return {bucket, key, value, etag: result!.etag!, mtime: 0};
    },
    delete: async (bucket, key, condition = {}) => void (await batch([{op: 'delete', bucket, key, ...('etag' in condition ? {etag: condition.etag} : {})}])),
    update: (bucket, filter, patch) => call(() => store.update(bucket, filter, patch)),
    deleteMany: (bucket, filter) => call(() => store.deleteMany(bucket, filter)),
    async *find(bucket, filter, options) { yield* await call(() => store.list<never>(bucket, filter, options)); },
    list: (bucket, filter, options) => call(() => store.list(bucket, filter, options)),
    count: (bucket, filter) => call(() => store.count(bucket, filter)),
    undelivered: (bucket, most) => call(() => store.undelivered(bucket, most)),
    batch,
    watch: async <T>(bucket: string, filter: string, options?: WatchOptions) => feed(await call(() => store.watch<T>(bucket, filter, options))),
    close: async () => undefined,
  };
}
