/** An archive as it arrives (plain, gzip, zstd, xz or bzip2, told by its first bytes) as a plain tar. Streaming; errors of the compression are `invalid`. */
import {spawn} from 'node:child_process';
import {PassThrough, Readable, type Duplex} from 'node:stream';
import {pipeline} from 'node:stream/promises';
import zlib from 'node:zlib';
import {CetusError} from '../../../base/errors';

const GZIP = Buffer.from([0x1f, 0x8b]);
const ZSTD = Buffer.from([0x28, 0xb5, 0x2f, 0xfd]);
const XZ = Buffer.from([0xfd, 0x37, 0x7a, 0x58, 0x5a]);
const BZIP2 = Buffer.from('BZh');
const SNIFF_BYTES = 6;

export type LayerCompression = 'gzip' | 'zstd' | 'none';
export type Compression = LayerCompression | 'xz' | 'bzip2';

export function compressionOf(head: Buffer): Compression {
  return startsWith(head, GZIP) ? 'gzip' : startsWith(head, ZSTD) ? 'zstd' : startsWith(head, XZ) ? 'xz' : startsWith(head, BZIP2) ? 'bzip2' : 'none';
}

/** The caller must read the result to its end or destroy it; either ends the source too. */
export async function decompress(archive: Readable): Promise<Readable> {
  const {head, whole} = await sniff(archive);
  return undone(compressionOf(head), whole);
}

function undone(compression: Compression, whole: Readable): Readable {
  switch (compression) {
    case 'none': return whole;
    case 'gzip': return through(whole, zlib.createGunzip({chunkSize: 256 * 1024}));
    case 'zstd': return unzstd(whole);
    case 'xz': return throughProgram(whole, 'xz', ['-dcq', '--memlimit-decompress=256MiB', '-']);
    case 'bzip2': return throughProgram(whole, 'bzip2', ['-dcq']);
  }
}

/** As a layer is kept: what containerd can unpack stays as it came, the rest is undone. */
export async function layerStream(archive: Readable): Promise<{compression: LayerCompression; body: Readable}> {
  const {head, whole} = await sniff(archive);
  const compression = compressionOf(head);
  return compression === 'xz' || compression === 'bzip2' ? {compression: 'none', body: undone(compression, whole)} : {compression, body: whole};
}

async function sniff(archive: Readable): Promise<{head: Buffer; whole: Readable}> {
  const chunks = archive[Symbol.asyncIterator]() as AsyncIterator<Buffer>;
  const first: Buffer[] = [];
  let length = 0;
  while (length < SNIFF_BYTES) {
    const next = await chunks.next();
    if (next.done) break;
    first.push(Buffer.from(next.value));
    length += next.value.length;
  }
  const whole = Readable.from((async function* all() {
    try {
      yield* first;
      for (let next = await chunks.next(); !next.done; next = await chunks.next()) yield next.value;
    } finally {
      archive.destroy();
    }
  })(), {objectMode: false, highWaterMark: 1024 * 1024});
  return {head: Buffer.concat(first), whole};
}

function through(source: Readable, transform: Duplex): Readable {
  pipeline(source, transform).catch((err: NodeJS.ErrnoException) => {
    transform.destroy(/^Z_/.test(err.code ?? '') ? new CetusError('invalid', `invalid archive: ${err.message}`, {cause: err}) : err);
  });
  return transform;
}

// Node.js 20 has no zstd of its own; later ones do.
function unzstd(source: Readable): Readable {
  const native = (zlib as unknown as {createZstdDecompress?: () => Duplex}).createZstdDecompress;
  return native ? through(source, native()) : throughProgram(source, 'zstd', ['-dcq', '--memory=256MB', '-']);
}

function throughProgram(source: Readable, program: string, args: string[]): Readable {
  const child = spawn(program, args, {stdio: ['pipe', 'pipe', 'pipe']});
  const output = new PassThrough({highWaterMark: 1024 * 1024});
  let complaint = '';
  child.stderr.on('data', (text: Buffer) => {
    complaint = (complaint + text.toString()).slice(0, 500);
  });
  const ended = new Promise<void>((resolve, reject) => {
    child.on('error', (err: NodeJS.ErrnoException) => reject(err.code === 'ENOENT'
      ? new CetusError('unsupported', `${program} archives need the program ${program} on the node`, {cause: err}) : err));
    child.on('close', (code) => (code === 0 ? resolve() : reject(new CetusError('invalid', `invalid archive: ${complaint.trim() || `${program} failed`}`))));
  });
  // It may fail before anybody reads it: whoever does then is told all the same.
  output.on('error', () => undefined);
  output.on('close', () => child.kill('SIGKILL'));
  // Our end of its input may break when it gives up: its exit tells why.
  let sourceError: Error | undefined;
  const fed = pipeline(source, child.stdin).catch((err: NodeJS.ErrnoException) => {
    if (err.code !== 'EPIPE') sourceError = err;
    source.destroy();
    child.kill('SIGKILL');
  });
  child.stdout.pipe(output, {end: false});
  Promise.all([ended, fed]).then(() => output.end(), (err: Error) => output.destroy(sourceError ?? err));
  return output;
}

function startsWith(head: Buffer, magic: Buffer): boolean {
  return head.length >= magic.length && head.subarray(0, magic.length).equals(magic);
}
