/** What is asked of a registry without anything being fetched: who one is (login), what a name stands for, what there is (search). */
import type {Clock} from '../../../base/clock';
import {CetusError} from '../../../base/errors';
import type {RegistryAnswers, RegistryQuestion} from '../../../schema/agent';
import type {RegistryAuth} from '../../../schema/docker';
import {DEFAULT_REGISTRY, isDigest, parseImageName, type Reference} from '../../../schema/reference';
import type {ImageLimits} from '../limits';
import {object, json, parseManifest} from '../manifest';
import {type Access} from './auth';
import {Repository} from './client';
import {searchRegistry} from './search';
import type {Transport} from './transport';

export interface QuestionParts { transport: Transport; limits: ImageLimits; clock: Clock }

export async function askRegistry<Q extends RegistryQuestion>(parts: QuestionParts, question: Q, auth: RegistryAuth | undefined, signal: AbortSignal): Promise<RegistryAnswers[Q['kind']]> {
  switch (question.kind) {
    case 'login': return await login(parts, question.server, auth, signal) as RegistryAnswers[Q['kind']];
    case 'inspect': return await inspect(parts, parseImageName(question.reference), auth, signal) as RegistryAnswers[Q['kind']];
    case 'tags': return {tags: await repositoryOf(parts, parseImageName(question.reference), {kind: 'pull'}, auth, signal).tags()} as RegistryAnswers[Q['kind']];
    case 'search': return {results: await searchRegistry(parts.transport, parts.limits, question.term, question.limit, auth, signal)} as RegistryAnswers[Q['kind']];
  }
}

function repositoryOf({transport, limits, clock}: QuestionParts, reference: Reference, access: Access, auth: RegistryAuth | undefined, signal: AbortSignal): Repository {
  return new Repository({transport, reference, auth, access, limits, clock, signal});
}

async function login(parts: QuestionParts, server: string, auth: RegistryAuth | undefined, signal: AbortSignal): Promise<RegistryAnswers['login']> {
  const registry = registryOf(server);
  const identityToken = await repositoryOf(parts, {registry, repository: ''}, {kind: 'login'}, auth, signal).login();
  return {identityToken: identityToken || auth?.identitytoken || ''};
}

/** As `docker login` and its stored credentials name a registry: with or without a scheme and a path. */
export function registryOf(server: string): string {
  if (server === '') return DEFAULT_REGISTRY;
  const address = /^https?:\/\//.test(server) ? server : `https://${server}`;
  if (!URL.canParse(address)) throw new CetusError('invalid', 'unable to parse server address');
  const {host, username, password} = new URL(address);
  if (host === '' || username !== '' || password !== '') throw new CetusError('invalid', 'unable to parse server address');
  // URL leaves a scheme's own port out, and so does nobody who names one.
  const named = /^https?:\/\/(?:\[[^\]]*\]|[^/:?#]*)(:\d+)?/.exec(address)?.[1] ?? '';
  const full = named !== '' && !host.endsWith(named) ? host + named : host;
  return full === 'index.docker.io' || full === 'registry-1.docker.io' ? DEFAULT_REGISTRY : full;
}

async function inspect(parts: QuestionParts, reference: Reference, auth: RegistryAuth | undefined, signal: AbortSignal): Promise<RegistryAnswers['inspect']> {
  const repository = repositoryOf(parts, reference, {kind: 'inspect'}, auth, signal);
  const {bytes, mediaType, digest} = await repository.manifest(reference.digest ?? reference.tag!);
  const document = parseManifest(bytes, mediaType, parts.limits);
  if (document.kind === 'index') {
    const platforms = document.index.manifests.flatMap(({platform}) => (platform ? [platform] : []));
    return {descriptor: {mediaType: document.index.mediaType, digest, size: bytes.length}, platforms};
  }
  const {manifest} = document;
  const descriptor = {mediaType: manifest.mediaType, digest, size: bytes.length};
  // Of an image whose config cannot be had the Engine says what it knows.
  const config = isDigest(manifest.config.digest) ? await repository.document(manifest.config.digest, manifest.config.size).catch(() => undefined) : undefined;
  signal.throwIfAborted();
  if (!config) return {descriptor, platforms: []};
  const {os, architecture, variant} = object(json(config, 'image config'), 'image config');
  if (typeof os !== 'string' || typeof architecture !== 'string' || (os === '' && architecture === '')) return {descriptor, platforms: []};
  return {descriptor, platforms: [{os, architecture, ...(typeof variant === 'string' && variant !== '' ? {variant} : {})}]};
}
