/**
 * AgentImages over containerd: the one place where this room's parts are put together. All calls may run at the same time; each holds what it
 * works on against the collector, and what a dead process held is let go before the first call of the next.
 */
import type {Readable} from 'node:stream';
import {type Clock, systemClock} from '../../base/clock';
import type {TlsMaterial} from '../../base/credentials';
import {CetusError, isCetusError} from '../../base/errors';
import {systemIds, type Ids} from '../../base/ids';
import type {Log} from '../../base/log';
import type {EnsureLine, EnsureRequest, ImportLine, ImportRequest, LoadLine, NodeImage, NodeImages, PullLine, PullRequest, PushLine, PushRequest, RegistryAnswers, RegistryQuestion, SaveRequest} from '../../schema/agent';
import type {ImageConfigFile, RegistryAuth} from '../../schema/docker';
import {DEFAULT_ACCOUNT} from '../../schema/objects';
import type {ContainerdClient} from '../containerd/connect';
import {withLines} from './channel';
import {commitContainer, type CommitRequest} from './commit';
import {Downloads} from './downloads';
import {ensureImage} from './ensure';
import type {AgentImages} from './images';
import {importImage} from './import';
import {Lending, type ImageLending} from './lending';
import {DEFAULT_LIMITS, type ImageLimits} from './limits';
import {loadArchive} from './load';
import {parseConfig, parseManifest} from './manifest';
import {type BlobServing, StoredBlobs} from './peers/serving';
import {pullImage, type PullParts} from './pull';
import {pushImage} from './push';
import {unpackPlan} from './record';
import {askRegistry} from './registry/questions';
import {Transport} from './registry/transport';
import {saveImages} from './save';
import {BlobStore, type ImageRecord} from './store';
import {Unpacker} from './unpack';

export interface AgentImagesOptions {
  containerd: ContainerdClient;
  log: Log;
  clock?: Clock;
  ids?: Ids;
  limits?: Partial<ImageLimits>;
  /** Hosts, "host:port" or CIDRs that may speak plain HTTP, beside 127.0.0.0/8 and localhost. */
  insecureRegistries?: string[];
  /** In a fleet: who this node is to others, and its certificate as it is now. */
  nodeId?(): string;
  peerTls?(): TlsMaterial | undefined;
}

interface Prepared { parentSnapshot: string; config: ImageConfigFile }

/** Configs of images in use, so that starting a container costs one look at containerd. */
const PREPARED_MAX = 256;

export function createAgentImages(options: AgentImagesOptions): AgentImages & {lending: ImageLending; close(): Promise<void>} {
  return new ContainerdImages(options);
}

class ContainerdImages implements AgentImages {
  readonly lending: ImageLending;
  readonly serving: BlobServing;
  private readonly limits: ImageLimits;
  private readonly clock: Clock;
  private readonly log: Log;
  private readonly ids: Ids;
  private readonly store: BlobStore;
  private readonly unpacker: Unpacker;
  private readonly downloads: Downloads;
  private readonly transport: Transport;
  private readonly prepared = new Map<string, Prepared>();
  private readonly blobsOf = new Map<string, string[]>();
  private opened: Promise<void> | undefined;

  constructor(private readonly options: AgentImagesOptions) {
    this.limits = {...DEFAULT_LIMITS, ...options.limits};
    this.clock = options.clock ?? systemClock;
    this.log = options.log;
    this.ids = options.ids ?? systemIds;
    this.store = new BlobStore(options.containerd, this.limits, this.clock, this.ids);
    this.unpacker = new Unpacker(this.store, this.limits, this.clock, this.ids);
    this.downloads = new Downloads(this.limits, this.clock);
    this.lending = new Lending({store: this.store, unpacker: this.unpacker, limits: this.limits, ids: this.ids}, () => this.open());
    this.serving = new StoredBlobs(this.store, this.downloads, this.limits, () => this.open());
    this.transport = new Transport({limits: this.limits, insecureRegistries: options.insecureRegistries});
  }

