import {spawnSync} from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import {gzipSync} from 'node:zlib';
import fc from 'fast-check';
import {ALL_CAPABILITIES, available, capabilitiesFor, DEFAULT_CAPABILITIES} from '../../../lib/agent/spec/capabilities';
import {createSpecBuilder} from '../../../lib/agent/spec/builder';
import {resourcesOf} from '../../../lib/agent/spec/resources';
import {layersOf, readInside} from '../../../lib/agent/spec/root-files';
import {customSeccomp, defaultSeccomp, kernelHasX32} from '../../../lib/agent/spec/seccomp';
import {resolveUser} from '../../../lib/agent/spec/user';
import type {ContainerSpec, ResolvedMount} from '../../../lib/schema/container';
import type {Config, HostConfig} from '../../../lib/schema/docker';

const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'cetus-spec-'));
afterAll(() => fs.rmSync(dir, {recursive: true}));
const layer = (name: string, files: Record<string, string>): string => {
  const root = path.join(dir, name);
  for (const [file, content] of Object.entries(files)) {
    fs.mkdirSync(path.dirname(path.join(root, file)), {recursive: true});
    if (content.startsWith('->')) fs.symlinkSync(content.slice(2), path.join(root, file));
    else fs.writeFileSync(path.join(root, file), content);
  }
  return root;
};

const base = layer('base', {'etc/passwd': 'root:x:0:0::/root:/bin/sh\nweb:x:33:44::/:/bin/sh\n', 'etc/group': 'root:x:0:\nweb:x:44:\nextra:x:50:web,root\n'});
const builder = createSpecBuilder({
  cgroupParent: 'cetus-test', cgroups: {version: 1, swap: true, blkioWeight: true, pids: true}, initPath: '/usr/bin/tini', capabilities: ALL_CAPABILITIES, kernelVersion: '6.1.0',
});
type Built = {process: Record<string, any>; linux: Record<string, any>; mounts: {destination: string; type: string; source: string; options: string[]}[]; root: object; hostname?: string};
const build = async (config: Config, hostConfig: HostConfig = {}, mounts: {mount: ResolvedMount; source: string}[] = [], networkMode = 'networks'): Promise<Built> => await builder.container({
  spec: {id: 'c'.repeat(64), config: {Cmd: ['true'], ...config}, hostConfig, networkMode, mounts: mounts.map((m) => m.mount)} as unknown as ContainerSpec, image: {} as never, mounts,
  files: {hosts: '/h/hosts', hostname: '/h/hostname', resolvConf: '/h/resolv'}, hostname: 'box', netnsPath: '/ns/x',
  rootMounts: async () => [{type: 'bind', source: base, options: []}], pidOf: async () => 77, shm: hostConfig.IpcMode ? '/other/shm' : '',
}) as unknown as Built;

describe('the Engine\'s defaults', () => {
  test('process', async () => {
    const {process} = await build({Env: ['A=1', 'PATH=/x', 'GONE=1', 'GONE'], Entrypoint: ['/e'], Cmd: ['a', 'b']});
    expect(process).toMatchObject({args: ['/e', 'a', 'b'], cwd: '/', terminal: false, user: {uid: 0, gid: 0, additionalGids: [0, 50]}, noNewPrivileges: false, oomScoreAdj: 0});
    expect(process.env).toEqual(['PATH=/x', 'HOSTNAME=box', 'A=1']);
    expect(process.capabilities.bounding.sort()).toEqual([...DEFAULT_CAPABILITIES].sort());
  });

  test('namespaces, masked paths, mounts, devices', async () => {
    const {linux, mounts} = await build({});
    expect(linux.namespaces).toEqual([{type: 'mount'}, {type: 'network', path: '/ns/x'}, {type: 'uts'}, {type: 'pid'}, {type: 'ipc'}]);
    expect(linux.maskedPaths).toContain('/proc/kcore');
    expect(linux.readonlyPaths).toContain('/proc/sys');
    expect(linux.resources.devices).toEqual([{allow: false, access: 'rwm'}]);
    expect(mounts.map((m) => m.destination)).toEqual(['/proc', '/dev', '/dev/pts', '/sys', '/sys/fs/cgroup', '/dev/mqueue', '/dev/shm', '/etc/resolv.conf', '/etc/hostname', '/etc/hosts']);
    expect(mounts.find((m) => m.destination === '/dev/shm')!.options).toContain('size=67108864');
    expect(linux.cgroupsPath).toBe(`/cetus-test/${'c'.repeat(64)}`);
  });

  test('an empty command is refused', async () => {
    await expect(build({Cmd: []})).rejects.toThrow('no command specified');
  });
});

