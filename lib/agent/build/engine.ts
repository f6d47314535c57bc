/**
 * The build engine of one account: started when somebody builds, told before each build what Cetus has, stopped when nobody has built for a while.
 * States: stopped, starting, running; `holds` are the builds under way, and nothing of theirs is taken away under them. What it keeps on disk is
 * a cache: an engine that does not start on it starts without.
 */
import fs from 'node:fs';
import path from 'node:path';
import type {Clock} from '../../base/clock';
import {CetusError} from '../../base/errors';
import type {Ids} from '../../base/ids';
import type {Log} from '../../base/log';
import type {BuildPrepare, BuiltNames, NodeImage, NodeNetwork} from '../../schema/agent';
import type {NetworkAttachment} from '../../schema/container';
import type {Descriptor} from '../../schema/docker';
import {familiarReference, normalizeReference, parseReference} from '../../schema/reference';
import type {BuiltLayer, ImageLending, LentImage} from '../images/lending';
import {chainIds} from '../images/manifest';
import type {LayerToUnpack} from '../images/unpack';
import type {NodeNetworking} from '../network/network';
import {imagesArchive} from './archive';
import type {EngineApi} from './engine-api';
import {LayerStore, type LentLayer} from './layer-store';
import {EngineProcess, places, sweepCgroups, type EngineSettings} from './process';
import {differences, fresh, type CetusImages, type EngineImages, type Known} from './reconcile';
import {tarBytes, tarLength} from './tar-split';
import {beginUnsynced, isLost, writtenOut} from './unsynced';

export interface EngineParts {
  program: string;
  init: string;
  runc: string;
  network: NodeNetworking;
  account: string;
  directory: string;
  cgroup: string;
  insecureRegistries: readonly string[];
  lending: ImageLending;
  clock: Clock;
  ids: Ids;
  log: Log;
  idleMs: number;
}

interface BuildCache { BuildCache: unknown[]; BuilderSize: number }
interface Hold { streams: number; timer: NodeJS.Timeout | undefined }

/** A build whose client is neither connected nor done is given up after this. */
const ABANDONED_MS = 60_000;
/** Up to here missing layers are handed to a running engine, where it could be restarted to find them. */
const HANDED_BYTES = 24 * 1024 * 1024;
/** Builds follow each other; between them nothing is tidied. */
const TIDY_MS = 2_000;
const PARALLEL = 8;

export class BuildEngine {
  private process: EngineProcess | undefined;
  private readonly holds = new Map<string, Hold>();
  private readonly described = new Map<string, LentImage>();
  private readonly store: LayerStore;
  private turn: Promise<unknown> = Promise.resolve();
  private known: Known;
  private taken = new Map<string, string>();
  /** What it was started with. */
  private settings = '';
  private idle: NodeJS.Timeout | undefined;
  private measuring: Promise<BuildCache> | undefined;
  lastUsedMs: number;

  constructor(private readonly parts: EngineParts) {
    this.store = new LayerStore(places(parts.directory).data);
    this.known = read<Known>(this.file('known.json')) ?? {names: {}, ids: []};
    this.lastUsedMs = parts.clock.now();
  }

  get running(): boolean {
    return this.process?.running ?? false;
  }

  get busy(): boolean {
    return this.holds.size > 0;
  }

  /** A hold, to be released; the engine runs and has what Cetus has. */
  async prepare(request: BuildPrepare, room: () => Promise<void>): Promise<string> {
    const hold = this.parts.ids.uuid();
    // From here on nobody stops it for being idle; the others' builds decide whether it may be restarted.
    const alone = (): boolean => [...this.holds.keys()].every((id) => id === hold);
    this.keep(hold);
    try {
      await this.exclusive(() => this.agree(request, alone, room));
      return hold;
    } catch (err) {
      this.release(hold);
      throw err;
    }
  }

  holdsStill(hold: string): boolean {
    return this.holds.has(hold);
  }

  /** While a stream of the hold lasts; `done` may be called more than once. */
  async use(hold: string): Promise<{api: EngineApi; done(): void}> {
    const held = this.holds.get(hold);
    if (!held) throw new CetusError('notFound', 'the build has ended');
    held.streams += 1;
    clearTimeout(held.timer);
    let open = true;
    const done = (): void => {
      if (!open) return;
      open = false;
      held.streams -= 1;
      if (held.streams === 0) this.abandonLater(hold, held);
    };
    // A restart for another build's images may be under way.
    await this.turn.catch(() => undefined);
    if (this.running) return {api: this.process!.api, done};
    done();
    throw new CetusError('unavailable', 'the build engine has ended', {info: {account: this.parts.account}});
  }

