import {execFileSync} from 'node:child_process';
import {createHash, randomBytes} from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import {createContainerdRuntime} from '../../lib/agent/runtime/containerd';
import type {Runtime} from '../../lib/agent/runtime/runtime';
import {startContainerd} from '../../lib/agent/containerd/process';
import {silentLog} from '../../lib/base/log';
import {eventually, runtimeConformance, textOf} from '../agent/runtime-conformance';
import {testContainerd, type TestContainerd} from '../harness/containerd';
import {busyboxSnapshot} from '../harness/rootfs';
import {plainSpec} from '../harness/spec';

const keepers = (directory: string): string[] => execFileSync('sh', ['-c', `ls -l /proc/[0-9]*/fd/0 2>/dev/null | grep -F '${directory}' || true`], {encoding: 'utf8'}).split('\n').filter(Boolean);

const parentOf = (pid: number): number => Number(/^PPid:\s+(\d+)$/m.exec(fs.readFileSync(`/proc/${pid}/status`, 'utf8'))![1]);

/** Looks at a process for so long, for what takes its time to go wrong. */
async function staysFor(ms: number, pid: number): Promise<void> {
  const until = performance.now() + ms;
  await eventually(async () => {
    expect(fs.existsSync(`/proc/${pid}`)).toBe(true);
    return performance.now() > until;
  });
}

async function makeWorld(): Promise<{containerd: TestContainerd; runtime: Runtime; state: string; parent: string; again(): Runtime}> {
  const containerd = await testContainerd();
  const state = path.join(containerd.directory, 'agent');
  const again = (): Runtime => createContainerdRuntime({client: containerd.client, stateDirectory: state, log: silentLog()});
  const runtime = again();
  await runtime.open();
  return {containerd, runtime, state, parent: await busyboxSnapshot(containerd.client), again};
}

describe('the containerd runtime', () => {
  runtimeConformance(async () => {
    const {containerd, runtime, state, parent, again} = await makeWorld();
    return {
      runtime,
      parentSnapshot: parent,
      spec: plainSpec,
      restart: async () => {
        const next = again();
        await next.open();
        return next;
      },
      stop: async () => {
        await runtime.close();
        expect(fs.readdirSync(path.join(state, 'io'))).toEqual([]);
        expect(keepers(state)).toEqual([]);
        await containerd.stop();
      },
    };
  });
});

