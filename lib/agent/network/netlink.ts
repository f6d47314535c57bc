/**
 * What is done to interfaces inside a container's namespace, as messages of the kernel's rtnetlink (see rtnetlink(7) and linux/if_link.h), and what
 * the kernel answers. Pure. Numbers are in the machine's order, which is little-endian everywhere Cetus runs.
 */

/** `set` brings the interface up, too. Interfaces come before addresses and routes, which name them by an index. */
export type LinkCommand =
  | {do: 'pair'; name: string; peer: string}
  | {do: 'set'; name: string; mac?: string; mtu?: number}
  | {do: 'remove'; name: string}
  | {do: 'address'; name: string; address: string; prefixLength: number}
  | {do: 'defaultRoute'; name: string; gateway: string};

export type NetlinkAnswer = {sequence: number; kind: 'done'; errno: number} | {sequence: number; kind: 'link'; index: number};

const HEADER_BYTES = 16;
const NLMSG_ERROR = 2;
const RTM = {newLink: 16, delLink: 17, getLink: 18, newAddress: 20, newRoute: 24} as const;
const REQUEST = 0x1;
const ACK = 0x4;
const REPLACE = 0x100;
const EXCLUSIVE = 0x200;
const CREATE = 0x400;
const NESTED = 0x8000;
const IFLA = {address: 1, name: 3, mtu: 4, linkInfo: 18, namespaceFd: 28} as const;
const INFO = {kind: 1, data: 2} as const;
const VETH_PEER = 1;
const IFA = {address: 1, local: 2} as const;
const RTA = {gateway: 5, outInterface: 4} as const;
const AF_INET = 2;
const IFF_UP = 1;
const TABLE_MAIN = 254;
const PROTOCOL_BOOT = 3;
const TYPE_UNICAST = 1;

/** Whether the command names its interface by the index that the kernel gave it. */
export function needsIndex(command: LinkCommand): boolean {
  return command.do === 'address' || command.do === 'defaultRoute';
}

/** `peerNamespaceFd`: where the other ends of pairs go. `index`: of the command's interface, where `needsIndex`. */
export function commandMessage(command: LinkCommand, sequence: number, {peerNamespaceFd, index}: {peerNamespaceFd: number; index: number}): Buffer {
  switch (command.do) {
    case 'pair':
      return message(RTM.newLink, CREATE | EXCLUSIVE, sequence, link(0), text(IFLA.name, command.name), attribute(IFLA.linkInfo | NESTED,
        text(INFO.kind, 'veth'),
        attribute(INFO.data | NESTED, attribute(VETH_PEER | NESTED, link(0), text(IFLA.name, command.peer), number(IFLA.namespaceFd, peerNamespaceFd)))));
    case 'set':
      return message(RTM.newLink, 0, sequence, link(IFF_UP), text(IFLA.name, command.name),
        ...(command.mac === undefined ? [] : [attribute(IFLA.address, Buffer.from(command.mac.replaceAll(':', ''), 'hex'))]),
        ...(command.mtu === undefined ? [] : [number(IFLA.mtu, command.mtu)]));
    case 'remove':
      return message(RTM.delLink, 0, sequence, link(0), text(IFLA.name, command.name));
    case 'address': {
      const head = Buffer.from([AF_INET, command.prefixLength, 0, 0, 0, 0, 0, 0]);
      head.writeUInt32LE(index, 4);
      return message(RTM.newAddress, CREATE | EXCLUSIVE, sequence, head, attribute(IFA.local, ipv4(command.address)), attribute(IFA.address, ipv4(command.address)));
    }
    case 'defaultRoute': {
      const head = Buffer.from([AF_INET, 0, 0, 0, TABLE_MAIN, PROTOCOL_BOOT, 0, TYPE_UNICAST, 0, 0, 0, 0]);
      return message(RTM.newRoute, CREATE | REPLACE, sequence, head, attribute(RTA.gateway, ipv4(command.gateway)), number(RTA.outInterface, index));
    }
  }
}

/** Answered by `link`, and then by `done`. */
export function indexQuery(name: string, sequence: number): Buffer {
  return message(RTM.getLink, 0, sequence, link(0), text(IFLA.name, name));
}

/** What one datagram of the kernel's holds; messages of other kinds are left out. */
export function answersIn(datagram: Buffer): NetlinkAnswer[] {
  const answers: NetlinkAnswer[] = [];
  for (let at = 0; at + HEADER_BYTES + 8 <= datagram.length;) {
    const bytes = datagram.readUInt32LE(at);
    const type = datagram.readUInt16LE(at + 4);
    const sequence = datagram.readUInt32LE(at + 8);
    if (type === NLMSG_ERROR) answers.push({sequence, kind: 'done', errno: Math.abs(datagram.readInt32LE(at + HEADER_BYTES))});
    if (type === RTM.newLink) answers.push({sequence, kind: 'link', index: datagram.readInt32LE(at + HEADER_BYTES + 4)});
    at += Math.max(HEADER_BYTES, aligned(bytes));
  }
  return answers;
}

function message(type: number, flags: number, sequence: number, head: Buffer, ...attributes: Buffer[]): Buffer {
  const header = Buffer.alloc(HEADER_BYTES);
  const body = Buffer.concat([head, ...attributes]);
  header.writeUInt32LE(HEADER_BYTES + body.length, 0);
  header.writeUInt16LE(type, 4);
  header.writeUInt16LE(REQUEST | ACK | flags, 6);
  header.writeUInt32LE(sequence, 8);
  return Buffer.concat([header, body]);
}

/** struct ifinfomsg, of an interface that is named by an attribute. */
function link(flags: number): Buffer {
  const head = Buffer.alloc(16);
  head.writeUInt32LE(flags, 8);
  head.writeUInt32LE(flags, 12);
  return head;
}

function attribute(type: number, ...parts: Buffer[]): Buffer {
  const content = Buffer.concat(parts);
  const whole = Buffer.alloc(aligned(4 + content.length));
  whole.writeUInt16LE(4 + content.length, 0);
  whole.writeUInt16LE(type, 2);
  content.copy(whole, 4);
  return whole;
}

function text(type: number, value: string): Buffer { return attribute(type, Buffer.from(`${value}\0`)); }

function number(type: number, value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return attribute(type, bytes);
}

function ipv4(address: string): Buffer { return Buffer.from(address.split('.').map(Number)); }
function aligned(bytes: number): number { return (bytes + 3) & ~3; }
