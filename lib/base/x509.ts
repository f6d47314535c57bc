/**
 * Certificates and requests for certificates, made and read: the only place that knows the X.509 library, which is loaded with the first call (16 MB and
 * 0.1 s or more that one machine without a fleet does not pay). Keys are node:crypto's, ECDSA on P-256 throughout.
 *
 * What a request asks for is read strictly and nothing of it is copied: `readRequest` refuses whatever it does not know, and the certificate is written from
 * what it returns. Errors are `invalid`, in words for the person who joins a node.
 */
import {createHash, createPrivateKey, createPublicKey, generateKeyPairSync, type KeyObject, randomBytes, webcrypto, X509Certificate} from 'node:crypto';
import {isIP} from 'node:net';
import {CetusError} from './errors';

type Library = typeof import('@peculiar/x509');

const EC = {name: 'ECDSA', namedCurve: 'P-256'} as const;
const SIGNING = {name: 'ECDSA', hash: 'SHA-256'} as const;
const SERIAL_BYTES = 16;
/** A request of ours has 400 to 600 bytes. */
export const MAX_REQUEST_BYTES = 4096;
const MAX_ADDRESSES = 8;
const PEM_REQUEST = /^-----BEGIN (?:NEW )?CERTIFICATE REQUEST-----\r?\n[A-Za-z0-9+/=\r\n]+-----END (?:NEW )?CERTIFICATE REQUEST-----\s*$/;
const OID = {subjectAltName: '2.5.29.17', extensionRequest: '1.2.840.113549.1.9.14', serverAuth: '1.3.6.1.5.5.7.3.1', clientAuth: '1.3.6.1.5.5.7.3.2'};
/** Subject names are a common name of at most 64 characters (X.520), and ids end in file names. */
export const IDENTITY_NAME = /^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$/;

let loaded: Promise<Library> | undefined;
function library(): Promise<Library> {
  loaded ??= (async () => {
    // What the library's own parts are put together with asks for it to be there first.
    await import('reflect-metadata');
    return import('@peculiar/x509');
  })();
  return loaded;
}

/** PKCS#8, PEM. */
export function makeKey(): string {
  return generateKeyPairSync('ec', {namedCurve: 'P-256'}).privateKey.export({type: 'pkcs8', format: 'pem'}) as string;
}

/** SHA-256 of a SubjectPublicKeyInfo: of a key, or of a certificate's. */
export function publicKeyHash(of: KeyObject | string, encoding: 'hex' | 'base64url' = 'hex'): string {
  const key = typeof of === 'string' ? publicKeyOf(of) : of;
  return createHash('sha256').update(key.export({type: 'spki', format: 'der'})).digest(encoding);
}
const publicKeyOf = (pem: string): KeyObject => (pem.includes('BEGIN CERTIFICATE') ? new X509Certificate(pem).publicKey : createPublicKey(pem));

export interface Subject { role: 'endpoint' | 'node'; id: string }
export interface Validity { notBeforeMs: number; notAfterMs: number }
export interface Issued { certificate: string; serial: string; notAfterMs: number }

/** A self-signed authority, which may sign what has no authority of its own. */
export async function makeAuthority(name: string, keyPem: string, validity: Validity): Promise<string> {
  const x509 = await library();
  const keys = await cryptoKeys(keyPem);
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    serialNumber: newSerial(), name: [{CN: [name]}], notBefore: new Date(validity.notBeforeMs), notAfter: new Date(validity.notAfterMs), signingAlgorithm: SIGNING, keys: keys as never,
    extensions: [
      new x509.BasicConstraintsExtension(true, 0, true), new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey as never, false, webcrypto as never),
    ],
  }, webcrypto as never);
  return pem(certificate);
}

export async function issue(authority: {certificate: string; key: string}, subject: Subject, publicKey: KeyObject, addresses: readonly string[], validity: Validity): Promise<Issued> {
  const x509 = await library();
  const signer = await cryptoKeys(authority.key);
  const issuer = new x509.X509Certificate(authority.certificate);
  const serial = newSerial();
  const subjectKey = await importPublic(publicKey);
  const certificate = await x509.X509CertificateGenerator.create({
    serialNumber: serial, issuer: issuer.subjectName, subject: [{OU: [subject.role]}, {CN: [subject.id]}],
    // Seconds are what a certificate has.
    notBefore: new Date(Math.floor(validity.notBeforeMs / 1000) * 1000), notAfter: new Date(Math.floor(validity.notAfterMs / 1000) * 1000),
    publicKey: subjectKey as never, signingKey: signer.privateKey as never, signingAlgorithm: SIGNING,
    extensions: [
      new x509.BasicConstraintsExtension(false, undefined, true), new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
      // Everybody here is a server and a client.
      new x509.ExtendedKeyUsageExtension([OID.serverAuth, OID.clientAuth]),
      ...(addresses.length ? [new x509.SubjectAlternativeNameExtension(addresses.map((value) => ({type: 'ip' as const, value})))] : []),
      await x509.AuthorityKeyIdentifierExtension.create(issuer, false, webcrypto as never),
    ],
  }, webcrypto as never);
  return {certificate: pem(certificate), serial, notAfterMs: Math.floor(validity.notAfterMs / 1000) * 1000};
}

