/**
 * A client of containerd over its unix socket. Promises: every call has a deadline; a connection that drops comes back by itself, and a
 * call made meanwhile waits for it within its deadline; calls that were under way when it dropped fail as `unavailable` (they are not
 * repeated here: only the caller knows whether they may be). Refuses nothing and retries nothing.
 */
import path from 'node:path';
import * as grpc from '@grpc/grpc-js';
import {loadSync, type MessageTypeDefinition, type PackageDefinition, type ServiceDefinition} from '@grpc/proto-loader';
import {CetusError} from '../../base/errors';
import type {Log} from '../../base/log';
import type {Any, WriteContentRequest, WriteContentResponse} from './messages';
import {DEADLINES_MS, DEFAULT_DEADLINE_MS, SERVICE_NAMES, type CallOptions, type ContentWrite, type Services} from './services';
import {fromStatus, SHOWN} from './status';

export interface ConnectOptions {
  /** Path of containerd's gRPC socket. */
  socket: string;
  namespace: string;
  log: Log;
}

export interface ContainerdClient extends Services {
  readonly socket: string;
  readonly namespace: string;
  /** The same connection, with every object made kept by this lease. */
  withLease(lease: string): ContainerdClient;
  /** Resolves when containerd answers; `unavailable` where it does not in time. */
  ready(timeoutMs: number): Promise<void>;
  /** Calls under way fail as `canceled`. Also closes what withLease gave out. */
  close(): void;
}

const FILES = ['containers', 'tasks', 'snapshots', 'content', 'diff', 'images', 'leases', 'namespaces', 'events', 'task_events', 'version', 'introspection', 'runc'];

// Reading the definitions takes 30 ms, so they are read once per process and only when somebody connects.
let definitions: PackageDefinition | undefined;
function definition<T>(name: string): T {
  const directory = path.join(__dirname, 'proto');
  definitions ??= loadSync(FILES.map(file => `${file}.proto`), {includeDirs: [directory], longs: Number, enums: String, defaults: true, arrays: true, objects: true});
  return definitions[name] as T;
}

export function encodeAny(typeUrl: string, value: object): Any {
  return {type_url: typeUrl, value: definition<MessageTypeDefinition<object, object>>(typeUrl).serialize(value)};
}

export function decodeAny<T>(any: Any): T {
  return definition<MessageTypeDefinition<object, object>>(any.type_url).deserialize(any.value) as T;
}

const CHANNEL: grpc.ChannelOptions = {
  // containerd's own limit for one message is 16 MiB in both directions.
  'grpc.max_receive_message_length': 32 << 20,
  'grpc.max_send_message_length': 16 << 20,
  // A restarted containerd is back in well under a second; waiting longer between attempts only delays the agent.
  'grpc.initial_reconnect_backoff_ms': 50,
  'grpc.max_reconnect_backoff_ms': 500,
  'grpc.use_local_subchannel_pool': 1,
  'grpc.enable_retries': 0,
  'grpc.enable_http_proxy': 0,
  'grpc.service_config_disable_resolution': 1,
  // HTTP/2's 64 KiB default stalls content streams on every window update.
  'grpc-node.flow_control_window': 4 << 20,
};

export function connectContainerd(options: ConnectOptions): ContainerdClient {
  const channel = new grpc.Client(`unix:${options.socket}`, grpc.credentials.createInsecure(), CHANNEL);
  options.log.debug({socket: options.socket, namespace: options.namespace}, 'containerd client made');
  return build(channel, options, undefined);
}

function build(channel: grpc.Client, options: ConnectOptions, lease: string | undefined): ContainerdClient {
  const services: Record<string, Record<string, unknown>> = {};
  for (const [name, fullName] of Object.entries(SERVICE_NAMES)) {
    services[name] = {};
    for (const method of Object.values(definition<ServiceDefinition>(fullName))) {
      const key = method.originalName!;
      services[name][key] = caller(channel, options.namespace, lease, `${name}.${key}`, method as unknown as Method);
    }
  }
  return {
    ...(services as unknown as Services),
    socket: options.socket,
    namespace: options.namespace,
    withLease: other => build(channel, options, other),
    ready: timeoutMs => new Promise((resolve, reject) => {
      channel.waitForReady(Date.now() + timeoutMs, err => (err
        ? reject(new CetusError('unavailable', `containerd does not answer at ${options.socket}`, {cause: err, shown: SHOWN.unavailable}))
        : resolve()));
    }),
    close: () => channel.close(),
  };
}

