/** Certificates of nodes and endpoints from one authority, in the shape in which the control plane gives them out: CN the id, OU the role, SAN the address. */
import {execFileSync} from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';

export interface Identity { ca: string; cert: string; key: string }

export class TestAuthority {
  constructor(private readonly directory: string, private readonly name = 'ca') {
    fs.mkdirSync(directory, {recursive: true, mode: 0o700});
    this.openssl('req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2', '-subj', `/CN=${name}`, '-keyout', `${name}.key`, '-out', `${name}.pem`);
  }

  identity(id: string, role: string, address = '127.0.0.1'): Identity {
    const file = `${this.name}-${id}`;
    fs.writeFileSync(path.join(this.directory, `${file}.ext`), `extendedKeyUsage=serverAuth,clientAuth\nsubjectAltName=IP:${address}\n`);
    this.openssl('req', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-subj', `/OU=${role}/CN=${id}`, '-keyout', `${file}.key`, '-out', `${file}.csr`);
    this.openssl('x509', '-req', '-in', `${file}.csr`, '-CA', `${this.name}.pem`, '-CAkey', `${this.name}.key`, '-CAcreateserial', '-days', '2', '-extfile', `${file}.ext`, '-out', `${file}.pem`);
    const read = (name: string): string => fs.readFileSync(path.join(this.directory, name), 'utf8');
    return {ca: read(`${this.name}.pem`), cert: read(`${file}.pem`), key: read(`${file}.key`)};
  }

  private openssl(...args: string[]): void {
    execFileSync('openssl', args, {cwd: this.directory, stdio: ['ignore', 'ignore', 'pipe']});
  }
}
