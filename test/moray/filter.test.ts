import fc from 'fast-check';
import {eq, formatFilter, parseFilter, type Filter} from '../../lib/moray/filter';

const field = fc.stringMatching(/^[a-z][A-Za-z0-9_]{0,8}$/);
const value = fc.string({unit: 'grapheme', maxLength: 12});
const part = fc.string({unit: 'grapheme', minLength: 1, maxLength: 5});
const {filter} = fc.letrec<{filter: Filter}>((tie) => ({
  filter: fc.oneof({maxDepth: 4, withCrossShrink: true},
    fc.record({op: fc.constantFrom('eq' as const, 'ge' as const, 'le' as const), field, value}),
    fc.record({op: fc.constant('present' as const), field}),
    fc.record({op: fc.constant('substring' as const), field, initial: fc.string({maxLength: 4}), any: fc.array(part, {maxLength: 3}), final: part}),
    fc.record({op: fc.constantFrom('and' as const, 'or' as const), of: fc.array(tie('filter'), {maxLength: 4})}),
    fc.record({op: fc.constant('not' as const), of: tie('filter')})),
}));

test('a filter tree survives being written and parsed', () => {
  fc.assert(fc.property(filter, (tree) => expect(parseFilter(formatFilter(tree))).toEqual(tree)));
});

test('any text is a filter or refused, and never anything else', () => {
  fc.assert(fc.property(fc.oneof(fc.string(), fc.string({unit: fc.constantFrom('(', ')', '&', '|', '!', '=', '*', '\\', 'a', '2', '>', '<')})), (text) => {
    try {
      parseFilter(text);
    } catch (err) {
      expect(err).toMatchObject({kind: 'invalid'});
    }
  }), {numRuns: 2000});
});

test('no value is ever taken for syntax', () => {
  fc.assert(fc.property(fc.string({unit: 'binary'}), (text) => expect(parseFilter(eq('name', text))).toEqual({op: 'eq', field: 'name', value: text})));
  expect(() => eq('a)(b', 'x')).toThrow(/not a field name/);
});

const ldap = jest.requireActual<{parse(text: string): Ldap}>('ldap-filter');
interface Ldap { type: string; attribute: string; value?: string; filters?: Ldap[]; filter?: Ldap; initial?: string; any?: string[]; final?: string }
function ofLdap(f: Ldap): Filter {
  switch (f.type) {
    case 'and': case 'or': return {op: f.type, of: f.filters!.map(ofLdap)};
    case 'not': return {op: 'not', of: ofLdap(f.filter!)};
    case 'present': return {op: 'present', field: f.attribute};
    case 'substring': return {op: 'substring', field: f.attribute, initial: f.initial!, any: f.any!, final: f.final!};
    default: return {op: f.type === 'equal' ? 'eq' : f.type as 'ge' | 'le', field: f.attribute, value: f.value!};
  }
}

test('the package ldap-filter reads the same trees from the filters that both accept', () => {
  // Theirs refuses (&) and (|), and decodes escapes byte by byte.
  const shared = filter.filter((tree) => !/\((&|\|)\)|[^\x20-\x7e]/.test(formatFilter(tree)));
  fc.assert(fc.property(shared, (tree) => expect(ofLdap(ldap.parse(formatFilter(tree)))).toEqual(tree)), {numRuns: 300});
});
