/**
 * GET and HEAD of a blob, for other nodes: ranges, so that one who was cut off goes on elsewhere; a bounded number at a time, fairly; and a taker that
 * takes next to nothing is cut off, for others wait for its place.
 */
import {pipeline} from 'node:stream/promises';
import {CetusError} from '../../base/errors';
import {isDigest} from '../../schema/reference';
import {callerOf} from './caller';
import type {Context} from './routes';

const MAX_WAIT_MS = 60_000;
/** Who takes less than this on the average is cut off, after a while in any case. */
const SLOWEST_BYTES_PER_MS = 64;
const SLACK_MS = 60_000;
const SMALL_BYTES = 256 * 1024;

export async function blob(context: Context, digest: string): Promise<void> {
  const {req, res, query, parts: {images: {serving}}, signal} = context;
  const {role, name} = callerOf(req);
  if (role === 'other') throw new CetusError('forbidden', 'blobs are for nodes: the certificate says neither node nor endpoint');
  if (!isDigest(digest)) throw new CetusError('invalid', `invalid digest "${digest.slice(0, 100)}"`);
  const waitMs = Math.min(Math.max(0, query.number('wait', 0)) * 1000, MAX_WAIT_MS);
  const size = await serving.size(digest, {waitMs, coming: query.flag('coming')}, signal);
  const etag = `"${digest}"`;
  const headers = {'content-type': 'application/octet-stream', 'accept-ranges': 'bytes', 'docker-content-digest': digest, etag};
  const {'if-range': ifRange, range: asked} = req.headers;
  const range = asked === undefined || (ifRange !== undefined && ifRange !== etag) ? undefined : rangeOf(asked, size);
  if (range === 'unsatisfiable') return void res.writeHead(416, {...headers, 'content-range': `bytes */${size}`, 'content-length': 0}).end();
  const {first, last} = range ?? {first: 0, last: size - 1};
  const length = last - first + 1;
  const head = {...headers, 'content-length': length, ...(range ? {'content-range': `bytes ${first}-${last}/${size}`} : {})};
  if (req.method === 'HEAD' || length === 0) return void res.writeHead(range ? 206 : 200, head).end();
  // A document is nothing to wait for; who could ask for many of them could as well ask for anything else.
  const leave = length <= SMALL_BYTES ? (): void => undefined : await serving.enter(name, waitMs, signal);
  const tooSlow = setTimeout(() => res.destroy(), SLACK_MS + length / SLOWEST_BYTES_PER_MS);
  try {
    const bytes = await serving.read(digest, first, length, signal);
    res.writeHead(range ? 206 : 200, head);
    await pipeline(bytes, res);
  } catch (err) {
    // One who found a better source, or whose own work has ended.
    if (!signal.aborted) throw err;
  } finally {
    clearTimeout(tooSlow);
    leave();
  }
}

/** One range, as nodes ask for it; of several, or of another unit, nothing: then the whole is the answer (RFC 9110, 14.2). */
export function rangeOf(header: string, size: number): {first: number; last: number} | 'unsatisfiable' | undefined {
  const match = /^bytes=(\d{0,15})-(\d{0,15})$/.exec(header);
  if (!match || (match[1] === '' && match[2] === '')) return undefined;
  if (match[1] === '') {
    const length = Math.min(Number(match[2]), size);
    return length === 0 ? 'unsatisfiable' : {first: size - length, last: size - 1};
  }
  const first = Number(match[1]);
  if (match[2] !== '' && Number(match[2]) < first) return undefined;
  if (first >= size) return 'unsatisfiable';
  return {first, last: match[2] === '' ? size - 1 : Math.min(Number(match[2]), size - 1)};
}
