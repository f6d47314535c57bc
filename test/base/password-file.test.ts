import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import {readPassword} from '../../lib/base/password-file';

let directory: string;
beforeEach(() => { directory = fs.mkdtempSync(path.join(os.tmpdir(), 'cetus-password-')); });
afterEach(() => fs.rmSync(directory, {recursive: true}));

function file(text: string, mode = 0o600): string {
  const name = path.join(directory, 'password');
  fs.writeFileSync(name, text);
  fs.chmodSync(name, mode);
  return name;
}

test('one line is the password, with or without its end', () => {
  expect(readPassword(file('öffne dich\n'))).toBe('öffne dich');
  expect(readPassword(file('secret', 0o400))).toBe('secret');
});

test.each([[0o640], [0o604], [0o610], [0o602]])('a file of mode %o is refused: others may read or change it', (mode) => {
  expect(() => readPassword(file('secret', mode))).toThrow(expect.objectContaining({kind: 'invalid', message: `${directory}/password holds a password and others may read it: chmod 600`}) as Error);
});

test.each(['', ' \n', 'one\ntwo\n', 'a\0b'])('%j is not one password', (text) => {
  expect(() => readPassword(file(text))).toThrow(`${directory}/password does not hold one password`);
});

test('what is missing is named', () => {
  expect(() => readPassword(path.join(directory, 'nothing'))).toThrow(/a password is wanted in .*\/nothing: ENOENT/);
});
