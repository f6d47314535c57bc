/** What makes blobs and snapshots an image of an account: the labels that tie them together, and the record that roots them. */
import {CetusError} from '../../base/errors';
import type {NodeImage} from '../../schema/agent';
import type {Descriptor, ImageConfigFile} from '../../schema/docker';
import type {ImageLimits} from './limits';
import {chainIds, manifestGcLabels, type Manifest} from './manifest';
import type {BlobStore, Hold} from './store';
import type {LayerToUnpack} from './unpack';

export interface ImageToRecord { account: string; manifestBytes: Buffer; manifest: Manifest; config: ImageConfigFile; labels: Record<string, string> }

/** All blobs and snapshots must be there, kept by `hold`. */
export async function recordImage(store: BlobStore, hold: Hold, image: ImageToRecord): Promise<{image: Omit<NodeImage, 'resolvedDigest' | 'references'>; upToDate: boolean}> {
  const {account, manifestBytes, manifest, config, labels} = image;
  const plan = unpackPlan(manifest, config);
  const top = plan.at(-1)?.chainId;
  if (top !== undefined) await store.label(manifest.config.digest, store.snapshotLabel(top));
  const digest = await hold.putDocument(manifestBytes, {...manifestGcLabels(manifest), ...labels});
  const target: Descriptor = {mediaType: manifest.mediaType, digest, size: manifestBytes.length};
  const imageId = manifest.config.digest;
  const layers = await Promise.all(plan.map(async ({layer, diffId, chainId}) => (
    {digest: layer.digest, mediaType: layer.mediaType, size: layer.size, diffId, unpackedSize: await store.snapshotSize(chainId)})));
  await store.flushed([imageId, ...manifest.layers.map((layer) => layer.digest)]);
  const upToDate = await store.record(account, imageId, target);
  return {image: {imageId, manifest: target, config, layers, size: layers.reduce((sum, l) => sum + l.unpackedSize, 0)}, upToDate};
}

/** An image that was made here, of layers that are there and unpacked under `hold`: its config and manifest are written, and it is the account's. */
export async function recordMade(store: BlobStore, hold: Hold, limits: ImageLimits, made: {account: string; config: ImageConfigFile; layers: Descriptor[]; mediaTypes: {manifest: string; config: string}}): Promise<NodeImage> {
  const {account, config, layers, mediaTypes} = made;
  const bytes = Buffer.from(JSON.stringify(config));
  if (bytes.length > limits.documentBytes) throw new CetusError('invalid', `the image's config is larger than ${limits.documentBytes} bytes`);
  const digest = await hold.putDocument(bytes, {});
  const manifest: Manifest = {schemaVersion: 2, mediaType: mediaTypes.manifest, config: {mediaType: mediaTypes.config, size: bytes.length, digest}, layers};
  const {image} = await recordImage(store, hold, {account, manifestBytes: Buffer.from(JSON.stringify(manifest)), manifest, config, labels: {}});
  return {...image, resolvedDigest: image.manifest.digest, references: []};
}

/** Layers, bottom first, with the snapshot that each becomes. */
export function unpackPlan(manifest: Manifest, config: ImageConfigFile): LayerToUnpack[] {
  const chain = chainIds(config.rootfs.diff_ids);
  return manifest.layers.map((layer, i) => ({layer, diffId: config.rootfs.diff_ids[i], chainId: chain[i], parent: i === 0 ? '' : chain[i - 1]}));
}

