/** ExposedPorts, PortBindings and PublishAllPorts into what the container asks of its node. Pure; the Engine's texts. */
import {isIP} from 'node:net';
import {CetusError} from '../../base/errors';
import type {RequestedPort} from '../../schema/container';
import type {HostConfig} from '../../schema/docker';
import {unsupported} from './options';

const invalid = (message: string): CetusError => new CetusError('invalid', message);

/** "80/tcp", "80", "8000-8010/udp". */
export function parsePorts(text: string): {protocol: RequestedPort['protocol']; ports: number[]} {
  const parts = /^(\d{1,5})(?:-(\d{1,5}))?(?:\/([a-zA-Z]+))?$/.exec(text);
  const protocol = (parts?.[3] ?? 'tcp').toLowerCase();
  if (!parts) throw invalid(`invalid port specification: "${text.replace(/\/[a-z]*$/, '')}"`);
  if (protocol !== 'tcp' && protocol !== 'udp' && protocol !== 'sctp') throw invalid(`invalid proto: ${parts[3]}`);
  const first = Number(parts[1]);
  const last = Number(parts[2] ?? first);
  if (first > last || last > 65_535) throw invalid(`invalid port range: "${text}"`);
  return {protocol, ports: Array.from({length: last - first + 1}, (_, i) => first + i)};
}

export function requestedPorts(host: HostConfig, exposed: Record<string, object> | null | undefined): RequestedPort[] {
  const wanted: RequestedPort[] = [];
  const bound = new Set<string>();
  for (const [text, bindings] of Object.entries(host.PortBindings ?? {})) {
    const {protocol, ports} = parsePorts(text);
    if (ports.length !== 1 || ports[0] === 0) throw invalid(`invalid port specification: "${text}"`);
    if (protocol === 'sctp') throw unsupported(`HostConfig.PortBindings ${text}`, 'tcp and udp ports can be published');
    bound.add(`${protocol}/${ports[0]}`);
    for (const {HostIp = '', HostPort = ''} of bindings?.length ? bindings : [{}] as {HostIp?: string; HostPort?: string}[]) {
      if (HostIp !== '' && !isIP(HostIp)) throw invalid(`invalid IP address: ${HostIp}`);
      wanted.push({protocol, containerPort: ports[0]!, hostIp: HostIp, ...hostPortOf(HostPort)});
    }
  }
  for (const text of Object.keys(exposed ?? {})) {
    const {protocol, ports} = parsePorts(text);
    if (!host.PublishAllPorts || protocol === 'sctp') continue;
    for (const containerPort of ports) if (!bound.has(`${protocol}/${containerPort}`)) wanted.push({protocol, containerPort, hostIp: '', hostPort: 0});
  }
  return wanted;
}

/** "" any free one, "8080" that one, "8000-8010" any free one of these. */
function hostPortOf(text: string): Pick<RequestedPort, 'hostPort' | 'hostPortRange'> {
  if (text === '') return {hostPort: 0};
  const parts = /^(\d{1,5})(?:-(\d{1,5}))?$/.exec(text);
  if (!parts) throw invalid(`invalid port specification: "${text}"`);
  const from = Number(parts[1]);
  const to = Number(parts[2] ?? from);
  if (from > to || to > 65_535) throw invalid(`invalid port specification: "${text}"`);
  return from === to ? {hostPort: from} : {hostPort: 0, hostPortRange: {from: Math.max(1, from), to}};
}
