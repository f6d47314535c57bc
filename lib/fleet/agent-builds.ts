/** The agent's calls about builds. A build is silent for as long as it likes: only what is not one has a deadline. */
import type {Duplex, Readable} from 'node:stream';
import type {BuildPrepare, BuiltNames, LoadLine} from '../schema/agent';
import type {AgentBuilds} from './fleet';

/** What of HttpAgentClient is used here. */
export interface Wire {
  json<T>(method: 'GET' | 'POST', path: string, options: {json?: unknown; query?: Record<string, unknown>; deadlineMs?: number; repeatable?: boolean}): Promise<T>;
  stream(method: 'POST', path: string, options: {query?: Record<string, unknown>; body?: Readable; headers?: Record<string, string>; silenceMs: number; signal?: AbortSignal}): Promise<Readable>;
  lines(path: string, options: {json: unknown; silenceMs: number; signal?: AbortSignal}): AsyncIterable<LoadLine>;
  upgrade(path: string, query: Record<string, unknown>, headers: Record<string, string | string[]>): Promise<Duplex>;
}

/** An engine that has to start, and to be told of many images, takes its time. */
const PREPARE_MS = 300_000;
const CALL_MS = 120_000;
const LAYER_MS = 3_600_000;

export class HttpAgentBuilds implements AgentBuilds {
  constructor(private readonly wire: Wire) {}

  async prepare(request: BuildPrepare): Promise<string> {
    return (await this.wire.json<{hold: string}>('POST', '/v1/builds/prepare', {json: request, deadlineMs: PREPARE_MS})).hold;
  }
  call(hold: string, method: string, path: string, body: Readable | undefined, headers: Record<string, string>, signal?: AbortSignal): Promise<Readable> {
    return this.wire.stream('POST', '/v1/builds/call', {query: {hold, method, path}, body, headers, silenceMs: 0, signal});
  }
  open(hold: string, path: string, headers: Record<string, string | string[]>): Promise<Duplex> { return this.wire.upgrade('/v1/builds/stream', {hold, path}, headers); }
  built(hold: string, imageIds: string[]): Promise<BuiltNames[]> { return this.wire.json('POST', '/v1/builds/built', {json: {hold, imageIds}, deadlineMs: CALL_MS, repeatable: true}); }
  take(hold: string, images: BuiltNames[], signal?: AbortSignal): AsyncIterable<LoadLine> { return this.wire.lines('/v1/builds/take', {json: {hold, images}, silenceMs: LAYER_MS, signal}); }
  async release(hold: string): Promise<void> { await this.wire.json('POST', '/v1/builds/release', {query: {hold}, repeatable: true}); }
  usage(account: string): Promise<{BuildCache: unknown[]; BuilderSize: number}> { return this.wire.json('GET', '/v1/builds/usage', {query: {account}, deadlineMs: CALL_MS}); }
}
