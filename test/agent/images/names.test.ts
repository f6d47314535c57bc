import fc from 'fast-check';
import {entryName, follow, linkTarget} from '../../../lib/agent/images/archive/names';

describe('names in an archive', () => {
  test.each([['a/b', 'a/b'], ['./a//b/', 'a/b'], ['.', ''], ['./', ''], ['a/./b', 'a/b']])('%s is %s', (name, expected) => {
    expect(entryName(name)).toBe(expected);
  });
  test.each(['..', '../a', 'a/../../b', '/etc/passwd', 'a/../b', 'a\0b', 'x'.repeat(5000)])('%j is refused', (name) => {
    expect(() => entryName(name)).toThrow(expect.objectContaining({kind: 'invalid'}));
  });

  test('symbolic links are relative to where they stand, hard links to the archive', () => {
    expect(linkTarget('two/layer.tar', '../one/layer.tar', 'symlink')).toBe('one/layer.tar');
    expect(linkTarget('two/layer.tar', 'one/layer.tar', 'link')).toBe('one/layer.tar');
    expect(() => linkTarget('two/layer.tar', '../../x', 'symlink')).toThrow(expect.objectContaining({kind: 'invalid'}));
    expect(() => linkTarget('two/layer.tar', '../x', 'link')).toThrow(expect.objectContaining({kind: 'invalid'}));
  });

  test('links are followed, also through linked directories, and not for ever', () => {
    const files = new Map([['real/layer.tar', 1]]);
    expect(follow('a', files, new Map([['a', 'b'], ['b', 'real/layer.tar']]))).toBe(1);
    expect(follow('dir/layer.tar', files, new Map([['dir', 'real']]))).toBe(1);
    expect(follow('nothing', files, new Map())).toBeUndefined();
    expect(() => follow('a', files, new Map([['a', 'b'], ['b', 'a']]))).toThrow(expect.objectContaining({kind: 'invalid'}));
  });

  test('no name leaves the archive', () => {
    const part = fc.constantFrom('..', '.', '', 'a', 'b', '...', 'c d');
    const name = fc.array(part, {maxLength: 8}).map((parts) => parts.join('/'));
    fc.assert(fc.property(name, name, fc.constantFrom('symlink' as const, 'link' as const), (from, target, kind) => {
      for (const resolve of [() => entryName(from), () => linkTarget(entryName(from), target, kind)]) {
        let inside: string;
        try {
          inside = resolve();
        } catch (err) {
          expect(err).toMatchObject({kind: 'invalid'});
          continue;
        }
        expect(inside.startsWith('/') || inside.split('/').includes('..')).toBe(false);
      }
    }));
  });
});
