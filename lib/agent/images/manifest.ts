/**
 * Manifests, indexes and configs: told apart, checked, and never trusted. Pure. What a registry or an archive says is taken only where
 * every digest, size and count in it is well formed; everything else is an `invalid` error that names the document.
 */
import {createHash} from 'node:crypto';
import Ajv, {type ValidateFunction} from 'ajv';
import {CetusError} from '../../base/errors';
import type {Config, Descriptor, ImageConfigFile} from '../../schema/docker';
import {IMAGE_CONFIG_SCHEMA} from '../../schema/docker.schema';
import {isDigest} from '../../schema/reference';

export const MEDIA = {
  dockerManifest: 'application/vnd.docker.distribution.manifest.v2+json',
  dockerList: 'application/vnd.docker.distribution.manifest.list.v2+json',
  dockerSchema1: 'application/vnd.docker.distribution.manifest.v1+json',
  dockerSchema1Signed: 'application/vnd.docker.distribution.manifest.v1+prettyjws',
  dockerConfig: 'application/vnd.docker.container.image.v1+json',
  dockerLayer: 'application/vnd.docker.image.rootfs.diff.tar',
  dockerLayerGzip: 'application/vnd.docker.image.rootfs.diff.tar.gzip',
  dockerLayerZstd: 'application/vnd.docker.image.rootfs.diff.tar.zstd',
  ociManifest: 'application/vnd.oci.image.manifest.v1+json',
  ociIndex: 'application/vnd.oci.image.index.v1+json',
  ociConfig: 'application/vnd.oci.image.config.v1+json',
  ociLayer: 'application/vnd.oci.image.layer.v1.tar',
  ociLayerGzip: 'application/vnd.oci.image.layer.v1.tar+gzip',
  ociLayerZstd: 'application/vnd.oci.image.layer.v1.tar+zstd',
} as const;

const MANIFESTS: readonly string[] = [MEDIA.dockerManifest, MEDIA.ociManifest];
const INDEXES: readonly string[] = [MEDIA.dockerList, MEDIA.ociIndex];
const CONFIGS: readonly string[] = [MEDIA.dockerConfig, MEDIA.ociConfig];
/** Layers that containerd's diff service unpacks. Foreign layers (Windows) and anything encrypted are refused. */
const LAYERS: readonly string[] = [MEDIA.dockerLayer, MEDIA.dockerLayerGzip, MEDIA.dockerLayerZstd, MEDIA.ociLayer, MEDIA.ociLayerGzip, MEDIA.ociLayerZstd];

export const ACCEPTED_MANIFESTS = [...MANIFESTS, ...INDEXES].join(', ');

export interface Manifest { schemaVersion: 2; mediaType: string; config: Descriptor; layers: Descriptor[] }
export interface Index { schemaVersion: 2; mediaType: string; manifests: Descriptor[] }
export type ManifestDocument = {kind: 'manifest'; manifest: Manifest} | {kind: 'index'; index: Index};

export function isIndexType(mediaType: string): boolean {
  return INDEXES.includes(mediaType);
}

export function isManifestType(mediaType: string): boolean {
  return MANIFESTS.includes(mediaType);
}

export function sha256(bytes: Buffer | string): string {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
}

/** `mediaType` is what the carrier says (Content-Type, descriptor); the document's own field outranks it, as the Engine decides. */
export function parseManifest(bytes: Buffer, mediaType: string, limits: {layers: number}): ManifestDocument {
  const document = object(json(bytes, 'manifest'), 'manifest');
  const own = typeof document.mediaType === 'string' && document.mediaType !== '' ? document.mediaType : mediaType.split(';')[0].trim();
  if (document.schemaVersion === 1 || own === MEDIA.dockerSchema1 || own === MEDIA.dockerSchema1Signed)
    throw new CetusError('unsupported', 'Docker Image manifest version 2, schema 1 is not supported: upgrade the image to the OCI Format or Docker Image manifest v2, schema 2');
  if (document.schemaVersion !== 2) throw broken('manifest', 'schemaVersion is not 2');
  // The same bytes must not mean an index to one reader and an image to another (CVE-2021-41190).
  if ('manifests' in document && ('layers' in document || 'config' in document)) throw broken('manifest', 'it is both an index and an image');
  if ('manifests' in document) {
    const manifests = list(document.manifests, 'manifests', 1000).map((m) => descriptor(m, 'manifests'));
    return {kind: 'index', index: {schemaVersion: 2, mediaType: isIndexType(own) ? own : MEDIA.ociIndex, manifests}};
  }
  if (own !== '' && !isManifestType(own) && own !== 'application/json' && !own.startsWith('text/')) throw new CetusError('unsupported', `unsupported manifest media type ${printable(own)}`);
  const config = descriptor(document.config, 'config');
  if (!CONFIGS.includes(config.mediaType))
    throw new CetusError('unsupported', `invalid image config media type ${printable(config.mediaType)}: this is not a container image`);
  const layers = list(document.layers, 'layers', limits.layers).map((l) => descriptor(l, 'layers'));
  for (const layer of layers)
    if (!LAYERS.includes(layer.mediaType)) throw new CetusError('unsupported', `unsupported layer media type ${printable(layer.mediaType)}`);
  return {kind: 'manifest', manifest: {schemaVersion: 2, mediaType: isManifestType(own) ? own : MEDIA.ociManifest, config, layers}};
}