interface Method {
  path: string;
  requestStream: boolean;
  responseStream: boolean;
  requestSerialize(value: object): Buffer;
  responseDeserialize(bytes: Buffer): object;
}

function caller(channel: grpc.Client, namespace: string, lease: string | undefined, name: string, method: Method): unknown {
  const headers = (call?: CallOptions): grpc.Metadata => {
    const metadata = new grpc.Metadata({waitForReady: true});
    metadata.set('containerd-namespace', namespace);
    const holder = call?.lease ?? lease;
    if (holder) metadata.set('containerd-lease', holder);
    return metadata;
  };
  const limits = (call?: CallOptions): grpc.CallOptions => {
    const ms = call?.deadlineMs ?? DEADLINES_MS[name] ?? DEFAULT_DEADLINE_MS;
    return ms === Infinity ? {} : {deadline: Date.now() + ms};
  };
  if (method.requestStream)
    return (call?: CallOptions) => contentWrite(channel.makeBidiStreamRequest(method.path, method.requestSerialize as never, method.responseDeserialize as never, headers(call), limits(call)), name, call?.signal);
  if (method.responseStream)
    return (request: object, call?: CallOptions) => iterate(name, call?.signal, () =>
      channel.makeServerStreamRequest(method.path, method.requestSerialize, method.responseDeserialize, request, headers(call), limits(call)));
  return (request: object, call?: CallOptions) => new Promise<object>((resolve, reject) => {
    if (call?.signal?.aborted) return reject(canceled(name, call.signal));
    const onAbort = (): void => running.cancel();
    const running = channel.makeUnaryRequest(method.path, method.requestSerialize, method.responseDeserialize, request, headers(call), limits(call), (err, answer) => {
      call?.signal?.removeEventListener('abort', onAbort);
      if (err) reject(call?.signal?.aborted ? canceled(name, call.signal) : fromStatus(err, name));
      else resolve(answer!);
    });
    call?.signal?.addEventListener('abort', onAbort, {once: true});
  });
}

async function* iterate<T>(name: string, signal: AbortSignal | undefined, open: () => grpc.ClientReadableStream<T>): AsyncGenerator<T> {
  if (signal?.aborted) throw canceled(name, signal);
  const stream = open();
  const onAbort = (): void => stream.cancel();
  signal?.addEventListener('abort', onAbort, {once: true});
  try {
    for await (const message of stream) yield message as T;
  } catch (err) {
    throw signal?.aborted ? canceled(name, signal) : fromStatus(err, name);
  } finally {
    signal?.removeEventListener('abort', onAbort);
    // The iterator destroys the stream when the caller leaves early, which raises CANCELLED with nobody left to hear it.
    stream.on('error', () => undefined);
    stream.cancel();
  }
}

function contentWrite(stream: grpc.ClientDuplexStream<WriteContentRequest, WriteContentResponse>, name: string, signal: AbortSignal | undefined): ContentWrite {
  const waiting: {resolve(answer: WriteContentResponse): void; reject(err: Error): void}[] = [];
  let failure: CetusError | undefined;
  const onAbort = (): void => stream.cancel();
  const fail = (err: CetusError): void => {
    failure ??= err;
    signal?.removeEventListener('abort', onAbort);
    for (const one of waiting.splice(0)) one.reject(failure);
  };
  const ended = new Promise<void>(resolve => stream.once('end', resolve).once('error', () => resolve()));
  stream.on('data', (answer: WriteContentResponse) => waiting.shift()?.resolve(answer));
  stream.on('error', (err: Error) => fail(signal?.aborted ? canceled(name, signal) : fromStatus(err, name)));
  stream.on('end', () => fail(new CetusError('conflict', `containerd ${name}: the write has ended`)));
  if (signal?.aborted) stream.cancel();
  else signal?.addEventListener('abort', onAbort, {once: true});
  return {
    send: request => new Promise((resolve, reject) => {
      if (failure) return reject(failure);
      waiting.push({resolve, reject});
      stream.write(request);
    }),
    close: () => {
      signal?.removeEventListener('abort', onAbort);
      stream.end();
      return ended;
    },
  };
}

function canceled(name: string, signal: AbortSignal): CetusError {
  return new CetusError('canceled', `containerd ${name}: canceled`, {cause: signal.reason, shown: SHOWN.canceled});
}
