/**
 * Blobs and image records in containerd, as this room needs them. Whatever is made is made under a `Hold` (a containerd lease): it lives
 * until the hold is released, and longer only where an image record has come to refer to it. Promises: no blob is ever readable whose bytes
 * do not have its digest; memory of one write is bounded by WINDOW messages; every wait has a deadline.
 */
import fs from 'node:fs/promises';
import {Readable} from 'node:stream';
import type {Clock} from '../../base/clock';
import {CetusError, isCetusError} from '../../base/errors';
import type {Ids} from '../../base/ids';
import type {Descriptor} from '../../schema/docker';
import type {ContainerdClient} from '../containerd/connect';
import {hasStatus} from '../containerd/status';
import type {ImageLimits} from './limits';
import {sha256} from './manifest';
import type {BlobSink} from './downloads';
import {openSink} from './placed-blob';

export const SNAPSHOTTER = 'overlayfs';

/** An account's claim on an image, as a containerd image record: a root of the garbage collector. */
export interface ImageRecord { name: string; account: string; imageId: string; target: Descriptor }

const ACCOUNT_LABEL = 'cetus/account';
const IMAGE_LABEL = 'cetus/image';
/** Holds that a dead agent left behind end by themselves. */
const HOLD_MS = 24 * 60 * 60_000;
const HOLD_LABEL = 'cetus/hold';
/** Keeps the ingests of half-fetched layers, whoever fetched them. It ends after a day, and takes what is left in it along. */
const PARTIAL_LEASE = 'cetus-partial';
const PARTIAL_MS = 24 * 60 * 60_000;
const PARTIAL_REF = /^layer-sha256:[0-9a-f]{64}$/;

export class BlobStore {
  /** Tells this process's holds from those of its predecessor. */
  private readonly process: string;
  private root: Promise<string | undefined> | undefined;
  /** A failed one stays: the blob is not to be trusted before the agent starts anew. */
  private readonly flushes = new Map<string, Promise<void>>();

  constructor(readonly client: ContainerdClient, readonly limits: ImageLimits, private readonly clock: Clock, private readonly ids: Ids) {
    this.process = ids.uuid();
  }

  async hold(purpose: string): Promise<Hold> {
    const id = `cetus-${purpose}-${this.ids.uuid()}`;
    await this.client.leases.create({id, labels: {[HOLD_LABEL]: this.process, 'containerd.io/gc.expire': new Date(this.clock.now() + HOLD_MS).toISOString()}});
    return new Hold(id, this);
  }

  /** Lets go of what a dead predecessor held: half-made snapshots and blobs without an image. One agent serves a namespace. */
  async releaseForgotten(): Promise<void> {
    const {leases} = await this.client.leases.list({filters: [`labels."${HOLD_LABEL}"`]});
    for (const {id, labels} of leases) {
      if (labels[HOLD_LABEL] === this.process) continue;
      // What it was fetching when it died can be resumed.
      const {resources} = await found(this.client.leases.listResources({id})) ?? {resources: []};
      for (const resource of resources) if (resource.type === 'ingests' && PARTIAL_REF.test(resource.id)) await this.keepPartial(resource.id);
      // At once: what it had not yet flushed to disk must not be taken for whole.
      await found(this.client.leases.delete({id, sync: true}));
    }
  }

  async keepPartial(ref: string): Promise<void> {
    const labels = {'containerd.io/gc.expire': new Date(this.clock.now() + PARTIAL_MS).toISOString()};
    for (let tries = 1; ; tries += 1) {
      try {
        await this.client.leases.create({id: PARTIAL_LEASE, labels});
      } catch (err) {
        if (!hasStatus(err, 'ALREADY_EXISTS')) throw err;
      }
      try {
        await this.client.leases.addResource({id: PARTIAL_LEASE, resource: {id: ref, type: 'ingests'}});
        return;
      } catch (err) {
        // It expired and was collected between the two calls.
        if (!isCetusError(err, 'notFound') || tries > 1) throw err;
      }
    }
  }

