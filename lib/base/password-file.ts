/** One password in a file of its owner's. */
import fs from 'node:fs';
import {CetusError} from './errors';

/** The file's one line. `invalid` where it cannot be read, holds none or several, or where others than its owner may read it. */
export function readPassword(file: string): string {
  let text: string;
  let mode: number;
  try {
    text = fs.readFileSync(file, 'utf8');
    mode = fs.statSync(file).mode;
  } catch (err) {
    throw new CetusError('invalid', `a password is wanted in ${file}: ${(err as Error).message}`, {cause: err});
  }
  if ((mode & 0o077) !== 0) throw new CetusError('invalid', `${file} holds a password and others may read it: chmod 600`);
  const word = text.trim();
  if (word === '' || /[\n\r\0]/.test(word)) throw new CetusError('invalid', `${file} does not hold one password`);
  return word;
}
