/**
 * Errors of the wire, in the words the Engine uses for them: `Get "https://host/v2/": dial tcp: lookup host: no such host`.
 * A URL is printed without its query: redirects to object stores carry signatures there.
 */
import {errors as undici} from 'undici';
import {CetusError, type ErrorKind} from '../../../base/errors';

export function networkError(method: string, url: URL, err: unknown): CetusError {
  if (err instanceof CetusError) return err;
  const {kind, text} = explain(url, err);
  return new CetusError(kind, `${title(method)} "${bare(url)}": ${text}`, {cause: scrub(err), info: {code: codeOf(err), registry: url.host}});
}

/** Worth another try on a fresh connection. A refused connection or an unknown host is an answer, not an accident. */
export function isTransient(err: unknown): boolean {
  if (!(err instanceof CetusError)) return false;
  if (typeof err.info.status === 'number') return err.info.status >= 500 || err.info.status === 429 || err.info.status === 408;
  return err.kind === 'timeout' || (err.kind === 'unavailable' && !['ECONNREFUSED', 'ENOTFOUND', 'CERT', 'NOBODY'].includes(String(err.info.code)));
}

export function bare(url: URL): string {
  return `${url.protocol}//${url.host}${url.pathname}`;
}

function explain(url: URL, err: unknown): {kind: ErrorKind; text: string} {
  const code = codeOf(err);
  const address = `${url.hostname}:${url.port || (url.protocol === 'https:' ? 443 : 80)}`;
  if (err instanceof undici.ConnectTimeoutError) return {kind: 'timeout', text: `dial tcp ${address}: i/o timeout`};
  if (err instanceof undici.HeadersTimeoutError || err instanceof undici.BodyTimeoutError)
    return {kind: 'timeout', text: 'net/http: request canceled (Client.Timeout exceeded while awaiting headers)'};
  switch (code) {
    case 'ECONNREFUSED': return {kind: 'unavailable', text: `dial tcp ${address}: connect: connection refused`};
    case 'ENOTFOUND': return {kind: 'unavailable', text: `dial tcp: lookup ${url.hostname}: no such host`};
    case 'EAI_AGAIN': return {kind: 'unavailable', text: `dial tcp: lookup ${url.hostname}: Temporary failure in name resolution`};
    case 'EHOSTUNREACH': return {kind: 'unavailable', text: `dial tcp ${address}: connect: no route to host`};
    case 'ENETUNREACH': return {kind: 'unavailable', text: `dial tcp ${address}: connect: network is unreachable`};
    case 'ECONNRESET': return {kind: 'unavailable', text: `read tcp ${address}: read: connection reset by peer`};
    case 'UND_ERR_SOCKET': return {kind: 'unavailable', text: 'unexpected EOF'};
    case 'ERR_SSL_WRONG_VERSION_NUMBER': case 'EPROTO': case 'ERR_SSL_PACKET_LENGTH_TOO_LONG':
      return {kind: 'unavailable', text: 'http: server gave HTTP response to HTTPS client'};
    case 'CERT': return {kind: 'unavailable', text: `tls: failed to verify certificate: x509: ${(err as Error).message}`};
    default: return {kind: 'unavailable', text: String((err as Error | undefined)?.message ?? err)};
  }
}

const CERTIFICATE = /^(CERT_|DEPTH_ZERO|SELF_SIGNED|UNABLE_TO_|ERR_TLS_CERT)/;

function codeOf(err: unknown): string | undefined {
  for (let e = err as {code?: unknown; cause?: unknown; errors?: unknown[]} | undefined, depth = 0; e && depth < 4; e = (e.cause ?? e.errors?.[0]) as never, depth += 1)
    if (typeof e.code === 'string') return CERTIFICATE.test(e.code) ? 'CERT' : e.code;
  return undefined;
}

// undici's errors may hold the request with its headers; only name, message and code go on.
function scrub(err: unknown): unknown {
  const {name, message} = err as Error;
  return Object.assign(new Error(message), {name, code: codeOf(err)});
}

function title(method: string): string {
  return method[0] + method.slice(1).toLowerCase();
}
