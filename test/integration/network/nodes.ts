/**
 * Several nodes on one underlay, each a network namespace with the networking under test in a process of its own:
 *
 *   node 1 10.77.0.1 --+
 *   node 2 10.77.0.2 --+-- bridge 10.77.0.254 in a namespace of its own (1400 bytes)
 *   node 3 10.77.0.3 --+
 *
 * The test plays the control plane: `place` and `gone` number what happens, `tell` gives a node the table.
 */
import {mkdtempSync, readdirSync, rmSync} from 'node:fs';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import type {NetworkTable, NodeNetwork, TableRow} from '../../../lib/schema/agent';
import type {NetworkAttachment} from '../../../lib/schema/container';
import {anAttachment, Driver, Peers, sh} from './world';

export const UNDERLAY_MTU = 1400;
export const OUTSIDER = '10.77.0.254';

export class FleetNode {
  private current: Driver | undefined;
  readonly underlay: {address: string; mtu: number};

  constructor(readonly n: number, readonly ns: string, readonly prefix: string, readonly stateDir: string) {
    this.underlay = {address: `10.77.0.${n}`, mtu: UNDERLAY_MTU};
  }

  get id(): string { return `node-${this.n}`; }
  get driver(): Driver { return this.current!; }

  async start(options: object = {}): Promise<void> {
    this.current = new Driver(`/run/netns/${this.ns}`, {stateDir: this.stateDir, prefix: this.prefix, underlay: this.underlay, ...options});
    await this.current.ready;
    await this.current.open();
  }

  /** As kill -9 does. */
  async kill(): Promise<void> { await this.current?.kill(); }
  run(...command: string[]): string { return sh('nsenter', `--net=/run/netns/${this.ns}`, ...command); }

  leftovers(): {namespaces: string[]; interfaces: string[]; tables: string[]} {
    return {
      namespaces: readdirSync('/run/netns').filter(name => name.startsWith(`cetus-${this.prefix}-`)),
      interfaces: (JSON.parse(this.run('ip', '-j', 'link')) as {ifname: string}[]).map(l => l.ifname).filter(name => !['lo', 'underlay'].includes(name)),
      tables: this.run('nft', 'list', 'tables').split('\n').filter(line => line.includes('cetus')),
    };
  }
}

export class Nodes extends Peers {
  readonly dir = mkdtempSync(join(tmpdir(), 'cetus-nodes-'));
  readonly tag = `u${process.pid.toString(36).slice(-3)}`;
  readonly switch = `${this.tag}-switch`;
  readonly nodes: FleetNode[];
  private version = 0;
  private readonly rows = new Map<string, TableRow>();

  constructor(count: number) {
    super();
    sh('ip', 'netns', 'add', this.switch);
    sh('ip', '-n', this.switch, 'link', 'add', 'br0', 'type', 'bridge');
    sh('ip', '-n', this.switch, 'link', 'set', 'br0', 'mtu', String(UNDERLAY_MTU), 'up');
    sh('ip', '-n', this.switch, 'addr', 'add', `${OUTSIDER}/24`, 'dev', 'br0');
    this.nodes = Array.from({length: count}, (_, i) => {
      const node = new FleetNode(i + 1, `${this.tag}-n${i + 1}`, `${this.tag}${i + 1}`, join(this.dir, `n${i + 1}`));
      sh('ip', 'netns', 'add', node.ns);
      sh('ip', '-n', node.ns, 'link', 'set', 'lo', 'up');
      sh('ip', '-n', node.ns, 'link', 'add', 'underlay', 'mtu', String(UNDERLAY_MTU), 'type', 'veth', 'peer', 'name', `p${i + 1}`, 'mtu', String(UNDERLAY_MTU), 'netns', this.switch);
      sh('ip', '-n', this.switch, 'link', 'set', `p${i + 1}`, 'master', 'br0', 'up');
      sh('ip', '-n', node.ns, 'addr', 'add', `${node.underlay.address}/24`, 'dev', 'underlay');
      sh('ip', '-n', node.ns, 'link', 'set', 'underlay', 'up');
      sh('ip', '-n', node.ns, 'route', 'add', 'default', 'via', OUTSIDER);
      return node;
    });
  }

  /** The container is on that node now; its row is the newest. */
  place(node: FleetNode, containerId: string, {networkId, address, mac, aliases}: NetworkAttachment): void {
    this.rows.set(`${networkId}/${address}`, {address, mac, containerId, nodeId: node.id, aliases, version: String(this.version += 1)});
  }

  gone(networkId: string, address: string): void {
    this.version += 1;
    this.rows.delete(`${networkId}/${address}`);
  }

  table(network: NodeNetwork): NetworkTable {
    const rows = [...this.rows].filter(([key]) => key.startsWith(`${network.id}/`)).map(([, row]) => row);
    return {rows, gone: [], nodes: this.nodes.map(node => ({nodeId: node.id, address: node.underlay.address, generation: 1})), asOf: String(this.version)};
  }

  async tell(network: NodeNetwork, nodes = this.nodes): Promise<void> {
    await Promise.all(nodes.map(node => node.driver.applyTable(network, this.table(network))));
  }

  /** A container of its own name on that node, on these networks; the namespace. */
  async container(node: FleetNode, name: string, networks: NodeNetwork[], host: number): Promise<string> {
    const attachments = networks.map((network, i) => anAttachment(network, host, {aliases: [name], ...(i > 0 ? {isDefaultRoute: false} : {})}));
    const {netnsPath} = await node.driver.createSandbox({containerId: name, hostname: name, containerName: name, networks, attachments, ports: []});
    for (const attachment of attachments) this.place(node, name, attachment);
    return netnsPath;
  }

  async destroy(): Promise<void> {
    await this.stopAll();
    for (const node of this.nodes) await node.kill();
    for (const name of readdirSync('/run/netns')) if (name.startsWith(`cetus-${this.tag}`) || name.startsWith(`${this.tag}-`)) sh('ip', 'netns', 'del', name);
    rmSync(this.dir, {recursive: true});
  }
}

/** Frames of IPv4 that pass a namespace's interface: counted by its own rules, so that nothing has to be caught at the right moment. */
export class Counter {
  constructor(private readonly netns: string, device: string, match: string) {
    this.run(`add table netdev probe; add chain netdev probe c { type filter hook ingress device "${device}" priority 0; }; add rule netdev probe c ${match} counter`);
  }

  get packets(): number { return Number(/counter packets (\d+)/.exec(sh('nsenter', `--net=${this.netns}`, 'nft', 'list', 'table', 'netdev', 'probe'))![1]); }
  remove(): void { this.run('delete table netdev probe'); }
  private run(commands: string): void { sh('nsenter', `--net=${this.netns}`, 'nft', commands); }
}
