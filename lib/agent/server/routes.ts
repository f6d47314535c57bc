/** The calls of the agent's protocol that are plain requests. A table of contents; the work is done by supervisor, execs, images. */
import type http from 'node:http';
import {CetusError} from '../../base/errors';
import {uploadBody} from '../../base/upload';
import type {EnsureRequest, ImportRequest, Inventory, PullRequest, PushRequest, RegistryQuestion, SaveRequest, Task} from '../../schema/agent';
import {LIFE_HEADER} from '../../schema/agent';
import type {ExecConfig, RegistryAuth} from '../../schema/docker';
import {endedMeanwhile, notRunning} from '../container/ended';
import {parseBound, readLogs} from '../logs/read';
import {type Sample, sampleLine} from '../stats/sample';
import {top} from '../top';
import {checks, type Query, readHeadLine, readJsonBody} from './body';
import {drained, json, ndjson} from './answers';
import {blob} from './blobs';
import {BUILD_ROUTES} from './builds';
import {mayOrder} from './caller';
import {exportRoot, getArchive, putArchive, statPath} from './files';
import type {ServerParts} from './server';

export interface Context extends ServerParts { req: http.IncomingMessage; res: http.ServerResponse; query: Query; signal: AbortSignal }
export type Route = (context: Context) => Promise<void>;

const FIXED: Record<string, Route> = {
  'POST /v1/tasks': postTask,
  'GET /v1/info': async ({res, facts}) => json(res, facts()),
  'GET /v1/inventory': async (context) => json(context.res, await inventory(context)),
  'POST /v1/images/pull': pull,
  'POST /v1/images/ensure': ensure,
  'GET /v1/images': async ({res, parts}) => json(res, await parts.images.held()),
  'POST /v1/images/load': load,
  'POST /v1/images/save': save,
  'POST /v1/images/import': importArchive,
  'POST /v1/images/push': push,
  'POST /v1/registry': async ({req, res, parts, signal}) => {
    const question = await readJsonBody<RegistryQuestion>(req, checks.registry);
    json(res, await parts.images.askRegistry(question, registryAuth(req.headers['x-registry-auth']), signal));
  },
};

type ItemRoute = (context: Context, id: string) => Promise<void>;
const ITEMS: Record<string, ItemRoute> = {
  'GET containers': async ({res, supervisor}, id) => json(res, supervisor.unit(id).observation),
  'GET containers logs': logs,
  'GET containers top': containerTop,
  'GET containers usage': async ({res, parts, supervisor}, id) => {
    await supervisor.unit(id).rootMounts();
    json(res, {sizeRw: await parts.runtime.usage(id)});
  },
  'POST containers resize': async ({res, query, supervisor, parts}, id) => {
    if (!supervisor.unit(id).running) throw notRunning(id);
    await parts.runtime.resize(id, '', query.number('h', 0), query.number('w', 0)).catch(endedMeanwhile(id));
    empty(res);
  },
  'GET containers stats': stats,
  'GET containers changes': async ({res, supervisor, parts, signal}, id) => json(res, await parts.files.changes(supervisor.unit(id), signal)),
  'GET containers export': exportRoot,
  'HEAD containers archive': statPath,
  'GET containers archive': getArchive,
  'PUT containers archive': putArchive,
  'GET volumes usage': async ({res, parts, signal}, id) => json(res, {size: await parts.volumes.usage(id, signal)}),
  'PUT execs': async ({req, res, execs}, id) => {
    const {containerId, config} = await readJsonBody<{containerId: string; config: ExecConfig}>(req, checks.putExec);
    execs.put(id, containerId, config);
    json(res, {}, 201);
  },
  'GET execs': async ({res, execs}, id) => json(res, execs.observe(id)),
  'POST execs start': async ({res, query, execs}, id) => {
    await execs.start(id, {detachKeys: query.text('detachKeys'), consoleSize: query.size('consoleSize'), detach: true}, undefined);
    empty(res);
  },
  'POST execs resize': async ({res, query, execs}, id) => {
    await execs.resize(id, query.number('h', 0), query.number('w', 0));
    empty(res);
  },
};

