/**
 * IPv4 addresses of a network: which one next, and what the Engine says where there is none. Pure. That nobody else has it is the store's
 * business: the lease's key is the address, written on the condition that it does not exist.
 */
import {CetusError} from '../base/errors';
import type {Network} from '../schema/objects';

export interface Cidr { /** network address */ base: number; /** prefix length */ length: number; first: number; last: number }

export function parseAddress(text: string): number {
  const parts = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})$/.exec(text)?.slice(1).map(Number);
  if (!parts || parts.some((p) => p > 255)) throw new CetusError('invalid', `invalid IPv4 address: ${text}`);
  return parts.reduce((sum, p) => sum * 256 + p, 0);
}

export function formatAddress(address: number): string {
  return `${address >>> 24}.${(address >>> 16) & 255}.${(address >>> 8) & 255}.${address & 255}`;
}

export function parseCidr(text: string): Cidr {
  const [address, length] = text.split('/');
  const bits = Number(length);
  if (length === undefined || !/^\d{1,2}$/.test(length) || bits > 32) throw new CetusError('invalid', `invalid CIDR address: ${text}`);
  const size = 2 ** (32 - bits);
  const base = Math.floor(parseAddress(address!) / size) * size;
  return {base, length: bits, first: base, last: base + size - 1};
}

export function contains(cidr: Cidr, address: number): boolean {
  return address >= cidr.first && address <= cidr.last;
}

export function overlap(a: Cidr, b: Cidr): boolean {
  return a.first <= b.last && b.first <= a.last;
}

/** Locally administered, made from the address as the Engine does, so that the same address always has the same MAC. */
export function macOf(address: string): string {
  const n = parseAddress(address);
  return ['02', '42', ...[24, 16, 8, 0].map((shift) => (Math.floor(n / 2 ** shift) % 256).toString(16).padStart(2, '0'))].join(':');
}

/** The first of the range; of the subnet itself the second, whose first is the network's own. */
export function defaultGateway(subnet: string, ipRange: string): string {
  const [whole, range] = [parseCidr(subnet), parseCidr(ipRange || subnet)];
  return formatAddress(range.base === whole.base ? range.base + 1 : range.base);
}

export interface AddressQuestion {
  network: Pick<Network, 'id' | 'name' | 'subnet' | 'gateway' | 'ipRange' | 'auxAddresses'>;
  /** Held by somebody. */
  used: {has(address: string): boolean};
  /** Free as far as the store knows, but better left alone: this process has just given it to another. */
  shunned?: ReadonlySet<string>;
  /** A fixed address, as the person asked. */
  requested?: string;
  /** Taken if it is free: what the container had before. */
  hint?: string;
}

/** The lowest free address of the range (the Engine's order), the hint, or the requested one. */
export function chooseAddress(question: AddressQuestion): string {
  const {network, used} = question;
  const subnet = parseCidr(network.subnet);
  const range = network.ipRange ? parseCidr(network.ipRange) : subnet;
  const reserved = new Set([network.gateway, ...Object.values(network.auxAddresses)].filter(Boolean));
  const isHost = (n: number): boolean => subnet.length >= 31 || (n !== subnet.first && n !== subnet.last);
  const free = (address: string): boolean => !used.has(address) && !reserved.has(address);
  if (question.requested) {
    const n = parseAddress(question.requested);
    if (!contains(subnet, n))
      throw new CetusError('invalid', `invalid endpoint settings:\nno configured subnet contains IP address ${question.requested}`);
    // The network's own and its broadcast address are taken from the beginning.
    if (!isHost(n) || !free(question.requested)) throw new CetusError('forbidden', 'Address already in use');
    return question.requested;
  }
  if (question.hint && isIn(question.hint, range) && isHost(parseAddress(question.hint)) && free(question.hint)) return question.hint;
  let second: string | undefined;
  for (let n = range.first; n <= range.last; n += 1) {
    const address = formatAddress(n);
    if (!isHost(n) || !free(address)) continue;
    if (!question.shunned?.has(address)) return address;
    second ??= address;
  }
  if (second) return second;
  throw new CetusError('internal', `no available IPv4 addresses on this network's address pools: ${network.name} (${network.id})`);
}

function isIn(address: string, range: Cidr): boolean {
  try {
    return contains(range, parseAddress(address));
  } catch {
    return false;
  }
}
