/** A registry's error answers, as the Engine words them (distribution's errcode, daemon's TranslatePullError). Bodies are a stranger's text: bounded. */
import {CetusError, type ErrorKind} from '../../../base/errors';
import {familiarName, familiarReference, type Reference} from '../../../schema/reference';
import type {Challenge} from './challenge';

export interface RegistryAnswer { status: number; statusText: string; body: Buffer; challenges: Challenge[] }

const STATUS_TEXT: Record<number, string> = {
  400: 'Bad Request', 401: 'Unauthorized', 403: 'Forbidden', 404: 'Not Found', 408: 'Request Timeout', 416: 'Requested Range Not Satisfiable',
  429: 'Too Many Requests', 500: 'Internal Server Error', 502: 'Bad Gateway', 503: 'Service Unavailable', 504: 'Gateway Timeout',
};

/** What was asked of the registry: of a pull alone the Engine says more than the registry did. */
export type Purpose = 'pull' | 'push' | 'inspect' | 'login';

export function registryError(answer: RegistryAnswer, reference: Reference, purpose: Purpose = 'pull'): CetusError {
  const {status} = answer;
  const info = {status, registry: reference.registry};
  const [code, message] = errorCode(answer);
  const text = `${code.toLowerCase().replaceAll('_', ' ')}: ${message}`;
  if (purpose !== 'pull' && code !== '') return new CetusError(kindOf(code, status), text, {info});
  switch (code) {
    case 'DENIED':
      return new CetusError('notFound', `pull access denied for ${familiarName(reference)}, repository does not exist or may require 'docker login': ${text}`, {info});
    case 'MANIFEST_UNKNOWN':
      return new CetusError('notFound', `manifest for ${familiarReference(reference)} not found: ${text}`, {info});
    case 'NAME_UNKNOWN':
      return new CetusError('notFound', `repository ${familiarName(reference)} not found: ${text}`, {info});
    case 'BLOB_UNKNOWN':
      return new CetusError('notFound', text, {info});
    case 'UNAUTHORIZED':
      return new CetusError('unauthorized', text, {info});
    case 'TOOMANYREQUESTS':
      return new CetusError('unavailable', text, {info});
    case '':
      return new CetusError('unavailable', `received unexpected HTTP status: ${status} ${STATUS_TEXT[status] ?? answer.statusText}`.trim(), {info});
    default:
      return new CetusError(status >= 500 ? 'unavailable' : 'invalid', text, {info});
  }
}

function kindOf(code: string, status: number): ErrorKind {
  switch (code) {
    case 'DENIED': return 'forbidden';
    case 'UNAUTHORIZED': return 'unauthorized';
    case 'MANIFEST_UNKNOWN': case 'NAME_UNKNOWN': case 'BLOB_UNKNOWN': return 'notFound';
    case 'TOOMANYREQUESTS': return 'unavailable';
    default: return status >= 500 ? 'unavailable' : 'invalid';
  }
}

function errorCode({status, body, challenges}: RegistryAnswer): [code: string, message: string] {
  // A token without the wanted access is a denial, whatever the body says.
  if (status === 401 && challenges.some((c) => c.scheme === 'bearer' && c.parameters.error === 'insufficient_scope'))
    return ['DENIED', 'requested access to the resource is denied'];
  const first = firstError(body);
  if (first) return first;
  switch (status) {
    case 401: return ['UNAUTHORIZED', 'authentication required'];
    case 403: return ['DENIED', 'requested access to the resource is denied'];
    case 404: return ['MANIFEST_UNKNOWN', 'manifest unknown'];
    case 429: return ['TOOMANYREQUESTS', 'too many requests'];
    default: return ['', ''];
  }
}

function firstError(body: Buffer): [string, string] | undefined {
  let parsed: unknown;
  try {
    parsed = JSON.parse(body.toString('utf8'));
  } catch {
    return undefined;
  }
  const document = parsed as {errors?: unknown; details?: unknown} | null;
  const first = (Array.isArray(document?.errors) ? document.errors[0] : undefined) as {code?: unknown; message?: unknown} | undefined;
  if (typeof first?.code === 'string' && /^[A-Z0-9_]{1,64}$/.test(first.code))
    return [first.code, printable(typeof first.message === 'string' && first.message !== '' ? first.message : first.code.toLowerCase().replaceAll('_', ' '))];
  // Token servers and Docker Hub say {"details": "..."}.
  return typeof document?.details === 'string' ? ['UNAUTHORIZED', printable(document.details)] : undefined;
}

function printable(text: string): string {
  return text.slice(0, 500).replace(/[\u0000-\u001f\u007f]/g, ' ');
}
