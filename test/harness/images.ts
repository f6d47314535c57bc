/**
 * Images without an engine: layers from lists of files, images from layers, archives and registries from images. Everything is deterministic:
 * the same call gives the same digests. All in memory; the largest that tests use is 200 MB.
 */
import {execFileSync} from 'node:child_process';
import {createHash, createCipheriv} from 'node:crypto';
import fs from 'node:fs';
import {gzipSync} from 'node:zlib';
import {pack, type Header} from 'tar-stream';
import type {Descriptor, ImageConfigFile} from '../../lib/schema/docker';
import {MEDIA} from '../../lib/agent/images/manifest';

export type LayerCompression = 'none' | 'gzip' | 'zstd';
export interface LayerEntry extends Partial<Header> { name: string; content?: Buffer | string }
export interface BuiltLayer { bytes: Buffer; digest: string; diffId: string; mediaType: string }
export interface BuiltImage { config: Buffer; manifest: Buffer; layers: BuiltLayer[]; imageId: string; digest: string; descriptor: Descriptor }

export function digestOf(bytes: Buffer | string): string {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
}

export async function tarOf(entries: LayerEntry[]): Promise<Buffer> {
  const out = pack();
  const chunks: Buffer[] = [];
  const collected = (async () => {
    for await (const chunk of out) chunks.push(chunk as Buffer);
  })();
  for (const {content, ...header} of entries) {
    const body = Buffer.from(content ?? '');
    out.entry({mode: header.type === 'directory' ? 0o755 : 0o644, mtime: new Date(0), ...header, size: body.length}, body);
  }
  out.finalize();
  await collected;
  return Buffer.concat(chunks);
}

const TYPES: Record<'oci' | 'docker', Record<LayerCompression, string>> = {
  oci: {none: MEDIA.ociLayer, gzip: MEDIA.ociLayerGzip, zstd: MEDIA.ociLayerZstd},
  docker: {none: MEDIA.dockerLayer, gzip: MEDIA.dockerLayerGzip, zstd: MEDIA.dockerLayerZstd},
};

/** From files, or from the bytes of a tar. */
export async function buildLayer(entries: LayerEntry[] | Buffer, compression: LayerCompression = 'gzip', format: 'oci' | 'docker' = 'docker'): Promise<BuiltLayer> {
  const tar = Buffer.isBuffer(entries) ? entries : await tarOf(entries);
  const bytes = compression === 'gzip' ? gzipSync(tar, {level: 1}) : compression === 'zstd' ? zstd(tar) : tar;
  return {bytes, digest: digestOf(bytes), diffId: digestOf(tar), mediaType: TYPES[format][compression]};
}

export function zstd(bytes: Buffer): Buffer {
  return execFileSync('zstd', ['-cq', '-1'], {input: bytes, maxBuffer: 1 << 30});
}

export interface ImageOptions { format?: 'oci' | 'docker'; config?: ImageConfigFile['config']; platform?: {os: string; architecture: string; variant?: string}; diffIds?: string[] }

export function buildImage(layers: BuiltLayer[], options: ImageOptions = {}): BuiltImage {
  const {format = 'docker', platform = {os: 'linux', architecture: process.arch === 'arm64' ? 'arm64' : 'amd64'}} = options;
  const config = Buffer.from(JSON.stringify({
    ...platform, created: '2026-01-01T00:00:00Z', config: {Env: ['PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'], Cmd: ['sh'], ...options.config},
    rootfs: {type: 'layers', diff_ids: options.diffIds ?? layers.map((l) => l.diffId)},
    history: layers.map((_, i) => ({created: '2026-01-01T00:00:00Z', created_by: `ADD layer ${i} /`})),
  } satisfies ImageConfigFile));
  const manifest = Buffer.from(JSON.stringify({
    schemaVersion: 2, mediaType: format === 'oci' ? MEDIA.ociManifest : MEDIA.dockerManifest,
    config: {mediaType: format === 'oci' ? MEDIA.ociConfig : MEDIA.dockerConfig, size: config.length, digest: digestOf(config)},
    layers: layers.map(({mediaType, bytes, digest}) => ({mediaType, size: bytes.length, digest})),
  }));
  const descriptor = {mediaType: format === 'oci' ? MEDIA.ociManifest : MEDIA.dockerManifest, digest: digestOf(manifest), size: manifest.length, platform};
  return {config, manifest, layers, imageId: digestOf(config), digest: descriptor.digest, descriptor};
}