const ID = /^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}$/;

const BLOBS = '/v1/blobs/';

export function findRoute(method: string, path: string): Route {
  if ((method === 'GET' || method === 'HEAD') && path.startsWith(BLOBS)) return (context) => blob(context, path.slice(BLOBS.length));
  const route = findOrder(method, path);
  return async (context) => {
    mayOrder(context.req);
    return route(context);
  };
}

function findOrder(method: string, path: string): Route {
  const fixed = FIXED[`${method} ${path}`] ?? BUILD_ROUTES[`${method} ${path}`];
  if (fixed) return fixed;
  const match = /^\/v1\/(containers|execs|volumes)\/([^/]+)(?:\/([a-z]+))?$/.exec(path);
  const item = match && ITEMS[`${method} ${match[1]}${match[3] ? ` ${match[3]}` : ''}`];
  if (!item) throw new CetusError('notFound', `no such call: ${method} ${path}`);
  const id = decodeURIComponent(match[2]!);
  if (!ID.test(id)) throw new CetusError('invalid', `invalid id "${id}"`);
  return (context) => item(context, id);
}

async function postTask({req, res, task: run, log, fencedLife}: Context): Promise<void> {
  const task = await readJsonBody<Task>(req, checks.task);
  const life = Number(req.headers[LIFE_HEADER] ?? Infinity);
  if (fencedLife && life <= fencedLife()) throw new CetusError('stale', `the order is for boot generation ${life} of this node, which was fenced`);
  const began = performance.now();
  // Finished also where the caller hangs up: it asks again, and the ledger knows.
  const answer = await run(task);
  log.debug({jobId: task.jobId, step: task.step, kind: task.body.kind, requestId: task.requestId, ok: answer.ok, ms: performance.now() - began}, 'task');
  json(res, answer);
}

async function inventory({supervisor, execs, parts}: Context): Promise<Inventory> {
  const {runtime, network, images, volumes} = parts;
  // What is about to be gone does not count as being there.
  await supervisor.settled();
  const [snapshots, namespaces, bridges, publishedPorts, volumeIds, imageIds, withoutFiles, withoutBlobs] = await Promise.all([
    runtime.snapshots(), network.sandboxes(), network.bridges(), network.publishedPorts(), volumes.list(), images.list(), volumes.lacking(), images.lacking(),
  ]);
  return {
    containers: [...supervisor.units.values()].map((unit) => ({id: unit.id, observation: unit.observation})),
    snapshots, namespaces, bridges, publishedPorts, volumes: volumeIds, images: imageIds, execs: execs.list(), lacking: {volumes: withoutFiles, images: withoutBlobs},
  };
}

async function logs({res, query, supervisor, parts, signal}: Context, id: string): Promise<void> {
  const unit = supervisor.unit(id);
  const untilNs = query.text('untilNs');
  for (const ns of [untilNs, query.text('sinceNs')]) parseBound(ns);
  // An end in the past needs no following.
  const follow = query.flag('follow') && !(untilNs && BigInt(untilNs) <= parts.clock.nowNs());
  const chunks = readLogs(unit.logSource(), {
    stdout: query.flag('stdout'), stderr: query.flag('stderr'), timestamps: query.flag('timestamps'), details: query.flag('details'),
    sinceNs: query.text('sinceNs'), untilNs, tail: query.number('tail', -1), follow, multiplex: !unit.tty,
  }, follow && untilNs ? AbortSignal.any([signal, untilSignal(untilNs)]) : signal);
  // The first block decides between an error and a stream.
  const first = follow ? undefined : await chunks.next();
  res.writeHead(200, {'content-type': 'application/octet-stream'});
  res.flushHeaders();
  if (first && !first.done && !res.write(first.value)) await drained(res);
  if (!first?.done) {
    for await (const chunk of chunks) {
      if (res.destroyed) return;
      if (!res.write(chunk)) await drained(res);
    }
  }
  res.end();
}

