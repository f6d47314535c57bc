/**
 * docker commit on a node: what a container has changed becomes a layer on top of its image's, by containerd's diff service. Reads the container's
 * files through mounts of its own that cannot be written; freezing what runs meanwhile is the caller's. The layer is kept uncompressed, as the
 * Engine keeps it: a push compresses it, and may never come.
 */
import {CetusError} from '../../base/errors';
import type {Ids} from '../../base/ids';
import type {NodeImage} from '../../schema/agent';
import type {Config, Descriptor, ImageConfigFile} from '../../schema/docker';
import type {Mount} from '../containerd/messages';
import type {ImageLimits} from './limits';
import {chainIds, MEDIA, parseConfig, parseManifest, type Manifest} from './manifest';
import {recordMade} from './record';
import {found, SNAPSHOTTER, type BlobStore, type Hold} from './store';
import type {Unpacker} from './unpack';

export interface CommitRequest {
  account: string;
  /** Its writable snapshot has the same name. */
  containerId: string;
  base: {imageId: string; manifestDigest: string};
  created: string;
  author: string;
  comment: string;
  config: Config;
  containerConfig: Config;
}
export interface CommitParts { store: BlobStore; unpacker: Unpacker; limits: ImageLimits; ids: Ids }

/** A tar without entries: the container has changed nothing. */
const EMPTY_LAYER = 'sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef';

export async function commitContainer(parts: CommitParts, request: CommitRequest): Promise<NodeImage> {
  const {store, unpacker, limits} = parts;
  const hold = await store.hold('commit');
  let done = false;
  try {
    const base = await keepBase(parts, hold, request);
    const change = await diffOf(parts, hold, request.containerId, base.manifest.mediaType);
    const layers = [...base.manifest.layers, ...(change ? [change] : [])];
    if (layers.length > limits.layers) throw new CetusError('invalid', 'max depth exceeded');
    const config = configOf(request, base.config, change);
    if (change) {
      const chain = chainIds(config.rootfs.diff_ids);
      await unpacker.unpack(hold, {layer: change, diffId: change.digest, chainId: chain.at(-1)!, parent: chain.at(-2) ?? ''}, AbortSignal.timeout(limits.unpackMs));
    }
    const image = await recordMade(store, hold, limits, {account: request.account, config, layers, mediaTypes: {manifest: base.manifest.mediaType, config: base.manifest.config.mediaType}});
    done = true;
    return image;
  } finally {
    await hold.release(!done).catch(() => undefined);
  }
}

async function keepBase({store, limits}: CommitParts, hold: Hold, {base}: CommitRequest): Promise<{manifest: Manifest; config: ImageConfigFile}> {
  const keep = async (digest: string): Promise<void> => {
    if (!(await hold.keepBlob(digest))) throw new CetusError('notFound', `the image ${base.imageId} of the container is no longer there: content ${digest}: not found`);
  };
  await keep(base.manifestDigest);
  const document = parseManifest(await store.document(base.manifestDigest), '', limits);
  if (document.kind !== 'manifest' || document.manifest.config.digest !== base.imageId) throw new CetusError('notFound', `${base.manifestDigest} is not the manifest of ${base.imageId}`);
  const {manifest} = document;
  for (const {digest} of [manifest.config, ...manifest.layers]) await keep(digest);
  return {manifest, config: parseConfig(await store.document(base.imageId), manifest.layers.length)};
}

/** The layer, kept by `hold`; undefined where nothing has changed. */
async function diffOf({store, limits, ids}: CommitParts, hold: Hold, containerId: string, manifestType: string): Promise<Descriptor | undefined> {
  const {snapshots, diff} = hold.client;
  const {info} = await snapshots.stat({snapshotter: SNAPSHOTTER, key: containerId});
  const key = `commit-${ids.uuid()}`;
  const {mounts: left} = await snapshots.view({snapshotter: SNAPSHOTTER, key, parent: info.parent});
  try {
    const {mounts} = await snapshots.mounts({snapshotter: SNAPSHOTTER, key: containerId});
    const {diff: layer} = await diff.diff({left, right: readOnly(mounts), mediaType: MEDIA.ociLayer}, {deadlineMs: limits.unpackMs});
    if (layer.digest === EMPTY_LAYER) return undefined;
    if (layer.size > limits.layerBytes) throw new CetusError('invalid', `the layer is larger than ${limits.layerBytes} bytes`);
    return {mediaType: manifestType === MEDIA.ociManifest ? MEDIA.ociLayer : MEDIA.dockerLayer, digest: layer.digest, size: layer.size};
  } catch (err) {
    if (err instanceof CetusError && /no space left on device/.test(err.message)) throw new CetusError('noSpace', `commit ${containerId}: no space left on device`, {cause: err});
    throw err;
  } finally {
    await found(store.client.snapshots.remove({snapshotter: SNAPSHOTTER, key}));
  }
}

/** The same files without a way to write them: an overlay's upper directory as the topmost of the lower ones. A second writable mount of it would be undefined. */
export function readOnly(mounts: Mount[]): Mount[] {
  return mounts.map((mount) => {
    if (mount.type !== 'overlay') return {...mount, options: ['ro', ...mount.options.filter((o) => o !== 'rw' && o !== 'ro')]};
    const valueOf = (name: string): string | undefined => mount.options.find((o) => o.startsWith(`${name}=`))?.slice(name.length + 1);
    const rest = mount.options.filter((o) => !/^(lowerdir|upperdir|workdir)=|^r[ow]$/.test(o));
    const lower = [valueOf('upperdir'), valueOf('lowerdir')].filter((d) => d !== undefined);
    return {...mount, options: ['ro', ...rest, `lowerdir=${lower.join(':')}`]};
  });
}

/** Field by field as the Engine makes a child of an image (image.NewChildImage). */
function configOf(request: CommitRequest, base: ImageConfigFile, change: Descriptor | undefined): ImageConfigFile {
  const {created, author, comment, config, containerConfig, containerId} = request;
  return {
    created, ...(author ? {author} : {}), architecture: base.architecture, os: base.os, ...(base.variant ? {variant: base.variant} : {}), ...(base['os.version'] ? {'os.version': base['os.version']} : {}),
    config, container: containerId, container_config: containerConfig,
    rootfs: {type: 'layers', diff_ids: [...base.rootfs.diff_ids, ...(change ? [change.digest] : [])]},
    history: [...base.history ?? [], {
      created, ...((containerConfig.Cmd ?? []).length ? {created_by: containerConfig.Cmd!.join(' ')} : {}), ...(author ? {author} : {}), ...(comment ? {comment} : {}), ...(change ? {} : {empty_layer: true}),
    }],
  };
}
