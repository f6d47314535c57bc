/**
 * The short way of a blob into a content store on this machine. Its bytes go into the ingest file that containerd made for the write (so that it
 * is leased, resumable and collected like any other), are hashed here on their way, flushed, linked to the place of a blob of that
 * digest, and then claimed: containerd takes over a blob that its store has already, as it does between namespaces.
 * Whoever cannot find the file, or whose containerd does not share blobs between namespaces, takes the long way, over gRPC.
 *
 * Why: for 200 MB, gRPC costs 1.1 s of CPU in containerd and 0.4 s here; this way takes 0.3 s in all (OpenSSL hashes four times as fast as Go 1.19).
 * And containerd flushes what it commits with its metadata lock held, while nobody starts a container; a claim holds it for a moment.
 */
import {createHash, type Hash} from 'node:crypto';
import fs, {type FileHandle} from 'node:fs/promises';
import path from 'node:path';
import {CetusError} from '../../base/errors';
import {MiB} from '../../base/units';
import type {ContainerdClient} from '../containerd/connect';
import {BlobWriter, type WriterOptions} from './blob-writer';
import type {BlobSink} from './downloads';

/** Below this the calls cost more than the bytes. */
const SMALLEST = MiB;
const GATHER = MiB;
const CLAIM_TRIES = 3;

/** The best way that this blob and this machine allow; undefined where the expected blob is already here. */
export async function openSink(client: ContainerdClient, root: string | undefined, options: WriterOptions): Promise<BlobSink | undefined> {
  const writer = await BlobWriter.open(client, options);
  const {total} = options;
  if (!writer || root === undefined || total === undefined || total < SMALLEST || writer.offset >= total) return writer;
  await writer.close();
  const file = await ingestFile(root, options.ref, writer.offset);
  if (!file) return BlobWriter.open(client, options);
  const hash = createHash('sha256');
  if (writer.offset > 0) for await (const chunk of file.createReadStream({start: 0, autoClose: false, highWaterMark: GATHER})) hash.update(chunk as Buffer);
  return new PlacedBlob(client, root, {...options, total}, file, hash, writer.offset);
}

class PlacedBlob implements BlobSink {
  private gathered: Buffer[] = [];
  private gatheredBytes = 0;
  private position: number;
  private underWay: Promise<void> = Promise.resolve();
  private flushed: Promise<void> = Promise.resolve();
  private closed = false;

  constructor(private readonly client: ContainerdClient, private readonly root: string, private readonly options: WriterOptions & {total: number}, private readonly file: FileHandle, private hash: Hash, start: number) {
    this.position = start;
  }

  get offset(): number {
    return this.position + this.gatheredBytes;
  }

  async restart(): Promise<void> {
    await this.underWay;
    [this.gathered, this.gatheredBytes, this.position, this.hash] = [[], 0, 0, createHash('sha256')];
    await this.file.truncate(0);
  }

  async write(chunk: Buffer): Promise<void> {
    this.gathered.push(chunk);
    this.gatheredBytes += chunk.length;
    if (this.gatheredBytes >= GATHER) await this.flush();
  }

  async commit(labels: Record<string, string> = {}): Promise<string> {
    const {ref, total, expected} = this.options;
    try {
      await this.flush();
      await this.underWay;
      const digest = `sha256:${this.hash.digest('hex')}`;
      const {size} = await this.file.stat();
      if (size !== total || (expected !== undefined && digest !== expected))
        throw new CetusError('invalid', expected === undefined ? 'unexpected end of data' : `filesystem layer verification failed for digest ${expected}`);
      this.flushed = this.file.sync();
      this.flushed.catch(() => undefined);
      if (this.options.flushing) this.options.flushing(digest, this.flushed);
      else await this.flushed;
      await this.claim(digest, labels);
      await this.client.content.abort({ref});
      return digest;
    } finally {
      await this.close();
    }
  }

  async close(): Promise<void> {
    if (this.closed) return;
    this.closed = true;
    // Not written, so it is not there for who resumes.
    [this.gathered, this.gatheredBytes] = [[], 0];
    await this.underWay.catch(() => undefined);
    // A flush that somebody else waits for goes on; the file is closed after it.
    const closed = this.flushed.catch(() => undefined).then(() => this.file.close());
    if (this.options.flushing) closed.catch(() => undefined);
    else await closed;
  }

  /** One write is under way while the next is gathered and hashed. */
  private async flush(): Promise<void> {
    const [chunks, bytes] = [this.gathered, this.gatheredBytes];
    if (bytes === 0) return;
    for (const chunk of chunks) this.hash.update(chunk);
    await this.underWay;
    const {position} = this;
    [this.gathered, this.gatheredBytes, this.position] = [[], 0, position + bytes];
    this.underWay = writeAll(this.file, chunks, bytes, position);
    this.underWay.catch(() => undefined);
  }

  private async claim(digest: string, labels: Record<string, string>): Promise<void> {
    const {ref, total} = this.options;
    const data = path.join(await ingestDirectory(this.root, ref) ?? '', 'data');
    const blob = path.join(this.root, 'blobs', 'sha256', digest.slice('sha256:'.length));
    for (let tries = 1; ; tries += 1) {
      await this.file.chmod(0o444);
      await fs.mkdir(path.dirname(blob), {recursive: true});
      await fs.link(data, blob).catch((err: NodeJS.ErrnoException) => {
        if (err.code !== 'EEXIST') throw err;
      });
      const writer = await BlobWriter.open(this.client, {...this.options, ref: `${ref}-claim`, expected: digest});
      if (!writer) return;
      if (writer.offset === total) {
        await writer.commit(labels);
        return;
      }
      // The collector came between link and claim; or this containerd keeps namespaces apart, and wants the bytes themselves.
      if (tries < CLAIM_TRIES) {
        await writer.close();
        continue;
      }
      await fs.rm(blob, {force: true});
      for await (const chunk of this.file.createReadStream({start: 0, autoClose: false, highWaterMark: GATHER})) await writer.write(chunk as Buffer);
      await writer.commit(labels);
      return;
    }
  }
}

async function writeAll(file: FileHandle, chunks: Buffer[], bytes: number, position: number): Promise<void> {
  const {bytesWritten} = await file.writev(chunks, position);
  // Short writes are rare: a full disk says so by an error.
  if (bytesWritten === bytes) return;
  const rest = Buffer.concat(chunks, bytes);
  for (let done = bytesWritten; done < bytes;) done += (await file.write(rest, done, bytes - done, position + done)).bytesWritten;
}

/** The file of the write `ref`, open; undefined where it is not as expected. */
async function ingestFile(root: string, ref: string, size: number): Promise<FileHandle | undefined> {
  try {
    const directory = await ingestDirectory(root, ref);
    if (directory === undefined) return undefined;
    const file = await fs.open(path.join(directory, 'data'), 'r+');
    if ((await file.stat()).size === size) return file;
    await file.close();
  } catch {
    // Another machine's containerd, another mount namespace, or another layout.
  }
  return undefined;
}

/** Directories are named by a hash of "NAMESPACE/NUMBER/REF", of which we know the last part; each holds it in a file. */
async function ingestDirectory(root: string, ref: string): Promise<string | undefined> {
  const ingests = path.join(root, 'ingest');
  for (const name of await fs.readdir(ingests)) {
    const known = await fs.readFile(path.join(ingests, name, 'ref'), 'utf8').catch(() => '');
    if (known.endsWith(`/${ref}`)) return path.join(ingests, name);
  }
  return undefined;
}
