/**
 * docker save on a node: an OCI layout that is a docker-archive too (manifest.json, repositories), as the Engine writes since 25. Blobs byte for
 * byte, so that digests survive a round trip; the same images give the same bytes. Everything is held until the tar is read or dropped.
 */
import {Readable} from 'node:stream';
import {pipeline} from 'node:stream/promises';
import {pack, type Pack} from 'tar-stream';
import {CetusError} from '../../base/errors';
import type {SaveRequest} from '../../schema/agent';
import type {Descriptor} from '../../schema/docker';
import {familiarName, familiarReference, parseReference} from '../../schema/reference';
import type {ImageLimits} from './limits';
import {MEDIA, parseManifest, type Manifest} from './manifest';
import type {BlobStore, Hold} from './store';

interface SavedImage { target: Descriptor; manifest: Manifest; references: string[] }

const EPOCH = new Date(0);

export async function saveImages(store: BlobStore, request: SaveRequest, limits: ImageLimits, signal: AbortSignal): Promise<Readable> {
  const hold = await store.hold('save');
  try {
    const images: SavedImage[] = [];
    for (const image of request.images) images.push(await keepImage(store, hold, image, limits));
    const tar = pack();
    const written = write(store, tar, images, signal).catch((err: Error) => tar.destroy(err));
    const output = Readable.from(tar as unknown as AsyncIterable<Buffer>, {objectMode: false, highWaterMark: 1024 * 1024});
    output.once('close', () => {
      tar.destroy();
      void written.finally(() => hold.release(false)).catch(() => undefined);
    });
    return output;
  } catch (err) {
    await hold.release(false).catch(() => undefined);
    throw err;
  }
}

/** Before the first byte: everything is here, so that an error still is an answer and not a broken tar. */
async function keepImage(store: BlobStore, hold: Hold, {imageId, manifest: target, references}: SaveRequest['images'][number], limits: ImageLimits): Promise<SavedImage> {
  if (!(await hold.keepBlob(target.digest))) throw missing(imageId, target.digest);
  const document = parseManifest(await store.document(target.digest), target.mediaType, limits);
  if (document.kind !== 'manifest' || document.manifest.config.digest !== imageId) throw new CetusError('invalid', `${target.digest} is not the manifest of ${imageId}`);
  for (const blob of [document.manifest.config, ...document.manifest.layers])
    if (!(await hold.keepBlob(blob.digest))) throw missing(imageId, blob.digest);
  return {target, manifest: document.manifest, references};
}

async function write(store: BlobStore, tar: Pack, images: SavedImage[], signal: AbortSignal): Promise<void> {
  const blobs = new Map(images.flatMap(({target, manifest}) => [target, manifest.config, ...manifest.layers].map((d) => [d.digest, d.size] as const)));
  tar.entry({name: 'blobs/', type: 'directory', mode: 0o755, mtime: EPOCH});
  tar.entry({name: 'blobs/sha256/', type: 'directory', mode: 0o755, mtime: EPOCH});
  for (const digest of [...blobs.keys()].sort()) {
    const entry = tar.entry({name: blobName(digest), size: blobs.get(digest)!, mode: 0o644, mtime: EPOCH});
    await pipeline(store.stream(digest, signal), entry as unknown as NodeJS.WritableStream);
  }
  for (const [name, document] of Object.entries({'index.json': indexJson(images), 'manifest.json': manifestJson(images), 'oci-layout': {imageLayoutVersion: '1.0.0'}, repositories: repositories(images)}))
    tar.entry({name, mode: 0o644, mtime: EPOCH}, JSON.stringify(document));
  tar.finalize();
}

function indexJson(images: SavedImage[]): object {
  const manifests = images.flatMap(({target: {mediaType, digest, size}, references}) => {
    if (references.length === 0) return [{mediaType, digest, size}];
    return references.map((name) => ({mediaType, digest, size, annotations: {'io.containerd.image.name': name, 'org.opencontainers.image.ref.name': parseReference(name).tag ?? ''}}));
  });
  return {schemaVersion: 2, mediaType: MEDIA.ociIndex, manifests};
}

function manifestJson(images: SavedImage[]): object[] {
  return images.map(({manifest, references}) => ({
    Config: blobName(manifest.config.digest),
    RepoTags: references.length === 0 ? null : references.map((name) => familiarReference(parseReference(name))),
    Layers: manifest.layers.map((layer) => blobName(layer.digest)),
  }));
}

/** {"busybox": {"latest": TOP LAYER}}: read by engines from before 1.10 and by some tools. */
function repositories(images: SavedImage[]): Record<string, Record<string, string>> {
  const result: Record<string, Record<string, string>> = {};
  for (const {manifest, references} of images)
    for (const reference of references.map(parseReference))
      if (reference.tag !== undefined) (result[familiarName(reference)] ??= {})[reference.tag] = (manifest.layers.at(-1) ?? manifest.config).digest.slice('sha256:'.length);
  return result;
}

function blobName(digest: string): string {
  return `blobs/sha256/${digest.slice('sha256:'.length)}`;
}

function missing(imageId: string, digest: string): CetusError {
  return new CetusError('notFound', `the node has not all blobs of ${imageId}: content ${digest}: not found`);
}
