/**
 * The operator's API over HTTP: the routes of the OpenAPI document, each calling its verb. What it refuses: unknown or malformed parameters
 * (400 naming them), anything but the described paths (404). Called by main, which chooses where it listens.
 */
import type {AddressInfo} from 'node:net';
import Ajv from 'ajv';
import type {Registry} from 'prom-client';
import {readBytes} from '../base/body';
import {asCetusError, CetusError} from '../base/errors';
import {lateCheck} from '../base/late-check';
import type {Log} from '../base/log';
import {type Request, type Response, restify, type Server, type ServerOptions} from '../base/restify';
import type {Datacenter} from '../datacenter/verbs';
import {statusOf} from '../schema/wire';
import {OPENAPI} from './openapi';
import {type Params, verbs} from './routes';

export interface AdminServerOptions {
  datacenter: Pick<Datacenter, 'operator' | 'system'>;
  log: Log;
  metrics?: Registry;
}

export interface AdminServer {
  /** Resolves with the address in use: port 0 asks for any. */
  listen(at: {host: string; port: number} | {path: string}): Promise<{host: string; port: number} | {path: string}>;
  close(): Promise<void>;
}

const REQUEST_TIMEOUT_MS = 30_000;
const MAX_BODY_BYTES = 1024 * 1024;
const PARAMETERS = new Ajv({coerceTypes: true, useDefaults: true, allErrors: true});
const BODIES = new Ajv({allErrors: true});
/** restify's names, where they are not HTTP's. */
const METHODS: Readonly<Record<string, string>> = {delete: 'del'};

export function createAdminServer({datacenter, log, metrics}: AdminServerOptions): AdminServer {
  const servers: Server[] = [];
  const handlers = verbs(datacenter);

  const build = (): Server => {
    const server = restify.createServer({name: 'cetus-admin', log: log as never, handleUncaughtExceptions: false} as ServerOptions);
    server.server.requestTimeout = REQUEST_TIMEOUT_MS;
    server.on('NotFound', (_req: Request, res: Response, _err: unknown, done: () => void) => {
      sendError(res, new CetusError('notFound', 'no such path; /openapi.json describes those there are'));
      done();
    });
    server.on('MethodNotAllowed', (_req: Request, res: Response, _err: unknown, done: () => void) => {
      sendError(res, new CetusError('invalid', 'this path does not take that method; /openapi.json describes those it takes'));
      done();
    });
    for (const [path, methods] of Object.entries(OPENAPI.paths))
      for (const [method, operation] of Object.entries(methods)) {
        const verb = handlers[operation.operationId];
        const check = parameterCheck(operation.parameters);
        const read = bodyReader(operation.requestBody?.content['application/json'].schema);
        // restify's promise handlers take no `next`; an exception would become its own error shape, so none may leave here.
        route(server, method, path, async (req, res) => {
          try {
            const params = check(req);
            res.json(200, await verb({...params, body: await read(req)}));
          } catch (thrown) {
            const err = asCetusError(thrown, operation.operationId);
            if (err.kind === 'internal') log.error({err, operation: operation.operationId}, 'operator API');
            sendError(res, err);
          }
        });
      }
    route(server, 'get', '/openapi.json', async (_req, res) => {
      res.json(200, OPENAPI);
    });
    if (metrics)
      route(server, 'get', '/metrics', async (_req, res) => {
        const text = await metrics.metrics();
        res.writeHead(200, {'content-type': metrics.contentType});
        res.end(text);
      });
    return server;
  };

  return {
    listen: (at) => new Promise((resolve, reject) => {
      const server = build();
      servers.push(server);
      server.on('error', (err: Error) => reject(new CetusError('internal', `listen on ${JSON.stringify(at)}`, {cause: err})));
      const listening = (): void => {
        const address = server.address() as AddressInfo | string;
        resolve(typeof address === 'string' ? {path: address} : {host: address.address, port: address.port});
      };
      if ('path' in at) server.listen(at.path, listening);
      else server.listen(at.port, at.host, listening);
    }),
    close: async () => {
      await Promise.all(servers.map((server) => new Promise<void>((resolve) => {
        server.close(() => resolve());
        (server.server as unknown as {closeAllConnections(): void}).closeAllConnections();
      })));
    },
  };
}

function route(server: Server, method: string, path: string, handler: (req: Request, res: Response) => Promise<void>): void {
  const template = path.replace(/\{(\w+)\}/g, ':$1');
  const register = (server as unknown as Record<string, (path: string, handler: unknown) => void>)[METHODS[method] ?? method];
  register.call(server, template, handler);
}

/** Path and query parameters as the document describes them: coerced, defaulted, and nothing beyond them accepted. */
function parameterCheck(parameters: {name: string; required?: boolean; schema: object}[]): (req: Request) => Params {
  const validate = lateCheck(PARAMETERS, {
    type: 'object', additionalProperties: false,
    properties: Object.fromEntries(parameters.map((p) => [p.name, p.schema])),
    required: parameters.filter((p) => p.required).map((p) => p.name),
  });
  return (req) => {
    const values: Record<string, unknown> = {...(req.params as object)};
    for (const [name, value] of new URLSearchParams(req.getQuery() ?? '')) {
      if (name in values) throw new CetusError('invalid', `parameter ${name} is given more than once`);
      values[name] = value;
    }
    if (!validate(values)) {
      const faults = (validate.errors ?? []).map((e) => (e.keyword === 'additionalProperties'
        ? `unknown parameter ${String((e.params as {additionalProperty: string}).additionalProperty)}` : `${e.instancePath.slice(1) || 'parameters'} ${e.message}`));
      throw new CetusError('invalid', faults.join('; '));
    }
    return values as unknown as Params;
  };
}

/** The object that a change may come with, as the document describes it. */
function bodyReader(schema: object | undefined): (req: Request) => Promise<Params['body']> {
  if (!schema) return async () => ({});
  const validate = lateCheck(BODIES, schema);
  return async (req) => {
    const bytes = await readBytes(req, MAX_BODY_BYTES, () => new CetusError('invalid', `the body is longer than ${MAX_BODY_BYTES} bytes`));
    if (bytes.length === 0) return {};
    let body: unknown;
    try {
      body = JSON.parse(bytes.toString('utf8'));
    } catch (err) {
      throw new CetusError('invalid', 'the body is not JSON', {cause: err});
    }
    if (validate(body)) return body as Params['body'];
    throw new CetusError('invalid', (validate.errors ?? []).map((e) => (e.keyword === 'additionalProperties'
      ? `unknown field ${String((e.params as {additionalProperty: string}).additionalProperty)}` : `${e.instancePath.slice(1).replace('/', '.') || 'the body'} ${e.message}`)).join('; '));
  };
}

function sendError(res: Response, err: CetusError): void {
  res.json(statusOf(err.kind), {code: err.kind, message: err.message});
}
