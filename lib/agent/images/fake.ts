/**
 * AgentImages in memory, for tests of those who use it: no registry, no containerd. What a registry would serve is put in with `publish`;
 * an archive is a JSON document `{"images": ["reference", ...]}`. Counts calls, keeps accounts apart, and fails as the real one does.
 */
import {Readable} from 'node:stream';
import {CetusError} from '../../base/errors';
import {familiarName, familiarReference, normalizeReference, parseImageName, repositoryName} from '../../schema/reference';
import type {LoadLine, NodeImage, PullLine, PullRequest, SaveRequest} from '../../schema/agent';
import type {ImageConfigFile, RegistryAuth} from '../../schema/docker';
import {DEFAULT_ACCOUNT} from '../../schema/objects';
import type {AgentImages} from './images';
import {chainIds, MEDIA, sha256} from './manifest';

export interface FakeImageOptions { layers?: number; config?: ImageConfigFile['config']; architecture?: string }

export class FakeImages implements AgentImages {
  readonly calls: {verb: string; detail: string}[] = [];
  /** A pull waits for it, so that a test can look at what happens meanwhile. */
  gate: Promise<void> = Promise.resolve();
  private readonly registry = new Map<string, NodeImage>();
  private readonly images = new Map<string, NodeImage>();
  private readonly holds = new Map<string, Set<string>>();

  /** Makes an image pullable under the reference; the same reference and options give the same ids. */
  publish(reference: string, options: FakeImageOptions = {}): NodeImage {
    const normalized = normalizeReference(reference);
    const image = fakeImage(normalized, options);
    this.registry.set(normalized, image);
    this.registry.set(`${repositoryName(parseImageName(reference))}@${image.resolvedDigest}`, image);
    return image;
  }

  async *pull(request: PullRequest, _auth: RegistryAuth | undefined, signal: AbortSignal): AsyncGenerator<PullLine> {
    this.calls.push({verb: 'pull', detail: request.reference});
    const image = this.registry.get(request.reference);
    const reference = parseImageName(request.reference);
    if (!image) throw new CetusError('notFound', reference.tag === undefined
      ? `pull access denied for ${familiarName(reference)}, repository does not exist or may require 'docker login': denied: requested access to the resource is denied`
      : `manifest for ${familiarReference(reference)} not found: manifest unknown: manifest unknown`);
    const upToDate = this.holds.get(image.imageId)?.has(request.account) ?? false;
    for (const layer of image.layers) yield {status: upToDate ? 'Already exists' : 'Pulling fs layer', progressDetail: {}, id: shortLayer(layer.digest)};
    await this.gate;
    signal.throwIfAborted();
    if (!upToDate) for (const layer of image.layers) yield {status: 'Pull complete', progressDetail: {}, id: shortLayer(layer.digest)};
    this.hold(image, request.account);
    yield {result: {image, upToDate}};
  }

  async *load(archive: Readable, signal: AbortSignal, account = DEFAULT_ACCOUNT): AsyncGenerator<LoadLine> {
    this.calls.push({verb: 'load', detail: ''});
    const chunks: Buffer[] = [];
    for await (const chunk of archive) chunks.push(Buffer.from(chunk as Buffer));
    signal.throwIfAborted();
    let names: string[];
    try {
      names = (JSON.parse(Buffer.concat(chunks).toString()) as {images: string[]}).images;
    } catch (cause) {
      throw new CetusError('invalid', 'invalid tar header', {cause});
    }
    const images = names.map((name) => ({...fakeImage(normalizeReference(name), {}), references: [normalizeReference(name)]}));
    for (const image of images) this.hold(image, account);
    yield {result: {images}};
  }

  save(request: SaveRequest): Promise<Readable> {
    this.calls.push({verb: 'save', detail: request.images.map((i) => i.imageId).join(',')});
    for (const {imageId} of request.images) this.known(imageId);
    return Promise.resolve(Readable.from([Buffer.from(JSON.stringify({images: request.images.flatMap((i) => i.references)}))]));
  }

  prepare(imageId: string, manifestDigest: string): Promise<{parentSnapshot: string; config: ImageConfigFile}> {
    this.calls.push({verb: 'prepare', detail: imageId});
    return Promise.resolve().then(() => {
      const image = this.known(imageId);
      if (image.manifest.digest !== manifestDigest) throw new CetusError('notFound', `content ${manifestDigest}: not found`);
      return {parentSnapshot: chainIds(image.config.rootfs.diff_ids).at(-1) ?? '', config: image.config};
    });
  }

  remove(imageId: string, account: string): Promise<void> {
    this.calls.push({verb: 'remove', detail: `${account}/${imageId}`});
    const accounts = this.holds.get(imageId);
    accounts?.delete(account);
    if (accounts && accounts.size === 0) {
      this.holds.delete(imageId);
      this.images.delete(imageId);
    }
    return Promise.resolve();
  }

  list(): Promise<string[]> {
    return Promise.resolve([...this.images.keys()].sort());
  }

  private hold(image: NodeImage, account: string): void {
    this.images.set(image.imageId, image);
    const accounts = this.holds.get(image.imageId) ?? new Set();
    this.holds.set(image.imageId, accounts.add(account));
  }

  private known(imageId: string): NodeImage {
    const image = this.images.get(imageId);
    if (!image) throw new CetusError('notFound', `No such image: ${imageId}`);
    return image;
  }
}

/** A well-formed image made of its name alone. */
export function fakeImage(reference: string, options: FakeImageOptions): NodeImage {
  const diffIds = Array.from({length: options.layers ?? 1}, (_, i) => sha256(`${reference} layer ${i}`));
  const config: ImageConfigFile = {
    created: '2026-01-01T00:00:00Z', architecture: options.architecture ?? 'amd64', os: 'linux',
    config: {Cmd: ['sh'], Env: ['PATH=/bin'], ...options.config}, rootfs: {type: 'layers', diff_ids: diffIds},
    history: [{created: '2026-01-01T00:00:00Z', created_by: 'ADD rootfs.tar / # buildkit'}],
  };
  const layers = diffIds.map((diffId) => ({digest: sha256(`${diffId} gz`), mediaType: MEDIA.dockerLayerGzip, size: 1000, diffId, unpackedSize: 4096}));
  const bytes = JSON.stringify(config);
  const digest = sha256(`manifest of ${bytes}`);
  return {
    imageId: sha256(bytes), manifest: {mediaType: MEDIA.dockerManifest, digest, size: 500}, resolvedDigest: digest, config, layers,
    size: layers.length * 4096, references: [],
  };
}

function shortLayer(digest: string): string {
  return digest.slice(7, 19);
}
