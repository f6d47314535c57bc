/**
 * The layers of one image into the content store and unpacked: fetched side by side, unpacked in order while later ones still come. Emits the
 * layer lines of the Engine's progress stream. Where they come from (a registry, other nodes) is the source's matter.
 */
import type {Clock} from '../../base/clock';
import type {Descriptor, ImageConfigFile, ProgressMessage} from '../../schema/docker';
import type {BlobSource, Downloads} from './downloads';
import type {ImageLimits} from './limits';
import type {Manifest} from './manifest';
import {Pace} from './pace';
import {layerId, progressLine, secondsLine, statusLine, Throttle} from './progress';
import {unpackPlan} from './record';
import type {BlobStore, Hold} from './store';
import type {Unpacker} from './unpack';

export interface LayerParts { store: BlobStore; unpacker: Unpacker; downloads: Downloads; limits: ImageLimits; clock: Clock }
export type Emit = (line: ProgressMessage) => void;

/** All layers are here and unpacked afterwards, kept by `hold`; `labels` are for the blobs that had to be fetched. */
export async function fetchLayers(parts: LayerParts, hold: Hold, source: BlobSource, labels: Record<string, string>, {manifest, config}: {manifest: Manifest; config: ImageConfigFile}, emit: Emit, signal: AbortSignal): Promise<void> {
  const {unpacker, downloads, limits, clock} = parts;
  const plan = unpackPlan(manifest, config);
  const present = new Set<string>();
  for (const step of plan) {
    if (!(await hold.keepSnapshot(step.chainId)) || !(await hold.keepBlob(step.layer.digest))) continue;
    present.add(step.chainId);
  }
  const wanted = new Map<string, Descriptor>();
  for (const {layer, chainId} of plan) {
    // Of an image that is here whole its layers are not told.
    if (present.has(chainId) && present.size < plan.length) emit(statusLine(layerId(layer.digest), 'Already exists'));
    if (!present.has(chainId) && !wanted.has(layer.digest)) {
      wanted.set(layer.digest, layer);
      emit(statusLine(layerId(layer.digest), 'Pulling fs layer'));
    }
  }
  await parts.store.ensureSpace([...wanted.values()].reduce((sum, layer) => sum + layer.size, 0));
  // One failure ends the rest; what was fetched is released with the hold.
  const failed = new AbortController();
  const either = AbortSignal.any([signal, failed.signal]);
  const throttle = new Throttle(clock);
  const pace = new Pace(clock);
  const queue = [...wanted.values()];
  for (const layer of queue.slice(limits.parallelLayers)) emit(statusLine(layerId(layer.digest), 'Waiting'));
  const outcomes = new Map(queue.map((layer) => [layer.digest, deferred()]));
  for (const [digest, {promise}] of outcomes) downloads.expect(digest, promise);
  const fetchers = Array.from({length: Math.min(limits.parallelLayers, queue.length)}, async () => {
    for (let layer = queue.shift(); layer; layer = queue.shift()) {
      const {digest, size} = layer;
      const id = layerId(digest);
      const settle = outcomes.get(digest)!;
      let here = 0;
      try {
        await pace.start(either);
      } catch (err) {
        settle.reject(err);
        continue;
      }
      try {
        await downloads.fetch(hold, source, layer, labels, (bytes) => {
          pace.arrived(bytes - here);
          here = bytes;
          if (throttle.due(id, bytes, size)) emit(progressLine(id, 'Downloading', bytes, size));
          if (bytes >= size) emit(statusLine(id, 'Verifying Checksum'));
        }, either);
        emit(statusLine(id, 'Download complete'));
        settle.resolve();
      } catch (err) {
        settle.reject(err);
        failed.abort(err);
      } finally {
        pace.end();
      }
    }
  });
  try {
    for (const step of plan) {
      if (present.has(step.chainId)) continue;
      const id = layerId(step.layer.digest);
      await outcomes.get(step.layer.digest)!.promise;
      const started = clock.now();
      const ticking = setInterval(() => emit(secondsLine(id, 'Extracting', Math.floor((clock.now() - started) / 1000) + 1)), 1000);
      emit(secondsLine(id, 'Extracting', 1));
      try {
        await unpacker.unpack(hold, step, either);
      } finally {
        clearInterval(ticking);
      }
      emit(statusLine(id, 'Pull complete'));
    }
  } catch (err) {
    failed.abort(err);
    // The first failure is the cause; the others are its echo.
    throw signal.aborted ? err : failed.signal.reason;
  } finally {
    await Promise.all(fetchers);
  }
}

function deferred(): {promise: Promise<void>; resolve(): void; reject(err: unknown): void} {
  let resolve!: () => void;
  let reject!: (err: unknown) => void;
  const promise = new Promise<void>((yes, no) => {
    resolve = yes;
    reject = no;
  });
  promise.catch(() => undefined);
  return {promise, resolve, reject};
}
