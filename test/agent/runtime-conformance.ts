/** What every Runtime does. The commands mean the same to busybox and to the fake's scripted processes. */
import {randomBytes} from 'node:crypto';
import {classifyStartError} from '../../lib/agent/runtime/start-error';
import type {OciSpec, ProcessIo, ProcessOutput, Runtime, RuntimeEvent} from '../../lib/agent/runtime/runtime';

export interface ConformanceWorld {
  runtime: Runtime;
  parentSnapshot: string;
  spec(id: string, args: string[], terminal?: boolean): OciSpec;
  /** What a restart of the agent is to this runtime: a second Runtime over the same containers. Undefined: the same one. */
  restart?(): Promise<Runtime>;
  stop(): Promise<void>;
}

const PLAIN = {stdin: false, terminal: false};
const INPUT = {stdin: true, terminal: false};

/** All of it, copied: the chunks' memory is used again. */
export function bytesOf(output: ProcessOutput | undefined): Promise<Buffer> {
  const parts: Buffer[] = [];
  return new Promise(resolve => {
    if (output) output.read(chunk => parts.push(Buffer.from(chunk)), () => resolve(Buffer.concat(parts)));
    else resolve(Buffer.alloc(0));
  });
}

export async function textOf(output: ProcessOutput | undefined): Promise<string> {
  return (await bytesOf(output)).toString();
}

function firstOf(output: ProcessOutput | undefined): Promise<string> {
  return new Promise((resolve, reject) => { output!.read(chunk => resolve(chunk.toString()), () => reject(new Error('ended without a byte'))); });
}

export async function eventually<T>(what: () => Promise<T | undefined | false>, timeoutMs = 40_000): Promise<T> {
  const until = Date.now() + timeoutMs;
  for (;;) {
    const value = await what();
    if (value) return value;
    if (Date.now() > until) throw new Error('did not happen in time');
    await new Promise(resolve => { setTimeout(resolve, 5); });
  }
}