describe('options', () => {
  test('users, groups and what a user keeps of capabilities', async () => {
    expect((await build({User: 'web'})).process).toMatchObject({user: {uid: 33, gid: 44, additionalGids: [44, 50]}, capabilities: {effective: [], permitted: []}});
    expect((await build({User: '1000:1000'}, {GroupAdd: ['extra', '7']})).process.user).toEqual({uid: 1000, gid: 1000, additionalGids: [1000, 50, 7]});
    await expect(build({User: 'nosuch'})).rejects.toThrow('unable to find user nosuch: no matching entries in passwd file');
    await expect(build({User: '1:nosuch'})).rejects.toThrow('unable to find group nosuch: no matching entries in group file');
    await expect(build({User: '-1'})).rejects.toThrow('uids and gids must be in range 0-2147483647');
  });

  test('limits', async () => {
    const {linux, process} = await build({}, {Memory: 64 << 20, MemorySwap: 128 << 20, NanoCpus: 5e8, PidsLimit: 20, CpusetCpus: '0', Ulimits: [{Name: 'nofile', Soft: 1, Hard: 2}]});
    expect(linux.resources).toMatchObject({memory: {limit: 67108864, swap: 134217728}, cpu: {period: 100000, quota: 50000, cpus: '0'}, pids: {limit: 20}});
    expect(process.rlimits).toEqual([{type: 'RLIMIT_NOFILE', soft: 1, hard: 2}]);
    await expect(build({}, {Ulimits: [{Name: 'nosuch', Soft: 1, Hard: 1}]})).rejects.toThrow('invalid ulimit type: nosuch');
  });

  test('limits that this kernel cannot keep are refused by name, defaults of theirs are not', () => {
    const poor = {version: 2, swap: false, blkioWeight: false, pids: false} as const;
    const refused = (host: HostConfig) => () => resourcesOf(host, poor, () => ({major: 1, minor: 1}));
    expect(refused({Memory: 64 << 20, MemorySwap: 100 << 20})).toThrow('HostConfig.MemorySwap is not supported');
    expect(refused({MemorySwappiness: 0})).toThrow('HostConfig.MemorySwappiness is not supported');
    expect(refused({OomKillDisable: true})).toThrow('HostConfig.OomKillDisable is not supported');
    expect(refused({PidsLimit: 5})).toThrow('HostConfig.PidsLimit is not supported');
    expect(refused({BlkioWeight: 100})).toThrow('HostConfig.BlkioWeight is not supported');
    expect(refused({BlkioWeightDevice: [{Path: '/dev/x', Weight: 100}]})).toThrow('HostConfig.BlkioWeightDevice is not supported');
    expect(refused({Memory: 64 << 20, MemorySwap: 128 << 20, MemorySwappiness: -1, OomKillDisable: false, PidsLimit: -1})()).toEqual({memory: {limit: 64 << 20}});
    expect(refused({Memory: 64 << 20, MemorySwap: -1, PidsLimit: 0})()).toEqual({memory: {limit: 64 << 20}});
  });

  test('privileged: everything, unmasked, unfiltered', async () => {
    const {linux, process, mounts} = await build({}, {Privileged: true});
    expect(process.capabilities.bounding).toEqual(ALL_CAPABILITIES);
    expect(linux).not.toHaveProperty('seccomp');
    expect(linux).not.toHaveProperty('maskedPaths');
    expect(linux.resources.devices).toEqual([{allow: true, access: 'rwm'}]);
    expect(mounts.find((m) => m.destination === '/sys')!.options).toContain('rw');
  });

  test('namespaces of others', async () => {
    const {linux, mounts} = await build({}, {PidMode: 'container:x', IpcMode: 'container:x', UTSMode: 'host'}, [], 'host');
    expect(linux.namespaces).toEqual([{type: 'mount'}, {type: 'pid', path: '/proc/77/ns/pid'}, {type: 'ipc', path: '/proc/77/ns/ipc'}]);
    expect(mounts.find((m) => m.destination === '/dev/shm')).toMatchObject({type: 'bind', source: '/other/shm'});
    expect(linux.sysctl).toEqual({});
  });

  test('a person\'s mount takes the place of the default one', async () => {
    const tmp: ResolvedMount = {type: 'tmpfs', destination: '/dev/shm', options: ['size=1m', 'exec']};
    const {mounts} = await build({}, {}, [{mount: tmp, source: ''}]);
    expect(mounts.filter((m) => m.destination === '/dev/shm')).toEqual([{destination: '/dev/shm', type: 'tmpfs', source: 'tmpfs', options: ['nosuid', 'nodev', 'size=1m', 'exec']}]);
  });

  test('init, security options, refused ones by name', async () => {
    const {process, mounts} = await build({}, {Init: true, SecurityOpt: ['no-new-privileges', 'seccomp=unconfined', 'label=disable']});
    expect(process.args).toEqual(['/sbin/docker-init', '--', 'true']);
    expect(process.noNewPrivileges).toBe(true);
    expect(mounts.find((m) => m.destination === '/sbin/docker-init')).toMatchObject({source: '/usr/bin/tini'});
    await expect(build({}, {SecurityOpt: ['apparmor=strict']})).rejects.toThrow('HostConfig.SecurityOpt apparmor=strict is not supported');
    await expect(build({}, {UsernsMode: 'private'})).rejects.toThrow('HostConfig.UsernsMode private');
  });

  test('exec: of a process that has just ended its container is not running', async () => {
    const {pid} = spawnSync('true');
    const exec = builder.process({spec: {id: 'c1', config: {}, hostConfig: {}} as unknown as ContainerSpec, config: {Cmd: ['sh'], User: 'root'}, pid});
    await expect(exec).rejects.toMatchObject({kind: 'conflict', message: 'container c1 is not running'});
  });

  test('exec: the container\'s environment and user, its own terminal', async () => {
    const process = await builder.process({spec: {config: {Env: ['A=1'], WorkingDir: '/w'}, hostConfig: {}} as unknown as ContainerSpec, config: {Cmd: ['sh'], Tty: true, Env: ['B=2'], User: '5:7'}, pid: globalThis.process.pid});
    expect(process).toMatchObject({args: ['sh'], cwd: '/w', terminal: true, env: [expect.stringMatching(/^PATH=/), 'TERM=xterm', 'A=1', 'B=2'], user: {uid: 5, gid: 7}});
  });
});

