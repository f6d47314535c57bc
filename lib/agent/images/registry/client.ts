/**
 * One repository of one registry, for the length of one pull or push (OCI distribution). Gives manifests whose digest was checked and streams
 * of blobs from any offset; what a blob holds is checked by whoever stores it. Errors are worded as the Engine's.
 */
import {STATUS_CODES} from 'node:http';
import type {Readable} from 'node:stream';
import type {Clock} from '../../../base/clock';
import {CetusError, isCetusError} from '../../../base/errors';
import {retry} from '../../../base/retry';
import type {RegistryAuth} from '../../../schema/docker';
import {DEFAULT_REGISTRY, isDigest, isTag, type Reference} from '../../../schema/reference';
import type {ImageLimits} from '../limits';
import {ACCEPTED_MANIFESTS, json, sha256} from '../manifest';
import {type Access, Authorizer} from './auth';
import {parseChallenges} from './challenge';
import {isTransient} from './network-error';
import {registryError} from './registry-error';
import {discard, readBody, readErrorBody, type Answer, type Exchange, type Transport} from './transport';

export interface FetchedManifest { bytes: Buffer; mediaType: string; digest: string }

export interface RepositoryOptions {
  transport: Transport;
  reference: Reference;
  auth: RegistryAuth | undefined;
  /** Default: to pull. */
  access?: Access;
  limits: ImageLimits;
  clock: Clock;
  /** Ends every request of this pull. */
  signal: AbortSignal;
}

/** `path` below the repository, or an address that the registry named. */
export interface Question { method: Exchange['method']; path: string | URL; headers: Record<string, string>; body?: Exchange['body']; expected: number[] }

const MAX_TAG_PAGES = 100;

const HUB_HOST = 'registry-1.docker.io';

export class Repository {
  /** As errors name it. */
  readonly host: string;
  private readonly authorizer: Authorizer;
  private base: Promise<URL> | undefined;

  constructor(private readonly options: RepositoryOptions) {
    const {reference, transport, auth, access, signal} = options;
    this.host = reference.registry === DEFAULT_REGISTRY ? HUB_HOST : reference.registry;
    this.authorizer = new Authorizer({transport, reference, registryHost: this.host, auth, access, signal});
  }

  /** That the registry answers, before anything else is said. */
  async reach(): Promise<void> {
    await this.open();
  }

  /** Shows the registry who one is; answers what it gives in the password's place, '' for nothing. */
  async login(): Promise<string> {
    const {transport, signal} = this.options;
    const base = await this.open();
    const answer = await transport.send({method: 'GET', url: base, authorization: await this.authorizer.authorization(), signal});
    await discard(answer);
    const {statusCode: status} = answer;
    if (status === 200) return this.authorizer.refreshToken;
    throw new CetusError(status === 401 ? 'unauthorized' : 'unavailable', `login attempt to ${base.href} failed with status: ${status} ${STATUS_CODES[status] ?? ''}`.trim(), {info: {status, registry: this.host}});
  }

  /** Where a tag points, by HEAD; undefined where the registry does not tell: then the manifest itself must be fetched. */
  async resolve(tag: string): Promise<{digest: string; mediaType: string} | undefined> {
    const answer = await this.ask('HEAD', `manifests/${tag}`, {accept: ACCEPTED_MANIFESTS}, [200, 404, 405, 400, 403]);
    await discard(answer);
    const digest = answer.headers['docker-content-digest'];
    const mediaType = answer.headers['content-type'];
    return answer.statusCode === 200 && typeof digest === 'string' && isDigest(digest) && typeof mediaType === 'string' ? {digest, mediaType} : undefined;
  }

  /** By tag or digest. */
  async manifest(tagOrDigest: string): Promise<FetchedManifest> {
    const {documentBytes} = this.options.limits;
    const answer = await this.ask('GET', `manifests/${tagOrDigest}`, {accept: ACCEPTED_MANIFESTS}, [200]);
    const bytes = await readBody(answer, documentBytes, `the manifest ${tagOrDigest}`);
    const digest = sha256(bytes);
    const claimed = isDigest(tagOrDigest) ? tagOrDigest : answer.headers['docker-content-digest'];
    if (typeof claimed === 'string' && isDigest(claimed) && claimed !== digest) throw new CetusError('invalid', `manifest verification failed for digest ${claimed}`);
    const type = answer.headers['content-type'];
    return {bytes, digest, mediaType: typeof type === 'string' ? type : ''};
  }

  /** Under a tag: everything that it names must be there. */
  async putManifest(tag: string, bytes: Buffer, mediaType: string): Promise<void> {
    const headers = {'content-type': mediaType, 'content-length': String(bytes.length)};
    await discard(await this.patiently({method: 'PUT', path: `manifests/${tag}`, headers, body: bytes, expected: [200, 201, 202]}));
  }

