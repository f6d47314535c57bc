/**
 * No silent option: each of these is given alone to the stock client, and is either seen to work from inside the container (or where else it
 * shows), or refused with a message that names it.
 */
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import {datacenterWithBusybox} from '../harness/suite';
import {until} from '../harness/wait';

const dc = datacenterWithBusybox({
  prepare: async () => {
    await dc.ok(['network', 'create', '--subnet', '10.213.0.0/24', 'own']);
    await dc.ok(['run', '-d', '--name', 'other', '--ipc', 'shareable', '-v', 'shared:/shared', 'busybox', 'sleep', '10000']);
    await dc.ok(['exec', 'other', 'sh', '-c', 'echo left by other > /dev/shm/note']);
    fs.writeFileSync(path.join(dc.dataDir, 'seccomp.json'), JSON.stringify({defaultAction: 'SCMP_ACT_ALLOW', syscalls: [{names: ['mkdir', 'mkdirat'], action: 'SCMP_ACT_ERRNO'}]}));
  },
  cleanUp: async () => {
    await dc.docker(['rm', '-fv', 'other']);
    await dc.docker(['network', 'rm', 'own']);
    await dc.docker(['volume', 'rm', 'shared']);
  },
});

const V2 = fs.existsSync('/sys/fs/cgroup/cgroup.controllers');
/** The container's own view of a limit; both versions of control groups. */
const cgroup = (v1: string, v2: string): string => `cat /sys/fs/cgroup/${V2 ? v2 : v1}`;
const KERNEL = (v1: string): boolean => V2 || fs.existsSync(`/sys/fs/cgroup/${v1}`);

/** What a container in the host's network is called: test hosts share the machine's own name (--uts host) and have one each. */
const MACHINE = process.env.CETUS_FLEET ? /^node-\d+$/ : new RegExp(`^${os.hostname()}$`);

