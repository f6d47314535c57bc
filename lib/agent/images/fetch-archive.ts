/**
 * The archive of `docker import URL`. Whatever address the Engine would take is taken: any host, http or https, ten redirects. Bounded: the wait for
 * the head and every silence; how long it is altogether is the importer's limit. Errors show no query and no password.
 */
import {STATUS_CODES} from 'node:http';
import {Readable} from 'node:stream';
import {CetusError, type ErrorKind} from '../../base/errors';
import {bare, networkError} from './registry/network-error';
import {discard, readErrorBody, type Transport} from './registry/transport';

const KINDS: Readonly<Record<number, ErrorKind>> = {400: 'invalid', 401: 'forbidden', 403: 'forbidden', 404: 'notFound'};

export type OnBytes = (here: number, /** 0 where it is not told */ size: number) => void;

export async function fetchArchive(transport: Transport, text: string, onBytes: OnBytes, signal: AbortSignal): Promise<{body: Readable; shown: string}> {
  const url = archiveUrl(text);
  const answer = await transport.fetch(url, signal);
  const {statusCode: status} = answer;
  if (status !== 200) {
    const body = status < 400 ? '' : (await readErrorBody(answer)).toString('utf8').trim().slice(0, 500);
    if (status < 400) await discard(answer);
    throw new CetusError(KINDS[status] ?? 'unavailable', `failed to GET ${bare(url)} with status ${status} ${STATUS_CODES[status] ?? ''}: ${body}`, {info: {status}});
  }
  const length = Number(answer.headers['content-length'] ?? 0);
  const size = Number.isSafeInteger(length) && length > 0 ? length : 0;
  const chunks = async function* read(): AsyncGenerator<Buffer> {
    let here = 0;
    try {
      for await (const chunk of answer.body as AsyncIterable<Buffer>) {
        here += chunk.length;
        onBytes(here, size);
        yield chunk;
      }
    } catch (err) {
      signal.throwIfAborted();
      throw networkError('GET', url, err);
    }
  };
  return {body: Readable.from(chunks(), {objectMode: false, highWaterMark: 1024 * 1024}), shown: bare(url)};
}

/** Without a scheme http is meant, as by the Engine. */
function archiveUrl(text: string): URL {
  const address = text.includes('://') ? text : `http://${text}`;
  if (!URL.canParse(address)) throw new CetusError('invalid', `parse ${JSON.stringify(text.slice(0, 500))}: invalid address`);
  const url = new URL(address);
  if (!/^https?:$/.test(url.protocol)) throw new CetusError('invalid', `Get ${JSON.stringify(bare(url))}: unsupported protocol scheme ${JSON.stringify(url.protocol.slice(0, -1))}`);
  return url;
}
