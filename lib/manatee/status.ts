/**
 * What a sitter says of itself to `cetus db`, over HTTP on a listener of its own: GET / answers the StatusDocument. It only shows, holds no
 * secret, and asks nobody for anything: it answers also while ZooKeeper and Postgres do not.
 *
 * Lag in seconds is measured without anybody's clock but the primary's: it remembers how far its WAL was at which age (`trail`), so a standby's WAL is as
 * old as the first thing in that trail which the standby has not got.
 */
import http from 'node:http';
import {text as readText} from 'node:stream/consumers';
import {CetusError} from '../base/errors';
import type {ClusterView, LivePeer} from './coordination';
import {lsnDistance, lsnNumber, type Lsn} from './lsn';
import type {Override} from './overrides';
import type {ServerFacts} from './server';
import type {SitterStatus} from './sitter';
import {membersOf, roleOf, type ClusterState, type HistoryEntry, type Peer, type Role} from './state';

/** How long ago the primary's WAL had come to this place. */
export interface TrailMark { ageMs: number; wal: Lsn }

export interface StatusDocument {
  peer: Peer;
  /** What the sitter saw last of the cluster: generation and version, null where it has seen nothing. */
  seen: {generation: number | null; version: number} | null;
  facts: ServerFacts | null;
  /** 0: none. */
  leaseLeftMs: number;
  last: {step: string; reason: string; error: string | null} | null;
  /** Newest first. Of a peer that is no primary: of its own WAL. */
  trail: TrailMark[];
  /** Settings in the database that outrank the server's for some; null where they could not be read. */
  overrides: Override[] | null;
}

const TRAIL_EVERY_MS = 500;
const TRAIL_MARKS = 1200;
const ASK_TIMEOUT_MS = 2000;
const MAX_ANSWER_BYTES = 4 << 20;

export interface StatusSource {
  status(): SitterStatus;
  overrides(): Promise<Override[] | null>;
  nowMs(): number;
}

/** Where the WAL was when; one mark per change, at most so many. */
export class Trail {
  private readonly marks: {atMs: number; wal: Lsn}[] = [];

  note(atMs: number, wal: Lsn | null | undefined): void {
    if (!wal || this.marks[0]?.wal === wal) return;
    this.marks.unshift({atMs, wal});
    this.marks.length = Math.min(this.marks.length, TRAIL_MARKS);
  }

  read(nowMs: number): TrailMark[] {
    return this.marks.map(({atMs, wal}) => ({ageMs: Math.max(0, Math.round(nowMs - atMs)), wal}));
  }
}

export interface StatusServer { port: number; close(): Promise<void> }

