/**
 * docker load on a node: one pass over the archive into the content store, then unpack, then the image records, of all images or of none.
 * Emits "Loading layer" lines; "Loaded image: ..." is the control plane's, once it has stored the names.
 */
import type {Readable} from 'node:stream';
import type {NodeImage} from '../../schema/agent';
import type {ProgressMessage} from '../../schema/docker';
import {planImages, type PlannedImage} from './archive/plan';
import {readArchive} from './archive/reader';
import type {ImageLimits} from './limits';
import {layerId, progressLine} from './progress';
import {recordImage, unpackPlan} from './record';
import {nodePlatform} from './registry/platform';
import type {BlobStore, Hold} from './store';
import type {Unpacker} from './unpack';

export interface LoadParts { store: BlobStore; unpacker: Unpacker; limits: ImageLimits }
type Emit = (line: ProgressMessage) => void;

export async function loadArchive(parts: LoadParts, archive: Readable, account: string, emit: Emit, signal: AbortSignal): Promise<{images: NodeImage[]}> {
  const {store, limits} = parts;
  const hold = await store.hold('load');
  let done = false;
  try {
    const contents = await readArchive(store, hold, archive, limits, signal);
    const planned = await planImages(contents, (digest) => store.document(digest), nodePlatform(), limits);
    for (const image of planned) await unpackImage(parts, hold, image, emit, signal);
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

async function unpackImage({store, unpacker}: LoadParts, hold: Hold, {manifest, config}: PlannedImage, emit: Emit, signal: AbortSignal): Promise<void> {
  for (const step of unpackPlan(manifest, config)) {
    const {layer, diffId, chainId} = step;
    if (await store.snapshotExists(chainId) && await hold.keepSnapshot(chainId)) continue;
    emit(progressLine(layerId(diffId), 'Loading layer', 0, layer.size));
    await unpacker.unpack(hold, step, signal);
    emit(progressLine(layerId(diffId), 'Loading layer', layer.size, layer.size));
  }
}