  /** No pull will resume this any more: it is a blob now, or was given up. The last one takes the lease along. */
  async forgetPartial(ref: string): Promise<void> {
    await found(this.client.leases.deleteResource({id: PARTIAL_LEASE, resource: {id: ref, type: 'ingests'}}));
    const rest = await found(this.client.leases.listResources({id: PARTIAL_LEASE}));
    if (rest?.resources.length === 0) await found(this.client.leases.delete({id: PARTIAL_LEASE}));
  }

  /** Where the content store keeps its files, if containerd tells. */
  contentRoot(): Promise<string | undefined> {
    this.root ??= this.client.introspection.plugins({filters: ['type==io.containerd.content.v1']}).then(({plugins}) => plugins[0]?.exports.root, () => undefined);
    return this.root;
  }

  async disk(): Promise<{totalBytes: number; freeBytes: number}> {
    const root = await this.contentRoot();
    const disk = root === undefined ? undefined : await fs.statfs(root).catch(() => undefined);
    return disk ? {totalBytes: disk.blocks * disk.bsize, freeBytes: disk.bavail * disk.bsize} : {totalBytes: 0, freeBytes: 0};
  }

  /** `noSpace` where the disk of the content store could not take so many bytes more. */
  async ensureSpace(bytes: number): Promise<void> {
    const root = await this.contentRoot();
    if (root === undefined) return;
    // Another machine's containerd, or another mount namespace: the disk cannot be looked at from here.
    const disk = await fs.statfs(root).catch(() => undefined);
    if (disk && disk.bavail * disk.bsize - bytes < this.limits.freeDiskBytes) throw new CetusError('noSpace', `write ${root}: no space left on device`);
  }

  /** The blob is in use before it is on disk: whoever records an image of it waits with `flushed`. */
  flushing(digest: string, flush: Promise<void>): void {
    this.flushes.set(digest, flush);
    flush.then(() => {
      if (this.flushes.get(digest) === flush) this.flushes.delete(digest);
    }, () => undefined);
  }

  /** A power cut after this leaves these blobs whole. */
  async flushed(digests: string[]): Promise<void> {
    await Promise.all(digests.map((digest) => this.flushes.get(digest)));
  }

  snapshotLabel(chainId: string): Record<string, string> {
    return {[`containerd.io/gc.ref.snapshot.${SNAPSHOTTER}`]: chainId};
  }

  async blobs(): Promise<Set<string>> {
    const digests = new Set<string>();
    for await (const {info} of this.client.content.list({})) for (const {digest} of info) digests.add(digest);
    return digests;
  }

  /** Size of a blob that is here, or undefined. */
  async size(digest: string): Promise<number | undefined> {
    return (await found(this.client.content.info({digest})))?.info.size;
  }

  async labels(digest: string): Promise<Record<string, string>> {
    return (await found(this.client.content.info({digest})))?.info.labels ?? {};
  }

  /** A JSON document whole; refused where it is longer than any document may be. */
  async document(digest: string): Promise<Buffer> {
    const size = await this.size(digest);
    if (size === undefined) throw new CetusError('notFound', `content ${digest}: not found`);
    if (size > this.limits.documentBytes) throw new CetusError('invalid', `the document ${digest} is larger than ${this.limits.documentBytes} bytes`);
    const chunks: Buffer[] = [];
    for await (const {data} of this.client.content.read({digest}, {deadlineMs: this.limits.stallMs})) chunks.push(data);
    return Buffer.concat(chunks);
  }

  stream(digest: string, signal?: AbortSignal, range: {offset?: number; size?: number} = {}): Readable {
    const read = this.client.content.read({digest, ...range}, {signal});
    return Readable.from((async function* chunks() {
      for await (const {data} of read) yield data;
    })(), {objectMode: false});
  }

  async label(digest: string, labels: Record<string, string>): Promise<void> {
    const entries = Object.keys(labels);
    if (entries.length === 0) return;
    await this.client.content.update({info: {digest, labels}, updateMask: {paths: entries.map((key) => `labels.${key}`)}});
  }

  async snapshotExists(key: string): Promise<boolean> {
    return (await found(this.client.snapshots.stat({snapshotter: SNAPSHOTTER, key}))) !== undefined;
  }

  /** Bytes on disk of one committed layer. */
  async snapshotSize(key: string): Promise<number> {
    return (await this.client.snapshots.usage({snapshotter: SNAPSHOTTER, key})).size;
  }

