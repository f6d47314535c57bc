/** What a process sees from inside, when it was started with the specs that lib/agent/spec builds from Docker's options. */
import fs from 'node:fs';
import path from 'node:path';
import {createSpecBuilder, cgroupAbilities} from '../../lib/agent/spec/builder';
import {createContainerdRuntime} from '../../lib/agent/runtime/containerd';
import type {Runtime} from '../../lib/agent/runtime/runtime';
import {silentLog} from '../../lib/base/log';
import type {ContainerSpec, ResolvedMount} from '../../lib/schema/container';
import type {Config, HostConfig} from '../../lib/schema/docker';
import {eventually, textOf} from '../agent/runtime-conformance';
import {testContainerd, type TestContainerd} from '../harness/containerd';
import {busyboxSnapshot} from '../harness/rootfs';

const PLAIN = {stdin: false, terminal: false};
const builder = createSpecBuilder({cgroupParent: 'cetus-spec-test', cgroups: cgroupAbilities(), initPath: ''});
let containerd: TestContainerd;
let runtime: Runtime;
let parent: string;
let count = 0;

beforeAll(async () => {
  containerd = await testContainerd();
  runtime = createContainerdRuntime({client: containerd.client, stateDirectory: path.join(containerd.directory, 'agent'), log: silentLog()});
  await runtime.open();
  parent = await busyboxSnapshot(containerd.client);
});
afterAll(async () => {
  await runtime.close();
  await containerd.stop();
});

interface Wanted { script: string; config?: Config; host?: HostConfig; mounts?: {mount: ResolvedMount; source: string}[]; exec?: {script: string; config: Config & {Privileged?: boolean}} }

/** Runs a shell script in a container with these options; what it printed, and its exit code. */
async function inside({script, config = {}, host = {}, mounts = [], exec}: Wanted): Promise<{out: string; exitCode: number; exec: string}> {
  const id = `spec${count++}`;
  const spec = {
    id, account: 'default', name: id, networkMode: 'none', mounts: mounts.map(({mount}) => mount), createdAt: '', logConfig: {},
    image: {id: '', reference: '', manifestDigest: ''}, config: {...config, Cmd: ['sh', '-c', script]}, hostConfig: host,
  } as ContainerSpec;
  await runtime.create({id, parentSnapshot: parent, labels: {}});
  try {
    const oci = await builder.container({
      spec, image: {architecture: 'amd64', os: 'linux', rootfs: {type: 'layers', diff_ids: []}}, mounts, hostname: 'whale', netnsPath: '',
      files: {hosts: '', hostname: '', resolvConf: ''}, rootMounts: () => runtime.mounts(id), pidOf: async () => 0, shm: '',
    });
    const {io, pid} = await runtime.createTask(id, oci, PLAIN);
    const output = Promise.all([textOf(io.stdout), textOf(io.stderr)]);
    await runtime.startTask(id);
    let seen = '';
    if (exec) {
      const process = await builder.process({spec, config: {...exec.config, Cmd: ['sh', '-c', exec.script]}, pid});
      const started = await runtime.exec(id, 'x', process, PLAIN);
      seen = await textOf(started.io.stdout);
      await runtime.kill(id, '', 9);
    }
    const out = (await output).join('');
    await eventually(async () => (await runtime.state(id)).status === 'stopped');
    return {out, exitCode: (await runtime.state(id)).exitCode, exec: seen};
  } finally {
    await runtime.kill(id, '', 9).catch(() => undefined);
    await eventually(async () => ['stopped', 'created', 'none'].includes((await runtime.state(id)).status));
    await runtime.deleteTask(id);
    await runtime.remove(id);
  }
}

const STATUS = 'grep -E "^(CapEff|CapBnd|NoNewPrivs|Seccomp|Uid|Gid|Groups):" /proc/self/status | tr "\\t" " "';
const field = (out: string, name: string): string => new RegExp(`^${name}: *(.*?) *$`, 'm').exec(out)?.[1] ?? '(absent)';

