/** Texts that are no JSON, in the words of the Engine's decoder, as dockerd says them. */
import fc from 'fast-check';
import {type JsonWords, STREAM, parseJson} from '../../lib/base/json-syntax';

function why(text: string, words: JsonWords | null = STREAM): string | undefined {
  try {
    parseJson(text, words ?? undefined);
    return undefined;
  } catch (err) {
    return (err as Error).message;
  }
}

describe('text that is not JSON', () => {
  it.each([
    ['{"Image":"busybox"', 'unexpected EOF'],
    ['{', 'unexpected EOF'],
    ['"x', 'unexpected EOF'],
    ['{"Image" "busybox"}', "invalid character '\"' after object key"],
    ['{"Image":"busybox",}', "invalid character '}' looking for beginning of object key string"],
    ['{,}', "invalid character ',' looking for beginning of object key string"],
    ['{"Image":tru}', "invalid character '}' in literal true (expecting 'e')"],
    ['{"Image":nul}', "invalid character '}' in literal null (expecting 'l')"],
    ['{"Image":01}', "invalid character '1' after object key:value pair"],
    ['{"Image":1.}', "invalid character '}' after decimal point in numeric literal"],
    ['{"Image":-}', "invalid character '}' in numeric literal"],
    ['{"Image":1e}', "invalid character '}' in exponent of numeric literal"],
    ["{'Image':\"x\"}", "invalid character '\\'' looking for beginning of object key string"],
    ['{"Image":"\\x"}', "invalid character 'x' in string escape code"],
    ['{"Image":"\\u12g"}', "invalid character 'g' in \\u hexadecimal character escape"],
    ['[1,]', "invalid character ']' looking for beginning of value"],
    ['[1 2]', "invalid character '2' after array element"],
    ['x', "invalid character 'x' looking for beginning of value"],
    ['{"a":1 "b"}', "invalid character '\"' after object key:value pair"],
    ['{"Image":+1}', "invalid character '+' looking for beginning of value"],
    ['"a\nb"', "invalid character '\\n' in string literal"],
    ['"a\x01b"', "invalid character '\\x01' in string literal"],
    ['ü', "invalid character 'Ã' looking for beginning of value"],
    ['{} {}', 'unexpected content after JSON'],
    ['{}}', 'unexpected content after JSON'],
  ])('%s: %s', (text, message) => expect(why(text)).toBe(message));

  it('a value by itself has other words for its end and for what follows it', () => {
    expect([why('{', null), why('{} x', null)]).toEqual(['unexpected end of JSON input', "invalid character 'x' after top-level value"]);
  });

  it('has always a reason, and no text that is JSON has one', () => {
    fc.assert(fc.property(fc.oneof(fc.string(), fc.json().chain((json) => fc.nat(json.length).map((at) => json.slice(0, at))), fc.string({unit: fc.constantFrom(...'{}[]":,\\u0123-+.eEtruefalsn \n')})), (text) => {
      let right = true;
      try { JSON.parse(text); } catch { right = false; }
      expect(why(text) === undefined).toBe(right);
    }), {numRuns: 2_000});
  });
});
