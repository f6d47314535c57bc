/**
 * One data directory is one datacenter: its identity (instance.json, made once) and the lock that lets only one `cetus up` run on it.
 * Several may run side by side on one machine with different directories: everything a machine has only one of (bridges, nft tables,
 * subnets, cgroups) carries the instance's prefix or comes from its own block of addresses.
 */
import {spawn} from 'node:child_process';
import {createHash, randomUUID} from 'node:crypto';
import {once} from 'node:events';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import {CetusError} from '../../base/errors';
import {BlockClaims} from './blocks';

export interface Instance {
  id: string;
  name: string;
  nodeId: string;
  nodeName: string;
  /** Five characters, from the id. */
  prefix: string;
  addressPools: {base: string; size: number}[];
}

/** Our namespace in a containerd that is not ours alone: an agent removes what it does not know in its own, so that must be no other's. */
export const sharedNamespace = (prefix: string): string => `cetus-${prefix}`;

/** Every /12 of 10.0.0.0/8; 256 networks of 4,094 containers each. */
const BLOCKS = Array.from({length: 16}, (_, n) => n * 16);
const NETWORK_SIZE = 20;
const LOCK_TIMEOUT_MS = 5_000;
/** flock's answer where somebody else has the lock. */
const TAKEN = 1;
/** Where all of them are in use. */
const LAST_RESORT = '172.16.0.0/12';

/** Reads the instance, or makes it where there is none yet. The block of addresses is the instance's alone on this machine: see blocks.ts. */
export function loadInstance(dataDir: string, usedSubnets: string[] = hostSubnets(), claims = new BlockClaims()): Instance {
  const file = path.join(dataDir, 'instance.json');
  const known = readInstance(file);
  if (known) {
    // The claims are gone with each boot of the machine.
    for (const {base} of known.addressPools)
      if (!claims.claim(base, dataDir)) refuseCopy(file, known, claims.holder(base));
    return known;
  }
  const id = randomUUID();
  const nodeName = os.hostname().split('.')[0].replace(/[^a-zA-Z0-9_.-]/g, '-').replace(/^[^a-zA-Z0-9]+/, '') || 'node';
  const instance: Instance = {
    id, name: 'cetus', nodeId: randomUUID(), nodeName,
    prefix: createHash('sha256').update(id).digest('hex').slice(0, 5),
    addressPools: [{base: blocksFor(id, usedSubnets).find((block) => claims.claim(block, dataDir)) ?? LAST_RESORT, size: NETWORK_SIZE}],
  };
  const temporary = `${file}.new`;
  fs.writeFileSync(temporary, `${JSON.stringify(instance, null, 2)}\n`, {mode: 0o600});
  fs.renameSync(temporary, file);
  return instance;
}

function readInstance(file: string): Instance | undefined {
  try {
    return JSON.parse(fs.readFileSync(file, 'utf8')) as Instance;
  } catch (err) {
    if ((err as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw new CetusError('internal', `${file} cannot be read; move it away only if this datacenter may be forgotten`, {cause: err});
  }
}

/** Two directories with one identity would take each other's bridges, rules and running containers for leftovers of their own. The same one by another path is none. */
function refuseCopy(file: string, instance: Instance, holder: string | undefined): void {
  if (holder === undefined) return;
  const other = path.join(holder, 'instance.json');
  const [one, two] = [fs.statSync(file), fs.statSync(other, {throwIfNoEntry: false})];
  if (!two || (one.dev === two.dev && one.ino === two.ino) || readInstance(other)?.id !== instance.id) return;
  throw new CetusError('conflict', `${path.dirname(file)} is a copy of ${holder}, whose containers and networks on this machine it would take for its own; ` +
    'remove one of the two, or keep the copy where no Cetus runs on it');
}

/** The /12s of 10.0.0.0/8 that the machine does not use yet, from a place on that the id chooses. Pure. */
export function blocksFor(id: string, usedSubnets: string[]): string[] {
  const start = createHash('sha256').update(id).digest()[0] % BLOCKS.length;
  const taken = new Set(usedSubnets.filter((s) => s.startsWith('10.')).map((s) => Number(s.split('.')[1]) & 0xf0));
  if (usedSubnets.some((s) => s.startsWith('10.') && Number(s.split('/')[1] ?? 32) < 12)) return [];
  return BLOCKS.map((_, i) => BLOCKS[(start + i) % BLOCKS.length]!).filter((block) => !taken.has(block)).map((block) => `10.${block}.0.0/12`);
}

/** os.networkInterfaces() leaves out what has no carrier, as every bridge without a running container: the routes know them. */
function hostSubnets(): string[] {
  return routedSubnets(fs.readFileSync('/proc/net/route', 'utf8'));
}

/** The destinations of /proc/net/route ("0000700A" is 10.112.0.0) but the default route's. Pure. */
export function routedSubnets(table: string): string[] {
  const bytes = (hex: string): number[] => [6, 4, 2, 0].map((at) => parseInt(hex.slice(at, at + 2), 16));
  return table.trim().split('\n').slice(1).flatMap((line) => {
    const [, destination, , , , , , mask] = line.split(/\s+/);
    if (!destination || !mask || /^0+$/.test(mask)) return [];
    const length = bytes(mask).reduce((bits, byte) => bits + byte.toString(2).replaceAll('0', '').length, 0);
    return [`${bytes(destination).join('.')}/${length}`];
  });
}

/**
 * The kernel's lock on a file, which it lets go of whatever way the holder dies; a file or a socket that lies about is taken over by two who come
 * at once. Node has no flock(2): flock(1) locks the open file that it inherits, and that lock stays with our descriptor when it has ended.
 */
export function lockDirectory(dataDir: string, what: 'up' | 'store' = 'up'): Promise<() => void> {
  return lockFile(path.join(dataDir, 'run', `${what}.lock`),
    `another cetus ${what === 'up' ? 'up' : 'cluster'} runs on ${dataDir}; end it first (Ctrl-C${what === 'up' ? ', or SIGTERM to the pid in run/up.json' : ''}), or give another --data`);
}

/** `taken`: what is said where another process has the lock. */
export async function lockFile(file: string, taken: string): Promise<() => void> {
  const fd = fs.openSync(file, 'a', 0o600);
  try {
    const flock = spawn('flock', ['--nonblock', '3'], {stdio: ['ignore', 'ignore', 'ignore', fd], timeout: LOCK_TIMEOUT_MS});
    const [status] = await once(flock, 'exit') as [number | null];
    if (status === TAKEN) throw new CetusError('conflict', taken);
    if (status !== 0) throw new CetusError('internal', `lock ${file}: flock ended with ${status}`);
  } catch (err) {
    fs.closeSync(fd);
    throw err instanceof CetusError ? err : new CetusError('internal', `lock ${file}: flock, of util-linux, cannot be run`, {cause: err});
  }
  return () => fs.closeSync(fd);
}
