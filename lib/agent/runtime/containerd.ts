/**
 * The Runtime over containerd and runc. One container = one snapshot (its labels are the container's: the snapshot is what exists from
 * create to remove), and from its first task on one containerd container object of the same id.
 *
 * Snapshots carry containerd's root label, so that its collector, which deletes whatever nothing refers to, leaves them alone between
 * create and start; a lease would do the same for two more calls per container.
 */
import {execFile} from 'node:child_process';
import path from 'node:path';
import {promisify} from 'node:util';
import {systemClock} from '../../base/clock';
import {CetusError, isCetusError} from '../../base/errors';
import type {Log} from '../../base/log';
import {PROCESS_URL, RESOURCES_URL, RUNC_OPTIONS_URL, SPEC_URL, jsonAny} from '../containerd/any';
import {type ContainerdClient, encodeAny} from '../containerd/connect';
import {type Any, type Mount, type Process, formatTimestamp} from '../containerd/messages';
import {hasStatus} from '../containerd/status';
import {containerdEvents} from './containerd-events';
import {prepareSnapshot} from '../containerd/snapshots';
import {CgroupGate} from './cgroup-gate';
import {Lines} from './lines';
import {forgetInRunc, leftBundle, leftInRunc, takeBundleAway} from './bundles';
import {Fifos} from './fifos';
import {type OpenedIo, openIo} from './process-io';
import type {CreateRequest, IoRequest, OciSpec, ProcessIo, Runtime, RuntimeEvent, RuntimeState, SnapshotMount, TaskStatus} from './runtime';

export interface ContainerdRuntimeOptions {
  /** Its namespace is ours alone. */
  client: ContainerdClient;
  /** FIFOs and runc's state; best on a tmpfs. Several agents on one machine need one each. */
  stateDirectory: string;
  log: Log;
  /** Default overlayfs. */
  snapshotter?: string;
  /** Default: `runc` from containerd's PATH. */
  runcBinary?: string;
  /** How long open() waits for containerd. Default 10 s. */
  connectTimeoutMs?: number;
}