export function runtimeConformance(make: () => Promise<ConformanceWorld>): void {
  let world: ConformanceWorld;
  let runtime: Runtime;
  const events: RuntimeEvent[] = [];
  const listening = new AbortController();
  const made: string[] = [];

  beforeAll(async () => {
    world = await make();
    runtime = world.runtime;
    void (async () => {
      for await (const event of runtime.events(listening.signal)) events.push(event);
    })();
    await eventually(async () => events.some(({kind}) => kind === 'reconnected'));
  });
  afterEach(async () => {
    for (const id of made.splice(0)) {
      if ((await runtime.state(id)).status !== 'none') {
        await runtime.kill(id, '', 9, true).catch(() => undefined);
        await eventually(async () => ['stopped', 'created', 'none'].includes((await runtime.state(id)).status));
        await runtime.deleteTask(id);
      }
      await runtime.remove(id);
    }
    expect(await runtime.list()).toEqual([]);
  });
  afterAll(async () => {
    listening.abort();
    await world.stop();
  });

  async function created(args: string[], io = PLAIN): Promise<{id: string; io: ProcessIo; pid: number}> {
    const id = randomBytes(32).toString('hex');
    made.push(id);
    await runtime.create({id, parentSnapshot: world.parentSnapshot, labels: {}});
    const task = await runtime.createTask(id, world.spec(id, args, io.terminal), io);
    return {id, ...task};
  }
  async function started(args: string[], io = PLAIN): Promise<{id: string; io: ProcessIo; pid: number}> {
    const task = await created(args, io);
    await runtime.startTask(task.id);
    return task;
  }
  const exitOf = (containerId: string, execId = ''): Promise<Extract<RuntimeEvent, {kind: 'exit'}>> => eventually(async () =>
    events.find((event): event is Extract<RuntimeEvent, {kind: 'exit'}> => event.kind === 'exit' && event.containerId === containerId && event.execId === execId));

  test('create is repeatable, listed with its labels, and removed for good', async () => {
    const id = randomBytes(32).toString('hex');
    made.push(id);
    await runtime.create({id, parentSnapshot: world.parentSnapshot, labels: {account: 'default'}});
    await runtime.create({id, parentSnapshot: world.parentSnapshot, labels: {account: 'default'}});
    expect(await runtime.list()).toEqual([{id, labels: {account: 'default'}}]);
    expect(await runtime.snapshots()).toContain(id);
    expect(await runtime.state(id)).toMatchObject({status: 'none', pid: 0});
    await runtime.remove(id);
    await runtime.remove(id);
    expect(await runtime.snapshots()).not.toContain(id);
  });

  test('a parent that does not exist is notFound', async () => {
    await expect(runtime.create({id: 'orphan', parentSnapshot: 'sha256:none', labels: {}})).rejects.toMatchObject({kind: 'notFound'});
  });

  test('runs: created, running, output apart, exit code, stopped, none', async () => {
    const {id, io, pid} = await created(['sh', '-c', 'echo out; echo err >&2; exit 3']);
    expect(await runtime.state(id)).toMatchObject({status: 'created', pid});
    const output = Promise.all([textOf(io.stdout), textOf(io.stderr)]);
    await runtime.startTask(id);
    expect(await exitOf(id)).toMatchObject({exitCode: 3, pid});
    expect(await output).toEqual(['out\n', 'err\n']);
    const state = await runtime.state(id);
    expect(state).toMatchObject({status: 'stopped', exitCode: 3});
    expect(state.exitedAt).toMatch(/^20\d\d-.*\.\d{9}Z$/);
    await runtime.deleteTask(id);
    await runtime.deleteTask(id);
    expect((await runtime.state(id)).status).toBe('none');
  });

  test('a container starts again after its task was deleted', async () => {
    const {id, io} = await started(['echo', 'one']);
    expect(await textOf(io.stdout)).toBe('one\n');
    await exitOf(id);
    await expect(runtime.createTask(id, world.spec(id, ['echo', 'no']), PLAIN)).rejects.toMatchObject({kind: 'conflict'});
    await runtime.deleteTask(id);
    const again = await runtime.createTask(id, world.spec(id, ['echo', 'two']), PLAIN);
    await runtime.startTask(id);
    expect(await textOf(again.io.stdout)).toBe('two\n');
  });

  test('stdin: bytes come back exactly, its end ends the process', async () => {
    const {id, io} = await started(['cat'], INPUT);
    const bytes = randomBytes(1_000_000);
    const back = bytesOf(io.stdout);
    io.stdin!.write(bytes);
    await io.closeStdin();
    expect((await back).equals(bytes)).toBe(true);
    expect((await exitOf(id)).exitCode).toBe(0);
  });

  test('stdin closed before the process starts is not forgotten', async () => {
    const {id, io} = await created(['cat'], INPUT);
    io.stdin!.write('early');
    const closing = io.closeStdin();
    await runtime.startTask(id);
    await closing;
    expect(await textOf(io.stdout)).toBe('early');
    expect((await exitOf(id)).exitCode).toBe(0);
  });

  test('a writer blocks while nobody reads, and goes on when somebody does', async () => {
    const {id, io} = await started(['yes']);
    let seen = 0;
    let stopAt = 1_000_000;
    let stopped = false;
    io.stdout!.read(chunk => {
      expect(stopped).toBe(false);
      seen += chunk.length;
      stopped = seen > stopAt;
      if (stopped) io.stdout!.pause();
    }, () => undefined);
    await eventually(async () => stopped);
    const before = seen;
    // A good many turns in which a byte could arrive.
    for (let turns = 0; turns < 1000; turns += 1) await new Promise(resolve => { setImmediate(resolve); });
    expect(seen).toBe(before);
    stopped = false;
    stopAt = Infinity;
    io.stdout!.resume();
    await eventually(async () => seen > before + 1_000_000);
    await runtime.kill(id, '', 9);
    expect((await exitOf(id)).exitCode).toBe(137);
  });

  test('signals: process 1 may trap one, SIGKILL always ends it; killing nobody is notFound', async () => {
    const {id, io} = await started(['sh', '-c', 'trap "exit 5" TERM; echo ready; sleep 0.05; sleep 0.05; sleep 0.05; sleep 0.05; sleep 0.05; sleep 0.05; sleep 0.05; sleep 0.05; sleep 100']);
    await firstOf(io.stdout);
    await runtime.kill(id, '', 15);
    expect((await exitOf(id)).exitCode).toBe(5);
    await expect(runtime.kill(id, '', 9)).rejects.toMatchObject({kind: 'notFound'});
    await expect(runtime.kill('nobody', '', 9)).rejects.toMatchObject({kind: 'notFound'});
  });

  test('a running task is not deleted', async () => {
    const {id} = await started(['sleep', '1000']);
    await expect(runtime.deleteTask(id)).rejects.toMatchObject({kind: 'conflict'});
    expect((await runtime.state(id)).status).toBe('running');
  });

  test('exec: own output and exit code, own state, deleted; the container goes on', async () => {
    const {id} = await started(['sleep', '1000']);
    const {process} = world.spec(id, ['sh', '-c', 'echo inside; exit 7']);
    const {io, pid} = await runtime.exec(id, 'e1', process, PLAIN);
    expect(pid).toBeGreaterThan(0);
    expect(await textOf(io.stdout)).toBe('inside\n');
    expect(await exitOf(id, 'e1')).toMatchObject({exitCode: 7});
    expect(await runtime.execState(id, 'e1')).toMatchObject({status: 'stopped', exitCode: 7});
    await runtime.deleteExec(id, 'e1');
    await runtime.deleteExec(id, 'e1');
    expect((await runtime.execState(id, 'e1')).status).toBe('none');
    expect((await runtime.state(id)).status).toBe('running');
  });

  test('exec: stdin ends when closed, a signal ends it', async () => {
    const {id} = await started(['sleep', '1000']);
    const cat = await runtime.exec(id, 'cat', world.spec(id, ['cat']).process, INPUT);
    cat.io.stdin!.end('through');
    await cat.io.closeStdin();
    expect(await textOf(cat.io.stdout)).toBe('through');
    await exitOf(id, 'cat');
    await runtime.exec(id, 'sleeper', world.spec(id, ['sleep', '1000']).process, PLAIN);
    expect(await runtime.pids(id)).toHaveLength(2);
    await runtime.kill(id, 'sleeper', 15);
    expect(await exitOf(id, 'sleeper')).toMatchObject({exitCode: 143});
  });

  test('commands that do not exist are recognised, and leave nothing behind', async () => {
    const id = randomBytes(32).toString('hex');
    made.push(id);
    await runtime.create({id, parentSnapshot: world.parentSnapshot, labels: {}});
    const failure = await runtime.createTask(id, world.spec(id, ['nosuch']), PLAIN).catch((err: unknown) => err);
    expect(classifyStartError(failure)).toEqual({
      exitCode: 127,
      message: 'failed to create task for container: failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: exec: "nosuch": executable file not found in $PATH: unknown',
    });
    expect((await runtime.state(id)).status).toBe('none');
    const {io} = await runtime.createTask(id, world.spec(id, ['sleep', '1000']), PLAIN);
    await runtime.startTask(id);
    const exec = await runtime.exec(id, 'bad', world.spec(id, ['nosuch']).process, PLAIN).catch((err: unknown) => err);
    expect(classifyStartError(exec)).toEqual({
      exitCode: 127, message: 'OCI runtime exec failed: exec failed: unable to start container process: exec: "nosuch": executable file not found in $PATH: unknown',
    });
    expect((await runtime.execState(id, 'bad')).status).toBe('none');
    io.detach();
  });

  test('pause and resume: state and events', async () => {
    const {id} = await started(['sleep', '1000']);
    await runtime.pause(id);
    expect((await runtime.state(id)).status).toBe('paused');
    await runtime.resume(id);
    expect((await runtime.state(id)).status).toBe('running');
    await eventually(async () => events.some(event => event.kind === 'paused' && event.containerId === id) && events.some(event => event.kind === 'resumed' && event.containerId === id));
  });

  test('a SIGKILL ends what is paused; who pauses or resumes an ended process is told that there is none', async () => {
    const {id} = await started(['sleep', '1000']);
    await runtime.pause(id);
    await runtime.kill(id, '', 9);
    // Thawed by the signal, ended by it, or still to be thawed.
    await runtime.resume(id).catch((err: unknown) => expect(err).toMatchObject({kind: 'notFound'}));
    expect((await exitOf(id)).exitCode).toBe(137);
    await expect(runtime.resume(id)).rejects.toMatchObject({kind: 'notFound'});
    await expect(runtime.pause(id)).rejects.toMatchObject({kind: 'notFound'});
  });

  test('an agent that restarts finds the process, its stdin open and its output whole', async () => {
    const {id, io} = await started(['cat'], INPUT);
    io.stdin!.write('before ');
    await firstOf(io.stdout);
    io.detach();
    const next = await world.restart?.() ?? runtime;
    const again = await next.reattach(id, '', INPUT);
    again.stdin!.write('after');
    await again.closeStdin();
    expect(await textOf(again.stdout)).toBe('after');
    expect((await exitOf(id)).exitCode).toBe(0);
    await expect(next.reattach('nobody', '', INPUT)).rejects.toMatchObject({kind: 'notFound'});
    if (next !== runtime) await next.close();
  });

  test('what was not asked for is not read: it is the next agent\'s', async () => {
    const {id, io} = await started(['sh', '-c', 'echo first; echo second >&2; exit 0']);
    let taken = '';
    // Asked once, and no more: the other stream never.
    io.stdout!.read(chunk => {
      taken += chunk.toString();
      io.stdout!.pause();
    }, () => undefined);
    await eventually(async () => taken !== '');
    await exitOf(id);
    for (let turns = 0; turns < 100; turns += 1) await new Promise(resolve => { setImmediate(resolve); });
    io.detach();
    const again = await runtime.reattach(id, '', PLAIN);
    expect([taken + await textOf(again.stdout), await textOf(again.stderr)]).toEqual(['first\n', 'second\n']);
  });

  test('output written and ended while no agent looked is still there', async () => {
    const {id, io} = await created(['sh', '-c', 'echo last words; exit 4']);
    io.detach();
    await runtime.startTask(id);
    expect((await exitOf(id)).exitCode).toBe(4);
    const again = await runtime.reattach(id, '', PLAIN);
    expect(await textOf(again.stdout)).toBe('last words\n');
  });
}
