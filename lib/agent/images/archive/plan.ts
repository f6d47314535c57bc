/**
 * What images an archive holds: OCI layout (index.json) or docker-archive (manifest.json), as old and new engines and other tools write them.
 * An image may use only blobs that the archive itself brought. Reads small documents through `read`; changes nothing.
 */
import {CetusError, isCetusError} from '../../../base/errors';
import type {Descriptor, ImageConfigFile} from '../../../schema/docker';
import {normalizeReference, parseImageName} from '../../../schema/reference';
import type {ImageLimits} from '../limits';
import {descriptor, json, list, MEDIA, object, parseConfig, parseManifest, type Manifest} from '../manifest';
import {choosePlatform, type Platform} from '../registry/platform';
import {compressionOf} from './decompress';
import {entryName, follow} from './names';
import type {ArchiveContents, StoredFile} from './reader';

export interface PlannedImage { manifestBytes: Buffer; manifest: Manifest; config: ImageConfigFile; references: string[] }
/** A stored document by digest. */
export type ReadDocument = (digest: string) => Promise<Buffer>;

const MAX_IMAGES = 1000;
const NAME_ANNOTATION = 'io.containerd.image.name';
const REF_ANNOTATION = 'org.opencontainers.image.ref.name';

export async function planImages(contents: ArchiveContents, read: ReadDocument, platform: Platform, limits: ImageLimits): Promise<PlannedImage[]> {
  const {documents} = contents;
  const planner = new Planner(contents, read, platform, limits);
  if (documents.has('index.json') && documents.has('oci-layout')) return planner.oci();
  if (documents.has('manifest.json')) return planner.docker();
  if (documents.has('repositories')) throw new CetusError('unsupported', 'invalid archive: the image format from before Docker 1.10 (no manifest.json) is not supported');
  throw new CetusError('invalid', 'invalid archive: neither manifest.json nor an OCI layout (oci-layout, index.json) is in it');
}

class Planner {
  private readonly byDigest: Map<string, StoredFile>;

  constructor(private readonly contents: ArchiveContents, private readonly read: ReadDocument, private readonly platform: Platform, private readonly limits: ImageLimits) {
    this.byDigest = new Map([...contents.files.values()].map((file) => [file.digest, file]));
  }

  async oci(): Promise<PlannedImage[]> {
    const index = object(json(this.contents.documents.get('index.json')!, 'index.json'), 'index.json');
    const entries = list(index.manifests, 'index.json', MAX_IMAGES).map((entry) => descriptor(entry, 'index.json'));
    const names = this.dockerNames();
    const images = new Map<string, PlannedImage>();
    for (const entry of entries) {
      // Attestations and other artifacts stand beside the images.
      if (entry.annotations?.['vnd.docker.reference.type'] !== undefined) continue;
      const image = await this.fromDescriptor(entry);
      const key = `${image.manifest.config.digest} ${image.manifestBytes.toString('utf8')}`;
      const known = images.get(key) ?? image;
      images.set(key, known);
      known.references = [...new Set([...known.references, ...annotated(entry), ...names.get(image.manifest.config.digest) ?? []])];
    }
    return [...images.values()];
  }

  async docker(): Promise<PlannedImage[]> {
    const images: PlannedImage[] = [];
    for (const item of list(json(this.contents.documents.get('manifest.json')!, 'manifest.json'), 'manifest.json', MAX_IMAGES)) {
      const {Config, RepoTags, Layers} = object(item, 'manifest.json');
      const config = this.named(Config);
      const layers = list(Layers ?? [], 'manifest.json', this.limits.layers).map((name) => this.named(name));
      const manifest: Manifest = {
        schemaVersion: 2, mediaType: MEDIA.dockerManifest,
        config: {mediaType: MEDIA.dockerConfig, size: config.size, digest: config.digest} as Descriptor,
        layers: layers.map(({digest, size, head}) => ({mediaType: layerType(head), size, digest})),
      };
      images.push({
        manifest, manifestBytes: Buffer.from(JSON.stringify(manifest)), references: references(RepoTags),
        config: parseConfig(await this.read(config.digest), layers.length),
      });
    }
    return images;
  }

