/**
 * HTTP to registries: redirects by hand (credentials never follow to another origin), plain HTTP only where it is allowed, every wait
 * bounded. A certificate that cannot be verified is accepted only from insecure registries. Proxies come from the environment, never for loopback.
 */
import type {Readable} from 'node:stream';
import {Agent, EnvHttpProxyAgent, request, type Dispatcher} from 'undici';
import {CetusError} from '../../../base/errors';
import {isLoopback} from '../../../base/loopback';
import type {ImageLimits} from '../limits';
import {bare, networkError} from './network-error';

export interface TransportOptions {
  limits: ImageLimits;
  /** Hosts ("host", "host:port") or IPv4 CIDRs that may speak plain HTTP or show any certificate. Loopback always may, as with the Engine. */
  insecureRegistries?: string[];
}

export type Method = 'GET' | 'HEAD' | 'POST' | 'PUT' | 'PATCH';

export interface Exchange {
  method: Method;
  url: URL;
  headers?: Record<string, string>;
  /** Sent to the first origin only. */
  authorization?: string;
  /** A stream is opened anew for each hop; its length stands in the headers. */
  body?: string | Buffer | (() => Readable);
  signal: AbortSignal;
}

export type Answer = Dispatcher.ResponseData & {url: URL};

const REDIRECTS = new Set([301, 302, 303, 307, 308]);
const MAX_REDIRECTS = 5;
/** Go's own, for what is fetched as the Engine fetches it. */
const MAX_FETCH_REDIRECTS = 10;
/**
 * A connection that nobody uses is kept for so long, whatever a registry offers: undici takes its word for up to ten minutes, also for the connections
 * that it opens anew, and for nobody, in the place of those that a pull has cut off by leaving.
 */
const IDLE_MS = 4000;
const MAX_ERROR_BODY = 64 * 1024;

export class Transport {
  private readonly verified: Dispatcher;
  private readonly unverified: Dispatcher;
  private readonly local: Dispatcher;
  /** Loopback as anybody else's: certificates count. */
  private readonly direct: Dispatcher;
  /** Which scheme an insecure registry answered on, so that only the first pull tries both. */
  readonly schemes = new Map<string, 'https:' | 'http:'>();

  constructor(private readonly options: TransportOptions) {
    const {stallMs, connectMs} = options.limits;
    const common = {headersTimeout: stallMs, bodyTimeout: stallMs, maxHeaderSize: 32 * 1024, pipelining: 1, keepAliveTimeout: IDLE_MS, keepAliveMaxTimeout: IDLE_MS};
    this.verified = new EnvHttpProxyAgent({...common, connect: {timeout: connectMs}});
    this.unverified = new EnvHttpProxyAgent({...common, connect: {timeout: connectMs, rejectUnauthorized: false}, requestTls: {rejectUnauthorized: false}});
    this.direct = new Agent({...common, connect: {timeout: connectMs}});
    this.local = new Agent({...common, connect: {timeout: connectMs, rejectUnauthorized: false}});
  }

  isInsecure(host: string): boolean {
    const name = hostname(host);
    return isLoopback(name) || (this.options.insecureRegistries ?? []).some((entry) => entry === host || entry === name || inCidr(name, entry));
  }

  /** The caller reads or dumps the body. Statuses are the caller's business; only redirects are followed here. */
  async send(exchange: Exchange): Promise<Answer> {
    let {url, method} = exchange;
    const origin = url.origin;
    for (let hops = 0; ; hops += 1) {
      const insecure = this.isInsecure(url.host);
      if (url.protocol !== 'https:' && !(url.protocol === 'http:' && insecure))
        throw new CetusError('invalid', `refused to follow the registry to "${url.protocol}//${url.host}": not HTTPS`);
      // fetch's rule: the same origin gets the credentials, anybody else only the address.
      const withAuth = exchange.authorization !== undefined && url.origin === origin ? {authorization: exchange.authorization} : {};
      const dispatcher = isLoopback(url.hostname) ? this.local : insecure ? this.unverified : this.verified;
      let answer: Dispatcher.ResponseData;
      try {
        answer = await request(url, {
          method, dispatcher, signal: exchange.signal, body: method === 'GET' || method === 'HEAD' ? undefined : typeof exchange.body === 'function' ? exchange.body() : exchange.body,
          headers: {'user-agent': 'cetus', ...exchange.headers, ...withAuth},
        });
      } catch (err) {
        if (exchange.signal.aborted) throw exchange.signal.reason as Error;
        throw networkError(method, url, err);
      }
      const location = answer.headers.location;
      if (!REDIRECTS.has(answer.statusCode) || typeof location !== 'string') return Object.assign(answer, {url});
      await discard(answer);
      if (hops >= MAX_REDIRECTS) throw new CetusError('invalid', `the registry redirects more than ${MAX_REDIRECTS} times`);
      const next = URL.canParse(location, url.href) ? new URL(location, url) : undefined;
      if (!next || next.username !== '' || next.password !== '') throw new CetusError('invalid', 'the registry redirects to an invalid address');
      if (url.protocol === 'https:' && next.protocol === 'http:' && !isLoopback(url.hostname)) throw new CetusError('invalid', 'the registry redirects from HTTPS to plain HTTP: refused');
      // Of an upload only 307 and 308 say that it should go elsewhere as it is.
      if (answer.statusCode < 307 && method !== 'GET' && method !== 'HEAD') method = 'GET';
      url = next;
    }
  }

