/** What every Moray promises, run over the one in memory (unit) and the one on Postgres (integration). */
import {setTimeout as delay} from 'node:timers/promises';
import {isCetusError, type ErrorKind} from '../../lib/base/errors';
import {ALL, and, contains, endsWith, eq, ge, le, NONE, not, oneOf, or, present, startsWith} from '../../lib/moray/filter';
import type {BatchOp, Change, Moray} from '../../lib/moray/moray';
import type {BucketDefinition} from '../../lib/schema/bucket';

export const ANIMALS: BucketDefinition = {
  name: 'animals', version: 1,
  fields: {
    name: {type: 'string'}, tag: {type: 'string', unique: true}, weight: {type: 'number'}, tame: {type: 'boolean'}, chip: {type: 'uuid'},
    born: {type: 'date'}, address: {type: 'ip'}, range: {type: 'subnet'}, names: {type: 'string[]'}, weights: {type: 'number[]'},
    addresses: {type: 'ip[]'}, keeper: {type: 'string', path: 'keeper.name'},
  },
};
const OTHER: BucketDefinition = {name: 'other_things', version: 1, fields: {}};

export async function rejection(promise: Promise<unknown>, kind: ErrorKind): Promise<Record<string, unknown>> {
  const err: unknown = await promise.then((value) => { throw new Error(`expected ${kind}, got ${JSON.stringify(value)}`); }, (e: unknown) => e);
  if (!isCetusError(err, kind)) throw err;
  // Whatever it is: of buckets, keys, etags and SQL clients are told nothing.
  if (err.info['bucket'] !== undefined) expect(err.shown).not.toMatch(/animals|other_things|etag|bucket|sql/i);
  return err.info;
}

export async function take<T>(changes: AsyncIterable<Change<T>>, count: number): Promise<Change<T>[]> {
  const taken: Change<T>[] = [];
  const iterator = changes[Symbol.asyncIterator]();
  while (taken.length < count) {
    const next = await Promise.race([iterator.next(), delay(10_000, null, {ref: false})]);
    if (next === null) throw new Error(`only ${taken.length} of ${count} changes came`);
    if (next.done) throw new Error(`the feed ended after ${taken.length} of ${count}`);
    taken.push(next.value);
  }
  return taken;
}

