/**
 * Who is who in a fleet: Cetus' own certificate authority, the tokens with which a node comes to its certificate, and the certificates that are
 * valid no more. One machine (`cetus up`: unix sockets) has none of it.
 *
 * A certificate says two things: CN = whose it is (node id, or endpoint id), OU = what that is (`node` or `endpoint`). Addresses in it decide nothing:
 * an endpoint that calls a node wants that node's id and OU=node, a node that calls the control plane OU=endpoint, whatever address they came by.
 */

/** Bucket `authority`, key `ca`. Written once, by the first endpoint that is configured for a fleet; never changed. */
export interface Authority {
  /** PEM, self-signed. */
  certificate: string;
  /** Its private key (PKCS#8), which only who has the key file can open: the store alone makes nobody a member. */
  key: SealedKey;
  createdAt: string;
}
/** AES-256-GCM under scrypt(key file, salt); all base64. */
export interface SealedKey { salt: string; iv: string; tag: string; data: string }

/** Bucket `tokens`, key = the token's id, its part that is no secret. Rows go some time after they have expired. */
export interface TokenRecord {
  id: string;
  /** SHA-256 of the secret, hex. */
  secretHash: string;
  createdAt: string;
  expiresAtMs: number;
  /** The operator's labels of the node that comes with it. */
  labels: Record<string, string>;
  /** By whom, at most once ever; the same node with the same key is answered again, because it may have crashed before it had the answer on its disk. */
  used?: {nodeId: string; /** SHA-256 of its SubjectPublicKeyInfo, hex */ publicKey: string; at: string};
}

/** Bucket `identities`, key = node id. Written by an enrolment, a renewal and the node's removal, always on the etag: an id has one owner. */
export interface NodeIdentity {
  nodeId: string;
  /** Those that have not expired, the newest last. */
  certificates: IssuedCertificate[];
  /** Of the token; the node begins with them. */
  labels: Record<string, string>;
  enrolledAt: string;
}
export interface IssuedCertificate {
  /** Hex, upper case, as TLS libraries show it. */
  serial: string;
  /** As in TokenRecord. */
  publicKey: string;
  notAfterMs: number;
  /** PEM. */
  certificate: string;
}

/** Bucket `revocations`, key = serial. Rows go when the certificate would have expired anyway. */
export interface Revocation { serial: string; nodeId: string; reason: string; at: string; notAfterMs: number }

/** POST /v1/enroll, the one call for which the listener wants no certificate. Repeatable by the same node with the same key. */
export interface EnrollRequest {
  /** As `cetus node token` printed it (join-token.ts). */
  token: string;
  nodeId: string;
  name: string;
  /** PKCS#10, PEM: CN = nodeId, key on P-256, addresses of the node as names; anything else in it is refused. */
  request: string;
}
/** POST /v1/renew, with the certificate that the node has. */
export interface RenewRequest { nodeId: string; request: string }
export interface CertificateAnswer {
  /** PEM, the node's own. */
  certificate: string;
  /** PEM, the authority's. */
  authority: string;
}

/** The serials that nobody is to trust any more. `version` names the list: the same serials, the same version, at every endpoint. */
export interface RevokedSerials { version: string; serials: string[] }
/** Of an empty list, which is never sent. */
export const NOTHING_REVOKED = '';
