/**
 * Cetus' own certificate authority, as each endpoint has it: the key from the store, opened with the key file; its own certificate, made at each start and
 * renewed while it runs; certificates for nodes.
 *
 * - A node id has one owner: who enrols an id that has a certificate must have the key of one of its certificates. `identities/ID` is written on its etag in the
 *   batch that marks the token used, so of two that race with one token, or with two tokens for one id, one wins.
 * - A token makes one node. The same node with the same key is answered again with the same certificate: it may have died before the answer was on its disk.
 * - A renewal is asked for by the node itself, over the certificate that it has, for a new key or the same.
 */
import {createPublicKey, type KeyObject, X509Certificate} from 'node:crypto';
import {type Clock, formatNs} from '../../base/clock';
import {Credentials} from '../../base/credentials';
import {CetusError, isCetusError} from '../../base/errors';
import type {Log} from '../../base/log';
import type {Peer} from '../../base/peer';
import {IDENTITY_NAME, issue, makeAuthority, makeKey, publicKeyHash, readRequest} from '../../base/x509';
import {eq} from '../../moray/filter';
import type {BatchOp, Moray, Stored} from '../../moray/moray';
import type {Authority, CertificateAnswer, EnrollRequest, IssuedCertificate, NodeIdentity, RenewRequest, TokenRecord} from '../../schema/authority';
import {BUCKETS} from '../../schema/buckets';
import {parseJoinToken} from '../../schema/join-token';
import type {Node, NodeClaim} from '../../schema/node';
import {Revocations} from './revocations';
import {makeKeyFile, readKeyFile, seal, unseal} from './seal';
import {TOKENS, Tokens} from './tokens';

const AUTHORITY = BUCKETS.authority.name;
const KEY = 'ca';
const IDENTITIES = BUCKETS.identities.name;
const NODES = BUCKETS.nodes.name;
const DAY_MS = 24 * 3_600_000;
const AUTHORITY_LIFE_MS = 20 * 365 * DAY_MS;
const CERTIFICATE_LIFE_MS = 90 * DAY_MS;
/** Machines whose clocks differ by less do not notice. */
const SKEW_MS = 3_600_000;
const MAX_CERTIFICATES = 16;
const TRIES = 5;
const CLAIM_EVERY_MS = 60_000;
const RETRY_MS = 60_000;

export interface AuthorityOptions {
  moray: Moray;
  log: Log;
  clock: Clock;
  /** Mode 0600. Made where neither it nor an authority exists. */
  keyFile: string;
  /** This endpoint's, and where it is reached. */
  endpointId: string;
  addresses: string[];
  /** How long a certificate is good. Renewed after two thirds. Default 90 days. */
  lifeMs?: number;
}

/** After which part of its life a certificate is renewed: a node that was switched off for less than the rest of it comes back by itself. */
export const renewalAtMs = (notBeforeMs: number, notAfterMs: number): number => notBeforeMs + Math.floor((notAfterMs - notBeforeMs) * 2 / 3);

export class FleetAuthority {
  readonly tokens: Tokens;
  readonly revocations: Revocations;
  readonly fingerprint: string;
  private readonly stopped = new AbortController();
  private renewing: Promise<void> | undefined;

  private constructor(private readonly options: AuthorityOptions, private readonly signer: {certificate: string; key: string}, readonly credentials: Credentials, private ownNotAfterMs: number) {
    const {moray, clock, log} = options;
    this.fingerprint = publicKeyHash(signer.certificate, 'base64url');
    this.tokens = new Tokens({moray, clock, fingerprint: this.fingerprint});
    this.revocations = new Revocations({moray, clock, log});
  }

