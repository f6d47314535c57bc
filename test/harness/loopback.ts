/**
 * Registries and other servers of the tests listen on this machine's 127.0.0.1, which is not that of a test host. Each host's own 127.0.0.1 leads to ours for
 * the ports that such servers get, and its 127.0.0.53 to our name server there; what a host publishes or listens at itself goes before.
 */
import {execFileSync} from 'node:child_process';
import type {Running} from './cetus';

/** Both those of ports.ts and those of the kernel's `listen(0)`. */
const RANGE = '20000-60999';
const NAME_SERVER = '127.0.0.53';

function nft(rules: string, namespace?: string): void {
  const [program, ...args] = [...(namespace ? ['nsenter', `--net=/run/netns/${namespace}`] : []), 'nft', '-f', '-'];
  execFileSync(program!, args, {input: rules, stdio: ['pipe', 'ignore', 'pipe'], env: {...process.env, PATH: `${process.env.PATH}:/usr/sbin:/sbin`}});
}

function routeLocalnet(device: string, namespace?: string): void {
  const [program, ...args] = [...(namespace ? ['nsenter', `--net=/run/netns/${namespace}`] : []), 'sh', '-c', `echo 1 > /proc/sys/net/ipv4/conf/${device}/route_localnet`];
  execFileSync(program!, args);
}

/** Repeatable. Goes with the hosts and the bridge; our own part is in the table that the fleet takes along. */
export async function openRegistries({prefix, nodes = []}: Running): Promise<void> {
  const bridge = `cu-${prefix}`;
  const us = `${nodes[0]!.address.split('.').slice(0, 3).join('.')}.1`;
  routeLocalnet(bridge);
  nft(`table ip cetus_${prefix} {
  chain arriving { type nat hook prerouting priority dstnat; policy accept; }
}
flush chain ip cetus_${prefix} arriving
add rule ip cetus_${prefix} arriving iifname "${bridge}" ip daddr ${us} tcp dport ${RANGE} dnat to 127.0.0.1
add rule ip cetus_${prefix} arriving iifname "${bridge}" ip daddr ${us} meta l4proto { tcp, udp } th dport 53 dnat to ${NAME_SERVER}
`);
  for (const {namespace} of nodes) {
    routeLocalnet('eth0', namespace);
    nft(`table ip cetus_test
delete table ip cetus_test
table ip cetus_test {
  chain local { type nat hook output priority -90; policy accept; ip daddr 127.0.0.1 tcp dport ${RANGE} dnat to ${us}; ip daddr ${NAME_SERVER} meta l4proto { tcp, udp } th dport 53 dnat to ${us}; }
  chain leaving { type nat hook postrouting priority srcnat; policy accept; oifname "eth0" ip saddr 127.0.0.0/8 masquerade; }
}
`, namespace);
  }
}
