/**
 * A machine that nobody knows comes to its certificate. First it looks who is there: the token names the authority by the hash of its key, and nobody
 * whose certificate is not by that one is told the token. Then it shows the token and the request for the certificate. Either may be said again.
 */
import {X509Certificate} from 'node:crypto';
import https from 'node:https';
import net from 'node:net';
import tls, {type DetailedPeerCertificate} from 'node:tls';
import {readJson} from '../../base/body';
import {CetusError, fromWire} from '../../base/errors';
import {mustBe, refusal} from '../../base/peer';
import {makeRequest, publicKeyHash} from '../../base/x509';
import type {CertificateAnswer, EnrollRequest} from '../../schema/authority';
import {parseJoinToken} from '../../schema/join-token';

const DEADLINE_MS = 15_000;
const LEAVE_MS = 1_000;
const MAX_ANSWER_BYTES = 64 * 1024;

/** Who is at `url`, as far as it can be said without trusting it: the authority's certificate, and by which address of ours it is reached. */
export interface Met { authority: string; localAddress: string }

/** `forbidden`: somebody else's authority. */
export function meet(url: string, fingerprint: string): Promise<Met> {
  const {hostname, port} = parseUrl(url);
  const fault = (why: string, cause?: unknown): CetusError => new CetusError('unavailable', `no control plane at ${url}: ${why}`, {cause});
  return new Promise((resolve, reject) => {
    const host = hostname.replace(/^\[|\]$/g, '');
    const socket = tls.connect({host, port: Number(port || 443), servername: net.isIP(host) ? '' : host, minVersion: 'TLSv1.3', rejectUnauthorized: false});
    const timer = setTimeout(() => socket.destroy(new Error(`it did not answer within ${DEADLINE_MS / 1000} s`)), DEADLINE_MS);
    const done = (): void => {
      clearTimeout(timer);
      socket.on('error', () => undefined);
      // In order: one that went before its last word of the handshake was out would be waited for there.
      socket.end(() => socket.destroy()).setTimeout(LEAVE_MS, () => socket.destroy());
    };
    socket.once('error', (err) => { done(); reject(fault(err.message, err)); });
    socket.once('close', () => { clearTimeout(timer); reject(fault('it closed the connection')); });
    socket.once('secureConnect', () => {
      const localAddress = socket.localAddress ?? '';
      const found = chain(socket.getPeerCertificate(true)).map((raw) => new X509Certificate(raw)).find((c) => publicKeyHash(c.publicKey.export({type: 'spki', format: 'pem'}) as string, 'base64url') === fingerprint);
      done();
      if (found) resolve({authority: found.toString(), localAddress});
      else reject(new CetusError('forbidden', `the control plane at ${url} is not the one that the token is for: none of its certificates is of the authority ${fingerprint}. The token was not told to it`));
    });
  });
}

export async function enroll(url: string, met: Met, key: string, node: {token: string; nodeId: string; name: string; addresses: string[]}): Promise<CertificateAnswer> {
  const {validFrom} = new X509Certificate(met.authority);
  if (Date.parse(validFrom) > Date.now()) throw new CetusError('invalid', `the authority's certificate begins at ${validFrom}, and this machine's clock says ${new Date().toUTCString()}: set the clock`);
  const body: EnrollRequest = {token: node.token.trim(), nodeId: node.nodeId, name: node.name, request: await makeRequest(key, node.nodeId, node.addresses)};
  const answer = await post<CertificateAnswer>(`${url.replace(/\/$/, '')}/v1/enroll`, met.authority, body);
  if (publicKeyHash(answer.authority, 'base64url') !== parseJoinToken(node.token).fingerprint) throw new CetusError('forbidden', `the control plane at ${url} answered with another authority's certificate`);
  return answer;
}

export function parseUrl(url: string): URL {
  let parsed: URL | undefined;
  try {
    parsed = new URL(url);
  } catch {
    // said below
  }
  if (parsed?.protocol !== 'https:' || !parsed.hostname) throw new CetusError('invalid', `--join ${url}: expected https://HOST:PORT, where an endpoint listens for agents`);
  return parsed;
}

function chain(leaf: DetailedPeerCertificate | undefined): Buffer[] {
  const seen = new Set<DetailedPeerCertificate>();
  for (let at = leaf; at?.raw && !seen.has(at); at = at.issuerCertificate) seen.add(at);
  return [...seen].map((c) => c.raw);
}

function post<T>(url: string, authority: string, body: unknown): Promise<T> {
  return new Promise((resolve, reject) => {
    const text = JSON.stringify(body);
    const request = https.request(url, {
      method: 'POST', agent: false, ca: authority, minVersion: 'TLSv1.3', checkServerIdentity: mustBe('endpoint'), signal: AbortSignal.timeout(DEADLINE_MS),
      headers: {'content-type': 'application/json', 'content-length': Buffer.byteLength(text)},
    }, (answer) => {
      readJson(answer, MAX_ANSWER_BYTES).then((said) => {
        if (answer.statusCode === 200) resolve(said as T);
        else reject(fromWire(said));
      }, failed);
    });
    // Also in the middle of the answer: then the request tells nobody.
    const failed = (err: NodeJS.ErrnoException): void => {
      request.destroy();
      reject(new CetusError('unavailable', `the control plane did not answer ${url}: ${/CERT|SIGNATURE/.test(err.code ?? '') ? refusal(err.code) : err.message}`, {cause: err}));
    };
    request.on('error', failed);
    request.end(text);
  });
}