  async records(imageId?: string): Promise<ImageRecord[]> {
    const {images} = await this.client.images.list({filters: imageId === undefined ? [`labels."${IMAGE_LABEL}"`] : [`labels."${IMAGE_LABEL}"=="${imageId}"`]});
    return images.map(({name, labels, target}) => ({name, account: labels?.[ACCOUNT_LABEL] ?? '', imageId: labels?.[IMAGE_LABEL] ?? '', target}));
  }

  /** True where the account already held this very image. */
  async record(account: string, imageId: string, target: Descriptor): Promise<boolean> {
    const name = `${account}/${imageId}@${target.digest}`;
    try {
      await this.client.images.create({image: {name, target: {mediaType: target.mediaType, digest: target.digest, size: target.size}, labels: {[ACCOUNT_LABEL]: account, [IMAGE_LABEL]: imageId}}});
      return false;
    } catch (err) {
      if (hasStatus(err, 'ALREADY_EXISTS')) return true;
      throw err;
    }
  }

  /** `sync`: returns when the garbage collector has run. */
  async unrecord(name: string, sync: boolean): Promise<void> {
    await found(this.client.images.delete({name, sync}));
  }
}

export class Hold {
  readonly client: ContainerdClient;

  constructor(readonly id: string, private readonly store: BlobStore) {
    this.client = store.client.withLease(id);
  }

  /** Keeps a blob that is already here; false where it is not (any more). */
  async keepBlob(digest: string): Promise<boolean> {
    if ((await this.store.size(digest)) === undefined) return false;
    await this.keep(digest, 'content');
    // The collector may have run between the look and the hold.
    return (await this.store.size(digest)) !== undefined;
  }

  async keepSnapshot(key: string): Promise<boolean> {
    if (!(await this.store.snapshotExists(key))) return false;
    await this.keep(key, `snapshots/${SNAPSHOTTER}`);
    return this.store.snapshotExists(key);
  }

  /** Writes a small document; one that is already here is kept. Labels are set either way. */
  async putDocument(bytes: Buffer, labels: Record<string, string>): Promise<string> {
    const digest = sha256(bytes);
    if (await this.keepBlob(digest)) {
      await this.store.label(digest, labels);
      return digest;
    }
    const writer = await this.writer(`document-${digest}`, bytes.length, digest);
    if (writer) {
      try {
        // All bytes may be there already: another namespace's copy, or a write that a crash cut off before its commit.
        if (writer.offset !== bytes.length) {
          await writer.restart();
          await writer.write(bytes);
        }
        await writer.commit(labels);
        return digest;
      } catch (err) {
        await writer.close();
        await this.abort(`document-${digest}`);
        throw err;
      }
    }
    await this.keepBlob(digest);
    await this.store.label(digest, labels);
    return digest;
  }

  /** Opens (or resumes) the write `ref`; undefined where the expected blob is already here. */
  async writer(ref: string, total: number | undefined, expected: string | undefined): Promise<BlobSink | undefined> {
    return openSink(this.client, await this.store.contentRoot(), {
      ref, total, expected, stallMs: this.store.limits.stallMs, commitMs: this.store.limits.unpackMs, flushing: (digest, flush) => this.store.flushing(digest, flush)});
  }

  async abort(ref: string): Promise<void> {
    await found(this.client.content.abort({ref}));
  }

  postpone(ref: string): Promise<void> {
    return this.store.keepPartial(ref);
  }

  forget(ref: string): Promise<void> {
    return this.store.forgetPartial(ref);
  }

  /** `collect`: also waits until the collector has taken what nothing refers to (after a failure: nothing is left behind). */
  async release(collect: boolean): Promise<void> {
    await found(this.store.client.leases.delete({id: this.id, sync: collect}));
  }

  private async keep(id: string, type: string): Promise<void> {
    try {
      await this.client.leases.addResource({id: this.id, resource: {id, type}});
    } catch (err) {
      if (!hasStatus(err, 'ALREADY_EXISTS')) throw err;
    }
  }
}

/** The answer, or undefined where the thing does not exist. */
export async function found<T>(call: Promise<T>): Promise<T | undefined> {
  try {
    return await call;
  } catch (err) {
    if (isCetusError(err, 'notFound')) return undefined;
    throw err;
  }
}
