/** The mounts of volumes with driver options, as the kernel makes them; `fake` ones of tests keep a list. */
import {execFile, spawn} from 'node:child_process';
import {lookup} from 'node:dns/promises';
import {join} from 'node:path';
import {promisify} from 'node:util';
import {CetusError} from '../../base/errors';
import {mountsOn} from '../mounts';
import type {MountCall} from './driver-options';
import type {MountOutcome} from './mount-worker';

const run = promisify(execFile);
/** The kernel's own patience with a server is up to three minutes. */
const MOUNT_DEADLINE_MS = 200_000;
const UNMOUNT_DEADLINE_MS = 15_000;
const MAX_OUTCOME_BYTES = 64 * 1024;

export interface Mounter {
  /** In their order; answers the first that the kernel refused, and why. */
  mount(calls: MountCall[]): Promise<MountOutcome>;
  unmount(path: string): Promise<void>;
  /** How many mounts lie on each path below `directory`. */
  mounted(directory: string): Map<string, number>;
  /** An address of the host; throws where there is none. */
  resolve(host: string): Promise<string>;
}

/** `worker`: the built program, for tests that run from sources. */
export function linuxMounter(worker = join(__dirname, 'mount-worker.js')): Mounter {
  return {
    mount: (calls) => calls.length ? perform(worker, calls) : Promise.resolve({}),
    async unmount(path) {
      await run('umount', ['--no-canonicalize', path], {timeout: UNMOUNT_DEADLINE_MS}).catch(async (err: unknown) => {
        // Busy, or a server that is away: what holds it keeps it, its place here goes.
        await run('umount', ['--no-canonicalize', '--lazy', path], {timeout: UNMOUNT_DEADLINE_MS}).catch(() => {
          throw new CetusError('internal', `umount ${path}`, {cause: err, shown: 'the volume could not be unmounted'});
        });
      });
    },
    mounted: (directory) => mountsOn((path) => path.startsWith(`${directory}/`)),
    resolve: async (host) => (await lookup(host).catch((err: NodeJS.ErrnoException) => {
      throw new CetusError('internal', `lookup ${host}: ${err.code === 'ENOTFOUND' ? 'no such host' : err.message}`, {cause: err});
    })).address,
  };
}

function perform(worker: string, calls: MountCall[]): Promise<MountOutcome> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [worker], {stdio: ['pipe', 'pipe', 'ignore'], env: {}, cwd: '/', timeout: MOUNT_DEADLINE_MS, killSignal: 'SIGKILL'});
    let text = '';
    child.stdout.setEncoding('utf8').on('data', (chunk: string) => {
      text += chunk;
      if (text.length > MAX_OUTCOME_BYTES) child.kill('SIGKILL');
    });
    child.stdin.on('error', () => undefined);
    child.once('error', reject);
    child.once('close', (code, signal) => {
      if (code === 0 && text) return resolve(JSON.parse(text) as MountOutcome);
      const late = signal === 'SIGKILL';
      reject(new CetusError(late ? 'timeout' : 'internal', `mounting ${calls[0]!.target} ended with ${signal ?? code}`, {shown: late ? 'failed to mount local volume: connection timed out' : 'failed to mount local volume'}));
    });
    child.stdin.end(JSON.stringify(calls));
  });
}
