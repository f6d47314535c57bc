/**
 * Sources of mounts that containers can rewrite: a place inside a volume, a bind below a directory that the operator allows. The runtime follows
 * links when it mounts, in the node's root; a container that puts a link there would be given whatever it points to. So such a source is
 * opened once, judged by where the open file really is, and that very file is bound to a place of our own, which the runtime mounts.
 *
 * A pin is wanted until the runtime has made its own mount of it; what a kill -9 leaves is swept by Volumes. Called by Volumes alone.
 */
import {execFile} from 'node:child_process';
import {constants} from 'node:fs';
import {mkdtemp, open, readlink, realpath, rmdir, stat, unlink} from 'node:fs/promises';
import {promisify} from 'node:util';
import {CetusError} from '../../base/errors';

const run = promisify(execFile);
const MOUNT_DEADLINE_MS = 15_000;
/** Node has no name for it: nothing is read or waited for, be it a FIFO or a device. */
const O_PATH = 0o10000000;

export const isBelow = (root: string, path: string): boolean => path === root || path.startsWith(root === '/' ? '/' : `${root}/`);

export interface Pin { path: string; release(): Promise<void> }

/** `prefix` is of the place's path. `outside` is thrown where `source` leads out of `root`; a missing source is the caller's to explain. */
export async function pin(source: string, root: string, prefix: string, outside: CetusError): Promise<Pin> {
  const handle = await open(source, O_PATH);
  try {
    const here = `/proc/${process.pid}/fd/${handle.fd}`;
    if (!isBelow(await realpath(root), await readlink(here))) throw outside;
    const path = await place(prefix, (await handle.stat()).isDirectory());
    try {
      // Not canonicalized: the descriptor is what is meant, not the path that it had. As slaves: what ends here must not end there.
      await run('mount', ['--no-canonicalize', '-o', 'rbind,rslave', '--source', here, '--target', path], {timeout: MOUNT_DEADLINE_MS});
    } catch (err) {
      await remove(path);
      throw new CetusError('internal', `bind ${source}`, {cause: err});
    }
    return {path, release: () => unpin(path)};
  } finally {
    await handle.close();
  }
}

/** Repeatable. Never removes more than an empty directory or file of our own: what a failed umount leaves is another's. */
export async function unpin(path: string): Promise<void> {
  await run('umount', ['--no-canonicalize', '--lazy', path], {timeout: MOUNT_DEADLINE_MS}).catch(() => undefined);
  await remove(path);
}

/** Directories are mounted on directories, everything else on files. */
async function place(prefix: string, directory: boolean): Promise<string> {
  const path = await mkdtemp(prefix);
  if (directory) return path;
  await rmdir(path);
  await (await open(path, constants.O_CREAT | constants.O_EXCL, 0o600)).close();
  return path;
}

async function remove(path: string): Promise<void> {
  if ((await stat(path)).isDirectory()) await rmdir(path);
  else await unlink(path);
}
