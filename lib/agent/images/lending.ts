/**
 * Images for whoever builds on this node, and what was built as images: layers are lent as they lie unpacked, and taken over without those that are
 * here already. What is lent is kept by a lease that carries the borrower's name, until it is given back; what is taken is an image of the
 * account when `take` has answered, and nothing before.
 */
import path from 'node:path';
import type {Readable} from 'node:stream';
import {CetusError} from '../../base/errors';
import type {Ids} from '../../base/ids';
import type {NodeImage} from '../../schema/agent';
import type {Descriptor} from '../../schema/docker';
import {hasStatus} from '../containerd/status';
import type {ImageLimits} from './limits';
import {MEDIA, parseConfig, parseManifest, type Manifest} from './manifest';
import {recordImage, unpackPlan} from './record';
import {found, SNAPSHOTTER, type BlobStore, type Hold} from './store';
import type {LayerToUnpack, Unpacker} from './unpack';

/** Bottom first. */
export interface LentImage { imageId: string; config: Buffer; layers: LayerToUnpack[] }
/** Where a layer lies unpacked, alone, as overlayfs wants a lower directory; and its bytes on disk. */
export interface LentDirectory { chainId: string; directory: string; size: number }

export interface BuiltLayer {
  diffId: string;
  /** The blob that this layer came from, where it is one of the account's. */
  known: Descriptor | undefined;
  /** Of the uncompressed tar. */
  length(): Promise<number>;
  bytes(): AsyncIterable<Buffer>;
}
export interface BuiltImage { config: Buffer; layers: BuiltLayer[]; references: string[] }

export interface ImageLending {
  describe(imageId: string, manifest: Descriptor): Promise<LentImage>;
  directories(borrower: string, image: LentImage): Promise<LentDirectory[]>;
  /** Gives back all but these. */
  giveBack(borrower: string, except: (chainId: string) => boolean): Promise<void>;
  blob(digest: string): Readable;
  take(account: string, image: BuiltImage, signal: AbortSignal): Promise<NodeImage>;
}

export interface LendingParts { store: BlobStore; unpacker: Unpacker; limits: ImageLimits; ids: Ids }

const TYPE = `snapshots/${SNAPSHOTTER}`;

export class Lending implements ImageLending {
  constructor(private readonly parts: LendingParts, private readonly ready: () => Promise<void>) {}

  async describe(imageId: string, target: Descriptor): Promise<LentImage> {
    await this.ready();
    const {store, limits} = this.parts;
    const document = parseManifest(await store.document(target.digest), target.mediaType, limits);
    if (document.kind !== 'manifest' || document.manifest.config.digest !== imageId) throw new CetusError('notFound', `${target.digest} is not the manifest of ${imageId}`);
    const config = await store.document(imageId);
    return {imageId, config, layers: unpackPlan(document.manifest, parseConfig(config, document.manifest.layers.length))};
  }

  async directories(borrower: string, {layers}: LentImage): Promise<LentDirectory[]> {
    if (layers.length === 0) return [];
    await this.ready();
    const {store, unpacker, limits, ids} = this.parts;
    const hold = await store.hold('lend');
    try {
      for (const step of layers) await unpacker.unpack(hold, step, AbortSignal.timeout(limits.unpackMs));
      await this.lease(borrower, layers.map((l) => l.chainId));
      const key = `lend-${ids.uuid()}`;
      const {mounts} = await hold.client.snapshots.view({snapshotter: SNAPSHOTTER, key, parent: layers.at(-1)!.chainId});
      await found(hold.client.snapshots.remove({snapshotter: SNAPSHOTTER, key}));
      const directories = lowerDirectories(mounts[0]);
      if (mounts.length !== 1 || directories.length !== layers.length) throw new CetusError('internal', `${layers.length} layers lie in ${directories.length} directories`);
      return await Promise.all(layers.map(async ({chainId}, i) => ({chainId, directory: directories[i]!, size: await store.snapshotSize(chainId)})));
    } finally {
      await hold.release(false);
    }
  }

  async giveBack(borrower: string, except: (chainId: string) => boolean): Promise<void> {
    const {leases} = this.parts.store.client;
    const lent = await found(leases.listResources({id: borrower}));
    for (const {id, type} of lent?.resources ?? []) if (type === TYPE && !except(id)) await found(leases.deleteResource({id: borrower, resource: {id, type}}));
  }

  blob(digest: string): Readable {
    return this.parts.store.stream(digest);
  }

  async take(account: string, {config: configBytes, layers, references}: BuiltImage, signal: AbortSignal): Promise<NodeImage> {
    await this.ready();
    const {store, unpacker} = this.parts;
    const config = parseConfig(configBytes, layers.length);
    const hold = await store.hold('take');
    let done = false;
    try {
      const manifest: Manifest = {
        schemaVersion: 2, mediaType: MEDIA.dockerManifest,
        config: {mediaType: MEDIA.dockerConfig, size: configBytes.length, digest: await hold.putDocument(configBytes, {})},
        layers: [],
      };
      for (const layer of layers) manifest.layers.push(await this.keep(hold, layer, signal));
      for (const step of unpackPlan(manifest, config)) await unpacker.unpack(hold, step, signal);
      const {image} = await recordImage(store, hold, {account, manifestBytes: Buffer.from(JSON.stringify(manifest)), manifest, config, labels: {}});
      done = true;
      return {...image, resolvedDigest: image.manifest.digest, references};
    } finally {
      await hold.release(!done).catch(() => undefined);
    }
  }

  /** The blob of a layer, in the content store and kept. */
  private async keep(hold: Hold, layer: BuiltLayer, signal: AbortSignal): Promise<Descriptor> {
    const {known, diffId} = layer;
    if (known && await hold.keepBlob(known.digest)) return {mediaType: known.mediaType, size: known.size, digest: known.digest};
    if (await hold.keepBlob(diffId)) return {mediaType: MEDIA.dockerLayer, size: (await this.parts.store.size(diffId))!, digest: diffId};
    const size = await layer.length();
    await this.parts.store.ensureSpace(size);
    const ref = `take-${hold.id}-${diffId}`;
    const writer = await hold.writer(ref, size, diffId);
    if (writer) {
      try {
        for await (const chunk of layer.bytes()) {
          signal.throwIfAborted();
          await writer.write(chunk);
        }
        await writer.commit();
      } catch (err) {
        await writer.close();
        await hold.abort(ref).catch(() => undefined);
        throw err;
      }
    }
    if (!(await hold.keepBlob(diffId))) throw new CetusError('internal', `containerd lost ${diffId} while an image was taken over`);
    return {mediaType: MEDIA.dockerLayer, size, digest: diffId};
  }

  private async lease(id: string, chainIds: string[]): Promise<void> {
    const {leases} = this.parts.store.client;
    const unlessThere = (err: unknown): void => {
      if (!hasStatus(err, 'ALREADY_EXISTS')) throw err;
    };
    await leases.create({id, labels: {}}).catch(unlessThere);
    for (const chainId of chainIds) await leases.addResource({id, resource: {id: chainId, type: TYPE}}).catch(unlessThere);
  }
}

/** Of a read-only mount of a whole image, bottom first. */
function lowerDirectories(mount: {type: string; source: string; options: string[]} | undefined): string[] {
  if (!mount) return [];
  if (mount.type === 'bind') return [path.normalize(mount.source)];
  const lower = mount.options.find((option) => option.startsWith('lowerdir='))?.slice('lowerdir='.length) ?? '';
  return lower.split(':').reverse();
}