export function conformance(makeStore: () => Promise<Moray>): void {
  let moray: Moray;
  beforeEach(async () => {
    moray = await makeStore();
    await moray.open(ANIMALS, OTHER);
  });
  afterEach(() => moray.close());

  const keys = async (filter: string): Promise<string[]> => (await moray.list('animals', filter, {sort: [{field: '_key', order: 'asc'}]})).map((row) => row.key);

  describe('objects', () => {
    test('put, get, peek, delete', async () => {
      const put = await moray.put('animals', 'a', {name: 'Ann', deep: {list: [1, 'ü', null]}});
      const got = await moray.get('animals', 'a');
      expect(got).toEqual({bucket: 'animals', key: 'a', value: {name: 'Ann', deep: {list: [1, 'ü', null]}}, etag: put.etag, mtime: put.mtime});
      expect(Math.abs(got.mtime - Date.now())).toBeLessThan(60_000);
      expect(await moray.peek('animals', 'b')).toBeUndefined();
      expect(await rejection(moray.get('animals', 'b'), 'notFound')).toEqual({bucket: 'animals', key: 'b'});
      await moray.delete('animals', 'a');
      expect(await moray.peek('animals', 'a')).toBeUndefined();
      await moray.delete('animals', 'a');
    });

    test('every write has a fresh etag, also one that changes nothing', async () => {
      const first = await moray.put('animals', 'a', {name: 'Ann'});
      const second = await moray.put('animals', 'a', {name: 'Ann'});
      expect(BigInt(second.etag)).toBeGreaterThan(BigInt(first.etag));
    });

    test('conditions: null, token, and what the conflict says', async () => {
      const {etag} = await moray.put('animals', 'a', {}, {etag: null});
      expect(await rejection(moray.put('animals', 'a', {}, {etag: null}), 'etagConflict')).toEqual({bucket: 'animals', key: 'a', expected: null, actual: etag});
      const next = await moray.put('animals', 'a', {}, {etag});
      expect(await rejection(moray.put('animals', 'a', {}, {etag}), 'etagConflict')).toEqual({bucket: 'animals', key: 'a', expected: etag, actual: next.etag});
      expect(await rejection(moray.delete('animals', 'a', {etag}), 'etagConflict')).toEqual({bucket: 'animals', key: 'a', expected: etag, actual: next.etag});
      expect(await rejection(moray.put('animals', 'b', {}, {etag}), 'etagConflict')).toEqual({bucket: 'animals', key: 'b', expected: etag, actual: null});
      expect(await rejection(moray.delete('animals', 'b', {etag}), 'etagConflict')).toEqual({bucket: 'animals', key: 'b', expected: etag, actual: null});
      await moray.delete('animals', 'a', {etag: next.etag});
      await moray.put('animals', 'a', {}, {etag: null});
    });

    test('of many creators one wins', async () => {
      const outcomes = await Promise.allSettled(Array.from({length: 20}, (_, n) => moray.put('animals', 'a', {n}, {etag: null})));
      expect(outcomes.filter((o) => o.status === 'fulfilled')).toHaveLength(1);
      for (const o of outcomes) if (o.status === 'rejected') expect(isCetusError(o.reason, 'etagConflict')).toBe(true);
    });

    test('a unique field has one owner, and names the field and value', async () => {
      await moray.put('animals', 'a', {tag: 'x'});
      expect(await rejection(moray.put('animals', 'b', {tag: 'x'}), 'conflict')).toEqual({bucket: 'animals', field: 'tag', value: 'x'});
      await moray.put('animals', 'a', {tag: 'x', again: true});
      await moray.put('animals', 'b', {});
      await moray.put('animals', 'c', {tag: null});
      await moray.put('animals', 'a', {tag: 'y'});
      await moray.put('animals', 'b', {tag: 'x'});
      await moray.delete('animals', 'b');
      await moray.put('animals', 'c', {tag: 'x'});
    });

    test.each([
      ['name', 1], ['weight', '1x'], ['weight', 'NaN'], ['tame', 'true'], ['chip', 'x'], ['born', '2024-02-30T00:00:00Z'], ['born', '2024-02-03'], ['address', '1.2.3'],
      ['address', '1.2.3.4/8'], ['range', '10.0.0.1/8'], ['range', '10.0.0.0'], ['names', 'x'], ['names', [1]], ['weights', [null]], ['name', 'x'.repeat(2001)],
    ])('%s refuses %j', async (field, value) => {
      expect(await rejection(moray.put('animals', 'a', {[field]: value}), 'invalid')).toEqual({bucket: 'animals', field});
      expect(await moray.peek('animals', 'a')).toBeUndefined();
    });

    test('what is not a storable object or key is refused', async () => {
      for (const value of [undefined, null, 1, 'x', [1], {a: 'nul \0'}, {a: 'half \ud800'}, {big: 'x'.repeat(9 << 20)}]) await rejection(moray.put('animals', 'a', value), 'invalid');
      await moray.put('animals', 'a', {a: 'a backslash and u0000: \\u0000', b: '\u0001 \ud83d\ude00'});
      expect((await moray.get('animals', 'a')).value).toEqual({a: 'a backslash and u0000: \\u0000', b: '\u0001 \ud83d\ude00'});
      for (const key of ['', 'x\0', 'x'.repeat(1025), '\ud800']) await rejection(moray.put('animals', key, {}), 'invalid');
      await rejection(moray.put('nowhere', 'a', {}), 'invalid');
      await rejection(moray.put('animals', 'a', {}, {etag: 'abc'}), 'invalid');
    });
  });

  describe('filters', () => {
    beforeEach(async () => {
      await moray.put('animals', 'ann', {
        name: 'Ann (the*first\\)', weight: 12.5, tame: true, chip: '6F9619FF-8B86-4011-B42D-00CF4FC964FF', born: '2024-02-03T04:05:06.123456789Z', address: '10.0.0.9', range: '10.0.0.0/8',
        names: ['Ann', 'Annie'], weights: [1, 2.5], addresses: ['::1', '10.0.0.1'], keeper: {name: 'jill'},
      });
      await moray.put('animals', 'bob', {name: 'Bob', weight: '1700000000123456789', tame: false, born: '2024-02-03T06:05:06.123457+02:00', address: 'fe80::1', range: '10.0.0.0/16', names: [], keeper: {}});
      await moray.put('animals', 'cid', {keeper: null});
    });

    test.each([
      [ALL, ['ann', 'bob', 'cid']], [NONE, []], [eq('_key', 'bob'), ['bob']], [startsWith('_key', 'a'), ['ann']],
      [eq('name', 'Ann (the*first\\)'), ['ann']], [contains('name', '(the*'), ['ann']], [endsWith('name', '\\)'), ['ann']], ['(name=*n*f*t*)', ['ann']], ['(name=b*)', []],
      ['(name=A_n*)', []], ['(name=%*)', []], [not(eq('name', 'Bob')), ['ann', 'cid']], [not(not(eq('name', 'Bob'))), ['bob']], [present('name'), ['ann', 'bob']], [not(present('name')), ['cid']],
      ['(weight=12.50)', ['ann']], ['(weight=125e-1)', ['ann']], [ge('weight', 12.5), ['ann', 'bob']], [le('weight', 12.49), []], ['(weight=1700000000123456789)', ['bob']], ['(weight=1700000000123456788)', []],
      ['(weight<=1700000000123456788)', ['ann']], [eq('tame', true), ['ann']], [eq('tame', false), ['bob']], [eq('chip', '6f9619ff-8b86-4011-b42d-00cf4fc964ff'), ['ann']],
      [eq('born', '2024-02-03T04:05:06.123456Z'), ['ann']], [ge('born', '2024-02-03T04:05:06.123457Z'), ['bob']], ['(born<=2025-01-01T00:00:00Z)', ['ann', 'bob']],
      [eq('address', '10.0.0.9'), ['ann']], [eq('address', 'FE80:0::0:1'), ['bob']], [ge('address', '10.0.0.10'), ['bob']], [eq('range', '10.0.0.0/8'), ['ann']], [ge('range', '10.0.0.0/9'), ['bob']],
      [eq('names', 'Annie'), ['ann']], [startsWith('names', 'Anni'), ['ann']], [present('names'), ['ann', 'bob']], [not(present('names')), ['cid']], [not(eq('names', 'Ann')), ['bob', 'cid']],
      [ge('weights', 2), ['ann']], [ge('weights', 3), []], [eq('weights', '2.50'), ['ann']], [eq('addresses', '0::1'), ['ann']], [eq('keeper', 'jill'), ['ann']],
      [and(present('name'), or(eq('tame', true), eq('_key', 'bob')), not(eq('_key', 'ann'))), ['bob']], [oneOf('_key', ['ann', 'cid', 'x']), ['ann', 'cid']], [oneOf('names', ['Ann']), ['ann']],
      [oneOf('name', []), []], ['  (name=Bob)  ', ['bob']], ['(name=\\42\\6fb)', ['bob']], ['(&(|(name=Bob)(tame=true)(tame=false))(weight>=13))', ['bob']],
    ] as [string, string[]][])('%s', async (filter, expected) => {
      expect(await keys(filter)).toEqual(expected);
      expect(await moray.count('animals', filter)).toBe(expected.length);
    });

    test.each([
      '', 'name=Bob', '(name=Bob', '(name=Bob))', '()', '(=x)', '(name)', '(name~=x)', '(name=a(b)', '(name=\\zz)', '(name=\\c3)', '(name>=a*)', '(!)', '(&(name=x)', '(colour=red)', '(weight=heavy)', '(weight=1*)',
      '(tame=yes)', '(chip=1)', '(born=yesterday)', '(address=x)', '(range=10.0.0.1/8)', '(_value=x)', '(constructor=x)', `${'(!'.repeat(100)}(name=x)${')'.repeat(100)}`,
    ])('refuses %s', async (filter) => {
      await rejection(moray.list('animals', filter), 'invalid');
      await rejection(moray.count('animals', filter), 'invalid');
      await rejection(moray.update('animals', filter, {}), 'invalid');
      await rejection(moray.deleteMany('animals', filter), 'invalid');
      await rejection(moray.watch('animals', filter), 'invalid');
    });

    test('sort, with what is absent last, and first when descending; limit and offset', async () => {
      const sorted = async (field: string, order: 'asc' | 'desc', more = {}): Promise<string[]> => (await moray.list('animals', ALL, {sort: [{field, order}], ...more})).map((r) => r.key);
      expect(await sorted('weight', 'asc')).toEqual(['ann', 'bob', 'cid']);
      expect(await sorted('weight', 'desc')).toEqual(['cid', 'bob', 'ann']);
      expect(await sorted('address', 'asc')).toEqual(['ann', 'bob', 'cid']);
      expect(await sorted('range', 'asc')).toEqual(['ann', 'bob', 'cid']);
      expect(await sorted('_key', 'desc', {limit: 1, offset: 1})).toEqual(['bob']);
      expect(await sorted('name', 'asc', {limit: 0})).toEqual([]);
      expect((await moray.list('animals', ALL, {offset: 1})).map((r) => r.key)).toEqual(['bob', 'cid']);
      for (const bad of [{sort: [{field: 'colour', order: 'asc' as const}]}, {sort: [{field: 'names', order: 'asc' as const}]}, {limit: -1}, {offset: 0.5}]) await rejection(moray.list('animals', ALL, bad), 'invalid');
    });

    test('text sorts by code point', async () => {
      for (const [key, name] of [['1', '\u{1F600}'], ['2', '\uffee'], ['3', 'a'], ['4', 'B'], ['5', 'é']] as const) await moray.put('animals', key, {name});
      expect((await moray.list('animals', oneOf('_key', ['1', '2', '3', '4', '5']), {sort: [{field: 'name', order: 'asc'}]})).map((r) => r.key)).toEqual(['4', '3', '5', '2', '1']);
    });

    test('find streams, and may be left in the middle', async () => {
      await moray.batch(Array.from({length: 1000}, (_, n) => ({op: 'put' as const, bucket: 'animals', key: `n${String(n).padStart(4, '0')}`, value: {weight: n}})));
      for (let round = 0; round < 30; round += 1) {
        let seen = 0;
        for await (const row of moray.find<{weight: number}>('animals', startsWith('_key', 'n'), {sort: [{field: 'weight', order: 'asc'}]})) {
          expect(row.value.weight).toBe(seen);
          seen += 1;
          if (seen === 600) break;
        }
        expect(seen).toBe(600);
      }
      let all = 0;
      for await (const _ of moray.find('animals', startsWith('_key', 'n'))) all += 1;
      expect(all).toBe(1000);
    });
  });

  describe('many at once', () => {
    test('update merges at the top level and counts', async () => {
      await moray.put('animals', 'a', {name: 'x', keeper: {name: 'k', age: 3}, old: 1});
      const before = await moray.put('animals', 'b', {name: 'y'});
      expect(await moray.update('animals', '(name=x)', {name: 'z', keeper: {name: 'l'}})).toBe(1);
      expect((await moray.get('animals', 'a')).value).toEqual({name: 'z', keeper: {name: 'l'}, old: 1});
      expect((await moray.get('animals', 'b')).etag).toBe(before.etag);
      expect(await keys('(keeper=l)')).toEqual(['a']);
      expect(await moray.update('animals', '(name=x)', {name: 'z'})).toBe(0);
      expect(await rejection(moray.update('animals', ALL, {weight: 'heavy'}), 'invalid')).toEqual({bucket: 'animals', field: 'weight'});
      expect(await rejection(moray.update('animals', ALL, {tag: 'same'}), 'conflict')).toEqual({bucket: 'animals', field: 'tag', value: 'same'});
    });

    test('deleteMany', async () => {
      for (const key of ['a', 'b', 'c']) await moray.put('animals', key, {tame: key !== 'b'});
      expect(await moray.deleteMany('animals', eq('tame', true))).toBe(2);
      expect(await keys(ALL)).toEqual(['b']);
    });

    test('a batch is ordered, over buckets, and answers one result per op', async () => {
      const {etag} = await moray.put('animals', 'old', {name: 'old'});
      const results = await moray.batch([
        {op: 'check', bucket: 'animals', key: 'old', etag},
        {op: 'check', bucket: 'other_things', key: 'x', etag: null},
        {op: 'put', bucket: 'other_things', key: 'x', value: {n: 1}, etag: null},
        {op: 'put', bucket: 'animals', key: 'a', value: {name: 'n'}},
        {op: 'update', bucket: 'animals', filter: '(name=n)', patch: {name: 'm'}},
        {op: 'deleteMany', bucket: 'animals', filter: '(name=m)'},
        {op: 'delete', bucket: 'animals', key: 'old', etag},
        {op: 'delete', bucket: 'animals', key: 'old'},
        {op: 'put', bucket: 'animals', key: 'old', value: {name: 'again'}, etag: null},
      ]);
      expect(results.map((r) => r.count)).toEqual([undefined, undefined, undefined, undefined, 1, 1, 1, 0, undefined]);
      expect((await moray.get('animals', 'old')).etag).toBe(results[8]!.etag);
      expect((await moray.get('other_things', 'x')).etag).toBe(results[2]!.etag);
      expect(await keys(ALL)).toEqual(['old']);
      expect(await moray.batch([])).toEqual([]);
    });

    test('puts that follow each other in one bucket are written one by one, whatever is in their keys and values', async () => {
      const odd = ['plain', '"', '\\', '{', '},{', ',', 'NULL', 'null', "'", ' ', 'ä\u{1f433}'];
      const put = (key: string, value: unknown, etag?: string | null): BatchOp => ({op: 'put', bucket: 'animals', key, value, ...(etag === undefined ? {} : {etag})});
      const made = await moray.batch(odd.map((key) => put(key, {tag: key, list: [key, null, 1e21, {}]}, null)));
      for (const [n, key] of odd.entries()) expect(await moray.get('animals', key)).toMatchObject({value: {tag: key, list: [key, null, 1e21, {}]}, etag: made[n]!.etag});
      // Each condition is its own, the later of two puts sees the earlier, and a run ends where another kind of operation or another bucket stands.
      const again = await moray.batch([
        put('plain', {tag: 'first'}, made[0]!.etag), put('plain', {tag: 'second'}), put('new', {}, null),
        {op: 'delete', bucket: 'animals', key: '"'}, put('"', {tag: 'after'}, null), {op: 'put', bucket: 'other_things', key: 'x', value: {}}, put('new', {tag: 'last'}),
      ]);
      expect(again.map(({etag, count}) => etag !== undefined ? 'etag' : count)).toEqual(['etag', 'etag', 'etag', 1, 'etag', 'etag', 'etag']);
      expect(await moray.get('animals', 'plain')).toMatchObject({value: {tag: 'second'}, etag: again[1]!.etag});
      expect(await moray.get('animals', '"')).toMatchObject({value: {tag: 'after'}, etag: again[4]!.etag});
      expect(await moray.get('animals', 'new')).toMatchObject({value: {tag: 'last'}, etag: again[6]!.etag});
      // Which one of them failed is said, and none of them was written.
      await expect(moray.batch([put('a', {}), put('plain', {}, made[0]!.etag), put('b', {})])).rejects.toMatchObject({kind: 'etagConflict', info: {bucket: 'animals', key: 'plain', expected: made[0]!.etag, actual: again[1]!.etag}});
      expect(await moray.peek('animals', 'a')).toBeUndefined();
      // More than goes as one statement.
      const large = Array.from({length: 5}, (_, n) => put(`large-${n}`, {text: 'x'.repeat(400_000), n}));
      await moray.batch(large);
      expect((await moray.get<{n: number}>('animals', 'large-4')).value.n).toBe(4);
    });

    test('a batch that fails at any op leaves nothing', async () => {
      const {etag} = await moray.put('animals', 'a', {name: 'a', tag: 't'});
      const good = [{op: 'put' as const, bucket: 'animals', key: 'a', value: {name: 'changed', tag: 'u'}}, {op: 'put' as const, bucket: 'other_things', key: 'x', value: {}}, {op: 'deleteMany' as const, bucket: 'animals', filter: ALL}];
      await rejection(moray.batch([...good, {op: 'check', bucket: 'animals', key: 'zzz', etag: '1'}]), 'etagConflict');
      await rejection(moray.batch([...good, {op: 'put', bucket: 'other_things', key: 'x', value: {}, etag: null}]), 'etagConflict');
      await rejection(moray.batch([...good, {op: 'put', bucket: 'animals', key: '1', value: {tag: 'v'}}, {op: 'put', bucket: 'animals', key: '2', value: {tag: 'v'}}]), 'conflict');
      await rejection(moray.batch([...good, {op: 'put', bucket: 'animals', key: '1', value: {weight: 'x'}}]), 'invalid');
      await rejection(moray.batch([...good, {op: 'deleteMany', bucket: 'animals', filter: '(colour=red)'}]), 'invalid');
      expect(await moray.list('animals', ALL)).toMatchObject([{key: 'a', etag, value: {name: 'a', tag: 't'}}]);
      expect(await moray.count('other_things', ALL)).toBe(0);
      await rejection(moray.put('animals', 'b', {tag: 't'}), 'conflict');
    });

    test('a check guards against what happens meanwhile: two batches that each check the other cannot both pass', async () => {
      for (let round = 0; round < 20; round += 1) {
        const [left, right] = [`l${round}`, `r${round}`];
        const outcomes = await Promise.allSettled([[left, right], [right, left]].map(([mine, theirs]) => moray.batch([
          {op: 'check', bucket: 'animals', key: theirs!, etag: null},
          {op: 'put', bucket: 'animals', key: mine!, value: {}},
        ])));
        expect(outcomes.filter((o) => o.status === 'fulfilled').length).toBeLessThanOrEqual(1);
        expect(await moray.count('animals', oneOf('_key', [left, right]))).toBe(outcomes.filter((o) => o.status === 'fulfilled').length);
      }
    });
  });

  describe('change feed', () => {
    test('now: every change after it, in order, also versions overwritten since, with delete carrying the last value', async () => {
      await moray.put('animals', 'before', {name: 'w'});
      const stop = new AbortController();
      const changes = await moray.watch<{name?: string}>('animals', '(name=w*)', {signal: stop.signal});
      const first = await moray.put('animals', 'a', {name: 'w1'});
      await moray.put('animals', 'a', {name: 'w2'});
      await moray.put('animals', 'b', {name: 'other'});
      await moray.delete('animals', 'a');
      await moray.put('animals', 'a', {name: 'w3'});
      const seen = await take(changes, 4);
      expect(seen.map((c) => [c.kind, c.key, c.value.name])).toEqual([['put', 'a', 'w1'], ['put', 'a', 'w2'], ['delete', 'a', 'w2'], ['put', 'a', 'w3']]);
      expect(seen[0]!.etag).toBe(first.etag);
      expect(BigInt(seen[2]!.etag)).toBeGreaterThan(BigInt(seen[1]!.etag));
      stop.abort();
    });

    test('a cursor continues right after its change', async () => {
      const stop = new AbortController();
      const changes = await moray.watch('animals', ALL, {signal: stop.signal});
      for (let n = 0; n < 5; n += 1) await moray.put('animals', `k${n}`, {});
      await moray.batch([{op: 'put', bucket: 'animals', key: 'x', value: {}}, {op: 'put', bucket: 'animals', key: 'y', value: {}}]);
      const seen = await take(changes, 7);
      for (const [n, change] of seen.entries()) {
        if (n === 6) break;
        const rest = await take(await moray.watch('animals', ALL, {since: change.cursor, signal: stop.signal}), 6 - n);
        expect(rest).toEqual(seen.slice(n + 1));
      }
      stop.abort();
    });

    test('beginning: what is live first, then changes; its last cursor continues', async () => {
      for (const key of ['b', 'a', 'gone', 'c']) await moray.put('animals', key, {name: 'x'});
      await moray.delete('animals', 'gone');
      const stop = new AbortController();
      const changes = await moray.watch('animals', '(name=x)', {since: 'beginning', signal: stop.signal});
      await moray.put('animals', 'd', {name: 'x'});
      await moray.put('animals', 'a', {name: 'x', n: 2});
      const seen = await take(changes, 5);
      expect(seen.slice(0, 3).map((c) => c.key).sort()).toEqual(['a', 'b', 'c']);
      expect(seen.slice(3).map((c) => c.key)).toEqual(['d', 'a']);
      const rest = await take(await moray.watch('animals', '(name=x)', {since: seen[2]!.cursor, signal: stop.signal}), 2);
      expect(rest).toEqual(seen.slice(3));
      expect((await take(await moray.watch('animals', '(name=x)', {since: seen[1]!.cursor, signal: stop.signal}), 3)).map((c) => c.key).sort()).toEqual(['a', 'b', 'c']);
      stop.abort();
    });

    test('a failed batch is not in the feed', async () => {
      const stop = new AbortController();
      const changes = await moray.watch('animals', ALL, {signal: stop.signal});
      await rejection(moray.batch([{op: 'put', bucket: 'animals', key: 'a', value: {}}, {op: 'check', bucket: 'animals', key: 'b', etag: '1'}]), 'etagConflict');
      await moray.put('animals', 'c', {});
      expect((await take(changes, 1))[0]!.key).toBe('c');
      stop.abort();
    });

    test('ends with its signal, and with the store', async () => {
      const stop = new AbortController();
      const [first, second] = [await moray.watch('animals', ALL, {signal: stop.signal}), await moray.watch('animals', ALL)];
      const drain = async (changes: AsyncIterable<Change<unknown>>): Promise<void> => { for await (const _ of changes) throw new Error('no change was made'); };
      const [ended, closed] = [drain(first), drain(second)];
      stop.abort();
      await ended;
      await moray.close();
      await closed;
      await rejection(moray.get('animals', 'a'), 'unavailable');
    });

    test('bad cursors are refused', async () => {
      for (const since of ['x', '-1', '1.2.3', '@', '']) await rejection(moray.watch('animals', ALL, {since}), 'invalid');
    });
  });
}
