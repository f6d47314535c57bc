/** The parameter `platform` of newer APIs: JSON of an OCI platform, in the Engine's words where it is none. */
import {CetusError} from '../base/errors';
import {parseJson} from '../base/json-syntax';
import type {WantedPlatform} from '../datacenter/verbs';

const FIELDS = ['os', 'architecture', 'variant', 'os.version'] as const;

export function parsePlatformJson(text: string): WantedPlatform {
  const wrong = (why: string): CetusError => new CetusError('invalid', `failed to parse platform: ${why}`);
  let given: unknown;
  try {
    given = parseJson(text);
  } catch (err) {
    throw wrong((err as Error).message);
  }
  if (given === null || typeof given !== 'object' || Array.isArray(given)) throw wrong('an object is expected');
  const found = given as Record<string, unknown>;
  for (const field of FIELDS) if (found[field] !== undefined && found[field] !== null && typeof found[field] !== 'string') throw wrong(`${field} must be a string`);
  const {os = '', architecture = '', variant = '', 'os.version': version = ''} = Object.fromEntries(FIELDS.map((field) => [field, found[field] ?? ''])) as Record<(typeof FIELDS)[number], string>;
  if (os === '' && architecture === '' && (variant !== '' || version !== '')) throw new CetusError('invalid', 'optional platform components provided, but OS and Architecture are not provided');
  if (os === '' || architecture === '') throw new CetusError('invalid', 'both OS and Architecture must be provided');
  return {os, architecture, ...(variant ? {variant} : {}), ...(version ? {'os.version': version} : {})};
}
