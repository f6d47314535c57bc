/** Requests to an engine over its unix socket: bounded JSON for our own questions, streams for what a client asked. */
import http from 'node:http';
import net from 'node:net';
import type {Duplex, Readable} from 'node:stream';
import {readBytes} from '../../base/body';
import {CetusError, type ErrorKind} from '../../base/errors';
import {switchProtocol} from '../../base/switch-protocol';

const MAX_JSON_BYTES = 64 * 1024 * 1024;
const DEADLINE_MS = 120_000;
const SWITCH_MS = 15_000;
/** A load may have gigabytes to unpack. */
const LOAD_MS = 3_600_000;

export interface EngineRequest { method: string; path: string; headers?: http.OutgoingHttpHeaders; body?: Readable | Buffer; signal?: AbortSignal }

export class EngineApi {
  constructor(private readonly socketPath: string) {}

  /** The answer as it begins; also one that says no. */
  send({method, path, headers, body, signal}: EngineRequest): Promise<http.IncomingMessage> {
    return new Promise((resolve, reject) => {
      const request = http.request({socketPath: this.socketPath, method, path, headers: {host: 'engine', ...headers}, agent: false, signal});
      request.once('response', resolve);
      request.once('error', (err) => reject(signal?.aborted ? new CetusError('canceled', 'context canceled', {cause: err}) : gone(err)));
      if (body === undefined || Buffer.isBuffer(body)) return void request.end(body);
      body.once('error', (err) => request.destroy(err));
      body.pipe(request);
      // The engine may answer (that something is wrong) and stop reading before the body has ended.
      request.once('close', () => body.unpipe(request));
    });
  }

  /** The JSON of an answer that is a success; else the engine's own words. */
  async json<T>(method: string, path: string, {body, type, accept = []}: {body?: Buffer | Readable; type?: string; accept?: number[]} = {}): Promise<T> {
    const answer = await this.send({method, path, body, headers: type ? {'content-type': type} : {}, signal: AbortSignal.timeout(DEADLINE_MS)});
    const text = await collect(answer);
    if (answer.statusCode! >= 400 && !accept.includes(answer.statusCode!)) throw refusal(answer.statusCode!, text);
    try {
      return (text === '' ? undefined : JSON.parse(text.split('\n').find((line) => line !== '') ?? 'null')) as T;
    } catch (cause) {
      throw new CetusError('internal', `the build engine's answer to ${path} is not JSON`, {cause});
    }
  }

  /** Lines of progress read to their end; an error among them is thrown. */
  async progress(method: string, path: string, body: Readable): Promise<void> {
    const answer = await this.send({method, path, body, headers: {'content-type': 'application/x-tar'}, signal: AbortSignal.timeout(LOAD_MS)});
    const text = await collect(answer);
    if (answer.statusCode! >= 400) throw refusal(answer.statusCode!, text);
    const failed = text.split('\n').filter((line) => line.includes('"errorDetail"')).at(-1);
    if (failed) throw new CetusError('internal', `the build engine refused ${path}: ${failed.trim()}`);
  }

  /** The connection itself, after the engine has switched to `protocol`. */
  upgrade(path: string, protocol: string, headers: Record<string, string | string[]>): Promise<Duplex> {
    return switchProtocol({
      socket: net.connect({path: this.socketPath}), path, host: 'engine', protocol, headers, deadlineMs: SWITCH_MS, refused: refusal,
      timedOut: () => new CetusError('timeout', `the build engine did not answer ${path} within ${SWITCH_MS / 1000} s`),
      notSwitched: () => new CetusError('internal', `the build engine did not switch protocols for ${path}`),
      failed: (err) => gone(err as Error),
    });
  }
}

const KINDS: Record<number, ErrorKind> = {400: 'invalid', 401: 'unauthorized', 403: 'forbidden', 404: 'notFound', 409: 'conflict', 501: 'notImplemented', 503: 'unavailable'};

/** The engine's refusal, whose words are for clients as they are. */
export function refusal(status: number, text: string): CetusError {
  let message = text.trim();
  try {
    message = (JSON.parse(text) as {message?: string}).message ?? message;
  } catch { /* plain text, of its router */ }
  const kind = KINDS[status] ?? 'internal';
  return new CetusError(kind, message || `the build engine answered with status ${status}`, {shown: message || undefined});
}

const gone = (cause: Error): CetusError => (cause instanceof CetusError ? cause : new CetusError('unavailable', `the build engine cannot be reached: ${cause.message}`, {cause, shown: 'the build engine has ended'}));

export async function collect(answer: Readable): Promise<string> {
  return (await readBytes(answer, MAX_JSON_BYTES, () => new CetusError('internal', `an answer of the build engine is longer than ${MAX_JSON_BYTES} bytes`))).toString('utf8');
}