/** A request that `readRequest` takes. */
export async function makeRequest(keyPem: string, id: string, addresses: readonly string[]): Promise<string> {
  const x509 = await library();
  const request = await x509.Pkcs10CertificateRequestGenerator.create({
    name: [{CN: [id]}], keys: (await cryptoKeys(keyPem)) as never, signingAlgorithm: SIGNING,
    extensions: addresses.length ? [new x509.SubjectAlternativeNameExtension(addresses.map((value) => ({type: 'ip' as const, value})))] : [],
  }, webcrypto as never);
  return pem(request);
}

/** The bearer of `id`, its key (which it has shown to have) and its addresses. */
export async function readRequest(text: string, id: string): Promise<{publicKey: KeyObject; addresses: string[]}> {
  const refuse = (why: string, cause?: unknown): CetusError => new CetusError('invalid', `the certificate request ${why}`, {cause});
  if (Buffer.byteLength(text) > MAX_REQUEST_BYTES) throw refuse(`is longer than ${MAX_REQUEST_BYTES} bytes`);
  if (!PEM_REQUEST.test(text) || !isOneSequence(Buffer.from(text.replace(/-----[^-]+-----/g, ''), 'base64'))) throw refuse('is not one PKCS#10 request as PEM');
  const x509 = await library();
  let request: InstanceType<Library['Pkcs10CertificateRequest']>;
  let publicKey: KeyObject;
  let subject: Record<string, string[]>[];
  let addresses: string[] = [];
  try {
    request = new x509.Pkcs10CertificateRequest(text);
    publicKey = createPublicKey({key: Buffer.from(request.publicKey.rawData), format: 'der', type: 'spki'});
    subject = request.subjectName.toJSON();
  } catch (err) {
    throw refuse('cannot be read', err);
  }
  if (publicKey.asymmetricKeyType !== 'ec' || publicKey.asymmetricKeyDetails?.namedCurve !== 'prime256v1') throw refuse('has a key of another kind than ECDSA on P-256');
  if (subject.length !== 1 || Object.keys(subject[0]).join() !== 'CN' || subject[0].CN.length !== 1 || subject[0].CN[0] !== id)
    throw refuse(`is for ${JSON.stringify(subject).slice(0, 200)}, not for CN=${id} alone`);
  const {name, hash} = request.signatureAlgorithm as {name?: string; hash?: {name?: string}};
  if (name !== 'ECDSA' || hash?.name !== 'SHA-256') throw refuse('is signed otherwise than by ECDSA with SHA-256');
  try {
    if (request.attributes.length > 1 || request.attributes.some((a) => a.type !== OID.extensionRequest)) throw refuse('has attributes that nobody asked for');
    if (request.extensions.length > 1) throw refuse('asks for more than names');
    for (const extension of request.extensions) {
      if (extension.type !== OID.subjectAltName) throw refuse(`asks for the extension ${extension.type}`);
      const names = new x509.SubjectAlternativeNameExtension(extension.rawData).names.items;
      if (names.length > MAX_ADDRESSES || names.some((n) => n.type !== 'ip' || isIP(n.value) === 0)) throw refuse(`asks for names that are not at most ${MAX_ADDRESSES} addresses`);
      addresses = names.map((n) => n.value);
    }
    if (!await request.verify(webcrypto as never)) throw refuse('is not signed with its own key');
  } catch (err) {
    if (err instanceof CetusError) throw err;
    throw refuse('cannot be read', err);
  }
  return {publicKey, addresses};
}

const pem = (of: {toString(format: 'pem'): string}): string => `${of.toString('pem').trim()}\n`;

/** DER, from the first byte to the last: nothing may follow that the parser would not look at. */
function isOneSequence(der: Buffer): boolean {
  const long = der[1] > 0x80 ? der[1] & 0x7f : 0;
  if (der.length < 2 + long || der[0] !== 0x30 || long > 2) return false;
  return der.length === 2 + long + (long ? der.readUIntBE(2, long) : der[1]);
}

/** Positive, and of one length however it is written. */
function newSerial(): string {
  const bytes = randomBytes(SERIAL_BYTES);
  bytes[0] = (bytes[0] & 0x3f) | 0x40;
  return bytes.toString('hex').toUpperCase();
}

async function cryptoKeys(keyPem: string): Promise<{privateKey: webcrypto.CryptoKey; publicKey: webcrypto.CryptoKey}> {
  const key = createPrivateKey(keyPem);
  const privateKey = await webcrypto.subtle.importKey('pkcs8', key.export({type: 'pkcs8', format: 'der'}), EC, false, ['sign']);
  return {privateKey, publicKey: await importPublic(createPublicKey(key))};
}

const importPublic = (key: KeyObject): Promise<webcrypto.CryptoKey> => webcrypto.subtle.importKey('spki', key.export({type: 'spki', format: 'der'}), EC, true, ['verify']);
