/**
 * This very image on this node, for an account that has it elsewhere in the datacenter: manifest, config and layers from the nodes that have them,
 * and only what none of them gives from the registry that it once came from. As after a pull, everything was checked and is unpacked, or
 * nothing is left.
 */
import {CetusError} from '../../base/errors';
import type {EnsureRequest, EnsureResult} from '../../schema/agent';
import type {RegistryAuth} from '../../schema/docker';
import {parseReference} from '../../schema/reference';
import {fetchLayers, type Emit} from './layers';
import {parseManifest} from './manifest';
import {Sources} from './peers/sources';
import {fetchConfig, sourceLabel, type PullParts} from './pull';
import {recordImage} from './record';
import {Repository} from './registry/client';

export async function ensureImage(parts: PullParts, request: EnsureRequest, auth: RegistryAuth | undefined, emit: Emit, signal: AbortSignal): Promise<EnsureResult> {
  const {store, transport, limits, clock} = parts;
  const {account, imageId, manifest: target} = request;
  const reference = request.reference === undefined ? undefined : parseReference(request.reference);
  const repository = reference && new Repository({transport, reference, auth, limits, clock, signal});
  const sources = new Sources(parts.peers, request.peers, repository);
  const hold = await store.hold('ensure');
  let done = false;
  try {
    const bytes = await hold.keepBlob(target.digest) ? await store.document(target.digest)
      : await sources.document(target.digest, target.size, signal) ?? (await repository?.manifest(target.digest))?.bytes;
    if (!bytes) throw sources.nobody(target.digest);
    const document = parseManifest(bytes, target.mediaType, limits);
    if (document.kind !== 'manifest' || document.manifest.config.digest !== imageId) throw new CetusError('invalid', `${target.digest} is not the manifest of ${imageId}`);
    const {manifest} = document;
    const config = await fetchConfig(parts, hold, sources, repository, manifest, signal);
    const labels = reference ? sourceLabel(reference) : {};
    await fetchLayers(parts, hold, sources, labels, {manifest, config}, emit, signal);
    const {image, upToDate} = await recordImage(store, hold, {account, manifestBytes: bytes, manifest, config, labels});
    done = true;
    const {taken, complaints} = sources;
    return {image: {...image, resolvedDigest: target.digest, references: []}, upToDate, taken, complaints};
  } finally {
    await sources.close();
    await hold.release(!done).catch(() => undefined);
  }
}
