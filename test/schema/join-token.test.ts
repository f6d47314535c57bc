/** The grammar of join tokens. */
import fc from 'fast-check';
import {formatJoinToken, parseJoinToken} from '../../lib/schema/join-token';

const word = (alphabet: string, length: number): fc.Arbitrary<string> => fc.array(fc.constantFrom(...alphabet), {minLength: length, maxLength: length}).map((c) => c.join(''));
const LOWER = 'abcdefghijklmnopqrstuvwxyz0123456789';
const token = fc.record({id: word(LOWER, 10), secret: word(LOWER, 32), fingerprint: word(`${LOWER}ABCDEFGHIJKLMNOPQRSTUVWXYZ_-`, 43)});

test('what is written is read, with the white space of a copy around it', () => {
  fc.assert(fc.property(token, fc.constantFrom('', ' ', '\n', '\t\r\n'), (t, blank) => {
    expect(parseJoinToken(blank + formatJoinToken(t) + blank)).toEqual(t);
  }));
});

test('one that lost a part, or gained one, is refused, and not repeated in the refusal', () => {
  fc.assert(fc.property(token, fc.nat(), fc.nat(), (t, at, many) => {
    const text = formatJoinToken(t);
    const from = at % text.length;
    const cut = text.slice(0, from) + text.slice(from + 1 + (many % 20));
    for (const broken of [cut, `${text}x`, text.replace('cetus1', 'cetus2'), text.toUpperCase(), `${text.slice(0, 20)} ${text.slice(20)}`]) {
      const refused = (): unknown => parseJoinToken(broken);
      expect(refused).toThrow(/join token/);
      try { refused(); } catch (err) { expect((err as Error).message).not.toContain(t.secret); }
    }
  }));
});

test('anything else is refused', () => {
  fc.assert(fc.property(fc.string({maxLength: 200}), (text) => {
    expect(() => parseJoinToken(text)).toThrow(/join token/);
  }));
});
