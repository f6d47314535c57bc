/**
 * Certificates for thousands of simulated nodes, of the shape in which Cetus' authority gives them out (CN the id, OU the role, SAN the address), put together as
 * DER by hand: lib/base/x509 takes 5 ms for one, this 0.2. All have the same key: what makes a node in the protocol is the name that the authority has signed.
 */
import {createPrivateKey, createPublicKey, generateKeyPairSync, type KeyObject, randomBytes, sign} from 'node:crypto';
import net from 'node:net';
import type {TlsMaterial} from '../../lib/base/credentials';
import type {PeerRole} from '../../lib/base/peer';

const der = (tag: number, ...parts: Buffer[]): Buffer => {
  const body = Buffer.concat(parts);
  const length = body.length < 128 ? [body.length] : body.length < 256 ? [0x81, body.length] : [0x82, body.length >> 8, body.length & 255];
  return Buffer.concat([Buffer.from([tag, ...length]), body]);
};
const seq = (...parts: Buffer[]): Buffer => der(0x30, ...parts);
const oid = (...bytes: number[]): Buffer => der(0x06, Buffer.from(bytes));
const name = (parts: [kind: number, text: string][]): Buffer => seq(...parts.map(([kind, text]) => der(0x31, seq(oid(0x55, 0x04, kind), der(0x0c, Buffer.from(text))))));
const critical = der(0x01, Buffer.from([255]));

const ECDSA_SHA256 = seq(oid(0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02));
const COMMON_NAME = 0x03;
const UNIT = 0x0b;
const CA = seq(oid(0x55, 0x1d, 0x13), critical, der(0x04, seq(critical)));
const SERVER_AND_CLIENT = seq(oid(0x55, 0x1d, 0x25), der(0x04, seq(oid(0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x01), oid(0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x02))));
const ISSUER = name([[COMMON_NAME, 'Cetus simulated fleet']]);
const VALID = seq(der(0x17, Buffer.from('200101000000Z')), der(0x17, Buffer.from('491231235959Z')));

/** What a process needs to give itself the certificates of its nodes; plain data, so that it goes from process to process. */
export interface Signer { ca: string; key: string }

export function makeSigner(): Signer {
  const {privateKey} = generateKeyPairSync('ec', {namedCurve: 'P-256'});
  return {ca: pem(certificate(privateKey, ISSUER, [CA])), key: privateKey.export({type: 'pkcs8', format: 'pem'}) as string};
}

export class Certificates {
  private readonly key: KeyObject;

  constructor(private readonly signer: Signer) {
    this.key = createPrivateKey(signer.key);
  }

  of(role: PeerRole, id: string, address: string): TlsMaterial {
    if (!net.isIPv4(address)) throw new Error(`${address} is no IPv4 address`);
    const alternative = seq(oid(0x55, 0x1d, 0x11), der(0x04, seq(der(0x87, Buffer.from(address.split('.').map(Number))))));
    return {ca: this.signer.ca, key: this.signer.key, cert: pem(certificate(this.key, name([[UNIT, role], [COMMON_NAME, id]]), [SERVER_AND_CLIENT, alternative]))};
  }
}

function certificate(key: KeyObject, subject: Buffer, extensions: Buffer[]): Buffer {
  const serial = randomBytes(12);
  serial[0] = 0x40 | (serial[0]! & 0x3f);
  const body = seq(
    der(0xa0, der(0x02, Buffer.from([2]))), der(0x02, serial), ECDSA_SHA256, ISSUER, VALID, subject,
    createPublicKey(key).export({type: 'spki', format: 'der'}), der(0xa3, seq(...extensions)),
  );
  return seq(body, ECDSA_SHA256, der(0x03, Buffer.concat([Buffer.from([0]), sign('sha256', body, key)])));
}

const pem = (bytes: Buffer): string => `-----BEGIN CERTIFICATE-----\n${bytes.toString('base64').match(/.{1,64}/g)!.join('\n')}\n-----END CERTIFICATE-----\n`;
