/**
 * docker push on a node: an image's blobs into a repository, several side by side, and its manifest last, so that nothing is named there before it
 * is whole. What was pulled goes up byte for byte and keeps its digest. Layers that are kept uncompressed (committed, loaded, imported) are
 * compressed first, under a hold, and what they became is remembered at the layer: the next push only asks whether it is there.
 */
import {pipeline} from 'node:stream/promises';
import {createGzip} from 'node:zlib';
import type {Clock} from '../../base/clock';
import {CetusError} from '../../base/errors';
import type {PushRequest, PushResult} from '../../schema/agent';
import type {Descriptor, ProgressMessage, RegistryAuth} from '../../schema/docker';
import {isDigest, parseReference} from '../../schema/reference';
import type {ImageLimits} from './limits';
import {MEDIA, parseConfig, parseManifest, sha256, type Manifest} from './manifest';
import {layerId, progressLine, statusLine, Throttle} from './progress';
import {Repository} from './registry/client';
import type {Transport} from './registry/transport';
import {Uploader, type Session} from './registry/upload';
import type {BlobStore, Hold} from './store';

export interface PushParts { store: BlobStore; transport: Transport; limits: ImageLimits; clock: Clock }
type Emit = (line: ProgressMessage) => void;

/** At an uncompressed layer: digest and size of what it was when it was last compressed. */
const GZIP_LABEL = 'cetus/gzip';
const GZIP_TYPES: Readonly<Record<string, string>> = {[MEDIA.dockerLayer]: MEDIA.dockerLayerGzip, [MEDIA.ociLayer]: MEDIA.ociLayerGzip};

export async function pushImage(parts: PushParts, request: PushRequest, auth: RegistryAuth | undefined, emit: Emit, signal: AbortSignal): Promise<PushResult> {
  const {store, transport, limits, clock} = parts;
  const reference = parseReference(request.reference);
  if (reference.tag === undefined) throw new CetusError('invalid', 'a push needs a tag');
  const from = [...new Set(Object.values(request.sources).flat())].filter((r) => r !== reference.repository);
  const repository = new Repository({transport, reference, auth, access: {kind: 'push', from}, limits, clock, signal});
  const hold = await store.hold('push');
  try {
    const {bytes, manifest, diffIds} = await keepImage(parts, hold, request);
    await repository.reach();
    const push = new Push(parts, hold, new Uploader(repository, limits, clock), reference.repository, request.sources, emit);
    const layers = await push.layers(manifest, diffIds, signal);
    await push.document(manifest.config, signal);
    const changed = layers.some((layer, i) => layer.digest !== manifest.layers[i]!.digest);
    const body = changed ? Buffer.from(JSON.stringify({...manifest, layers})) : bytes;
    await repository.putManifest(reference.tag, body, manifest.mediaType);
    return {digest: sha256(body), size: body.length, mediaType: manifest.mediaType};
  } finally {
    await hold.release(false).catch(() => undefined);
  }
}

async function keepImage({store, limits}: PushParts, hold: Hold, {imageId, manifest: target}: PushRequest): Promise<{bytes: Buffer; manifest: Manifest; diffIds: string[]}> {
  const keep = async (digest: string): Promise<void> => {
    if (!(await hold.keepBlob(digest))) throw new CetusError('notFound', `the node has not all blobs of ${imageId}: content ${digest}: not found`);
  };
  await keep(target.digest);
  const bytes = await store.document(target.digest);
  const document = parseManifest(bytes, target.mediaType, limits);
  if (document.kind !== 'manifest' || document.manifest.config.digest !== imageId) throw new CetusError('invalid', `${target.digest} is not the manifest of ${imageId}`);
  const {manifest} = document;
  for (const {digest} of [manifest.config, ...manifest.layers]) await keep(digest);
  return {bytes, manifest, diffIds: parseConfig(await store.document(imageId), manifest.layers.length).rootfs.diff_ids};
}

class Push {
  private readonly throttle: Throttle;

  constructor(
    private readonly parts: PushParts, private readonly hold: Hold, private readonly uploader: Uploader, private readonly repository: string,
    private readonly sources: PushRequest['sources'], private readonly emit: Emit,
  ) {
    this.throttle = new Throttle(parts.clock);
  }

