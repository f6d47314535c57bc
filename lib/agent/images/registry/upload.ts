/**
 * Blobs into a repository (OCI distribution, "push"). A blob that is there already is not sent; one that another repository of the registry has is
 * taken over from there; the others go up in one request where they are small and piece by piece where they are not, so that a connection
 * that breaks costs one piece: what the registry has is asked, and sent is what is missing. A registry that does not know is begun with anew.
 */
import type {Readable} from 'node:stream';
import type {Clock} from '../../../base/clock';
import {CetusError, isCetusError} from '../../../base/errors';
import type {ImageLimits} from '../limits';
import type {Repository} from './client';
import {isTransient} from './network-error';
import {discard, type Answer} from './transport';

/** Bytes of a blob from an offset on, as often as they are asked for. */
export interface UploadSource { digest: string; size: number; open(offset: number, length: number): Readable }
export interface UploadWatch { /** bytes that are on their way or there */ sent(bytes: number): void; retrying(afterMs: number): void }
/** Where an upload goes on; the registry may want no smaller pieces than so many bytes. */
export interface Session { location: URL; smallestBytes: number }

const OCTETS = 'application/octet-stream';
const FIRST_PAUSE_MS = 500;
const MAX_PAUSE_MS = 5_000;

export class Uploader {
  constructor(private readonly repository: Repository, private readonly limits: ImageLimits, private readonly clock: Clock) {}

  async exists(digest: string): Promise<boolean> {
    const answer = await this.repository.patiently({method: 'HEAD', path: `blobs/${digest}`, headers: {}, expected: [200, 404]});
    await discard(answer);
    return answer.statusCode === 200;
  }

  /** 'mounted', or the session that the registry opened in its place. */
  async mount(digest: string, from: string): Promise<'mounted' | Session> {
    return this.post(`blobs/uploads/?mount=${encodeURIComponent(digest)}&from=${encodeURIComponent(from)}`);
  }

  async begin(): Promise<Session> {
    const session = await this.post('blobs/uploads/');
    if (session === 'mounted') throw new CetusError('invalid', 'the registry says of an upload that has not begun that it is complete');
    return session;
  }

  /** The blob is in the repository afterwards. */
  async send(source: UploadSource, begun: Session | undefined, watch: UploadWatch, signal: AbortSignal): Promise<void> {
    let session: Session | undefined = begun;
    let offset = 0;
    let failures = 0;
    let resumed = false;
    let progressAt = this.clock.now();
    for (;;) {
      const before = offset;
      try {
        session ??= await this.begin();
        const state = {session, offset};
        try {
          await this.attempt(source, state, watch, signal);
          return;
        } finally {
          ({session, offset} = state);
        }
      } catch (err) {
        if (signal.aborted) throw signal.reason as Error;
        // What it was asked to go on with it may have mistaken.
        const mistaken: boolean = resumed && !isTransient(err) && !isCetusError(err, 'unauthorized') && !isCetusError(err, 'forbidden');
        if (!isTransient(err) && !mistaken) throw err;
        if (offset > before) progressAt = this.clock.now();
        failures = offset > before ? 1 : failures + 1;
        if (failures >= this.limits.tries || this.clock.now() - progressAt >= this.limits.patienceMs) throw err;
        const pauseMs = Math.min(FIRST_PAUSE_MS * 2 ** failures, MAX_PAUSE_MS);
        watch.retrying(pauseMs);
        await this.clock.sleep(pauseMs, signal);
        const there: {session: Session; offset: number} | undefined = session && !mistaken && source.size > this.limits.uploadBytes ? await this.progressOf(session, signal) : undefined;
        resumed = there !== undefined && there.offset > 0 && there.offset <= source.size;
        session = resumed ? there!.session : undefined;
        offset = resumed ? there!.offset : 0;
      }
    }
  }

  /** `state` is kept up to date: after a failure it says how far the registry has acknowledged. */
  private async attempt(source: UploadSource, state: {session: Session; offset: number}, watch: UploadWatch, signal: AbortSignal): Promise<void> {
    const {size, digest} = source;
    const piece = Math.max(this.limits.uploadBytes, state.session.smallestBytes);
    while (size > piece && state.offset < size) {
      const {offset} = state;
      const length = Math.min(piece, size - offset);
      const answer = await this.repository.once({
        method: 'PATCH', path: state.session.location, headers: {'content-type': OCTETS, 'content-length': String(length), 'content-range': `${offset}-${offset + length - 1}`},
        body: () => watched(source.open(offset, length), offset, watch), expected: [201, 202, 204],
      }, signal);
      await discard(answer);
      state.session = sessionOf(answer, state.session);
      const end = rangeEnd(answer);
      // Less than was sent: the rest is sent again. More it cannot have.
      state.offset = end !== undefined && end > offset && end < offset + length ? end : offset + length;
    }
    const location = new URL(state.session.location);
    location.searchParams.set('digest', digest);
    const rest = size - state.offset;
    const {offset} = state;
    await discard(await this.repository.once({
      method: 'PUT', path: location, headers: {'content-type': OCTETS, 'content-length': String(rest)},
      ...(rest > 0 ? {body: () => watched(source.open(offset, rest), offset, watch)} : {}), expected: [201, 204],
    }, signal));
    watch.sent(size);
  }

  /** How much of a broken upload the registry has; undefined where it does not know of it any more. */
  private async progressOf(session: Session, signal: AbortSignal): Promise<{session: Session; offset: number} | undefined> {
    try {
      const answer = await this.repository.once({method: 'GET', path: session.location, headers: {}, expected: [200, 202, 204]}, signal);
      await discard(answer);
      return {session: sessionOf(answer, session), offset: rangeEnd(answer) ?? 0};
    } catch (err) {
      if (signal.aborted) throw err;
      return undefined;
    }
  }

  private async post(path: string): Promise<'mounted' | Session> {
    const answer = await this.repository.patiently({method: 'POST', path, headers: {'content-length': '0'}, expected: [201, 202]});
    await discard(answer);
    return answer.statusCode === 201 ? 'mounted' : sessionOf(answer);
  }
}

function sessionOf(answer: Answer, before?: Session): Session {
  const {location} = answer.headers;
  if (typeof location !== 'string') {
    if (before) return before;
    throw new CetusError('invalid', 'the registry does not say where an upload goes');
  }
  const url = URL.canParse(location, answer.url.href) ? new URL(location, answer.url) : undefined;
  if (!url || !/^https?:$/.test(url.protocol) || url.username !== '' || url.password !== '') throw new CetusError('invalid', 'the registry names an invalid address for an upload');
  const smallest = Number(answer.headers['oci-chunk-min-length'] ?? before?.smallestBytes ?? 0);
  return {location: url, smallestBytes: Number.isSafeInteger(smallest) && smallest > 0 ? smallest : 0};
}

/** "0-9" is ten bytes; "0-0" is what registries say of none. */
function rangeEnd(answer: Answer): number | undefined {
  const last = /^(?:bytes=)?0-(\d{1,15})$/.exec(String(answer.headers.range ?? ''))?.[1];
  return last === undefined ? undefined : last === '0' ? 0 : Number(last) + 1;
}

function watched(body: Readable, offset: number, watch: UploadWatch): Readable {
  let sent = offset;
  body.on('data', (chunk: Buffer) => watch.sent(sent += chunk.length));
  // A listener starts the flow; the request does that when it reads.
  return body.pause();
}
