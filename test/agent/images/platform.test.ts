import {choosePlatform, formatPlatform, nodePlatform, parsePlatform, satisfies} from '../../../lib/agent/images/registry/platform';
import type {Descriptor} from '../../../lib/schema/docker';

const entry = (text: string, n = 0): Descriptor => {
  const [os, architecture, variant] = text.split('/');
  return {mediaType: 'm', digest: `sha256:${String(n).padStart(64, '0')}`, size: 1, platform: {os, architecture, ...(variant ? {variant} : {})}};
};
const choose = (wanted: string, ...offered: string[]): string | undefined => {
  const best = choosePlatform(offered.map(entry), parsePlatform(wanted))?.platform;
  return best && formatPlatform(best);
};

describe('platforms', () => {
  test.each([
    ['linux/amd64', ['linux/arm64', 'linux/amd64'], 'linux/amd64'],
    ['linux/amd64', ['linux/amd64/v3', 'linux/amd64'], 'linux/amd64'],
    ['linux/amd64/v3', ['linux/amd64', 'linux/amd64/v2', 'linux/amd64/v4'], 'linux/amd64/v2'],
    ['linux/amd64', ['linux/386', 'windows/amd64'], 'linux/386'],
    ['linux/arm/v7', ['linux/arm/v5', 'linux/arm/v6', 'linux/arm64'], 'linux/arm/v6'],
    ['linux/arm/v7', ['linux/arm'], 'linux/arm'],
    ['linux/arm/v6', ['linux/arm/v7'], undefined],
    ['linux/arm64', ['linux/arm64/v8', 'linux/arm/v7'], 'linux/arm64/v8'],
    ['linux/arm64/v8', ['linux/arm/v7', 'linux/arm64'], 'linux/arm64'],
    ['linux/s390x', ['unknown/unknown', 'linux/amd64'], undefined],
  ])('%s among %j takes %s', (wanted, offered, expected) => {
    expect(choose(wanted, ...offered)).toBe(expected);
  });

  test('of equals the first; entries without a platform never', () => {
    const entries = [{...entry('linux/amd64', 1), platform: undefined}, entry('linux/amd64', 2), entry('linux/amd64', 3)];
    expect(choosePlatform(entries, parsePlatform('linux/amd64'))?.digest).toBe(entries[1].digest);
  });

  test('names that people use', () => {
    expect(formatPlatform(parsePlatform('linux/x86_64'))).toBe('linux/amd64');
    expect(formatPlatform(parsePlatform('arm64'))).toBe('linux/arm64');
    expect(formatPlatform(parsePlatform('linux/aarch64'))).toBe('linux/arm64');
    expect(nodePlatform('x64')).toEqual({os: 'linux', architecture: 'amd64'});
    expect(() => nodePlatform('sparc')).toThrow(expect.objectContaining({kind: 'unsupported'}));
  });

  test.each(['', 'a/b/c/d', 'linux/a b', 'nonsense', 'linux/'])('%j is refused', (text) => {
    expect(() => parsePlatform(text)).toThrow(expect.objectContaining({kind: 'invalid'}));
  });

  test('a 32-bit image does not satisfy a wish for a 64-bit one', () => {
    expect(satisfies(parsePlatform('linux/amd64'), {os: 'linux', architecture: '386'})).toBe(false);
    expect(satisfies(parsePlatform('linux/arm64'), {os: 'linux', architecture: 'arm64'})).toBe(true);
  });
});