  /** As they are in the repository, in their order. The topmost goes first: it is the one that the registry has least likely. */
  async layers({layers}: Manifest, diffIds: string[], signal: AbortSignal): Promise<Descriptor[]> {
    const queue = new Map<string, {layer: Descriptor; diffId: string}>();
    for (const [i, layer] of [...layers.entries()].reverse()) {
      this.emit(statusLine(layerId(diffIds[i]!), 'Preparing'));
      if (!queue.has(layer.digest)) queue.set(layer.digest, {layer, diffId: diffIds[i]!});
    }
    const {parallelUploads} = this.parts.limits;
    for (const {diffId} of [...queue.values()].slice(parallelUploads)) this.emit(statusLine(layerId(diffId), 'Waiting'));
    const failed = new AbortController();
    const either = AbortSignal.any([signal, failed.signal]);
    const done = new Map<string, Descriptor>();
    const waiting = queue.values();
    await Promise.all(Array.from({length: Math.min(parallelUploads, queue.size)}, async () => {
      for (const {layer, diffId} of waiting) {
        try {
          either.throwIfAborted();
          done.set(layer.digest, await this.layer(layer, diffId, either));
        } catch (err) {
          failed.abort(err);
        }
      }
    }));
    signal.throwIfAborted();
    if (failed.signal.aborted) throw failed.signal.reason;
    return layers.map((layer) => done.get(layer.digest)!);
  }

  /** A config: sent without a word, as by the Engine. */
  async document({digest, size}: Descriptor, signal: AbortSignal): Promise<void> {
    if (await this.uploader.exists(digest)) return;
    await this.send({mediaType: '', digest, size}, undefined, undefined, signal);
  }

  private async layer(layer: Descriptor, diffId: string, signal: AbortSignal): Promise<Descriptor> {
    const id = layerId(diffId);
    const gzipType = GZIP_TYPES[layer.mediaType];
    const known = gzipType === undefined ? layer : await this.compressedBefore(layer, gzipType);
    if (known && await this.uploader.exists(known.digest)) {
      this.emit(statusLine(id, 'Layer already exists'));
      return known;
    }
    let session: Session | undefined;
    for (const from of known ? (this.sources[diffId] ?? []).filter((r) => r !== this.repository) : []) {
      const answer = await this.uploader.mount(known!.digest, from);
      if (answer === 'mounted') {
        this.emit(statusLine(id, `Mounted from ${from}`));
        return known!;
      }
      session = answer;
    }
    const blob = gzipType === undefined ? layer : await this.compress(layer, gzipType, id, signal);
    // It may be another than the last one was; the registry may have it all the same.
    if (blob.digest === known?.digest || !(await this.uploader.exists(blob.digest))) await this.send(blob, id, session, signal);
    this.emit(statusLine(id, 'Pushed'));
    return blob;
  }

  private async send({digest, size}: Descriptor, id: string | undefined, session: Session | undefined, signal: AbortSignal): Promise<void> {
    const {store} = this.parts;
    const open = (offset: number, length: number): ReturnType<BlobStore['stream']> => store.stream(digest, signal, {offset, size: length});
    await this.uploader.send({digest, size, open}, session, {
      sent: (bytes) => {
        if (id !== undefined && this.throttle.due(id, bytes, size)) this.emit(progressLine(id, 'Pushing', bytes, size));
      },
      retrying: (ms) => {
        const seconds = Math.ceil(ms / 1000);
        if (id !== undefined) this.emit(statusLine(id, `Retrying in ${seconds} second${seconds === 1 ? '' : 's'}`));
      },
    }, signal);
  }

  private async compressedBefore({digest}: Descriptor, mediaType: string): Promise<Descriptor | undefined> {
    const [gzip = '', size = ''] = ((await this.parts.store.labels(digest))[GZIP_LABEL] ?? '').split(' ');
    return isDigest(gzip) && /^\d{1,15}$/.test(size) ? {mediaType, digest: gzip, size: Number(size)} : undefined;
  }

  /** Counted as sent while it is compressed, as the Engine counts what it compresses on the way. */
  private async compress(layer: Descriptor, mediaType: string, id: string, signal: AbortSignal): Promise<Descriptor> {
    const {store} = this.parts;
    const ref = `gzip-${this.hold.id}-${layer.digest}`;
    await store.ensureSpace(layer.size);
    const writer = (await this.hold.writer(ref, undefined, undefined))!;
    const watch = new Throttle(this.parts.clock);
    const source = store.stream(layer.digest, signal);
    let read = 0;
    source.on('data', (chunk: Buffer) => {
      read += chunk.length;
      if (watch.due(id, read, layer.size)) this.emit(progressLine(id, 'Pushing', read, layer.size));
    }).pause();
    let size = 0;
    let digest: string;
    try {
      await pipeline(source, createGzip({chunkSize: 256 * 1024}), async (chunks) => {
        for await (const chunk of chunks as AsyncIterable<Buffer>) {
          size += chunk.length;
          await writer.write(chunk);
        }
      });
      digest = await writer.commit();
    } catch (err) {
      await writer.close();
      await this.hold.abort(ref).catch(() => undefined);
      throw err;
    }
    // Another push may have made the same: this hold keeps it as well.
    if (!(await this.hold.keepBlob(digest))) throw new CetusError('internal', `containerd lost ${digest} while it was made`);
    await store.label(layer.digest, {[GZIP_LABEL]: `${digest} ${size}`});
    return {mediaType, digest, size};
  }
}