describe('capabilities', () => {
  const names = ALL_CAPABILITIES.map((c) => c.slice(4).toLowerCase());
  test('drop ALL and add one; add ALL and drop one', () => {
    expect(capabilitiesFor({add: ['net_admin'], drop: ['ALL'], privileged: false, available: ALL_CAPABILITIES})).toEqual(['CAP_NET_ADMIN']);
    expect(capabilitiesFor({add: ['ALL'], drop: ['CAP_CHOWN'], privileged: false, available: ALL_CAPABILITIES})).toEqual(ALL_CAPABILITIES.filter((c) => c !== 'CAP_CHOWN'));
    expect(() => capabilitiesFor({add: ['fly'], privileged: false, available: ALL_CAPABILITIES})).toThrow('unknown capability: "fly"');
    expect(available('1')).toEqual(['CAP_CHOWN']);
  });
  test('never more than defaults and what was added, never what was dropped', () => {
    fc.assert(fc.property(fc.subarray(names), fc.subarray(names), (add, drop) => {
      const got = capabilitiesFor({add, drop, privileged: false, available: ALL_CAPABILITIES});
      const full = (n: string): string => `CAP_${n.toUpperCase()}`;
      for (const cap of got) expect(DEFAULT_CAPABILITIES.includes(cap) || add.map(full).includes(cap)).toBe(true);
      for (const name of drop) if (!add.includes(name)) expect(got).not.toContain(full(name));
    }));
  });
});

