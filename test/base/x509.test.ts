/** Requests for certificates, the good and the hostile, and what is made of them. */
import {execFileSync} from 'node:child_process';
import {createPublicKey, type KeyObject, X509Certificate} from 'node:crypto';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import fc from 'fast-check';
import {issue, makeAuthority, makeKey, makeRequest, MAX_REQUEST_BYTES, publicKeyHash, readRequest} from '../../lib/base/x509';

const HOUR_MS = 3_600_000;
const validity = {notBeforeMs: Date.now() - HOUR_MS, notAfterMs: Date.now() + 24 * HOUR_MS};
const NODE = 'node-1';
let directory: string;

beforeAll(() => { directory = fs.mkdtempSync(path.join(os.tmpdir(), 'cetus-x509-')); });
afterAll(() => fs.rmSync(directory, {recursive: true, force: true}));

/** A request as openssl makes it, which can ask for anything. */
function asked(options: {subject?: string; key?: string[]; extensions?: string[]; attributes?: string[]; digest?: string}): string {
  const config = path.join(directory, 'req.cnf');
  fs.writeFileSync(config, ['[req]', 'distinguished_name=dn', 'string_mask=utf8only', 'prompt=no', ...(options.attributes ? ['attributes=more'] : []), '[dn]', `CN=${NODE}`, '[more]', ...(options.attributes ?? []), '[ext]', ...(options.extensions ?? []), ''].join('\n'));
  return execFileSync('openssl', ['req', '-new', '-newkey', ...(options.key ?? ['ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1']), '-nodes', '-keyout', path.join(directory, 'key.pem'),
    `-${options.digest ?? 'sha256'}`, ...(options.subject ? ['-subj', options.subject] : []), '-config', config, ...(options.extensions ? ['-reqexts', 'ext'] : [])], {encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore']});
}

test('what a node asks for is what it gets, and openssl agrees that the authority signed it', async () => {
  const authority = {key: makeKey(), certificate: ''};
  authority.certificate = await makeAuthority('Cetus test', authority.key, validity);
  const key = makeKey();
  const read = await readRequest(await makeRequest(key, NODE, ['10.1.2.3', 'fd00::7']), NODE);
  expect(publicKeyHash(read.publicKey)).toBe(publicKeyHash(createPublicKey(key)));
  expect(read.addresses).toEqual(['10.1.2.3', expect.stringMatching(/^fd00:/)]);
  const {certificate, serial, notAfterMs} = await issue(authority, {role: 'node', id: NODE}, read.publicKey, read.addresses, validity);
  const x = new X509Certificate(certificate);
  expect(x.subject).toBe(`OU=node\nCN=${NODE}`);
  expect(x.serialNumber).toBe(serial);
  expect(Date.parse(x.validTo)).toBe(notAfterMs);
  expect(x.subjectAltName).toContain('IP Address:10.1.2.3');
  expect(x.ca).toBe(false);
  expect(x.keyUsage).toEqual(['1.3.6.1.5.5.7.3.1', '1.3.6.1.5.5.7.3.2']);
  expect(x.verify(new X509Certificate(authority.certificate).publicKey)).toBe(true);
  const [ca, leaf] = ['ca.pem', 'leaf.pem'].map((name) => path.join(directory, name));
  fs.writeFileSync(ca, authority.certificate);
  fs.writeFileSync(leaf, certificate);
  for (const purpose of ['sslclient', 'sslserver']) expect(execFileSync('openssl', ['verify', '-x509_strict', '-purpose', purpose, '-CAfile', ca, leaf], {encoding: 'utf8'})).toContain('OK');
});

test('what openssl asks for plainly is taken', async () => {
  await expect(readRequest(asked({}), NODE)).resolves.toMatchObject({addresses: []});
  await expect(readRequest(asked({extensions: ['subjectAltName=IP:10.0.0.9']}), NODE)).resolves.toMatchObject({addresses: ['10.0.0.9']});
});

test.each<[string, Parameters<typeof asked>[0], RegExp]>([
  ['another name', {subject: '/CN=node-2'}, /not for CN=node-1 alone/],
  ['two names', {subject: `/CN=${NODE}/CN=node-2`}, /not for CN=node-1 alone/],
  ['two names in one part', {subject: `/CN=${NODE}+CN=node-2`}, /not for CN=node-1 alone/],
  ['the role of an endpoint', {subject: `/OU=endpoint/CN=${NODE}`}, /not for CN=node-1 alone/],
  ['a name with more behind a zero', {subject: `/CN=${NODE}x`}, /not for CN=node-1 alone/],
  ['an authority', {extensions: ['basicConstraints=critical,CA:TRUE']}, /the extension 2\.5\.29\.19/],
  ['a usage', {extensions: ['keyUsage=keyCertSign']}, /the extension 2\.5\.29\.15/],
  ['an address and an authority', {extensions: ['subjectAltName=IP:10.0.0.9', 'basicConstraints=CA:TRUE']}, /more than names/],
  ['a host name', {extensions: ['subjectAltName=DNS:endpoint.example']}, /not at most 8 addresses/],
  ['a URI beside an address', {extensions: ['subjectAltName=IP:10.0.0.9,URI:spiffe://x']}, /not at most 8 addresses/],
  ['nine addresses', {extensions: [`subjectAltName=${Array.from({length: 9}, (_, i) => `IP:10.0.0.${i}`).join(',')}`]}, /not at most 8 addresses/],
  ['a challenge password', {attributes: ['challengePassword=secret']}, /attributes that nobody asked for/],
  ['RSA', {key: ['rsa:2048']}, /ECDSA on P-256/],
  ['another curve', {key: ['ec', '-pkeyopt', 'ec_paramgen_curve:secp384r1']}, /ECDSA on P-256/],
  ['SHA-1', {digest: 'sha1'}, /SHA-256/],
])('a request for %s is refused', async (_what, options, message) => {
  await expect(readRequest(asked(options), NODE)).rejects.toMatchObject({kind: 'invalid', message: expect.stringMatching(message)});
});

const derOf = (text: string): Buffer => Buffer.from(text.replace(/-----[^-]+-----|\s/g, ''), 'base64');
const pemOf = (der: Buffer): string => `-----BEGIN CERTIFICATE REQUEST-----\n${der.toString('base64')}\n-----END CERTIFICATE REQUEST-----\n`;

test('a request signed with another key is refused', async () => {
  const [a, b] = [derOf(asked({})), derOf(asked({}))];
  // What is signed, and behind it algorithm and signature: of a request each.
  const algorithm = Buffer.from('300a06082a8648ce3d040302', 'hex');
  const content = Buffer.concat([a.subarray(a[1] < 128 ? 2 : 2 + (a[1] & 127), a.lastIndexOf(algorithm)), b.subarray(b.lastIndexOf(algorithm))]);
  const length = content.length < 256 ? Buffer.from([0x30, 0x81, content.length]) : Buffer.from([0x30, 0x82, content.length >> 8, content.length & 255]);
  await expect(readRequest(pemOf(Buffer.concat([length, content])), NODE)).rejects.toThrow('the certificate request is not signed with its own key');
});

test('bytes that were changed, cut off or added change nothing that is believed, and never end in anything but `invalid`', async () => {
  const key = makeKey();
  const good = derOf(await makeRequest(key, NODE, ['10.0.0.1']));
  await fc.assert(fc.asyncProperty(fc.nat(good.length - 1), fc.integer({min: 1, max: 255}), fc.constantFrom('flip', 'cut', 'add'), async (at, by, how) => {
    const bytes = Buffer.from(how === 'cut' ? good.subarray(0, at) : how === 'add' ? Buffer.concat([good, Buffer.alloc(by, at)]) : good);
    if (how === 'flip') bytes[at] ^= by;
    const outcome = await readRequest(pemOf(bytes), NODE).catch((err: {kind?: string}) => err.kind);
    if (outcome === 'invalid') return;
    // Of some bytes outside of what is signed the parser wants only what it needs.
    expect(how).toBe('flip');
    expect(outcome).toMatchObject({addresses: ['10.0.0.1']});
    expect(publicKeyHash((outcome as {publicKey: KeyObject}).publicKey)).toBe(publicKeyHash(createPublicKey(key)));
  }), {numRuns: 300});
}, 120_000);

test('huge ones, several ones and anything else are refused before they are parsed', async () => {
  const good = await makeRequest(makeKey(), NODE, []);
  for (const text of ['', 'x', good + good, `${good}-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n`, good.replace('REQUEST', 'RAQUEST'), `-----BEGIN CERTIFICATE REQUEST-----\n${'A'.repeat(MAX_REQUEST_BYTES)}\n-----END CERTIFICATE REQUEST-----\n`])
    await expect(readRequest(text, NODE)).rejects.toMatchObject({kind: 'invalid'});
});
