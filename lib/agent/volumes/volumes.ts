/**
 * Local volumes of this node: dataDir/volumes/ID/_data. Filled from the image at their first use (copy-up), as the Engine does: when a
 * container is created, if the volume is empty and the image has something there; owners and modes are kept.
 *
 * What a driver's options mount is there from the first container's start to the last one's end (driven.ts). Bind sources are made where the
 * request allows it. Containers write into volumes while this reads and writes there: nothing here goes through a path that one of them can turn
 * into a link (pin.ts; `fill`).
 */
import {execFile} from 'node:child_process';
import {existsSync} from 'node:fs';
import {chmod, chown, mkdir, mkdtemp, readdir, realpath, rename, rm, rmdir, stat} from 'node:fs/promises';
import {basename, dirname, join} from 'node:path';
import {promisify} from 'node:util';
import {asCetusError, CetusError} from '../../base/errors';
import type {ContainerSpec, ResolvedMount} from '../../schema/container';
import {settingOf} from '../../schema/options/field';
import type {DockerSockets} from '../docker-socket/sockets';
import {RootfsHelper} from '../rootfs/helper';
import type {SnapshotMount} from '../runtime/runtime';
import {Turns} from '../turns';
import {DrivenVolumes} from './driven';
import {linuxMounter, type Mounter} from './mounter';
import {isBelow, pin, type Pin, unpin} from './pin';
import {resolveInRoot} from './resolve';
import {bytesBelow} from './usage';

const run = promisify(execFile);
const MOUNT_DEADLINE_MS = 15_000;
/** Copying an image's directory; images have gigabytes. */
const COPY_DEADLINE_MS = 600_000;

const MOUNTED = 'root-';
const PINNED = 'pin-';
/** Beside a volume's _data, where no container looks: what is on its way in. */
const FILLING = '.filling';

type VolumeMount = Extract<ResolvedMount, {type: 'volume'}>;
type BindMount = Extract<ResolvedMount, {type: 'bind'}>;

/** Host paths of a spec's mounts. `release` when the runtime has mounted them. */
export interface MountSources { mounts: {mount: ResolvedMount; source: string}[]; release(): Promise<void> }

/** Does its source have to be looked up at the very start, since a container may have changed what it means, or since it exists only from then on? */
function isPinned(mount: ResolvedMount): boolean {
  return (mount.type === 'volume' && mount.subpath !== undefined) || (mount.type === 'bind' && (mount.within !== undefined || mount.dockerSocket === true));
}

export interface VolumesOptions {
  /** For containers that ask for /var/run/docker.sock. */
  sockets?: DockerSockets;
  mounter?: Mounter;
  /** What copies into volumes that are mounts; tests that run from sources name the built worker. */
  rootfs?: RootfsHelper;
}

export class Volumes {
  /** Copy-ups of the same volume by two containers at once run one after the other. */
  private readonly filling = new Turns();
  private readonly sockets: DockerSockets | undefined;
  private readonly driven: DrivenVolumes;
  private readonly rootfs: RootfsHelper;

  constructor(private readonly dataDir: string, options: VolumesOptions = {}) {
    this.sockets = options.sockets;
    this.rootfs = options.rootfs ?? new RootfsHelper();
    this.driven = new DrivenVolumes({
      path: (id) => this.path(id), mounter: options.mounter ?? linuxMounter(),
      pin: (device, within) => pin(device, within, join(this.dataDir, 'tmp', PINNED), notAllowed(device)),
    });
  }

  /** Is its source to be looked up by the very start, not ahead of it? */
  isLate(mount: ResolvedMount): boolean {
    return isPinned(mount) || (mount.type === 'volume' && this.driven.isDriven(mount.volumeId));
  }

  path(volumeId: string): string {
    if (!/^[a-zA-Z0-9][a-zA-Z0-9_.-]*$/.test(volumeId)) throw new CetusError('invalid', `invalid volume id "${volumeId}"`);
    return join(this.dataDir, 'volumes', volumeId, '_data');
  }

