/**
 * One pass over an image archive of any length: every file goes straight into the content store, only the few small documents that describe
 * the archive stay in memory. Nothing is judged here but form: names, kinds of entries, counts, lengths, and that a blob is what its name says.
 */
import {createHash} from 'node:crypto';
import type {Readable} from 'node:stream';
import {extract, type Header} from 'tar-stream';
import {CetusError} from '../../../base/errors';
import type {ImageLimits} from '../limits';
import type {BlobStore, Hold} from '../store';
import {decompress} from './decompress';
import {entryName, linkTarget} from './names';

export interface StoredFile { digest: string; size: number; /** its first bytes */ head: Buffer }
export interface ArchiveContents {
  /** manifest.json, index.json, oci-layout, repositories, and the legacy ID/json. */
  documents: Map<string, Buffer>;
  files: Map<string, StoredFile>;
  links: Map<string, string>;
}

const DOCUMENTS = new Set(['manifest.json', 'index.json', 'oci-layout', 'repositories']);
const LEGACY_JSON = /^[0-9a-f]{64}\/json$/;
const LEGACY_VERSION = /^[0-9a-f]{64}\/VERSION$/;
const BLOB = /^blobs\/sha256\/([0-9a-f]{64})$/;
const HEAD_BYTES = 6;
const SHORT_BYTES = 256 * 1024;
/** Blobs whose commit (a flush to disk) is still under way while the next ones are read. */
const COMMITS = 4;
const SPACE_CHECK_BYTES = 256 * 1024 * 1024;

/** Told of each file as soon as it is in the store; with its text where it is short and begins as JSON does. */
export type OnStored = (file: StoredFile, document: Buffer | undefined) => void;

export async function readArchive(store: BlobStore, hold: Hold, archive: Readable, limits: ImageLimits, onStored: OnStored, signal: AbortSignal): Promise<ArchiveContents> {
  const reader = new ArchiveReader(store, hold, limits, onStored, signal);
  const onAbort = (): void => void archive.destroy(signal.reason as Error);
  signal.addEventListener('abort', onAbort, {once: true});
  try {
    return await reader.read(archive);
  } catch (err) {
    signal.throwIfAborted();
    throw archiveError(err);
  } finally {
    signal.removeEventListener('abort', onAbort);
    archive.destroy();
    await reader.settle();
  }
}

class ArchiveReader {
  private readonly contents: ArchiveContents = {documents: new Map(), files: new Map(), links: new Map()};
  private readonly commits: Promise<void>[] = [];
  private entries = 0;
  private bytes = 0;
  private documentBytes = 0;
  private unchecked = SPACE_CHECK_BYTES;

  constructor(private readonly store: BlobStore, private readonly hold: Hold, private readonly limits: ImageLimits, private readonly onStored: OnStored, private readonly signal: AbortSignal) {}

  async read(archive: Readable): Promise<ArchiveContents> {
    const tar = await decompress(archive);
    const entries = extract();
    tar.on('error', (err) => entries.destroy(err));
    tar.pipe(entries);
    try {
      for await (const entry of entries) await this.entry(entry.header, entry as unknown as AsyncIterable<Buffer>, () => void entry.resume());
    } finally {
      tar.destroy();
    }
    await Promise.all(this.commits.splice(0));
    if (this.entries === 0) throw new CetusError('invalid', 'invalid archive: it is empty');
    return this.contents;
  }

  /** Nothing runs on afterwards, also after a failure. */
  async settle(): Promise<void> {
    await Promise.allSettled(this.commits);
  }

  private async entry(header: Header, data: AsyncIterable<Buffer>, skip: () => void): Promise<void> {
    this.entries += 1;
    if (this.entries > this.limits.archiveEntries) throw new CetusError('invalid', `invalid archive: more than ${this.limits.archiveEntries} entries`);
    const name = entryName(header.name);
    switch (header.type) {
      case 'directory':
        return skip();
      case 'symlink': case 'link':
        this.contents.files.delete(name);
        this.contents.links.set(name, linkTarget(name, header.linkname ?? '', header.type));
        return skip();
      case 'file': case 'contiguous-file':
        break;
      default:
        throw new CetusError('invalid', `invalid archive: ${JSON.stringify(name.slice(0, 200))} is a ${header.type ?? 'sparse or unknown kind of file'}`);
    }
    this.bytes += header.size ?? 0;
    if (this.bytes > this.limits.archiveBytes) throw new CetusError('invalid', `invalid archive: more than ${this.limits.archiveBytes} bytes`);
    this.contents.links.delete(name);
    if (LEGACY_VERSION.test(name)) return skip();
    if (DOCUMENTS.has(name) || LEGACY_JSON.test(name)) return this.document(name, data);
    return this.file(name, header.size ?? 0, data);
  }

