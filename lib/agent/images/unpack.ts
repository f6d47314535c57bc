/**
 * Layers into overlayfs snapshots, named by chain id, by containerd's diff service (which stays inside the snapshot whatever a tar says).
 * Promises: a snapshot exists only when all of its layer is in it and its bytes have the diff id that the image's config names; a layer
 * that unpacks beyond the limits is stopped and taken away; the same chain is unpacked once, however many ask for it.
 */
import fs from 'node:fs/promises';
import type {Clock} from '../../base/clock';
import {CetusError, isCetusError} from '../../base/errors';
import type {Ids} from '../../base/ids';
import {formatBytes} from '../../base/units';
import type {Descriptor} from '../../schema/docker';
import type {Mount} from '../containerd/messages';
import {prepareSnapshot} from '../containerd/snapshots';
import {hasStatus} from '../containerd/status';
import type {ImageLimits} from './limits';
import {MEDIA} from './manifest';
import {found, SNAPSHOTTER, type BlobStore, type Hold} from './store';

export interface LayerToUnpack { layer: Descriptor; diffId: string; chainId: string; /** chain id below, '' for the first */ parent: string }

/** How often a compressed layer is looked at while it grows; measuring a large one may itself take long, so it backs off. */
const LOOK_MS = 200;
const LOOK_BACKOFF = 20;
const REMOVE_TRIES = 20;

export class Unpacker {
  private readonly running = new Map<string, Promise<unknown>>();

  constructor(private readonly store: BlobStore, private readonly limits: ImageLimits, private readonly clock: Clock, private readonly ids: Ids) {}

  /** The snapshot exists afterwards and is kept by `hold`. */
  async unpack(hold: Hold, target: LayerToUnpack, signal: AbortSignal): Promise<void> {
    for (;;) {
      signal.throwIfAborted();
      if (await hold.keepSnapshot(target.chainId)) return;
      const other = this.running.get(target.chainId);
      if (!other) break;
      // Somebody unpacks the same: if that fails we try ourselves.
      await other.catch(() => undefined);
    }
    const mine = this.make(hold, target, signal).finally(() => this.running.delete(target.chainId));
    this.running.set(target.chainId, mine);
    await mine;
  }

  /** A first layer whose diff id nobody has told: its snapshot is named by what it turns out to be. */
  async unpackFirst(hold: Hold, layer: Descriptor, signal: AbortSignal): Promise<string> {
    const key = `unpack-${this.ids.uuid()}`;
    const {mounts} = await prepareSnapshot(hold.client, {snapshotter: SNAPSHOTTER, key, parent: ''});
    let diffId = '';
    try {
      ({digest: diffId} = await this.apply(hold, layer, mounts, key, signal));
      await hold.client.snapshots.commit({snapshotter: SNAPSHOTTER, key, name: diffId});
    } catch (err) {
      await this.discard(key);
      if (!hasStatus(err, 'ALREADY_EXISTS') || !(await hold.keepSnapshot(diffId))) throw err;
    }
    return diffId;
  }

  private async make(hold: Hold, {layer, diffId, chainId, parent}: LayerToUnpack, signal: AbortSignal): Promise<void> {
    const key = `unpack-${this.ids.uuid()}`;
    const {snapshots} = hold.client;
    const {mounts} = await prepareSnapshot(hold.client, {snapshotter: SNAPSHOTTER, key, parent});
    try {
      const applied = await this.apply(hold, layer, mounts, key, signal);
      if (applied.digest !== diffId)
        throw new CetusError('invalid', `layer ${layer.digest} does not match the image's config: its diff id is ${applied.digest}, not ${diffId}`);
      await snapshots.commit({snapshotter: SNAPSHOTTER, key, name: chainId});
    } catch (err) {
      await this.discard(key);
      if (hasStatus(err, 'ALREADY_EXISTS') && await hold.keepSnapshot(chainId)) return;
      throw err;
    }
  }