export function buildIndex(images: BuiltImage[], format: 'oci' | 'docker' = 'docker'): {bytes: Buffer; digest: string; mediaType: string} {
  const mediaType = format === 'oci' ? MEDIA.ociIndex : MEDIA.dockerList;
  const bytes = Buffer.from(JSON.stringify({schemaVersion: 2, mediaType, manifests: images.map((image) => image.descriptor)}));
  return {bytes, digest: digestOf(bytes), mediaType};
}

/** The distribution's static busybox with all its applets, a few users and the usual directories. */
export async function busyboxLayer(compression: LayerCompression = 'gzip'): Promise<BuiltLayer> {
  const program = ['/bin/busybox', '/usr/bin/busybox'].find((f) => fs.existsSync(f));
  if (!program) throw new Error('busybox-static is not installed');
  const applets = execFileSync(program, ['--list-full'], {encoding: 'utf8'}).trim().split('\n').filter((a) => a.includes('/') && a !== 'bin/busybox').sort();
  return buildLayer([
    ...['bin', 'dev', 'etc', 'home', 'proc', 'root', 'run', 'sbin', 'sys', 'usr', 'usr/bin', 'usr/sbin', 'var'].map((name) => ({name: `${name}/`, type: 'directory' as const})),
    {name: 'tmp/', type: 'directory', mode: 0o1777},
    {name: 'bin/busybox', mode: 0o755, content: fs.readFileSync(program)},
    {name: 'etc/passwd', content: 'root:x:0:0:root:/root:/bin/sh\nwww:x:33:33:www:/var:/bin/false\nnobody:x:65534:65534:nobody:/:/bin/false\n'},
    {name: 'etc/group', content: 'root:x:0:\nwww:x:33:\nextra:x:50:www\nnogroup:x:65534:\n'},
    ...applets.map((name) => ({name, type: 'symlink' as const, mode: 0o777, linkname: '/bin/busybox'})),
  ], compression);
}

/** Bytes that no compression makes smaller; the same for the same seed. */
export function noise(bytes: number, seed = 1): Buffer {
  const key = createHash('sha256').update(`noise ${seed}`).digest();
  return createCipheriv('aes-256-ctr', key, Buffer.alloc(16)).update(Buffer.alloc(bytes));
}

/** As large as asked, in layers of many files: half text-like (it compresses), half noise. */
export async function bigLayers(totalBytes: number, layers: number, compression: LayerCompression = 'gzip'): Promise<BuiltLayer[]> {
  const fileBytes = 256 * 1024;
  return Promise.all(Array.from({length: layers}, (_, l) => {
    const files = Math.max(1, Math.round(totalBytes / layers / fileBytes));
    return buildLayer([
      {name: `data${l}/`, type: 'directory'},
      ...Array.from({length: files}, (_f, f) => ({name: `data${l}/file${f}`, content: f % 2 ? noise(fileBytes, l * 100_000 + f) : Buffer.alloc(fileBytes, `layer ${l} file ${f} says hello; `)})),
    ], compression);
  }));
}

export interface TaggedImage { image: BuiltImage; tags: string[] }

