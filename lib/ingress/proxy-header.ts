/** Headers of the PROXY protocol, versions 1 and 2, as HAProxy specifies them (proxy-protocol.txt, 2.1 and 2.2). Pure; IPv4, which is all that an ingress listens on. */
import type {ProxyProtocol} from '../schema/container';

export interface Connection { protocol: 'tcp' | 'udp'; from: {address: string; port: number}; to: {address: string; port: number} }

const SIGNATURE = Buffer.from('0d0a0d0a000d0a515549540a', 'hex');
/** Version 2, command PROXY. */
const VERSION_AND_COMMAND = 0x21;
const FAMILY = {tcp: 0x11, udp: 0x12};

export function proxyHeader(version: ProxyProtocol, {protocol, from, to}: Connection): Buffer {
  if (version === 'v1') return Buffer.from(`PROXY TCP4 ${plain(from.address)} ${plain(to.address)} ${from.port} ${to.port}\r\n`, 'latin1');
  const header = Buffer.alloc(28);
  SIGNATURE.copy(header);
  header[12] = VERSION_AND_COMMAND;
  header[13] = FAMILY[protocol];
  header.writeUInt16BE(12, 14);
  bytes(from.address).copy(header, 16);
  bytes(to.address).copy(header, 20);
  header.writeUInt16BE(from.port, 24);
  header.writeUInt16BE(to.port, 26);
  return header;
}

const plain = (address: string): string => address.replace(/^::ffff:/, '');
const bytes = (address: string): Buffer => Buffer.from(plain(address).split('.').map(Number));
