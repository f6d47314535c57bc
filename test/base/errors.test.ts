/** Two texts of one error: the message, for logs and operators, and what clients are shown. */
import {asCetusError, CetusError, fromWire, INTERNAL} from '../../lib/base/errors';

const system = (code: string): Error => Object.assign(new Error(`${code}: something, open '/var/lib/cetus/agent/x'`), {code});

test('a thrown value that is not ours shows nothing of its text, and keeps it', () => {
  const error = asCetusError(system('ENOENT'), 'container.start');
  expect(error).toMatchObject({kind: 'internal', message: 'container.start: ENOENT: something, open \'/var/lib/cetus/agent/x\'', shown: INTERNAL});
  expect(asCetusError(new TypeError('Cannot read properties of undefined')).shown).toBe(INTERNAL);
  expect(asCetusError('text').shown).toBe(INTERNAL);
  expect(asCetusError(null).shown).toBe(INTERNAL);
});

test.each([['ENOSPC', 'no space left on device'], ['EROFS', 'read-only file system'], ['EMFILE', 'too many open files']])('of %s the kernel\'s words are shown, the path is not', (code, words) => {
  expect(asCetusError(system(code)).shown).toBe(words);
});

test('the message is shown where nothing else is said', () => {
  expect(new CetusError('conflict', 'container x is paused').shown).toBe('container x is paused');
  expect(new CetusError('conflict', 'container x is paused').toWire()).toEqual({kind: 'conflict', message: 'container x is paused'});
});

test('both texts cross to another process', () => {
  const error = new CetusError('unavailable', 'connect ENOENT /run/agent.sock', {shown: 'node n1 cannot be reached', info: {reach: 'none'}});
  const there = fromWire(JSON.parse(JSON.stringify(error.toWire())));
  expect(there).toMatchObject({kind: 'unavailable', message: error.message, shown: 'node n1 cannot be reached', info: {reach: 'none'}});
  expect(fromWire('<html>')).toMatchObject({kind: 'internal', shown: INTERNAL});
});
