/**
 * Where the blobs of one image come from: the peers that were named, in their order, then the registry. A peer that breaks, stalls or lies is given up
 * and complained of; what it brought is resumed at the next one, or thrown away where the digest says that somebody lied. With a peer that merely
 * is busy, or still fetches the blob itself, others are tried first, and then it is waited for: its bytes cost the registry nothing.
 */
import type {Readable} from 'node:stream';
import {PassThrough} from 'node:stream';
import type {Clock} from '../../../base/clock';
import type {TlsMaterial} from '../../../base/credentials';
import {CetusError} from '../../../base/errors';
import type {Log} from '../../../base/log';
import type {Peer, PeerComplaint, TakenBytes} from '../../../schema/agent';
import type {BlobSource} from '../downloads';
import type {ImageLimits} from '../limits';
import {sha256} from '../manifest';
import {PeerConnections, PeerFailure} from './client';

export interface PeerParts { nodeId(): string; identity(): TlsMaterial | undefined; limits: ImageLimits; clock: Clock; log: Log }

const WAIT_MS = 20_000;
/** Rounds of waiting for busy peers: after five minutes the registry is asked. */
const MOST_ROUNDS = 15;
/** After so many peers have broken in the middle nobody but the registry is asked. */
const MOST_BROKEN = 3;
const MOST_COMPLAINTS = 64;
/** Less than this in `peerStallMs` of waiting is a stall. */
const PROGRESS_BYTES = 256 * 1024;

type Tried = {kind: 'answer'; body: Readable} | {kind: 'busy'} | {kind: 'nobody'};

export class Sources implements BlobSource {
  readonly taken: TakenBytes = {peers: 0, registry: 0};
  readonly complaints: PeerComplaint[] = [];
  private readonly connections: PeerConnections;
  private usable: Peer[];
  private broken = 0;
  private readonly lacking = new Set<string>();
  /** Whose bytes are in a blob that is not whole yet, in their order; null for the registry's. `from`: where the first of them began. */
  private readonly givers = new Map<string, {from: number; of: Set<Peer | null>}>();

  constructor(private readonly parts: PeerParts, peers: Peer[], private readonly registry: BlobSource | undefined) {
    this.usable = peers.filter((peer) => peer.nodeId !== parts.nodeId());
    this.connections = new PeerConnections(parts.limits, parts.nodeId(), () => parts.identity());
  }

  get host(): string {
    return this.registry?.host ?? '';
  }

  async blob(digest: string, offset: number, signal: AbortSignal, size?: number): ReturnType<BlobSource['blob']> {
    for (let round = 0; round < MOST_ROUNDS; round += 1) {
      const tried = await this.askPeers(digest, offset, size, round === 0 ? 0 : WAIT_MS, signal);
      if (tried.kind === 'answer') return {body: tried.body, start: offset, url: new URL('https://peer')};
      if (tried.kind === 'nobody') break;
      // A peer that refuses at once, though it was asked to wait, must not be asked without a pause.
      if (round > 0) await this.parts.clock.sleep(200, signal);
    }
    if (!this.registry) throw this.nobody(digest);
    const answer = await this.registry.blob(digest, offset, signal, size);
    this.gives(null, digest, offset);
    return {...answer, body: this.counted(answer.body)};
  }

  /**
   * The digest of what came is wrong: true where another try is worth it. Who gave all of it lied. Where several gave, or something lay here from before, nobody is
   * proven guilty: the blob is fetched once more from its beginning, without those that broke; each such time there is one of them less.
   */
  blame(digest: string): boolean {
    const {from, of} = this.givers.get(digest) ?? {from: 0, of: new Set<Peer | null>()};
    this.givers.delete(digest);
    const [first, ...others] = of;
    if (first === undefined || (others.length === 0 && (first === null || from > 0))) return false;
    if (others.length === 0) this.giveUp(first!, digest, 'lied', 'its bytes are not those of the digest');
    return true;
  }

  private gives(giver: Peer | null, digest: string, from: number): void {
    const known = this.givers.get(digest);
    if (known) known.of.add(giver);
    else this.givers.set(digest, {from, of: new Set([giver])});
  }

  /** A manifest or a config from a peer, its digest checked; undefined where none gives it. */
  async document(digest: string, size: number | undefined, signal: AbortSignal): Promise<Buffer | undefined> {
    for (const waitMs of [0, WAIT_MS]) {
      for (const peer of this.candidates(digest)) {
        try {
          return await this.documentOf(peer, digest, size, waitMs, signal);
        } catch (err) {
          this.judge(peer, digest, err, signal);
        }
      }
    }
    return undefined;
  }

  private async documentOf(peer: Peer, digest: string, size: number | undefined, waitMs: number, signal: AbortSignal): Promise<Buffer> {
    const {body, length} = await this.connections.get(peer, {digest, offset: 0, size, waitMs, coming: false}, signal);
    if (length > this.parts.limits.documentBytes) {
      body.on('error', () => undefined).destroy();
      throw new PeerFailure('lied', `a document of ${length} bytes`);
    }
    const bytes = await this.whole(peer, digest, body, length, signal);
    if (sha256(bytes) !== digest) throw new PeerFailure('lied', 'its bytes are not those of the digest');
    return bytes;
  }

