/**
 * AgentClient over HTTP/1.1: a unix socket on one machine, mutual TLS in a fleet. Every call has a deadline; a connection that cannot be made or
 * breaks is `unavailable`, a late answer `timeout`, everything else the agent's own error. Long streams have connections of their own, so that
 * a thousand followers of logs do not stand in the way of a task.
 */
import {type Duplex, Readable} from 'node:stream';
import type {Dispatcher, Pool} from 'undici';
import {readBytes} from '../base/body';
import {systemClock} from '../base/clock';
import {CetusError, fromWire} from '../base/errors';
import type {AttachQuery, EnsureLine, EnsureRequest, ExecObservation, ExecStartQuery, ImportLine, ImportRequest, Inventory, LoadLine, LogsQuery, NodeImages, PullLine, PullRequest, PushLine, PushRequest, RegistryAnswers, RegistryQuestion, SaveRequest, Task, TaskAnswer, TaskOutput} from '../schema/agent';
import {LIFE_HEADER, LOAN_HEADER} from '../schema/agent';
import type {ContainerObservation} from '../schema/container';
import type {ExecConfig, RegistryAuth} from '../schema/docker';
import type {NodeFacts} from '../schema/node';
import {HttpAgentBuilds} from './agent-builds';
import {deliver, isPlainTar, lend} from './archive-upload';
import type {AgentBuilds, AgentClient} from './fleet';
import {type AgentAddress, type AgentTls, parseAgentUrl, unreachableNode} from './address';
import {connections} from './connections';
import {lines} from './ndjson';
import {upgrade} from './upgrade';

const READ_DEADLINE_MS = 15_000;
const TASK_DEADLINE_MS = 120_000;
/** A pull or load that says nothing for so long is dead. */
const SILENCE_MS = 300_000;
const MAX_JSON_BYTES = 32 * 1024 * 1024;
/** An agent that restarts is back within two or three seconds; what may be repeated waits for it. A node that is gone is found out by its heartbeats. */
const PATIENCE_MS = 8_000;
const BROKEN_TRIES = 3;
const FIRST_PAUSE_MS = 20;
const MAX_PAUSE_MS = 250;

interface CallOptions {
  query?: Record<string, unknown>;
  json?: unknown;
  headers?: Record<string, string>;
  deadlineMs?: number;
  signal?: AbortSignal;
  /** Safe to send again after a broken connection. */
  repeatable?: boolean;
}
interface StreamOptions { query?: Record<string, unknown>; json?: unknown; body?: Readable; headers?: Record<string, string>; silenceMs: number; signal?: AbortSignal }

export class HttpAgentClient implements AgentClient {
  private readonly address: AgentAddress;
  private readonly calls: Pool;
  private readonly streams: Pool;
  readonly builds: AgentBuilds;
  private readonly switched = new Set<Duplex>();

  constructor(readonly node: string, url: string, private readonly tls?: AgentTls, private readonly patienceMs = PATIENCE_MS, private readonly life?: () => number | undefined) {
    this.address = parseAgentUrl(url);
    ({calls: this.calls, streams: this.streams} = connections(this.address, tls));
    this.builds = new HttpAgentBuilds({
      json: (method, path, options) => this.json(method, path, options), stream: (method, path, options) => this.stream(method, path, options),
      lines: (path, options) => this.progress<LoadLine>(path, options),
      upgrade: (path, query, headers) => this.upgrade(path + queryString(query), headers),
    });
  }

  async task(task: Task, options: {deadlineMs?: number; signal?: AbortSignal} = {}): Promise<TaskOutput> {
    // For the life in which the node was asked, however late it is delivered.
    const life = this.life?.();
    const answer = await this.json<TaskAnswer>('POST', '/v1/tasks', {
      json: task, headers: {'x-request-id': task.requestId, 'x-cetus-epoch': String(task.epoch), ...(life === undefined ? {} : {[LIFE_HEADER]: String(life)})},
      deadlineMs: options.deadlineMs ?? TASK_DEADLINE_MS, signal: options.signal,
      // The agent's ledger answers a repeated task with the first answer.
      repeatable: true,
    });
    if (!answer.ok) throw fromWire(answer.error);
    return answer.output;
  }