test('defaults: the Engine\'s capabilities, a filter, its environment, read-only system paths', async () => {
  const {out} = await inside({script: `${STATUS}; env; hostname; cat /proc/kcore | head -c1 | wc -c; (echo 1 > /proc/sys/kernel/msgmax) 2>&1; touch /sys/x 2>&1; ls /dev`});
  expect(field(out, 'CapEff')).toBe('00000000a80425fb');
  expect(field(out, 'CapBnd')).toBe('00000000a80425fb');
  expect(field(out, 'NoNewPrivs')).toBe('0');
  expect(field(out, 'Seccomp')).toBe('2');
  expect(out).toContain('PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin');
  expect(out).toContain('HOSTNAME=whale');
  expect(out).toMatch(/^whale$/m);
  expect(out).toMatch(/^0$/m);
  expect(out.match(/Read-only file system/g)).toHaveLength(2);
  for (const device of ['full', 'mqueue', 'null', 'ptmx', 'pts', 'random', 'shm', 'stdin', 'tty', 'urandom', 'zero']) expect(out).toMatch(new RegExp(`^${device}$`, 'm'));
});

test('the filter refuses what the Engine\'s does, unless told otherwise', async () => {
  expect((await inside({script: 'unshare -m true'})).out).toMatch(/not permitted/);
  expect((await inside({script: 'unshare -m true && echo free', host: {CapAdd: ['SYS_ADMIN']}})).out).toBe('free\n');
  const {out} = await inside({script: STATUS, host: {SecurityOpt: ['seccomp=unconfined', 'no-new-privileges']}});
  expect(field(out, 'Seccomp')).toBe('0');
  expect(field(out, 'NoNewPrivs')).toBe('1');
  const profile = JSON.stringify({defaultAction: 'SCMP_ACT_ALLOW', syscalls: [{names: ['mkdir', 'mkdirat'], action: 'SCMP_ACT_ERRNO'}]});
  expect((await inside({script: 'mkdir /tmp/x 2>&1; echo $?', host: {SecurityOpt: [`seccomp=${profile}`]}})).out).toMatch(/not permitted[\s\S]*1\n$/);
});

test('capabilities: dropped, added, privileged, and none for other users', async () => {
  expect(field((await inside({script: STATUS, host: {CapDrop: ['ALL']}})).out, 'CapEff')).toBe('0000000000000000');
  expect(field((await inside({script: STATUS, host: {CapDrop: ['ALL'], CapAdd: ['NET_ADMIN']}})).out, 'CapEff')).toBe('0000000000001000');
  expect(field((await inside({script: STATUS, config: {User: 'alice'}})).out, 'CapEff')).toBe('0000000000000000');
  const {out} = await inside({script: `${STATUS}; ls /dev | wc -l; touch /sys/x 2>&1`, host: {Privileged: true}});
  expect(field(out, 'CapEff')).toBe(/^CapBnd:\s*(\w+)/m.exec(fs.readFileSync('/proc/self/status', 'utf8'))![1]);
  expect(field(out, 'Seccomp')).toBe('0');
  expect(out).not.toContain('Read-only');
});

test('users and groups are looked up in the container\'s own files', async () => {
  const alice = (await inside({script: STATUS, config: {User: 'alice'}})).out;
  expect([field(alice, 'Uid'), field(alice, 'Gid'), field(alice, 'Groups')]).toEqual(['1000 1000 1000 1000', '1000 1000 1000 1000', '29 50 1000']);
  const grouped = (await inside({script: STATUS, config: {User: '1000:staff'}, host: {GroupAdd: ['audio', '77']}})).out;
  expect([field(grouped, 'Gid'), field(grouped, 'Groups')]).toEqual(['50 50 50 50', '29 50 77']);
  await expect(inside({script: 'true', config: {User: 'nobody-here'}})).rejects.toThrow('unable to find user nobody-here: no matching entries in passwd file');
});

