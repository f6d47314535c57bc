/**
 * The serials that are trusted no more, kept in memory and fed by the change feed; endpoints ask here with each call of an agent, and agents are told the
 * list by the answer to a heartbeat when theirs is another one. Certificates that would have expired by now are not on it: their dates refuse them.
 */
import {createHash} from 'node:crypto';
import {type Clock, formatNs} from '../../base/clock';
import {CetusError} from '../../base/errors';
import type {Log} from '../../base/log';
import {ALL, le} from '../../moray/filter';
import type {BatchOp, Change, Moray} from '../../moray/moray';
import {NOTHING_REVOKED, type NodeIdentity, type Revocation, type RevokedSerials} from '../../schema/authority';
import {BUCKETS} from '../../schema/buckets';

export const REVOCATIONS = BUCKETS.revocations.name;
const FEED_RETRY_MS = 1_000;
/** A clock that is off by less does not make a revoked certificate good again. */
const SLACK_MS = 24 * 3_600_000;

/** The same serials, the same version, whoever counts. */
export function versionOf(serials: readonly string[]): string {
  return serials.length === 0 ? NOTHING_REVOKED : createHash('sha256').update([...serials].sort().join()).digest('hex').slice(0, 16);
}

export class Revocations {
  private readonly known = new Map<string, Revocation>();
  private readonly listeners = new Set<(serial: string) => void>();
  private readonly stopped = new AbortController();
  private list: RevokedSerials = {version: NOTHING_REVOKED, serials: []};
  private following: Promise<void> | undefined;

  constructor(private readonly parts: {moray: Moray; clock: Clock; log: Log}) {}

  /** Resolves when every revocation committed before the call is known. */
  async start(): Promise<void> {
    this.following = this.follow(await this.load());
  }

  async stop(): Promise<void> {
    this.stopped.abort(new CetusError('canceled', 'fleet stops'));
    await this.following;
  }

  has(serial: string): boolean {
    return this.known.has(serial);
  }

  reason(serial: string): string {
    const known = this.known.get(serial);
    return known ? `${known.reason} (${known.at})` : '';
  }

  /** For the answer to a heartbeat; undefined where the agent has it. */
  since(version: string | undefined): RevokedSerials | undefined {
    return version === undefined || version === this.list.version ? undefined : this.list;
  }

  /** Also from whoever revoked one in this process, before the feed says so. */
  add(revocation: Revocation): void {
    if (this.known.has(revocation.serial)) return;
    this.known.set(revocation.serial, revocation);
    this.count();
    for (const listener of this.listeners) listener(revocation.serial);
  }

  onRevoked(listener: (serial: string) => void): void {
    this.listeners.add(listener);
  }

  /** Rows of certificates that have expired. */
  async prune(): Promise<void> {
    await this.parts.moray.deleteMany(REVOCATIONS, le('notAfterMs', this.parts.clock.now() - SLACK_MS));
  }

  private count(): void {
    const serials = [...this.known.keys()].sort();
    this.list = {version: versionOf(serials), serials};
  }

  private async load(): Promise<AsyncIterable<Change<Revocation>>> {
    const {moray} = this.parts;
    const changes = await moray.watch<Revocation>(REVOCATIONS, ALL, {signal: this.stopped.signal});
    for await (const {value} of moray.find<Revocation>(REVOCATIONS, ALL)) this.add(value);
    return changes;
  }

  private async follow(first: AsyncIterable<Change<Revocation>>): Promise<void> {
    const {clock, log} = this.parts;
    let changes: AsyncIterable<Change<Revocation>> | undefined = first;
    while (!this.stopped.signal.aborted) {
      try {
        changes ??= await this.load();
        for await (const change of changes) {
          if (change.kind === 'put') this.add(change.value);
          else if (this.known.delete(change.key)) this.count();
        }
        throw new CetusError('unavailable', 'the change feed of revocations ended');
      } catch (err) {
        if (this.stopped.signal.aborted) return;
        log.warn({err}, 'the change feed of revocations broke; it is opened again');
        changes = undefined;
        await clock.sleep(FEED_RETRY_MS, this.stopped.signal).catch(() => undefined);
      }
    }
  }
}

/** The writes that take a node's certificates from it, for the batch that removes the node. None where it has no identity. */
export async function revocationWrites(moray: Moray, clock: Clock, nodeId: string, reason: string): Promise<{writes: BatchOp[]; revocations: Revocation[]}> {
  const identity = await moray.peek<NodeIdentity>(BUCKETS.identities.name, nodeId);
  if (!identity) return {writes: [], revocations: []};
  const at = formatNs(clock.nowNs());
  const revocations = identity.value.certificates.map(({serial, notAfterMs}): Revocation => ({serial, nodeId, reason, at, notAfterMs}));
  return {
    revocations,
    writes: [
      ...revocations.map((value): BatchOp => ({op: 'put', bucket: REVOCATIONS, key: value.serial, value})),
      {op: 'delete', bucket: BUCKETS.identities.name, key: nodeId, etag: identity.etag},
    ],
  };
}
