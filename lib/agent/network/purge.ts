/**
 * Takes off the machine whatever an instance's networking left there: namespaces, bridges, rules, and the places in foreign FORWARD chains. For `cetus down`,
 * with no agent running and no container left. Repeatable; found by the prefix alone, so that it works without records too.
 */
import {readdir, rm} from 'node:fs/promises';
import type {Log} from '../../base/log';
import {ForwardAccess} from './forward';
import {Names, NETNS_DIR, ourBridges} from './names';
import {tool, tryTool} from './tool';
import {devicesIn} from './tunnel';

export async function purgeLinuxNetworking(options: {prefix: string; stateDir: string; log: Log}): Promise<void> {
  const names = new Names(options.prefix, '0');
  for (const namespace of await readdir(NETNS_DIR).catch(() => []))
    if (namespace.startsWith(names.namespacePrefix)) await tool('ip', ['netns', 'del', namespace]);
  for (const {name} of devicesIn(await tool('ip', ['-j', '-d', 'link', 'show', 'type', 'vxlan']), names.aliasPrefix)) await tool('ip', ['link', 'del', name]);
  for (const bridge of ourBridges(await tool('ip', ['-j', 'link', 'show', 'type', 'bridge']), names.aliasPrefix)) await tool('ip', ['link', 'del', bridge.name]);
  // A namespace lives on, with its end of a link, until the last connection that was cut short in it has given up: minutes. Our end takes it along.
  const links = JSON.parse(await tool('ip', ['-j', 'link', 'show', 'type', 'veth']) || '[]') as {ifname?: string}[];
  for (const {ifname} of links) if (ifname?.startsWith(`v${options.prefix}`)) await tryTool('ip', ['link', 'del', ifname]);
  for (const family of ['ip', 'bridge']) await tryTool('nft', ['delete', 'table', family, names.table]);
  await new ForwardAccess(names.comment, options.log).sync(() => []);
  await rm(options.stateDir, {recursive: true, force: true});
}
