/** Queries and versions that are wrong, in Go's words, as dockerd says them; and what it makes of odd ones. */
import {CetusError} from '../../lib/base/errors';
import {Query} from '../../lib/docker/query';
import {parseVersion, splitVersion} from '../../lib/docker/version';
import {closeWorlds, world} from './world';

afterEach(closeWorlds);

const why = (work: () => unknown): string => {
  try {
    return `nothing wrong: ${String(work())}`;
  } catch (err) {
    if (err instanceof CetusError && err.kind === 'invalid') return err.message;
    throw err;
  }
};

it.each([
  ['x', 'strconv.Atoi: parsing "x": invalid syntax'], ['1.5', 'strconv.Atoi: parsing "1.5": invalid syntax'], ['99999999999999999999', 'strconv.Atoi: parsing "99999999999999999999": value out of range'],
  [' 1', 'strconv.Atoi: parsing " 1": invalid syntax'], ['0x10', 'strconv.Atoi: parsing "0x10": invalid syntax'],
])('the number %s', (text, message) => expect(why(() => new Query(`n=${encodeURIComponent(text)}`).int('n'))).toBe(message));

it.each([['', undefined], ['7', 7], ['-1', -1], ['+7', 7], ['007', 7]])('the number "%s" is %s', (text, value) => expect(new Query(`n=${encodeURIComponent(text)}`).int('n')).toBe(value));

it.each([['', false], ['0', false], ['no', false], ['false', false], ['none', false], [' False ', false], ['FALSE', false], ['1', true], ['maybe', true], ['off', true], ['garbage', true]])('"%s" is %s', (text, value) =>
  expect(new Query(`b=${encodeURIComponent(text)}`).bool('b')).toBe(value));

it.each([
  ['x', 'strconv.ParseInt: parsing "x": invalid syntax'], ['2013-01-01', 'strconv.ParseInt: parsing "2013-01-01": invalid syntax'], ['1h', 'strconv.ParseInt: parsing "1h": invalid syntax'],
  ['1.x', 'strconv.ParseInt: parsing "x": invalid syntax'], ['99999999999999999999', 'strconv.ParseInt: parsing "99999999999999999999": value out of range'],
])('the time %s', (text, message) => expect(why(() => new Query(`t=${encodeURIComponent(text)}`).timestampNs('t'))).toBe(message));

it.each([['5', 5_000_000_000n], ['5.5', 5_500_000_000n], ['-1', -1_000_000_000n], ['1700000000.000000001', 1_700_000_000_000_000_001n], ['1.1234567891', 1_123_456_789n], ['2013-01-01T00:00:00.5Z', 1_356_998_400_500_000_000n]])('the time %s is %s', (text, value) =>
  expect(new Query(`t=${encodeURIComponent(text)}`).timestampNs('t')).toBe(value));

it.each([
  ['x', "invalid filter: invalid character 'x' looking for beginning of value"], ['{', 'invalid filter: unexpected end of JSON input'], ['{"a":["b"]} x', "invalid filter: invalid character 'x' after top-level value"],
])('the filters %s', (text, message) => expect(why(() => new Query(`filters=${encodeURIComponent(text)}`).filters())).toBe(message));

it.each([['a=%zz', 'invalid URL escape "%zz"'], ['a=%', 'invalid URL escape "%"'], ['%4=1', 'invalid URL escape "%4="'], ['a;b', 'invalid semicolon separator in query'], ['x=1&y;z=%zz', 'invalid semicolon separator in query']])(
  'the query %s', async (raw, message) => {
    expect(why(() => new Query(raw).check())).toBe(message);
    const {url, port} = await world();
    const got = await fetch(`${url}/containers/json?${raw}`);
    expect([got.status, (await got.json() as {message: string}).message]).toEqual([400, message]);
    // Nobody reads what is asked of these.
    expect((await fetch(`http://127.0.0.1:${port}/info?${raw}`)).status).toBe(200);
  });

it.each([['1.23', 'old'], ['1', 'old'], ['0', 'old'], ['1.4.1', 'old'], ['1..5', 'old'], ['.', 'old'], ['1.52', 'new'], ['1.51.1', 'new'], ['2', 'new'], ['99999999999999999999', 'new']])('version %s is too %s', (text, what) => expect(why(() => parseVersion(text))).toContain(`client version ${text} is too ${what}`));
it.each([['1.24', 24], ['1.041', 41], ['1.24.1', 24], ['1.51', 51]])('version %s is 1.%i', (text, minor) => expect(parseVersion(text)).toEqual({major: 1, minor}));
it('a prefix is a version only where it looks like one', () => {
  expect(splitVersion('/v1.41/info')).toEqual({version: '1.41', path: '/info'});
  expect(splitVersion('/vx/info')).toEqual({version: '1.51', path: '/vx/info'});
});
