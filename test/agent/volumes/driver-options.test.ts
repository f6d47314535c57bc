/** The local driver's options as mount(2) calls: exactly these, in this order, for nfs too, which no test can mount everywhere. */
import fc from 'fast-check';
import {isBindOption, mountCalls, mountFailure, needsMount, parseMountOptions, withoutPassword} from '../../../lib/agent/volumes/driver-options';

const at = '/v/_data';
const calls = (type: string, device: string, o = '', hosts: Record<string, string> = {}): Promise<unknown> => mountCalls({type, device, o}, at, async (host) => {
  if (!hosts[host]) throw new Error(`lookup ${host}: no such host`);
  return hosts[host];
});
const mount = (source: string, type: string, flags = 0, data = ''): object => ({op: 'mount', source, target: at, type, flags, data});

test('tmpfs, a device, a directory', async () => {
  expect(await calls('tmpfs', 'tmpfs', 'size=100m,uid=1000,nosuid,noexec')).toEqual([mount('tmpfs', 'tmpfs', 0x2 | 0x8, 'size=100m,uid=1000')]);
  expect(await calls('ext4', '/dev/sdb1', 'ro')).toEqual([mount('/dev/sdb1', 'ext4', 1)]);
  expect(await calls('none', '/srv/x', 'bind')).toEqual([mount('/srv/x', 'none', 0x1000)]);
  expect(await calls('none', '/srv/x', 'rbind')).toEqual([mount('/srv/x', 'none', 0x5000)]);
});

test('read-only binds and propagation are calls of their own', async () => {
  expect(await calls('none', '/srv/x', 'bind,ro')).toEqual([mount('/srv/x', 'none', 0x1001), {op: 'remount-ro', source: '', target: at, type: '', flags: 0x1021, data: ''}]);
  expect(await calls('none', '/srv/x', 'bind,rslave')).toEqual([mount('/srv/x', 'none', 0x5000), {op: 'remount', source: '', target: at, type: '', flags: 0x84000, data: ''}]);
});

test('nfs: the server\'s address is what the kernel gets, a name is looked up', async () => {
  expect(await calls('nfs', ':/export', 'addr=10.0.0.7,rw,nfsvers=4')).toEqual([mount(':/export', 'nfs', 0, 'addr=10.0.0.7,nfsvers=4')]);
  expect(await calls('nfs', ':/export', 'addr=store.lan,nolock,soft', {'store.lan': '10.0.0.8'})).toEqual([mount(':/export', 'nfs', 0, 'addr=10.0.0.8,nolock,soft')]);
  expect(await calls('cifs', '//files.lan/share', 'username=u,password=p', {'files.lan': '10.0.0.9'})).toEqual([mount('//10.0.0.9/share', 'cifs', 0, 'username=u,password=p')]);
  await expect(calls('nfs', ':/export', 'addr=nowhere')).rejects.toThrow('lookup nowhere: no such host');
  // Another type's addr is its own business.
  expect(await calls('ext4', '/dev/sdb1', 'addr=nowhere')).toEqual([mount('/dev/sdb1', 'ext4', 0, 'addr=nowhere')]);
});

test('what there is to mount', async () => {
  expect([needsMount({}), needsMount({size: '0'}), needsMount({type: '', device: ''}), needsMount({type: 'tmpfs', device: ''})]).toEqual([false, false, false, true]);
  await expect(calls('tmpfs', '')).rejects.toThrow('missing device in volume options');
});

test('a refused call in the Engine\'s words, without a password', () => {
  expect(mountFailure({op: 'mount', source: '/nope', target: at, type: 'none', flags: 0x1000, data: ''}, 'no such file or directory')).toBe(`mount /nope:${at}, flags: 0x1000: no such file or directory`);
  expect(mountFailure({op: 'remount-ro', source: '', target: at, type: '', flags: 0x1021, data: ''}, 'invalid argument')).toBe(`remount-ro ${at}, flags: 0x1021: invalid argument`);
  const o = 'username=u,password=se cret,vers=3';
  expect(withoutPassword(mountFailure({op: 'mount', source: '//1.2.3.4/s', target: at, type: 'cifs', flags: 0, data: o}, 'permission denied'), o))
    .toBe(`mount //1.2.3.4/s:${at}, data: username=u,password=********,vers=3: permission denied`);
});

test('property: every word is a flag or data, in its place, and later words win', () => {
  const flags = ['ro', 'rw', 'bind', 'rbind', 'nosuid', 'suid', 'noexec', 'exec', 'sync', 'async', 'relatime', 'rslave', 'shared'];
  fc.assert(fc.property(fc.array(fc.oneof(fc.constantFrom(...flags), fc.stringMatching(/^[a-z_]{1,8}(=[\w./:]{0,8})?$/)), {minLength: 1}), (words) => {
    const parsed = parseMountOptions(words.join(','));
    const data = words.filter((word) => parseMountOptions(word).data === word && word !== '');
    expect(parsed.data).toBe(data.join(','));
    expect(isBindOption(words.join(','))).toBe(words.some((w) => w === 'bind' || w === 'rbind'));
    const last = [...words].reverse().find((word) => word === 'ro' || word === 'rw');
    expect((parsed.flags & 1) === 1).toBe(last === 'ro');
    expect(parseMountOptions([...words, 'rw', 'suid'].join(',')).flags & 3).toBe(0);
  }));
});
