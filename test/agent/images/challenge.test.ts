import fc from 'fast-check';
import {parseChallenges} from '../../../lib/agent/images/registry/challenge';

describe('WWW-Authenticate', () => {
  test.each([
    ['Bearer realm="https://auth.docker.io/token",service="registry.docker.io"', [{scheme: 'bearer', parameters: {realm: 'https://auth.docker.io/token', service: 'registry.docker.io'}}]],
    ['Bearer realm="https://a/t",scope="repository:a/b:pull,push",error="insufficient_scope"', [{scheme: 'bearer', parameters: {realm: 'https://a/t', scope: 'repository:a/b:pull,push', error: 'insufficient_scope'}}]],
    ['Basic realm="a \\"quoted\\" word"', [{scheme: 'basic', parameters: {realm: 'a "quoted" word'}}]],
    ['BASIC realm=plain', [{scheme: 'basic', parameters: {realm: 'plain'}}]],
    ['Basic realm="x", Bearer realm="y" , service = "z"', [{scheme: 'basic', parameters: {realm: 'x'}}, {scheme: 'bearer', parameters: {realm: 'y', service: 'z'}}]],
    ['Negotiate YIIabc==, Bearer realm="y"', [{scheme: 'negotiate', parameters: {}}, {scheme: 'bearer', parameters: {realm: 'y'}}]],
    ['Bearer', [{scheme: 'bearer', parameters: {}}]],
    ['', []],
  ])('%s', (header, expected) => {
    expect(parseChallenges(header)).toEqual(expected);
  });

  test('several headers, and none', () => {
    expect(parseChallenges(['Basic realm=a', 'Bearer realm=b']).map((c) => c.scheme)).toEqual(['basic', 'bearer']);
    expect(parseChallenges(undefined)).toEqual([]);
  });

  test('any header is read to its end without throwing', () => {
    const text = fc.array(fc.constantFrom('Bearer', 'Basic', ' ', ',', '=', '"', '\\', 'realm', 'x', '__proto__', '\t'), {maxLength: 40}).map((parts) => parts.join(''));
    fc.assert(fc.property(fc.oneof(text, fc.string()), (header) => {
      for (const {scheme, parameters} of parseChallenges(header)) {
        expect(scheme).toBe(scheme.toLowerCase());
        expect(Object.getPrototypeOf(parameters)).toBe(Object.prototype);
      }
    }));
  });

  test('what was quoted comes back', () => {
    fc.assert(fc.property(fc.string(), (value) => {
      const header = `Bearer realm="${value.replace(/[\\"]/g, '\\$&')}"`;
      expect(parseChallenges(header)[0].parameters.realm).toBe(value);
    }));
  });
});