  static async open(options: AuthorityOptions): Promise<FleetAuthority> {
    await options.moray.open(BUCKETS.authority, BUCKETS.tokens, BUCKETS.identities, BUCKETS.revocations);
    if (!IDENTITY_NAME.test(options.endpointId)) throw new CetusError('invalid', `endpoint id ${options.endpointId}: letters, digits, _ . and - , at most 64`);
    const signer = await openSigner(options);
    const own = await ownMaterial(options, signer);
    return new FleetAuthority(options, signer, new Credentials(own.material), own.notAfterMs);
  }

  get certificate(): string {
    return this.signer.certificate;
  }

  async start(): Promise<void> {
    await this.revocations.start();
    this.renewing = this.renewOwn();
  }

  async stop(): Promise<void> {
    this.stopped.abort(new CetusError('canceled', 'the authority closes'));
    await this.renewing;
    await this.revocations.stop();
  }

  /** Of a machine that shows a token and has no certificate. */
  async enroll(request: EnrollRequest): Promise<CertificateAnswer> {
    const {moray, clock, log} = this.options;
    const token = parseJoinToken(request.token);
    if (token.fingerprint !== this.fingerprint) throw new CetusError('unauthorized', 'this join token is of another datacenter\'s authority');
    // The secret before anything is parsed: strangers cost a look-up.
    await this.tokens.find(token);
    if (!IDENTITY_NAME.test(request.nodeId)) throw new CetusError('invalid', `node id ${JSON.stringify(request.nodeId)}: letters, digits, _ . and - , at most 64`);
    const {publicKey, addresses} = await readRequest(request.request, request.nodeId);
    const hash = publicKeyHash(publicKey);
    for (let attempt = 1; ; attempt += 1) {
      const [used, identity] = await Promise.all([this.tokens.find(token), moray.peek<NodeIdentity>(IDENTITIES, request.nodeId)]);
      this.tokens.refuseUse(used.value, request.nodeId, hash);
      const again = used.value.used && this.current(identity?.value).find((c) => c.publicKey === hash);
      if (again) return this.answer(again);
      if (used.value.used) throw new CetusError('unauthorized', 'this join token was used, and its node has been removed since: make another with `cetus node token`');
      if (identity && !identity.value.certificates.some((c) => c.publicKey === hash))
        throw await this.claimed(await moray.peek<Node>(NODES, request.nodeId), request.nodeId, `node ${request.nodeId} is a member already, with another key; if that machine is gone for good, \`cetus node rm\` it first`);
      await this.refuseTaken(request, identity !== undefined);
      const {writes, issued} = await this.issueTo(request.nodeId, publicKey, hash, addresses, identity, used.value.labels);
      const mark: TokenRecord = {...used.value, used: {nodeId: request.nodeId, publicKey: hash, at: formatNs(clock.nowNs())}};
      try {
        await moray.batch([{op: 'put', bucket: TOKENS, key: mark.id, value: mark, etag: used.etag}, ...writes]);
        log.info({nodeId: request.nodeId, node: request.name, serial: issued.serial, token: mark.id}, 'node enrolled');
        return this.answer(issued);
      } catch (err) {
        if (!isCetusError(err, 'etagConflict') || attempt >= TRIES) throw err;
      }
    }
  }

  /** Of a node, for itself. */
  async renew(peer: Peer, request: RenewRequest): Promise<CertificateAnswer> {
    if (peer.role !== 'node' || peer.id !== request.nodeId) throw new CetusError('forbidden', `${peer.role} ${peer.id} may not renew the certificate of node ${request.nodeId}`);
    const {publicKey, addresses} = await readRequest(request.request, request.nodeId);
    const hash = publicKeyHash(publicKey);
    for (let attempt = 1; ; attempt += 1) {
      const identity = await this.options.moray.peek<NodeIdentity>(IDENTITIES, request.nodeId);
      if (!identity) throw new CetusError('unauthorized', `node ${request.nodeId} has been removed`);
      const again = this.current(identity.value).find((c) => c.publicKey === hash && c.notAfterMs - this.options.clock.now() > this.lifeMs * 2 / 3);
      if (again) return this.answer(again);
      const {writes, issued} = await this.issueTo(request.nodeId, publicKey, hash, addresses, identity, identity.value.labels);
      try {
        await this.options.moray.batch(writes);
        this.options.log.info({nodeId: request.nodeId, serial: issued.serial}, 'a node\'s certificate was renewed');
        return this.answer(issued);
      } catch (err) {
        if (!isCetusError(err, 'etagConflict') || attempt >= TRIES) throw err;
      }
    }
  }