  release(hold: string): void {
    const held = this.holds.get(hold);
    if (!held) return;
    clearTimeout(held.timer);
    this.holds.delete(hold);
    this.lastUsedMs = this.parts.clock.now();
    if (this.holds.size > 0) return;
    const later = (ms: number, work: () => Promise<void>): NodeJS.Timeout => setTimeout(() => void work().catch((err: unknown) => this.parts.log.warn({err}, 'an idle build engine')), ms).unref();
    clearTimeout(this.idle);
    this.idle = later(Math.min(TIDY_MS, this.parts.idleMs), async () => {
      await this.exclusive(() => this.tidy());
      if (!this.busy) this.idle = later(this.parts.idleMs, () => this.stop());
    });
  }

  /** What builds made and Cetus may lack: these images, and whatever got a name since. */
  async built(imageIds: string[]): Promise<BuiltNames[]> {
    const {names, digests} = this.look();
    const engine: EngineImages = {names, ids: {has: (id) => this.store.hasImage(id)}};
    const byId = new Map<string, string[]>(imageIds.filter((id) => engine.ids.has(id)).map((id) => [id, [...names].filter(([, of]) => of === id).map(([name]) => name)]));
    for (const [name, id] of fresh(engine, this.known, this.taken)) byId.set(id, [...new Set([...(byId.get(id) ?? []), name])]);
    return [...byId].map(([imageId, of]) => ({imageId, references: of.map(normalizeReference), repoDigests: digests.get(imageId) ?? []}));
  }

  /** The images as images of the account on this node. */
  async take(images: BuiltNames[], signal: AbortSignal): Promise<NodeImage[]> {
    const taken: NodeImage[] = [];
    for (const {imageId, references} of images) {
      const config = this.store.config(imageId);
      if (!config) throw new CetusError('notFound', `No such image: ${imageId}`);
      const {rootfs} = JSON.parse(config.toString('utf8')) as {rootfs?: {diff_ids?: string[]}};
      const diffIds = rootfs?.diff_ids ?? [];
      const known = this.descriptors();
      const layers = chainIds(diffIds).map((chainId, i): BuiltLayer => ({
        diffId: diffIds[i]!, known: known.get(diffIds[i]!),
        length: () => tarLength(this.store.recipe(chainId)), bytes: () => tarBytes(this.store.recipe(chainId), this.store.directory(chainId)),
      }));
      taken.push(await this.parts.lending.take(this.parts.account, {config, layers, references}, signal));
      for (const reference of references) this.taken.set(familiarReference(parseReference(reference)), imageId);
    }
    return taken;
  }

  /** The answer of /system/df about the build cache; of a stopped engine the one that it had at its end. */
  async usage(): Promise<unknown> {
    if (this.running) return await this.measure();
    return read(this.file('usage.json')) ?? {BuildCache: [], BuilderSize: 0};
  }

  async stop(): Promise<void> {
    await this.exclusive(async () => {
      if (this.busy) return;
      await this.end();
      await writtenOut(this.parts.directory);
    });
  }

  /** For the agent's end: whoever builds is cut off. */
  async close(): Promise<void> {
    clearTimeout(this.idle);
    for (const hold of [...this.holds.keys()]) this.release(hold);
    clearTimeout(this.idle);
    await this.exclusive(async () => {
      await this.end();
      await writtenOut(this.parts.directory);
    });
  }

  private async agree(request: BuildPrepare, alone: () => boolean, room: () => Promise<void>): Promise<void> {
    const cetus = cetusImages(request);
    const wanted = JSON.stringify([request.network, request.hostNetwork]);
    if (this.running && wanted !== this.settings && alone()) await this.end();
    const images = await this.describe(request);
    if (!this.running) {
      await room();
      await this.start(request, images);
    } else if (alone() && this.missing(images).reduce((sum, {layer}) => sum + layer.size, 0) > HANDED_BYTES) {
      await this.end();
      await this.start(request, images);
    }
    const {names} = this.look();
    await this.apply(images, differences({names, ids: {has: (id) => this.store.hasImage(id)}}, cetus, this.known, alone()));
    if (alone()) this.taken.clear();
    if (same(this.known, cetus)) return;
    this.known = {names: Object.fromEntries(cetus.names), ids: [...cetus.ids]};
    fs.writeFileSync(this.file('known.json'), JSON.stringify(this.known), {mode: 0o600});
  }