/** [flags, command inside, what it prints] */
type Seen = [flags: string[], command: string, prints: RegExp];
const SEEN: Seen[] = [
  [['-e', 'A=one two'], 'echo "$A"', /^one two$/],
  [['-w', '/var/deep/er'], 'pwd', /^\/var\/deep\/er$/],
  [['-u', '1234:50'], 'id -u; id -g', /^1234\n50$/],
  [['-u', 'www'], 'id -u; id -G', /^33\n33 50$/],
  [['--group-add', '77'], 'id -G', /\b77\b/],
  [['-h', 'called'], 'hostname; grep -c called /etc/hosts', /^called\n1$/],
  [['--domainname', 'example.test'], 'cat /proc/sys/kernel/domainname', /^example\.test$/],
  [['--add-host', 'far.away:192.0.2.7'], 'grep far.away /etc/hosts', /^192\.0\.2\.7\s+far\.away$/],
  [['--dns-search', 'corp.test'], 'cat /etc/resolv.conf', /search .*corp\.test/],
  [['--dns-option', 'ndots:7'], 'cat /etc/resolv.conf', /ndots:7/],
  [['-m', '64m'], cgroup('memory/memory.limit_in_bytes', 'memory.max'), /^67108864$/],
  [['--memory-reservation', '32m'], cgroup('memory/memory.soft_limit_in_bytes', 'memory.low'), /^33554432$/],
  ...(KERNEL('memory/memory.swappiness') && !V2 ? [[['--memory-swappiness', '11'], cgroup('memory/memory.swappiness', ''), /^11$/] as Seen] : []),
  [['--cpus', '.5'], cgroup('cpu/cpu.cfs_quota_us', 'cpu.max'), /^50000\b/],
  [['--cpu-period', '50000', '--cpu-quota', '25000'], V2 ? 'cat /sys/fs/cgroup/cpu.max' : 'cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu/cpu.cfs_period_us', /^25000\s50000$/],
  [['-c', '512'], cgroup('cpu/cpu.shares', 'cpu.weight'), V2 ? /^\d\d$/ : /^512$/],
  [['--cpuset-mems', '0'], 'grep Mems_allowed_list /proc/self/status', /\s0$/],
  ...(!V2 && KERNEL('memory/memory.memsw.limit_in_bytes') ? [[['-m', '64m', '--memory-swap', '100m'], cgroup('memory/memory.memsw.limit_in_bytes', ''), /^104857600$/] as Seen] : []),
  ...(!V2 ? [[['-m', '64m', '--oom-kill-disable'], cgroup('memory/memory.oom_control', ''), /^oom_kill_disable 1$/m] as Seen,
    [['--device-cgroup-rule', 'c 42:* rwm'], 'grep 42 /sys/fs/cgroup/devices/devices.list', /^c 42:\* rwm$/] as Seen] : []),
  [['--cgroupns', 'private'], 'cat /proc/self/cgroup', /:\/$/m],
  [['-a', 'stdout', '-a', 'stderr'], 'echo out', /^out$/],
  [['--network', 'own', '--network-alias', 'likewise'], 'nslookup likewise | tail -n +3', /Address: 10\.213\.0\./],
  [['--cpuset-cpus', '0'], 'grep Cpus_allowed_list /proc/self/status', /\s0$/],
  [['--pids-limit', '33'], cgroup('pids/pids.max', 'pids.max'), /^33$/],
  [['--ulimit', 'nofile=512:1024'], 'ulimit -Sn; ulimit -Hn', /^512\n1024$/],
  [['--cap-drop', 'ALL'], 'grep CapEff /proc/self/status', /\s0{16}$/],
  [['--cap-drop', 'ALL', '--cap-add', 'NET_ADMIN'], 'grep CapEff /proc/self/status', /\s0{12}1000$/],
  // Everything that the node itself has.
  [['--privileged'], 'grep CapEff /proc/self/status; ls /dev | wc -l', new RegExp(`${/CapBnd:\s*(\w+)/.exec(fs.readFileSync('/proc/self/status', 'utf8'))![1]}\\n\\d{2,}$`)],
  [['--read-only'], 'touch /tmp/x 2>&1; echo $?', /Read-only file system\n1$/],
  [['--tmpfs', '/scratch:size=1m'], 'df -k /scratch | tail -1', /\b1024\b/],
  [['--shm-size', '8m'], 'df -k /dev/shm | tail -1', /\b8192\b/],
  [['-v', 'shared:/data:ro'], 'touch /data/x 2>&1; echo $?', /Read-only file system\n1$/],
  [['--mount', 'type=volume,src=shared,dst=/data'], 'touch /data/x && echo yes', /^yes$/],
  [['--mount', 'type=tmpfs,dst=/scratch,tmpfs-size=1048576,tmpfs-mode=0700'], 'df -k /scratch | tail -1; stat -c %a /scratch', /\b1024\b[\s\S]*\n700$/],
  [['--mount', `type=bind,src=${os.tmpdir()},dst=/host,readonly`], 'touch /host/x 2>&1; echo $?', /Read-only file system\n1$/],
  [['--volumes-from', 'other:ro'], 'ls -d /shared; touch /shared/x 2>&1', /^\/shared\n.*Read-only/],
  [['--init'], 'cat /proc/1/comm', /init/],
  [['--sysctl', 'net.core.somaxconn=321'], 'cat /proc/sys/net/core/somaxconn', /^321$/],
  [['--security-opt', 'no-new-privileges'], 'grep NoNewPrivs /proc/self/status', /1$/],
  [['--security-opt', 'seccomp=unconfined'], 'grep Seccomp: /proc/self/status', /0$/],
  [['--security-opt', 'systempaths=unconfined'], 'mount | grep -c "proc.*ro[,)]"', /^0$/],
  [['--oom-score-adj', '567'], 'cat /proc/self/oom_score_adj', /^567$/],
  [['--device', '/dev/null:/dev/hole:rw'], 'echo x > /dev/hole && ls /dev/hole', /^\/dev\/hole$/],
  [['--network', 'none'], 'ls /sys/class/net', /^lo$/],
  [['--network', 'host'], 'hostname', MACHINE],
  [['--network', 'container:other'], 'hostname -i 2>/dev/null; ls /sys/class/net', /eth0/],
  [['--network', 'own', '--ip', '10.213.0.77'], 'ip -4 addr show eth0', /10\.213\.0\.77/],
  [['--mac-address', '02:42:ac:11:00:99'], 'cat /sys/class/net/eth0/address', /^02:42:ac:11:00:99$/],
  [['--pid', 'host'], 'ls /proc 2>/dev/null | grep -c "^[0-9]"', /^\d{2,}$/],
  [['--pid', 'container:other'], 'ps', /sleep 10000/],
  [['--ipc', 'container:other'], 'cat /dev/shm/note; ls -i -d /dev/shm | wc -l; df -k /dev/shm | tail -1', /^left by other\n1\n.*\b65536\b/],
  [['--ipc', 'host', '-v', '/dev/shm:/theirs'], 'stat -c %d:%i /dev/shm /theirs | uniq | wc -l', /^1$/],
  [['--ipc', 'private'], 'ls /dev/shm | wc -l; df -k /dev/shm | tail -1', /^0\n.*\b65536\b/],
  [['--ipc', 'shareable', '--shm-size', '8m'], 'df -k /dev/shm | tail -1', /\b8192\b/],
  [['--ipc', 'none'], 'mount | grep -c " /dev/shm "; touch /dev/shm/x 2>&1', /^0\n.*nonexistent directory|^0\n.*No such file/],
  [['--uts', 'host'], 'hostname', new RegExp(`^${os.hostname()}$`)],
  [['--cgroupns', 'host'], 'cat /proc/self/cgroup', /[0-9a-f]{64}/],
  [['-t'], 'tty', /^\/dev\/(pts\/\d+|console)\r?$/],
  [['--entrypoint', 'echo'], '', /^sh -c$/],
  [['--userns', 'host'], 'cat /proc/self/uid_map', /0\s+0\s+4294967295/],
];

