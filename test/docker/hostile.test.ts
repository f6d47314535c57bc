/**
 * Requests that nobody meant well: any name, id, query, header, version and body to any operation. Nothing breaks: an answer is never an
 * internal error, every refusal is JSON with a message, and the edge serves the next request.
 */
import http from 'node:http';
import fc from 'fast-check';
import {QUERIES} from '../../lib/docker/options';
import {OPERATIONS, type Operation} from '../../lib/docker/operations';
import {BODIES} from '../../lib/schema/options/bodies';
import type {Struct, Wire} from '../../lib/schema/options/field';
import {fakeContainer} from './fake-datacenter';
import {closeWorlds, type World, world} from './world';

const hostileText = fc.oneof(
  fc.constantFrom('', '/', '..', '../../etc/passwd', '\0', '%', '%00', '\n', '"', "'", '${x}', '{{.}}', '-1', '0', '1e999', '99999999999999999999', 'NaN', 'true', 'null', '[]', '{}', '__proto__', 'constructor',
    'toString', 'a'.repeat(5_000), '(((', '\ud800', 'ü', '💥', ' ', 'c', 'busybox', 'bridge', 'e', '1.5', '2024-01-01', '1h', 'sha256:', ':', '@', 'a:b:c', 'c/../c'),
  fc.string({unit: 'binary', maxLength: 40}), fc.string({maxLength: 20}), fc.integer().map(String),
);

const hostileFilters = fc.oneof(
  fc.dictionary(fc.oneof(hostileText, fc.constantFrom('label', 'name', 'id', 'status', 'until', 'dangling', 'before', 'since', 'role', 'type')), fc.oneof(fc.array(hostileText, {maxLength: 3}), fc.dictionary(hostileText, fc.boolean(), {maxKeys: 3}), fc.jsonValue())).map((value) => JSON.stringify(value)),
  hostileText, fc.json(),
);

/** Values of the right shape as often as not, so that what lies behind the first check is reached too. */
function bodyOf(wire: Wire, depth = 0): fc.Arbitrary<unknown> {
  const wrong = fc.oneof(fc.constant(null), fc.jsonValue({maxDepth: 2}), hostileText);
  const or = (right: fc.Arbitrary<unknown>): fc.Arbitrary<unknown> => fc.oneof({weight: 12, arbitrary: right}, {weight: 1, arbitrary: wrong});
  switch (wire.kind) {
    case 'string': return or(hostileText);
    case 'bool': return or(fc.boolean());
    case 'int': return or(fc.oneof(fc.integer(), fc.constantFrom(-1, 0, 2 ** 53, 2 ** 62, 1e300)));
    case 'words': return or(fc.oneof(hostileText, fc.array(hostileText, {maxLength: 3})));
    case 'empty': return or(fc.object({maxDepth: 1}));
    case 'list': return or(fc.array(bodyOf(wire.of, depth + 1), {maxLength: 3}));
    case 'map': return or(fc.dictionary(hostileText, bodyOf(wire.of, depth + 1), {maxKeys: 3}));
    case 'struct': return or(fieldsOf(wire, depth));
  }
}

const fieldsOf = (struct: Struct, depth: number): fc.Arbitrary<unknown> => fc.subarray(Object.keys(struct.fields), {maxLength: Math.min(Object.keys(struct.fields).length, depth === 0 ? 6 : 4)})
  .chain((names) => fc.record(Object.fromEntries(names.map((name) => [name, bodyOf(struct.fields[name]!.wire, depth + 1)]))));

const BODY_OF: Record<string, Struct> = {
  ContainerCreate: BODIES.containerCreate, ContainerUpdate: BODIES.containerUpdate, ContainerExec: BODIES.execCreate, ExecStart: BODIES.execStart, NetworkCreate: BODIES.networkCreate,
  NetworkConnect: BODIES.networkConnect, NetworkDisconnect: BODIES.networkDisconnect, VolumeCreate: BODIES.volumeCreate, ImageCommit: BODIES.imageCommit,
};

const version = fc.oneof({weight: 3, arbitrary: fc.integer({min: 24, max: 51}).map((minor) => `/v1.${minor}`)}, {weight: 1, arbitrary: fc.constantFrom('', '/v1.23', '/v1.52', '/v2', '/v', '/v1.', '/v1.41.1', '/v99999999999999999999.1', '/v0')});
const contentType = fc.oneof({weight: 6, arbitrary: fc.constant('application/json')}, {weight: 1, arbitrary: fc.constantFrom('', 'text/plain', 'application/json; charset', 'application/x-tar', ';', 'garbage')});
const headerText = fc.oneof(fc.base64String({maxLength: 60}), fc.stringMatching(/^[\x20-\x7e]{0,40}$/), fc.json().map((text) => Buffer.from(text).toString('base64url')));

