/**
 * docker load on a node: one pass over the archive into the content store, then unpack, then the image records, of all images or of none.
 * Emits "Loading layer" lines; "Loaded image: ..." is the control plane's, once it has stored the names.
 */
import type {Readable} from 'node:stream';
import type {NodeImage} from '../../schema/agent';
import type {ProgressMessage} from '../../schema/docker';
import {planImages} from './archive/plan';
import {readArchive, type ArchiveContents} from './archive/reader';
import {EarlyUnpack} from './early-unpack';
import type {ImageLimits} from './limits';
import {layerId, progressLine} from './progress';
import {recordImage, unpackPlan} from './record';
import {checkPlatform, nodePlatform, parsePlatform} from './registry/platform';
import type {BlobStore, Hold} from './store';
import type {LayerToUnpack, Unpacker} from './unpack';

export interface LoadParts { store: BlobStore; unpacker: Unpacker; limits: ImageLimits }
type Emit = (line: ProgressMessage) => void;

export async function loadArchive(parts: LoadParts, archive: Readable, {account, platform}: {account: string; platform?: string}, emit: Emit, signal: AbortSignal): Promise<{images: NodeImage[]}> {
  const wanted = platform === undefined ? undefined : parsePlatform(platform);
  const {store, limits} = parts;
  const hold = await store.hold('load');
  let done = false;
  try {
    const contents = await readWhileUnpacking(parts, hold, archive, emit, signal);
    const planned = await planImages(contents, (digest) => store.document(digest), wanted ?? nodePlatform(), limits);
    if (wanted) for (const {config, references: [name = 'without a name']} of planned) checkPlatform(config, wanted, name);
    for (const {manifest, config} of planned)
      for (const step of unpackPlan(manifest, config)) await unpackLayer(parts, hold, step, emit, signal);
    const images: NodeImage[] = [];
    for (const {manifestBytes, manifest, config, references} of planned) {
      const {image} = await recordImage(store, hold, {account, manifestBytes, manifest, config, labels: {}});
      images.push({...image, resolvedDigest: image.manifest.digest, references});
    }
    done = true;
    return {images};
  } finally {
    await hold.release(!done).catch(() => undefined);
  }
}

async function readWhileUnpacking(parts: LoadParts, hold: Hold, archive: Readable, emit: Emit, signal: AbortSignal): Promise<ArchiveContents> {
  const {store, limits} = parts;
  const failed = new AbortController();
  const either = AbortSignal.any([signal, failed.signal]);
  const early = new EarlyUnpack((step) => unpackLayer(parts, hold, step, emit, either));
  try {
    return await readArchive(store, hold, archive, limits, (file, document) => early.add(file, document), signal);
  } catch (err) {
    failed.abort(err);
    throw err;
  } finally {
    await early.finish();
  }
}

async function unpackLayer({store, unpacker}: LoadParts, hold: Hold, step: LayerToUnpack, emit: Emit, signal: AbortSignal): Promise<void> {
  const {layer, diffId, chainId} = step;
  if (await store.snapshotExists(chainId) && await hold.keepSnapshot(chainId)) return;
  emit(progressLine(layerId(diffId), 'Loading layer', 0, layer.size));
  await unpacker.unpack(hold, step, signal);
  emit(progressLine(layerId(diffId), 'Loading layer', layer.size, layer.size));
}