/** As JSON writes it: behind an even number of backslashes. No process takes it, and Postgres keeps no text with it. */
const NUL = /(?<!\\)(?:\\\\)*\\u0000/;
/** Compiled at the first image: agents that only run containers need it not. */
let validConfig: ValidateFunction | undefined;

/**
 * The config of an image of `layerCount` layers; refused where its diff ids do not match them in number. Types as Go's decoder demands them of
 * the Engine: what is stored is read by everybody, and not looked at again.
 */
export function parseConfig(bytes: Buffer, layerCount: number): ImageConfigFile {
  const document = object(json(bytes, 'image config'), 'image config');
  validConfig ??= new Ajv({allowUnionTypes: true}).compile(IMAGE_CONFIG_SCHEMA);
  if (!validConfig(document)) {
    const [error] = validConfig.errors!;
    throw broken('image config', `${error!.instancePath.slice(1, 200).replaceAll('/', '.') || 'it'} ${error!.message}`);
  }
  const {created, config, history, rootfs} = document as unknown as ImageConfigFile;
  for (const time of [created, ...(history ?? []).map((step) => step.created)])
    if (time && Number.isNaN(Date.parse(time))) throw broken('image config', `${JSON.stringify(time.slice(0, 100))} is no time`);
  if (NUL.test(JSON.stringify([config, history]))) throw broken('image config', 'its text has a NUL');
  const diffIds = list(rootfs.diff_ids ?? [], 'diff_ids', layerCount);
  if (!diffIds.every((id) => typeof id === 'string' && isDigest(id))) throw broken('image config', 'diff_ids must be digests');
  if (diffIds.length !== layerCount)
    throw new CetusError('invalid', `mismatched image rootfs and manifest layers: ${diffIds.length} diff ids, ${layerCount} layers`);
  return {...document, ...(config ? {config: withLists(config)} : {}), rootfs: {type: 'layers', diff_ids: diffIds}} as unknown as ImageConfigFile;
}

/** One string may stand for a list of one. */
function withLists(config: Config): Config {
  const words = (['Entrypoint', 'Cmd', 'Shell'] as const).filter((name) => typeof config[name] === 'string');
  return {...config, ...Object.fromEntries(words.map((name) => [name, [config[name]]]))};
}

/** Chain ids of all layers, bottom first: the names of their snapshots. */
export function chainIds(diffIds: string[]): string[] {
  const chain: string[] = [];
  for (const diffId of diffIds) chain.push(chain.length === 0 ? diffId : sha256(`${chain[chain.length - 1]} ${diffId}`));
  return chain;
}

/** Labels by which containerd's garbage collector finds what a manifest needs. */
export function manifestGcLabels(manifest: Manifest): Record<string, string> {
  return {
    'containerd.io/gc.ref.content.config': manifest.config.digest,
    ...Object.fromEntries(manifest.layers.map((layer, i) => [`containerd.io/gc.ref.content.l.${i}`, layer.digest])),
  };
}

export function json(bytes: Buffer, what: string): unknown {
  try {
    return JSON.parse(bytes.toString('utf8')) as unknown;
  } catch (cause) {
    throw new CetusError('invalid', `invalid ${what}: not JSON`, {cause});
  }
}

export function object(value: unknown, what: string): Record<string, unknown> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw broken(what, 'an object is expected');
  return value as Record<string, unknown>;
}

export function list(value: unknown, what: string, most: number): unknown[] {
  if (!Array.isArray(value)) throw broken(what, 'a list is expected');
  if (value.length > most) throw broken(what, `${value.length} entries, at most ${most} are accepted`);
  return value as unknown[];
}

/** Only known fields are taken over: a descriptor's `urls` and `data` are other people's ways in. */
export function descriptor(value: unknown, what: string): Descriptor {
  const d = object(value, what);
  if (typeof d.mediaType !== 'string') throw broken(what, 'mediaType is missing');
  if (typeof d.digest !== 'string' || !isDigest(d.digest)) throw broken(what, `invalid digest ${printable(String(d.digest))}`);
  if (!Number.isSafeInteger(d.size) || (d.size as number) < 0) throw broken(what, 'invalid size');
  const result: Descriptor = {mediaType: d.mediaType, digest: d.digest, size: d.size as number};
  if (d.platform !== undefined && d.platform !== null) {
    const p = object(d.platform, what);
    if (typeof p.os === 'string' && typeof p.architecture === 'string')
      result.platform = {os: p.os, architecture: p.architecture, ...(typeof p.variant === 'string' && p.variant !== '' ? {variant: p.variant} : {})};
  }
  if (d.annotations !== undefined && d.annotations !== null) {
    const entries = Object.entries(object(d.annotations, what)).filter((e): e is [string, string] => typeof e[1] === 'string');
    result.annotations = Object.fromEntries(entries);
  }
  return result;
}

function broken(what: string, why: string): CetusError {
  return new CetusError('invalid', `invalid ${what}: ${why}`);
}

function printable(text: string): string {
  return JSON.stringify(text.slice(0, 120));
}
