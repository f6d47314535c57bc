/**
 * Image references as Docker's users write them, and the one form in which Cetus stores them (registry always, tag or digest always).
 * Grammar and messages: distribution/reference. Pure; throws `invalid` for what is not a reference.
 */
import {CetusError} from '../base/errors';

export interface Reference {
  /** "docker.io", "127.0.0.1:5000", "registry.example.com". */
  registry: string;
  /** Path within the registry: "library/busybox". */
  repository: string;
  tag?: string;
  /** "sha256:..." */
  digest?: string;
}

export const DEFAULT_REGISTRY = 'docker.io';
const DEFAULT_TAG = 'latest';
const MAX_NAME_LENGTH = 255;

const ALNUM = '[a-z0-9]+';
const COMPONENT = `${ALNUM}(?:(?:\\.|_|__|-+)${ALNUM})*`;
const DOMAIN_LABEL = '(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])';
const DOMAIN = `(?:${DOMAIN_LABEL}(?:\\.${DOMAIN_LABEL})*|\\[(?:[a-fA-F0-9:]+)\\])(?::[0-9]+)?`;
const REPOSITORY = new RegExp(`^${COMPONENT}(?:/${COMPONENT})*$`);
const REGISTRY = new RegExp(`^${DOMAIN}$`);
const TAG = /^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$/;
const DIGEST = /^sha256:[a-f0-9]{64}$/;
const ANY_DIGEST = /^[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}$/;

export function isDigest(text: string): boolean {
  return DIGEST.test(text);
}

export const isTag = (text: string): boolean => TAG.test(text);
export const invalidTag = (): CetusError => new CetusError('invalid', 'invalid tag format');

/** Tag and digest stay absent where the text has none. */
export function parseReference(text: string): Reference {
  if (/^[a-f0-9]{64}$/.test(text)) throw new CetusError('invalid', `invalid repository name (${text}), cannot specify 64-byte hexadecimal strings`);
  let rest = text;
  let digest: string | undefined;
  const at = rest.indexOf('@');
  if (at >= 0) {
    digest = rest.slice(at + 1);
    rest = rest.slice(0, at);
    if (!DIGEST.test(digest)) throw ANY_DIGEST.test(digest) ? new CetusError('invalid', 'unsupported digest algorithm') : malformed();
  }
  let tag: string | undefined;
  const colon = rest.lastIndexOf(':');
  if (colon > rest.lastIndexOf('/')) {
    tag = rest.slice(colon + 1);
    rest = rest.slice(0, colon);
    if (!TAG.test(tag)) throw malformed();
  }
  const {registry, repository} = splitRegistry(rest);
  if (!REGISTRY.test(registry)) throw malformed();
  if (!REPOSITORY.test(repository))
    throw REPOSITORY.test(repository.toLowerCase()) ? new CetusError('invalid', 'invalid reference format: repository name must be lowercase') : malformed();
  if (registry.length + 1 + repository.length > MAX_NAME_LENGTH)
    throw new CetusError('invalid', `repository name must not be more than ${MAX_NAME_LENGTH} characters`);
  return {registry, repository, ...(tag === undefined ? {} : {tag}), ...(digest === undefined ? {} : {digest})};
}

/** With ":latest" where the text has neither tag nor digest. */
export function parseImageName(text: string): Reference {
  const reference = parseReference(text);
  return reference.tag === undefined && reference.digest === undefined ? {...reference, tag: DEFAULT_TAG} : reference;
}

/** "docker.io/library/busybox:latest": the stored form. A digest, where there is one, outranks the tag. */
export function formatReference(reference: Reference): string {
  return `${repositoryName(reference)}${suffix(reference)}`;
}

/** "docker.io/library/busybox". */
export function repositoryName(reference: Reference): string {
  return `${reference.registry}/${reference.repository}`;
}

/** As Docker shows it: "busybox:latest", "me/app:1", "127.0.0.1:5000/app@sha256:...". */
export function familiarReference(reference: Reference): string {
  return `${familiarName(reference)}${suffix(reference)}`;
}

/** "busybox", "me/app", "127.0.0.1:5000/app". */
export function familiarName(reference: Reference): string {
  if (reference.registry !== DEFAULT_REGISTRY) return repositoryName(reference);
  const official = /^library\/([^/]+)$/.exec(reference.repository);
  return official ? official[1] : reference.repository;
}

export function normalizeReference(text: string): string {
  return formatReference(parseImageName(text));
}

function suffix(reference: Reference): string {
  if (reference.digest !== undefined) return `@${reference.digest}`;
  return reference.tag === undefined ? '' : `:${reference.tag}`;
}

function splitRegistry(name: string): {registry: string; repository: string} {
  const slash = name.indexOf('/');
  const first = name.slice(0, Math.max(slash, 0));
  // Only a first part that cannot be a plain path component is a registry: "me/app" is on Docker Hub, "localhost/app" is not.
  if (slash < 0 || !(/[.:]/.test(first) || first === 'localhost' || first !== first.toLowerCase()))
    return {registry: DEFAULT_REGISTRY, repository: slash < 0 ? `library/${name}` : name};
  const registry = first === 'index.docker.io' ? DEFAULT_REGISTRY : first;
  const path = name.slice(slash + 1);
  return {registry, repository: registry === DEFAULT_REGISTRY && !path.includes('/') ? `library/${path}` : path};
}

function malformed(): CetusError {
  return new CetusError('invalid', 'invalid reference format');
}