  private async apply(hold: Hold, layer: Descriptor, mounts: Mount[], key: string, signal: AbortSignal): Promise<Descriptor> {
    const stop = new AbortController();
    const done = new AbortController();
    const watch = isCompressed(layer.mediaType) ? this.watch(layer, mounts, key, stop, done.signal) : Promise.resolve();
    try {
      const diff = {mediaType: applyType(layer.mediaType), digest: layer.digest, size: layer.size};
      const {applied} = await hold.client.diff.apply({diff, mounts}, {signal: AbortSignal.any([signal, stop.signal]), deadlineMs: this.limits.unpackMs});
      if (applied.size > this.limits.unpackedLayerBytes) throw this.tooLarge(layer);
      return applied;
    } catch (err) {
      if (stop.signal.aborted) throw stop.signal.reason;
      signal.throwIfAborted();
      throw unpackError(layer, err);
    } finally {
      done.abort();
      await watch;
    }
  }

  /** containerd unpacks without limits, so the growing directory is measured from outside. */
  private async watch(layer: Descriptor, mounts: Mount[], key: string, stop: AbortController, done: AbortSignal): Promise<void> {
    const directory = upperDirectory(mounts);
    let waitMs = LOOK_MS;
    try {
      for (;;) {
        await this.clock.sleep(waitMs, done);
        const before = this.clock.now();
        if (directory) {
          const disk = await fs.statfs(directory);
          if (disk.bavail * disk.bsize < this.limits.freeDiskBytes) return stop.abort(new CetusError('noSpace', `failed to register layer: no space left on device while unpacking ${layer.digest}`));
        }
        const {size} = await this.store.client.snapshots.usage({snapshotter: SNAPSHOTTER, key}, {signal: done});
        if (size > this.limits.unpackedLayerBytes) return stop.abort(this.tooLarge(layer));
        waitMs = Math.max(LOOK_MS, (this.clock.now() - before) * LOOK_BACKOFF);
      }
    } catch {
      // Finished, or not measurable (the directory changes under the walk): the next layer's watch and the limit on `applied` remain.
      if (!done.aborted) return this.watch(layer, mounts, key, stop, done);
    }
  }

  private tooLarge(layer: Descriptor): CetusError {
    return new CetusError('invalid', `layer ${layer.digest} unpacks to more than ${formatBytes(this.limits.unpackedLayerBytes)}`);
  }

  // A canceled apply may still be writing for a moment.
  private async discard(key: string): Promise<void> {
    for (let tries = 1; ; tries += 1) {
      try {
        await found(this.store.client.snapshots.remove({snapshotter: SNAPSHOTTER, key}));
        return;
      } catch (err) {
        if (tries >= REMOVE_TRIES || isCetusError(err, 'unavailable')) return;
        await this.clock.sleep(100);
      }
    }
  }
}

function isCompressed(mediaType: string): boolean {
  return mediaType !== MEDIA.dockerLayer && mediaType !== MEDIA.ociLayer;
}

// containerd 1.6 knows zstd by OCI's name only; what it unpacks is told by the first bytes anyway.
function applyType(mediaType: string): string {
  return mediaType === MEDIA.dockerLayerZstd ? MEDIA.ociLayerZstd : mediaType;
}

function upperDirectory(mounts: Mount[]): string | undefined {
  if (mounts.length !== 1) return undefined;
  const [mount] = mounts;
  return mount.type === 'bind' ? mount.source : mount.options.find((o) => o.startsWith('upperdir='))?.slice('upperdir='.length);
}

function unpackError(layer: Descriptor, err: unknown): unknown {
  if (!(err instanceof CetusError)) return err;
  if (/no space left on device/.test(err.message)) return new CetusError('noSpace', `failed to register layer: ${err.message}`, {cause: err});
  // What the tar or the compression made containerd stumble over is the image's fault, not ours.
  // Where containerd had mounted it meanwhile is nobody's business.
  const why = err.message.replace(/mount callback failed on \S+: /g, '');
  if (err.kind === 'internal' || err.kind === 'invalid') return new CetusError('invalid', `failed to register layer: ${layer.digest}: ${why}`, {cause: err});
  return err;
}
