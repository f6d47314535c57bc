/**
 * Files of this node's containers for the server: says where each container's files are at this moment, and lends them to one worker per order.
 *
 * Guarantees: archives into one container go in one after the other; nobody else has a stopped container's layer mounted while one goes in; a start
 * waits for those that are under way, though not for a sender that dawdles; a removal ends them all. Called by the server, and by the unit (`quiet`, `drop`).
 */
import {existsSync, mkdirSync} from 'node:fs';
import {join} from 'node:path';
import type {Readable} from 'node:stream';
import type {Clock} from '../../base/clock';
import {CetusError, isCetusError} from '../../base/errors';
import type {LoanOffer} from '../../schema/agent';
import type {ContainerSpec} from '../../schema/container';
import type {FilesystemChange, PathStat} from '../../schema/rootfs';
import {Lock} from '../container/lock';
import type {SnapshotMount} from '../runtime/runtime';
import {layersOf} from '../spec/root-files';
import type {MountSources} from '../volumes/volumes';
import type {RootfsHelper, Watch, WorkerReads} from './helper';
import type {View, ViewMount} from './protocol';

/** How long a start waits for an archive that is on its way in. */
const START_PATIENCE_MS = 10_000;
/** A process that has ended is known to have ended a moment later. */
const STALE_PAUSE_MS = 25;
const STALE_TRIES = 200;
/** Under the agent's tmp: what workers mount their views over, each for itself. */
const PLACE = 'view';

/** What the runtime makes in every root to mount something there; the Engine keeps these in a layer of their own, below the container's. */
const MADE = ['/proc', '/sys', '/dev', '/dev/pts', '/dev/shm', '/dev/mqueue', '/dev/console', '/etc/hosts', '/etc/hostname', '/etc/resolv.conf'];

/** A container, as far as its files go. */
export interface FilesOwner {
  readonly id: string;
  readonly spec: ContainerSpec;
  /** What its last process left is being taken away. */
  readonly cleaning: Promise<void>;
  rootMounts(): Promise<SnapshotMount[]>;
  /** `take` is called while nothing starts or ends, with the process's pid or 0. */
  settledAt<T>(take: (pid: number) => T): Promise<T>;
}

export interface FilesParts {
  helper: RootfsHelper;
  /** Volumes and binds of a container that does not run, until they are released. */
  lend(spec: ContainerSpec, holder: string): Promise<MountSources>;
  /** Directory of a container's own files: hosts, hostname, resolv.conf. */
  dirOf(containerId: string): string;
  dataDir: string;
  clock: Clock;
}

/** An order under way. */
interface Use { writes: boolean; end: AbortController; gone: Promise<void> }
interface Wanted { writes: boolean; mounts: boolean }

export class ContainerFiles {
  private readonly uses = new Map<string, Set<Use>>();
  /** One archive at a time into each container. */
  private readonly turns = new Map<string, {lock: Lock; waiting: number}>();
  private readonly place: string;
  private lent = 0;

  constructor(private readonly parts: FilesParts) {
    this.place = join(parts.dataDir, 'tmp', PLACE);
    mkdirSync(this.place, {recursive: true, mode: 0o700});
  }

  stat(owner: FilesOwner, path: string, signal: AbortSignal): Promise<PathStat> {
    return this.use(owner, {writes: false, mounts: true}, signal, (view, ended, watch) => this.parts.helper.stat(view, path, owner.id, ended, watch));
  }

  /** `tar` is destroyed with an error where it would end short. */
  pack(owner: FilesOwner, path: string, signal: AbortSignal): Promise<{stat: PathStat; tar: Readable}> {
    return this.use(owner, {writes: false, mounts: true}, signal, (view, ended, watch) => this.parts.helper.pack(view, path, owner.id, ended, watch));
  }

  /** The root alone, without what is mounted in it. */
  export(owner: FilesOwner, signal: AbortSignal): Promise<Readable> {
    return this.use(owner, {writes: false, mounts: false}, signal, (view, ended, watch) => this.parts.helper.export(view, ended, watch));
  }

  async changes(owner: FilesOwner, signal: AbortSignal): Promise<FilesystemChange[]> {
    const [upper, ...lower] = layersOf(await owner.rootMounts());
    if (upper === undefined) return [];
    const end = new AbortController();
    const watch: Watch = {started: (gone) => this.add(owner.id, {writes: false, end, gone})};
    return await this.parts.helper.changes({upper, lower, made: MADE, place: this.place}, AbortSignal.any([signal, end.signal]), watch);
  }

  /**
   * `archive` is asked for once it can be taken, and told what the worker reads by itself. `descriptor`: this process's own for it, to be read instead where that
   * can be done; `loan`: of whoever is at its other end, likewise.
   */
  async unpack(owner: FilesOwner, target: {path: string; noOverwriteDirNonDir: boolean; copyUIDGID: boolean; descriptor?: number; loan?: LoanOffer}, archive: (reads: WorkerReads) => Promise<Readable>, signal: AbortSignal): Promise<void> {
    const {path, noOverwriteDirNonDir, copyUIDGID, descriptor, loan} = target;
    const order = {
      path, noOverwriteDirNonDir, container: owner.id, readOnlyRoot: owner.spec.hostConfig.ReadonlyRootfs === true,
      ...(descriptor === undefined ? {} : {descriptor, ...(loan ? {loan} : {})}),
      ...(copyUIDGID && owner.spec.config.User ? {user: owner.spec.config.User} : {}),
    };
    await this.inTurn(owner.id, () => this.use(owner, {writes: true, mounts: true}, signal, (view, ended, watch) => this.parts.helper.unpack(view, order, archive, ended, watch)));
  }

