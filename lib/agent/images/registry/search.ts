/**
 * `docker search`: the first version of the registries' API, which Docker Hub's index and a few registries still speak. Asked as the Engine asks:
 * the index straight away; another registry is first pinged, over TLS and, where it may, in plain HTTP.
 */
import {CetusError} from '../../../base/errors';
import type {RegistryAuth} from '../../../schema/docker';
import type {SearchResult} from '../../../schema/agent';
import type {ImageLimits} from '../limits';
import {basicHeader, basicOf} from './auth';
import {discard, readBody, type Transport} from './transport';

const INDEX = 'index.docker.io';
const OF_HUB = new Set(['docker.io', INDEX]);
const MAX_RESULTS = 1_000;

export async function searchRegistry(transport: Transport, limits: ImageLimits, term: string, limit: number, auth: RegistryAuth | undefined, signal: AbortSignal): Promise<SearchResult[]> {
  const {host, words} = splitTerm(term);
  const base = host === INDEX ? new URL(`https://${INDEX}/v1/`) : await ping(transport, host, signal);
  const url = new URL('search', base);
  url.search = new URLSearchParams({q: words, n: String(limit)}).toString();
  const basic = basicOf(auth);
  const answer = await transport.send({method: 'GET', url, headers: {'x-docker-token': 'true'}, authorization: basic && basicHeader(basic), signal});
  if (answer.statusCode !== 200) {
    await discard(answer);
    throw new CetusError('unavailable', `Unexpected status code ${answer.statusCode}`, {info: {registry: host, status: answer.statusCode}});
  }
  const body = await readBody(answer, limits.documentBytes, 'the answer of the registry');
  return results(body);
}

/** A first part that cannot be a name on the Hub is a registry. */
export function splitTerm(term: string): {host: string; words: string} {
  const slash = term.indexOf('/');
  const first = term.slice(0, Math.max(0, slash));
  const [host, words] = slash < 0 || (!/[.:]/.test(first) && first !== 'localhost') ? [INDEX, term] : [first, term.slice(slash + 1)];
  if (OF_HUB.has(host)) return {host: INDEX, words: words.replace(/^library\//, '')};
  if (!/^(?:\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+)(?::\d{1,5})?$/.test(host) || !URL.canParse(`https://${host}/`)) throw new CetusError('invalid', 'invalid repository name (ex: "registry.domain.tld/myrepos")');
  return {host, words};
}

async function ping(transport: Transport, host: string, signal: AbortSignal): Promise<URL> {
  const attempt = async (scheme: 'https' | 'http'): Promise<URL> => {
    await discard(await transport.send({method: 'GET', url: new URL(`${scheme}://${host}/v1/_ping`), signal}));
    return new URL(`${scheme}://${host}/v1/`);
  };
  const unavailable = (text: string, cause: unknown): CetusError => new CetusError('unavailable', text, {cause, info: {registry: host}});
  try {
    return await attempt('https');
  } catch (first) {
    signal.throwIfAborted();
    if (!transport.isInsecure(host)) {
      throw unavailable(`invalid registry endpoint https://${host}/v1/: ${said(first)}. If this private registry supports only HTTP or HTTPS with an unknown CA certificate, it must be among the insecure registries of the datacenter`, first);
    }
    try {
      return await attempt('http');
    } catch (second) {
      signal.throwIfAborted();
      throw unavailable(`invalid registry endpoint "http://${host}/v1/". HTTPS attempt: ${said(first)}. HTTP attempt: ${said(second)}`, second);
    }
  }
}

function results(body: Buffer): SearchResult[] {
  let given: unknown;
  try {
    given = (JSON.parse(body.toString('utf8')) as {results?: unknown} | null)?.results ?? [];
  } catch (cause) {
    throw new CetusError('unavailable', 'error decoding registry search results: not JSON', {cause});
  }
  if (!Array.isArray(given)) throw new CetusError('unavailable', 'error decoding registry search results: a list is expected');
  return given.slice(0, MAX_RESULTS).map((item) => {
    const {name, description, is_official: official, star_count: stars} = (item ?? {}) as Record<string, unknown>;
    return {
      name: typeof name === 'string' ? name : '', description: typeof description === 'string' ? description : '', isOfficial: official === true,
      stars: Number.isSafeInteger(stars) ? stars as number : 0,
    };
  });
}

const said = (err: unknown): string => (err as Error).message;