/** As `docker save` wrote it until 24: ID/layer.tar, CONFIG.json, manifest.json last. Layers must not be compressed. */
export function dockerArchive(images: TaggedImage[]): Promise<Buffer> {
  const hex = (digest: string): string => digest.slice('sha256:'.length);
  const layers = new Map(images.flatMap(({image}) => image.layers.map((layer) => [hex(layer.diffId), layer] as const)));
  return tarOf([
    ...[...layers].flatMap(([id, layer]): LayerEntry[] => [
      {name: `${id}/`, type: 'directory'}, {name: `${id}/VERSION`, content: '1.0'}, {name: `${id}/json`, content: JSON.stringify({id})}, {name: `${id}/layer.tar`, content: layer.bytes}]),
    ...images.map(({image}) => ({name: `${hex(image.imageId)}.json`, content: image.config})),
    {name: 'manifest.json', content: JSON.stringify(images.map(({image, tags}) => ({Config: `${hex(image.imageId)}.json`, RepoTags: tags.length ? tags : null, Layers: image.layers.map((l) => `${hex(l.diffId)}/layer.tar`)})))},
    {name: 'repositories', content: '{}'},
  ]);
}

/** An OCI layout; `without` leaves blobs out. */
export function ociArchive(images: TaggedImage[], without: string[] = []): Promise<Buffer> {
  const blobs = new Map(images.flatMap(({image}) => [[image.digest, image.manifest], [image.imageId, image.config], ...image.layers.map((l) => [l.digest, l.bytes])] as [string, Buffer][]));
  return tarOf([
    {name: 'oci-layout', content: '{"imageLayoutVersion":"1.0.0"}'},
    {name: 'index.json', content: JSON.stringify({schemaVersion: 2, manifests: images.flatMap(({image: {descriptor}, tags}) => (tags.length ? tags : [undefined]).map((name) => ({...descriptor, ...(name ? {annotations: {'io.containerd.image.name': name}} : {})})))})},
    {name: 'blobs/', type: 'directory'}, {name: 'blobs/sha256/', type: 'directory'},
    ...[...blobs].filter(([digest]) => !without.includes(digest)).map(([digest, content]) => ({name: `blobs/sha256/${digest.slice(7)}`, content})),
  ]);
}

/** Pushes an image and, where tags are given, names it. `base` is the registry's URL. */
export async function pushImage(base: string, repository: string, tags: string[], image: BuiltImage, headers: Record<string, string> = {}): Promise<void> {
  for (const [digest, bytes] of [[image.imageId, image.config], ...image.layers.map((l) => [l.digest, l.bytes])] as [string, Buffer][]) await pushBlob(base, repository, digest, bytes, headers);
  await pushManifest(base, repository, [image.digest, ...tags], image.manifest, image.descriptor.mediaType, headers);
}

export async function pushIndex(base: string, repository: string, tags: string[], images: BuiltImage[], headers: Record<string, string> = {}): Promise<string> {
  for (const image of images) await pushImage(base, repository, [], image, headers);
  const index = buildIndex(images);
  await pushManifest(base, repository, tags, index.bytes, index.mediaType, headers);
  return index.digest;
}

async function pushBlob(base: string, repository: string, digest: string, bytes: Buffer, headers: Record<string, string>): Promise<void> {
  if ((await fetch(`${base}/v2/${repository}/blobs/${digest}`, {method: 'HEAD', headers})).status === 200) return;
  const upload = await fetch(`${base}/v2/${repository}/blobs/uploads/`, {method: 'POST', headers});
  if (upload.status !== 202) throw new Error(`the registry refuses an upload: ${upload.status} ${await upload.text()}`);
  const url = new URL(upload.headers.get('location')!, base);
  url.searchParams.set('digest', digest);
  const done = await fetch(url, {method: 'PUT', headers: {...headers, 'content-type': 'application/octet-stream'}, body: new Uint8Array(bytes)});
  if (done.status !== 201) throw new Error(`the registry refuses a blob: ${done.status} ${await done.text()}`);
}

async function pushManifest(base: string, repository: string, names: string[], bytes: Buffer, mediaType: string, headers: Record<string, string>): Promise<void> {
  for (const name of names) {
    const answer = await fetch(`${base}/v2/${repository}/manifests/${name}`, {method: 'PUT', headers: {...headers, 'content-type': mediaType}, body: new Uint8Array(bytes)});
    if (answer.status !== 201) throw new Error(`the registry refuses a manifest: ${answer.status} ${await answer.text()}`);
  }
}
