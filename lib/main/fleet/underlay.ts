/**
 * The network that test hosts stand on: a bridge in our own namespace, a network namespace per host with one interface on it, and the way out through
 * masquerading. Every call may be repeated: what stands is kept, so that containers outlive a `cetus fleet` that was killed. What a host's agent makes (bridges,
 * rules) lies in its namespace and goes with it; the namespaces of its containers are files of this machine and go by the host's prefix.
 */
import fs from 'node:fs';
import {ForwardAccess} from '../../agent/network/forward';
import {NETNS_DIR} from '../../agent/network/names';
import {tool, tryTool} from '../../agent/network/tool';
import type {Log} from '../../base/log';
import {signalAll, untilGone} from '../up/processes';
import {type FleetLayout, namespaceOf, type NodeLayout, ourAddress} from './layout';

const NSFS_MAGIC = 0x6e736673;
const KILL_WAIT_MS = 5_000;

export type Direction = 'in' | 'out' | 'both';

export class Underlay {
  constructor(private readonly layout: FleetLayout, private readonly prefix: string, private readonly log: Log) {}

  static bridgeName = (prefix: string): string => `cu-${prefix}`;
  static stands = async (prefix: string): Promise<boolean> => (await tryTool('ip', ['link', 'show', 'dev', Underlay.bridgeName(prefix)])).code === 0;

  private get bridge(): string { return Underlay.bridgeName(this.prefix); }
  private get table(): string { return `cetus_${this.prefix}`; }
  private get forward(): ForwardAccess { return new ForwardAccess(`cetus ${this.prefix}`, this.log); }
  private port(node: NodeLayout): string { return `cp-${node.prefix}`; }

  pathOf(node: NodeLayout): string { return `${NETNS_DIR}/${namespaceOf(node, this.prefix)}`; }

  async ensure(): Promise<void> {
    if (!await Underlay.stands(this.prefix)) {
      await tool('ip', ['link', 'add', this.bridge, 'type', 'bridge']);
      await tool('ip', ['addr', 'add', `${ourAddress(this.layout)}/24`, 'dev', this.bridge]);
    }
    await tool('ip', ['link', 'set', this.bridge, 'up']);
    fs.writeFileSync('/proc/sys/net/ipv4/ip_forward', '1');
    await this.nft(undefined, `table ip ${this.table}
delete table ip ${this.table}
table ip ${this.table} {
  chain leaving {
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr ${this.layout.base}.0/24 oifname != "${this.bridge}" masquerade
  }
}`);
    await this.forward.sync(() => [this.bridge]);
  }

  /** Answers whether the host stood already; if not, this is its boot. */
  async ensureHost(node: NodeLayout): Promise<boolean> {
    const name = namespaceOf(node, this.prefix);
    if (isNamespace(this.pathOf(node)) && (await tryTool('ip', ['-n', name, 'link', 'show', 'dev', 'eth0'])).code === 0) {
      await this.plug(node);
      return true;
    }
    await this.removeHost(node);
    await tool('ip', ['netns', 'add', name]);
    await tool('ip', ['link', 'add', this.port(node), 'type', 'veth', 'peer', 'name', 'eth0', 'netns', name]);
    await tool('ip', ['link', 'set', this.port(node), 'master', this.bridge]);
    await tool('ip', ['-n', name, 'addr', 'add', `${node.address}/24`, 'dev', 'eth0']);
    for (const link of ['lo', 'eth0']) await tool('ip', ['-n', name, 'link', 'set', link, 'up']);
    await tool('ip', ['-n', name, 'route', 'add', 'default', 'via', ourAddress(this.layout)]);
    await this.plug(node);
    return false;
  }

  async plug(node: NodeLayout): Promise<void> { await tool('ip', ['link', 'set', this.port(node), 'up']); }
  async unplug(node: NodeLayout): Promise<void> { await tool('ip', ['link', 'set', this.port(node), 'down']); }

  /**
   * Packets to or from the host vanish, in the direction that is named as the host sees it: all of them, or those that it has to do with these addresses. In
   * place of what was cut before.
   */
  async cut(node: NodeLayout, direction: Direction, addresses?: string[]): Promise<void> {
    const set = addresses && `{ ${addresses.join(', ')} }`;
    const chain = (hook: 'input' | 'output', wanted: boolean, match: string): string => `chain ${hook} { type filter hook ${hook} priority -400; policy accept; ${wanted ? `${match} drop` : ''}\n }`;
    await this.nft(node, `table ip cetus_cut\ndelete table ip cetus_cut\ntable ip cetus_cut {
${chain('input', direction !== 'out', set ? `ip saddr ${set}` : 'iifname "eth0"')}
${chain('output', direction !== 'in', set ? `ip daddr ${set}` : 'oifname "eth0"')}
}`);
  }

  async mend(node: NodeLayout): Promise<void> {
    await this.nft(node, 'table ip cetus_cut\ndelete table ip cetus_cut');
    await this.plug(node);
  }

  /** Every process of the host but those of its containers that have namespaces of their own. */
  processes(node: NodeLayout): number[] {
    const inode = fs.statSync(this.pathOf(node), {throwIfNoEntry: false})?.ino;
    if (inode === undefined) return [];
    return fs.readdirSync('/proc').filter((name) => /^\d+$/.test(name)).map(Number).filter((pid) => {
      try {
        return fs.readlinkSync(`/proc/${pid}/ns/net`) === `net:[${inode}]` && !/^\d+ \(.*\) [ZX]/s.test(fs.readFileSync(`/proc/${pid}/stat`, 'latin1'));
      } catch {
        return false; // it has ended
      }
    });
  }

  /** With all that lives in it, and the namespaces of its containers. */
  async removeHost(node: NodeLayout): Promise<void> {
    signalAll(this.processes(node), 'SIGKILL');
    await untilGone(() => this.processes(node), KILL_WAIT_MS);
    for (const name of fs.existsSync(NETNS_DIR) ? fs.readdirSync(NETNS_DIR) : [])
      if (name === namespaceOf(node, this.prefix) || name.startsWith(`cetus-${node.prefix}-`)) await tryTool('ip', ['netns', 'del', name]);
    // Its namespace may live on until the last connection that was cut short in it has given up; our end takes the pair along.
    await tryTool('ip', ['link', 'del', this.port(node)]);
  }

  async remove(): Promise<void> {
    for (const node of this.layout.nodes) await this.removeHost(node);
    await tryTool('ip', ['link', 'del', this.bridge]);
    await tryTool('nft', ['delete', 'table', 'ip', this.table]);
    await this.forward.sync(() => []);
  }

  private async nft(node: NodeLayout | undefined, rules: string): Promise<void> {
    const [program, ...words] = [...(node ? ['nsenter', `--net=${this.pathOf(node)}`] : []), 'nft', '-f', '-'];
    await tool(program!, words, `${rules}\n`);
  }
}

function isNamespace(file: string): boolean {
  try {
    return fs.statfsSync(file).type === NSFS_MAGIC;
  } catch {
    return false;
  }
}
