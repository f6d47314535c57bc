/** What a linked container is called in /etc/hosts, and the variables that tell of it, as the Engine writes them. Pure. */
import type {ResolvedLink} from '../../schema/container';

/** The alias, the other's host name, and its name where that is another word. */
export function linkHosts(links: readonly ResolvedLink[]): string {
  return links.map(({address, alias, hostname, name}) => `${address}\t${[alias, hostname, ...(alias === name ? [] : [name])].join(' ')}\n`).join('');
}

interface Port { number: number; protocol: string }

/** `parent`: the name of the container that is told. */
export function linkEnvironment(parent: string, links: readonly ResolvedLink[]): string[] {
  return links.flatMap((link) => {
    const alias = link.alias.toUpperCase().replaceAll('-', '_');
    const ports = link.ports.map((text): Port => ({number: Number(text.split('/')[0]), protocol: text.split('/')[1] ?? 'tcp'}))
      .sort((a, b) => a.number - b.number || Number(b.protocol === 'tcp') - Number(a.protocol === 'tcp'));
    const at = ({number, protocol}: Port): string => `${protocol}://${link.address}:${number}`;
    const [first] = ports;
    return [
      ...(first ? [`${alias}_PORT=${at(first)}`] : []),
      ...ranges(ports).flatMap(([from, to]) => {
        const prefix = `${alias}_PORT_${from.number}_${from.protocol.toUpperCase()}`;
        return [`${prefix}_START=${at(from)}`, `${prefix}_ADDR=${link.address}`, `${prefix}_PROTO=${from.protocol}`, `${prefix}_PORT_START=${from.number}`, `${prefix}_END=${at(to)}`, `${prefix}_PORT_END=${to.number}`];
      }),
      ...ports.flatMap((port) => {
        const prefix = `${alias}_PORT_${port.number}_${port.protocol.toUpperCase()}`;
        return [`${prefix}=${at(port)}`, `${prefix}_ADDR=${link.address}`, `${prefix}_PORT=${port.number}`, `${prefix}_PROTO=${port.protocol}`];
      }),
      `${alias}_NAME=/${parent}/${link.alias}`,
      // What every image sets says nothing of the other.
      ...link.env.filter((entry) => entry.includes('=') && !/^(HOME|PATH)=/.test(entry)).map((entry) => `${alias}_ENV_${entry}`),
    ];
  });
}

/** Runs of ports of one protocol without a gap, of two at least. */
function ranges(ports: readonly Port[]): [Port, Port][] {
  const found: [Port, Port][] = [];
  for (let i = 0; i < ports.length;) {
    let j = i;
    while (j + 1 < ports.length && ports[j + 1]!.number === ports[j]!.number + 1 && ports[j + 1]!.protocol === ports[i]!.protocol) j += 1;
    if (j > i) found.push([ports[i]!, ports[j]!]);
    i = j + 1;
  }
  return found;
}

/** The container's own variables win. */
export function withEnvironment(own: readonly string[], told: readonly string[]): string[] {
  const names = new Set(own.map((entry) => entry.split('=', 1)[0]));
  return [...told.filter((entry) => !names.has(entry.split('=', 1)[0]!)), ...own];
}
