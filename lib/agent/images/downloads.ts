/**
 * Layers from a registry, or from other nodes (peers/), into the content store. Promises: one download per digest at a time, shared by all who want it; resumed after a
 * broken connection and after a crash (the ingest is named by the digest); a layer that is longer than its descriptor is cut off there;
 * a registry that stalls or drips gets a bounded number of bounded waits; what has the wrong digest never becomes a blob.
 */
import type {Readable} from 'node:stream';
import type {Clock} from '../../base/clock';
import {CetusError, isCetusError} from '../../base/errors';
import type {Descriptor} from '../../schema/docker';
import type {ImageLimits} from './limits';
import {isTransient, networkError} from './registry/network-error';

export interface BlobSource {
  readonly host: string;
  /** One try, from `offset`. `size` is the whole blob's. */
  blob(digest: string, offset: number, signal: AbortSignal, size?: number): Promise<{body: Readable; start: number; url: URL}>;
  /** What came has another digest. True where it can come from somewhere else. */
  blame?(digest: string): boolean;
}

/** Where a blob goes: a Hold's part, so that tests need no containerd. */
export interface BlobKeeper {
  keepBlob(digest: string): Promise<boolean>;
  writer(ref: string, total: number | undefined, expected: string | undefined): Promise<BlobSink | undefined>;
  abort(ref: string): Promise<void>;
  /** An unfinished write outlives the hold, for the next pull to resume. */
  postpone(ref: string): Promise<void>;
  /** One that was postponed has ended. */
  forget(ref: string): Promise<void>;
}
export interface BlobSink {
  readonly offset: number;
  restart(): Promise<void>;
  write(chunk: Buffer): Promise<void>;
  commit(labels?: Record<string, string>): Promise<string>;
  /** Lets go; what was written stays until it is aborted, or resumed by the next who opens it. */
  close(): Promise<void>;
}

/** A try that brought less than this was no progress. */
const PROGRESS_BYTES = 64 * 1024;

type Watcher = (bytes: number) => void;
interface Running { outcome: Promise<void>; watchers: Set<Watcher> }

export class Downloads {
  private readonly running = new Map<string, Running>();
  /** Blobs that somebody here is about to fetch. */
  private readonly coming = new Map<string, Set<Promise<unknown>>>();

  constructor(private readonly limits: ImageLimits, private readonly clock: Clock) {}

  /** The blob exists afterwards and is kept by `hold`. `watch` is told the bytes that are here. */
  async fetch(hold: BlobKeeper, source: BlobSource, layer: Descriptor, labels: Record<string, string>, watch: Watcher, signal: AbortSignal): Promise<void> {
    if (layer.size > this.limits.layerBytes) throw new CetusError('invalid', `layer ${layer.digest} is larger than ${this.limits.layerBytes} bytes`);
    while (!(await hold.keepBlob(layer.digest))) {
      signal.throwIfAborted();
      let running = this.running.get(layer.digest);
      const mine = !running;
      if (!running) {
        running = {watchers: new Set(), outcome: Promise.resolve()};
        this.running.set(layer.digest, running);
        running.outcome = this.download(hold, source, layer, labels, running, signal).finally(() => this.running.delete(layer.digest));
      }
      running.watchers.add(watch);
      try {
        // Another's failure is not ours (its credentials, its client's hang-up): we then try ourselves, from where it stopped.
        if (mine) return await running.outcome;
        await unlessAborted(signal, running.outcome.catch(() => undefined));
      } finally {
        running.watchers.delete(watch);
      }
    }
  }

  /** Says of a blob that it will be fetched here, from now until `outcome` settles: others may wait for it. */
  expect(digest: string, outcome: Promise<unknown>): void {
    const all = this.coming.get(digest) ?? new Set();
    this.coming.set(digest, all.add(outcome));
    const over = (): void => {
      all.delete(outcome);
      if (all.size === 0) this.coming.delete(digest);
    };
    outcome.then(over, over);
  }

  /** Resolves when one that was to fetch the blob has ended, however; undefined where nobody is about to. */
  arrival(digest: string): Promise<void> | undefined {
    const [first] = this.coming.get(digest) ?? [];
    return first?.then(() => undefined, () => undefined);
  }