  info(): Promise<NodeFacts> { return this.json('GET', '/v1/info'); }
  inventory(): Promise<Inventory> { return this.json('GET', '/v1/inventory'); }
  observe(containerId: string): Promise<ContainerObservation> { return this.json('GET', container(containerId)); }
  top(containerId: string, psArgs: string): Promise<{Titles: string[]; Processes: string[][]}> { return this.json('GET', container(containerId, 'top'), {query: {args: psArgs}}); }
  changes(containerId: string): Promise<{Path: string; Kind: number}[]> { return this.json('GET', container(containerId, 'changes'), {deadlineMs: TASK_DEADLINE_MS}); }
  usage(containerId: string): Promise<{sizeRw: number}> { return this.json('GET', container(containerId, 'usage'), {deadlineMs: TASK_DEADLINE_MS}); }
  volumeUsage(volumeId: string): Promise<{size: number}> { return this.json('GET', `/v1/volumes/${encodeURIComponent(volumeId)}/usage`, {deadlineMs: TASK_DEADLINE_MS}); }
  observeExec(execId: string): Promise<ExecObservation> { return this.json('GET', exec(execId)); }
  async resize(containerId: string, height: number, width: number): Promise<void> { await this.json('POST', container(containerId, 'resize'), {query: {h: height, w: width}}); }
  async resizeExec(execId: string, height: number, width: number): Promise<void> { await this.json('POST', exec(execId, 'resize'), {query: {h: height, w: width}}); }
  async putExec(execId: string, containerId: string, config: ExecConfig): Promise<void> { await this.json('PUT', exec(execId), {json: {containerId, config}, repeatable: true}); }

  attach(containerId: string, query: AttachQuery): Promise<Duplex> {
    const path = container(containerId, 'attach') + queryString({...query});
    return this.reached(path, undefined, () => this.upgrade(path));
  }

  dial(containerId: string, protocol: 'tcp' | 'udp', port: number): Promise<Duplex> {
    const path = container(containerId, 'dial') + queryString({protocol, port});
    return this.reached(path, undefined, () => upgrade(this.address, this.tls, path, this.node, READ_DEADLINE_MS));
  }

  async startExec(execId: string, query: ExecStartQuery): Promise<Duplex | null> {
    const path = exec(execId, 'start');
    if (!query.detach) return this.reached(path, undefined, () => this.upgrade(path + queryString({...query})));
    await this.json('POST', path, {query: {...query}});
    return null;
  }

  logs(containerId: string, query: LogsQuery, signal?: AbortSignal): Promise<Readable> {
    // A quiet container is silent for as long as it likes: only the first byte of the answer has a deadline.
    return this.stream('GET', container(containerId, 'logs'), {query: {...query}, silenceMs: query.follow ? 0 : SILENCE_MS, signal});
  }
  stats(containerId: string, query: {stream: boolean; oneShot: boolean}, signal?: AbortSignal): Promise<Readable> {
    return this.stream('GET', container(containerId, 'stats'), {query, silenceMs: 60_000, signal});
  }
  export(containerId: string): Promise<Readable> { return this.stream('GET', container(containerId, 'export'), {silenceMs: SILENCE_MS}); }
  save(request: SaveRequest, signal?: AbortSignal): Promise<Readable> { return this.stream('POST', '/v1/images/save', {json: request, silenceMs: SILENCE_MS, signal}); }

