/**
 * ReportSink over HTTP: one connection kept open to one of the control plane's listeners, a unix socket or TLS with the node's certificate; and one
 * more for each that a container opens to the Docker API. Where that endpoint fails, the call goes to the next one, and so do all that follow: every
 * call may be said twice, and what one endpoint has acknowledged all of them know. Nobody goes back before that one fails too.
 */
import net from 'node:net';
import type {Duplex} from 'node:stream';
import tls from 'node:tls';
import {Pool} from 'undici';
import {contextOf, Credentials, currentOf, type TlsMaterial} from '../base/credentials';
import {asCetusError, CetusError, fromWire, INTERNAL} from '../base/errors';
import {mustBe, refusal} from '../base/peer';
import {switchProtocol} from '../base/switch-protocol';
import type {AssignmentQuestion, Heartbeat, ReportBatch} from '../schema/agent';
import type {CertificateAnswer, RenewRequest} from '../schema/authority';
import type {NodeFacts} from '../schema/node';
import type {ReportSink} from './parts';

const DEADLINE_MS = 10_000;
const CONNECT_MS = 5_000;
/** A heartbeat that another endpoint could still take in time is not left with one that is silent. */
const SHORT_DEADLINE_MS = 4_000;
const SHORT_CONNECT_MS = 2_000;
const MAX_ANSWER_BYTES = 1024 * 1024;
/** A heartbeat must not wait behind reports. */
const CONNECTIONS = 2;
/** Below the listener's own limit, so that we close first. */
const KEEP_ALIVE_MS = 50_000;

export interface ControlPlaneLink extends ReportSink { renew(request: RenewRequest): Promise<CertificateAnswer> }

interface Endpoint { url: string; socketPath?: string; pool: Pool }

/** `urls`: each "unix:///path" or "https://host:port". `first`: the index of the one to begin with. */
export function connectControlPlane(urls: string | readonly string[], certificates?: TlsMaterial | Credentials, first = 0): ControlPlaneLink {
  const list = typeof urls === 'string' ? [urls] : urls;
  if (list.length === 0) throw new CetusError('invalid', 'no control plane to report to');
  const several = list.length > 1;
  const open = (url: string): Endpoint => {
    const socketPath = socketOf(url);
    return {
      url, socketPath,
      pool: new Pool(socketPath === undefined ? url : 'http://localhost', {
        connections: CONNECTIONS, pipelining: 1, keepAliveTimeout: KEEP_ALIVE_MS,
        connect: {timeout: several ? SHORT_CONNECT_MS : CONNECT_MS, socketPath, ...clientTls(certificates)},
      }),
    };
  };
  const endpoints = list.map(open);
  let at = first % endpoints.length;
  const retired = new Set<Pool>();
  const stopFollowing = certificates instanceof Credentials
    ? certificates.onReplace(() => {
      // New connections for the new certificate; what runs on the old ones comes to its end.
      for (const [i, old] of endpoints.entries()) {
        endpoints[i] = open(old.url);
        retired.add(old.pool);
        void old.pool.close().catch(() => undefined).finally(() => retired.delete(old.pool));
      }
    }) : undefined;

  /** Each endpoint once, from the one that answered last. */
  async function turn<T>(call: (endpoint: Endpoint) => Promise<T>): Promise<T> {
    for (let tries = 1; ; tries += 1) {
      const asked = at;
      try {
        return await call(endpoints[asked]);
      } catch (err) {
        const {kind} = asCetusError(err);
        if (kind !== 'unavailable' && kind !== 'timeout') throw err;
        // Of calls that failed together only the first turns away.
        if (at === asked) at = (asked + 1) % endpoints.length;
        if (tries >= endpoints.length) throw err;
      }
    }
  }

  async function post<T>({url, pool}: Endpoint, path: string, message: unknown, deadlineMs: number): Promise<T> {
    let answered = false;
    try {
      const answer = await pool.request({
        method: 'POST', path, body: JSON.stringify(message), headers: {'content-type': 'application/json'},
        headersTimeout: deadlineMs, bodyTimeout: deadlineMs, signal: AbortSignal.timeout(2 * deadlineMs),
      });
      answered = true;
      const length = Number(answer.headers['content-length'] ?? 0);
      if (length > MAX_ANSWER_BYTES) {
        answer.body.destroy();
        throw new CetusError('internal', `the control plane's answer to ${path} is ${length} bytes long`);
      }
      const body: unknown = await answer.body.json();
      if (answer.statusCode >= 400) throw fromWire(body);
      return body as T;
    } catch (err) {
      if (answered && err instanceof CetusError) throw err;
      throw new CetusError('unavailable', `the control plane at ${url} did not answer ${path}: ${reason(err)}`, {cause: err});
    }
  }

  return {
    renew: (request: RenewRequest) => turn((to) => post(to, '/v1/renew', request, DEADLINE_MS)),
    join: (facts: NodeFacts) => turn((to) => post(to, '/v1/join', facts, DEADLINE_MS)),
    heartbeat: (heartbeat: Heartbeat) => turn((to) => post(to, '/v1/heartbeat', heartbeat, several ? SHORT_DEADLINE_MS : DEADLINE_MS)),
    assignments: (question: AssignmentQuestion) => turn((to) => post(to, '/v1/assignments', question, DEADLINE_MS)),
    reports: (batch: ReportBatch) => turn((to) => post(to, '/v1/reports', batch, DEADLINE_MS)),
    docker: (containerId: string) => turn((to) => docker(to, containerId, certificates)),
    close: async () => {
      stopFollowing?.();
      await Promise.all([...endpoints.map(({pool}) => pool), ...retired].map((pool) => pool.destroy()));
    },
  };
}