  nobody(digest: string): CetusError {
    const why = this.complaints.map(({nodeId, reason}) => `node ${nodeId}: ${reason}`).join('; ');
    return new CetusError('unavailable', `no node gives ${digest}${why === '' ? '' : ` (${why})`}`, {shown: `no node gives ${digest}`, info: {code: 'NOBODY'}});
  }

  close(): Promise<void> {
    return this.connections.close();
  }

  private async askPeers(digest: string, offset: number, size: number | undefined, waitMs: number, signal: AbortSignal): Promise<Tried> {
    let busy = false;
    for (const peer of this.candidates(digest)) {
      try {
        // Of two nodes that fetch the same only one waits for the other.
        const coming = peer.nodeId < this.parts.nodeId();
        const {body, length} = await this.connections.get(peer, {digest, offset, size, waitMs, coming}, signal);
        this.gives(peer, digest, offset);
        return {kind: 'answer', body: this.watched(peer, digest, body, length, signal)};
      } catch (err) {
        busy = this.judge(peer, digest, err, signal) === 'busy' || busy;
      }
    }
    return {kind: busy ? 'busy' : 'nobody'};
  }

  private candidates(digest: string): Peer[] {
    return this.broken >= MOST_BROKEN ? [] : this.usable.filter((peer) => !this.lacking.has(`${peer.nodeId} ${digest}`));
  }

  /** What a peer's failure means for it; an abort is nobody's failure. */
  private judge(peer: Peer, digest: string, err: unknown, signal: AbortSignal): PeerComplaint['kind'] {
    signal.throwIfAborted();
    if (!(err instanceof PeerFailure)) throw err;
    const {complaint, message} = err;
    if (complaint === 'lacks') {
      this.lacking.add(`${peer.nodeId} ${digest}`);
      this.complain({nodeId: peer.nodeId, digest, kind: complaint, reason: message});
    } else if (complaint !== 'busy') this.giveUp(peer, digest, complaint, message);
    return complaint;
  }

  private giveUp(peer: Peer, digest: string, kind: PeerComplaint['kind'], reason: string): void {
    if (!this.usable.includes(peer)) return;
    this.usable = this.usable.filter((other) => other !== peer);
    // Once per peer: of several layers each meets the same fault.
    if (kind === 'broke' || kind === 'stalled' || kind === 'lied') this.broken += 1;
    this.complain({nodeId: peer.nodeId, digest, kind, reason});
  }

  private complain(complaint: PeerComplaint): void {
    if (this.complaints.length < MOST_COMPLAINTS) this.complaints.push(complaint);
    this.parts.log[complaint.kind === 'lied' ? 'error' : 'warn']({...complaint}, 'a node does not give a blob that it should have');
  }

  private async whole(peer: Peer, digest: string, body: Readable, length: number, signal: AbortSignal): Promise<Buffer> {
    const chunks: Buffer[] = [];
    try {
      for await (const chunk of this.watched(peer, digest, body, length, signal) as AsyncIterable<Buffer>) chunks.push(chunk);
    } catch (err) {
      signal.throwIfAborted();
      throw new PeerFailure('broke', (err as Error).message, err);
    }
    return Buffer.concat(chunks);
  }

  /** The body, counted, with an end where the peer does not keep up. What goes wrong in it is the peer's fault unless we left. */
  private watched(peer: Peer, digest: string, body: Readable, length: number, signal: AbortSignal): Readable {
    const {clock, limits} = this.parts;
    const output = new PassThrough({highWaterMark: 256 * 1024});
    let [got, since, waitedMs] = [0, 0, 0];
    let last = clock.now();
    const end = (kind: PeerComplaint['kind'], reason: string): void => {
      if (!signal.aborted) this.giveUp(peer, digest, kind, reason);
      output.destroy(new CetusError('unavailable', `node ${peer.nodeId}: ${reason}`));
    };
    // Only the peer's time counts: while our own disk holds the body up, nobody waits for the peer.
    const watch = setInterval(() => {
      const now = clock.now();
      if (!output.writableNeedDrain) waitedMs += now - last;
      last = now;
      if (waitedMs < limits.peerStallMs) return;
      end('stalled', `${since} bytes in ${Math.round(waitedMs / 1000)} s`);
    }, Math.max(50, limits.peerStallMs / 10));
    output.once('close', () => {
      clearInterval(watch);
      body.destroy();
    });
    body.on('data', (chunk: Buffer) => {
      got += chunk.length;
      since += chunk.length;
      this.taken.peers += chunk.length;
      if (since >= PROGRESS_BYTES || got >= length) [since, waitedMs] = [0, 0];
      if (output.destroyed) return;
      if (output.write(chunk)) return;
      body.pause();
      output.once('drain', () => body.resume());
    });
    body.once('error', (err: Error) => {
      if (!output.destroyed) end(/timeout/i.test(err.message) ? 'stalled' : 'broke', `${err.message} after ${got} of ${length} bytes`);
    });
    body.once('end', () => {
      clearInterval(watch);
      if (output.destroyed) return;
      if (got === length) output.end();
      else end('broke', `unexpected EOF after ${got} of ${length} bytes`);
    });
    return output;
  }

  private counted(body: Readable): Readable {
    body.on('data', (chunk: Buffer) => { this.taken.registry += chunk.length; }).pause();
    return body;
  }
}