describe('seen inside', () => {
  test.each(SEEN.map((row) => [row[0].join(' '), row] as const))('%s', async (_name, [flags, command, prints]) => {
    const printed = await dc.docker(['run', '--rm', ...flags, 'busybox', 'sh', '-c', command]);
    expect(printed.stderr).toBe('');
    expect(printed.stdout.trim()).toMatch(prints);
  });

  test('--security-opt seccomp=FILE', async () => {
    const done = await dc.docker(['run', '--rm', '--security-opt', `seccomp=${path.join(dc.dataDir, 'seccomp.json')}`, 'busybox', 'sh', '-c', 'mkdir /tmp/x 2>&1; echo $?']);
    expect(done.stdout).toMatch(/not permitted\n1/);
  });

  test('--dns', async () => {
    const where = await dc.ok(['run', '--rm', '--dns', '192.0.2.53', 'busybox', 'cat', '/etc/resolv.conf']);
    expect(where).toMatch(/192\.0\.2\.53/);
  });
});

/** [flags, template of docker inspect, what it shows] for what shows only outside, and how it is seen to work. */
const create = async (...args: string[]): Promise<string> => dc.ok(['run', '-d', ...args]);
const inspected = (id: string, template: string): Promise<string> => dc.ok(['inspect', '-f', template, id]);
const removed = (id: string): Promise<string> => dc.ok(['rm', '-fv', id]);

