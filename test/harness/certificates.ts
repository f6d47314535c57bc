/** A certificate authority, a server's and a client's certificate, made by openssl as the Engine's documentation has people make them. */
import {execFileSync} from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';

export interface Certificates {
  ca: string; serverCert: string; serverKey: string;
  /** A directory as DOCKER_CERT_PATH wants it: ca.pem, cert.pem, key.pem. */
  client: string;
  /** The same, with a client certificate that another authority signed. */
  stranger: string;
}

const openssl = (directory: string, ...args: string[]): void => void execFileSync('openssl', args, {cwd: directory, stdio: ['ignore', 'ignore', 'pipe']});

export function makeCertificates(directory: string): Certificates {
  fs.mkdirSync(directory, {recursive: true, mode: 0o700});
  const authority = (name: string): void =>
    openssl(directory, 'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2', '-subj', `/CN=${name}`, '-keyout', `${name}.key`, '-out', `${name}.pem`);
  const signed = (name: string, by: string, usage: string, names = ''): void => {
    fs.writeFileSync(path.join(directory, `${name}.ext`), `extendedKeyUsage=${usage}\n${names}`);
    openssl(directory, 'req', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-subj', `/CN=${name}`, '-keyout', `${name}.key`, '-out', `${name}.csr`);
    openssl(directory, 'x509', '-req', '-in', `${name}.csr`, '-CA', `${by}.pem`, '-CAkey', `${by}.key`, '-CAcreateserial', '-days', '2', '-extfile', `${name}.ext`, '-out', `${name}.pem`);
  };
  authority('ca');
  authority('other-ca');
  signed('server', 'ca', 'serverAuth', 'subjectAltName=IP:127.0.0.1,DNS:localhost\n');
  signed('client', 'ca', 'clientAuth');
  signed('stranger', 'other-ca', 'clientAuth');
  const wallet = (name: string): string => {
    const at = path.join(directory, `${name}-wallet`);
    fs.mkdirSync(at);
    for (const [from, to] of [['ca.pem', 'ca.pem'], [`${name}.pem`, 'cert.pem'], [`${name}.key`, 'key.pem']]) fs.copyFileSync(path.join(directory, from), path.join(at, to));
    return at;
  };
  return {
    ca: path.join(directory, 'ca.pem'), serverCert: path.join(directory, 'server.pem'), serverKey: path.join(directory, 'server.key'),
    client: wallet('client'), stranger: wallet('stranger'),
  };
}