  /** `within`: where the options bind a directory, the allowed one that it is below by its name. Options are those of the first time. */
  async ensure(volumeId: string, options: Record<string, string>, within?: string): Promise<{mountpoint: string}> {
    const mountpoint = this.path(volumeId);
    await mkdir(join(this.dataDir, 'volumes'), {recursive: true, mode: 0o701});
    await mkdir(mountpoint, {recursive: true, mode: 0o755});
    this.driven.remember(volumeId, {options, ...(within === undefined ? {} : {within})});
    return {mountpoint};
  }

  async remove(volumeId: string): Promise<void> {
    await this.driven.forget(volumeId);
    await rm(join(this.path(volumeId), '..'), {recursive: true, force: true});
  }

  /** -1 where counting takes too long. */
  async usage(volumeId: string, signal: AbortSignal): Promise<number> {
    const path = this.path(volumeId);
    if (!(await exists(path))) throw new CetusError('notFound', `no such volume: ${volumeId}`);
    return await bytesBelow(path, signal);
  }

  async list(): Promise<string[]> {
    return await readdir(join(this.dataDir, 'volumes')).catch((err: NodeJS.ErrnoException) => {
      if (err.code === 'ENOENT') return [];
      throw err;
    });
  }

  /** Those whose files are gone: somebody removed them behind the agent's back. */
  async lacking(): Promise<string[]> {
    return (await this.list()).filter((id) => !existsSync(join(this.dataDir, 'volumes', id, '_data')));
  }

  /** Mounts of a copy-up or a start that a kill -9 interrupted. */
  async sweep(): Promise<void> {
    const tmp = join(this.dataDir, 'tmp');
    for (const name of await readdir(tmp)) {
      if (name.startsWith(PINNED)) await unpin(join(tmp, name));
      if (!name.startsWith(MOUNTED)) continue;
      // Not a mount point (any more): then the directory alone is left.
      await run('umount', ['-l', join(tmp, name)], {timeout: MOUNT_DEADLINE_MS}).catch(() => undefined);
      await rmdir(join(tmp, name));
    }
  }

  /** Makes what a new container's mounts need; `rootMounts` is its fresh writable layer. */
  async prepare(spec: ContainerSpec, rootMounts: () => Promise<SnapshotMount[]>): Promise<void> {
    const fresh: VolumeMount[] = [];
    for (const mount of spec.mounts) {
      if (mount.type === 'bind' && !mount.dockerSocket) await checkSource(mount);
      if (mount.type !== 'volume') continue;
      await this.ensure(mount.volumeId, {});
      if (mount.noCopy || mount.subpath) continue;
      // What a driver mounts is looked into only where the image has something for it.
      if (this.driven.isDriven(mount.volumeId) || (await readdir(this.path(mount.volumeId))).length === 0) fresh.push(mount);
    }
    if (fresh.length) await this.copyUp(spec.id, fresh, rootMounts);
  }

  /** At the moment of a start. What a driver mounts is held by the container, or by whom else is named. */
  async sources(spec: ContainerSpec, holder = spec.id): Promise<MountSources> {
    const pins: Pin[] = [];
    const release = async (): Promise<void> => {
      for (const held of pins.splice(0)) await held.release();
    };
    const pinned = async (source: string, root: string, outside: CetusError): Promise<string> => {
      const held = await pin(source, root, join(this.dataDir, 'tmp', PINNED), outside);
      pins.push(held);
      return held.path;
    };
    let opened: Promise<string> | undefined;
    const socket = (): Promise<string> => (opened ??= this.openSocket(spec.id));
    const found = await Promise.allSettled(spec.mounts.map(async (mount) => {
      // The next agent's socket comes by propagation.
      if (mount.type === 'bind' && mount.dockerSocket) return {mount: {...mount, propagation: 'rslave'}, source: await socket()};
      return {mount, source: await this.source(holder, mount, pinned)};
    }));
    const failed = found.find((f) => f.status === 'rejected');
    if (!failed) return {mounts: found.map((f) => (f as PromiseFulfilledResult<MountSources['mounts'][number]>).value), release};
    await release();
    throw failed.reason;
  }