  async statPath(containerId: string, path: string): Promise<string> {
    const answer = await this.request(this.streams, 'HEAD', container(containerId, 'archive'), {query: {path}, silenceMs: READ_DEADLINE_MS});
    await answer.body.dump();
    if (answer.statusCode >= 400) throw errorHeader(answer);
    return header(answer, STAT_HEADER);
  }
  async getArchive(containerId: string, path: string): Promise<{stat: string; body: Readable}> {
    const answer = await this.answered(this.streams, 'GET', container(containerId, 'archive'), {query: {path}, silenceMs: SILENCE_MS});
    return {stat: header(answer, STAT_HEADER), body: answer.body};
  }
  async putArchive(containerId: string, query: {path: string; noOverwriteDirNonDir: boolean; copyUIDGID: boolean}, body: Readable): Promise<void> {
    if (await isPlainTar(body)) {
      const path = container(containerId, 'archive') + queryString(query);
      const lent = this.address.socketPath === undefined ? undefined : lend(body);
      const headers: Record<string, string> = lent ? {[LOAN_HEADER]: JSON.stringify(lent.offer)} : {};
      try {
        const stream = await this.reached(path, undefined, () => this.upgrade(path, headers));
        return await deliver(stream, body, lent, (err) => this.wrap(err, path));
      } finally {
        // What is lent is read by nobody else.
        if (lent) body.destroy();
      }
    }
    const answer = await this.answered(this.streams, 'PUT', container(containerId, 'archive'), {query, body, headers: {'content-type': 'application/x-tar'}, silenceMs: SILENCE_MS});
    await answer.body.dump();
  }

  pull(request: PullRequest, auth: RegistryAuth | undefined, signal?: AbortSignal): AsyncIterable<PullLine> {
    return this.progress<PullLine>('/v1/images/pull', {json: request, headers: credentials(auth), silenceMs: SILENCE_MS, signal});
  }
  ensure(request: EnsureRequest, auth: RegistryAuth | undefined, signal?: AbortSignal): AsyncIterable<EnsureLine> {
    return this.progress<EnsureLine>('/v1/images/ensure', {json: request, headers: credentials(auth), silenceMs: SILENCE_MS, signal});
  }
  heldImages(): Promise<NodeImages> { return this.json('GET', '/v1/images'); }
  askRegistry<Q extends RegistryQuestion>(question: Q, auth: RegistryAuth | undefined, signal?: AbortSignal): Promise<RegistryAnswers[Q['kind']]> {
    return this.json('POST', '/v1/registry', {json: question, headers: credentials(auth), deadlineMs: TASK_DEADLINE_MS, signal});
  }
  /** The request goes first, as a line, and the archive behind it. */
  import(request: ImportRequest, archive: Readable | undefined, signal?: AbortSignal): AsyncIterable<ImportLine> {
    const body = Readable.from((async function* all() {
      yield Buffer.from(`${JSON.stringify(request)}\n`);
      if (archive) yield* archive as AsyncIterable<Buffer>;
    })(), {objectMode: false, highWaterMark: 1024 * 1024});
    return this.progress<ImportLine>('/v1/images/import', {body, silenceMs: SILENCE_MS, signal});
  }
  push(request: PushRequest, auth: RegistryAuth | undefined, signal?: AbortSignal): AsyncIterable<PushLine> {
    return this.progress<PushLine>('/v1/images/push', {json: request, headers: credentials(auth), silenceMs: SILENCE_MS, signal});
  }
  load(archive: Readable, signal?: AbortSignal, account?: string, platform?: string): AsyncIterable<LoadLine> {
    return this.progress<LoadLine>('/v1/images/load', {query: {account, platform}, body: archive, headers: {'content-type': 'application/x-tar'}, silenceMs: SILENCE_MS, signal});
  }

  /** What runs comes to its end; for a client in whose place there is a new one. */
  async finish(): Promise<void> {
    await Promise.all([this.calls.close(), this.streams.close()]);
  }

  /** Ends running calls with an error; for the node's removal and the process's end. */
  async close(): Promise<void> {
    await Promise.all([this.calls.destroy(), this.streams.destroy()]);
  }

