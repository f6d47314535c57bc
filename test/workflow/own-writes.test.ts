import {createMemoryMoray} from '../../lib/moray/memory';
import type {BatchOp, Moray} from '../../lib/moray/moray';
import {OwnWrites} from '../../lib/workflow/own-writes';
import {SimClock} from './world';

const THINGS = {name: 'things', version: 1, fields: {owner: {type: 'string'}}} as const;

describe('what a job wrote a moment ago', () => {
  let store: Moray;
  let clock: SimClock;
  let own: OwnWrites;
  let asked: string[];

  beforeEach(async () => {
    const inner = createMemoryMoray();
    await inner.open(THINGS);
    asked = [];
    store = new Proxy(inner, {get(target, property) {
      const value = Reflect.get(target, property) as unknown;
      if (property !== 'peek' && property !== 'get') return typeof value === 'function' ? (value as () => unknown).bind(target) : value;
      return (bucket: string, key: string) => {
        asked.push(key);
        return (value as (bucket: string, key: string) => unknown).call(target, bucket, key);
      };
    }});
    clock = new SimClock();
    own = new OwnWrites(store, clock);
  });
  const commit = async (...ops: BatchOp[]): Promise<void> => own.committed(ops, await store.batch(ops));
  const put = (key: string, value: unknown): BatchOp => ({op: 'put', bucket: 'things', key, value});

  test('is answered from memory twice, as the store would answer', async () => {
    await commit(put('a', {n: 1, gone: undefined}));
    const first = await own.moray.get('things', 'a');
    await own.moray.get('things', 'a');
    expect(asked).toEqual([]);
    const second = await own.moray.get('things', 'a');
    expect(asked).toEqual(['a']);
    expect({...first, mtime: 0}).toEqual({...second, mtime: 0});
    expect(Object.keys(first.value as object)).toEqual(['n']);
  });

  test('a checked object too, if it was read under the same etag', async () => {
    await store.put('things', 'a', {n: 1});
    const read = await own.moray.peek('things', 'a');
    await commit(put('b', {}), {op: 'check', bucket: 'things', key: 'a', etag: read!.etag});
    expect(await own.moray.peek('things', 'a')).toMatchObject({value: {n: 1}, etag: read!.etag});
    expect(asked).toEqual(['a']);
  });

  test('not after a conflict, not when it is old, not what only might be so, and not for one who waits for others', async () => {
    await commit(put('a', {n: 1}));
    own.forget();
    await own.moray.peek('things', 'a');
    await commit(put('b', {n: 1}));
    await clock.pass(1000);
    await own.moray.peek('things', 'b');
    await commit(put('c', {owner: 'x'}), {op: 'deleteMany', bucket: 'things', filter: '(owner=x)'});
    expect(await own.moray.peek('things', 'c')).toBeUndefined();
    await commit(put('d', {}), {op: 'delete', bucket: 'things', key: 'd'});
    expect(await own.moray.peek('things', 'd')).toBeUndefined();
    await commit(put('e', {n: 1}));
    await store.put('things', 'e', {n: 2});
    expect(await own.moray.peek('things', 'e', {fresh: true})).toMatchObject({value: {n: 2}});
    expect(await own.moray.peek('things', 'e')).toMatchObject({value: {n: 2}});
    expect(asked).toEqual(['a', 'b', 'c', 'd', 'e', 'e']);
  });

  test('one who changes what it got changes nothing for the next', async () => {
    const value = {list: [1]};
    await commit(put('a', value));
    const got = await own.moray.get<{list: number[]}>('things', 'a');
    got.value.list.push(2);
    expect(value).toEqual({list: [1]});
  });
});
