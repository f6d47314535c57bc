/** A self-signed certificate for 127.0.0.1, made of DER by hand: tests need no openssl and the repository holds no key. */
import {generateKeyPairSync, sign} from 'node:crypto';

const der = (tag: number, ...parts: Buffer[]): Buffer => {
  const body = Buffer.concat(parts);
  const length = body.length < 128 ? Buffer.from([body.length]) : body.length < 256 ? Buffer.from([0x81, body.length]) : Buffer.from([0x82, body.length >> 8, body.length & 255]);
  return Buffer.concat([Buffer.from([tag]), length, body]);
};
const seq = (...parts: Buffer[]): Buffer => der(0x30, ...parts);
const oid = (...bytes: number[]): Buffer => der(0x06, Buffer.from(bytes));
const time = (text: string): Buffer => der(0x17, Buffer.from(text));

const ECDSA_SHA256 = seq(oid(0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02));

export function selfSigned(): {cert: string; key: string} {
  const {privateKey, publicKey} = generateKeyPairSync('ec', {namedCurve: 'P-256'});
  const name = seq(der(0x31, seq(oid(0x55, 0x04, 0x03), der(0x0c, Buffer.from('cetus test')))));
  const extensions = der(0xa3, seq(
    seq(oid(0x55, 0x1d, 0x13), der(0x01, Buffer.from([255])), der(0x04, seq(der(0x01, Buffer.from([255]))))),
    seq(oid(0x55, 0x1d, 0x11), der(0x04, seq(der(0x87, Buffer.from([127, 0, 0, 1]))))),
  ));
  const body = seq(
    der(0xa0, der(0x02, Buffer.from([2]))), der(0x02, Buffer.from([1])), ECDSA_SHA256, name,
    seq(time('200101000000Z'), time('491231235959Z')), name, publicKey.export({type: 'spki', format: 'der'}), extensions,
  );
  const signature = sign('sha256', body, privateKey);
  const certificate = seq(body, ECDSA_SHA256, der(0x03, Buffer.concat([Buffer.from([0]), signature])));
  const cert = `-----BEGIN CERTIFICATE-----\n${certificate.toString('base64').match(/.{1,64}/g)!.join('\n')}\n-----END CERTIFICATE-----\n`;
  return {cert, key: privateKey.export({type: 'pkcs8', format: 'pem'}) as string};
}
