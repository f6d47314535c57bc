/**
 * The Runtime in memory: no process, no root, time from an injected clock. It passes the same conformance test as containerd and
 * serves unit tests and simulated fleets. What it cannot imitate (file systems, real resource limits) it accepts and remembers.
 */
import {type Clock, ZERO_TIME, systemClock} from '../../base/clock';
import {CetusError} from '../../base/errors';
import {FakeProcess} from './fake-process';
import type {CreateRequest, IoRequest, OciSpec, ProcessIo, Runtime, RuntimeEvent, RuntimeState, SnapshotMount} from './runtime';

export interface FakeRuntimeOptions {
  clock?: Clock;
  /** Snapshots that images have; '' always exists. Undefined: any. */
  parents?: ReadonlySet<string>;
}

export interface FakeRuntime extends Runtime {
  /** As if the kernel had killed the container for its memory. */
  oom(id: string): void;
  /** The specs that tasks were made from, and resources as last updated. */
  specOf(id: string): OciSpec | undefined;
  resourcesOf(id: string): Record<string, unknown> | undefined;
  /** Makes the next call of this name fail with this error. */
  failNext(call: keyof Runtime, err: CetusError): void;
}

interface FakeContainer {
  request: CreateRequest;
  spec?: OciSpec;
  resources?: Record<string, unknown>;
  init?: FakeProcess;
  execs: Map<string, FakeProcess>;
  paused: boolean;
}

export function createFakeRuntime(options: FakeRuntimeOptions = {}): FakeRuntime {
  return new InMemoryRuntime(options);
}

class InMemoryRuntime implements FakeRuntime {
  private readonly clock: Clock;
  private readonly containers = new Map<string, FakeContainer>();
  private readonly listeners = new Set<(event: RuntimeEvent) => void>();
  private readonly failures = new Map<string, CetusError>();
  private nextPid = 1000;

  constructor(private readonly options: FakeRuntimeOptions) {
    this.clock = options.clock ?? systemClock;
  }

  async open(): Promise<void> { this.check('open'); }
  async close(): Promise<void> { this.check('close'); }

  async version(): Promise<{runtime: string; version: string; runc: string; snapshotter: string}> {
    return {runtime: 'fake', version: '1', runc: '0', snapshotter: 'memory'};
  }

  async create(request: CreateRequest): Promise<void> {
    this.check('create');
    if (this.containers.has(request.id)) return;
    if (request.parentSnapshot && this.options.parents && !this.options.parents.has(request.parentSnapshot))
      throw new CetusError('notFound', `parent snapshot ${request.parentSnapshot} does not exist: not found`);
    this.containers.set(request.id, {request, execs: new Map(), paused: false});
  }

  async mounts(id: string): Promise<SnapshotMount[]> {
    this.check('mounts');
    this.get(id);
    return [];
  }

  async usage(id: string): Promise<number> {
    this.check('usage');
    this.get(id);
    return 0;
  }

  async createTask(id: string, spec: OciSpec, io: IoRequest): Promise<{pid: number; io: ProcessIo}> {
    this.check('createTask');
    const container = this.get(id);
    if (container.init) throw new CetusError('conflict', `container ${id} has a task already`);
    refuseUnknown(spec.process, 'failed to create shim task: OCI runtime create failed: runc create failed');
    container.spec = spec;
    container.paused = false;
    container.init = new FakeProcess(this.nextPid++, spec.process.args, true, this.clock, io.stdin);
    void container.init.exited.then(exit => {
      for (const process of container.execs.values()) process.signal(9);
      this.emit({kind: 'exit', containerId: id, execId: '', pid: container.init?.pid ?? 0, ...exit});
    });
    return {pid: container.init.pid, io: ioOf(container.init, io)};
  }

  async startTask(id: string): Promise<void> {
    this.check('startTask');
    const init = this.init(id);
    if (init.started) throw new CetusError('conflict', `cannot start container ${id}: it is not merely created`);
    init.start();
  }

