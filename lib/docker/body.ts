/**
 * From a request's JSON to a typed body: keys in the API's own case, types checked by ajv, unsupported options refused by name
 * (options.ts), string-or-list fields made lists, and null left out. What comes out has exactly the type it claims.
 */
import Ajv, {type ErrorObject, type ValidateFunction} from 'ajv';
import {CetusError} from '../base/errors';
import {DOCKER_SCHEMAS, type DockerBody} from '../schema/docker.schema';
import type {Exchange} from './exchange';
import {
  COMMIT, CONFIG, CONTAINER_UPDATE, ENDPOINT, EXEC_CREATE, EXEC_START, HOST_CONFIG, NETWORK_CONNECT, NETWORK_CREATE, NETWORK_DISCONNECT, type Options, QUERIES, VOLUME_CREATE,
} from './options';
import type {Query} from './query';

type Json = Record<string, unknown>;

const ajv = new Ajv({allErrors: false, strict: true, allowUnionTypes: true});
const validators = Object.fromEntries(Object.entries(DOCKER_SCHEMAS).map(([name, schema]) => [name, ajv.compile(schema)])) as Record<DockerBody, ValidateFunction>;

/** Objects inside a body whose fields have a table of their own. */
const NESTED: Partial<Record<DockerBody, Record<string, Options>>> = {
  containerCreate: {HostConfig: HOST_CONFIG},
};
const TABLES: Record<DockerBody, Options> = {
  containerCreate: {...CONFIG, HostConfig: 'honoured', NetworkingConfig: 'honoured'},
  containerUpdate: CONTAINER_UPDATE,
  imageCommit: COMMIT,
  execCreate: EXEC_CREATE,
  execStart: EXEC_START,
  networkCreate: NETWORK_CREATE,
  networkConnect: NETWORK_CONNECT,
  networkDisconnect: NETWORK_DISCONNECT,
  volumeCreate: VOLUME_CREATE,
};
/** One string stands for a list of one. */
const WORDS = ['Cmd', 'Entrypoint', 'Shell', 'CapAdd', 'CapDrop'] as const;

export async function readBody<T>(x: Exchange, kind: DockerBody): Promise<T> {
  return parseBody<T>(kind, await x.readJsonRequired());
}

/** For operations whose body may be missing: {} stands for it. */
export async function readOptionalBody<T>(x: Exchange, kind: DockerBody): Promise<T> {
  return parseBody<T>(kind, (await x.readJson()) ?? {});
}

export function parseBody<T>(kind: DockerBody, given: unknown): T {
  if (!isObject(given)) throw new CetusError('invalid', 'invalid JSON: an object is expected');
  const body = tidy(given, TABLES[kind]);
  for (const [name, table] of Object.entries(NESTED[kind] ?? {})) if (isObject(body[name])) body[name] = tidy(body[name], table);
  const endpoints = isObject(body.NetworkingConfig) ? tidy(body.NetworkingConfig, {EndpointsConfig: 'honoured'}) : undefined;
  if (endpoints) body.NetworkingConfig = endpoints;
  const byNetwork = endpoints?.EndpointsConfig;
  if (isObject(byNetwork)) for (const [name, settings] of Object.entries(byNetwork)) if (isObject(settings)) byNetwork[name] = tidy(settings, ENDPOINT);
  if (isObject(body.EndpointConfig)) body.EndpointConfig = tidy(body.EndpointConfig, ENDPOINT);

  const validate = validators[kind];
  if (!validate(body)) throw new CetusError('invalid', `invalid JSON: ${describe(validate.errors?.[0])}`);

  refuseUnsupported(body, TABLES[kind], '');
  for (const [name, table] of Object.entries(NESTED[kind] ?? {})) if (isObject(body[name])) refuseUnsupported(body[name], table, `${name}.`);
  if (isObject(byNetwork)) for (const [name, settings] of Object.entries(byNetwork)) if (isObject(settings)) refuseUnsupported(settings, ENDPOINT, `EndpointsConfig[${name}].`);
  if (isObject(body.EndpointConfig)) refuseUnsupported(body.EndpointConfig, ENDPOINT, 'EndpointConfig.');
  for (const part of [body, body.HostConfig]) if (isObject(part)) listWords(part);
  return body as T;
}

/** 400 for known parameters that are not honoured and would change something. */
export function checkQuery(operationId: string, query: Query): void {
  const table = QUERIES[operationId];
  if (!table) return;
  for (const [name, disposition] of Object.entries(table)) {
    if (typeof disposition === 'string' || !('refused' in disposition) || !query.has(name)) continue;
    const value = query.text(name);
    if (value !== '' && value !== '0' && value !== 'false' && !disposition.neutral?.includes(value))
      throw new CetusError('unsupported', `the parameter "${name}" is not supported by Cetus: ${disposition.refused}`);
  }
}

const isObject = (value: unknown): value is Json => typeof value === 'object' && value !== null && !Array.isArray(value);

/** Known keys get the API's spelling (Go's decoder matches them in any case), nulls are dropped, unknown keys are left out. */
function tidy(given: Json, table: Options): Json {
  const out: Json = {};
  let spelling: Map<string, string> | undefined;
  for (const [key, value] of Object.entries(given)) {
    if (value === null || value === undefined) continue;
    if (Object.hasOwn(table, key)) out[key] = value;
    else {
      spelling ??= new Map(Object.keys(table).map((name) => [name.toLowerCase(), name]));
      const known = spelling.get(key.toLowerCase());
      if (known && !Object.hasOwn(given, known)) out[known] = value;
    }
  }
  return out;
}

function refuseUnsupported(body: Json, table: Options, prefix: string): void {
  for (const [name, value] of Object.entries(body)) {
    const disposition = table[name];
    if (!disposition || disposition === 'honoured' || 'ignored' in disposition) continue;
    if (!isEmpty(value) && !disposition.neutral?.includes(value))
      throw new CetusError('unsupported', `the option ${prefix}${name} is not supported by Cetus: ${disposition.refused}`);
  }
}

function isEmpty(value: unknown): boolean {
  if (value === '' || value === 0 || value === false || value === null) return true;
  return typeof value === 'object' && Object.keys(value).length === 0;
}

function listWords(body: Json): void {
  for (const name of WORDS) if (typeof body[name] === 'string') body[name] = [body[name]];
}

function describe(error: ErrorObject | undefined): string {
  if (!error) return 'the body does not fit the API';
  const where = error.instancePath.replace(/^\//, '').replaceAll('/', '.') || 'the body';
  return `${where} ${error.message ?? 'is wrong'}`;
}
