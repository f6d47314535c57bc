/**
 * What the options of the local volume driver mean as mount(2) calls: the Engine's own reading of `type`, `device` and `o`, flag by flag, so that
 * the same options mount the same thing and fail in the same words. Pure, but for the look-up of a network volume's address, which is handed in.
 */
import {isIP, isIPv4} from 'node:net';
import {CetusError} from '../../base/errors';

/** One mount(2); `source`, `type` and `data` '' where the kernel takes none. `op` names it in an error. */
export interface MountCall { op: 'mount' | 'remount' | 'remount-ro'; source: string; target: string; type: string; flags: number; data: string }

const MS = {
  rdonly: 0x1, nosuid: 0x2, nodev: 0x4, noexec: 0x8, synchronous: 0x10, remount: 0x20, mandlock: 0x40, dirsync: 0x80, noatime: 0x400, nodiratime: 0x800, bind: 0x1000, rec: 0x4000,
  silent: 0x8000, unbindable: 0x20000, private: 0x40000, slave: 0x80000, shared: 0x100000, relatime: 0x200000, strictatime: 0x1000000,
};
const PROPAGATION = MS.shared | MS.private | MS.slave | MS.unbindable;

/** [flag, is it taken away by the word?] */
const WORDS: Record<string, readonly [number, boolean]> = {
  async: [MS.synchronous, true], atime: [MS.noatime, true], bind: [MS.bind, false], dev: [MS.nodev, true], diratime: [MS.nodiratime, true], dirsync: [MS.dirsync, false],
  exec: [MS.noexec, true], mand: [MS.mandlock, false], noatime: [MS.noatime, false], nodev: [MS.nodev, false], nodiratime: [MS.nodiratime, false], noexec: [MS.noexec, false],
  nomand: [MS.mandlock, true], norelatime: [MS.relatime, true], nostrictatime: [MS.strictatime, true], nosuid: [MS.nosuid, false], rbind: [MS.bind | MS.rec, false],
  relatime: [MS.relatime, false], remount: [MS.remount, false], ro: [MS.rdonly, false], rw: [MS.rdonly, true], strictatime: [MS.strictatime, false], suid: [MS.nosuid, true],
  sync: [MS.synchronous, false], private: [MS.private, false], rprivate: [MS.private | MS.rec, false], shared: [MS.shared, false], rshared: [MS.shared | MS.rec, false],
  slave: [MS.slave, false], rslave: [MS.slave | MS.rec, false], unbindable: [MS.unbindable, false], runbindable: [MS.unbindable | MS.rec, false],
};

export const isMountFlag = (word: string): boolean => Object.hasOwn(WORDS, word);

/** What is no flag is the file system's own business. */
export function parseMountOptions(text: string): {flags: number; data: string} {
  let flags = 0;
  const data: string[] = [];
  for (const option of text.split(',')) {
    const word = Object.hasOwn(WORDS, option) ? WORDS[option] : undefined;
    if (!word) data.push(option);
    else if (word[1]) flags &= ~word[0];
    else flags |= word[0];
  }
  return {flags, data: data.join(',')};
}

export const needsMount = (options: Record<string, string>): boolean => Boolean(options['device'] || options['type']);
export const isBindOption = (o: string | undefined): boolean => (parseMountOptions(o ?? '').flags & MS.bind) !== 0;

/** `resolve`: a host name's address; throws where there is none. */
export async function mountCalls(options: Record<string, string>, target: string, resolve: (host: string) => Promise<string>): Promise<MountCall[]> {
  const type = options['type'] ?? '';
  if (!options['device']) throw new CetusError('internal', 'missing device in volume options');
  const {device, o} = await addressed(type, options['device'], options['o'] ?? '', resolve);
  const {flags, data} = parseMountOptions(o);
  const own = flags & ~PROPAGATION;
  const calls: MountCall[] = [];
  const keeps = (flags & MS.remount) !== 0 || device === 'none';
  if (!keeps || data !== '') calls.push({op: 'mount', source: device, target, type, flags: own, data});
  if (flags & PROPAGATION) calls.push({op: 'remount', source: '', target, type: '', flags: flags & (PROPAGATION | MS.rec | MS.silent), data: ''});
  if ((own & (MS.bind | MS.rdonly)) === (MS.bind | MS.rdonly)) calls.push({op: 'remount-ro', source: '', target, type: '', flags: own | MS.remount, data: ''});
  return calls;
}

/** The kernel resolves no names; mount.nfs and mount.cifs, which do, are not asked. */
async function addressed(type: string, device: string, o: string, resolve: (host: string) => Promise<string>): Promise<{device: string; o: string}> {
  if (type !== 'nfs' && type !== 'cifs') return {device, o};
  const address = valueOf(o, 'addr');
  if (address && !isIPv4(address)) return {device, o: o.replace(`addr=${address}`, `addr=${await resolve(address)}`)};
  const [, host, path] = type === 'cifs' ? /^\/\/([^/]+)(.*)$/.exec(device) ?? [] : [];
  return {device: host && !isIP(host) ? `//${await resolve(host)}${path}` : device, o};
}

function valueOf(o: string, name: string): string | undefined {
  return o.split(',').find((option) => option.startsWith(`${name}=`))?.slice(name.length + 1);
}

/** A call that the kernel refused, as the Engine words it. */
export function mountFailure(call: MountCall, why: string): string {
  const place = call.source ? `${call.source}:${call.target}` : call.target;
  return `${call.op} ${place}${call.flags ? `, flags: 0x${call.flags.toString(16)}` : ''}${call.data ? `, data: ${call.data}` : ''}: ${why}`;
}

/** Without the password of a network volume. */
export function withoutPassword(text: string, o: string | undefined): string {
  const password = valueOf(o ?? '', 'password');
  return password ? text.replaceAll(`password=${password}`, 'password=********') : text;
}
