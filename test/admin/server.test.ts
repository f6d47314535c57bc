import http from 'node:http';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import Ajv from 'ajv';
import {CetusError} from '../../lib/base/errors';
import {silentLog} from '../../lib/base/log';
import {OPENAPI} from '../../lib/admin/openapi';
import {verbs} from '../../lib/admin/routes';
import {type AdminServer, createAdminServer} from '../../lib/admin/server';
import {container, fakeDatacenter, job, node} from './fake-operator';

let server: AdminServer;
let socketPath: string;
beforeAll(async () => {
  socketPath = path.join(fs.mkdtempSync(path.join(os.tmpdir(), 'cetus-admin-')), 'admin.sock');
  server = createAdminServer({datacenter: fakeDatacenter(), log: silentLog()});
  await server.listen({path: socketPath});
});
afterAll(async () => {
  await server.close();
  fs.rmSync(path.dirname(socketPath), {recursive: true});
});

function call(method: string, url: string, sent?: string): Promise<{status: number; body: unknown}> {
  return new Promise((resolve, reject) => {
    http.request({socketPath, method, path: url}, (res) => {
      let text = '';
      res.setEncoding('utf8').on('data', (c: string) => { text += c; }).on('end', () => resolve({status: res.statusCode!, body: JSON.parse(text)}));
    }).on('error', reject).end(sent);
  });
}

const operations = Object.entries(OPENAPI.paths).flatMap(([template, methods]) => Object.entries(methods).map(([method, operation]) => ({template, method, operation})));

test('every description has a verb, and every verb a description', () => {
  expect(Object.keys(verbs(fakeDatacenter())).sort()).toEqual(operations.map((o) => o.operation.operationId).sort());
});

const ajv = new Ajv({strict: false});
ajv.addSchema({$id: 'api', components: OPENAPI.components});
const values: Record<string, string> = {node: node.name, container: container.name, job: job.id, bucket: 'containers', key: container.id, token: 'abcdefghij'};

test.each(operations)('$method $template answers as described', async ({template, method, operation}) => {
  const {status, body} = await call(method.toUpperCase(), template.replace(/\{(\w+)\}/g, (_, name: string) => values[name]));
  expect({status, body}).toMatchObject({status: 200});
  const schema = JSON.parse(JSON.stringify(operation.responses['200'].content!['application/json'].schema).replaceAll('"#/', '"api#/')) as object;
  const validate = ajv.compile(schema);
  expect(validate(body) ? [] : validate.errors).toEqual([]);
});

test.each([
  ['GET', '/v1/jobs?limit=0', 400, /limit must be >= 1/],
  ['GET', '/v1/jobs?limit=x', 400, /limit must be integer/],
  ['GET', '/v1/jobs?colour=red', 400, /unknown parameter colour/],
  ['GET', '/v1/containers?status=asleep', 400, /status must be equal to one of the allowed values/],
  ['GET', '/v1/jobs?limit=1&limit=2', 400, /more than once/],
  ['GET', '/v1/nodes/nosuch', 404, /no such node/],
  ['GET', '/v2/nodes', 404, /no such path/],
  ['DELETE', '/v1/nodes/busy', 409, /holds 1 container/],
  ['DELETE', '/v1/nodes/busy?force=perhaps', 400, /force must be boolean/],
  ['DELETE', '/v1/tokens/nosuch', 404, /no such token/],
  ['DELETE', '/v1/nodes', 400, /does not take that method/],
  ['GET', '/v1/store/containers/a%2Fb', 404, /a\/b/],
])('%s %s is refused with %d', async (method, url, status, message) => {
  const answer = await call(method, url);
  expect(answer).toEqual({status, body: {code: expect.any(String), message: expect.stringMatching(message)}});
});

test.each([
  ['/v1/tokens', '{"ttlSeconds": 0}', /ttlSeconds must be >= 1/],
  ['/v1/tokens', '{"ttl": 5}', /unknown field ttl/],
  ['/v1/tokens', '{"labels": {"rack": 1}}', /labels.rack must be string/],
  ['/v1/tokens', '[]', /must be object/],
  ['/v1/tokens', '{', /not JSON/],
  ['/v1/nodes/rack1-a/cordon', JSON.stringify({reason: 'x'.repeat(1025)}), /reason must NOT have more than 1024/],
  ['/v1/nodes/rack1-a/labels', JSON.stringify({add: {x: 'y'.repeat(2 ** 20)}}), /longer than/],
])('POST %s with %.40s is refused', async (url, sent, message) => {
  expect(await call('POST', url, sent)).toMatchObject({status: 400, body: {code: 'invalid', message: expect.stringMatching(message)}});
});

test.each(operations.filter(({operation}) => operation.requestBody))('$method $template: a number is no body', async ({template, method}) => {
  const answer = await call(method.toUpperCase(), template.replace(/\{(\w+)\}/g, (_, name: string) => values[name]!), '5');
  expect(answer).toEqual({status: 400, body: {code: 'invalid', message: 'the body must be object'}});
});

test('what a change says arrives', async () => {
  expect(await call('POST', '/v1/nodes/rack1-a/labels', '{"add": {"disk": "ssd"}, "remove": ["rack"]}')).toMatchObject({status: 200, body: {labels: {disk: 'ssd'}}});
  expect(await call('POST', '/v1/nodes/rack1-a/drain', '{"reason": "new disks"}')).toMatchObject({status: 200, body: {availability: 'draining', availabilityReason: 'new disks'}});
});

test('a fault of ours shows its message and no stack', async () => {
  const broken = createAdminServer({datacenter: {...fakeDatacenter(), system: {ping: () => Promise.reject(new CetusError('unavailable', 'the store is away'))} as never}, log: silentLog()});
  const at = await broken.listen({host: '127.0.0.1', port: 0}) as {port: number};
  const answer = await new Promise<number>((resolve, reject) => {
    http.get({port: at.port, host: '127.0.0.1', path: '/v1/ping'}, (res) => resolve(res.resume().statusCode!)).on('error', reject);
  });
  expect(answer).toBe(503);
  await broken.close();
});