  private async fromDescriptor(entry: Descriptor, depth = 0): Promise<PlannedImage> {
    this.present(entry);
    const bytes = await this.read(entry.digest);
    const document = parseManifest(bytes, entry.mediaType, this.limits);
    if (document.kind === 'index') {
      // `docker save` of a multi-platform image may hold only some of them.
      const here = document.index.manifests.filter((m) => this.byDigest.has(m.digest));
      const chosen = choosePlatform(here, this.platform);
      if (!chosen || depth > 2) throw new CetusError('notFound', `no matching manifest for ${this.platform.os}/${this.platform.architecture} in the archive`);
      return this.fromDescriptor(chosen, depth + 1);
    }
    const {manifest} = document;
    for (const blob of [manifest.config, ...manifest.layers]) this.present(blob);
    return {manifest, manifestBytes: bytes, references: [], config: parseConfig(await this.read(manifest.config.digest), manifest.layers.length)};
  }

  private present({digest, size}: Descriptor): void {
    const file = this.byDigest.get(digest);
    if (!file) throw new CetusError('invalid', `invalid archive: the blob ${digest} is missing`);
    if (file.size !== size) throw new CetusError('invalid', `invalid archive: the blob ${digest} has ${file.size} bytes, not ${size}`);
  }

  private named(name: unknown): StoredFile {
    if (typeof name !== 'string') throw new CetusError('invalid', 'invalid manifest.json: a file name is expected');
    const file = follow(entryName(name), this.contents.files, this.contents.links);
    if (!file) throw new CetusError('invalid', `invalid archive: ${JSON.stringify(name.slice(0, 200))} is missing`);
    return file;
  }

  /** New engines write manifest.json beside index.json; its names count too. */
  private dockerNames(): Map<string, string[]> {
    const bytes = this.contents.documents.get('manifest.json');
    if (!bytes) return new Map();
    return new Map(list(json(bytes, 'manifest.json'), 'manifest.json', MAX_IMAGES).flatMap((item) => {
      const {Config, RepoTags} = object(item, 'manifest.json');
      const config = typeof Config === 'string' ? follow(entryName(Config), this.contents.files, this.contents.links) : undefined;
      return config ? [[config.digest, references(RepoTags)] as const] : [];
    }));
  }
}

function references(tags: unknown): string[] {
  if (tags === null || tags === undefined) return [];
  return list(tags, 'manifest.json', MAX_IMAGES).map((tag) => {
    if (typeof tag !== 'string') throw new CetusError('invalid', 'invalid manifest.json: RepoTags must be names');
    // Whose digest it would be is not for the archive to say.
    if (parseImageName(tag).digest !== undefined) throw new CetusError('invalid', `invalid tag ${JSON.stringify(tag)}`);
    return normalizeReference(tag);
  });
}

// The first is Docker's and containerd's full name; the second is often the tag alone, which names nothing.
function annotated({annotations}: Descriptor): string[] {
  const name = annotations?.[NAME_ANNOTATION] ?? (/[:/]/.test(annotations?.[REF_ANNOTATION] ?? '') ? annotations?.[REF_ANNOTATION] : undefined);
  if (name === undefined) return [];
  try {
    const reference = parseImageName(name);
    return reference.digest === undefined ? [normalizeReference(name)] : [];
  } catch (err) {
    if (isCetusError(err, 'invalid')) return [];
    throw err;
  }
}

function layerType(head: Buffer): string {
  const compression = compressionOf(head);
  return compression === 'gzip' ? MEDIA.dockerLayerGzip : compression === 'zstd' ? MEDIA.dockerLayerZstd : MEDIA.dockerLayer;
}