export async function serveStatus(source: StatusSource, at: {host: string; port: number}): Promise<StatusServer> {
  const trail = new Trail();
  // Whoever asks, and however many: one connection to Postgres at a time, whose places are few.
  let asked: Promise<Override[] | null> | undefined;
  const overrides = (): Promise<Override[] | null> => (asked ??= source.overrides().finally(() => { asked = undefined; }));
  const timer = setInterval(() => trail.note(source.nowMs(), source.status().facts?.wal), TRAIL_EVERY_MS);
  timer.unref();
  const server = http.createServer((request, response) => {
    const answer = (status: number, body: unknown): void => { response.writeHead(status, {'content-type': 'application/json'}).end(`${JSON.stringify(body)}\n`); };
    if (request.method !== 'GET' || request.url !== '/') return answer(404, {message: 'GET / is all that there is'});
    document({...source, overrides}, trail).then((body) => answer(200, body), (err: unknown) => answer(500, {message: (err as Error).message}));
  });
  server.requestTimeout = 5000;
  await new Promise<void>((resolve, reject) => {
    server.once('error', (err) => reject(new CetusError('conflict', `cannot listen on ${at.host}:${at.port} for \`cetus db\` (statusListen): ${err.message}`, {cause: err})));
    server.listen(at.port, at.host, resolve);
  });
  return {
    port: (server.address() as {port: number}).port,
    close: async () => {
      clearInterval(timer);
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

async function document(source: StatusSource, trail: Trail): Promise<StatusDocument> {
  const {peer, view, facts, leaseLeftMs, last} = source.status();
  trail.note(source.nowMs(), facts?.wal);
  return {
    peer, facts, leaseLeftMs: Number.isFinite(leaseLeftMs) ? leaseLeftMs : 0, seen: view && {generation: view.state?.generation ?? null, version: view.version},
    last: last && {step: last.action.step.kind, reason: last.action.reason, error: last.error ?? null},
    trail: trail.read(source.nowMs()), overrides: await source.overrides(),
  };
}

/** Throws `unavailable`. */
export async function askStatus(peer: Peer): Promise<StatusDocument> {
  try {
    const {status, text} = await new Promise<{status: number; text: string}>((resolve, reject) => {
      const request = http.get(peer.statusUrl, {agent: false, signal: AbortSignal.timeout(ASK_TIMEOUT_MS)}, (answer) => {
        let bytes = 0;
        answer.on('data', (chunk: Buffer) => { if ((bytes += chunk.length) > MAX_ANSWER_BYTES) answer.destroy(new Error('an endless answer')); });
        readText(answer).then((said) => resolve({status: answer.statusCode!, text: said}), reject);
      });
      request.once('error', reject);
    });
    if (status !== 200) throw new CetusError('unavailable', `it answered ${status}`);
    const found = JSON.parse(text) as StatusDocument;
    // Its address may by now be another's.
    if (found.peer?.id !== peer.id) throw new CetusError('unavailable', `${found.peer?.id ?? 'something else'} answers there`);
    return found;
  } catch (err) {
    throw new CetusError('unavailable', `the sitter of ${peer.id} does not answer at ${peer.statusUrl}: ${(err as Error).message}`, {cause: err});
  }
}

// ---- the whole cluster ----

export interface PeerReport {
  peer: Peer;
  role: Role;
  /** Its node in ZooKeeper; null: it is not there. */
  live: LivePeer | null;
  document: StatusDocument | null;
  /** Why there is no document. */
  unanswered: string | null;
}

export interface ClusterReport { view: ClusterView; peers: PeerReport[] }

/** The end of a history's entry by which an operator gives a peer up. */
export const givenUp = (id: string): string => `${id} is not expected to come back`;

const ADOPTED = 'adopted the database of ';
/** The reason of an entry by which an operator makes a cluster anew, where there may have been one. */
export const adopted = (id: string): string => `${ADOPTED}${id}`;
export const isAdoption = ({reason}: HistoryEntry): boolean => reason.startsWith(ADOPTED);

/** Who had a place once, has none now, and was not given up by an operator: an async that dies loses its place at once, and is missed all the same. */
export function missed(history: HistoryEntry[], {state, peers}: ClusterView): Peer[] {
  const gone = new Map<string, Peer>();
  for (const {state: then, reason} of history) {
    for (const peer of membersOf(then)) gone.set(peer.id, peer);
    for (const id of gone.keys()) if (reason === givenUp(id)) gone.delete(id);
  }
  return [...gone.values()].filter(({id}) => !(state && roleOf(state, id) !== 'none') && !peers.some((peer) => peer.id === id)).map(({id, host, port, statusUrl}) => ({id, host, port, statusUrl}));
}

/** Everybody who has a place or a node, and who is missed: members in their order, then the others. The primary is asked last, so that no standby seems to be ahead of it. */
export async function report(view: ClusterView, ask: (peer: Peer) => Promise<StatusDocument> = askStatus, missing: Peer[] = []): Promise<ClusterReport> {
  const known = new Map<string, Peer>((view.state ? membersOf(view.state) : []).map((peer) => [peer.id, peer]));
  for (const peer of [...view.peers, ...missing]) if (!known.has(peer.id)) known.set(peer.id, peer);
  const one = async (peer: Peer): Promise<PeerReport> => {
    const live = view.peers.find(({id}) => id === peer.id) ?? null;
    const answer = await ask(live ?? peer).then((document) => ({document, unanswered: null}), (err: unknown) => ({document: null, unanswered: (err as Error).message}));
    return {peer, role: view.state ? roleOf(view.state, peer.id) : 'none', live, ...answer};
  };
  const isPrimary = (peer: Peer): boolean => view.state?.primary.id === peer.id;
  const others = await Promise.all([...known.values()].filter((peer) => !isPrimary(peer)).map(one));
  const primary = await Promise.all([...known.values()].filter(isPrimary).map(one));
  return {view, peers: [...primary, ...others]};
}

export interface Lag { bytes: bigint; seconds: number | null }

/** How far a peer is behind the primary; undefined where one of the two is not known. seconds null: longer than the primary remembers. */
export function lagOf(primary: StatusDocument | null | undefined, peer: StatusDocument | null | undefined): Lag | undefined {
  const [from, to] = [primary?.facts?.wal, peer?.facts?.wal];
  if (!from || !to) return undefined;
  const bytes = lsnDistance(from, to);
  if (bytes <= 0n) return {bytes: 0n, seconds: 0};
  const has = lsnNumber(to);
  // Newest first: the oldest of those that it has not got.
  const missing = primary!.trail.filter(({wal}) => lsnNumber(wal) > has);
  const oldest = missing.at(-1);
  return {bytes, seconds: !oldest || missing.length === primary!.trail.length ? null : oldest.ageMs / 1000};
}

/** Of a cluster that has a state: one line on what is the matter with it for whoever wants to write. */
export function writable(state: ClusterState, {peers}: ClusterReport): string {
  const primary = peers.find(({peer}) => peer.id === state.primary.id);
  if (!primary?.live) return `no writes: the primary ${state.primary.id} is not there`;
  if (!primary.document) return `the primary ${state.primary.id} does not answer`;
  if (primary.document.facts?.gate !== 'open') return `no clients are let in: ${primary.document.last?.reason ?? 'unknown'}`;
  if (primary.document.facts.acknowledger.kind === 'nobody') return `clients are let in, and their writes wait: ${primary.document.last?.reason ?? 'for a sync'}`;
  return state.oneNodeWriteMode ? `writes are accepted, on ${state.primary.id} alone` : 'writes are accepted';
}
