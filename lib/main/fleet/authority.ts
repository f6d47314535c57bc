/**
 * The certificates by which test hosts and endpoints know each other: an authority of this fleet's own in DIR/authority, made with openssl. Subjects as
 * everywhere in Cetus: CN a node's or an endpoint's id, OU its role, the address as the alternative name. Made again where an address has changed.
 */
import fs from 'node:fs';
import path from 'node:path';
import {tool} from '../../agent/network/tool';
import type {MutualTlsFiles} from '../config';

/** A fleet of test hosts is for days, not for years; its directory may be. */
const DAYS = '3650';
const KEY = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];

export class Authority {
  private constructor(private readonly dir: string) {}

  static async open(dir: string): Promise<Authority> {
    const authority = new Authority(path.join(dir, 'authority'));
    fs.mkdirSync(authority.dir, {recursive: true, mode: 0o700});
    if (!fs.existsSync(authority.file('ca.pem'))) {
      await tool('openssl', ['req', '-x509', ...KEY, '-days', DAYS, '-subj', '/CN=Cetus test hosts', '-keyout', authority.file('ca.key'), '-out', authority.file('ca.pem.new')]);
      fs.renameSync(authority.file('ca.pem.new'), authority.file('ca.pem'));
    }
    return authority;
  }

  async certificate(role: 'node' | 'endpoint', id: string, name: string, address: string): Promise<MutualTlsFiles> {
    const files = {ca: this.file('ca.pem'), cert: this.file(`${name}.pem`), key: this.file(`${name}.key`)};
    const wanted = `extendedKeyUsage=serverAuth,clientAuth\nsubjectAltName=IP:${address}\n`;
    const extensions = this.file(`${name}.ext`);
    if (fs.existsSync(files.cert) && fs.readFileSync(extensions, 'utf8') === wanted) return files;
    fs.writeFileSync(extensions, wanted);
    await tool('openssl', ['req', ...KEY, '-subj', `/OU=${role}/CN=${id}`, '-keyout', files.key, '-out', this.file(`${name}.csr`)]);
    await tool('openssl', ['x509', '-req', '-in', this.file(`${name}.csr`), '-CA', files.ca, '-CAkey', this.file('ca.key'), '-CAcreateserial', '-days', DAYS, '-extfile', extensions, '-out', files.cert]);
    return files;
  }

  private file(name: string): string { return path.join(this.dir, name); }
}
