import {parseJson} from '../../lib/base/json-syntax';

/** What Go's decoder says of the same texts. */
test.each<[text: string, says: string]>([
  ['{', 'unexpected EOF'],
  ['{"a":', 'unexpected EOF'],
  ['["a"', 'unexpected EOF'],
  ['"a', 'unexpected EOF'],
  ['', 'unexpected EOF'],
  ['x', "invalid character 'x' looking for beginning of value"],
  ["'x'", "invalid character '\\'' looking for beginning of value"],
  ['{"a":}', "invalid character '}' looking for beginning of value"],
  ['{a:1}', "invalid character 'a' looking for beginning of object key string"],
  ['{"a":1,}', "invalid character '}' looking for beginning of object key string"],
  ['{"a" 1}', "invalid character '1' after object key"],
  ['{"a":1 "b"}', "invalid character '\"' after object key:value pair"],
  ['[1 2]', "invalid character '2' after array element"],
  ['{} x', "invalid character 'x' after top-level value"],
])('%s', (text, says) => {
  expect(() => parseJson(text)).toThrow(says);
});

test('a value that is cut has words of its own', () => {
  expect(() => parseJson('{', 'unexpected end of JSON input')).toThrow('unexpected end of JSON input');
});