describe('seen outside', () => {
  test('--label, --annotation, --expose', async () => {
    const id = await create('--label', 'a=b', '--annotation', 'c=d', '--expose', '99', 'busybox', 'sleep', '100');
    expect(await inspected(id, '{{.Config.Labels.a}} {{.HostConfig.Annotations.c}} {{json .Config.ExposedPorts}}')).toBe('b d {"99/tcp":{}}');
    expect(await dc.ok(['ps', '-q', '--no-trunc', '--filter', 'label=a=b', '--filter', 'expose=99'])).toBe(id);
    await removed(id);
  });

  test('-p and -P', async () => {
    const id = await create('-p', '127.0.0.1:0:80', 'busybox', 'sleep', '100');
    expect(await dc.ok(['port', id])).toMatch(/^80\/tcp -> 127\.0\.0\.1:\d+$/);
    await removed(id);
    const all = await create('-P', '--expose', '81', 'busybox', 'sleep', '100');
    expect(await dc.ok(['port', all, '81'])).toMatch(/^0\.0\.0\.0:\d+/);
    await removed(all);
  });

  test('--stop-signal and --stop-timeout', async () => {
    const id = await create('--stop-signal', 'USR1', 'busybox', 'sh', '-c', 'trap "exit 44" USR1; echo up; while :; do sleep 0.1; done');
    // Without its trap process 1 would not hear it.
    await until('it to listen', async () => (await dc.ok(['logs', id])) === 'up');
    await dc.ok(['stop', '-t', '60', id]);
    expect(await inspected(id, '{{.State.ExitCode}}')).toBe('44');
    await removed(id);
    const stubborn = await create('--stop-timeout', '1', 'busybox', 'sh', '-c', 'trap "" TERM; while :; do sleep 0.1; done');
    const from = Date.now();
    await dc.ok(['stop', stubborn]);
    // As the events stamp the two signals: what else a busy machine takes to stop one does not count.
    const kills = await until('both signals', async () => {
      const stamps = await dc.ok(['events', '--since', String(from / 1000 - 1), '--until', String(Date.now() / 1000), '--filter', `container=${stubborn}`, '--filter', 'event=kill', '--format', '{{.TimeNano}}']);
      return stamps.split('\n').length === 2 && stamps.split('\n').map(Number);
    });
    expect((kills[1]! - kills[0]!) / 1e6).toBeGreaterThan(900);
    expect((kills[1]! - kills[0]!) / 1e6).toBeLessThan(9_000);
    expect(await inspected(stubborn, '{{.State.ExitCode}}')).toBe('137');
    await removed(stubborn);
  });

  test('--restart', async () => {
    const id = await create('--restart', 'on-failure:2', 'busybox', 'false');
    await until('two restarts', async () => (await inspected(id, '{{.RestartCount}} {{.State.Status}}')) === '2 exited');
    await removed(id);
  });

  test('--health-cmd and its times', async () => {
    const id = await create('--health-cmd', 'test -e /tmp/well', '--health-interval', '200ms', '--health-retries', '2', 'busybox', 'sleep', '100');
    await until('it to be unwell', async () => (await inspected(id, '{{.State.Health.Status}}')) === 'unhealthy');
    await dc.ok(['exec', id, 'touch', '/tmp/well']);
    await until('it to be well', async () => (await inspected(id, '{{.State.Health.Status}}')) === 'healthy');
    await removed(id);
    const never = await create('--no-healthcheck', 'busybox', 'sleep', '100');
    expect(await inspected(never, '{{json .Config.Healthcheck.Test}}')).toBe('["NONE"]');
    await removed(never);
  });

  test('--log-driver none, --log-opt', async () => {
    const silent = await create('--log-driver', 'none', 'busybox', 'echo', 'x');
    expect((await dc.docker(['logs', silent])).stderr).toMatch(/configured logging driver does not support reading/);
    await removed(silent);
    const small = await create('--log-opt', 'max-size=10k', '--log-opt', 'max-file=2', 'busybox', 'seq', '1', '20000');
    await dc.ok(['wait', small]);
    const lines = (await dc.ok(['logs', small])).split('\n');
    expect(lines.length).toBeLessThan(2_000);
    expect(lines.at(-1)).toBe('20000');
    await removed(small);
  });

  test('--rm', async () => {
    const id = await create('--rm', 'busybox', 'true');
    await until('it to be gone', async () => (await dc.docker(['inspect', id])).status !== 0);
  });

  test('--name, --cidfile', async () => {
    const file = path.join(dc.dataDir, 'cid');
    const id = await create('--name', 'wanted', '--cidfile', file, 'busybox', 'true');
    expect(fs.readFileSync(file, 'utf8')).toBe(id);
    expect(await inspected(id, '{{.Name}}')).toBe('/wanted');
    await removed(id);
  });
});

test('--ipc container: of one that does not share', async () => {
  const id = await create('busybox', 'sleep', '100');
  const joining = await dc.docker(['run', '--rm', '--ipc', `container:${id}`, 'busybox', 'true']);
  expect(joining.stderr).toMatch(/non-shareable IPC \(hint: use IpcMode:shareable for the donor container\)/);
  await removed(id);
});