  private look(): {names: EngineImages['names']; digests: ReadonlyMap<string, string[]>} {
    this.api(); // `unavailable` where it has ended
    const {tags, digests} = this.store.names();
    return {names: tags, digests};
  }

  private async describe({images}: BuildPrepare): Promise<Map<string, LentImage>> {
    const wanted = new Map(images.map((image) => [image.imageId, image]));
    for (const id of this.described.keys()) if (!wanted.has(id)) this.described.delete(id);
    await inParallel([...wanted.values()].filter(({imageId}) => !this.described.has(imageId)), async ({imageId, manifest}) => {
      this.described.set(imageId, await this.parts.lending.describe(imageId, manifest));
    });
    return this.described;
  }

  private missing(images: ReadonlyMap<string, LentImage>): LayerToUnpack[] {
    const layers = new Map<string, LayerToUnpack>();
    for (const image of images.values()) for (const layer of image.layers) if (!this.store.has(layer.chainId)) layers.set(layer.chainId, layer);
    return [...layers.values()];
  }

  private async start({network, hostNetwork}: BuildPrepare, images: ReadonlyMap<string, LentImage>): Promise<void> {
    const {log, clock, program, directory, cgroup, init, runc, insecureRegistries} = this.parts;
    const began = clock.now();
    const attachment = stepsAttachment(network);
    const {netnsPath: netns} = await this.parts.network.createSandbox({containerId: this.borrower, hostname: 'build', networks: [network], attachments: [attachment], ports: []});
    const {nameservers} = await this.parts.network.resolvConf([attachment]);
    const settings: EngineSettings = {directory, bridge: network.bridgeName, cgroup, init, runc, insecureRegistries, hostNetwork, netns, nameservers};
    if (isLost(directory)) this.forget('the machine went down before all of it was written');
    else if (!this.store.isWhole()) this.forget('layers that it was lent are gone');
    beginUnsynced(directory);
    for (const fresh of [false, true]) {
      if (fresh) this.forget('it does not start on what it has');
      await this.lend(images);
      try {
        this.process = await EngineProcess.start(program, settings, log);
        break;
      } catch (err) {
        if (fresh) throw err;
        log.warn({err, directory}, 'a build engine does not start');
      }
    }
    this.settings = JSON.stringify([network, hostNetwork]);
    log.info({account: this.parts.account, ms: clock.now() - began}, 'build engine started');
  }

  private async lend(images: ReadonlyMap<string, LentImage>): Promise<void> {
    const missing = new Set(this.missing(images).map((layer) => layer.chainId));
    await inParallel([...images.values()].filter((image) => image.layers.some(({chainId}) => missing.has(chainId))), async (image) => {
      const directories = await this.parts.lending.directories(this.borrower, image);
      this.store.lend(image.layers.map((layer, i): LentLayer => ({chainId: layer.chainId, diffId: layer.diffId, parent: layer.parent, size: directories[i]!.size, directory: directories[i]!.directory})));
    });
    await this.parts.lending.giveBack(this.borrower, (chainId) => this.store.has(chainId));
  }

  private async apply(images: ReadonlyMap<string, LentImage>, {load, tag, untag, remove}: ReturnType<typeof differences>): Promise<void> {
    const api = this.api();
    if (load.length > 0) {
      const lacking = new Set(this.missing(images).map((layer) => layer.chainId));
      await api.progress('POST', '/images/load?quiet=1', imagesArchive(load.map(({imageId, names}) => ({image: images.get(imageId)!, names})), lacking, (digest) => this.parts.lending.blob(digest), this.parts.directory));
    }
    for (const {name, imageId} of tag) {
      const at = name.lastIndexOf(':');
      await api.json('POST', `/images/${encodeURIComponent(imageId)}/tag?repo=${encodeURIComponent(name.slice(0, at))}&tag=${encodeURIComponent(name.slice(at + 1))}`);
    }
    // 409: something of a build, or another image, stands on it. It goes when that goes.
    for (const name of untag) await api.json('DELETE', `/images/${encodeURIComponent(name)}?force=1`, {accept: [404, 409]});
    for (const id of remove) await api.json('DELETE', `/images/${encodeURIComponent(id)}?force=1`, {accept: [404, 409]});
  }

