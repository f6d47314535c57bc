/**
 * What goes into a container's resolv.conf. Where no DNS of ours answers (the default bridge, as with the Engine) the host's servers, without
 * those that only the host can reach; where none is left systemd-resolved's own list, then the Engine's default. Else our server alone
 * (`forNamed`). Pure but for `hostResolv` and `nodeServers`.
 */
import {readFile} from 'node:fs/promises';
import {isIPv4} from 'node:net';

export interface Resolv { nameservers: string[]; search: string[]; options: string[] }

/** The Engine's default (libnetwork, resolvconf). */
const DEFAULT_SERVERS = ['8.8.8.8', '8.8.4.4'];

export function parseResolv(text: string): Resolv {
  const result: Resolv = {nameservers: [], search: [], options: []};
  for (const line of text.split('\n')) {
    const [keyword, ...words] = line.replace(/[#;].*$/, '').trim().split(/\s+/);
    if (keyword === 'nameserver' && words[0]) result.nameservers.push(words[0]);
    // As the resolver reads it: the last search or domain line wins, options add up.
    else if (keyword === 'search') result.search = words.filter(word => word !== '.');
    else if (keyword === 'domain') result.search = words.slice(0, 1);
    else if (keyword === 'options') result.options.push(...words);
  }
  return result;
}

/** Reachable from a container: IPv4 (the bridges carry nothing else) and not the host's loopback. */
function reachable(server: string): boolean {
  return isIPv4(server) && !server.startsWith('127.');
}

/** `resolved`: the text of systemd-resolved's file, '' where there is none. */
export function forContainers(host: string, resolved: string): Resolv {
  const own = parseResolv(host);
  const candidates = [own.nameservers, parseResolv(resolved).nameservers, DEFAULT_SERVERS].map(list => list.filter(reachable));
  return {...own, nameservers: candidates.find(list => list.length) ?? DEFAULT_SERVERS};
}

export interface ResolvFiles { host: string; resolved: string }
export const RESOLV_FILES: ResolvFiles = {host: '/etc/resolv.conf', resolved: '/run/systemd/resolve/resolv.conf'};

export async function hostResolv(files: ResolvFiles): Promise<Resolv> {
  const [host, resolved] = await Promise.all([files.host, files.resolved].map(file => readFile(file, 'utf8').catch(() => '')));
  return forContainers(host!, resolved!);
}

/** The node's own servers, for questions that are passed on: they are asked from the node, which reaches its own loopback. */
export async function nodeServers(files: ResolvFiles): Promise<string[]> {
  const {nameservers} = parseResolv(await readFile(files.host, 'utf8').catch(() => ''));
  return nameservers.length ? nameservers : DEFAULT_SERVERS;
}

/** Where our DNS answers: the host's domains, and our server alone, since a resolver that asks several takes the first to say that there is no such name. */
export function forNamed(host: Resolv, gateway: string): Resolv {
  return {nameservers: [gateway], search: host.search, options: [...host.options.filter(option => !option.startsWith('ndots:')), 'ndots:0']};
}