  /** As close, at once, and streams of attached clients too: whoever waits for this node is told why it is in vain. */
  cut(why: CetusError): void {
    for (const stream of this.switched) stream.destroy(why);
    void Promise.all([this.calls.destroy(why), this.streams.destroy(why)]).catch(() => undefined);
  }

  private async upgrade(path: string, headers: Record<string, string | string[]> = {}): Promise<Duplex> {
    const stream = await upgrade(this.address, this.tls, path, this.node, READ_DEADLINE_MS, headers);
    this.switched.add(stream);
    // Whoever was given it may not listen yet when it is cut.
    stream.on('error', () => undefined);
    return stream.once('close', () => this.switched.delete(stream));
  }

  private async *progress<L extends PullLine | EnsureLine | LoadLine | PushLine | ImportLine>(path: string, options: StreamOptions): AsyncGenerator<L> {
    const answer = await this.answered(this.streams, 'POST', path, options);
    let complete = false;
    try {
      for await (const line of lines<L | {failure: unknown}>(answer.body)) {
        if ('failure' in line) throw fromWire(line.failure);
        complete ||= 'result' in line;
        yield line as L;
      }
    } catch (err) {
      throw this.wrap(err, path, options.signal);
    }
    if (!complete) throw new CetusError('unavailable', `node ${this.node} cut its answer to ${path} off`, {shown: `node ${this.node} broke off in the middle of its answer`});
  }

  private async stream(method: 'GET' | 'POST', path: string, options: StreamOptions): Promise<Readable> {
    return (await this.answered(this.streams, method, path, options)).body;
  }

  private async json<T>(method: 'GET' | 'POST' | 'PUT', path: string, options: CallOptions = {}): Promise<T> {
    const deadlineMs = options.deadlineMs ?? READ_DEADLINE_MS;
    const late = new AbortController();
    const timer = setTimeout(() => late.abort(new CetusError('timeout', `node ${this.node} did not answer ${path} within ${deadlineMs} ms`, {shown: `node ${this.node} did not answer within ${deadlineMs / 1000} s`})), deadlineMs);
    const onAbort = (): void => late.abort(options.signal?.reason);
    options.signal?.addEventListener('abort', onAbort, {once: true});
    if (options.signal?.aborted) onAbort();
    try {
      for (let attempt = 1; ; attempt += 1) {
        try {
          const answer = await this.answered(this.calls, method, path, {...options, silenceMs: 0, signal: late.signal});
          return await readJson<T>(answer.body);
        } catch (err) {
          // The call may have been heard. A dead connection in the pool breaks, an agent that dies under the call does, and a call that kills each agent.
          const failure = this.wrap(err, path, late.signal);
          const broken = failure.kind === 'unavailable' && failure.info['reach'] === 'broken';
          if (attempt >= BROKEN_TRIES || !broken || !(options.repeatable || method === 'GET') || late.signal.aborted) throw failure;
        }
      }
    } finally {
      clearTimeout(timer);
      options.signal?.removeEventListener('abort', onAbort);
    }
  }

  /** The answer's head, where it is a success; else the agent's error. */
  private async answered(pool: Pool, method: Dispatcher.HttpMethod, path: string, options: StreamOptions): Promise<Dispatcher.ResponseData> {
    const answer = await this.request(pool, method, path, options);
    if (answer.statusCode < 400) return answer;
    throw fromWire(await readJson(answer.body).catch(() => null));
  }

  private async request(pool: Pool, method: Dispatcher.HttpMethod, path: string, options: StreamOptions): Promise<Dispatcher.ResponseData> {
    return this.reached(path, options.signal, () => pool.request({
      method, path: path + queryString(options.query ?? {}), signal: options.signal,
      headers: options.json === undefined ? options.headers : {'content-type': 'application/json', ...options.headers},
      body: options.json === undefined ? options.body : JSON.stringify(options.json),
      // `json` has a deadline of its own for the whole call; a stream's head must come in time, its silence is the caller's choice.
      headersTimeout: options.body ? 0 : options.silenceMs || (pool === this.calls ? 0 : SILENCE_MS), bodyTimeout: options.silenceMs,
    }), options.body === undefined);
  }