  async reattach(id: string, execId: string, io: IoRequest): Promise<ProcessIo> {
    this.check('reattach');
    return ioOf(this.process(id, execId), io);
  }

  expectExec(): () => void {
    return () => undefined; // nothing takes time here
  }

  async exec(id: string, execId: string, process: OciSpec['process'], io: IoRequest): Promise<{pid: number; io: ProcessIo}> {
    this.check('exec');
    const container = this.get(id);
    if (!container.init?.started || container.init.exit) throw new CetusError('notFound', `container ${id} does not run`);
    if (container.execs.has(execId)) throw new CetusError('conflict', `exec ${execId} exists already`);
    refuseUnknown(process, 'OCI runtime exec failed: exec failed');
    const made = new FakeProcess(this.nextPid++, process.args, false, this.clock, io.stdin);
    container.execs.set(execId, made);
    void made.exited.then(exit => this.emit({kind: 'exit', containerId: id, execId, pid: made.pid, ...exit}));
    made.start();
    return {pid: made.pid, io: ioOf(made, io)};
  }

  async kill(id: string, execId: string, signal: number, all = false): Promise<void> {
    this.check('kill');
    const process = this.process(id, execId);
    if (process.exit) throw new CetusError('notFound', 'process already finished: not found');
    process.signal(signal);
    if (all) for (const exec of this.get(id).execs.values()) exec.signal(signal);
  }

  async resize(id: string, execId: string): Promise<void> {
    this.check('resize');
    this.process(id, execId);
  }

  async pause(id: string): Promise<void> {
    this.check('pause');
    this.running(id);
    this.setPaused(id, true);
  }

  async resume(id: string): Promise<void> {
    this.check('resume');
    this.running(id);
    this.setPaused(id, false);
  }

  async updateResources(id: string, resources: Record<string, unknown>): Promise<void> {
    this.check('updateResources');
    this.running(id);
    this.get(id).resources = resources;
  }

  async pids(id: string): Promise<number[]> {
    this.check('pids');
    const container = this.get(id);
    const all = [this.running(id), ...container.execs.values()];
    return all.filter(process => !process.exit).map(process => process.pid);
  }

  async state(id: string): Promise<RuntimeState> {
    this.check('state');
    const container = this.containers.get(id);
    return stateOf(container?.init, container?.paused ?? false);
  }

  async execState(id: string, execId: string): Promise<RuntimeState> {
    this.check('execState');
    return stateOf(this.containers.get(id)?.execs.get(execId), false);
  }

  async deleteTask(id: string): Promise<void> {
    this.check('deleteTask');
    const container = this.containers.get(id);
    if (!container?.init) return;
    if (container.init.started && !container.init.exit) throw new CetusError('conflict', `task ${id} must be stopped before deletion: running: failed precondition`);
    container.init = undefined;
    container.execs.clear();
  }

  async deleteExec(id: string, execId: string): Promise<void> {
    this.check('deleteExec');
    const process = this.containers.get(id)?.execs.get(execId);
    if (!process) return;
    if (!process.exit) throw new CetusError('conflict', `exec ${execId} must be stopped before deletion: running: failed precondition`);
    this.containers.get(id)?.execs.delete(execId);
  }

  async remove(id: string): Promise<void> {
    this.check('remove');
    this.containers.delete(id);
  }

  async list(): Promise<{id: string; labels: Record<string, string>}[]> {
    this.check('list');
    return [...this.containers.values()].map(({request}) => ({id: request.id, labels: {...request.labels}}));
  }

  async snapshots(): Promise<string[]> {
    return [...(this.options.parents ?? []), ...this.containers.keys()];
  }