  /** Nobody builds: what failed steps left goes, for nobody could ask for it; and what the cache holds is written down for when the engine is not there to ask. */
  private async tidy(): Promise<void> {
    if (this.busy || !this.running) return;
    for (const what of ['containers', 'volumes']) await this.api().json('POST', `/${what}/prune`);
    fs.writeFileSync(this.file('usage.json'), JSON.stringify(await this.measure()), {mode: 0o600});
  }

  /** The engine refuses who asks while it counts for another: all are told the same. */
  private measure(): Promise<BuildCache> {
    return (this.measuring ??= this.api().json('GET', '/system/df').then(buildCache).finally(() => { this.measuring = undefined; }));
  }

  private async end(): Promise<void> {
    clearTimeout(this.idle);
    const {process} = this;
    if (!process) return;
    await process.end();
    this.process = undefined;
    sweepCgroups(this.parts.cgroup);
    await this.parts.network.removeSandbox(this.borrower);
  }

  private forget(why: string): void {
    this.parts.log.warn({account: this.parts.account, why}, 'a build engine begins anew, without its cache');
    fs.rmSync(places(this.parts.directory).data, {recursive: true, force: true});
    this.known = {names: {}, ids: []};
    for (const of of ['known.json', 'usage.json']) fs.rmSync(this.file(of), {force: true});
  }

  private descriptors(): Map<string, Descriptor> {
    return new Map([...this.described.values()].flatMap(({layers}) => layers.map(({diffId, layer}) => [diffId, layer] as const)));
  }

  private keep(hold: string): void {
    clearTimeout(this.idle);
    this.holds.set(hold, {streams: 0, timer: undefined});
    this.abandonLater(hold, this.holds.get(hold)!);
  }

  private abandonLater(hold: string, held: Hold): void {
    clearTimeout(held.timer);
    if (!this.holds.has(hold)) return;
    held.timer = setTimeout(() => this.release(hold), ABANDONED_MS);
    held.timer.unref();
  }

  private api(): EngineApi {
    if (!this.process?.running) throw new CetusError('unavailable', 'the build engine has ended');
    return this.process.api;
  }

  private get borrower(): string {
    return `cetus-build-${path.basename(this.parts.directory)}`;
  }

  private file(name: string): string {
    return path.join(this.parts.directory, name);
  }

  private exclusive<T>(work: () => Promise<T>): Promise<T> {
    const next = this.turn.catch(() => undefined).then(work);
    this.turn = next.catch(() => undefined);
    return next;
  }
}

/** The last address of the subnet: dockerd gives those of its own bridge from the first on. */
function stepsAttachment({id, name, subnet, gateway, internal}: NodeNetwork): NetworkAttachment {
  const [base, length] = subnet.split('/') as [string, string];
  const number = base.split('.').reduce((sum, byte) => sum * 256 + Number(byte), 0) + 2 ** (32 - Number(length)) - 2;
  const bytes = [24, 16, 8, 0].map((shift) => Math.floor(number / 2 ** shift) % 256);
  return {
    networkId: id, networkName: name, endpointId: id, address: bytes.join('.'), prefixLength: Number(length), gateway, internal, isDefaultRoute: true, aliases: [],
    mac: ['02', '42', ...bytes.map((byte) => byte.toString(16).padStart(2, '0'))].join(':'),
  };
}

function cetusImages({images}: BuildPrepare): CetusImages {
  const names = new Map<string, string>();
  for (const {imageId, references} of images)
    for (const reference of references.map(parseReference)) if (reference.tag !== undefined && reference.digest === undefined) names.set(familiarReference(reference), imageId);
  return {names, ids: new Set(images.map(({imageId}) => imageId))};
}

function same(known: Known, {names, ids}: CetusImages): boolean {
  return known.ids.length === ids.size && known.ids.every((id) => ids.has(id))
    && Object.keys(known.names).length === names.size && [...names].every(([name, id]) => known.names[name] === id);
}

const buildCache = (df: unknown): BuildCache => {
  const {BuildCache, BuilderSize} = df as {BuildCache?: unknown[] | null; BuilderSize?: number};
  return {BuildCache: BuildCache ?? [], BuilderSize: BuilderSize ?? 0};
};

async function inParallel<T>(items: readonly T[], work: (item: T) => Promise<void>): Promise<void> {
  const queue = items.values();
  await Promise.all(Array.from({length: PARALLEL}, async () => {
    for (const item of queue) await work(item);
  }));
}

function read<T>(file: string): T | undefined {
  try {
    return JSON.parse(fs.readFileSync(file, 'utf8')) as T;
  } catch {
    return undefined;
  }
}