  /** What a caller may still be trusted with, beyond the handshake: it may have been revoked since, or its certificate have run out on an open connection. */
  admit(peer: Peer): void {
    if (this.revocations.has(peer.serial)) throw new CetusError('unauthorized', `the certificate of ${peer.role} ${peer.id} was revoked: ${this.revocations.reason(peer.serial)}`);
    if (peer.notAfterMs <= this.options.clock.now()) throw new CetusError('unauthorized', `the certificate of ${peer.role} ${peer.id} has expired`);
  }

  private get lifeMs(): number {
    return this.options.lifeMs ?? CERTIFICATE_LIFE_MS;
  }

  private current(identity: NodeIdentity | undefined): IssuedCertificate[] {
    return (identity?.certificates ?? []).filter((c) => c.notAfterMs > this.options.clock.now());
  }

  private answer(issued: IssuedCertificate): CertificateAnswer {
    return {certificate: issued.certificate, authority: this.signer.certificate};
  }

  /** So that a token is not spent on a node that could not join, nor makes anybody one that is there without a certificate of this authority. */
  private async refuseTaken({nodeId, name}: EnrollRequest, isMember: boolean): Promise<void> {
    const {moray} = this.options;
    const [[namesake], there] = await Promise.all([moray.list<Node>(NODES, eq('name', name), {limit: 1}), moray.peek<Node>(NODES, nodeId)]);
    if (namesake && namesake.key !== nodeId) throw await this.claimed(namesake, nodeId, `another node is called ${name}; if that machine is gone for good, \`cetus node rm\` it first`);
    if (there && !isMember) throw await this.claimed(there, nodeId, `node ${nodeId} is a member already, without a certificate of this authority; \`cetus node rm\` it first`);
  }

  /** Noted in the node, for the operator who asks why its machine does not come back. A claimant that tries again and again is noted once in a while. */
  private async claimed(node: Stored<Node> | undefined, nodeId: string, message: string): Promise<CetusError> {
    const {moray, clock, log} = this.options;
    const refusal = new CetusError('conflict', message);
    const old = node?.value.claim;
    if (!node || (old?.nodeId === nodeId && old.message === message && clock.now() - Date.parse(old.at) < CLAIM_EVERY_MS)) return refusal;
    const claim: NodeClaim = {at: formatNs(clock.nowNs()), nodeId, message};
    await moray.put(NODES, node.key, {...node.value, claim}, {etag: node.etag}).catch((err: unknown) => log.warn({err, nodeId: node.key, claim}, 'a claim to a node was refused and could not be noted'));
    return refusal;
  }

  private async issueTo(nodeId: string, publicKey: KeyObject, hash: string, addresses: string[], identity: Stored<NodeIdentity> | undefined, labels: Record<string, string>): Promise<{writes: BatchOp[]; issued: IssuedCertificate}> {
    const {clock} = this.options;
    const kept = this.current(identity?.value);
    if (kept.length >= MAX_CERTIFICATES) throw new CetusError('conflict', `node ${nodeId} has ${kept.length} certificates that are good, and may have no more`);
    const made = await issue(this.signer, {role: 'node', id: nodeId}, publicKey, addresses, lifeFrom(clock.now(), this.lifeMs));
    const issued: IssuedCertificate = {...made, publicKey: hash};
    const value: NodeIdentity = {nodeId, certificates: [...kept, issued], labels, enrolledAt: identity?.value.enrolledAt ?? formatNs(clock.nowNs())};
    return {writes: [{op: 'put', bucket: IDENTITIES, key: nodeId, value, etag: identity?.etag ?? null}], issued};
  }