/** containerd gives a call that was canceled a moment to take back what it began. */
const BUNDLE_TRIES = 25;
const BUNDLE_PAUSE_MS = 100;
/** Each is a runc that fails; whose create of the same is still under way is done within them. */
const RUNC_TRIES = 10;
const RUNTIME = 'io.containerd.runc.v2';
const CONTAINER_LABEL = 'io.cetus.container';
const ROOT_LABEL = 'containerd.io/gc.root';
// containerd's own rule for identifiers; ours become file names too.
const IDENTIFIER = /^[A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*$/;
const IDENTIFIER_MAX = 76;
const GONE = /cannot (pause|resume) a (stopped|deleted) |container not (running|paused)\b/;
const run = promisify(execFile);

export function createContainerdRuntime(options: ContainerdRuntimeOptions): Runtime {
  return new ContainerdRuntime(options);
}

class ContainerdRuntime implements Runtime {
  private readonly client: ContainerdClient;
  private readonly snapshotter: string;
  private readonly fifos: Fifos;
  private readonly gate = new CgroupGate();
  private readonly runcOptions: Any;
  /** Mounts by id, so that a start right after its create need not ask. */
  private readonly rootfs = new Map<string, Mount[]>();
  /** Ids whose container object is known to exist. */
  private readonly objects = new Set<string>();
  private readonly opened = new Map<string, OpenedIo>();
  private readonly execStarts = new Lines();
  private readonly ending = new AbortController();
  private runcVersion: string | undefined;

  constructor(private readonly options: ContainerdRuntimeOptions) {
    this.client = options.client;
    this.snapshotter = options.snapshotter ?? 'overlayfs';
    this.fifos = new Fifos(options.stateDirectory, options.log);
    // runc's default state directory is shared by all containerds of a machine; ours is our own.
    this.runcOptions = encodeAny(RUNC_OPTIONS_URL, {binaryName: options.runcBinary ?? '', root: path.join(options.stateDirectory, 'runc')});
  }

  async open(): Promise<void> {
    await this.client.ready(this.options.connectTimeoutMs ?? 10_000);
    await this.client.namespaces.create({namespace: {name: this.client.namespace}}).catch(ignoring('ALREADY_EXISTS'));
    await this.fifos.open();
  }

  async close(): Promise<void> {
    this.ending.abort(new CetusError('canceled', 'the runtime is closing'));
    for (const io of this.opened.values()) io.detach();
    this.opened.clear();
    this.gate.close();
    await this.fifos.close();
  }

  async version(): Promise<{runtime: string; version: string; runc: string; snapshotter: string}> {
    const {version} = await this.client.version.version({});
    this.runcVersion ??= await run(this.options.runcBinary ?? 'runc', ['--version'], {timeout: 5000})
      .then(({stdout}) => /runc version (\S+)/.exec(stdout)?.[1] ?? 'unknown', () => 'unknown');
    return {runtime: 'containerd', version, runc: this.runcVersion, snapshotter: this.snapshotter};
  }

  async create(request: CreateRequest): Promise<void> {
    checkIdentifier(request.id);
    const key = {snapshotter: this.snapshotter, key: request.id};
    try {
      const {mounts} = await prepareSnapshot(this.client, {
        ...key, parent: request.parentSnapshot, labels: {...request.labels, [CONTAINER_LABEL]: 'true', [ROOT_LABEL]: 'true'},
      });
      this.rootfs.set(request.id, mounts);
    } catch (err) {
      if (!hasStatus(err, 'ALREADY_EXISTS')) throw err;
    }
  }

  async mounts(id: string): Promise<SnapshotMount[]> {
    const {mounts} = await this.client.snapshots.mounts({snapshotter: this.snapshotter, key: id});
    return mounts.map(({type, source, options}) => ({type, source, options}));
  }

  async usage(id: string): Promise<number> {
    return (await this.client.snapshots.usage({snapshotter: this.snapshotter, key: id})).size;
  }

  async createTask(id: string, spec: OciSpec, request: IoRequest): Promise<{pid: number; io: ProcessIo}> {
    checkIdentifier(id);
    if (Boolean(spec.process.terminal) !== request.terminal) throw new CetusError('invalid', 'the spec and the request disagree about the terminal');
    const [set, rootfs] = await Promise.all([this.claimTask(id), this.rootfsOf(id), this.putObject(id, spec)]);
    const io = openIo({set, io: request, fresh: true, closeIo: () => this.closeIo(id, '')});
    const leaveGate = this.gate.open();
    try {
      const {pid} = await this.makeTask(id, {containerId: id, rootfs, ...paths(set, request)});
      io.shimReady();
      this.opened.set(id, io);
      return {pid, io};
    } catch (err) {
      io.detach();
      this.fifos.remove(id, '');
      throw err;
    } finally {
      leaveGate();
    }
  }

  /**
   * Where a bundle of this name is in the way, a call of an agent or a containerd that was killed began it. The call may still be on its way
   * back, which takes the bundle along, or forth, which makes a task that nobody waits for; only a bundle that stays is nobody's. runc knows of a container
   * that containerd has forgotten where the machine was booted in between: containerd's state lies in /run mostly, runc's in our own directory.
   */
  private async makeTask(id: string, request: Parameters<ContainerdClient['tasks']['create']>[0]): Promise<{pid: number}> {
    for (let tries = 1; ; tries += 1) {
      try {
        return await this.client.tasks.create(request);
      } catch (err) {
        const bundle = leftBundle(err, id);
        const mostTries = bundle ? BUNDLE_TRIES : RUNC_TRIES;
        if ((!bundle && !leftInRunc(err)) || tries > mostTries) throw err;
        await systemClock.sleep(BUNDLE_PAUSE_MS);
        const {status} = await this.state(id);
        if (status === 'created') await this.client.tasks.delete({containerId: id}).catch(ignoring('NOT_FOUND'));
        else if (status !== 'none') throw err;
        if (tries === mostTries) {
          this.options.log.warn({id, bundle}, 'what belongs to nobody is in the way of a task; it is taken away');
          if (bundle) await takeBundleAway(bundle);
          else await forgetInRunc(this.options.runcBinary ?? 'runc', path.join(this.options.stateDirectory, 'runc', this.client.namespace), id);
        }
      }
    }
  }

  async startTask(id: string): Promise<void> {
    await this.client.tasks.start({containerId: id});
  }

  async reattach(id: string, execId: string, request: IoRequest): Promise<ProcessIo> {
    checkIdentifier(id);
    if (!this.fifos.exists(id, execId)) throw new CetusError('notFound', `process ${execId || id} has no stdio here`);
    const io = openIo({set: this.fifos.directoryOf(id, execId), io: request, fresh: false, closeIo: () => this.closeIo(id, execId)});
    this.opened.get(key(id, execId))?.detach();
    this.opened.set(key(id, execId), io);
    return io;
  }

  expectExec(): () => void {
    return this.gate.open();
  }

  async exec(id: string, execId: string, process: OciSpec['process'], request: IoRequest): Promise<{pid: number; io: ProcessIo}> {
    checkIdentifier(id);
    checkIdentifier(execId);
    const set = await this.fifos.claim(id, execId);
    const io = openIo({set, io: request, fresh: true, closeIo: () => this.closeIo(id, execId)});
    let added = false;
    try {
      await this.client.tasks.exec({containerId: id, execId, spec: jsonAny(PROCESS_URL, process), ...paths(set, request)});
      added = true;
      const {pid} = await this.execStarts.inLine(id, () => this.client.tasks.start({containerId: id, execId}));
      io.shimReady();
      this.opened.set(key(id, execId), io);
      return {pid, io};
    } catch (err) {
      io.detach();
      if (added) await this.client.tasks.deleteProcess({containerId: id, execId}).catch((second: unknown) => this.options.log.warn({err: second, id, execId}, 'an exec that failed is not deleted'));
      this.fifos.remove(id, execId);
      throw err;
    }
  }

  async kill(id: string, execId: string, signal: number, all = false): Promise<void> {
    await this.client.tasks.kill({containerId: id, execId, signal, all});
  }

  async resize(id: string, execId: string, height: number, width: number): Promise<void> {
    await this.client.tasks.resizePty({containerId: id, execId, width, height});
  }

  async pause(id: string): Promise<void> {
    await this.client.tasks.pause({containerId: id}).catch(gone);
  }

  async resume(id: string): Promise<void> {
    await this.client.tasks.resume({containerId: id}).catch(gone);
  }

  async updateResources(id: string, resources: Record<string, unknown>): Promise<void> {
    await this.client.tasks.update({containerId: id, resources: jsonAny(RESOURCES_URL, resources)});
  }

  async pids(id: string): Promise<number[]> {
    const {processes} = await this.client.tasks.listPids({containerId: id});
    return processes.map(({pid}) => pid);
  }

  async state(id: string): Promise<RuntimeState> {
    return this.processState(id, '');
  }

  async execState(id: string, execId: string): Promise<RuntimeState> {
    return this.processState(id, execId);
  }

  async deleteTask(id: string): Promise<void> {
    await this.client.tasks.delete({containerId: id}).catch((err: unknown) => this.explainDeletion(err, id, ''));
    for (const [name, io] of this.opened) {
      if (name !== id && !name.startsWith(`${id}/`)) continue;
      io.release();
      this.opened.delete(name);
    }
    this.fifos.remove(id, '');
  }

  async deleteExec(id: string, execId: string): Promise<void> {
    await this.client.tasks.deleteProcess({containerId: id, execId}).catch((err: unknown) => this.explainDeletion(err, id, execId));
    this.opened.get(key(id, execId))?.release();
    this.opened.delete(key(id, execId));
    this.fifos.discardExec(id, execId);
  }

  async remove(id: string): Promise<void> {
    checkIdentifier(id);
    await Promise.all([
      this.client.containers.delete({id}).catch(ignoring('NOT_FOUND')),
      this.client.snapshots.remove({snapshotter: this.snapshotter, key: id}).catch(ignoring('NOT_FOUND')),
    ]);
    this.objects.delete(id);
    this.rootfs.delete(id);
    this.fifos.remove(id, '');
  }

  async list(): Promise<{id: string; labels: Record<string, string>}[]> {
    const found: {id: string; labels: Record<string, string>}[] = [];
    for await (const {info} of this.client.snapshots.list({snapshotter: this.snapshotter, filters: [`labels."${CONTAINER_LABEL}"==true`]})) {
      for (const {name, labels} of info) {
        const {[CONTAINER_LABEL]: _kind, [ROOT_LABEL]: _root, ...own} = labels;
        found.push({id: name, labels: own});
      }
    }
    return found;
  }

  async snapshots(): Promise<string[]> {
    const names: string[] = [];
    for await (const {info} of this.client.snapshots.list({snapshotter: this.snapshotter})) names.push(...info.map(({name}) => name));
    return names;
  }

  events(signal: AbortSignal): AsyncIterable<RuntimeEvent> {
    return containerdEvents(this.client, this.options.log, AbortSignal.any([signal, this.ending.signal]));
  }

  /** The shim's refusal to delete what still runs arrives as an unknown error. */
  private async explainDeletion(err: unknown, id: string, execId: string): Promise<void> {
    if (hasStatus(err, 'NOT_FOUND')) return;
    const {status} = await this.processState(id, execId);
    if (status === 'running' || status === 'paused') throw new CetusError('conflict', `process ${execId || id} is ${status}`, {cause: err});
    throw err;
  }

  private async closeIo(containerId: string, execId: string): Promise<void> {
    // A process that has ended needs no end of its stdin.
    await this.client.tasks.closeIo({containerId, execId, stdin: true}).catch((err: unknown) => {
      if (!isCetusError(err, 'notFound') && !isCetusError(err, 'conflict')) throw err;
    });
  }

  private async claimTask(id: string): Promise<string> {
    try {
      return await this.fifos.claim(id, '');
    } catch (err) {
      if (!isCetusError(err, 'conflict')) throw err;
      if ((await this.state(id)).status !== 'none') throw new CetusError('conflict', `container ${id} has a task already`, {cause: err});
      // Left by an agent that died between the two deletions.
      this.fifos.remove(id, '');
      return this.fifos.claim(id, '');
    }
  }

  private async rootfsOf(id: string): Promise<Mount[]> {
    const known = this.rootfs.get(id) ?? (await this.client.snapshots.mounts({snapshotter: this.snapshotter, key: id})).mounts;
    this.rootfs.set(id, known);
    return known;
  }

  private async putObject(id: string, spec: OciSpec): Promise<void> {
    const container = {
      id, spec: jsonAny(SPEC_URL, spec), snapshotter: this.snapshotter, snapshotKey: id, runtime: {name: RUNTIME, options: this.runcOptions},
    };
    if (!this.objects.has(id)) {
      try {
        await this.client.containers.create({container});
        this.objects.add(id);
        return;
      } catch (err) {
        if (!hasStatus(err, 'ALREADY_EXISTS')) throw err;
        this.objects.add(id);
      }
    }
    await this.client.containers.update({container, updateMask: {paths: ['spec']}});
  }

  private async processState(containerId: string, execId: string): Promise<RuntimeState> {
    try {
      const {process} = await this.client.tasks.get({containerId, execId});
      return {status: statusOf(process), pid: process.pid, exitCode: process.exitStatus, exitedAt: formatTimestamp(process.exitedAt)};
    } catch (err) {
      if (!isCetusError(err, 'notFound')) throw err;
      return {status: 'none', pid: 0, exitCode: 0, exitedAt: formatTimestamp(null)};
    }
  }
}

function paths(set: string, {stdin, terminal}: IoRequest): {stdin: string; stdout: string; stderr: string; terminal: boolean} {
  return {stdin: stdin ? path.join(set, 'stdin') : '', stdout: path.join(set, 'stdout'), stderr: terminal ? '' : path.join(set, 'stderr'), terminal};
}

function statusOf({status}: Process): TaskStatus {
  switch (status) {
    case 'CREATED': return 'created';
    case 'PAUSED': case 'PAUSING': return 'paused';
    case 'STOPPED': return 'stopped';
    case 'RUNNING': case 'UNKNOWN': return 'running';
  }
}

function key(id: string, execId: string): string {
  return execId ? `${id}/${execId}` : id;
}

function checkIdentifier(id: string): void {
  if (!IDENTIFIER.test(id) || id.length > IDENTIFIER_MAX) throw new CetusError('invalid', `not an identifier: ${JSON.stringify(id)}`);
}

function ignoring(status: 'ALREADY_EXISTS' | 'NOT_FOUND'): (err: unknown) => void {
  return err => {
    if (!hasStatus(err, status)) throw err;
  };
}

/** The shim has no status for a process that is not there to pause or resume any more; nor has runc, which thaws by itself what it sends a SIGKILL. */
function gone(err: unknown): never {
  if (isCetusError(err, 'internal') && GONE.test(err.message)) throw new CetusError('notFound', err.message, {cause: err});
  throw err;
}
