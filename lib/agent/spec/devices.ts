/** Device nodes and the cgroup's rules for them. Reads /dev of the node; nothing else. */
import fs from 'node:fs';
import path from 'node:path';
import {CetusError} from '../../base/errors';
import type {DeviceMapping, HostConfig} from '../../schema/docker';

export interface OciDevice { path: string; type: 'c' | 'b'; major: number; minor: number; fileMode: number; uid: number; gid: number }
export interface DeviceRule { allow: boolean; type?: string; major?: number; minor?: number; access: string }

// The kernel's encoding of dev_t: see gnu_dev_major(3).
const major = (dev: number): number => Number((BigInt(dev) >> 8n) & 0xfffn);
const minor = (dev: number): number => Number((BigInt(dev) & 0xffn) | ((BigInt(dev) >> 12n) & 0xfff00n));

export function deviceNumber(file: string): {major: number; minor: number} {
  const stat = fs.statSync(file, {throwIfNoEntry: false});
  if (!stat) throw new CetusError('invalid', `error gathering device information while adding custom device "${file}": no such file or directory`);
  if (!stat.isCharacterDevice() && !stat.isBlockDevice()) throw new CetusError('invalid', `error gathering device information while adding custom device "${file}": not a device node`);
  return {major: major(stat.rdev), minor: minor(stat.rdev)};
}

function device(file: string, shownAt: string): OciDevice {
  const stat = fs.statSync(file);
  return {path: shownAt, type: stat.isBlockDevice() ? 'b' : 'c', ...deviceNumber(file), fileMode: stat.mode & 0o7777, uid: stat.uid, gid: stat.gid};
}

/** A device, or all those below a directory, as `--device` takes both. */
function mapped({PathOnHost = '', PathInContainer, CgroupPermissions}: DeviceMapping): {devices: OciDevice[]; rules: DeviceRule[]} {
  const access = CgroupPermissions || 'rwm';
  if (!/^[rwm]{1,3}$/.test(access)) throw new CetusError('invalid', `invalid device mode: ${access}`);
  const inside = PathInContainer || PathOnHost;
  const devices = fs.statSync(PathOnHost, {throwIfNoEntry: false})?.isDirectory() ? below(PathOnHost, inside) : (deviceNumber(PathOnHost), [device(PathOnHost, inside)]);
  return {devices, rules: devices.map((d) => ({allow: true, type: d.type, major: d.major, minor: d.minor, access}))};
}

// Made by runc itself, or belonging to the mounts in /dev.
const NOT_COPIED = new Set(['pts', 'shm', 'fd', 'mqueue', 'console', 'ptmx', 'stdin', 'stdout', 'stderr', 'core', '.lxc', '.lxd-mounts', '.udev']);

function below(dir: string, shownAt: string): OciDevice[] {
  return fs.readdirSync(dir, {withFileTypes: true}).filter((e) => !NOT_COPIED.has(e.name)).flatMap((entry) => {
    const [file, inside] = [path.join(dir, entry.name), path.posix.join(shownAt, entry.name)];
    if (entry.isDirectory()) return below(file, inside);
    return entry.isCharacterDevice() || entry.isBlockDevice() ? [device(file, inside)] : [];
  });
}

const RULE = /^([acb]) ([0-9]+|\*):([0-9]+|\*) ([rwm]{1,3})$/;

export function devicesOf(host: HostConfig): {devices: OciDevice[]; rules: DeviceRule[]} {
  if (host.Privileged) return {devices: below('/dev', '/dev'), rules: [{allow: true, access: 'rwm'}]};
  const asked = (host.Devices ?? []).map(mapped);
  const written = (host.DeviceCgroupRules ?? []).map((text): DeviceRule => {
    const match = RULE.exec(text);
    if (!match) throw new CetusError('invalid', `invalid device cgroup rule format: '${text}'`);
    const [, type, majorText, minorText, access] = match;
    const number = (t: string): number => (t === '*' ? -1 : Number(t));
    return {allow: true, type, major: number(majorText), minor: number(minorText), access};
  });
  // Nothing but what is listed; the harmless ones (null, zero, random, tty ...) runc adds by itself.
  return {devices: asked.flatMap((a) => a.devices), rules: [{allow: false, access: 'rwm'}, ...asked.flatMap((a) => a.rules), ...written]};
}