function socketOf(url: string): string | undefined {
  if (url.startsWith('unix://')) return url.slice('unix://'.length);
  if (!url.startsWith('https://')) throw new CetusError('invalid', `the control plane is reached by unix:// or https://, not by ${url}`);
  return undefined;
}

/** Whoever is called must be an endpoint of this datacenter, at whatever address. */
const clientTls = (certificates: TlsMaterial | Credentials | undefined): object => (certificates ? {secureContext: contextOf(currentOf(certificates)), checkServerIdentity: mustBe('endpoint')} : {});

function reason(err: unknown): string {
  const code = (err as NodeJS.ErrnoException | null)?.code ?? '';
  return /CERT|SIGNATURE/.test(code) ? refusal(code) : asCetusError(err).message;
}

function docker(endpoint: Endpoint, containerId: string, certificates: TlsMaterial | Credentials | undefined): Promise<Duplex> {
  return switchProtocol({
    socket: connect(endpoint, certificates), path: '/v1/docker', protocol: 'cetus-docker', headers: {'x-cetus-container': containerId}, deadlineMs: DEADLINE_MS,
    timedOut: () => new CetusError('unavailable', 'the control plane did not answer /v1/docker in time', {shown: 'the datacenter does not answer'}),
    notSwitched: () => new CetusError('internal', 'the control plane did not switch protocols for /v1/docker', {shown: INTERNAL}),
    failed: (err) => new CetusError('unavailable', 'the control plane did not answer /v1/docker', {cause: err, shown: 'the datacenter does not answer'}),
  });
}

function connect({url, socketPath}: Endpoint, certificates: TlsMaterial | Credentials | undefined): net.Socket {
  if (socketPath !== undefined) return net.connect({path: socketPath, allowHalfOpen: true});
  const {hostname, port} = new URL(url);
  // Documented for tls.connect and missing in its types.
  const halfOpen = {allowHalfOpen: true} as tls.ConnectionOptions;
  return tls.connect({host: hostname, port: Number(port || 443), servername: net.isIP(hostname) ? '' : hostname, ...clientTls(certificates), ...halfOpen});
}
