/**
 * The blobs of this node for other nodes. What is given is what is in the content store under that digest, read where it lies; whoever takes it
 * checks it. One that is on its way here is worth waiting for, so that a datacenter fetches it once.
 */
import fs, {type FileHandle} from 'node:fs/promises';
import path from 'node:path';
import type {Readable} from 'node:stream';
import {CetusError} from '../../../base/errors';
import type {Downloads} from '../downloads';
import type {ImageLimits} from '../limits';
import type {BlobStore} from '../store';
import {TransferGate} from './gate';

export interface BlobServing {
  /** Its bytes. notFound: it is not here; with `coming`, not on its way either: one that is, and still is when `waitMs` are over, is unavailable. */
  size(digest: string, patience: {waitMs: number; coming: boolean}, signal: AbortSignal): Promise<number>;
  /** A place among those that are served; see gate.ts. */
  enter(peer: string, waitMs: number, signal: AbortSignal): Promise<() => void>;
  read(digest: string, offset: number, length: number, signal: AbortSignal): Promise<Readable>;
}

const READ_BYTES = 256 * 1024;

export class StoredBlobs implements BlobServing {
  private readonly gate: TransferGate;

  constructor(private readonly store: BlobStore, private readonly downloads: Downloads, limits: ImageLimits, private readonly ready: () => Promise<void>) {
    this.gate = new TransferGate(limits.servedBlobs);
  }

  async size(digest: string, {waitMs, coming}: {waitMs: number; coming: boolean}, signal: AbortSignal): Promise<number> {
    await this.ready();
    const late = AbortSignal.timeout(Math.max(0, waitMs));
    for (;;) {
      const size = await this.store.size(digest);
      if (size !== undefined) return size;
      const arrival = coming ? this.downloads.arrival(digest) : undefined;
      if (!arrival) throw new CetusError('notFound', `content ${digest}: not found`);
      if (waitMs <= 0) throw stillComing(digest);
      await Promise.race([arrival, aborted(late), aborted(signal)]);
      signal.throwIfAborted();
      if (late.aborted) throw stillComing(digest);
    }
  }

  enter(peer: string, waitMs: number, signal: AbortSignal): Promise<() => void> {
    return this.gate.enter(peer, waitMs, signal);
  }

  /** The file itself where it can be seen (a third of the processor time), else through containerd. */
  async read(digest: string, offset: number, length: number, signal: AbortSignal): Promise<Readable> {
    const file = await this.file(digest, offset + length);
    if (!file) return this.store.stream(digest, signal, {offset, size: length});
    return file.createReadStream({start: offset, end: offset + length - 1, highWaterMark: READ_BYTES, signal});
  }

  private async file(digest: string, needed: number): Promise<FileHandle | undefined> {
    const root = await this.store.contentRoot();
    if (root === undefined) return undefined;
    const file = await fs.open(path.join(root, 'blobs', 'sha256', digest.slice('sha256:'.length))).catch(() => undefined);
    const size = await file?.stat().then((stat) => stat.size, () => 0);
    if (size !== undefined && size >= needed) return file;
    await file?.close();
    return undefined;
  }
}

function stillComing(digest: string): CetusError {
  return new CetusError('unavailable', `content ${digest} is still on its way to this node`, {info: {busy: true}});
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener('abort', () => resolve(), {once: true});
  });
}
