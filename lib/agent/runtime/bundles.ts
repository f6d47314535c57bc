/**
 * A containerd that was killed while it started a shim can leave the shim's directory (its bundle), with or without the shim; no task of that
 * name can be made until both are gone, and containerd looks only at its next start. Called by the runtime when it has met one.
 */
import {execFile} from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import {promisify} from 'node:util';
import {asCetusError} from '../../base/errors';

const run = promisify(execFile);
const TOOL_TIMEOUT_MS = 5_000;

/** The bundle's directory, where that is why the task could not be made. */
export function leftBundle(err: unknown, id: string): string | undefined {
  const bundle = /failed to start shim: mkdir (\/\S+): file exists/.exec(asCetusError(err).message)?.[1];
  return bundle && path.basename(bundle) === id ? bundle : undefined;
}

/** runc keeps a container of this name that containerd knows nothing of. */
export const leftInRunc = (err: unknown): boolean => /runc create failed: container with given ID already exists/.test(asCetusError(err).message);

export async function forgetInRunc(runc: string, root: string, id: string): Promise<void> {
  await run(runc, ['--root', root, 'delete', '--force', id], {timeout: TOOL_TIMEOUT_MS});
}

/** Ends a shim that works in the directory, unmounts what it had mounted there, and removes it. */
export async function takeBundleAway(bundle: string): Promise<void> {
  for (const pid of fs.readdirSync('/proc')) {
    if (!/^\d+$/.test(pid)) continue;
    try {
      if (fs.readlinkSync(`/proc/${pid}/cwd`) === bundle) process.kill(Number(pid), 'SIGKILL');
    } catch {
      // It ended meanwhile, or has no working directory.
    }
  }
  await run('umount', ['-l', path.join(bundle, 'rootfs')], {timeout: TOOL_TIMEOUT_MS}).catch(() => undefined); // not mounted, mostly
  await fs.promises.rm(bundle, {recursive: true, force: true});
}