  /** Says again what cannot have been heard, because nobody listened. A body that streams is spent by its first try. */
  private async reached<T>(path: string, signal: AbortSignal | undefined, call: () => Promise<T>, again = true): Promise<T> {
    const until = performance.now() + this.patienceMs;
    for (let pauseMs = FIRST_PAUSE_MS; ; pauseMs = Math.min(pauseMs * 2, MAX_PAUSE_MS)) {
      try {
        return await call();
      } catch (err) {
        const failure = this.wrap(err, path, signal);
        if (!again || failure.info['reach'] !== 'none' || performance.now() >= until) throw failure;
      }
      await systemClock.sleep(pauseMs, signal).catch((err: unknown) => { throw this.wrap(err, path, signal); });
    }
  }

  private wrap(err: unknown, path: string, signal?: AbortSignal): CetusError {
    if (err instanceof CetusError) return err;
    if (signal?.aborted) return signal.reason instanceof CetusError ? signal.reason : new CetusError('canceled', `the call of ${path} on node ${this.node} was canceled`, {cause: err, shown: 'canceled'});
    const code = (err as {code?: string}).code ?? '';
    if (code === 'UND_ERR_HEADERS_TIMEOUT' || code === 'UND_ERR_BODY_TIMEOUT') return new CetusError('timeout', `node ${this.node} did not answer ${path} in time`, {cause: err, shown: `node ${this.node} did not answer in time`});
    return unreachableNode(this.node, err);
  }
}

function container(id: string, verb?: string): string {
  return `/v1/containers/${encodeURIComponent(id)}${verb ? `/${verb}` : ''}`;
}
function exec(id: string, verb?: string): string {
  return `/v1/execs/${encodeURIComponent(id)}${verb ? `/${verb}` : ''}`;
}

/** As lib/schema/agent.ts writes queries. */
export function queryString(query: Record<string, unknown>): string {
  const pairs = Object.entries(query).flatMap(([key, value]) => {
    if (value === null || value === undefined || value === '') return [];
    return [`${key}=${encodeURIComponent(typeof value === 'boolean' ? (value ? '1' : '0') : String(value))}`];
  });
  return pairs.length ? `?${pairs.join('&')}` : '';
}

function credentials(auth: RegistryAuth | undefined): Record<string, string> {
  return auth ? {'x-registry-auth': Buffer.from(JSON.stringify(auth)).toString('base64url')} : {};
}

const STAT_HEADER = 'x-docker-container-path-stat';

function header(answer: Dispatcher.ResponseData, name: string): string {
  const value = answer.headers[name];
  return Array.isArray(value) ? value[0]! : value ?? '';
}

/** An answer to HEAD has no body, so its error travels in a header. */
function errorHeader(answer: Dispatcher.ResponseData): CetusError {
  try {
    return fromWire(JSON.parse(Buffer.from(header(answer, 'x-cetus-error'), 'base64').toString('utf8')));
  } catch {
    return new CetusError(answer.statusCode === 404 ? 'notFound' : 'internal', `the agent answered with status ${answer.statusCode} and no reason`);
  }
}

async function readJson<T>(body: Readable): Promise<T> {
  const bytes = await readBytes(body, MAX_JSON_BYTES, () => new CetusError('internal', `an agent's answer is longer than ${MAX_JSON_BYTES} bytes`));
  if (bytes.length === 0) return undefined as T;
  try {
    return JSON.parse(bytes.toString('utf8')) as T;
  } catch (err) {
    throw new CetusError('internal', 'an agent\'s answer is not JSON', {cause: err});
  }
}
