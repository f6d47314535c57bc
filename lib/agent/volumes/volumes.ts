/**
 * Local volumes of this node: dataDir/volumes/ID/_data. Filled from the image at their first use (copy-up), as the Engine does: when a
 * container is created, if the volume is empty and the image has something there; owners and modes are kept.
 *
 * Refuses driver options (mounting foreign file systems) by name. Bind sources are made where the request allows it.
 */
import {execFile} from 'node:child_process';
import {chmod, chown, mkdir, mkdtemp, readdir, realpath, rm, rmdir, stat} from 'node:fs/promises';
import {join} from 'node:path';
import {promisify} from 'node:util';
import {CetusError} from '../../base/errors';
import type {ContainerSpec, ResolvedMount} from '../../schema/container';
import type {SnapshotMount} from '../runtime/runtime';
import {resolveInRoot} from './resolve';
import {bytesBelow} from './usage';

const run = promisify(execFile);
const MOUNT_DEADLINE_MS = 15_000;
/** Copying an image's directory; images have gigabytes. */
const COPY_DEADLINE_MS = 600_000;

const MOUNTED = 'root-';

type VolumeMount = Extract<ResolvedMount, {type: 'volume'}>;

export class Volumes {
  /** Copy-ups of the same volume by two containers at once run one after the other. */
  private readonly filling = new Map<string, Promise<void>>();

  constructor(private readonly dataDir: string) {}

  path(volumeId: string): string {
    if (!/^[a-zA-Z0-9][a-zA-Z0-9_.-]*$/.test(volumeId)) throw new CetusError('invalid', `invalid volume id "${volumeId}"`);
    return join(this.dataDir, 'volumes', volumeId, '_data');
  }

  async ensure(volumeId: string, options: Record<string, string>): Promise<{mountpoint: string}> {
    const [option] = Object.keys(options);
    if (option !== undefined) throw new CetusError('unsupported', `volume driver option "${option}" is not supported`);
    const mountpoint = this.path(volumeId);
    await mkdir(join(this.dataDir, 'volumes'), {recursive: true, mode: 0o701});
    await mkdir(mountpoint, {recursive: true, mode: 0o755});
    return {mountpoint};
  }

  async remove(volumeId: string): Promise<void> {
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

  /** Mounts of a copy-up that a kill -9 interrupted. */
  async sweep(): Promise<void> {
    const tmp = join(this.dataDir, 'tmp');
    for (const name of await readdir(tmp)) {
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
      if (mount.type === 'bind') await checkSource(mount);
      if (mount.type !== 'volume') continue;
      await this.ensure(mount.volumeId, {});
      if (!mount.noCopy && !mount.subpath && (await readdir(this.path(mount.volumeId))).length === 0) fresh.push(mount);
    }
    if (fresh.length) await this.copyUp(fresh, rootMounts);
  }

  /** Host paths of a spec's mounts, at the moment of a start. */
  async sources(spec: ContainerSpec): Promise<{mount: ResolvedMount; source: string}[]> {
    return await Promise.all(spec.mounts.map(async (mount) => ({mount, source: await this.source(mount)})));
  }

  private async source(mount: ResolvedMount): Promise<string> {
    switch (mount.type) {
      case 'tmpfs': return '';
      case 'bind':
        await checkSource(mount);
        return mount.source;
      case 'volume': {
        const {mountpoint} = await this.ensure(mount.volumeId, {});
        return mount.subpath ? await within(mountpoint, mount.subpath) : mountpoint;
      }
    }
  }

  private async copyUp(mounts: VolumeMount[], rootMounts: () => Promise<SnapshotMount[]>): Promise<void> {
    const snapshot = await rootMounts();
    if (snapshot.length === 0) return;
    await this.mounted(snapshot, async (root) => {
      for (const mount of mounts) {
        const source = await resolveInRoot(root, mount.destination);
        if (!source || !(await stat(source)).isDirectory()) continue;
        const before = this.filling.get(mount.volumeId) ?? Promise.resolve();
        const mine = before.catch(() => undefined).then(() => fill(source, this.path(mount.volumeId)));
        this.filling.set(mount.volumeId, mine);
        await mine.finally(() => this.filling.get(mount.volumeId) === mine && this.filling.delete(mount.volumeId));
      }
    });
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

/** Contents, owner and mode of an image's directory into an empty volume. */
async function fill(source: string, target: string): Promise<void> {
  if ((await readdir(target)).length > 0) return;
  if ((await readdir(source)).length > 0) await run('cp', ['-a', `${source}/.`, `${target}/`], {timeout: COPY_DEADLINE_MS});
  const {uid, gid, mode} = await stat(source);
  await chown(target, uid, gid);
  await chmod(target, mode & 0o7777);
}

async function within(root: string, subpath: string): Promise<string> {
  const path = await realpath(join(root, subpath)).catch((err: unknown) => {
    throw new CetusError('invalid', `cannot access path ${subpath} in the volume`, {cause: err});
  });
  const top = await realpath(root);
  if (path !== top && !path.startsWith(`${top}/`)) throw new CetusError('invalid', `path ${subpath} leads out of the volume`);
  return path;
}

/** A source that is there may be a file, a socket or a device; a missing one becomes a directory, as with the Engine. */
async function checkSource({source, createSource}: Extract<ResolvedMount, {type: 'bind'}>): Promise<void> {
  if (await exists(source)) return;
  if (!createSource) throw new CetusError('invalid', `invalid mount config for type "bind": bind source path does not exist: ${source}`);
  await mkdir(source, {recursive: true});
}

async function exists(path: string): Promise<boolean> {
  return await stat(path).then(() => true, (err: NodeJS.ErrnoException) => {
    if (err.code === 'ENOENT' || err.code === 'ENOTDIR') return false;
    throw err;
  });
}
