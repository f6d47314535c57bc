/**
 * A plain tar on its way into a container, over a raw stream: the end of our bytes is the end of the archive, and one line of JSON answers it, `{}` or
 * an error. Nothing frames the bytes, so the agent need not look at them: its worker reads the connection itself. That a sender who breaks off looks
 * like one who is through does no harm: the answer of the cut archive, good or bad, is read by nobody.
 */
import type {Duplex, Readable} from 'node:stream';
import {CetusError, fromWire} from '../base/errors';

const MAX_ANSWER_BYTES = 64 * 1024;
const MAGIC_AT = 257;
const MAGIC = Buffer.from('ustar');

/** Waits for the beginning of `body`, which stays in it. Not so for a compressed one, nor for a tar of the seventies: those the agent looks at. */
export async function isPlainTar(body: Readable): Promise<boolean> {
  if (!body.readableLength && !body.readableEnded && !body.destroyed)
    await new Promise<void>((resolve) => {
      const seen = (): void => {
        body.off('readable', seen).off('end', seen).off('close', seen);
        resolve();
      };
      body.on('readable', seen).on('end', seen).on('close', seen);
    });
  if (body.errored) throw body.errored;
  if (!body.readableLength) return false;
  const head = body.read() as Buffer;
  body.unshift(head);
  return head.subarray(MAGIC_AT, MAGIC_AT + MAGIC.length).equals(MAGIC);
}

/** Resolves when all of it is in its place. `broken` says what a connection means that ends without an answer. */
export async function deliver(stream: Duplex, body: Readable, broken: (err: unknown) => CetusError): Promise<void> {
  // Whoever refuses reads no more: its answer says why, not our broken pipe.
  let failure: unknown = new Error('it broke off without an answer');
  stream.on('error', (err) => (failure = err));
  const cut = (): void => {
    if (!body.readableEnded) stream.destroy();
  };
  // What has gone wrong is asked of it below.
  body.once('close', cut).on('error', () => undefined);
  if (body.destroyed) cut();
  body.pipe(stream);
  let text = '';
  try {
    for await (const chunk of stream.setEncoding('utf8') as AsyncIterable<string>) {
      text += chunk;
      if (text.endsWith('\n') || text.length > MAX_ANSWER_BYTES) break;
    }
  } catch (err) {
    failure = err;
  } finally {
    body.off('close', cut).unpipe(stream);
    stream.destroy();
  }
  if (body.errored) throw body.errored;
  if (!text.endsWith('\n')) throw broken(failure);
  if (text !== '{}\n') throw fromWire(JSON.parse(text));
}
