/**
 * docker pull on a node: reference -> manifest for the platform -> layers fetched in parallel and unpacked in order -> image record.
 * Emits the layer lines of the Engine's progress stream; "Pulling from", "Digest:" and "Status:" belong to the control plane.
 * A failed pull leaves nothing but, after a network failure, the ingests that the next pull resumes.
 */
import type {Clock} from '../../base/clock';
import {CetusError} from '../../base/errors';
import type {NodeImage, PullRequest} from '../../schema/agent';
import type {Descriptor, ImageConfigFile, ProgressMessage, RegistryAuth} from '../../schema/docker';
import {familiarReference, parseImageName, type Reference} from '../../schema/reference';
import type {Downloads} from './downloads';
import type {ImageLimits} from './limits';
import {parseConfig, parseManifest, type Manifest} from './manifest';
import {Pace} from './pace';
import {layerId, progressLine, secondsLine, statusLine, Throttle} from './progress';
import {Repository, type FetchedManifest} from './registry/client';
import {checkPlatform as mustBeFor, choosePlatform, formatPlatform, nodePlatform, parsePlatform, type Platform} from './registry/platform';
import type {Transport} from './registry/transport';
import {recordImage, unpackPlan} from './record';
import type {BlobStore, Hold} from './store';
import type {Unpacker} from './unpack';

export interface PullParts { store: BlobStore; unpacker: Unpacker; downloads: Downloads; transport: Transport; limits: ImageLimits; clock: Clock }
type Emit = (line: ProgressMessage) => void;

const MAX_INDEX_DEPTH = 3;

export async function pullImage(parts: PullParts, request: PullRequest, auth: RegistryAuth | undefined, emit: Emit, signal: AbortSignal): Promise<{image: NodeImage; upToDate: boolean}> {
  const reference = parseImageName(request.reference);
  const {store, transport, limits, clock} = parts;
  const repository = new Repository({transport, reference, auth, limits, clock, signal});
  const hold = await store.hold('pull');
  let done = false;
  try {
    const platform = request.platform === undefined ? nodePlatform() : parsePlatform(request.platform);
    const {manifest, fetched, resolvedDigest} = await findManifest(parts, repository, reference, platform);
    const config = await fetchConfig(parts, hold, repository, manifest);
    checkPlatform(config, request, reference, platform);
    await fetchLayers(parts, hold, repository, reference, manifest, config, emit, signal);
    const labels = sourceLabel(reference);
    const result = await recordImage(store, hold, {account: request.account, manifestBytes: fetched.bytes, manifest, config, labels});
    done = true;
    return {image: {...result.image, resolvedDigest, references: []}, upToDate: result.upToDate};
  } finally {
    await hold.release(!done).catch(() => undefined);
  }
}

async function findManifest(parts: PullParts, repository: Repository, reference: Reference, platform: Platform): Promise<{manifest: Manifest; fetched: FetchedManifest; resolvedDigest: string}> {
  let fetched = await fetchManifest(parts, repository, reference);
  const resolvedDigest = fetched.digest;
  for (let depth = 0; depth < MAX_INDEX_DEPTH; depth += 1) {
    const document = parseManifest(fetched.bytes, fetched.mediaType, parts.limits);
    if (document.kind === 'manifest') return {manifest: document.manifest, fetched, resolvedDigest};
    const entry = choosePlatform(document.index.manifests, platform);
    if (!entry) throw new CetusError('notFound', `no matching manifest for ${formatPlatform(platform)} in the manifest list entries`);
    fetched = await local(parts.store, entry) ?? await repository.manifest(entry.digest);
  }
  throw new CetusError('invalid', 'the manifest lists are nested too deeply');
}

/** A tag is resolved by HEAD first: where the manifest is here already, nothing counts against a registry's pull limits. */
async function fetchManifest({store}: PullParts, repository: Repository, reference: Reference): Promise<FetchedManifest> {
  if (reference.digest !== undefined) return repository.manifest(reference.digest);
  const head = await repository.resolve(reference.tag!);
  return head ? await local(store, head) ?? repository.manifest(head.digest) : repository.manifest(reference.tag!);
}

async function local(store: BlobStore, {digest, mediaType}: {digest: string; mediaType: string}): Promise<FetchedManifest | undefined> {
  if ((await store.size(digest)) === undefined) return undefined;
  return {bytes: await store.document(digest), mediaType, digest};
}

async function fetchConfig({store}: PullParts, hold: Hold, repository: Repository, {config, layers}: Manifest): Promise<ImageConfigFile> {
  if (await hold.keepBlob(config.digest)) return parseConfig(await store.document(config.digest), layers.length);
  const bytes = await repository.document(config.digest, config.size);
  const parsed = parseConfig(bytes, layers.length);
  await hold.putDocument(bytes, {});
  return parsed;
}

function checkPlatform(config: ImageConfigFile, request: PullRequest, reference: Reference, wanted: Platform): void {
  if (config.os !== 'linux') throw new CetusError('unsupported', `image operating system ${JSON.stringify(config.os.slice(0, 40))} cannot be used on this platform`);
  // Without a wish, the Engine takes what there is, also another machine's.
  if (request.platform !== undefined) mustBeFor(config, wanted, familiarReference(reference));
}

async function fetchLayers(parts: PullParts, hold: Hold, repository: Repository, reference: Reference, manifest: Manifest, config: ImageConfigFile, emit: Emit, signal: AbortSignal): Promise<void> {
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
        await downloads.fetch(hold, repository, layer, sourceLabel(reference), (bytes) => {
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

/** Tells later pushes and pulls where the blob is known. */
function sourceLabel({registry, repository}: Reference): Record<string, string> {
  const label = `containerd.io/distribution.source.${registry}`;
  return label.length + repository.length < 4000 ? {[label]: repository} : {};
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