  async *pull(request: PullRequest, auth: RegistryAuth | undefined, signal: AbortSignal): AsyncGenerator<PullLine> {
    await this.open();
    const started = this.clock.now();
    const result = yield* withLines(signal, (emit, either) => canceledBy(either, pullImage(this.pullParts(), request, auth, emit, either)));
    this.log.info({reference: request.reference, account: request.account, imageId: result.image.imageId, ms: this.clock.now() - started, ...result.taken}, 'image pulled');
    yield {result};
  }

  async *ensure(request: EnsureRequest, auth: RegistryAuth | undefined, signal: AbortSignal): AsyncGenerator<EnsureLine> {
    await this.open();
    const started = this.clock.now();
    const result = yield* withLines(signal, (emit, either) => canceledBy(either, ensureImage(this.pullParts(), request, auth, emit, either)));
    this.log.info({account: request.account, imageId: request.imageId, ms: this.clock.now() - started, ...result.taken}, 'image taken from other nodes');
    yield {result};
  }

  async *load(archive: Readable, signal: AbortSignal, account = DEFAULT_ACCOUNT, platform?: string): AsyncGenerator<LoadLine> {
    await this.open();
    const {store, unpacker, limits, clock} = this;
    const started = clock.now();
    const result = yield* withLines(signal, (emit, either) => canceledBy(either, loadArchive({store, unpacker, limits}, archive, {account, platform}, emit, either)));
    this.log.info({account, imageIds: result.images.map((image) => image.imageId), ms: clock.now() - started}, 'images loaded');
    yield {result};
  }

  async *import(request: ImportRequest, archive: Readable, signal: AbortSignal): AsyncGenerator<ImportLine> {
    await this.open();
    const {store, unpacker, transport, limits, clock} = this;
    const started = clock.now();
    const result = yield* withLines(signal, (emit, either) => canceledBy(either, importImage({store, unpacker, transport, limits, clock}, request, archive, emit, either)));
    this.log.info({account: request.account, imageId: result.image.imageId, ms: clock.now() - started}, 'image imported');
    yield {result};
  }

  async *push(request: PushRequest, auth: RegistryAuth | undefined, signal: AbortSignal): AsyncGenerator<PushLine> {
    await this.open();
    const {store, transport, limits, clock} = this;
    const started = clock.now();
    const result = yield* withLines(signal, (emit, either) => canceledBy(either, pushImage({store, transport, limits, clock}, request, auth, emit, either)));
    this.log.info({reference: request.reference, imageId: request.imageId, ms: clock.now() - started}, 'image pushed');
    yield {result};
  }

  askRegistry<Q extends RegistryQuestion>(question: Q, auth: RegistryAuth | undefined, signal: AbortSignal): Promise<RegistryAnswers[Q['kind']]> {
    const {transport, limits, clock} = this;
    return canceledBy(signal, askRegistry({transport, limits, clock}, question, auth, signal));
  }

  async save(request: SaveRequest, signal: AbortSignal): Promise<Readable> {
    await this.open();
    return saveImages(this.store, request, this.limits, signal);
  }

  async commit(request: CommitRequest): Promise<NodeImage> {
    await this.open();
    const {store, unpacker, limits, ids, clock} = this;
    const started = clock.now();
    const image = await commitContainer({store, unpacker, limits, ids}, request);
    this.log.info({account: request.account, containerId: request.containerId, imageId: image.imageId, ms: clock.now() - started}, 'container committed');
    return image;
  }

  async prepare(imageId: string, manifestDigest: string, {trusting = false}: {trusting?: boolean} = {}): Promise<Prepared> {
    await this.open();
    const key = `${imageId} ${manifestDigest}`;
    const known = this.prepared.get(key);
    if (known && (trusting || known.parentSnapshot === '' || await this.store.snapshotExists(known.parentSnapshot))) return known;
    const prepared = await this.unpackAgain(imageId, manifestDigest);
    this.prepared.set(key, prepared);
    if (this.prepared.size > PREPARED_MAX) this.prepared.delete(this.prepared.keys().next().value!);
    return prepared;
  }