describe('the containerd runtime, beyond the fake', () => {
  let world: Awaited<ReturnType<typeof makeWorld>>;
  beforeAll(async () => { world = await makeWorld(); });
  afterAll(async () => {
    await world.runtime.close();
    await world.containerd.stop();
  });
  const finish = async (id: string): Promise<void> => {
    await world.runtime.kill(id, '', 9, true).catch(() => undefined);
    await eventually(async () => (await world.runtime.state(id)).status === 'stopped');
    await world.runtime.deleteTask(id);
    await world.runtime.remove(id);
  };

  test('a hundred execs at once in one container: all run, and the shim gets to their exits meanwhile', async () => {
    const {runtime, parent} = world;
    const io = {stdin: false, terminal: false};
    await runtime.create({id: 'crowd', parentSnapshot: parent, labels: {}});
    await runtime.createTask('crowd', plainSpec('crowd', ['sleep', '1000']), io);
    await runtime.startTask('crowd');
    const {process} = plainSpec('crowd', ['echo', 'here']);
    const said = await Promise.all(Array.from({length: 100}, async (_, n) => {
      const exec = await runtime.exec('crowd', `e${n}`, process, io);
      const text = await textOf(exec.io.stdout);
      await eventually(async () => (await runtime.execState('crowd', `e${n}`)).status === 'stopped');
      await runtime.deleteExec('crowd', `e${n}`);
      return text;
    }));
    expect(said).toEqual(Array.from({length: 100}, () => 'here\n'));
    await finish('crowd');
  }, 50_000);

  test('a terminal: echo, size, and an agent restart does not hang it up', async () => {
    const {runtime, parent} = world;
    const io = {stdin: true, terminal: true};
    await runtime.create({id: 'tty', parentSnapshot: parent, labels: {}});
    const task = await runtime.createTask('tty', plainSpec('tty', ['sh'], true), io);
    await runtime.startTask('tty');
    await runtime.resize('tty', '', 33, 77);
    let seen = '';
    task.io.stdout!.read((part) => { seen += part.toString(); }, () => undefined);
    task.io.stdin!.write('stty size; tty\n');
    await eventually(async () => seen.includes('33 77') && seen.includes('/dev/pts/0'));
    task.io.detach();
    const again = await runtime.reattach('tty', '', io);
    seen = '';
    again.stdout!.read((part) => { seen += part.toString(); }, () => undefined);
    again.stdin!.write('echo still $((6*7))\n');
    await eventually(async () => seen.includes('still 42'));
    again.stdin!.end();
    await again.closeStdin();
    expect((await runtime.state('tty')).status).toBe('running');
    await finish('tty');
  });

  test('gigabytes pass without memory growth, whole', async () => {
    const {runtime, parent} = world;
    await runtime.create({id: 'big', parentSnapshot: parent, labels: {}});
    const {io} = await runtime.createTask('big', plainSpec('big', ['dd', 'if=/dev/zero', 'bs=1M', 'count=1024']), {stdin: false, terminal: false});
    await runtime.startTask('big');
    let bytes = 0;
    const before = process.memoryUsage().rss;
    await new Promise<void>((resolve) => io.stdout!.read((part) => { bytes += part.length; }, resolve));
    expect(bytes).toBe(1024 * 1024 * 1024);
    expect(process.memoryUsage().rss - before).toBeLessThan(200 << 20);
    await finish('big');
  });

  test('a stdin that brings much: its FIFO grows, and every byte arrives whatever the pace of the reader', async () => {
    const {runtime, parent, state} = world;
    const bytes = randomBytes(24 << 20);
    await runtime.create({id: 'much', parentSnapshot: parent, labels: {}});
    // Stands still in the middle for longer than any pause of ours.
    const {io} = await runtime.createTask('much', plainSpec('much', ['sh', '-c', '(dd bs=1000 count=8000 iflag=fullblock; sleep 4; cat) | sha256sum']), {stdin: true, terminal: false});
    await runtime.startTask('much');
    const output = textOf(io.stdout);
    let longestMs = 0;
    let last = performance.now();
    const ticking = setInterval(() => {
      longestMs = Math.max(longestMs, performance.now() - last);
      last = performance.now();
    }, 10);
    for (let at = 0; at < bytes.length; at += 65_000)
      if (!io.stdin!.write(bytes.subarray(at, at + 65_000))) await new Promise(resolve => io.stdin!.once('drain', resolve));
    const F_GETPIPE_SZ = 1032;
    expect(execFileSync('perl', ['-e', `open(F, "+<", $ARGV[0]); print fcntl(F, ${F_GETPIPE_SZ}, 0)`, path.join(state, 'io', 'much', 'stdin')], {encoding: 'utf8'})).toBe(String(1 << 20));
    await io.closeStdin();
    // No write of ours ever waited in the kernel for the reader, which stood still for four seconds.
    clearInterval(ticking);
    expect(longestMs).toBeLessThan(2_000);
    expect((await output).split(' ')[0]).toBe(createHash('sha256').update(bytes).digest('hex'));
    await finish('much');
  });

  test('a process that ends without reading its stdin: the writer waits, and breaks with the task', async () => {
    const {runtime, parent} = world;
    await runtime.create({id: 'head', parentSnapshot: parent, labels: {}});
    const {io} = await runtime.createTask('head', plainSpec('head', ['head', '-c', '3']), {stdin: true, terminal: false});
    await runtime.startTask('head');
    const output = textOf(io.stdout);
    const closed = new Promise(resolve => io.stdin!.once('close', resolve));
    const feed = (): void => { if (!io.stdin!.destroyed) io.stdin!.write(Buffer.alloc(4096, 'a'), () => setImmediate(feed)); };
    feed();
    expect(await output).toBe('aaa');
    await finish('head');
    await closed;
  });

  test('containers outlive containerd: after kill -9 and a new start, output and exit arrive', async () => {
    const {runtime, parent, containerd} = world;
    const seen: string[] = [];
    const stop = new AbortController();
    const listening = (async () => {
      for await (const event of runtime.events(stop.signal)) seen.push(event.kind === 'exit' ? `exit ${event.exitCode}` : event.kind);
    })();
    await eventually(async () => seen.includes('reconnected'));
    await runtime.create({id: 'survivor', parentSnapshot: parent, labels: {}});
    const {io} = await runtime.createTask('survivor', plainSpec('survivor', ['sh', '-c', 'read line; echo got $line; exit 9']), {stdin: true, terminal: false});
    await runtime.startTask('survivor');
    seen.length = 0;
    process.kill(containerd.process.pid(), 'SIGKILL');
    await eventually(async () => !fs.existsSync(`/proc/${containerd.process.pid()}`));
    containerd.process = await startContainerd({directory: containerd.directory, log: silentLog(), supervise: false});
    await eventually(async () => seen.includes('reconnected'));
    expect((await runtime.state('survivor')).status).toBe('running');
    io.stdin!.write('this\n');
    expect(await textOf(io.stdout)).toBe('got this\n');
    await eventually(async () => seen.includes('exit 9'));
    stop.abort();
    await listening;
    await finish('survivor');
  });

  test('containers outlive containerd also where a busy machine keeps their shims from answering the next one', async () => {
    const {runtime, parent, containerd} = world;
    await runtime.create({id: 'slow', parentSnapshot: parent, labels: {}});
    const {pid} = await runtime.createTask('slow', plainSpec('slow', ['sleep', '1000']), {stdin: false, terminal: false});
    await runtime.startTask('slow');
    const shim = parentOf(pid);
    process.kill(shim, 'SIGSTOP');
    let starting: ReturnType<typeof startContainerd>;
    try {
      process.kill(containerd.process.pid(), 'SIGKILL');
      await eventually(async () => !fs.existsSync(`/proc/${containerd.process.pid()}`));
      starting = startContainerd({directory: containerd.directory, log: silentLog(), supervise: false});
      starting.catch(() => undefined);
      // By itself containerd takes a shim for dead after five seconds, kills what it kept, and leaves the rest.
      await staysFor(7_000, pid);
    } finally {
      process.kill(shim, 'SIGCONT');
    }
    containerd.process = await starting;
    expect(await runtime.state('slow')).toMatchObject({status: 'running', pid});
    await finish('slow');
  });

  test('a state that is late is the true one', async () => {
    const {runtime, parent} = world;
    await runtime.create({id: 'late', parentSnapshot: parent, labels: {}});
    const {pid} = await runtime.createTask('late', plainSpec('late', ['sleep', '1000']), {stdin: false, terminal: false});
    await runtime.startTask('late');
    const shim = parentOf(pid);
    process.kill(shim, 'SIGSTOP');
    const asked = runtime.state('late');
    asked.catch(() => undefined);
    try {
      // By itself containerd says after two seconds that it is unknown.
      await staysFor(4_000, pid);
    } finally {
      process.kill(shim, 'SIGCONT');
    }
    expect(await asked).toMatchObject({status: 'running', pid});
    await finish('late');
  });

  test('limits change while it runs', async () => {
    const {runtime, parent} = world;
    await runtime.create({id: 'limits', parentSnapshot: parent, labels: {}});
    await runtime.createTask('limits', plainSpec('limits', ['sleep', '1000']), {stdin: false, terminal: false});
    await runtime.startTask('limits');
    await runtime.updateResources('limits', {pids: {limit: 17}});
    const file = ['/sys/fs/cgroup/pids/cetus-test/limits/pids.max', '/sys/fs/cgroup/cetus-test/limits/pids.max'].find(one => fs.existsSync(one))!;
    expect(fs.readFileSync(file, 'utf8').trim()).toBe('17');
    expect(await runtime.usage('limits')).toBeGreaterThan(0);
    expect((await runtime.mounts('limits'))[0]!.type).toBe('overlay');
    expect(await runtime.version()).toMatchObject({runtime: 'containerd', snapshotter: 'overlayfs', runc: expect.stringMatching(/^\d/)});
    await finish('limits');
  });

  test('identifiers that could leave the directory are refused', async () => {
    await expect(world.runtime.create({id: '../x', parentSnapshot: '', labels: {}})).rejects.toMatchObject({kind: 'invalid'});
  });
});