  /** What is no registry (an archive to import): any host, plain or not, with the name and password that stand in the address, for its own host only. */
  async fetch(from: URL, signal: AbortSignal): Promise<Answer> {
    let url = from;
    for (let hops = 0; ; hops += 1) {
      const {username, password} = url;
      const authorization = username === '' ? {} : {authorization: `Basic ${Buffer.from(`${decodeURIComponent(username)}:${decodeURIComponent(password)}`).toString('base64')}`};
      const target = new URL(url);
      [target.username, target.password] = ['', ''];
      let answer: Dispatcher.ResponseData;
      try {
        answer = await request(target, {method: 'GET', dispatcher: isLoopback(target.hostname) ? this.direct : this.verified, signal, headers: {'user-agent': 'cetus', ...authorization}});
      } catch (err) {
        if (signal.aborted) throw signal.reason as Error;
        throw networkError('GET', target, err);
      }
      const {location} = answer.headers;
      if (!REDIRECTS.has(answer.statusCode) || typeof location !== 'string') return Object.assign(answer, {url: target});
      await discard(answer);
      if (hops >= MAX_FETCH_REDIRECTS) throw new CetusError('unavailable', `Get "${bare(target)}": stopped after ${MAX_FETCH_REDIRECTS} redirects`);
      if (!URL.canParse(location, target.href) || !/^https?:$/.test(new URL(location, target).protocol)) throw new CetusError('unavailable', `Get "${bare(target)}": the redirect's address is invalid`);
      url = new URL(location, target);
    }
  }

  async close(): Promise<void> {
    await Promise.all([this.verified.destroy(), this.unverified.destroy(), this.local.destroy(), this.direct.destroy()]);
  }
}

/** Reads a body that may not be longer than `limit`; a longer one is `invalid`. */
export async function readBody(answer: Answer, limit: number, what: string): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let length = 0;
  try {
    for await (const chunk of answer.body) {
      length += (chunk as Buffer).length;
      if (length > limit) throw new CetusError('invalid', `${what} is larger than ${limit} bytes`);
      chunks.push(chunk as Buffer);
    }
  } catch (err) {
    throw networkError('GET', answer.url, err);
  }
  return Buffer.concat(chunks, length);
}

/** The beginning of an error's body; never fails. */
export async function readErrorBody(answer: Answer): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let length = 0;
  try {
    for await (const chunk of answer.body) {
      chunks.push(chunk as Buffer);
      length += (chunk as Buffer).length;
      if (length > MAX_ERROR_BODY) break;
    }
  } catch {
    // The status alone must do.
  }
  return Buffer.concat(chunks, length).subarray(0, MAX_ERROR_BODY);
}

export async function discard(answer: Dispatcher.ResponseData): Promise<void> {
  await answer.body.dump({limit: 64 * 1024}).catch(() => undefined);
}

function hostname(host: string): string {
  return host.startsWith('[') ? host.slice(1, host.indexOf(']')) : host.replace(/:\d+$/, '');
}

function inCidr(address: string, cidr: string): boolean {
  const match = /^(\d+\.\d+\.\d+\.\d+)\/(\d{1,2})$/.exec(cidr);
  const ip = ipv4(address);
  const network = match && ipv4(match[1]);
  if (!match || ip === undefined || network === undefined || network === null) return false;
  const span = 2 ** (32 - Number(match[2]));
  return Math.floor(ip / span) === Math.floor(network / span);
}

function ipv4(text: string): number | undefined {
  const parts = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})$/.exec(text)?.slice(1).map(Number);
  return parts?.every((part) => part < 256) ? parts.reduce((sum, part) => sum * 256 + part, 0) : undefined;
}
