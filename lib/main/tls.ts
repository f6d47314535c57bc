/** Certificates, read and tried: what cannot serve is refused by the file's name before anything has been started. */
import fs from 'node:fs';
import {createSecureContext} from 'node:tls';
import {CetusError} from '../base/errors';
import type {MutualTlsFiles, TlsFiles} from './config';

export function readTls({cert, key, ca}: TlsFiles): {cert: Buffer; key: Buffer; ca?: Buffer} {
  const read = (file: string): Buffer => {
    try {
      return fs.readFileSync(file);
    } catch (err) {
      throw new CetusError('invalid', `TLS: cannot read ${file}: ${(err as Error).message}`, {cause: err});
    }
  };
  const material = {cert: read(cert), key: read(key), ...(ca ? {ca: read(ca)} : {})};
  try {
    createSecureContext(material);
  } catch (err) {
    throw new CetusError('invalid', `TLS: ${[cert, key, ca].filter(Boolean).join(', ')} cannot be used: ${(err as Error).message}`, {cause: err});
  }
  return material;
}

/** Of an agent or an endpoint towards each other, as PEM. */
export function readMutualTls(files: MutualTlsFiles): {ca: string; cert: string; key: string} {
  const {cert, key, ca} = readTls(files);
  return {ca: String(ca), cert: String(cert), key: String(key)};
}
