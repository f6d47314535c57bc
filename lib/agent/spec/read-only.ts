/** Can this node make a bind read-only with all that is mounted below it? The kernel can since 5.12, and runc has to know the option. */
import {execFileSync} from 'node:child_process';

const DEADLINE_MS = 5_000;

export function recursiveReadOnly(kernelVersion: string): boolean {
  const [major = 0, minor = 0] = kernelVersion.split('.').map((part) => parseInt(part, 10));
  if (major < 5 || (major === 5 && minor < 12)) return false;
  try {
    const {mountOptions} = JSON.parse(execFileSync('runc', ['features'], {encoding: 'utf8', timeout: DEADLINE_MS, stdio: ['ignore', 'pipe', 'ignore']})) as {mountOptions?: string[]};
    return mountOptions?.includes('rro') === true;
  } catch {
    // One from before 1.1 has no such verb, and no such option.
    return false;
  }
}