interface Asked { method: string; path: string; headers: Record<string, string>; body: Buffer | undefined }

function asked(operation: Operation): fc.Arbitrary<Asked> {
  const names = Object.keys(QUERIES[operation.id] ?? {});
  const query = fc.array(fc.tuple(names.length ? fc.oneof({weight: 4, arbitrary: fc.constantFrom(...names)}, {weight: 1, arbitrary: hostileText}) : hostileText, fc.oneof(hostileText, hostileFilters)), {maxLength: 4})
    .chain((pairs) => fc.boolean().map((raw) => pairs.map(([name, value]) => (raw && /^[\x21-\x7e]*$/.test(name + value) ? `${name}=${value}`.replaceAll('#', '') : `${encode(name)}=${encode(value)}`)).join('&')));
  const headers = fc.record({'X-Registry-Auth': headerText, 'X-Registry-Config': headerText, 'X-Request-Id': headerText, 'Content-Type': contentType}, {requiredKeys: []});
  const kind = BODY_OF[operation.id];
  const body = operation.method === 'POST' || operation.method === 'PUT'
    ? fc.option(fc.oneof(...(kind ? [{weight: 4, arbitrary: fieldsOf(kind, 0).map((value) => Buffer.from(JSON.stringify(value)))}] : []), {weight: 1, arbitrary: fc.json().map((text) => Buffer.from(text))}, {weight: 1, arbitrary: fc.uint8Array({maxLength: 200}).map((bytes) => Buffer.from(bytes))}), {nil: undefined})
    : fc.constant(undefined);
  return fc.record({version, name: hostileText, query, headers, body}).map(({version: prefix, name, query: text, headers: given, body: bytes}) => ({
    method: operation.method, path: `${prefix}${operation.path.replace(/\{\w+\}/, encode(name) || 'c')}${text ? `?${text}` : ''}`, headers: given as Record<string, string>, body: bytes,
  }));
}

/** Lone surrogates have no encoding. */
const encode = (text: string): string => encodeURIComponent(text.toWellFormed());

/** Node's own types are older than the runtime that is asked for. */
declare global { interface String { toWellFormed(): string } }

/** Status, and the body of what is refused; of what is not, only the beginning is waited for. */
function ask(port: number, {method, path, headers, body}: Asked): Promise<{status: number; text: string}> {
  return new Promise((resolve, reject) => {
    const req = http.request({port, method, path, headers: {...headers, Connection: 'close', ...(body ? {'Content-Length': String(body.length)} : {})}});
    req.on('upgrade', (res, socket) => {
      socket.destroy();
      resolve({status: res.statusCode!, text: ''});
    });
    req.on('response', (res) => {
      if (res.statusCode! < 400 || method === 'HEAD') {
        resolve({status: res.statusCode!, text: ''});
        return void res.destroy();
      }
      const chunks: Buffer[] = [];
      res.on('data', (chunk: Buffer) => chunks.push(chunk)).on('end', () => resolve({status: res.statusCode!, text: Buffer.concat(chunks).toString()})).on('error', reject);
    });
    req.on('error', reject);
    req.end(body);
  });
}

describe('whatever is asked', () => {
  let here: World;
  const RUNS = 25;

  beforeAll(async () => {
    here = await world();
    here.fake.add(fakeContainer({name: 'c'}, {Cmd: ['sleep']}));
  });
  afterAll(closeWorlds);

  it.each(OPERATIONS.map((operation) => [operation.id, operation] as const))('%s', async (_id, operation) => {
    await fc.assert(fc.asyncProperty(asked(operation), async (request) => {
      const {status, text} = await ask(here.port, request);
      expect(status).not.toBe(500);
      expect(status).toBeLessThan(505);
      if (text !== '' || (status >= 400 && request.method !== 'HEAD')) expect(typeof (JSON.parse(text) as {message: unknown}).message).toBe('string');
    }), {numRuns: RUNS});
    // Containers, networks and volumes of the fake have no bound of their own.
    for (const id of [...here.fake.held.keys()].slice(1)) here.fake.held.delete(id);
    expect((await ask(here.port, {method: 'GET', path: '/_ping', headers: {}, body: undefined})).status).toBe(200);
  });
});