describe('seccomp', () => {
  test('mount and reboot are for those with the capability', () => {
    const names = (caps: string[]): string[] => defaultSeccomp(caps, 'x64').syscalls.filter((s) => s.action === 'SCMP_ACT_ALLOW' && !s.args).flatMap((s) => s.names);
    expect(names([])).not.toContain('mount');
    expect(names(['CAP_SYS_ADMIN'])).toEqual(expect.arrayContaining(['mount', 'clone3', 'setns']));
    for (const never of ['kexec_load', 'keyctl', 'add_key', 'userfaultfd', 'swapon', 'io_uring_setup']) expect(names([...ALL_CAPABILITIES])).not.toContain(never);
    expect(new Set(names([])).size).toBe(names([]).length);
  });
  test('x32 is left out of the filter only where the kernel says that it has none', () => {
    expect(defaultSeccomp([], 'x64').architectures).toEqual(['SCMP_ARCH_X86_64', 'SCMP_ARCH_X86', 'SCMP_ARCH_X32']);
    expect(defaultSeccomp([], 'x64', false).architectures).toEqual(['SCMP_ARCH_X86_64', 'SCMP_ARCH_X86']);
    const kernel = (files: Record<string, Buffer>) => kernelHasX32('6.1', (file) => files[file] ?? (() => { throw new Error('ENOENT'); })());
    expect(kernel({})).toBe(true);
    expect(kernel({'/boot/config-6.1': Buffer.from('CONFIG_X86_X32_ABI=y\n')})).toBe(true);
    expect(kernel({'/boot/config-6.1': Buffer.from('CONFIG_X86=y\n# CONFIG_X86_X32 is not set\n')})).toBe(false);
    expect(kernel({'/proc/config.gz': gzipSync('# CONFIG_X86_X32_ABI is not set\n')})).toBe(false);
    expect(kernel({'/proc/config.gz': Buffer.from('not gzip')})).toBe(true);
  });
  test('a profile of one\'s own: conditions, architecture, mistakes', () => {
    const profile = {defaultAction: 'SCMP_ACT_ERRNO', archMap: [{architecture: 'SCMP_ARCH_X86_64', subArchitectures: ['SCMP_ARCH_X86']}], syscalls: [
      {names: ['read'], action: 'SCMP_ACT_ALLOW'}, {names: ['mount'], action: 'SCMP_ACT_ALLOW', includes: {caps: ['CAP_SYS_ADMIN']}},
      {names: ['old'], action: 'SCMP_ACT_ALLOW', includes: {minKernel: '9.0'}}, {names: ['not'], action: 'SCMP_ACT_ALLOW', excludes: {arches: ['amd64']}}]};
    expect(customSeccomp(JSON.stringify(profile), [], '6.1', 'x64')).toEqual({defaultAction: 'SCMP_ACT_ERRNO', architectures: ['SCMP_ARCH_X86_64', 'SCMP_ARCH_X86'], syscalls: [{names: ['read'], action: 'SCMP_ACT_ALLOW'}]});
    expect(() => customSeccomp('{', [], '6.1')).toThrow(/Decoding seccomp profile failed/);
  });
});

describe('files inside a root', () => {
  test('links stay inside, layers lie over each other', () => {
    const upper = layer('upper', {'etc/passwd': 'upper', 'escape': '->/../../../../etc/hostname', 'loop': '->loop', 'abs': '->/etc/passwd', 'up/a': '->../../../etc/passwd'});
    const lower = layer('lower', {'etc/group': 'lower', 'etc/passwd': 'hidden', 'etc/hostname': 'inside'});
    const layers = layersOf([{type: 'overlay', source: 'overlay', options: ['index=off', `lowerdir=${lower}`, `upperdir=${upper}`, 'workdir=/x']}]);
    expect(layers).toEqual([upper, lower]);
    expect(readInside(layers, '/etc/passwd')).toBe('upper');
    expect(readInside(layers, '/etc/group')).toBe('lower');
    expect(readInside(layers, '/escape')).toBe('inside');
    expect(readInside(layers, '/abs')).toBe('upper');
    expect(readInside(layers, '/up/a')).toBe('upper');
    expect(readInside(layers, '/loop')).toBeUndefined();
    expect(readInside(layers, '/nosuch/file')).toBeUndefined();
    expect(readInside(layers, '/etc/passwd/x')).toBeUndefined();
    expect(() => readInside(layers, '/etc/passwd', 2)).toThrow(/larger than 2 bytes/);
  });
});

test('user strings never crash, and ids stay in range', () => {
  fc.assert(fc.property(fc.string(), (text) => {
    try {
      const user = resolveUser(text, [], () => undefined);
      expect(user.uid).toBeGreaterThanOrEqual(0);
      expect(user.uid).toBeLessThanOrEqual(2 ** 31 - 1);
    } catch (err) {
      expect((err as Error).message).toMatch(/unable to find|must be in range/);
    }
  }));
});
