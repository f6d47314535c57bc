/**
 * ReportSink over HTTP: connections kept open to the control plane's listener, a unix socket or TLS with the node's certificate; and one more for
 * each that a container opens to the Docker API.
 */
import net from 'node:net';
import tls from 'node:tls';
import {Pool} from 'undici';
import {asCetusError, CetusError, fromWire, INTERNAL} from '../base/errors';
import {switchProtocol} from '../base/switch-protocol';
import type {Heartbeat, ReportBatch} from '../schema/agent';
import type {NodeFacts} from '../schema/node';
import type {ReportSink} from './parts';

const DEADLINE_MS = 10_000;
const CONNECT_MS = 5_000;
const MAX_ANSWER_BYTES = 64 * 1024;
/** A heartbeat must not wait behind reports. */
const CONNECTIONS = 2;
/** Below the listener's own limit, so that we close first. */
const KEEP_ALIVE_MS = 50_000;

export interface ControlPlaneTls { ca: string; cert: string; key: string }

/**
 * "unix:///path" or "https://host:port". Of several one is spoken to until it does not answer; then the next, from where nobody goes back before that one
 * fails too: every call may be repeated, and what an endpoint has acknowledged all of them know.
 */
export function connectControlPlane(urls: string | string[], certificates?: ControlPlaneTls): ReportSink {
  const all = (typeof urls === 'string' ? [urls] : urls).map((url) => {
    const socketPath = url.startsWith('unix://') ? url.slice('unix://'.length) : undefined;
    if (socketPath === undefined && !url.startsWith('https://')) throw new CetusError('invalid', `the control plane is reached by unix:// or https://, not by ${url}`);
    const pool = new Pool(socketPath === undefined ? url : 'http://localhost', {
      connections: CONNECTIONS, pipelining: 1, keepAliveTimeout: KEEP_ALIVE_MS, connect: {timeout: CONNECT_MS, socketPath, ...certificates},
    });
    return {url, socketPath, pool};
  });
  let current = 0;

  /** Each once, beginning with the one that answered last. An endpoint that says no has answered. */
  async function atOne<T>(call: (one: typeof all[number]) => Promise<T>): Promise<T> {
    for (let tries = 1; ; tries += 1) {
      const at = current;
      try {
        return await call(all[at]!);
      } catch (err) {
        if (!(err instanceof CetusError) || err.info['unanswered'] !== true) throw err;
        if (current === at) current = (at + 1) % all.length;
        if (tries >= all.length) throw err;
      }
    }
  }

  async function post<T>(pool: Pool, path: string, message: unknown): Promise<T> {
    try {
      const answer = await pool.request({
        method: 'POST', path, body: JSON.stringify(message), headers: {'content-type': 'application/json'},
        headersTimeout: DEADLINE_MS, bodyTimeout: DEADLINE_MS, signal: AbortSignal.timeout(2 * DEADLINE_MS),
      });
      const length = Number(answer.headers['content-length'] ?? 0);
      if (length > MAX_ANSWER_BYTES) {
        answer.body.destroy();
        throw new CetusError('internal', `the control plane's answer to ${path} is ${length} bytes long`);
      }
      const body: unknown = await answer.body.json();
      if (answer.statusCode >= 400) throw fromWire(body);
      return body as T;
    } catch (err) {
      if (err instanceof CetusError) throw err;
      throw new CetusError('unavailable', `the control plane did not answer ${path}: ${asCetusError(err).message}`, {cause: err, info: {unanswered: true}});
    }
  }

  const send = <T>(path: string, message: unknown): Promise<T> => atOne(({pool}) => post<T>(pool, path, message));
  return {
    join: (facts: NodeFacts) => send('/v1/join', facts),
    heartbeat: (heartbeat: Heartbeat) => send('/v1/heartbeat', heartbeat),
    reports: (batch: ReportBatch) => send('/v1/reports', batch),
    docker: (containerId: string) => atOne(({url, socketPath}) => switchProtocol({
      socket: connect(url, socketPath, certificates), path: '/v1/docker', protocol: 'cetus-docker', headers: {'x-cetus-container': containerId}, deadlineMs: DEADLINE_MS,
      timedOut: () => new CetusError('unavailable', 'the control plane did not answer /v1/docker in time', {shown: 'the datacenter does not answer', info: {unanswered: true}}),
      notSwitched: () => new CetusError('internal', 'the control plane did not switch protocols for /v1/docker', {shown: INTERNAL}),
      failed: (err) => new CetusError('unavailable', 'the control plane did not answer /v1/docker', {cause: err, shown: 'the datacenter does not answer', info: {unanswered: true}}),
    })),
    close: async () => { await Promise.all(all.map(({pool}) => pool.destroy())); },
  };
}

function connect(url: string, socketPath: string | undefined, certificates: ControlPlaneTls | undefined): net.Socket {
  if (socketPath !== undefined) return net.connect({path: socketPath, allowHalfOpen: true});
  const {hostname, port} = new URL(url);
  // Documented for tls.connect and missing in its types.
  const halfOpen = {allowHalfOpen: true} as tls.ConnectionOptions;
  return tls.connect({host: hostname, port: Number(port || 443), servername: net.isIP(hostname) ? '' : hostname, ...certificates, ...halfOpen});
}
