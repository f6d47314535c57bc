/** Published ports as values: when two of them collide, and the Engine's words for it. Pure. */
import {CetusError} from '../../base/errors';
import type {PublishedPort} from '../../schema/container';
import type {SandboxRequest} from './network';

export type HostPort = Pick<PublishedPort, 'protocol' | 'hostIp' | 'hostPort'>;

const ANY = new Set(['', '0.0.0.0', '::']);

export function isAnyAddress(hostIp: string): boolean {
  return ANY.has(hostIp);
}

/** "" means every address, and the Engine shows it as 0.0.0.0. */
export function shownAddress(hostIp: string): string {
  return hostIp === '' ? '0.0.0.0' : hostIp;
}

export function portKey(port: HostPort): string {
  return `${port.protocol}/${shownAddress(port.hostIp)}/${port.hostPort}`;
}

export function overlap(a: HostPort, b: HostPort): boolean {
  return a.protocol === b.protocol && a.hostPort === b.hostPort
    && (isAnyAddress(a.hostIp) || isAnyAddress(b.hostIp) || a.hostIp === b.hostIp);
}

function failedProgramming(request: SandboxRequest, reason: string, info: Record<string, unknown>, cause?: unknown): CetusError {
  const endpoint = request.attachments[0]?.endpointId ?? '';
  return new CetusError('conflict',
    `driver failed programming external connectivity on endpoint ${request.containerName ?? request.hostname} (${endpoint}): ${reason}`, {info, cause});
}

/** Another container of ours holds the port. Wording: moby libnetwork, portallocator. */
export function alreadyAllocated(request: SandboxRequest, port: HostPort): CetusError {
  return failedProgramming(request, `Bind for ${shownAddress(port.hostIp)}:${port.hostPort} failed: port is already allocated`, {port: portKey(port)});
}

/** A program that is not ours holds the port. Wording: moby libnetwork, portmapper. */
export function addressInUse(request: SandboxRequest, port: HostPort, cause?: unknown): CetusError {
  const address = `${shownAddress(port.hostIp)}:${port.hostPort}`;
  return failedProgramming(request, `failed to bind port ${address}/${port.protocol}: listen ${port.protocol}4 ${address}: bind: address already in use`, {port: portKey(port)}, cause);
}

/** The host has no such address, so nothing can be published there. Same source. */
export function cannotAssign(request: SandboxRequest, port: HostPort, cause?: unknown): CetusError {
  const address = `${shownAddress(port.hostIp)}:${port.hostPort}`;
  return failedProgramming(request, `failed to bind port ${address}/${port.protocol}: listen ${port.protocol}4 ${address}: bind: cannot assign requested address`, {port: portKey(port)}, cause);
}
