/** Binds, Mounts, Tmpfs, VolumesFrom by their words: what they become, and what is refused, in the Engine's words. */
import fc from 'fast-check';
import {CetusError} from '../../lib/base/errors';
import type {DatacenterConfig} from '../../lib/datacenter/context';
import {checkVolumeDriver, checkVolumeName, gateVolumeOptions, parseVolumesFrom, wantedMounts, type WantedMount} from '../../lib/datacenter/create/mounts';
import type {HostConfig, Mount} from '../../lib/schema/docker';

const config = (allowBinds: DatacenterConfig['allowBinds'] = 'all'): DatacenterConfig => ({id: '', name: '', version: '', allowHostNetwork: true, allowPrivileged: false, allowBinds});
const wanted = (host: HostConfig, volumes?: Record<string, object>): WantedMount[] => wantedMounts(host, volumes, [], config());
const bind = (text: string): WantedMount => wanted({Binds: [text]})[0]!;
const mount = (m: Partial<Mount>): WantedMount => wanted({Mounts: [{Target: '/x', ...m} as Mount]})[0]!;
const message = (work: () => unknown): string => {
  try {
    work();
  } catch (err) {
    if (err instanceof CetusError) return err.message;
    throw err;
  }
  return 'it succeeded';
};

test.each([
  ['/a/../b:/x:ro,z,rslave', {type: 'bind', source: '/b', destination: '/x', readOnly: true, propagation: 'rslave', createSource: true}],
  ['/a:/x:', {type: 'bind', source: '/a', readOnly: false, propagation: ''}],
  ['data:/x/../y:nocopy', {type: 'volume', destination: '/y', noCopy: true, volume: {name: 'data', anonymous: false}}],
  ['/y', {type: 'volume', destination: '/y', volume: {name: '', anonymous: true}}],
])('-v %s', (text, parsed) => expect(bind(text)).toMatchObject(parsed));

test.each([
  ['/a:/x:foo', 'invalid mode: foo'], ['/a:/x:ro,rw', 'invalid mode: ro,rw'], ['/a:/x:ro,ro', 'invalid mode: ro,ro'], ['/a:/x:z,Z', 'invalid mode: z,Z'], ['/a:/x:cached,delegated', 'invalid mode: cached,delegated'],
  ['/a:/x:private,rprivate', 'invalid mode: private,rprivate'], ['/a:/x:,', 'invalid mode: ,'],
  ['/a:/x:nocopy', 'invalid volume specification: \'/a:/x:nocopy\': invalid mount config for type "bind": field VolumeOptions must not be specified'],
  ['aa:/x:shared', 'invalid volume specification: \'aa:/x:shared\': invalid mount config for type "volume": field BindOptions must not be specified'],
  ['::', "invalid volume specification: '::'"], [':/x', "invalid volume specification: ':/x'"], ['/a:/b:ro:x', "invalid volume specification: '/a:/b:ro:x'"],
  ['aa:y', 'invalid volume specification: \'aa:y\': invalid mount config for type "volume": invalid mount path: \'y\' mount path must be absolute'],
  ['aa:/y/..', 'invalid volume specification: \'aa:/y/..\': invalid mount config for type "volume": invalid specification: destination can\'t be \'/\''],
])('-v %s is refused', (text, words) => expect(message(() => bind(text))).toBe(words));

test('--mount, and what is refused', () => {
  expect(mount({Type: 'bind', Source: '/a', ReadOnly: true, BindOptions: {NonRecursive: true, Propagation: 'rshared', CreateMountpoint: true}})).toMatchObject({nonRecursive: true, propagation: 'rshared', createSource: true, readOnly: true});
  expect(mount({Type: 'bind', Source: '/a', ReadOnly: true, BindOptions: {ReadOnlyForceRecursive: true}})).toMatchObject({readOnlyDepth: 'all', createSource: false});
  expect(mount({Type: 'bind', Source: '/a', ReadOnly: true, BindOptions: {ReadOnlyNonRecursive: true}})).toMatchObject({readOnlyDepth: 'top'});
  expect(mount({Type: 'tmpfs', ReadOnly: true, TmpfsOptions: {SizeBytes: 1000, Mode: 0o1777}})).toMatchObject({options: ['size=1000', 'mode=1777', 'ro']});
  for (const [m, words] of [
    [{Type: 'bind', Source: '/a', BindOptions: {ReadOnlyForceRecursive: true}}, 'invalid mount config for type "bind": field BindOptions.ReadOnlyForceRecursive requires ReadOnly'],
    [{Type: 'volume', ReadOnly: true}, 'invalid mount config for type "volume": must not set ReadOnly mode when using anonymous volumes'],
    [{Type: 'bind', Source: '/a', BindOptions: {Propagation: 'foo'}}, 'invalid mount config for type "bind": invalid propagation mode: foo'],
    [{Type: 'npipe', Source: 'a'}, 'invalid mount config for type "npipe": mount type unknown'], [{Source: 'a'}, 'invalid mount config for type "": mount type unknown'],
    [{Type: 'image', Source: 'busybox'}, 'mount of type image is not supported: use a volume, a bind or tmpfs'],
    [{Type: 'volume', Source: 'aa', VolumeOptions: {Subpath: '../x'}}, 'invalid mount config for type "volume": subpath must be a relative path within the volume'],
  ] as [Partial<Mount>, string][]) expect(message(() => mount(m))).toBe(words);
  expect(message(() => wanted({Binds: ['/a:/x', '/b:/x/']}))).toBe('Duplicate mount point: /x');
  expect(wanted({Tmpfs: {'/x': ''}, Mounts: [{Type: 'tmpfs', Target: '/x'}]})).toHaveLength(1);
  expect(message(() => wanted({Tmpfs: {rel: ''}}))).toBe("invalid mount path: 'rel' mount path must be absolute");
  expect(wanted({}, {data: {}})).toMatchObject([{destination: '/data'}]);
  expect(message(() => wanted({Binds: ['new:/x'], VolumeDriver: 'nfs'}))).toBe('create new: error looking up volume plugin nfs: plugin "nfs" not found');
});

