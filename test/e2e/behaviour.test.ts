/** How containers live and end, with the stock client: restart policies, health, init, signals, memory, updates, waits. */
import {spawn} from 'node:child_process';
import {datacenterWithBusybox, onlyOnOneMachine, removeContainersAfterEach} from '../harness/suite';
import {until} from '../harness/wait';

const dc = datacenterWithBusybox();
removeContainersAfterEach(dc);

interface State { Status: string; Running: boolean; Pid: number; ExitCode: number; OOMKilled: boolean; StartedAt: string; FinishedAt: string; Health?: {Status: string; FailingStreak: number; Log: {ExitCode: number; Output: string}[]} }
const inspect = async <T>(name: string, format: string): Promise<T> => JSON.parse(await dc.ok(['inspect', '-f', `{{json ${format}}}`, name])) as T;
const state = (name: string): Promise<State> => inspect(name, '.State');
const run = (name: string, args: string[], ...command: string[]): Promise<string> => dc.ok(['run', '-d', '--name', name, ...args, 'busybox', ...command]);
const refused = async (args: string[]): Promise<string> => {
  const done = await dc.docker(args);
  expect(done.status).not.toBe(0);
  return done.stderr;
};
/** Actions that happened to a container since then, oldest first. */
const events = async (name: string, since: number): Promise<string[]> =>
  (await dc.ok(['events', '--since', String(since / 1000), '--until', String(Date.now() / 1000), '--filter', `container=${name}`, '--format', '{{.Action}}'])).split('\n').filter(Boolean);