  /** Its old certificate serves the connections that are open. */
  private async renewOwn(): Promise<void> {
    const {clock, log} = this.options;
    while (!this.stopped.signal.aborted) {
      const waitMs = renewalAtMs(this.ownNotAfterMs - this.lifeMs, this.ownNotAfterMs) - clock.now();
      try {
        if (waitMs > 0) await clock.sleep(waitMs, this.stopped.signal);
        const own = await ownMaterial(this.options, this.signer);
        this.ownNotAfterMs = own.notAfterMs;
        this.credentials.replace(own.material);
        log.info({endpointId: this.options.endpointId}, 'this endpoint\'s certificate was renewed');
        await this.revocations.prune();
      } catch (err) {
        if (this.stopped.signal.aborted) return;
        log.warn({err}, 'this endpoint\'s certificate could not be renewed yet');
        await clock.sleep(RETRY_MS, this.stopped.signal).catch(() => undefined);
      }
    }
  }
}

const lifeFrom = (nowMs: number, lifeMs: number): {notBeforeMs: number; notAfterMs: number} => ({notBeforeMs: nowMs - SKEW_MS, notAfterMs: nowMs + lifeMs});

/** The authority's own certificate follows, for machines that know only its fingerprint. */
async function ownMaterial(options: AuthorityOptions, signer: {certificate: string; key: string}): Promise<{material: {ca: string; cert: string; key: string}; notAfterMs: number}> {
  const key = makeKey();
  const made = await issue(signer, {role: 'endpoint', id: options.endpointId}, createPublicKey(key), options.addresses, lifeFrom(options.clock.now(), options.lifeMs ?? CERTIFICATE_LIFE_MS));
  return {material: {ca: signer.certificate, cert: made.certificate + signer.certificate, key}, notAfterMs: made.notAfterMs};
}

async function openSigner({moray, clock, log, keyFile}: AuthorityOptions): Promise<{certificate: string; key: string}> {
  // In this order: the file of an authority that is there is there as well, also where another endpoint of this machine made both just now.
  let stored = await moray.peek<Authority>(AUTHORITY, KEY);
  let secret = readKeyFile(keyFile);
  if (!stored) {
    secret ??= makeKeyFile(keyFile);
    const key = makeKey();
    const nowMs = clock.now();
    const certificate = await makeAuthority(`Cetus ${publicKeyHash(key).slice(0, 8)}`, key, {notBeforeMs: nowMs - SKEW_MS, notAfterMs: nowMs + AUTHORITY_LIFE_MS});
    const value: Authority = {certificate, key: seal(secret, key), createdAt: formatNs(clock.nowNs())};
    try {
      await moray.put(AUTHORITY, KEY, value, {etag: null});
      log.info({fingerprint: publicKeyHash(certificate, 'base64url'), keyFile}, 'the authority was made; every endpoint needs this key file');
      return {certificate, key};
    } catch (err) {
      if (!isCetusError(err, 'etagConflict')) throw err;
      // Another endpoint began at the same time.
      stored = await moray.get<Authority>(AUTHORITY, KEY);
    }
  }
  if (secret === undefined) throw new CetusError('invalid', `key file ${keyFile} is missing, and this datacenter has an authority already: copy the file from another endpoint`);
  const {certificate} = stored.value;
  const {validFrom} = new X509Certificate(certificate);
  if (Date.parse(validFrom) > clock.now()) throw new CetusError('invalid', `the authority begins in the future (${validFrom}): the clock of this machine is wrong`);
  try {
    return {certificate, key: unseal(secret, stored.value.key)};
  } catch (err) {
    throw new CetusError('forbidden', `key file ${keyFile} is not the one with which this datacenter's authority was made: copy it from another endpoint`, {cause: err});
  }
}
