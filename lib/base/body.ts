/** Bodies read whole, and bounded. The longest message between our own processes is far below MAX_BODY_BYTES. */
import type {IncomingMessage} from 'node:http';
import type {Readable} from 'node:stream';
import {CetusError} from './errors';

/** A spec with a large environment is tens of kilobytes, a full batch of reports about a megabyte. */
const MAX_BODY_BYTES = 16 * 1024 * 1024;

/** All of a stream; what `tooLong` makes is thrown, and the rest left unread, where that is more than `maxBytes`. */
export async function readBytes(body: Readable, maxBytes: number, tooLong: () => CetusError): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of body as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > maxBytes) throw tooLong();
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

/** Throws `invalid` for a body that is too long or no JSON. */
export async function readJson(message: IncomingMessage, maxBytes = MAX_BODY_BYTES): Promise<unknown> {
  const bytes = await readBytes(message, maxBytes, () => new CetusError('invalid', `the body is longer than ${maxBytes} bytes`));
  try {
    return JSON.parse(bytes.toString('utf8'));
  } catch (err) {
    throw new CetusError('invalid', 'the body is not JSON', {cause: err});
  }
}
