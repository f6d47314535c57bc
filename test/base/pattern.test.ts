/** The automaton agrees with JavaScript's engine on what both understand, and stays linear where that one explodes. */
import fc from 'fast-check';
import {compilePattern} from '../../lib/base/pattern';

const atom = fc.constantFrom('a', 'b', '.', '[ab]', '[^a]', '[a-c]', '\\d', '^', '$', '(a|b)', '(ab)', '(a|b|c1)', '(a*)', '(?:b+)');
const piece = fc.tuple(atom, fc.constantFrom('', '', '*', '+', '?')).map(([a, q]) => (a === '^' || a === '$' ? a : a + q));
const expression = fc.array(fc.array(piece, {minLength: 1, maxLength: 4}).map((p) => p.join('')), {minLength: 1, maxLength: 3}).map((a) => a.join('|'));

test('as JavaScript', () => {
  fc.assert(fc.property(expression, fc.string({unit: fc.constantFrom('a', 'b', 'c', '1'), maxLength: 8}), (source, subject) => {
    expect(compilePattern(`/${source}/`).matches(subject)).toBe(new RegExp(source).test(subject));
  }), {numRuns: 2000});
});

test('globs match the whole word', () => {
  expect(compilePattern('we?-*').matches('web-1')).toBe(true);
  expect(compilePattern('we?-*').matches('xweb-1')).toBe(false);
  expect(compilePattern('a.c*').matches('abc')).toBe(false);
  expect(compilePattern('web').exact).toBe('web');
});

test('a pattern that backtracks for ever elsewhere answers at once', () => {
  const started = process.hrtime.bigint();
  expect(compilePattern('/^(a+)+$/').matches(`${'a'.repeat(2000)}b`)).toBe(false);
  expect(Number(process.hrtime.bigint() - started) / 1e6).toBeLessThan(5000);
});