  /** As `sources`, for somebody who makes mounts of his own of them: with `release` nothing of it is held any more. */
  async lend(spec: ContainerSpec, holder: string): Promise<MountSources> {
    const giveBack = (): Promise<void> => this.driven.release(holder);
    const {mounts, release} = await this.sources(spec, holder).catch(async (err: unknown) => {
      await giveBack();
      throw err;
    });
    return {mounts, release: async () => void (await Promise.all([release(), giveBack()]))};
  }

  /** What it was given for the time that it runs goes. Repeatable. */
  async release(containerId: string): Promise<void> {
    await Promise.all([this.sockets?.release(containerId), this.driven.release(containerId)]);
  }

  /** At the agent's start: `running` may run. */
  async recover(running: readonly ContainerSpec[]): Promise<void> {
    const holdings = running.flatMap((spec) => spec.mounts.flatMap((m) => (m.type === 'volume' ? [{volumeId: m.volumeId, holder: spec.id}] : [])));
    await this.driven.recover(holdings, join(this.dataDir, 'volumes'));
    await this.sockets?.recover(running.filter((spec) => spec.mounts.some((m) => m.type === 'bind' && m.dockerSocket)).map((spec) => spec.id));
  }

  private async openSocket(containerId: string): Promise<string> {
    if (!this.sockets) throw new CetusError('unsupported', 'this node has no Docker socket to bind');
    return await this.sockets.open(containerId);
  }

  close(): void {
    this.rootfs.close();
  }

  private async source(holder: string, mount: ResolvedMount, pinned: (source: string, root: string, outside: CetusError) => Promise<string>): Promise<string> {
    switch (mount.type) {
      case 'tmpfs': return '';
      case 'bind':
        await checkSource(mount);
        return mount.within === undefined ? mount.source : await pinned(mount.source, mount.within, notAllowed(mount.source));
      case 'volume': {
        const {mountpoint} = await this.ensure(mount.volumeId, {});
        await this.driven.hold(mount.volumeId, holder).catch((err: unknown) => {
          const error = asCetusError(err);
          throw new CetusError(error.kind, `error while mounting volume '${mountpoint}': ${error.shown}`, {cause: err});
        });
        if (mount.subpath === undefined) return mountpoint;
        const outside = new CetusError('invalid', `path ${mount.subpath} leads out of the volume`);
        return await pinned(join(mountpoint, mount.subpath), mountpoint, outside).catch((err: NodeJS.ErrnoException) => {
          throw err instanceof CetusError ? err : new CetusError('invalid', `cannot access path ${mount.subpath} in the volume`, {cause: err});
        });
      }
    }
  }

  private async copyUp(containerId: string, mounts: VolumeMount[], rootMounts: () => Promise<SnapshotMount[]>): Promise<void> {
    const snapshot = await rootMounts();
    if (snapshot.length === 0) return;
    await this.mounted(snapshot, async (root) => {
      for (const mount of mounts) {
        const source = await resolveInRoot(root, mount.destination);
        if (!source || !(await stat(source)).isDirectory()) continue;
        await this.filling.hold(mount.volumeId, () => (this.driven.isDriven(mount.volumeId) ? this.fillDriven(containerId, mount.volumeId, source) : fill(source, this.path(mount.volumeId))));
      }
    });
  }

  /** Nothing can be renamed into a mount from outside of it: a worker that follows no link writes there. */
  private async fillDriven(containerId: string, volumeId: string, source: string): Promise<void> {
    const holder = `create of ${containerId}`;
    const target = this.path(volumeId);
    await this.driven.hold(volumeId, holder);
    try {
      if ((await readdir(source)).length === 0 || (await readdir(target)).length > 0) return;
      const signal = AbortSignal.timeout(COPY_DEADLINE_MS);
      const {tar} = await this.rootfs.pack({kind: 'tree', path: source}, '/.', containerId, signal);
      await this.rootfs.unpack({kind: 'tree', path: target}, {path: '/', container: containerId, noOverwriteDirNonDir: false, readOnlyRoot: false}, async () => tar, signal);
      await likeDirectory(source, target);
    } finally {
      await this.driven.release(holder);
    }
  }

