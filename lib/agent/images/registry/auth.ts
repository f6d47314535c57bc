/**
 * Credentials for one pull or push: kept in memory for as long as it lasts, sent to the registry or to the token server it names, and to nobody
 * else. Never logged, never part of an error. Token protocol: distribution's "token" and "oauth" specifications.
 */
import {CetusError} from '../../../base/errors';
import type {RegistryAuth} from '../../../schema/docker';
import {parseChallenges, type Challenge} from './challenge';
import {bare} from './network-error';
import {registryError} from './registry-error';
import {readBody, readErrorBody, type Transport} from './transport';
import type {Reference} from '../../../schema/reference';

const MAX_TOKEN_ANSWER = 256 * 1024;
const SCOPE = /^[\x21-\x7e]+( [\x21-\x7e]+)*$/;

/** What a token is to allow: to read the repository, to write it (and to read those that layers are taken from), or nothing but to show who one is. */
export type Access = {kind: 'pull'} | {kind: 'inspect'} | {kind: 'push'; from: readonly string[]} | {kind: 'login'};

export interface AuthorizerOptions { transport: Transport; reference: Reference; registryHost: string; auth: RegistryAuth | undefined; access?: Access; signal: AbortSignal }

export class Authorizer {
  private challenges: Challenge[] = [];
  private header: Promise<string | undefined> | undefined;
  /** Of a login: what a token server gives in the password's place, for later. */
  refreshToken = '';
  private readonly access: Access;
  private readonly basic: {username: string; password: string} | undefined;

  constructor(private readonly options: AuthorizerOptions) {
    this.basic = basicOf(options.auth);
    this.access = options.access ?? {kind: 'pull'};
  }

  /** What the registry asked for in its last 401. A token that was refused is forgotten. */
  challenged(header: string | string[] | undefined): void {
    this.challenges = parseChallenges(header);
    this.header = undefined;
  }

  /** The Authorization header for the repository, or undefined where none is asked for. One token per pull, fetched once. */
  authorization(): Promise<string | undefined> {
    const {auth} = this.options;
    if (auth?.registrytoken) return Promise.resolve(`Bearer ${auth.registrytoken}`);
    if (!this.header) {
      const header = this.make();
      this.header = header;
      // A failure is not kept: the next request asks again.
      header.catch(() => {
        if (this.header === header) this.header = undefined;
      });
    }
    return this.header;
  }

  private async make(): Promise<string | undefined> {
    const bearer = this.challenges.find((c) => c.scheme === 'bearer');
    if (bearer) return `Bearer ${await this.token(bearer.parameters)}`;
    if (!this.challenges.some((c) => c.scheme === 'basic')) return undefined;
    if (!this.basic) throw new CetusError('unauthorized', `${this.access.kind === 'pull' ? `Get "https://${this.options.registryHost}/v2/": ` : ''}no basic auth credentials`);
    return basicHeader(this.basic);
  }

  private async token(parameters: Record<string, string>): Promise<string> {
    const {transport, reference, registryHost, auth, signal} = this.options;
    const realm = realmOf(parameters.realm, registryHost);
    const scopes = scopesOf(this.access, parameters.scope, reference);
    const refresh = auth?.identitytoken;
    let answer;
    if (refresh) {
      const form = new URLSearchParams({grant_type: 'refresh_token', service: parameters.service ?? '', client_id: 'docker', scope: scopes.join(' '), refresh_token: refresh});
      answer = await transport.send({method: 'POST', url: realm, body: form.toString(), headers: {'content-type': 'application/x-www-form-urlencoded'}, signal});
    } else {
      const url = new URL(realm);
      if (parameters.service) url.searchParams.set('service', parameters.service);
      for (const scope of scopes) url.searchParams.append('scope', scope);
      if (this.access.kind === 'login') {
        url.searchParams.set('offline_token', 'true');
        url.searchParams.set('client_id', 'docker');
      }
      if (this.basic) url.searchParams.set('account', this.basic.username);
      answer = await transport.send({method: 'GET', url, authorization: this.basic && basicHeader(this.basic), signal});
    }
    if (answer.statusCode !== 200) {
      const body = await readErrorBody(answer);
      const err = registryError({status: answer.statusCode, statusText: '', body, challenges: []}, reference, this.access.kind);
      throw new CetusError(answer.statusCode === 401 || answer.statusCode === 403 ? 'unauthorized' : err.kind, `Get "${this.access.kind === 'login' ? `https://${registryHost}/v2/` : bare(realm)}": ${tokenError(answer.statusCode, err)}`, {info: err.info});
    }
    const body = await readBody(answer, MAX_TOKEN_ANSWER, 'the answer of the token server');
    let parsed: {token?: unknown; access_token?: unknown; refresh_token?: unknown};
    try {
      parsed = JSON.parse(body.toString('utf8')) as typeof parsed;
    } catch {
      throw new CetusError('unavailable', `Get "${bare(realm)}": the token server's answer is not JSON`);
    }
    if (this.access.kind === 'login' && typeof parsed?.refresh_token === 'string') this.refreshToken = parsed.refresh_token;
    const token = parsed?.token || parsed?.access_token;
    if (typeof token !== 'string' || !/^[\x21-\x7e]+$/.test(token)) throw new CetusError('unavailable', `Get "${bare(realm)}": authorization server did not include a token in the response`);
    return token;
  }
}

function tokenError(status: number, err: CetusError): string {
  return status === 401 && err.message.startsWith('unauthorized: authentication required') ? 'unauthorized: incorrect username or password' : err.message;
}

// The realm is the registry's word, but it receives the user's password: no other scheme and no smuggled credentials.
// Whether plain HTTP is allowed there is the transport's decision.
function realmOf(realm: string | undefined, registryHost: string): URL {
  const url = realm !== undefined && URL.canParse(realm) ? new URL(realm) : undefined;
  if (!url || !/^https?:$/.test(url.protocol) || url.username !== '' || url.password !== '')
    throw new CetusError('invalid', `Get "https://${registryHost}/v2/": invalid realm in the registry's authentication challenge`);
  return url;
}

function scopesOf(access: Access, offered: string | undefined, reference: Reference): string[] {
  if (access.kind === 'login') return [];
  if (access.kind === 'push') return [`repository:${reference.repository}:pull,push`, ...access.from.map((repository) => `repository:${repository}:pull`)];
  // The challenge of /v2/ names no scope; the one of a manifest does, and may be wider than what a pull needs.
  const wanted = `repository:${reference.repository}:pull`;
  return [offered && SCOPE.test(offered) && offered.includes(reference.repository) ? offered : wanted];
}

export function basicOf(auth: RegistryAuth | undefined): {username: string; password: string} | undefined {
  if (auth?.username && auth.password !== undefined && auth.password !== '') return {username: auth.username, password: auth.password};
  if (!auth?.auth) return undefined;
  const decoded = Buffer.from(auth.auth, 'base64').toString('utf8');
  const colon = decoded.indexOf(':');
  return colon > 0 ? {username: decoded.slice(0, colon), password: decoded.slice(colon + 1)} : undefined;
}

export function basicHeader({username, password}: {username: string; password: string}): string {
  return `Basic ${Buffer.from(`${username}:${password}`, 'utf8').toString('base64')}`;
}