  private async document(name: string, data: AsyncIterable<Buffer>): Promise<void> {
    const chunks: Buffer[] = [];
    for await (const chunk of data) {
      this.documentBytes += chunk.length;
      if (this.documentBytes > this.limits.documentBytes) throw new CetusError('invalid', `invalid archive: its documents are larger than ${this.limits.documentBytes} bytes`);
      chunks.push(Buffer.from(chunk));
    }
    this.contents.documents.set(name, Buffer.concat(chunks));
  }

  private async file(name: string, size: number, data: AsyncIterable<Buffer>): Promise<void> {
    this.unchecked += size;
    if (this.unchecked >= SPACE_CHECK_BYTES) {
      await this.store.ensureSpace(size);
      this.unchecked = 0;
    }
    const hex = BLOB.exec(name)?.[1];
    const expected = hex === undefined ? undefined : `sha256:${hex}`;
    const ref = `load-${this.hold.id}-${this.entries}`;
    const writer = expected !== undefined && await this.hold.keepBlob(expected) ? undefined : await this.hold.writer(ref, size, expected);
    if (!writer) {
      // Already here. Its bytes are checked all the same: who brings only a name must not get at another account's blob.
      const sample = new Sample(size);
      const digest = await this.verify(expected!, data, sample);
      this.stored(name, {digest, size, head: sample.head}, sample);
      return;
    }
    const sample = new Sample(size);
    try {
      for await (const chunk of data) {
        sample.add(chunk);
        await writer.write(chunk);
      }
    } catch (err) {
      await writer.close();
      await this.hold.abort(ref).catch(() => undefined);
      throw err;
    }
    const commit = writer.commit().then(
      async (digest) => {
        // A blob that was here before under another hold: containerd keeps the old one and drops this write.
        if (!(await this.hold.keepBlob(digest))) throw new CetusError('internal', `containerd lost ${digest} while an archive was read`);
        this.stored(name, {digest, size, head: sample.head}, sample);
      },
      async (err: unknown) => {
        await this.hold.abort(ref).catch(() => undefined);
        throw err;
      },
    );
    commit.catch(() => undefined);
    this.commits.push(commit);
    if (this.commits.length > COMMITS) await this.commits.shift();
    this.signal.throwIfAborted();
  }

  private async verify(expected: string, data: AsyncIterable<Buffer>, sample: Sample): Promise<string> {
    const hash = createHash('sha256');
    for await (const chunk of data) {
      sample.add(chunk);
      hash.update(chunk);
    }
    if (`sha256:${hash.digest('hex')}` !== expected) throw new CetusError('invalid', `filesystem layer verification failed for digest ${expected}`);
    return expected;
  }

  private stored(name: string, file: StoredFile, sample: Sample): void {
    this.contents.files.set(name, file);
    this.onStored(file, sample.document);
  }
}

/** What is looked at of a file that passes by. */
class Sample {
  head: Buffer = Buffer.alloc(0);
  private chunks: Buffer[] | undefined;

  constructor(size: number) {
    if (size <= SHORT_BYTES) this.chunks = [];
  }

  add(chunk: Buffer): void {
    if (this.head.length < HEAD_BYTES) this.head = Buffer.concat([this.head, chunk]).subarray(0, HEAD_BYTES);
    if (this.chunks && this.head[0] === 0x7b) this.chunks.push(Buffer.from(chunk));
  }

  get document(): Buffer | undefined {
    return this.chunks && this.chunks.length > 0 ? Buffer.concat(this.chunks) : undefined;
  }
}

function archiveError(err: unknown): unknown {
  if (err instanceof CetusError) return err;
  const {message, code = ''} = err as NodeJS.ErrnoException;
  if (/ECONNRESET|EPIPE|PREMATURE_CLOSE|ABORT|STREAM_DESTROYED/.test(code) || message === 'aborted') return new CetusError('canceled', 'the archive ended before it was complete: the client has gone', {cause: err});
  return new CetusError('invalid', `invalid archive: ${lower(String(message))}`, {cause: err});
}

function lower(text: string): string {
  return text.slice(0, 1).toLowerCase() + text.slice(1);
}
