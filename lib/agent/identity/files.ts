/**
 * What a node is known by, on its disk, mode 0600 in a directory of mode 0700:
 *
 *     pending-key.pem   a key for which a certificate has been, or is about to be, asked for
 *     node.pem          the key and the certificate in use, one file, so that they change together
 *     authority.pem     whom the node trusts: the authority that it verified when it enrolled
 *     revoked.json      who is trusted no more, as an endpoint last said
 *
 * A key is on disk before anybody is asked for its certificate, and goes only after that is: whoever dies in between asks again with the same key.
 */
import {createPrivateKey, X509Certificate} from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import type {TlsMaterial} from '../../base/credentials';
import {CetusError} from '../../base/errors';
import {makeKey} from '../../base/x509';
import type {CertificateAnswer, RevokedSerials} from '../../schema/authority';

const KEY = /-----BEGIN PRIVATE KEY-----[^-]+-----END PRIVATE KEY-----\n?/;
const CERTIFICATE = /-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----\n?/;

export class IdentityFiles {
  constructor(readonly directory: string) {
    fs.mkdirSync(directory, {recursive: true, mode: 0o700});
    fs.chmodSync(directory, 0o700);
  }

  /** undefined: this machine has not enrolled. */
  load(): TlsMaterial | undefined {
    const [own, ca] = [this.read('node.pem'), this.read('authority.pem')];
    if (own === undefined || ca === undefined) return undefined;
    const [key, cert] = [KEY.exec(own)?.[0], CERTIFICATE.exec(own)?.[0]];
    if (!key || !cert) throw new CetusError('invalid', `${path.join(this.directory, 'node.pem')} holds no key and certificate`);
    return {ca, cert, key};
  }

  /** Of a certificate that is under way; a new one where none is. */
  pendingKey(): string {
    const pending = this.read('pending-key.pem');
    if (pending !== undefined && isKey(pending)) return pending;
    const key = makeKey();
    this.write('pending-key.pem', key);
    return key;
  }

  forgetPending(): void {
    fs.rmSync(this.at('pending-key.pem'), {force: true});
  }

  /** Refuses what is not for `key` and `nodeId`, and signed by the authority that is trusted already. */
  adopt(key: string, nodeId: string, authority: string, answer: CertificateAnswer): TlsMaterial {
    const certificate = new X509Certificate(answer.certificate);
    if (!certificate.checkPrivateKey(createPrivateKey(key)) || !certificate.verify(new X509Certificate(authority).publicKey) || !certificate.subject.split('\n').includes(`CN=${nodeId}`))
      throw new CetusError('internal', 'the control plane answered with a certificate that is not this node\'s');
    this.write('authority.pem', authority);
    this.write('node.pem', key + answer.certificate);
    this.forgetPending();
    return {ca: authority, cert: answer.certificate, key};
  }

  loadRevoked(): RevokedSerials | undefined {
    try {
      const {version, serials} = JSON.parse(this.read('revoked.json') ?? 'null') as RevokedSerials;
      return typeof version === 'string' && Array.isArray(serials) ? {version, serials} : undefined;
    } catch {
      return undefined; // asked for again with the next heartbeat
    }
  }

  saveRevoked(list: RevokedSerials): void {
    this.write('revoked.json', JSON.stringify(list));
  }

  private at(name: string): string {
    return path.join(this.directory, name);
  }

  private read(name: string): string | undefined {
    try {
      return fs.readFileSync(this.at(name), 'utf8');
    } catch (err) {
      if ((err as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
      throw err;
    }
  }

  /** Whole or not at all, also after a power cut: what is lost here another machine may already count on. */
  private write(name: string, text: string): void {
    const temporary = this.at(`${name}.new`);
    const fd = fs.openSync(temporary, 'w', 0o600);
    try {
      fs.writeSync(fd, text);
      fs.fsyncSync(fd);
    } finally {
      fs.closeSync(fd);
    }
    fs.renameSync(temporary, this.at(name));
    const directory = fs.openSync(this.directory, 'r');
    try {
      fs.fsyncSync(directory);
    } finally {
      fs.closeSync(directory);
    }
  }
}

function isKey(text: string): boolean {
  try {
    return createPrivateKey(text).asymmetricKeyType === 'ec';
  } catch {
    return false;
  }
}
