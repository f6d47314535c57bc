/**
 * Who is at the other end of a connection between processes of ours, by its certificate: CN = its id, OU = its role (lib/schema/authority.ts). A unix
 * socket has no certificate; its directory is the wall. Chain and dates have been checked by the handshake; here is what the handshake cannot know.
 */
import type {Duplex} from 'node:stream';
import {type PeerCertificate, TLSSocket} from 'node:tls';
import {CetusError} from './errors';

export type PeerRole = 'endpoint' | 'node';

export interface Peer {
  role: PeerRole;
  /** Node id or endpoint id. */
  id: string;
  /** Hex, upper case. */
  serial: string;
  notAfterMs: number;
}

const known = new WeakMap<TLSSocket, Peer>();

/** undefined over a unix socket; throws `unauthorized` for a certificate that is missing, not of our authority, or not of our shape. */
export function peerOf(socket: Duplex): Peer | undefined {
  if (!(socket instanceof TLSSocket)) return undefined;
  const seen = known.get(socket);
  if (seen) return seen;
  const certificate = socket.getPeerCertificate();
  if (!certificate || Object.keys(certificate).length === 0) throw new CetusError('unauthorized', 'a certificate of this datacenter\'s authority is wanted');
  if (!socket.authorized) throw new CetusError('unauthorized', refusal(socket.authorizationError));
  const peer = readPeer(certificate);
  if (!peer) throw new CetusError('unauthorized', `the certificate ${JSON.stringify(certificate.subject)} says neither node nor endpoint`);
  known.set(socket, peer);
  return peer;
}

export function readPeer(certificate: PeerCertificate): Peer | undefined {
  const {CN: id, OU: role} = (certificate.subject ?? {}) as {CN?: unknown; OU?: unknown};
  if (typeof id !== 'string' || id === '' || (role !== 'endpoint' && role !== 'node')) return undefined;
  return {role, id, serial: certificate.serialNumber.toUpperCase(), notAfterMs: Date.parse(certificate.valid_to)};
}

/** For TLS clients, in place of the comparison of host names: several endpoints may stand behind one address, and a node behind any. */
export function mustBe(role: PeerRole, id?: string): (host: string, certificate: PeerCertificate) => Error | undefined {
  return (host, certificate) => {
    const peer = readPeer(certificate);
    if (peer?.role === role && (id === undefined || peer.id === id)) return undefined;
    const wanted = id !== undefined ? `${role} ${id}` : role === 'endpoint' ? 'an endpoint' : 'a node';
    return new Error(`${host} is not ${wanted}: its certificate is of ${peer ? `${peer.role} ${peer.id}` : JSON.stringify(certificate.subject ?? {})}`);
  };
}

/** OpenSSL's codes for what goes wrong between machines of one datacenter, as what a person can do about it. */
export function refusal(code: unknown): string {
  const text = code instanceof Error ? (code as NodeJS.ErrnoException).code ?? code.message : String(code);
  switch (text) {
    case 'CERT_HAS_EXPIRED':
      return 'the certificate has expired, or a clock is wrong';
    case 'CERT_NOT_YET_VALID':
      return 'the certificate is not valid yet: the clock of one of the two machines is wrong';
    case 'SELF_SIGNED_CERT_IN_CHAIN':
    case 'DEPTH_ZERO_SELF_SIGNED_CERT':
    case 'UNABLE_TO_VERIFY_LEAF_SIGNATURE':
    case 'UNABLE_TO_GET_ISSUER_CERT':
    case 'UNABLE_TO_GET_ISSUER_CERT_LOCALLY':
    case 'CERT_SIGNATURE_FAILURE':
      return 'the certificate is not of this datacenter\'s authority';
    default:
      return `the certificate is not accepted: ${text}`;
  }
}