test('environment, working directory, ulimits, oom score, sysctls', async () => {
  const {out} = await inside({
    script: 'echo "$A|$PATH|$PWD"; ulimit -n; cat /proc/self/oom_score_adj /proc/sys/kernel/msgmax; cat /proc/sys/net/ipv4/ip_unprivileged_port_start',
    config: {Env: ['A=1=2', 'PATH=/bin'], WorkingDir: '/home/alice'},
    host: {Ulimits: [{Name: 'nofile', Soft: 123, Hard: 456}], OomScoreAdj: 77, Sysctls: {'kernel.msgmax': '4096'}},
  });
  expect(out).toBe('1=2|/bin|/home/alice\n123\n77\n4096\n0\n');
});

test('limits reach the cgroup', async () => {
  const {out} = await inside({
    script: 'cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes memory.max pids/pids.max pids.max cpu/cpu.cfs_quota_us cpu.max cpu/cpu.shares 2>/dev/null; echo done',
    host: {Memory: 64 << 20, PidsLimit: 33, NanoCpus: 500_000_000},
  });
  expect(out).toMatch(/^67108864$/m);
  expect(out).toMatch(/^33$/m);
  expect(out).toMatch(/^50000( 100000)?$/m);
});

test('mounts: binds read-only and not, tmpfs, shm of its size, a read-only root', async () => {
  const source = fs.mkdtempSync(path.join(containerd.directory, 'bind-'));
  const bind = (destination: string, readOnly: boolean): {mount: ResolvedMount; source: string} => ({source, mount: {type: 'bind', source, destination, readOnly, propagation: '', createSource: false}});
  const {out} = await inside({
    script: 'echo in > /data/file; cat /ro/file; echo no 2>/dev/null > /ro/other || echo refused; echo no 2>/dev/null > /root/x || echo root refused; echo x > /scratch/x && echo scratch; df -k /dev/shm | tail -1; cp /bin/busybox /scratch/b; /scratch/b true 2>/dev/null || echo noexec',
    host: {ReadonlyRootfs: true, ShmSize: 8 << 20},
    mounts: [bind('/data', false), bind('/ro', true), {source: '', mount: {type: 'tmpfs', destination: '/scratch', options: ['size=16m']}}],
  });
  expect(out).toMatch(/^in\nrefused\nroot refused\nscratch\n/);
  expect(out).toContain('8192');
  expect(out).toMatch(/noexec\n$/);
  expect(fs.readFileSync(path.join(source, 'file'), 'utf8')).toBe('in\n');
});

test('devices: named ones appear and open, others do not', async () => {
  const {out} = await inside({
    script: 'head -c1 /dev/mine | wc -c; mknod /tmp/kmsg c 1 11; head -c1 /tmp/kmsg 2>&1',
    host: {Devices: [{PathOnHost: '/dev/zero', PathInContainer: '/dev/mine', CgroupPermissions: 'r'}]},
  });
  expect(out).toMatch(/^1\n/);
  expect(out).toMatch(/not permitted/);
});

test('an exec has the container\'s environment and its own user, directory and privileges', async () => {
  const wait = {script: 'sleep 1000', config: {Env: ['A=1']}};
  const plain = await inside({...wait, exec: {script: `${STATUS}; echo "$A $B $PWD"; cat /proc/self/oom_score_adj`, config: {Env: ['B=2'], User: 'alice', WorkingDir: '/tmp'}}});
  expect(field(plain.exec, 'Uid')).toBe('1000 1000 1000 1000');
  expect(field(plain.exec, 'CapEff')).toBe('0000000000000000');
  expect(plain.exec).toMatch(/^1 2 \/tmp\n0\n$/m);
  const mighty = await inside({...wait, exec: {script: STATUS, config: {Privileged: true}}});
  expect(field(mighty.exec, 'CapEff')).toBe(/^CapBnd:\s*(\w+)/m.exec(fs.readFileSync('/proc/self/status', 'utf8'))![1]);
});