  /** Every tag, page by page (OCI distribution, "listing tags"). */
  async tags(): Promise<string[]> {
    const {documentBytes} = this.options.limits;
    const tags = new Set<string>();
    let path: string | URL | undefined = 'tags/list';
    for (let pages = 0; path !== undefined && pages < MAX_TAG_PAGES; pages += 1) {
      const answer: Answer = await this.patiently({method: 'GET', path, headers: {}, expected: [200]});
      const given = (json(await readBody(answer, documentBytes, 'the list of tags'), 'list of tags') as {tags?: unknown} | null)?.tags ?? [];
      if (!Array.isArray(given)) throw new CetusError('invalid', 'invalid list of tags: a list is expected');
      for (const tag of given) if (typeof tag === 'string' && isTag(tag)) tags.add(tag);
      const next = /<([^>]+)>\s*;\s*rel="?next"?/.exec(String(answer.headers.link ?? ''))?.[1];
      path = next !== undefined && URL.canParse(next, answer.url.href) && new URL(next, answer.url).origin === answer.url.origin ? new URL(next, answer.url) : undefined;
    }
    return [...tags];
  }

  /** A small blob (a config) whole, checked against its digest. */
  async document(digest: string, size: number): Promise<Buffer> {
    const {documentBytes} = this.options.limits;
    if (size > documentBytes) throw new CetusError('invalid', `the document ${digest} is larger than ${documentBytes} bytes`);
    const answer = await this.ask('GET', `blobs/${digest}`, {}, [200]);
    const bytes = await readBody(answer, documentBytes, `the document ${digest}`);
    if (sha256(bytes) !== digest || bytes.length !== size) throw new CetusError('invalid', `filesystem layer verification failed for digest ${digest}`);
    return bytes;
  }

  /** One try. `start` is where the stream really begins: 0 where the registry does not know ranges. */
  async blob(digest: string, offset: number, signal: AbortSignal): Promise<{body: Readable; start: number; url: URL}> {
    const answer = await this.once({method: 'GET', path: `blobs/${digest}`, headers: offset > 0 ? {range: `bytes=${offset}-`} : {}, expected: [200, 206]}, signal);
    if (answer.statusCode === 200) return {body: answer.body, start: 0, url: answer.url};
    const range = /^bytes (\d+)-/.exec(String(answer.headers['content-range'] ?? ''));
    if (range && Number(range[1]) === offset) return {body: answer.body, start: offset, url: answer.url};
    await discard(answer);
    throw new CetusError('invalid', `the registry answered another range of ${digest} than the one asked for`);
  }

  /** Several tries of what can be asked again. */
  private ask(method: 'GET' | 'HEAD', path: string, headers: Record<string, string>, expected: number[]): Promise<Answer> {
    return this.patiently({method, path, headers, expected});
  }

  patiently(question: Question): Promise<Answer> {
    const {limits, signal, clock} = this.options;
    const began = clock.now();
    const retryable = (err: unknown): boolean => isTransient(err) && clock.now() - began < limits.patienceMs;
    return retry({tries: limits.tries, firstDelayMs: 200, maxDelayMs: 3000, retryable, signal, clock}, () => this.once(question, signal));
  }

  /** One try. Where the registry wants to know who asks, it is told so, once. */
  async once({method, path, headers, body, expected}: Question, signal: AbortSignal): Promise<Answer> {
    const {transport, reference, access} = this.options;
    const base = await this.open();
    const url = typeof path === 'string' ? new URL(`${reference.repository}/${path}`, base) : path;
    for (let refused = false; ; refused = true) {
      // An upload may go on at another address; the credentials are for the registry.
      const authorization = url.origin === base.origin ? await this.authorizer.authorization() : undefined;
      const answer = await transport.send({method, url, headers, body, authorization, signal});
      if (expected.includes(answer.statusCode)) return answer;
      const challenge = answer.headers['www-authenticate'];
      // The first 401 may mean that the token has expired, or that this repository asks for more than /v2/ did: once again with a new one.
      if (answer.statusCode === 401 && !refused && url.origin === answer.url.origin) {
        await discard(answer);
        this.authorizer.challenged(challenge);
        continue;
      }
      throw registryError({status: answer.statusCode, statusText: '', body: await readErrorBody(answer), challenges: parseChallenges(challenge)}, reference, access?.kind);
    }
  }

  /** Finds scheme and challenge, once per pull. */
  private open(): Promise<URL> {
    if (!this.base) {
      const base = this.ping();
      this.base = base;
      base.catch(() => {
        this.base = undefined;
      });
    }
    return this.base;
  }

  private async ping(): Promise<URL> {
    const {transport, signal} = this.options;
    const known = transport.schemes.get(this.host);
    // As the Engine: an insecure registry is asked over TLS first, then in plain HTTP.
    const schemes = !transport.isInsecure(this.host) ? ['https:'] as const : known ? [known] : ['https:', 'http:'] as const;
    let failure: unknown;
    for (const scheme of schemes) {
      const url = new URL(`${scheme}//${this.host}/v2/`);
      try {
        const answer = await transport.send({method: 'GET', url, signal});
        await discard(answer);
        if (answer.statusCode >= 500) throw new CetusError('unavailable', `received unexpected HTTP status: ${answer.statusCode}`, {info: {status: answer.statusCode, registry: this.host}});
        if (answer.statusCode === 401) this.authorizer.challenged(answer.headers['www-authenticate']);
        transport.schemes.set(this.host, scheme);
        return url;
      } catch (err) {
        if (signal.aborted) throw err;
        failure = err;
        // One that keeps silent over TLS is no plain one: that would have refused the handshake.
        if (isCetusError(err, 'timeout')) break;
      }
    }
    transport.schemes.delete(this.host);
    throw failure;
  }
}
