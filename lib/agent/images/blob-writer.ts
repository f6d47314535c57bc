/**
 * One blob on its way into containerd's content store. Small chunks are gathered into messages of CHUNK bytes and at most WINDOW of them are
 * under way: the disk's pace reaches the caller as a promise. containerd computes and checks the digest; nothing is hashed here.
 */
import {CetusError} from '../../base/errors';
import type {ContainerdClient} from '../containerd/connect';
import type {WriteContentResponse} from '../containerd/messages';
import type {ContentWrite} from '../containerd/services';
import {hasStatus} from '../containerd/status';

export interface WriterOptions {
  ref: string;
  total: number | undefined;
  expected: string | undefined;
  /** containerd must answer each message within this. */
  stallMs: number;
  /** ... and the commit (which flushes to disk) within this. */
  commitMs: number;
  /** Takes over the flush to disk, so that a blob can be used before it is through. Absent: commit waits for it. */
  flushing?(digest: string, flush: Promise<void>): void;
}

const CHUNK = 1024 * 1024;
const WINDOW = 6;
const LOCKED_TRIES = 50;
const LOCKED_WAIT_MS = 100;

export class BlobWriter {
  private gathered: Buffer[] = [];
  private gatheredBytes = 0;
  private sent: number;
  private readonly underWay: Promise<WriteContentResponse>[] = [];
  private failure: Error | undefined;
  /** Of the bytes written so far; containerd tells it with each answer. */
  private lastDigest: string | undefined;

  private constructor(private readonly stream: ContentWrite, private readonly cancel: AbortController, private readonly options: WriterOptions, start: number, digest: string) {
    this.sent = start;
    this.lastDigest = digest;
  }

  static async open(client: ContainerdClient, options: WriterOptions): Promise<BlobWriter | undefined> {
    for (let tries = 1; ; tries += 1) {
      const cancel = new AbortController();
      const stream = client.content.write({signal: cancel.signal});
      try {
        const {ref, total, expected} = options;
        const request = {action: 'STAT' as const, ref, ...(total === undefined ? {} : {total}), ...(expected === undefined ? {} : {expected})};
        const answer = await within(options.stallMs, cancel, stream.send(request));
        return new BlobWriter(stream, cancel, options, answer.offset, answer.digest);
      } catch (err) {
        await within(options.stallMs, cancel, stream.close());
        if (hasStatus(err, 'ALREADY_EXISTS')) return undefined;
        // Another write of the same ref is still closing (its owner died a moment ago).
        if (!hasStatus(err, 'UNAVAILABLE') || !/locked/.test((err as Error).message) || tries >= LOCKED_TRIES) throw err;
        await new Promise((resolve) => setTimeout(resolve, LOCKED_WAIT_MS));
      }
    }
  }

  /** Bytes taken so far; after `open`, where an earlier, interrupted write stopped. */
  get offset(): number {
    return this.sent + this.gatheredBytes;
  }

  /** Forgets what an earlier write left. */
  async restart(): Promise<void> {
    if (this.offset === 0) return;
    await this.settle(0);
    this.gathered = [];
    this.gatheredBytes = 0;
    this.sent = 0;
    // A write at offset 0 truncates; an empty one does nothing else.
    await within(this.options.stallMs, this.cancel, this.stream.send({action: 'WRITE', offset: 0}));
  }

  async write(chunk: Buffer): Promise<void> {
    this.gathered.push(chunk);
    this.gatheredBytes += chunk.length;
    if (this.gatheredBytes >= CHUNK) await this.flush();
  }

  /** Returns the digest. `invalid` where the bytes are not the expected ones; the ingest then remains and is the caller's to abort. */
  async commit(labels: Record<string, string> = {}): Promise<string> {
    await this.flush();
    await this.settle(0);
    const {total, expected, commitMs} = this.options;
    try {
      const answer = await within(commitMs, this.cancel, this.stream.send({
        action: 'COMMIT', offset: this.sent, total: total ?? this.sent, ...(expected === undefined ? {} : {expected}), ...(Object.keys(labels).length ? {labels} : {}),
      }));
      return answer.digest;
    } catch (err) {
      if (hasStatus(err, 'ALREADY_EXISTS') && (expected ?? this.lastDigest)) return (expected ?? this.lastDigest)!;
      if (hasStatus(err, 'FAILED_PRECONDITION'))
        throw new CetusError('invalid', expected === undefined ? 'unexpected end of data' : `filesystem layer verification failed for digest ${expected}`, {cause: err});
      throw err;
    } finally {
      await this.close();
    }
  }

  /** containerd has let go of the ingest afterwards: it can be opened again, or aborted. */
  async close(): Promise<void> {
    // Not sent, so it is not there for who resumes.
    [this.gathered, this.gatheredBytes] = [[], 0];
    await within(this.options.stallMs, this.cancel, this.stream.close());
  }

  private async flush(): Promise<void> {
    if (this.gatheredBytes === 0) return;
    if (this.failure) throw this.failure;
    const data = this.gathered.length === 1 ? this.gathered[0] : Buffer.concat(this.gathered, this.gatheredBytes);
    this.gathered = [];
    this.gatheredBytes = 0;
    for (let i = 0; i < data.length; i += 4 * CHUNK) {
      const part = data.subarray(i, i + 4 * CHUNK);
      const answer = this.stream.send({action: 'WRITE', offset: this.sent, data: part});
      answer.catch((err: Error) => {
        this.failure ??= err;
      });
      this.sent += part.length;
      this.underWay.push(answer);
      await this.settle(WINDOW);
    }
  }

  private async settle(most: number): Promise<void> {
    while (this.underWay.length > most) {
      const {digest} = await within(this.options.stallMs, this.cancel, this.underWay.shift()!);
      this.lastDigest = digest;
    }
  }
}

/** The deadline counts only while we wait for containerd: a slow registry is not containerd's fault. */
async function within<T>(ms: number, cancel: AbortController, answer: Promise<T>): Promise<T> {
  const timer = setTimeout(() => cancel.abort(new CetusError('timeout', 'containerd took no data for too long')), ms);
  try {
    return await answer;
  } catch (err) {
    throw cancel.signal.aborted ? cancel.signal.reason : err;
  } finally {
    clearTimeout(timer);
  }
}