  private async download(hold: BlobKeeper, source: BlobSource, layer: Descriptor, labels: Record<string, string>, running: Running, signal: AbortSignal): Promise<void> {
    const ref = `layer-${layer.digest}`;
    for (let again = true; ;) {
      const writer = await hold.writer(ref, layer.size, layer.digest);
      if (!writer) return;
      const resumed = writer.offset > 0;
      try {
        await this.fill(writer, source, layer, running, signal);
        await writer.commit(labels);
        if (resumed) await hold.forget(ref);
        return;
      } catch (err) {
        await writer.close();
        const broken = isCetusError(err, 'invalid') && !signal.aborted;
        // Kept after a registry's failure, or for another who waits: the next one resumes there, if there is anything to resume.
        const keep = writer.offset > 0 && (signal.aborted ? running.watchers.size > 1 : isTransient(err) || isCetusError(err, 'unavailable'));
        if (!keep && resumed) await hold.forget(ref).catch(() => undefined);
        await (keep ? hold.postpone(ref) : hold.abort(ref)).catch(() => undefined);
        // It has one peer less each time: this ends.
        if (broken && source.blame?.(layer.digest)) continue;
        // What an earlier process left may have been the bad part.
        if (!broken || !resumed || !again) throw err;
        again = false;
      }
    }
  }

  private async fill(writer: BlobSink, source: BlobSource, layer: Descriptor, running: Running, signal: AbortSignal): Promise<void> {
    let failures = 0;
    let progressAt = this.clock.now();
    if (writer.offset > layer.size) await writer.restart();
    while (writer.offset < layer.size) {
      const before = writer.offset;
      try {
        await this.attempt(writer, source, layer, running, signal);
        if (writer.offset < layer.size)
          throw new CetusError('unavailable', `registry ${source.host}: unexpected EOF after ${writer.offset} of ${layer.size} bytes of ${layer.digest}`, {info: {registry: source.host}});
      } catch (err) {
        if (signal.aborted || !isTransient(err)) throw err;
        const progressed = writer.offset - before >= PROGRESS_BYTES;
        if (progressed) progressAt = this.clock.now();
        failures = progressed ? 1 : failures + 1;
        if (failures >= this.limits.tries || this.clock.now() - progressAt >= this.limits.patienceMs) throw err;
        await this.clock.sleep(Math.min(200 * 2 ** failures, 3000), signal);
      }
    }
  }

  private async attempt(writer: BlobSink, source: BlobSource, layer: Descriptor, running: Running, signal: AbortSignal): Promise<void> {
    const stall = new AbortController();
    let seen = writer.offset;
    // undici ends a silent connection; this ends one that drips a byte now and then.
    const dripping = setInterval(() => {
      if (writer.offset - seen < PROGRESS_BYTES) stall.abort(new CetusError('timeout', `registry ${source.host} sends ${layer.digest} too slowly`, {info: {registry: source.host}}));
      seen = writer.offset;
    }, this.limits.stallMs);
    const either = AbortSignal.any([signal, stall.signal]);
    let url: URL | undefined;
    try {
      const answer = await source.blob(layer.digest, writer.offset, either, layer.size);
      url = answer.url;
      // A registry without ranges begins anew: what we have is skipped, the digest decides in the end.
      let skip = writer.offset - answer.start;
      for await (const chunk of answer.body as AsyncIterable<Buffer>) {
        const rest = skip > 0 ? chunk.subarray(skip) : chunk;
        skip = Math.max(0, skip - chunk.length);
        if (rest.length === 0) continue;
        if (writer.offset + rest.length > layer.size) throw new CetusError('invalid', `layer ${layer.digest} is longer than the ${layer.size} bytes its manifest names`);
        await writer.write(rest);
        for (const watch of running.watchers) watch(writer.offset);
      }
    } catch (err) {
      if (stall.signal.aborted && !signal.aborted) throw stall.signal.reason;
      signal.throwIfAborted();
      throw url ? networkError('GET', url, err) : err;
    } finally {
      clearInterval(dripping);
    }
  }
}

function unlessAborted(signal: AbortSignal, promise: Promise<void>): Promise<void> {
  return new Promise((resolve, reject) => {
    const onAbort = (): void => reject(signal.reason as Error);
    if (signal.aborted) return onAbort();
    signal.addEventListener('abort', onAbort, {once: true});
    void promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', onAbort));
  });
}
