/** Join tokens in the store: made, listed, taken back, and looked at when one is shown. Only a hash of the secret is kept. */
import {createHash, randomBytes, timingSafeEqual} from 'node:crypto';
import {type Clock, formatNs} from '../../base/clock';
import {CetusError} from '../../base/errors';
import {ALL, le} from '../../moray/filter';
import type {Moray, Stored} from '../../moray/moray';
import type {TokenRecord} from '../../schema/authority';
import {BUCKETS} from '../../schema/buckets';
import {formatJoinToken, type JoinToken} from '../../schema/join-token';

export const TOKENS = BUCKETS.tokens.name;
export const DEFAULT_TOKEN_TTL_MS = 3_600_000;
const MAX_TTL_MS = 30 * 24 * 3_600_000;
/** An expired token is remembered for so long, to be told from one that never was; and a node that crashed with it is answered again. */
const REMEMBERED_MS = 24 * 3_600_000;
/** 32 characters of 5 bits each: 160 bits, which nobody guesses; so a plain hash will do. */
const ALPHABET = 'abcdefghijklmnopqrstuvwxyz234567';

const word = (length: number): string => [...randomBytes(length)].map((byte) => ALPHABET[byte & 31]).join('');
const hashOf = (secret: string): string => createHash('sha256').update(secret).digest('hex');

/** What operators see; never the hash. */
export type TokenView = Omit<TokenRecord, 'secretHash'>;
const view = ({secretHash: _hash, ...rest}: TokenRecord): TokenView => rest;

export class Tokens {
  constructor(private readonly parts: {moray: Moray; clock: Clock; fingerprint: string}) {}

  async create({ttlMs = DEFAULT_TOKEN_TTL_MS, labels = {}}: {ttlMs?: number; labels?: Record<string, string>}): Promise<{token: string} & TokenView> {
    const {moray, clock, fingerprint} = this.parts;
    if (!(ttlMs >= 1000 && ttlMs <= MAX_TTL_MS)) throw new CetusError('invalid', 'a token lives from a second to 30 days');
    const token: JoinToken = {id: word(10), secret: word(32), fingerprint};
    const record: TokenRecord = {id: token.id, secretHash: hashOf(token.secret), createdAt: formatNs(clock.nowNs()), expiresAtMs: clock.now() + ttlMs, labels};
    await moray.deleteMany(TOKENS, le('expiresAtMs', clock.now() - REMEMBERED_MS));
    await moray.put(TOKENS, record.id, record, {etag: null});
    return {token: formatJoinToken(token), ...view(record)};
  }

  async list(): Promise<TokenView[]> {
    return (await this.parts.moray.list<TokenRecord>(TOKENS, ALL, {sort: [{field: 'expiresAtMs', order: 'asc'}]})).map((stored) => view(stored.value));
  }

  async remove(id: string): Promise<void> {
    await this.parts.moray.get(TOKENS, id).catch((err: unknown) => { throw new CetusError('notFound', `no token ${id}`, {cause: err}); });
    await this.parts.moray.delete(TOKENS, id);
  }

  /** The row of a token whose secret is shown. Who has it not learns only that. */
  async find(token: JoinToken): Promise<Stored<TokenRecord>> {
    const stored = await this.parts.moray.peek<TokenRecord>(TOKENS, token.id);
    if (!stored || !timingSafeEqual(Buffer.from(stored.value.secretHash), Buffer.from(hashOf(token.secret))))
      throw new CetusError('unauthorized', 'unknown join token: it was never made here, or was taken back, or expired more than a day ago');
    return stored;
  }

  /** By this node with this key: for the first time, or again. */
  refuseUse({used, expiresAtMs}: TokenRecord, nodeId: string, publicKey: string): void {
    if (used && (used.nodeId !== nodeId || used.publicKey !== publicKey)) throw new CetusError('unauthorized', `this join token was used, at ${used.at} by node ${used.nodeId}: each is for one node`);
    if (!used && expiresAtMs <= this.parts.clock.now()) throw new CetusError('unauthorized', `this join token expired at ${new Date(expiresAtMs).toISOString()}: make another with \`cetus node token\``);
  }
}