  /** Before a start: nothing is being written when it resolves. Never rejects. */
  async quiet(id: string): Promise<void> {
    const writing = [...this.uses.get(id) ?? []].filter((use) => use.writes);
    if (!writing.length) return;
    const gone = Promise.all(writing.map((use) => use.gone));
    const late = new AbortController();
    await Promise.race([gone, this.parts.clock.sleep(START_PATIENCE_MS, late.signal).catch(() => undefined)]);
    late.abort();
    for (const use of writing) use.end.abort(new CetusError('conflict', `container ${id} was started before all of the archive had arrived`));
    await gone;
  }

  /** The container goes: whoever reads or writes it is cut off. Never rejects. */
  async drop(id: string): Promise<void> {
    const uses = [...this.uses.get(id) ?? []];
    for (const use of uses) use.end.abort(new CetusError('notFound', `No such container: ${id}`));
    await Promise.all(uses.map((use) => use.gone));
  }

  close(): void {
    for (const uses of this.uses.values()) for (const use of uses) use.end.abort(new CetusError('unavailable', 'the agent closes'));
    this.parts.helper.close();
  }

  private async inTurn<T>(id: string, work: () => Promise<T>): Promise<T> {
    const turn = this.turns.get(id) ?? {lock: new Lock(), waiting: 0};
    this.turns.set(id, turn);
    turn.waiting += 1;
    try {
      return await turn.lock.hold(work);
    } finally {
      turn.waiting -= 1;
      if (turn.waiting === 0) this.turns.delete(id);
    }
  }

  /** The process may end between the look at it and the worker's: then it is looked at again. */
  private async use<T>(owner: FilesOwner, wanted: Wanted, signal: AbortSignal, work: (view: View, signal: AbortSignal, watch: Watch) => Promise<T>): Promise<T> {
    for (let tries = 1; ; tries += 1) {
      const end = new AbortController();
      const ended = AbortSignal.any([signal, end.signal]);
      let none!: () => void;
      // Known to a start from the moment at which its place was decided, though the worker comes later.
      const use: Use = {writes: wanted.writes, end, gone: new Promise((resolve) => (none = resolve))};
      try {
        signal.throwIfAborted();
        await owner.cleaning;
        const pid = await owner.settledAt((now) => {
          this.add(owner.id, use);
          return now;
        });
        const {view, release} = await this.viewOf(owner, pid, wanted);
        let started = false;
        const watch: Watch = {
          opened: () => void release(),
          started: (gone) => {
            started = true;
            void gone.then(none);
          },
        };
        try {
          ended.throwIfAborted();
          return await work(view, ended, watch);
        } catch (err) {
          await (started ? use.gone : release());
          throw err;
        }
      } catch (err) {
        none();
        if (!isCetusError(err, 'stale') || tries >= STALE_TRIES) throw err;
        await this.parts.clock.sleep(STALE_PAUSE_MS, signal);
      }
    }
  }

  private add(id: string, use: Use): void {
    const uses = this.uses.get(id) ?? new Set();
    this.uses.set(id, uses.add(use));
    void use.gone.then(() => {
      uses.delete(use);
      if (!uses.size && this.uses.get(id) === uses) this.uses.delete(id);
    });
  }

  private async viewOf(owner: FilesOwner, pid: number, wanted: Wanted): Promise<{view: View; release(): Promise<void>}> {
    const {place} = this;
    const {spec} = owner;
    if (pid) {
      const mounts = wanted.mounts ? [...spec.mounts.map((mount) => ({destination: mount.destination, readOnly: isReadOnly(mount), source: ''})), ...this.own(spec)] : [];
      return {view: {kind: 'live', pid, containerId: owner.id, mounts, place}, release: async () => undefined};
    }
    const root = await owner.rootMounts();
    if (!root.length) throw new CetusError('internal', `container ${owner.id} has no root file system`);
    // A tmpfs is gone with the process: what lies below it shows, as with the Engine. So is a socket to this datacenter, which is no file to copy anyway.
    const lasting = spec.mounts.filter((mount) => mount.type === 'volume' || (mount.type === 'bind' && !mount.dockerSocket));
    const sources = wanted.mounts && lasting.length ? await this.parts.lend({...spec, mounts: lasting}, `files ${(this.lent += 1)} of ${spec.id}`) : {mounts: [], release: async () => undefined};
    const given = sources.mounts.map(({mount, source}): ViewMount => ({
      destination: mount.destination, readOnly: isReadOnly(mount), source, ...(mount.type === 'bind' && mount.nonRecursive ? {nonRecursive: true} : {}),
    }));
    const own = wanted.mounts ? this.own(spec).filter(({source}) => existsSync(source)) : [];
    const [last] = root.slice(-1);
    const options = last?.type === 'overlay' ? last.options : [];
    const view: View = {kind: 'still', layers: layersOf(root), options, writable: wanted.writes, readOnlyRoot: spec.hostConfig.ReadonlyRootfs === true, mounts: [...given, ...own], place};
    return {view, release: () => sources.release()};
  }

  /** The three files of the container's own, where nothing else was asked for in their place. A joined container's show that one's. */
  private own(spec: ContainerSpec): ViewMount[] {
    const joined = /^container:(.+)$/.exec(spec.networkMode)?.[1];
    const taken = new Set(spec.mounts.map((mount) => mount.destination));
    return ['hosts', 'hostname', 'resolv.conf'].map((name) => ({
      destination: `/etc/${name}`, source: join(this.parts.dirOf(joined ?? spec.id), name), readOnly: spec.hostConfig.ReadonlyRootfs === true,
    })).filter(({destination}) => !taken.has(destination));
  }
}

const isReadOnly = (mount: ContainerSpec['mounts'][number]): boolean => (mount.type === 'tmpfs' ? mount.options.includes('ro') : mount.readOnly);
