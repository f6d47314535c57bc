/**
 * One blob of one peer, asked for over its agent's address. Nothing that a peer says is believed: a body of another length than the blob's is refused
 * before it is read, silence and dripping end it, and what it brought is checked by whoever stores it. Certificates count in both directions: ours
 * says that we are a node, and the peer's must be that of the node that was meant.
 */
import type {Readable} from 'node:stream';
import {Pool, type Dispatcher} from 'undici';
import type {TlsMaterial} from '../../../base/credentials';
import {CetusError} from '../../../base/errors';
import {mustBe} from '../../../base/peer';
import type {Peer, PeerComplaint} from '../../../schema/agent';
import type {ImageLimits} from '../limits';

export interface BlobQuestion {
  digest: string;
  offset: number;
  /** undefined: of a document, whose length nobody has told yet */
  size: number | undefined;
  /** How long the peer may let us wait for our turn. */
  waitMs: number;
  /** Whether one that the peer is only fetching itself is worth waiting for. */
  coming: boolean;
}
export interface PeerAnswer { body: Readable; length: number }

/** What the complaint about it says. */
export class PeerFailure extends CetusError {
  constructor(readonly complaint: PeerComplaint['kind'], reason: string, cause?: unknown) {
    super('unavailable', reason, {cause});
  }
}

const CONNECTIONS = 8;
const IDLE_MS = 4_000;
/** Beyond what we ask the peer to wait. */
const HEAD_MS = 10_000;

export class PeerConnections {
  private readonly pools = new Map<string, Pool>();

  /** `self`: what we call ourselves where no certificate says it, so that the peer can be fair. */
  constructor(private readonly limits: ImageLimits, private readonly self: string, private readonly identity: () => TlsMaterial | undefined) {}

  /** The blob's bytes from `offset` to its end. */
  async get(peer: Peer, {digest, offset, size, waitMs, coming}: BlobQuestion, signal: AbortSignal): Promise<PeerAnswer> {
    let answer: Dispatcher.ResponseData;
    try {
      answer = await this.pool(peer).request({
        method: 'GET', path: `/v1/blobs/${digest}?wait=${Math.ceil(waitMs / 1000)}&coming=${coming ? 1 : 0}`, signal,
        headers: {'x-cetus-node': this.self, ...(offset > 0 ? {'range': `bytes=${offset}-`, 'if-range': `"${digest}"`} : {})},
        headersTimeout: waitMs + HEAD_MS, bodyTimeout: this.limits.peerStallMs,
      });
    } catch (err) {
      signal.throwIfAborted();
      throw new PeerFailure('unreachable', (err as Error).message, err);
    }
    const refuse = async (kind: PeerComplaint['kind'], reason: string): Promise<never> => {
      answer.body.on('error', () => undefined).destroy();
      throw new PeerFailure(kind, reason);
    };
    const {statusCode: status, headers} = answer;
    if (status === 404) return refuse('lacks', 'it does not have it');
    if (status === 503) return refuse('busy', 'it serves others, or still fetches it itself');
    const length = Number(headers['content-length'] ?? Number.NaN);
    if (!Number.isSafeInteger(length)) return refuse('broke', `it answers ${status} without a length`);
    if (status === 200 && offset === 0) return size === undefined || length === size ? {body: answer.body, length} : refuse('lied', `it has ${length} bytes of a blob of ${size}`);
    if (status !== 206 || offset === 0) return refuse('broke', `it answers ${status}`);
    const range = /^bytes (\d+)-(\d+)\/(\d+)$/.exec(String(headers['content-range'] ?? ''));
    const right = range && Number(range[1]) === offset && (size === undefined || (Number(range[3]) === size && length === size - offset));
    return right ? {body: answer.body, length} : refuse('lied', `it answers another range than the one asked for`);
  }

  async close(): Promise<void> {
    const pools = [...this.pools.values()];
    this.pools.clear();
    await Promise.all(pools.map((pool) => pool.destroy()));
  }

  private pool({nodeId, url}: Peer): Pool {
    const known = this.pools.get(`${nodeId} ${url}`);
    if (known) return known;
    const socketPath = url.startsWith('unix://') ? decodeURIComponent(new URL(url).pathname) : undefined;
    if (socketPath === undefined && !url.startsWith('https://')) throw new PeerFailure('unreachable', `${url} is neither unix:// nor https://`);
    const identity = socketPath === undefined ? this.identity() : undefined;
    if (socketPath === undefined && !identity) throw new PeerFailure('unreachable', 'this node has no certificate to show to another');
    const pool = new Pool(socketPath === undefined ? url : 'http://agent', {
      connections: CONNECTIONS, pipelining: 1, keepAliveTimeout: IDLE_MS, keepAliveMaxTimeout: IDLE_MS,
      connect: {timeout: this.limits.connectMs, socketPath, ...identity, ...(identity ? {checkServerIdentity: mustBe('node', nodeId)} : {})},
    });
    this.pools.set(`${nodeId} ${url}`, pool);
    return pool;
  }
}