  private async mounted(mounts: SnapshotMount[], use: (root: string) => Promise<void>): Promise<void> {
    const root = await mkdtemp(join(this.dataDir, 'tmp', MOUNTED));
    let depth = 0;
    try {
      for (const mount of mounts) {
        const bind = mount.type === 'bind' || mount.options.includes('bind') || mount.options.includes('rbind');
        // Only read: what is mounted here must not change the container's layer.
        const options = [...mount.options.filter((o) => o !== 'rw'), 'ro'].join(',');
        await run('mount', [...(bind ? [] : ['-t', mount.type]), '-o', options, '--source', mount.source, '--target', root], {timeout: MOUNT_DEADLINE_MS});
        depth += 1;
      }
      await use(root);
    } finally {
      for (; depth > 0; depth -= 1) await run('umount', [root], {timeout: MOUNT_DEADLINE_MS});
      await rmdir(root).catch(() => undefined);
    }
  }
}

/**
 * Contents, owner and mode of an image's directory into an empty volume. Others may have the volume mounted and are not to be trusted: copied
 * straight into it, a directory that one of them replaces by a link meanwhile would take the rest of the copy to where it points. A rename
 * follows no link, and shows nothing half-written.
 */
async function fill(source: string, target: string): Promise<void> {
  if ((await readdir(target)).length > 0) return;
  const names = await readdir(source);
  if (names.length > 0) {
    const staging = join(dirname(target), FILLING);
    await rm(staging, {recursive: true, force: true});
    await mkdir(staging, {mode: 0o700});
    await run('cp', ['-a', `${source}/.`, `${staging}/`], {timeout: COPY_DEADLINE_MS});
    // Whoever wrote first keeps what he wrote.
    if ((await readdir(target)).length === 0) for (const name of names) await rename(join(staging, name), join(target, name)).catch(taken);
    await rm(staging, {recursive: true, force: true});
  }
  await likeDirectory(source, target);
}

async function likeDirectory(source: string, target: string): Promise<void> {
  const {uid, gid, mode} = await stat(source);
  await chown(target, uid, gid);
  await chmod(target, mode & 0o7777);
}

function taken(err: NodeJS.ErrnoException): void {
  if (!['ENOTEMPTY', 'EEXIST', 'EISDIR', 'ENOTDIR'].includes(err.code ?? '')) throw err;
}

/** A source that is there may be a file, a socket or a device; a missing one becomes a directory, as with the Engine. */
async function checkSource(mount: BindMount): Promise<void> {
  const {source, createSource, within} = mount;
  if (within !== undefined && !isBelow(await realpath(within).catch(absent) ?? within, await deepest(source))) throw notAllowed(source);
  if (await exists(source)) return;
  if (!createSource) throw new CetusError('invalid', `invalid mount config for type "bind": bind source path does not exist: ${source}`);
  await mkdir(source, {recursive: true});
}

const notAllowed = (source: string): CetusError => new CetusError('forbidden', `bind mount of ${source} is not allowed on this datacenter: it leads out of the directories of ${settingOf('allowBinds')}`);

/** Where the part of a path that exists really is, and below it the part that does not. */
async function deepest(path: string): Promise<string> {
  const found = await realpath(path).catch(absent);
  if (found !== undefined || path === '/') return found ?? path;
  return join(await deepest(dirname(path)), basename(path));
}

function absent(err: NodeJS.ErrnoException): undefined {
  if (err.code !== 'ENOENT') throw err;
}

async function exists(path: string): Promise<boolean> {
  return await stat(path).then(() => true, (err: NodeJS.ErrnoException) => {
    if (err.code === 'ENOENT' || err.code === 'ENOTDIR') return false;
    throw err;
  });
}
