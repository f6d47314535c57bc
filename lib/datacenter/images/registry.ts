/** What clients ask of registries through us: login, search, what a name stands for. Any node that is alive asks; credentials go with the question and stay nowhere. */
import {CetusError, isCetusError} from '../../base/errors';
import type {RegistryAnswers, RegistryQuestion, SearchResult} from '../../schema/agent';
import type {RegistryAuth} from '../../schema/docker';
import {familiarName, formatReference, parseImageName, type Reference} from '../../schema/reference';
import type {Context} from '../context';
import {acceptFilters, booleanFilter, has, valuesOf} from '../filters';
import type {Caller, Filters} from '../verbs';

const DEFAULT_LIMIT = 25;
const MAX_LIMIT = 100;

export async function login(context: Context, caller: Caller, auth: RegistryAuth): Promise<{identityToken: string}> {
  return ask(context, caller, {kind: 'login', server: auth.serveraddress ?? ''}, auth);
}

export async function inspectRemote(context: Context, caller: Caller, name: string, auth?: RegistryAuth): Promise<RegistryAnswers['inspect']> {
  if (/^[0-9a-f]{64}$/.test(name)) throw new CetusError('invalid', `unknown image reference format: ${name}`);
  return ask(context, caller, {kind: 'inspect', reference: formatReference(parseImageName(name))}, auth);
}

/** Every tag of a repository, as its registry tells them. */
export async function tagsOf(context: Context, caller: Caller, repository: Reference, auth?: RegistryAuth): Promise<string[]> {
  const {tags} = await ask(context, caller, {kind: 'tags', reference: formatReference({registry: repository.registry, repository: repository.repository, tag: 'latest'})}, auth);
  if (tags.length === 0) throw new CetusError('notFound', `no tags of ${familiarName(repository)} in its registry`);
  return tags;
}

/** The Engine's rules: `is-automated` is deprecated and finds nothing where it is asked for; of several `stars` the most counts. */
export async function search(context: Context, caller: Caller, term: string, options: {limit?: number; filters: Filters}, auth?: RegistryAuth): Promise<SearchResult[]> {
  const {filters} = options;
  acceptFilters(filters, ['is-automated', 'is-official', 'stars']);
  if (booleanFilter(filters, 'is-automated')) return [];
  const official = booleanFilter(filters, 'is-official');
  const stars = Math.max(0, ...valuesOf(filters, 'stars').map((text) => {
    if (!/^[+-]?\d+$/.test(text)) throw new CetusError('invalid', `invalid filter 'stars=${text}'`);
    return Number(text);
  }));
  const limit = options.limit || DEFAULT_LIMIT;
  if (limit < 1 || limit > MAX_LIMIT) throw new CetusError('invalid', `limit ${limit} is outside the range of [1, ${MAX_LIMIT}]`);
  if (/^https?:\/\//.test(term)) throw new CetusError('invalid', 'invalid repository name (ex: "registry.domain.tld/myrepos")');
  const {results} = await ask(context, caller, {kind: 'search', term, limit}, auth);
  return results.filter((r) => (official === undefined || r.isOfficial === official) && (!has(filters, 'stars') || r.stars >= stars));
}

async function ask<Q extends RegistryQuestion>(context: Context, caller: Caller, question: Q, auth?: RegistryAuth): Promise<RegistryAnswers[Q['kind']]> {
  let failure: unknown = new CetusError('unavailable', 'no node of this datacenter is alive');
  for (const node of await context.fleet.nodes()) {
    if (node.liveness !== 'alive') continue;
    try {
      return await (await context.fleet.agent(node.id)).askRegistry(question, auth, caller.signal);
    } catch (err) {
      // What the registry said it says to the next node as well.
      if (!isCetusError(err, 'unavailable') || err.info['registry'] !== undefined) throw err;
      failure = err;
    }
  }
  throw failure;
}
