/** A request's body as JSON, bounded: the longest message between our own processes is far below MAX_BODY_BYTES. */
import type {IncomingMessage} from 'node:http';
import {CetusError} from './errors';

/** A spec with a large environment is tens of kilobytes, a full batch of reports about a megabyte. */
const MAX_BODY_BYTES = 16 * 1024 * 1024;

/** Throws `invalid` for a body that is too long or no JSON. */
export async function readJson(req: IncomingMessage): Promise<unknown> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of req as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > MAX_BODY_BYTES) throw new CetusError('invalid', `the body is longer than ${MAX_BODY_BYTES} bytes`);
    chunks.push(chunk);
  }
  try {
    return JSON.parse(Buffer.concat(chunks).toString('utf8'));
  } catch (err) {
    throw new CetusError('invalid', 'the body is not JSON', {cause: err});
  }
}