test('--volumes-from', () => {
  expect([parseVolumesFrom('a'), parseVolumesFrom('a:'), parseVolumesFrom('a:ro,z')]).toEqual([{container: 'a', readOnly: false}, {container: 'a', readOnly: false}, {container: 'a', readOnly: true}]);
  for (const [text, words] of [['', 'volumes-from specification cannot be an empty string'], [':ro', 'invalid name or ID supplied: ""'], ['a:nocopy', 'invalid mode: nocopy'], ['a:b:c', 'invalid mode: b:c']] as const)
    expect(message(() => parseVolumesFrom(text))).toBe(words);
});

test('options of the local driver, and who may have them', () => {
  for (const [options, words] of [
    [{x: 'y'}, 'create v: invalid option: "x"'], [{type: 'tmpfs'}, 'create v: missing required option: "device"'], [{device: '/d'}, 'create v: missing required option: "type"'], [{o: 'ro'}, 'create v: missing required option: "device"'],
    [{size: '10m'}, 'create v: quota size requested but no quota support'], [{size: 'x'}, "create v: invalid size: 'x'"], [{size: '0'}, 'it succeeded'], [{type: 'nfs', device: ':/x', o: 'addr=1.2.3.4'}, 'it succeeded'],
  ] as [Record<string, string>, string][]) expect(message(() => checkVolumeDriver('v', 'local', options))).toBe(words);
  const some = config(['/srv']);
  expect(gateVolumeOptions({type: 'tmpfs', device: 'tmpfs'}, config('off'))).toEqual({});
  expect(gateVolumeOptions({type: 'none', device: '/srv/x', o: 'ro,bind'}, some)).toEqual({within: '/srv'});
  for (const type of ['none', 'tmpfs']) expect(message(() => gateVolumeOptions({type, device: '/etc', o: 'bind'}, some))).toMatch(/^bind mount of \/etc is not allowed on this datacenter: .*--binds/);
  expect(message(() => gateVolumeOptions({type: 'none', device: '/srv/../etc', o: 'rbind'}, some))).toMatch(/^bind mount of \/srv\/\.\.\/etc is not allowed on this datacenter: .*--binds/);
  expect(message(() => gateVolumeOptions({type: 'none', device: '/srv', o: 'bind,rshared'}, some))).toMatch(/^propagation shared is not allowed/);
  expect(message(() => gateVolumeOptions({type: 'ext4', device: '/dev/sda'}, some))).toMatch(/^volume driver option type=ext4 is not allowed on this datacenter: refused by `cetus up --no-privileged` /);
});

test('property: whatever is written, it is understood or refused with the client\'s own words, and stays within what is allowed', () => {
  const piece = fc.oneof(fc.constantFrom('/', '..', '/srv', '/srv/a', '/etc', 'data', 'ro', 'rw', 'z', 'nocopy', 'rslave', ':', '', '/var/run/docker.sock'), fc.string({maxLength: 6}));
  fc.assert(fc.property(fc.array(piece, {minLength: 1, maxLength: 4}), fc.boolean(), (pieces, colons) => {
    const text = pieces.join(colons ? ':' : '');
    let found: WantedMount;
    try {
      [found] = wantedMounts({Binds: [text]}, null, [], config(['/srv'])) as [WantedMount];
    } catch (err) {
      if (!(err instanceof CetusError)) throw err;
      expect(['invalid', 'forbidden']).toContain(err.kind);
      return;
    }
    expect(found.destination).toMatch(/^\/[^]+/);
    expect(found.destination.split('/')).not.toContain('..');
    if (found.type === 'bind') expect(found.dockerSocket || found.source === '/srv' || found.source.startsWith('/srv/')).toBe(true);
    if (found.type === 'volume' && found.volume.name) expect(message(() => checkVolumeName(found.type === 'volume' ? found.volume.name : ''))).toBe('it succeeded');
  }), {numRuns: 500});
});

test('property: a volume\'s name is one path component, whatever is asked', () => {
  fc.assert(fc.property(fc.oneof(fc.string({maxLength: 300}), fc.stringMatching(/^[\w./-]{1,12}$/)), (name) => {
    if (message(() => checkVolumeName(name)) === 'it succeeded') expect(name).toMatch(/^[a-zA-Z0-9][\w.-]{1,254}$/);
  }));
});