describe('restart policies', () => {
  test('always: comes back with a new process until a person stops it', async () => {
    await run('phoenix', ['--restart', 'always'], 'sh', '-c', 'echo alive; exec sleep 1000');
    await until('its word', async () => (await dc.ok(['logs', 'phoenix'])) === 'alive');
    const {Pid} = await state('phoenix');
    process.kill(Pid, 'SIGKILL');
    const again = await until('a new process', async () => {
      const now = await state('phoenix');
      return now.Status === 'running' && now.Pid !== Pid ? now : undefined;
    });
    expect(await inspect('phoenix', '.RestartCount')).toBe(1);
    expect(again.ExitCode).toBe(0);
    // It runs; what it says first comes when it gets to it.
    await until('its word again', async () => (await dc.ok(['logs', 'phoenix'])) === 'alive\nalive');
    await dc.ok(['stop', '-t', '0', 'phoenix']);
    expect((await state('phoenix')).Status).toBe('exited');
    await dc.ok(['start', 'phoenix']);
    expect(await inspect('phoenix', '.RestartCount')).toBe(0);
  });

  test('on-failure:N backs off between its tries, and an exit of 0 ends it', async () => {
    await run('flaky', ['--restart', 'on-failure:3'], 'sh', '-c', 'date +%s%N >> /tries; exit 7');
    await until('it to give up', async () => (await state('flaky')).Status === 'exited');
    expect(await state('flaky')).toMatchObject({ExitCode: 7});
    expect(await inspect('flaky', '.RestartCount')).toBe(3);
    const since = Date.now() - 60_000;
    const ends = (await dc.ok(['events', '--since', String(since / 1000), '--until', String(Date.now() / 1000), '--filter', 'container=flaky', '--filter', 'event=die', '--format', '{{json .}}'])).split('\n').map((l) => (JSON.parse(l) as {timeNano: number}).timeNano / 1e6);
    expect(ends).toHaveLength(4);
    const gaps = ends.slice(1).map((at, i) => at - ends[i]!);
    // 100, 200, 400 ms, and what a start takes.
    gaps.forEach((gap, i) => expect(gap).toBeGreaterThan(100 * 2 ** i));
    await run('fine', ['--restart', 'on-failure'], 'true');
    await until('its end', async () => (await state('fine')).Status === 'exited');
    expect(await inspect('fine', '.RestartCount')).toBe(0);
    expect(await refused(['run', '--rm', '--restart', 'always', 'busybox', 'true'])).toMatch(/conflicting options: cannot specify both --restart and --rm/);
    expect(await refused(['create', '--restart', 'sometimes', 'busybox'])).toMatch(/invalid restart policy: unknown policy 'sometimes'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'/);
  });

  onlyOnOneMachine('whoever stops a fleet of test hosts switches them off')('over a restart of Cetus: what runs goes on, what ended meanwhile comes back, what a person stopped stays', async () => {
    await run('steady', ['--restart', 'unless-stopped'], 'sleep', '1000');
    await run('killed', ['--restart', 'unless-stopped'], 'sleep', '1000');
    await run('stopped', ['--restart', 'unless-stopped'], 'sleep', '1000');
    await run('plain', [], 'sleep', '1000');
    await dc.ok(['stop', '-t', '0', 'stopped']);
    const [steady, killed, plain] = await Promise.all(['steady', 'killed', 'plain'].map(state));
    await dc.stop();
    process.kill(killed!.Pid, 'SIGKILL');
    process.kill(plain!.Pid, 'SIGTERM');
    process.kill(plain!.Pid, 'SIGKILL');
    await dc.up();
    await until('the killed one to be back', async () => {
      const now = await state('killed');
      return now.Status === 'running' && now.Pid !== killed!.Pid;
    });
    expect(await state('steady')).toMatchObject({Status: 'running', Pid: steady!.Pid});
    expect(await state('stopped')).toMatchObject({Status: 'exited', Pid: 0});
    await until('the end of the one without a policy to be told', async () => (await state('plain')).Status === 'exited');
    expect(await state('plain')).toMatchObject({Status: 'exited', ExitCode: 137});
  });
});

test('health: status in ps and inspect, events, and the verdict follows the probes', async () => {
  const began = Date.now() - 1_000;
  // Before its first probe, which none of these tests lives to see.
  await run('fresh', ['--health-cmd', 'true', '--health-interval', '1h'], 'sleep', '1000');
  expect((await state('fresh')).Health).toMatchObject({Status: 'starting', FailingStreak: 0});
  // The time-out is for a machine that is busy: a probe that is cut off is another verdict.
  await run('patient', ['--health-cmd', 'cat /well', '--health-interval', '200ms', '--health-timeout', '30s', '--health-retries', '2'], 'sleep', '1000');
  await until('unhealthy', async () => (await state('patient')).Health!.Status === 'unhealthy');
  expect(await dc.ok(['ps', '--filter', 'health=unhealthy', '--format', '{{.Names}} {{.Status}}'])).toMatch(/^patient Up .*\(unhealthy\)$/);
  const {Health} = await state('patient');
  expect(Health!.FailingStreak).toBeGreaterThanOrEqual(2);
  expect(Health!.Log.at(-1)).toMatchObject({ExitCode: 1, Output: expect.stringContaining("can't open '/well'")});
  await dc.ok(['exec', 'patient', 'sh', '-c', 'echo good > /well']);
  await until('healthy', async () => (await state('patient')).Health!.Status === 'healthy');
  expect(await dc.ok(['ps', '--filter', 'health=healthy', '--format', '{{.Names}} {{.Status}}'])).toMatch(/^patient Up .*\(healthy\)$/);
  expect((await state('patient')).Health).toMatchObject({FailingStreak: 0});
  await until('the events', async () => (await events('patient', began)).filter((e) => e.startsWith('health_status')).join() === 'health_status: unhealthy,health_status: healthy');
  expect(await inspect('patient', '.Config.Healthcheck')).toMatchObject({Test: ['CMD-SHELL', 'cat /well'], Interval: 200_000_000, Retries: 2});
});

describe('ends', () => {
  // They end after their parent has become a program that waits for nobody.
  const orphans = 'for i in 1 2 3; do (sleep 0.3 & exec true); done; exec sleep 1000';

  test('--init reaps what nobody waits for, and passes signals on', async () => {
    const zombies = async (name: string): Promise<number> => (await dc.ok(['exec', name, 'sh', '-c', 'cat /proc/[0-9]*/stat'])).split('\n').filter((l) => / Z /.test(l)).length;
    for (const [name, args] of [['reaping', ['--init']], ['careless', []]] as const) {
      await run(name, [...args], 'sh', '-c', orphans);
    }
    await until('zombies where nobody reaps', async () => (await zombies('careless')) === 3);
    // Nothing of the orphans, neither dead nor yet to die: a heading, the init, and the program.
    await until('all of them to be reaped', async () => {
      const rows = (await dc.ok(['top', 'reaping', '-eo', 'pid,args'])).split('\n');
      return rows.length === 3 && rows.some((row) => /^\s*\d+\s+sleep 1000$/.test(row));
    });
    expect(await zombies('reaping')).toBe(0);
    await dc.ok(['stop', '-t', '30', 'reaping']);
    expect((await state('reaping')).ExitCode).toBe(143);
  });

  test('stop: the container\'s signal and time-out, its own answer, else SIGKILL', async () => {
    const ready = (name: string): Promise<unknown> => until(`${name} to listen`, async () => (await dc.ok(['logs', name])).startsWith('up'));
    await run('polite', ['--stop-signal', 'USR1'], 'sh', '-c', 'trap "echo bye; exit 3" USR1; echo up; while :; do usleep 20000; done');
    await ready('polite');
    await dc.ok(['stop', 'polite']);
    expect(await state('polite')).toMatchObject({ExitCode: 3, Status: 'exited'});
    expect(await dc.ok(['logs', 'polite'])).toBe('up\nbye');

    const began = Date.now() - 1_000;
    await run('deaf', ['--stop-timeout', '1'], 'sh', '-c', 'trap "" TERM; echo up; while :; do usleep 20000; done');
    await ready('deaf');
    const before = Date.now();
    await dc.ok(['stop', 'deaf']);
    expect(Date.now() - before).toBeGreaterThanOrEqual(1_000);
    expect(await state('deaf')).toMatchObject({ExitCode: 137});
    await until('the events', async () => (await events('deaf', began)).join() === 'create,start,kill,kill,die,stop');

    await run('told', [], 'sh', '-c', 'trap "exit 4" HUP; echo up; while :; do usleep 20000; done');
    await ready('told');
    await dc.ok(['stop', '-s', 'HUP', 'told']);
    expect((await state('told')).ExitCode).toBe(4);
  });

  test('kill: any signal by name or number, none that is unknown, none for what does not run', async () => {
    await run('victim', [], 'sh', '-c', 'trap "echo one" USR1; trap "echo two" USR2; echo up; while :; do usleep 20000; done');
    await until('it to listen', async () => (await dc.ok(['logs', 'victim'])) === 'up');
    await dc.ok(['kill', '-s', 'SIGUSR1', 'victim']);
    await until('one', async () => (await dc.ok(['logs', 'victim'])).includes('one'));
    await dc.ok(['kill', '-s', '12', 'victim']);
    await until('two', async () => (await dc.ok(['logs', 'victim'])).endsWith('two'));
    expect(await refused(['kill', '-s', 'NOPE', 'victim'])).toMatch(/invalid signal: NOPE/i);
    await dc.ok(['kill', 'victim']);
    await until('its end', async () => (await state('victim')).Status === 'exited');
    expect(await refused(['kill', 'victim'])).toMatch(/cannot kill container: victim: container [0-9a-f]{64} is not running/);
  });

  test('out of memory: OOMKilled, exit 137, an event', async () => {
    const began = Date.now() - 1_000;
    const done = await dc.docker(['run', '--name', 'hog', '-m', '16m', 'busybox', 'sh', '-c', 'a=x; while :; do a=$a$a; done']);
    expect(done.status).toBe(137);
    expect(await state('hog')).toMatchObject({ExitCode: 137, Status: 'exited'});
    // containerd tells of the exit and of its cause by two ways, in either order.
    await until('the cause', async () => (await state('hog')).OOMKilled);
    await until('the events', async () => (await events('hog', began)).includes('oom'));
    await dc.ok(['start', 'hog']);
    await run('modest', ['-m', '16m'], 'true');
    await until('its end', async () => (await state('modest')).Status === 'exited');
    expect((await state('modest')).OOMKilled).toBe(false);
  });

  test('wait: for an end that was, an end to come, the next one, and the removal', async () => {
    await run('waited', [], 'sh', '-c', 'exit 5');
    await until('its end', async () => (await state('waited')).Status === 'exited');
    expect(await dc.ok(['wait', 'waited'])).toBe('5');
    /** Resolves when the wait is armed, which its answer's head says; the body comes with the end. */
    const armed = (condition: string): Promise<Response> => fetch(`${dc.host.replace('tcp', 'http')}/v1.43/containers/waited/wait?condition=${condition}`, {method: 'POST'});
    const [next, removed, past] = (await Promise.all(['next-exit', 'removed', 'not-running'].map(armed))).map((answer) => answer.json() as Promise<{StatusCode: number}>) as [Promise<unknown>, Promise<unknown>, Promise<unknown>];
    expect(await past).toMatchObject({StatusCode: 5});
    expect(await Promise.race([next.then(() => 'over'), dc.ok(['ps', '-q']).then(() => 'waits')])).toBe('waits');
    await dc.ok(['start', 'waited']);
    expect(await next).toMatchObject({StatusCode: 5});
    await dc.ok(['rm', '-f', 'waited']);
    expect(await removed).toMatchObject({StatusCode: 5});
    expect(await refused(['wait', 'waited'])).toMatch(/No such container: waited/);
  });
});

describe('changes', () => {
  test('update: memory, cpus and policy of a running container, at once and for its next start', async () => {
    await run('elastic', ['-m', '64m'], 'sleep', '1000');
    const limits = (): Promise<string> => dc.ok(['exec', 'elastic', 'sh', '-c', 'cd /sys/fs/cgroup; if [ -d memory ]; then cat memory/memory.limit_in_bytes cpu/cpu.cfs_quota_us; else cat memory.max; cut -d" " -f1 cpu.max; fi']);
    expect((await dc.docker(['update', '--cpus', '99', 'elastic'])).stderr).toMatch(/range of CPUs is from 0\.01 to \d+\.00, as there are only \d+ CPUs available/);
    expect((await dc.docker(['update', '--cpuset-cpus', '77', 'elastic'])).stderr).toMatch(/Requested CPUs are not available - requested 77, available: /);
    await dc.ok(['update', '-m', '32m', '--memory-swap', '64m', '--cpus', '.25', '--restart', 'always', 'elastic']);
    expect(await limits()).toBe(`${32 << 20}\n25000`);
    expect(await inspect('elastic', '.HostConfig')).toMatchObject({Memory: 32 << 20, MemorySwap: 64 << 20, NanoCpus: 250_000_000, RestartPolicy: {Name: 'always'}});
    const {Pid} = await state('elastic');
    process.kill(Pid, 'SIGKILL');
    await until('the new policy at work', async () => {
      const now = await state('elastic');
      return now.Status === 'running' && now.Pid !== Pid;
    });
    expect(await limits()).toBe(`${32 << 20}\n25000`);
    await dc.ok(['update', '--restart', 'no', 'elastic']);
    expect(await refused(['update', '-m', '1m', 'elastic'])).toMatch(/Minimum memory limit allowed is 6MB/);
    expect(await refused(['update', '-m', '128m', 'elastic'])).toMatch(/Memory limit should be smaller than already set memoryswap limit/);
  });

  test('rename: refused where taken or malformed; the new name works everywhere', async () => {
    await run('first', [], 'sleep', '1000');
    await run('second', [], 'sleep', '1000');
    expect(await refused(['rename', 'first', 'second'])).toMatch(/The container name "\/second" is already in use by container/);
    expect(await refused(['rename', 'first', 'a/b'])).toMatch(/Invalid container name \(\/a\/b\)/);
    expect(await refused(['rename', 'first', 'first'])).toMatch(/Renaming a container with the same name as its current name/);
    expect(await refused(['rename', 'nobody', 'third'])).toMatch(/No such container: nobody/);
    await dc.ok(['rename', 'first', 'third']);
    expect(await dc.ok(['exec', 'third', 'echo', 'here'])).toBe('here');
    await run('first', [], 'true');
    expect((await dc.ok(['ps', '-a', '--format', '{{.Names}}'])).split('\n').sort()).toEqual(['first', 'second', 'third']);
  });

  test('pause freezes it; what a paused or stopped one refuses', async () => {
    await run('frozen', [], 'sh', '-c', 'while :; do echo tick; usleep 10000; done');
    await dc.ok(['pause', 'frozen']);
    // What it had said is read to the last byte; one that still ran would have said more each time.
    let frozen = '';
    await until('the log to stand still', async () => {
      const [before, now] = [frozen, await dc.ok(['logs', 'frozen'])];
      frozen = now;
      return before === now;
    });
    expect(await refused(['exec', 'frozen', 'true'])).toMatch(/is paused, unpause the container before exec/);
    expect(await refused(['pause', 'frozen'])).toMatch(/is already paused/);
    expect(await refused(['rm', 'frozen'])).toMatch(/container is paused and must be unpaused first/);
    expect(await refused(['start', 'frozen'])).toMatch(/cannot start a paused container, try unpause instead/);
    expect(await dc.ok(['logs', 'frozen'])).toBe(frozen);
    await dc.ok(['unpause', 'frozen']);
    await until('it to go on', async () => (await dc.ok(['logs', 'frozen'])).length > frozen.length);
    expect(await refused(['unpause', 'frozen'])).toMatch(/is not paused/);
    await dc.ok(['pause', 'frozen']);
    await dc.ok(['stop', '-t', '0', 'frozen']);
    expect(await state('frozen')).toMatchObject({Status: 'exited', ExitCode: 137});
    expect(await refused(['pause', 'frozen'])).toMatch(/is not running/);
    expect(await refused(['top', 'frozen'])).toMatch(/is not running/);
  });

  test('top with the columns one asks for', async () => {
    await run('busy', ['--user', '1000'], 'sh', '-c', 'sleep 900 & exec sleep 901');
    const top = async (): Promise<string[][]> => (await dc.ok(['top', 'busy', '-eo', 'uid,pid,args'])).split('\n').map((l) => l.trim().split(/\s+/));
    // A shell until it has made the one and become the other.
    const table = await until('the two', async () => {
      const now = await top();
      return now.length === 3 && now.every(([, , command]) => command !== 'sh') && now;
    });
    expect(table[0]).toEqual(['UID', 'PID', 'COMMAND']);
    expect(table.slice(1).map(([uid, , ...args]) => `${uid} ${args.join(' ')}`).sort()).toEqual(['1000 sleep 900', '1000 sleep 901']);
    expect(table.slice(1).map((row) => Number(row[1]))).toContain((await state('busy')).Pid);
    expect(await refused(['top', 'busy', '-o', 'nope'])).toMatch(/unknown user-defined format specifier "nope"/);
  });

  test('the log driver local is read like any other; none is not', async () => {
    const count = 'i=0; while [ $i -lt 300 ]; do echo $i; i=$((i+1)); done';
    const script = `echo out; echo err >&2; ${count}`;
    await dc.ok(['run', '--name', 'logged', '--log-driver', 'local', '--log-opt', 'max-size=2k', '--log-opt', 'max-file=100', 'busybox', 'sh', '-c', script]);
    expect(await inspect('logged', '.HostConfig.LogConfig')).toEqual({Type: 'local', Config: {'max-file': '100', 'max-size': '2k'}});
    const {stdout, stderr} = await dc.docker(['logs', 'logged']);
    expect(stderr).toBe('err\n');
    expect(stdout.split('\n').slice(0, -1)).toEqual(['out', ...Array.from({length: 300}, (_, i) => String(i))]);
    // Of two streams either may be read last, so that the tail is asked of a container that has one.
    await dc.ok(['run', '--name', 'tailed', '--log-driver', 'local', '--log-opt', 'max-size=2k', '--log-opt', 'max-file=100', 'busybox', 'sh', '-c', count]);
    expect(await dc.ok(['logs', '--tail', '1', 'tailed'])).toBe('299');
    await dc.ok(['run', '--name', 'silent', '--log-driver', 'none', 'busybox', 'echo', 'gone']);
    expect(await refused(['logs', 'silent'])).toMatch(/configured logging driver does not support reading/);
    expect(await refused(['create', '--log-driver', 'local', '--log-opt', 'labels=x', 'busybox'])).toMatch(/unknown log opt 'labels' for log driver local/);
    expect(await refused(['create', '--log-driver', 'gelf', 'busybox'])).toMatch(/no log driver named 'gelf' is registered/);
  });
});

test('a client that dies in `docker run` leaves its container running, and in --rm too', async () => {
  const client = spawn('docker', ['run', '--rm', '--name', 'left', 'busybox', 'sleep', '1000'], {env: {...process.env, DOCKER_HOST: dc.host}, stdio: 'ignore'});
  await until('it to run', async () => (await dc.docker(['inspect', '-f', '{{.State.Running}}', 'left'])).stdout.trim() === 'true');
  client.kill('SIGKILL');
  expect((await state('left')).Status).toBe('running');
  await dc.ok(['kill', 'left']);
  await until('it to be removed', async () => (await dc.docker(['inspect', 'left'])).status === 1);
});