  async* events(signal: AbortSignal): AsyncGenerator<RuntimeEvent> {
    const queue: RuntimeEvent[] = [{kind: 'reconnected'}];
    let wake: () => void = () => undefined;
    const listener = (event: RuntimeEvent): void => {
      queue.push(event);
      wake();
    };
    this.listeners.add(listener);
    const onAbort = (): void => wake();
    signal.addEventListener('abort', onAbort, {once: true});
    try {
      while (!signal.aborted) {
        const event = queue.shift();
        if (event) yield event;
        else await new Promise<void>(resolve => { wake = resolve; });
      }
    } finally {
      this.listeners.delete(listener);
      signal.removeEventListener('abort', onAbort);
    }
  }

  oom(id: string): void {
    this.emit({kind: 'oom', containerId: id});
    this.containers.get(id)?.init?.signal(9);
  }

  specOf(id: string): OciSpec | undefined {
    return this.containers.get(id)?.spec;
  }

  resourcesOf(id: string): Record<string, unknown> | undefined {
    return this.containers.get(id)?.resources;
  }

  failNext(call: keyof Runtime, err: CetusError): void {
    this.failures.set(call, err);
  }

  private check(call: keyof Runtime): void {
    const failure = this.failures.get(call);
    this.failures.delete(call);
    if (failure) throw failure;
  }

  private get(id: string): FakeContainer {
    const container = this.containers.get(id);
    if (!container) throw new CetusError('notFound', `container ${id}: not found`);
    return container;
  }

  private init(id: string): FakeProcess {
    const {init} = this.get(id);
    if (!init) throw new CetusError('notFound', `no running task found: task ${id} not found: not found`);
    return init;
  }

  private running(id: string): FakeProcess {
    const init = this.init(id);
    if (init.exit) throw new CetusError('notFound', 'process already finished: not found');
    return init;
  }

  private process(id: string, execId: string): FakeProcess {
    if (!execId) return this.init(id);
    const exec = this.get(id).execs.get(execId);
    if (!exec) throw new CetusError('notFound', `process does not exist ${execId}: not found`);
    return exec;
  }

  private setPaused(id: string, paused: boolean): void {
    const container = this.get(id);
    container.paused = paused;
    for (const process of [container.init!, ...container.execs.values()]) {
      if (paused) process.pause();
      else process.resume();
    }
    this.emit({kind: paused ? 'paused' : 'resumed', containerId: id});
  }

  private emit(event: RuntimeEvent): void {
    for (const listener of this.listeners) listener(event);
  }
}

function ioOf(process: FakeProcess, io: IoRequest): ProcessIo {
  const stdin = io.stdin ? process.stdin.writable() : undefined;
  stdin?.on('error', () => undefined);
  const stdout = process.stdout.output();
  const stderr = io.terminal ? undefined : process.stderr.output();
  return {
    stdin, stdout, stderr,
    closeStdin: async () => {
      if (!stdin || io.terminal) return;
      await new Promise<void>(resolve => {
        if (stdin.destroyed) return resolve();
        stdin.once('close', resolve);
        stdin.end();
      });
      process.stdin.end();
    },
    detach: () => {
      stdin?.destroy();
      stdout.destroy();
      stderr?.destroy();
    },
  };
}

function refuseUnknown(process: OciSpec['process'], prefix: string): void {
  if (FakeProcess.knows(process.args)) return;
  const name = process.args[0] ?? '';
  const why = name.includes('/') ? `stat ${name}: no such file or directory` : 'executable file not found in $PATH';
  throw new CetusError('internal', `${prefix}: unable to start container process: exec: ${JSON.stringify(name)}: ${why}: unknown`);
}

function stateOf(process: FakeProcess | undefined, paused: boolean): RuntimeState {
  if (!process) return {status: 'none', pid: 0, exitCode: 0, exitedAt: ZERO_TIME};
  if (process.exit) return {status: 'stopped', pid: process.pid, ...process.exit};
  return {status: !process.started ? 'created' : paused ? 'paused' : 'running', pid: process.pid, exitCode: 0, exitedAt: ZERO_TIME};
}
