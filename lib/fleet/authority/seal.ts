/**
 * The authority's private key at rest: AES-256-GCM under a key that scrypt makes of the key file, so that the store, its replicas and its backups hold
 * nothing with which anybody could make himself a node. The file is every endpoint's, mode 0600, and nowhere else.
 */
import {createCipheriv, createDecipheriv, randomBytes, scryptSync} from 'node:crypto';
import fs from 'node:fs';
import {CetusError} from '../../base/errors';
import type {SealedKey} from '../../schema/authority';

const CIPHER = 'aes-256-gcm';
const KEY_BYTES = 32;
/** 32 MiB and a tenth of a second, once at an endpoint's start: the file may hold a phrase that a person chose. */
const SCRYPT = {N: 2 ** 15, r: 8, p: 1, maxmem: 64 * 1024 * 1024};
const MIN_SECRET_BYTES = 16;

export function seal(secret: string, plain: string): SealedKey {
  const [salt, iv] = [randomBytes(16), randomBytes(12)];
  const cipher = createCipheriv(CIPHER, scryptSync(secret, salt, KEY_BYTES, SCRYPT), iv);
  const data = Buffer.concat([cipher.update(plain, 'utf8'), cipher.final()]);
  return {salt: salt.toString('base64'), iv: iv.toString('base64'), tag: cipher.getAuthTag().toString('base64'), data: data.toString('base64')};
}

/** `forbidden` where the secret is another one, or what is stored was changed. */
export function unseal(secret: string, sealed: SealedKey): string {
  const of = (text: string): Buffer => Buffer.from(text, 'base64');
  try {
    const cipher = createDecipheriv(CIPHER, scryptSync(secret, of(sealed.salt), KEY_BYTES, SCRYPT), of(sealed.iv), {authTagLength: 16});
    cipher.setAuthTag(of(sealed.tag));
    return Buffer.concat([cipher.update(of(sealed.data)), cipher.final()]).toString('utf8');
  } catch (err) {
    throw new CetusError('forbidden', 'the key file does not open the authority\'s key', {cause: err});
  }
}

/** undefined where there is none; refused where others could read it, or it holds too little. */
export function readKeyFile(file: string): string | undefined {
  let text: string;
  try {
    if ((fs.statSync(file).mode & 0o077) !== 0) throw new CetusError('forbidden', `key file ${file} can be read by others: chmod 600 it`);
    text = fs.readFileSync(file, 'utf8').trim();
  } catch (err) {
    if (err instanceof CetusError) throw err;
    if ((err as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw new CetusError('invalid', `key file ${file} cannot be read: ${(err as Error).message}`, {cause: err});
  }
  if (Buffer.byteLength(text) < MIN_SECRET_BYTES) throw new CetusError('invalid', `key file ${file} holds less than ${MIN_SECRET_BYTES} bytes`);
  return text;
}

/** Never over one that exists: of endpoints that share a directory and start in the same moment one makes it, whole, and all have its secret. On disk before anything is sealed with it. */
export function makeKeyFile(file: string): string {
  const unfinished = `${file}.${randomBytes(4).toString('hex')}`;
  const fd = fs.openSync(unfinished, 'wx', 0o600);
  try {
    fs.writeSync(fd, `${randomBytes(KEY_BYTES).toString('hex')}\n`);
    fs.fsyncSync(fd);
    fs.linkSync(unfinished, file);
  } catch (err) {
    if ((err as NodeJS.ErrnoException).code !== 'EEXIST') throw err;
  } finally {
    fs.closeSync(fd);
    fs.rmSync(unfinished);
  }
  return readKeyFile(file)!;
}
