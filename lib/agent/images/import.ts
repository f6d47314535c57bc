/**
 * docker import on a node: one tar, from the request or from an address, becomes the only layer of a new image. The tar is never looked into here: what
 * gzip or zstd made smaller is kept as it came, bzip2 and xz are undone on the way, and containerd unpacks it into a snapshot, whatever it says.
 */
import type {Readable} from 'node:stream';
import type {Clock} from '../../base/clock';
import {CetusError} from '../../base/errors';
import type {ImportRequest, NodeImage} from '../../schema/agent';
import type {Descriptor, ImageConfigFile, ProgressMessage} from '../../schema/docker';
import {layerStream, type LayerCompression} from './archive/decompress';
import {fetchArchive} from './fetch-archive';
import type {ImageLimits} from './limits';
import {MEDIA} from './manifest';
import {bar, Throttle} from './progress';
import {recordMade} from './record';
import {nodePlatform, parsePlatform} from './registry/platform';
import type {Transport} from './registry/transport';
import type {BlobStore, Hold} from './store';
import type {Unpacker} from './unpack';

export interface ImportParts { store: BlobStore; unpacker: Unpacker; transport: Transport; limits: ImageLimits; clock: Clock }
type Emit = (line: ProgressMessage) => void;

const LAYER_TYPES: Record<LayerCompression, string> = {none: MEDIA.dockerLayer, gzip: MEDIA.dockerLayerGzip, zstd: MEDIA.dockerLayerZstd};
const SPACE_CHECK_BYTES = 256 * 1024 * 1024;

export async function importImage(parts: ImportParts, request: ImportRequest, archive: Readable, emit: Emit, signal: AbortSignal): Promise<{image: NodeImage}> {
  const {store, unpacker, limits} = parts;
  // Before anything is read: a platform that is none must not cost an upload.
  const platform = request.platform === undefined ? nodePlatform() : parsePlatform(request.platform);
  if (platform.os !== 'linux') throw new CetusError('invalid', `operating system is not supported: ${platform.os}`);
  const hold = await store.hold('import');
  let done = false;
  try {
    const source = request.url === undefined ? archive : await download(parts, request.url, emit, signal);
    const layer = await keepLayer(parts, hold, source, signal);
    const diffId = await unpacker.unpackFirst(hold, layer, AbortSignal.any([signal, AbortSignal.timeout(limits.unpackMs)]));
    const {created, message, config} = request;
    const document: ImageConfigFile = {
      created, architecture: platform.architecture, os: platform.os, ...(platform.variant ? {variant: platform.variant} : {}), config, ...(message ? {comment: message} : {}),
      rootfs: {type: 'layers', diff_ids: [diffId]}, history: [{created, ...(message ? {comment: message} : {})}],
    };
    const image = await recordMade(store, hold, limits, {account: request.account, config: document, layers: [layer], mediaTypes: {manifest: MEDIA.dockerManifest, config: MEDIA.dockerConfig}});
    done = true;
    return {image};
  } finally {
    archive.destroy();
    await hold.release(!done).catch(() => undefined);
  }
}

async function download({transport, clock}: ImportParts, url: string, emit: Emit, signal: AbortSignal): Promise<Readable> {
  const throttle = new Throttle(clock);
  const {body, shown} = await fetchArchive(transport, url, (here, size) => {
    if (throttle.due('', here, size)) emit({status: 'Importing', progressDetail: {current: here, ...(size > 0 ? {total: size} : {})}, progress: bar(here, size)});
  }, signal);
  emit({status: `Downloading from ${shown}`});
  return body;
}

/** The layer as it is kept, in the content store and under the hold. */
async function keepLayer({store, limits}: ImportParts, hold: Hold, source: Readable, signal: AbortSignal): Promise<Descriptor> {
  const onAbort = (): void => void source.destroy(signal.reason as Error);
  signal.addEventListener('abort', onAbort, {once: true});
  const ref = `import-${hold.id}`;
  let writer: Awaited<ReturnType<Hold['writer']>>;
  try {
    writer = (await hold.writer(ref, undefined, undefined))!;
    const {compression, body} = await layerStream(source);
    let size = 0;
    let unchecked = SPACE_CHECK_BYTES;
    for await (const chunk of body as AsyncIterable<Buffer>) {
      size += chunk.length;
      unchecked += chunk.length;
      if (size > limits.layerBytes) throw new CetusError('invalid', `the archive is larger than ${limits.layerBytes} bytes`);
      if (unchecked >= SPACE_CHECK_BYTES) {
        await store.ensureSpace(SPACE_CHECK_BYTES);
        unchecked = 0;
      }
      await writer.write(chunk);
    }
    signal.throwIfAborted();
    const digest = await writer.commit();
    if (!(await hold.keepBlob(digest))) throw new CetusError('internal', `containerd lost ${digest} while an archive was read`);
    return {mediaType: LAYER_TYPES[compression], digest, size};
  } catch (err) {
    await writer?.close();
    await hold.abort(ref).catch(() => undefined);
    signal.throwIfAborted();
    throw readError(err);
  } finally {
    signal.removeEventListener('abort', onAbort);
    source.destroy();
  }
}

function readError(err: unknown): unknown {
  if (err instanceof CetusError) return err;
  const {message, code = ''} = err as NodeJS.ErrnoException;
  if (/ECONNRESET|EPIPE|PREMATURE_CLOSE|ABORT|STREAM_DESTROYED/.test(code) || message === 'aborted') return new CetusError('canceled', 'the archive ended before it was complete: the client has gone', {cause: err});
  return new CetusError('invalid', `invalid archive: ${message}`, {cause: err});
}
