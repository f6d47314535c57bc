/** /etc/hosts, /etc/hostname and /etc/resolv.conf of a container, as the Engine fills them. Pure. */
import {CetusError} from '../../base/errors';
import {SHORT_ID_LENGTH} from '../../base/ids';
import type {ResolvSettings} from '../network/network';
import {linkHosts} from '../spec/links';
import type {ContainerSpec, NetworkAttachment, ResolvedLink} from '../../schema/container';

const LOCAL = '127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\nff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n';

export function hostnameOf(spec: ContainerSpec, nodeName: string): string {
  return spec.config.Hostname || (spec.networkMode === 'host' ? nodeName : spec.id.slice(0, SHORT_ID_LENGTH));
}

export function hostsFile(spec: ContainerSpec, hostname: string, attachments: NetworkAttachment[], links: readonly ResolvedLink[] = []): string {
  const domain = spec.config.Domainname;
  const names = domain ? `${hostname}.${domain} ${hostname}` : hostname;
  const gateway = (attachments.find((a) => a.isDefaultRoute) ?? attachments[0])?.gateway;
  const extra = (spec.hostConfig.ExtraHosts ?? []).map((entry) => extraHost(entry, gateway));
  const own = attachments.map((a) => `${a.address}\t${names}\n`);
  return LOCAL + extra.join('') + linkHosts(links) + own.join('');
}

/** "name:address" or "name=address"; the address "host-gateway" stands for the node as the container sees it. */
function extraHost(entry: string, gateway: string | undefined): string {
  const at = entry.search(/[:=]/);
  if (at <= 0) throw new CetusError('invalid', `bad format for add-host: "${entry}"`);
  const address = entry.slice(at + 1);
  if (address !== 'host-gateway') return `${address.replace(/^\[(.*)]$/, '$1')}\t${entry.slice(0, at)}\n`;
  if (!gateway) throw new CetusError('invalid', 'unable to derive the IP value for host-gateway');
  return `${gateway}\t${entry.slice(0, at)}\n`;
}

export function resolvConf(spec: ContainerSpec, found: ResolvSettings): string {
  const {Dns, DnsSearch, DnsOptions} = spec.hostConfig;
  const servers = Dns?.length && !found.ours ? Dns : found.nameservers;
  const search = DnsSearch?.length ? DnsSearch.filter((s) => s !== '.') : found.search;
  const asked = DnsOptions?.length ? DnsOptions : found.options;
  const options = found.ours && !asked.some((o) => o.startsWith('ndots:')) ? [...asked, 'ndots:0'] : asked;
  return servers.map((s) => `nameserver ${s}\n`).join('')
    + (search.length ? `search ${search.join(' ')}\n` : '')
    + (options.length ? `options ${options.join(' ')}\n` : '');
}
