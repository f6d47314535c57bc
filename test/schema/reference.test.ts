import fc from 'fast-check';
import {familiarName, familiarReference, formatReference, normalizeReference, parseImageName, parseReference} from '../../lib/schema/reference';

const HEX = 'a'.repeat(64);

describe('references', () => {
  test.each([
    ['busybox', 'docker.io/library/busybox:latest', 'busybox:latest'],
    ['me/app:1.0', 'docker.io/me/app:1.0', 'me/app:1.0'],
    ['localhost/app', 'localhost/app:latest', 'localhost/app:latest'],
    ['localhost:5000/a/b/c:x', 'localhost:5000/a/b/c:x', 'localhost:5000/a/b/c:x'],
    ['127.0.0.1:5000/app', '127.0.0.1:5000/app:latest', '127.0.0.1:5000/app:latest'],
    ['[::1]:5000/app', '[::1]:5000/app:latest', '[::1]:5000/app:latest'],
    ['index.docker.io/busybox', 'docker.io/library/busybox:latest', 'busybox:latest'],
    ['docker.io/library/busybox', 'docker.io/library/busybox:latest', 'busybox:latest'],
    ['quay.io/x/y', 'quay.io/x/y:latest', 'quay.io/x/y:latest'],
    [`busybox@sha256:${HEX}`, `docker.io/library/busybox@sha256:${HEX}`, `busybox@sha256:${HEX}`],
    [`busybox:1@sha256:${HEX}`, `docker.io/library/busybox@sha256:${HEX}`, `busybox@sha256:${HEX}`],
    ['a__b/c--d', 'docker.io/a__b/c--d:latest', 'a__b/c--d:latest'],
  ])('%s is stored as %s and shown as %s', (text, stored, shown) => {
    expect(normalizeReference(text)).toBe(stored);
    expect(familiarReference(parseImageName(text))).toBe(shown);
  });

  test.each([
    ['', 'invalid reference format'],
    ['Busybox', 'invalid reference format: repository name must be lowercase'],
    ['a..b', 'invalid reference format'],
    ['a:b:c', 'invalid reference format'],
    ['/a', 'invalid reference format'],
    ['a/', 'invalid reference format'],
    ['../a', 'invalid reference format'],
    [`a:${'x'.repeat(129)}`, 'invalid reference format'],
    [HEX, `invalid repository name (${HEX}), cannot specify 64-byte hexadecimal strings`],
    ['a@sha256:123', 'invalid reference format'],
    [`a@sha512:${HEX}`, 'unsupported digest algorithm'],
    ['x'.repeat(260), 'repository name must not be more than 255 characters'],
  ])('%j is refused: %s', (text, message) => {
    expect(() => parseReference(text)).toThrow(expect.objectContaining({kind: 'invalid', message}));
  });

  test('without tag and digest both stay absent', () => {
    expect(parseReference('quay.io/a/b')).toEqual({registry: 'quay.io', repository: 'a/b'});
    expect(familiarName(parseReference('busybox'))).toBe('busybox');
  });

  test('the stored form and the shown form mean the same image', () => {
    const part = fc.stringMatching(/^[a-z0-9]{1,6}(-[a-z0-9]{1,4})?$/);
    const registry = fc.constantFrom('docker.io', 'localhost:5000', 'quay.io', '[fe80::1]:80');
    fc.assert(fc.property(registry, fc.array(part, {minLength: 2, maxLength: 4}), fc.stringMatching(/^[A-Za-z0-9_][A-Za-z0-9_.-]{0,10}$/), (r, parts, tag) => {
      const reference = {registry: r, repository: parts.join('/'), tag};
      expect(parseReference(formatReference(reference))).toEqual(reference);
      expect(parseReference(familiarReference(reference))).toEqual(reference);
    }));
  });

  test('any text is either a reference or an `invalid` error', () => {
    fc.assert(fc.property(fc.string(), (text) => {
      try {
        expect(normalizeReference(normalizeReference(text))).toBe(normalizeReference(text));
      } catch (err) {
        expect(err).toMatchObject({kind: 'invalid'});
      }
    }));
  });
});
