/** Which entry of a manifest list a node runs. Pure. Follows containerd's platform matching: the exact variant first, then the older ones. */
import {CetusError} from '../../../base/errors';
import type {Descriptor, ImageConfigFile} from '../../../schema/docker';

export interface Platform { os: string; architecture: string; variant?: string }

const MACHINES: Record<string, Platform> = {
  x64: {os: 'linux', architecture: 'amd64'},
  arm64: {os: 'linux', architecture: 'arm64', variant: 'v8'},
  arm: {os: 'linux', architecture: 'arm', variant: 'v7'},
  ia32: {os: 'linux', architecture: '386'},
  ppc64: {os: 'linux', architecture: 'ppc64le'},
  s390x: {os: 'linux', architecture: 's390x'},
  riscv64: {os: 'linux', architecture: 'riscv64'},
  loong64: {os: 'linux', architecture: 'loong64'},
};
const ALIASES: Record<string, string> = {'x86_64': 'amd64', 'x86-64': 'amd64', aarch64: 'arm64', armhf: 'arm', armel: 'arm', i386: '386', i686: '386'};

export function nodePlatform(machine: string = process.arch): Platform {
  const platform = MACHINES[machine];
  if (!platform) throw new CetusError('unsupported', `machine architecture ${machine} is not supported`);
  return platform;
}

/** "linux/arm/v7", "linux/amd64", "arm64". */
export function parsePlatform(text: string): Platform {
  const parts = text.toLowerCase().split('/');
  if (parts.length > 3 || parts.some((part) => !/^[a-z0-9_.-]+$/.test(part)))
    throw new CetusError('invalid', `"${text}" is an invalid component of "${text}": platform specifier component must match "^[A-Za-z0-9_.-]+$": invalid argument`);
  const withOs = parts.length === 1 ? (parts[0] in ALIASES || Object.values(MACHINES).some((m) => m.architecture === parts[0]) ? ['linux', parts[0]] : undefined) : parts;
  if (!withOs) throw new CetusError('invalid', `"${text}": unknown operating system or architecture: invalid argument`);
  const architecture = ALIASES[withOs[1]] ?? withOs[1];
  return withOs[2] === undefined ? {os: withOs[0], architecture} : {os: withOs[0], architecture, variant: withOs[2]};
}

export function formatPlatform(platform: Platform): string {
  return `${platform.os}/${platform.architecture}${platform.variant ? `/${platform.variant}` : ''}`;
}

/** The platforms that `wanted` can run, best first. */
function runnable(wanted: Platform): Platform[] {
  const {os, architecture} = wanted;
  const number = Number(/^v(\d+)$/.exec(effectiveVariant(wanted))?.[1] ?? NaN);
  if (architecture === 'arm') return downTo(number, 5).map((n) => ({os, architecture, variant: `v${n}`}));
  if (architecture === 'arm64') return [{os, architecture, variant: 'v8'}, ...downTo(8, 5).map((n) => ({os, architecture: 'arm', variant: `v${n}`}))];
  if (architecture === 'amd64') return [...downTo(number, 1).map((n) => ({os, architecture, variant: `v${n}`})), {os, architecture: '386'}];
  return [wanted];
}

/** Does an image made for `offered` run where `wanted` is asked? Emulation of 32-bit machines is not counted. */
export function satisfies(wanted: Platform, offered: Platform): boolean {
  return rank(wanted, offered) >= 0 && wanted.architecture === offered.architecture;
}

/** `notFound` in the Engine's words where an image is for another platform than the one that was asked for. */
export function checkPlatform({os, architecture, variant}: Pick<ImageConfigFile, 'os' | 'architecture' | 'variant'>, wanted: Platform, shown: string): void {
  const offered: Platform = {os, architecture, variant};
  if (!satisfies(wanted, offered))
    throw new CetusError('notFound', `image with reference ${shown} was found but its platform (${formatPlatform(offered)}) does not match the specified platform (${formatPlatform(wanted)})`);
}

/** The best entry of an index, or undefined. Entries that are no images (attestations: platform unknown/unknown) never match. */
export function choosePlatform(entries: Descriptor[], wanted: Platform): Descriptor | undefined {
  let best: {entry: Descriptor; rank: number} | undefined;
  for (const entry of entries) {
    const r = entry.platform ? rank(wanted, entry.platform) : -1;
    if (r >= 0 && (!best || r < best.rank)) best = {entry, rank: r};
  }
  return best?.entry;
}

function rank(wanted: Platform, offered: Platform): number {
  const variant = effectiveVariant(offered);
  return runnable(wanted).findIndex((p) => p.os === offered.os && p.architecture === offered.architecture && effectiveVariant(p) === variant);
}

// An arm image without a variant is v7, an arm64 one v8, an amd64 one v1: containerd's normalisation.
function effectiveVariant({architecture, variant}: Platform): string {
  const given = /^\d+$/.test(variant ?? '') ? `v${variant}` : variant ?? '';
  if (given !== '') return given;
  return architecture === 'arm' ? 'v7' : architecture === 'arm64' ? 'v8' : architecture === 'amd64' ? 'v1' : '';
}

function downTo(from: number, to: number): number[] {
  return Number.isNaN(from) || from < to ? [] : Array.from({length: from - to + 1}, (_, i) => from - i);
}