  async remove(imageId: string, account: string): Promise<void> {
    await this.open();
    const records = await this.store.records(imageId);
    const mine = records.filter((record) => record.account === account);
    const last = mine.length === records.length;
    for (const [i, {name}] of mine.entries()) await this.store.unrecord(name, last && i === mine.length - 1);
    if (last) for (const key of this.prepared.keys()) if (key.startsWith(imageId)) this.prepared.delete(key);
  }

  async list(): Promise<string[]> {
    await this.open();
    return [...new Set((await this.store.records()).map((record) => record.imageId))].sort();
  }

  async lacking(): Promise<string[]> {
    await this.open();
    const {lacking} = await this.looked();
    return [...new Set(lacking.map((record) => record.imageId))].sort();
  }

  /** Blobs first, records afterwards: one that is recorded meanwhile is looked at once more before it is said to lack something. */
  private async looked(): Promise<{whole: ImageRecord[]; lacking: ImageRecord[]}> {
    const blobs = await this.store.blobs();
    const whole: ImageRecord[] = [];
    const lacking: ImageRecord[] = [];
    for (const record of await this.store.records()) {
      const parts = await this.partsOf(record.target).catch(() => undefined);
      const missing = parts?.filter((digest) => !blobs.has(digest)) ?? [record.target.digest];
      const sizes = await Promise.all(missing.map((digest) => this.store.size(digest)));
      (sizes.every((size) => size !== undefined) && parts ? whole : lacking).push(record);
    }
    return {whole, lacking};
  }

  /** The blobs of which an image is made. */
  private async partsOf(target: ImageRecord['target']): Promise<string[]> {
    const known = this.blobsOf.get(target.digest);
    if (known) return known;
    const document = parseManifest(await this.store.document(target.digest), target.mediaType, this.limits);
    const parts = [target.digest, ...(document.kind === 'manifest' ? [document.manifest.config, ...document.manifest.layers].map(({digest}) => digest) : [])];
    if (this.blobsOf.size >= PREPARED_MAX) this.blobsOf.delete(this.blobsOf.keys().next().value!);
    this.blobsOf.set(target.digest, parts);
    return parts;
  }

  /** What lacks a blob is not held: nobody could be given it. */
  async held(): Promise<NodeImages> {
    await this.open();
    const [{whole: records}, disk] = await Promise.all([this.looked(), this.store.disk()]);
    return {images: records.map(({account, imageId, target}) => ({account, imageId, manifestDigest: target.digest})), disk};
  }

  async close(): Promise<void> {
    await this.transport.close();
  }

  private pullParts(): PullParts {
    const {store, unpacker, downloads, transport, limits, clock, log, options: {nodeId = () => '', peerTls = () => undefined}} = this;
    return {store, unpacker, downloads, transport, limits, clock, peers: {nodeId, identity: peerTls, limits, clock, log}};
  }

  private open(): Promise<void> {
    if (!this.opened) {
      this.opened = this.store.releaseForgotten();
      this.opened.catch(() => {
        this.opened = undefined;
      });
    }
    return this.opened;
  }

  private async unpackAgain(imageId: string, manifestDigest: string): Promise<Prepared> {
    const document = parseManifest(await this.store.document(manifestDigest), '', this.limits);
    if (document.kind !== 'manifest' || document.manifest.config.digest !== imageId) throw new CetusError('notFound', `${manifestDigest} is not the manifest of ${imageId}`);
    const config = parseConfig(await this.store.document(imageId), document.manifest.layers.length);
    const plan = unpackPlan(document.manifest, config);
    const top = plan.at(-1)?.chainId ?? '';
    if (top === '' || await this.store.snapshotExists(top)) return {parentSnapshot: top, config};
    const hold = await this.store.hold('prepare');
    try {
      for (const step of plan) await this.unpacker.unpack(hold, step, AbortSignal.timeout(this.limits.unpackMs));
      await this.store.label(imageId, this.store.snapshotLabel(top));
    } finally {
      await hold.release(false);
    }
    return {parentSnapshot: top, config};
  }
}

/** Whatever an abort makes fail first, the caller sees that it was canceled. */
async function canceledBy<T>(signal: AbortSignal, work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (err) {
    if (signal.aborted && !isCetusError(err, 'canceled')) throw new CetusError('canceled', 'context canceled', {cause: err});
    throw err;
  }
}