/** A follow with an end in the future stops there, also when nothing is logged. */
function untilSignal(untilNs: string): AbortSignal {
  const MAX_TIMER_MS = 2 ** 31 - 1;
  return AbortSignal.timeout(Math.min(MAX_TIMER_MS, Math.max(0, Number(BigInt(untilNs) / 1_000_000n) - Date.now())));
}

async function containerTop({res, query, supervisor, parts}: Context, id: string): Promise<void> {
  const unit = supervisor.unit(id);
  if (unit.observation.status === 'restarting') throw new CetusError('conflict', `container ${id} is restarting, wait until the container is running`);
  if (!unit.running) throw notRunning(id);
  json(res, await top(await parts.runtime.pids(id).catch(endedMeanwhile(id)), query.text('args')));
}

async function stats({res, query, supervisor, stats: collector, signal}: Context, id: string): Promise<void> {
  const unit = supervisor.unit(id);
  const stream = query.flag('stream');
  const oneShot = query.flag('oneShot');
  res.writeHead(200, {'content-type': 'application/x-ndjson'});
  if (!stream && !unit.running) return void res.end(sampleLine(unit.spec, undefined));
  res.flushHeaders();
  let before: Sample | undefined;
  let first = true;
  for await (const sample of collector.samples(id, signal)) {
    // Of the two samples that somebody asks for who wants no stream, the first fills precpu only.
    const owed = stream || oneShot || !first;
    first = false;
    if (owed && !res.write(sampleLine(unit.spec, sample, before))) await drained(res);
    if (owed && !stream) break;
    before = sample;
  }
  res.end();
}

async function pull({req, res, parts, signal}: Context): Promise<void> {
  const request = await readJsonBody<PullRequest>(req, checks.pull);
  await ndjson(res, parts.images.pull(request, registryAuth(req.headers['x-registry-auth']), signal));
}

async function ensure({req, res, parts, signal}: Context): Promise<void> {
  const request = await readJsonBody<EnsureRequest>(req, checks.ensure);
  await ndjson(res, parts.images.ensure(request, registryAuth(req.headers['x-registry-auth']), signal));
}

async function importArchive({req, res, parts, signal}: Context): Promise<void> {
  const {head, rest} = await readHeadLine<ImportRequest>(uploadBody(req), checks.import);
  await ndjson(res, parts.images.import(head, rest, signal));
}

async function push({req, res, parts, signal}: Context): Promise<void> {
  const request = await readJsonBody<PushRequest>(req, checks.push);
  await ndjson(res, parts.images.push(request, registryAuth(req.headers['x-registry-auth']), signal));
}

async function load({req, res, query, parts, signal}: Context): Promise<void> {
  await ndjson(res, parts.images.load(uploadBody(req), signal, query.text('account') || undefined, query.text('platform') || undefined));
}

async function save({req, res, parts, signal}: Context): Promise<void> {
  const archive = await parts.images.save(await readJsonBody<SaveRequest>(req, checks.save), signal);
  res.writeHead(200, {'content-type': 'application/x-tar'});
  archive.once('error', () => res.destroy());
  res.once('close', () => archive.destroy());
  archive.pipe(res);
}

function registryAuth(header: string | string[] | undefined): RegistryAuth | undefined {
  if (typeof header !== 'string' || header === '') return undefined;
  try {
    return JSON.parse(Buffer.from(header, 'base64url').toString('utf8')) as RegistryAuth;
  } catch {
    // No cause: it may quote the credentials.
    throw new CetusError('invalid', 'X-Registry-Auth is not base64url of JSON');
  }
}

function empty(res: http.ServerResponse): void {
  res.writeHead(204).end();
}
