/** The calls of the agent's protocol that are about builds: all but `usage` go to the engine that the hold names. */
import type {IncomingHttpHeaders, IncomingMessage} from 'node:http';
import {pipeline} from 'node:stream/promises';
import {CetusError} from '../../base/errors';
import {uploadBody} from '../../base/upload';
import type {BuildPrepare, BuiltNames, LoadLine} from '../../schema/agent';
import {collect, refusal} from '../build/engine-api';
import type {BuildEngines} from '../build/engines';
import {withStepNetwork} from '../build/step-network';
import {json, ndjson} from './answers';
import {checks, readJsonBody} from './body';
import type {Context, Route} from './routes';
import type {UpgradeContext} from './upgrades';

/** What a client may have the engine do; everything else of it is ours. */
const CALLS = /^(POST \/build(\?.*)?|POST \/build\/(cancel|prune)(\?.*)?)$/;
const STREAMS = /^\/(session|grpc)$/;

export const BUILD_ROUTES: Record<string, Route> = {
  'POST /v1/builds/prepare': async (context) => {
    const request = await readJsonBody<BuildPrepare>(context.req, checks.buildPrepare);
    json(context.res, {hold: await engines(context).prepare(request)});
  },
  'POST /v1/builds/call': call,
  'POST /v1/builds/built': async (context) => {
    const {hold, imageIds} = await readJsonBody<{hold: string; imageIds: string[]}>(context.req, checks.built);
    json(context.res, await engines(context).of(hold).built(imageIds));
  },
  'POST /v1/builds/take': async (context) => {
    const {hold, images} = await readJsonBody<{hold: string; images: BuiltNames[]}>(context.req, checks.take);
    await ndjson(context.res, taken(engines(context), hold, images, context.signal));
  },
  'POST /v1/builds/release': async (context) => {
    const hold = context.query.text('hold');
    try {
      engines(context).of(hold).release(hold);
    } catch { /* released already */ }
    json(context.res, {});
  },
  'GET /v1/builds/usage': async (context) => json(context.res, context.build ? await context.build.usage(context.query.text('account')) : {BuildCache: [], BuilderSize: 0}),
};

function engines({build}: Pick<Context, 'build'>): BuildEngines {
  if (!build) throw new CetusError('unavailable', 'this node does not build images');
  return build;
}

async function* taken(build: BuildEngines, hold: string, images: BuiltNames[], signal: AbortSignal): AsyncGenerator<LoadLine> {
  const engine = build.of(hold);
  const {done} = await engine.use(hold);
  try {
    const result = [];
    for (const image of images) {
      result.push(...await engine.take([image], signal));
      yield {status: `Taken over ${image.imageId}`};
    }
    yield {result: {images: result}};
  } finally {
    done();
  }
}

async function call(context: Context): Promise<void> {
  const {req, res, query, signal} = context;
  const [hold, method, path] = [query.text('hold'), query.text('method'), query.text('path')];
  if (!CALLS.test(`${method} ${path}`)) throw new CetusError('forbidden', `nobody calls ${method} ${path.split('?')[0]} of a build engine`);
  const {api, done} = await engines(context).of(hold).use(hold);
  try {
    const answer = await api.send({method, path: withStepNetwork(path), headers: forwarded(req, /^(x-registry-config|content-type)$/), body: uploadBody(req), signal});
    if (answer.statusCode! >= 400) throw refusal(answer.statusCode!, await collect(answer));
    res.writeHead(answer.statusCode!, {'content-type': answer.headers['content-type'] ?? 'application/json'});
    res.flushHeaders();
    await pipeline(answer, res).catch(() => res.destroy());
  } finally {
    done();
  }
}

/** A session's connection, or the control API's. The hold lasts as long as it does. */
export async function buildStream({build, query, accept, headers}: UpgradeContext): Promise<void> {
  const [hold, path] = [query.text('hold'), query.text('path')];
  if (!STREAMS.test(path)) throw new CetusError('forbidden', `nobody opens ${path} of a build engine`);
  const {api, done} = await engines({build}).of(hold).use(hold);
  try {
    const inner = await api.upgrade(path, 'h2c', sessionHeaders(headers));
    const outer = accept();
    inner.once('close', done);
    const cut = (): void => {
      inner.destroy();
      outer.destroy();
    };
    inner.on('error', cut).once('close', () => outer.end());
    outer.on('error', cut).once('close', cut);
    inner.pipe(outer);
    outer.pipe(inner);
  } catch (err) {
    done();
    throw err;
  }
}

/** A header for each method that the session offers: they have been joined with commas, which no name of a method contains. */
function sessionHeaders(headers: IncomingHttpHeaders): Record<string, string | string[]> {
  return Object.fromEntries(Object.entries(headers).flatMap(([name, value]) => {
    if (!name.startsWith('x-docker-expose-session-') || value === undefined) return [];
    return [[name, name.endsWith('-grpc-method') ? String(value).split(', ') : value]];
  }));
}

function forwarded(req: IncomingMessage, names: RegExp): Record<string, string> {
  return Object.fromEntries(Object.entries(req.headers).filter((entry): entry is [string, string] => names.test(entry[0]) && typeof entry[1] === 'string'));
}
