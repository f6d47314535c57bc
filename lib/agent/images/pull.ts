/**
 * docker pull on a node: reference -> manifest for the platform -> layers fetched in parallel and unpacked in order -> image record.
 * Emits the layer lines of the Engine's progress stream; "Pulling from", "Digest:" and "Status:" belong to the control plane.
 * A failed pull leaves nothing but, after a network failure, the ingests that the next pull resumes.
 */
import {CetusError} from '../../base/errors';
import type {NodeImage, PeerComplaint, PullRequest, TakenBytes} from '../../schema/agent';
import type {ImageConfigFile, RegistryAuth} from '../../schema/docker';
import {familiarReference, parseImageName, type Reference} from '../../schema/reference';
import {fetchLayers, type Emit, type LayerParts} from './layers';
import {parseConfig, parseManifest, type Manifest} from './manifest';
import {type PeerParts, Sources} from './peers/sources';
import {Repository, type FetchedManifest} from './registry/client';
import {checkPlatform as mustBeFor, choosePlatform, formatPlatform, nodePlatform, parsePlatform, type Platform} from './registry/platform';
import type {Transport} from './registry/transport';
import {recordImage} from './record';
import type {BlobStore, Hold} from './store';

export interface PullParts extends LayerParts { transport: Transport; peers: PeerParts }
export interface Pulled { image: NodeImage; upToDate: boolean; taken?: TakenBytes; complaints?: PeerComplaint[] }

const MAX_INDEX_DEPTH = 3;

export async function pullImage(parts: PullParts, request: PullRequest, auth: RegistryAuth | undefined, emit: Emit, signal: AbortSignal): Promise<Pulled> {
  const reference = parseImageName(request.reference);
  const {store, transport, limits, clock} = parts;
  const repository = new Repository({transport, reference, auth, limits, clock, signal});
  const sources = new Sources(parts.peers, request.peers ?? [], repository);
  const hold = await store.hold('pull');
  let done = false;
  try {
    const platform = request.platform === undefined ? nodePlatform() : parsePlatform(request.platform);
    const {manifest, fetched, resolvedDigest} = await findManifest(parts, sources, repository, reference, platform, signal);
    const config = await fetchConfig(parts, hold, sources, repository, manifest, signal);
    checkPlatform(config, request, reference, platform);
    const labels = sourceLabel(reference);
    await fetchLayers(parts, hold, sources, labels, {manifest, config}, emit, signal);
    const result = await recordImage(store, hold, {account: request.account, manifestBytes: fetched.bytes, manifest, config, labels});
    done = true;
    const {taken, complaints} = sources;
    return {image: {...result.image, resolvedDigest, references: []}, upToDate: result.upToDate, ...(request.peers ? {taken, complaints} : {})};
  } finally {
    await sources.close();
    await hold.release(!done).catch(() => undefined);
  }
}

async function findManifest(parts: PullParts, sources: Sources, repository: Repository, reference: Reference, platform: Platform, signal: AbortSignal): Promise<{manifest: Manifest; fetched: FetchedManifest; resolvedDigest: string}> {
  let fetched = await fetchManifest(parts, sources, repository, reference, signal);
  const resolvedDigest = fetched.digest;
  for (let depth = 0; depth < MAX_INDEX_DEPTH; depth += 1) {
    const document = parseManifest(fetched.bytes, fetched.mediaType, parts.limits);
    if (document.kind === 'manifest') return {manifest: document.manifest, fetched, resolvedDigest};
    const entry = choosePlatform(document.index.manifests, platform);
    if (!entry) throw new CetusError('notFound', `no matching manifest for ${formatPlatform(platform)} in the manifest list entries`);
    fetched = await near(parts.store, sources, entry, signal) ?? await repository.manifest(entry.digest);
  }
  throw new CetusError('invalid', 'the manifest lists are nested too deeply');
}

/** A tag is resolved by HEAD first: where the manifest is here already, nothing counts against a registry's pull limits. */
async function fetchManifest({store}: PullParts, sources: Sources, repository: Repository, reference: Reference, signal: AbortSignal): Promise<FetchedManifest> {
  if (reference.digest !== undefined) return repository.manifest(reference.digest);
  const head = await repository.resolve(reference.tag!);
  return head ? await near(store, sources, head, signal) ?? repository.manifest(head.digest) : repository.manifest(reference.tag!);
}

/** Here, or at a peer. The registry has said that this account may know it. */
async function near(store: BlobStore, sources: Sources, {digest, mediaType}: {digest: string; mediaType: string}, signal: AbortSignal): Promise<FetchedManifest | undefined> {
  const bytes = (await store.size(digest)) === undefined ? await sources.document(digest, undefined, signal) : await store.document(digest);
  return bytes && {bytes, mediaType, digest};
}

export async function fetchConfig({store}: {store: BlobStore}, hold: Hold, sources: Sources, repository: Repository | undefined, {config, layers}: Manifest, signal: AbortSignal): Promise<ImageConfigFile> {
  if (await hold.keepBlob(config.digest)) return parseConfig(await store.document(config.digest), layers.length);
  const bytes = await sources.document(config.digest, config.size, signal) ?? await repository?.document(config.digest, config.size);
  if (!bytes) throw sources.nobody(config.digest);
  const parsed = parseConfig(bytes, layers.length);
  await hold.putDocument(bytes, {});
  return parsed;
}

function checkPlatform(config: ImageConfigFile, request: PullRequest, reference: Reference, wanted: Platform): void {
  if (config.os !== 'linux') throw new CetusError('unsupported', `image operating system ${JSON.stringify(config.os.slice(0, 40))} cannot be used on this platform`);
  // Without a wish, the Engine takes what there is, also another machine's.
  if (request.platform !== undefined) mustBeFor(config, wanted, familiarReference(reference));
}

/** Tells later pushes and pulls where the blob is known. */
export function sourceLabel({registry, repository}: Reference): Record<string, string> {
  const label = `containerd.io/distribution.source.${registry}`;
  return label.length + repository.length < 4000 ? {[label]: repository} : {};
}
