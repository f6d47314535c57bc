/** The node's mounts: which there are, and the two calls that change those of single files. */
import {execFile} from 'node:child_process';
import {readFileSync} from 'node:fs';
import {promisify} from 'node:util';
import {CetusError} from '../base/errors';

const run = promisify(execFile);
const DEADLINE_MS = 15_000;

/** `\040` and the like, as the kernel writes what would break its lines. */
const unescaped = (text: string): string => text.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(parseInt(octal, 8)));

/** How many mounts lie on each path. */
export function mountsOn(filter: (path: string) => boolean): Map<string, number> {
  const found = new Map<string, number>();
  for (const line of readFileSync('/proc/self/mountinfo', 'utf8').split('\n')) {
    const path = unescaped(line.split(' ')[4] ?? '');
    if (path && filter(path)) found.set(path, (found.get(path) ?? 0) + 1);
  }
  return found;
}

/** The file over itself or over another; what happens on it from then on is seen by whoever has a slave of it. */
export async function bindFile(source: string, target: string): Promise<void> {
  await run('mount', ['--no-canonicalize', '--bind', '--make-shared', source, target], {timeout: DEADLINE_MS}).catch((err: unknown) => {
    throw new CetusError('internal', `bind ${source} to ${target}`, {cause: err, shown: 'the Docker socket could not be bound'});
  });
}

/** The uppermost one. Lazily: whoever holds it open is not waited for. */
export async function unmountTop(path: string): Promise<void> {
  await run('umount', ['--no-canonicalize', '--lazy', path], {timeout: DEADLINE_MS}).catch((err: unknown) => {
    throw new CetusError('internal', `umount ${path}`, {cause: err, shown: 'the Docker socket could not be taken away'});
  });
}
