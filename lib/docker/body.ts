/**
 * From a request's JSON to a typed body: decoded as the Engine decodes it (decode.ts), unsupported options refused by name. And the same
 * refusal for query parameters (options.ts).
 */
import {CetusError} from '../base/errors';
import {BODIES, type BodyKind} from '../schema/options/bodies';
import {decode, refuseUnsupported} from './decode';
import type {Exchange} from './exchange';
import {QUERIES} from './options';
import type {Query} from './query';

export async function readBody<T>(x: Exchange, kind: BodyKind): Promise<T> {
  return parseBody<T>(kind, await x.readJsonRequired());
}

/** For operations whose body may be missing: {} stands for it. */
export async function readOptionalBody<T>(x: Exchange, kind: BodyKind): Promise<T> {
  return parseBody<T>(kind, (await x.readJson()) ?? {});
}

export function parseBody<T>(kind: BodyKind, given: unknown): T {
  const body = bounded(() => decode(BODIES[kind], given));
  refuseUnsupported(BODIES[kind], body);
  return body as T;
}

/** V8 reads a body however deep it goes; whoever walks through it is stopped by the stack, where Go's decoder counts. */
function bounded<T>(walk: () => T): T {
  try {
    return walk();
  } catch (err) {
    if (err instanceof RangeError) throw new CetusError('invalid', 'invalid JSON: exceeded max depth', {cause: err});
    throw err;
  }
}

const SAYS_NO: ReadonlySet<string> = new Set(['', '0', 'no', 'false', 'none']);

/** 400 for known parameters that are not honoured and would change something. */
export function checkQuery(operationId: string, query: Query): void {
  const table = QUERIES[operationId];
  if (!table) return;
  for (const [name, disposition] of Object.entries(table)) {
    if (disposition.is !== 'refused' || !query.has(name)) continue;
    const value = query.text(name);
    if (!SAYS_NO.has(value) && !disposition.neutral?.includes(value))
      throw new CetusError('unsupported', `the parameter "${name}" is not supported by Cetus: ${disposition.why}`);
  }
}
