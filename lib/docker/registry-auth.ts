/**
 * X-Registry-Auth: base64url (clients differ on padding, and some send the standard alphabet) of a JSON object. The result lives only as
 * long as the request. Nothing of the header's content is ever quoted in an error.
 */
import {CetusError} from '../base/errors';
import type {RegistryAuth} from '../schema/docker';

const FIELDS = ['username', 'password', 'auth', 'email', 'serveraddress', 'identitytoken', 'registrytoken'] as const;

export function parseRegistryAuth(header: string | string[] | undefined): RegistryAuth | undefined {
  const raw = Array.isArray(header) ? header[0] : header;
  if (!raw) return undefined;
  const wrong = (): CetusError => new CetusError('invalid', 'invalid X-Registry-Auth header: base64url-encoded JSON is expected');
  if (!/^[A-Za-z0-9+/_-]*={0,2}$/.test(raw)) throw wrong();
  let parsed: unknown;
  try {
    parsed = JSON.parse(Buffer.from(raw, 'base64').toString('utf8'));
  } catch {
    // No cause: a parser's message may quote what it read.
    throw wrong();
  }
  if (parsed === null || typeof parsed !== 'object' || Array.isArray(parsed)) throw wrong();
  const auth: RegistryAuth = {};
  for (const field of FIELDS) {
    const value = (parsed as Record<string, unknown>)[field];
    if (typeof value === 'string' && value !== '') auth[field] = value;
  }
  return Object.keys(auth).length ? auth : undefined;
}