const CPUS = os.availableParallelism();
/** [flags, what the message names] */
const REFUSED: [flags: string[], names: RegExp][] = [
  [['--gpus', 'all'], /DeviceRequests/],
  [['--runtime', 'kata'], /Runtime/],
  [['--isolation', 'hyperv'], /Isolation/],
  [['--storage-opt', 'size=1g'], /StorageOpt/],
  [['--cgroup-parent', '/elsewhere'], /CgroupParent/],
  [['--link', 'nosuch:o'], /could not get container for nosuch: No such container: nosuch/],
  [['--volume-driver', 'nfs', '-v', 'data:/d'], /create data: error looking up volume plugin nfs: plugin "nfs" not found/],
  [['--log-driver', 'gelf'], /no log driver named 'gelf'/],
  [['--log-driver', 'syslog', '--log-opt', 'syslog-facility=nosuch'], /invalid syslog facility/],
  [['--log-opt', 'nosuch=1'], /unknown log opt 'nosuch'/],
  [['--security-opt', 'label=type:svirt_t'], /SecurityOpt|label/],
  [['--security-opt', 'apparmor=mine'], /apparmor/],
  [['--mount', 'type=volume,dst=/d,volume-driver=nfs'], /plugin "nfs" not found/],
  [['--mount', 'type=image,src=busybox,dst=/d'], /mount of type image/],
  [['--ip', '10.0.0.9'], /user (configured|specified|defined) (subnets|networks)|user specified IP address/],
  [['--network', 'own', '--ip6', 'fd00::9'], /IPv6/i],
  [['--network', 'own', '--link-local-ip', '169.254.9.9'], /LinkLocal/i],
  [['--network', 'name=own,driver-opt=a=b'], /DriverOpts/],
  [['--network', 'nosuch'], /network nosuch not found/],
  [['--platform', 'linux/s390x'], /platform/],
  [['--network-alias', 'likewise'], /network-scoped aliases are only supported for user-defined networks/],
  [['--ipc', 'container:nosuch'], /nosuch/],
  [['--use-api-socket'], /use-api-socket/],
  [['--mount', 'type=bind,src=/tmp,dst=/t,bind-propagation=odd'], /invalid propagation mode: odd/],
  [['--device-write-bps', '/dev/nosuch:1mb'], /\/dev\/nosuch/],
  [['--sysctl', 'kernel.pid_max=9'], /kernel\.pid_max/],
  [['--cap-add', 'FLYING'], /FLYING/],
  [['--ulimit', 'nofile=9:3'], /ulimit/],
  [['-m', '1m'], /6MB/],
  [['--cpuset-cpus', '77'], /Requested CPUs are not available - requested 77, available: [0-9,-]+$/m],
  [['--cpuset-mems', '9'], /Requested memory nodes are not available - requested 9, available: [0-9,-]+$/m],
  [['--cpuset-cpus', '1-0'], /Invalid value 1-0 for cpuset cpus/],
  [['--cpus', String(CPUS + 1)], new RegExp(`range of CPUs is from 0\\.01 to ${CPUS}\\.00, as there are only ${CPUS} CPUs available`)],
  [['--cpus', '9999'], /range of CPUs is from 0\.01 to/],
  [['--memory-swappiness', '101'], /swappiness/],
  [['--oom-score-adj', '2000'], /oom.score.adj/i],
  [['--pid', 'container:nosuch'], /nosuch/],
  [['--ipc', 'sideways'], /invalid IPC mode: sideways/],
  [['--device', '/dev/nosuch'], /\/dev\/nosuch/],
  [['-u', 'nobodyknows'], /nobodyknows/],
  [['-h', 'a b'], /hostname/],
  [['--stop-signal', 'SIGFOO'], /SIGFOO/],
  [['-v', 'x:relative'], /absolute|relative/],
  [['-p', '80:99999'], /99999|port/],
];

describe('refused by name', () => {
  test('--restart sometimes', async () => {
    expect((await dc.docker(['create', '--restart', 'sometimes', 'busybox'])).stderr).toMatch(/restart policy|RestartPolicy/);
  });

  test.each(REFUSED.map((row) => [row[0].join(' '), row] as const))('%s', async (_name, [flags, names]) => {
    const done = await dc.docker(['run', '--rm', '--pull', 'never', ...flags, 'busybox', 'true']);
    expect(done.status).toBeGreaterThanOrEqual(125);
    expect(done.stderr).toMatch(names);
    expect(await dc.ok(['ps', '-aq'])).toHaveLength(12);
  });
});
