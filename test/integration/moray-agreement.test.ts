/** SQL and memory say the same of every filter, object and order: the change feed filters in memory what find filters in SQL. */
import fc from 'fast-check';
import {formatFilter, type Filter} from '../../lib/moray/filter';
import {createMemoryMoray} from '../../lib/moray/memory';
import type {Moray} from '../../lib/moray/moray';
import {createMoray} from '../../lib/moray/postgres';
import type {BucketDefinition, IndexType} from '../../lib/schema/bucket';
import {usePostgres} from '../harness/postgres';

const TYPES = ['string', 'number', 'boolean', 'uuid', 'date', 'ip', 'subnet'] as const;
const field = (type: IndexType): string => (type.endsWith('[]') ? `${type.slice(0, -2)}s` : type);
const ALL_TYPES: IndexType[] = [...TYPES, ...TYPES.map((t) => `${t}[]` as IndexType)];
const MIXED: BucketDefinition = {name: 'mixed', version: 1, fields: Object.fromEntries(ALL_TYPES.map((type) => [field(type), {type, path: type.endsWith('[]') ? `many.${type.slice(0, -2)}` : `one.${type}`}]))};

// Small domains, so that filters meet objects; each with the values that are easily taken wrong.
const VALUES: Record<(typeof TYPES)[number], fc.Arbitrary<unknown>> = {
  string: fc.oneof(fc.constantFrom('', 'a', 'A', 'ab', 'a%', 'a_', 'a\\', 'a*b', '(', '\u{1F600}', '\uffee', '\ud7ff', 'é', 'e\u0301', '"', "'", '{}', 'NULL', ' a'), fc.string({maxLength: 3, unit: fc.constantFrom('a', 'b', '%', '_', '\\', '*', '(', 'ü')})),
  number: fc.oneof(fc.integer({min: -3, max: 3}), fc.constantFrom(0.1, 1e21, 1e-7, -0, '10', '1.0', '9007199254740993', '9007199254740992', '-0.50', 2 ** 53, 5e-324), fc.double({noNaN: true, noDefaultInfinity: true})),
  boolean: fc.boolean(),
  uuid: fc.constantFrom('00000000-0000-0000-0000-000000000000', 'ffffffff-ffff-ffff-ffff-ffffffffffff', 'FFFFFFFF-ffff-ffff-ffff-ffffffffffff', '80000000-0000-0000-0000-000000000000'),
  date: fc.constantFrom('2024-02-29T00:00:00Z', '2024-02-29T01:00:00+01:00', '2024-02-28T23:59:59.999999999Z', '2024-02-28T23:59:59.999999Z', '0001-01-01T00:00:00Z', '0001-01-01T00:00:00+14:00', '9999-12-31T23:59:59.9999995-14:00', '1969-12-31T23:59:59.5Z', '1970-01-01T00:00:00.000001Z'),
  ip: fc.constantFrom('0.0.0.0', '10.0.0.1', '255.255.255.255', '::', '::1', '0:0:0:0:0:0:0:1', '::ffff:10.0.0.1', 'fe80::A', 'ffff::'),
  subnet: fc.constantFrom('0.0.0.0/0', '10.0.0.0/8', '10.0.0.0/16', '10.1.0.0/16', '9.0.0.0/8', '10.0.0.1/32', '::/0', 'fe80::/10', 'fe80::/64', '::1/128'),
};
const shown = (value: unknown): string => (Object.is(value, -0) ? '0' : String(value));

const object = fc.record({
  one: fc.record(Object.fromEntries(TYPES.map((t) => [t, fc.option(VALUES[t])])), {requiredKeys: []}),
  many: fc.record(Object.fromEntries(TYPES.map((t) => [t, fc.option(fc.array(VALUES[t], {maxLength: 3}))])), {requiredKeys: []}),
}, {requiredKeys: []});

const leaf: fc.Arbitrary<Filter> = fc.oneof(
  fc.constantFrom(...ALL_TYPES).chain((type) => fc.record({op: fc.constantFrom('eq' as const, 'ge' as const, 'le' as const), field: fc.constant(field(type)), value: VALUES[type.replace('[]', '') as (typeof TYPES)[number]].map(shown)})),
  fc.record({op: fc.constant('present' as const), field: fc.constantFrom(...ALL_TYPES.map(field))}),
  fc.tuple(fc.constantFrom('string', 'strings', '_key'), VALUES.string, fc.array(VALUES.string, {maxLength: 2}), VALUES.string).map(([name, initial, any, final]): Filter => {
    const parts = (any as string[]).filter((p) => p !== '');
    return initial === '' && final === '' && parts.length === 0 ? {op: 'present', field: name} : {op: 'substring', field: name, initial: initial as string, any: parts, final: final as string};
  }),
  fc.record({op: fc.constantFrom('eq' as const, 'ge' as const, 'le' as const), field: fc.constant('_key'), value: fc.constantFrom('k1', 'k2', 'k9')}));
const {filter} = fc.letrec<{filter: Filter}>((tie) => ({
  filter: fc.oneof({maxDepth: 3}, {weight: 3, arbitrary: leaf}, fc.record({op: fc.constantFrom('and' as const, 'or' as const), of: fc.array(tie('filter'), {maxLength: 4})}), fc.record({op: fc.constant('not' as const), of: tie('filter')})),
}));

let real: Moray;
let model: Moray;
beforeEach(async () => {
  real = createMoray({url: await postgres.freshDatabase()});
  model = createMemoryMoray();
  await Promise.all([real.open(MIXED), model.open(MIXED)]);
});
afterEach(() => Promise.all([real.close(), model.close()]));
const postgres = usePostgres();

test('every filter finds the same objects, in the same order', async () => {
  await fc.assert(fc.asyncProperty(fc.array(object, {minLength: 1, maxLength: 8}), fc.array(filter, {minLength: 20, maxLength: 20}), fc.constantFrom(...TYPES, '_key'), fc.constantFrom('asc' as const, 'desc' as const), async (objects, filters, by, order) => {
    for (const store of [real, model]) {
      await store.deleteMany('mixed', '(&)');
      await store.batch(objects.map((value, n) => ({op: 'put' as const, bucket: 'mixed', key: `k${n}`, value})));
    }
    for (const tree of filters) {
      const text = formatFilter(tree);
      const [sql, memory] = await Promise.all([real, model].map(async (store) => (await store.list('mixed', text, {sort: [{field: by, order}]})).map((row) => row.key)));
      expect({text, keys: sql}).toEqual({text, keys: memory});
    }
  }), {numRuns: 60, endOnFailure: true});
});
