/**
 * The /dev/shm of a container that shares its IPC (`--ipc shareable`): a tmpfs in the node's own mount namespace, bound into the container and into
 * those that join it. A mount inside the container would not do: the kernel binds nothing across mount namespaces (EINVAL).
 * Mounted by each start, unmounted when the process is gone; both may be repeated. Called by the launcher and the unit.
 */
import {execFile} from 'node:child_process';
import {statSync} from 'node:fs';
import {mkdir} from 'node:fs/promises';
import {dirname} from 'node:path';
import {promisify} from 'node:util';
import {CetusError} from '../../base/errors';
import type {HostConfig} from '../../schema/docker';

const run = promisify(execFile);
const DEADLINE_MS = 10_000;

export const sharesIpc = (host: HostConfig): boolean => host.IpcMode === 'shareable';

export async function mountShm(path: string, bytes: number): Promise<void> {
  await mkdir(path, {recursive: true, mode: 0o755});
  if (isMounted(path)) return;
  await run('mount', ['-t', 'tmpfs', '-o', `nosuid,noexec,nodev,mode=1777,size=${bytes}`, 'shm', path], {timeout: DEADLINE_MS}).catch((err: unknown) => {
    throw new CetusError('internal', `mount ${path}`, {cause: err});
  });
}

/** Whoever joined keeps the memory; only its place here goes. */
export async function unmountShm(path: string): Promise<void> {
  if (isMounted(path)) await run('umount', ['-l', path], {timeout: DEADLINE_MS});
}

/** Synchronous, as the store's calls are: nearly always the answer is that there is no such directory. */
function isMounted(path: string): boolean {
  const here = statSync(path, {throwIfNoEntry: false});
  return here !== undefined && here.dev !== statSync(dirname(path)).dev;
}
