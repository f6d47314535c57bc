/**
 * The label `cetus.ingress.proxy-protocol`: endpoints tell the container who its client is, by a header of the PROXY protocol. Pure; anything that could be misread is
 * refused when the container is created.
 *
 *   v1 | v2                    all of its published tcp ports
 *   80/tcp=v2,53/udp=v2        these (a number alone is tcp); udp wants v2, for v1 has no words for it
 */
import {CetusError} from '../../base/errors';
import {PROXY_PROTOCOL_LABEL, type ProxyProtocol, type RequestedPort} from '../../schema/container';

export function withProxyProtocol(ports: RequestedPort[], label: string | undefined): RequestedPort[] {
  if (label === undefined) return ports;
  const wanted = parse(label);
  // An image may carry the label and its container publish nothing.
  if (ports.length === 0) return ports;
  for (const key of wanted.keys())
    if (key !== ALL_TCP && !ports.some((p) => keyOf(p) === key)) throw refused(label, `the container publishes no port ${key}`);
  return ports.map((port) => {
    const proxyProtocol = versionOf(port, wanted);
    if (!proxyProtocol) return port;
    if (port.hostIp.includes(':')) throw refused(label, `${port.hostIp} is no IPv4 address`);
    return {...port, proxyProtocol};
  });
}

const ALL_TCP = '*/tcp';
const keyOf = ({containerPort, protocol}: RequestedPort): string => `${containerPort}/${protocol}`;
const versionOf = (port: RequestedPort, wanted: Map<string, ProxyProtocol>): ProxyProtocol | undefined => wanted.get(keyOf(port)) ?? (port.protocol === 'tcp' ? wanted.get(ALL_TCP) : undefined);

function parse(label: string): Map<string, ProxyProtocol> {
  if (label === 'v1' || label === 'v2') return new Map([[ALL_TCP, label]]);
  const wanted = new Map<string, ProxyProtocol>();
  for (const part of label.split(',')) {
    const match = /^\s*(\d{1,5})(?:\/(tcp|udp))?=(v1|v2)\s*$/.exec(part);
    if (!match) throw refused(label, 'expected v1, v2, or a list like 80/tcp=v2,53/udp=v2');
    const key = `${Number(match[1])}/${match[2] ?? 'tcp'}`;
    if (match[2] === 'udp' && match[3] === 'v1') throw refused(label, `version 1 has no words for udp: ${key}=v2`);
    if (wanted.has(key)) throw refused(label, `${key} is there twice`);
    wanted.set(key, match[3] as ProxyProtocol);
  }
  return wanted;
}

function refused(label: string, why: string): CetusError {
  return new CetusError('invalid', `label ${PROXY_PROTOCOL_LABEL}=${label}: ${why}`);
}
