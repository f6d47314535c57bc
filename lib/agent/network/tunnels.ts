/**
 * The tunnels of this node's networks to other nodes, and who is behind them. Guarantees: a table is applied when `apply` resolves; what a node was told stays known across restarts,
 * and the kernel is brought to it again; a node without an underlay has none of this and pays nothing for it.
 * Refuses nothing: what comes later is merged, what is unknown waits for its network. Called by linux.ts, which gives each network its turn.
 */
import {existsSync, mkdirSync} from 'node:fs';
import type {Log} from '../../base/log';
import type {NetworkTable, NodeNetwork} from '../../schema/agent';
import {type Underlay, UNDERLAY_PORT} from '../../schema/node';
import type {Coprocess} from './coprocess';
import {networkingFailed} from './failures';
import type {Plug} from './links';
import type {Names} from './names';
import {Records, type SandboxRecord} from './records';
import type {RuleTable} from './table';
import {emptyTable, type KnownTable, mergeTable, type Remote, remotesOf} from './tables';
import {tool, tryTool} from './tool';
import {devicesIn, type Forwarding, forwardingIn, forwardingLines, forwardingOf, peerCommands, plugCommands, remoteCommands, TUNNEL_BYTES, tunnelCommands, tunnelLines, type TunnelsView} from './tunnel';

/** What was to be taken away and is not there. */
const MISSING = /^RTNETLINK answers: No such file or directory\n(Command failed .*\n)?/gm;

export interface TunnelsParts {
  /** Tables are kept here. */
  directory: string;
  /** Absent: there are no tunnels. */
  underlay: Underlay | undefined;
  names: Names;
  networks: Records<NodeNetwork>;
  sandboxes: Records<SandboxRecord>;
  host: Coprocess;
  table: RuleTable;
  log: Log;
}

export class Tunnels {
  private readonly tables: Records<KnownTable>;
  /** By network, as its table has them now. */
  private readonly remotes = new Map<string, Remote[]>();
  /** By network: what the kernel has of it; none where that is to be asked. */
  private readonly inKernel = new Map<string, Forwarding>();

  constructor(private readonly parts: TunnelsParts) {
    this.tables = new Records(parts.directory, id => `no table of network ${id}`, parts.log);
  }

  /** Devices of networks that are not on record, or of another underlay, go: the records are made new from what is said next. */
  async open(): Promise<void> {
    const {directory, names, networks, underlay} = this.parts;
    if (!underlay && !existsSync(directory)) return;
    mkdirSync(directory, {recursive: true, mode: 0o700});
    for (const device of devicesIn(await tool('ip', ['-j', '-d', 'link', 'show', 'type', 'vxlan']), names.aliasPrefix)) {
      const network = networks.get(device.networkId);
      const same = underlay && network?.vni === device.vni && device.local === underlay.address && device.port === (underlay.port ?? UNDERLAY_PORT);
      if (!same) await tryTool('ip', ['link', 'del', device.name]);
    }
    if (!underlay) {
      await tryTool('nft', ['delete', 'table', 'bridge', names.table]);
      return;
    }
    this.tables.load();
    for (const known of this.tables.all()) {
      if (!networks.get(known.networkId)) this.tables.delete(known.networkId);
      else this.remotes.set(known.networkId, remotesOf(known, underlay));
    }
  }

  /** Bytes of the largest packet of a container; undefined where no tunnel narrows it. */
  room(network: NodeNetwork): number | undefined {
    return this.has(network) ? this.parts.underlay!.mtu - TUNNEL_BYTES : undefined;
  }

  /** For the rules as a whole. */
  view(): TunnelsView | undefined {
    const {underlay, networks, sandboxes} = this.parts;
    if (!underlay) return undefined;
    const carried = networks.all().filter(network => this.has(network));
    const ids = new Set(carried.map(({id}) => id));
    return {
      underlay, tunnels: carried.map(network => this.nameOf(network)),
      plugs: sandboxes.all().flatMap(({plugs}) => plugs.filter(plug => ids.has(plug.networkId))),
      remotes: carried.flatMap(network => (this.remotes.get(network.id) ?? []).map(remote => ({tunnel: this.nameOf(network), remote}))),
    };
  }

  /** Who is on the network elsewhere, for names. */
  elsewhere(networkId: string): readonly Remote[] {
    return this.remotes.get(networkId) ?? [];
  }

  /** Rules for what a container may say; none where its networks have no tunnel. */
  plugged(verb: 'add' | 'delete', plugs: Plug[]): string[] {
    const {underlay, networks, names} = this.parts;
    if (!underlay) return [];
    return plugCommands(verb, names.table, plugs.filter(({networkId}) => {
      const network = networks.get(networkId);
      return network !== undefined && this.has(network);
    }));
  }

  /** After the network's bridge. Repeatable. */
  async make(network: NodeNetwork): Promise<void> {
    const {underlay, names, sandboxes, host, table} = this.parts;
    if (!underlay || !this.has(network)) return;
    const tunnel = this.nameOf(network);
    const exists = devicesIn(await tool('ip', ['-j', '-d', 'link', 'show', 'type', 'vxlan']), names.aliasPrefix).some(device => device.name === tunnel);
    const errors = await host.run(tunnelLines(tunnel, network, underlay, names.aliasPrefix, exists));
    if (errors) throw networkingFailed(`make the tunnel of network ${network.name}: ${errors.trim()}`);
    // Those that were plugged in before there was a tunnel are let through from now on.
    const plugs = sandboxes.all().flatMap(sandbox => sandbox.plugs.filter(plug => plug.networkId === network.id));
    await table.run([...tunnelCommands('add', names.table, tunnel), ...plugCommands('add', names.table, plugs)]);
    this.inKernel.delete(network.id);
    await this.program(network, []);
  }

  /** Before the network's bridge goes. */
  async remove(network: NodeNetwork): Promise<void> {
    const {underlay, names, table} = this.parts;
    if (!underlay) return;
    const remotes = this.elsewhere(network.id);
    this.tables.delete(network.id);
    this.remotes.delete(network.id);
    this.inKernel.delete(network.id);
    if (!this.has(network)) return;
    const tunnel = this.nameOf(network);
    await tryTool('ip', ['link', 'del', tunnel]);
    await table.run([...remoteCommands('delete', names.table, tunnel, [...remotes]), ...tunnelCommands('delete', names.table, tunnel), ...this.strangers([...remotes])], 'tolerant');
  }

  /** Merged into what is known; of a network that is not here yet it is kept until it is. */
  async apply(networkId: string, told: NetworkTable): Promise<void> {
    const {underlay, networks} = this.parts;
    if (!underlay) return;
    const known = mergeTable(this.tables.get(networkId) ?? emptyTable(networkId), told);
    const before = this.remotes.get(networkId) ?? [];
    this.tables.put(networkId, known);
    this.remotes.set(networkId, remotesOf(known, underlay));
    const network = networks.get(networkId);
    if (network && this.has(network)) await this.program(network, before);
  }

  /** The rules first: from then on what comes through is expected, and what is sent is let through. */
  private async program(network: NodeNetwork, before: Remote[]): Promise<void> {
    const {names, host, table} = this.parts;
    const tunnel = this.nameOf(network);
    const now = this.remotes.get(network.id) ?? [];
    const [old, wanted] = [remoteCommands('delete', names.table, tunnel, before), remoteCommands('delete', names.table, tunnel, now)];
    const staying = new Set(wanted);
    const past = new Set(old);
    // One that moves is new at its node, and nothing else of it is.
    const peers = new Set(before.map(({node, port}) => `${node} ${port}`));
    await table.run([
      ...peerCommands('add', names.table, now.filter(({node, port}) => !peers.has(`${node} ${port}`))), ...remoteCommands('add', names.table, tunnel, now.filter((_, n) => !past.has(wanted[n]!))),
    ]);
    await table.run([...old.filter(command => !staying.has(command)), ...this.strangers(before)], 'tolerant');

    const from = this.inKernel.get(network.id) ?? forwardingIn(
      await tool('bridge', ['-j', 'fdb', 'show', 'dev', tunnel]), await tool('ip', ['-j', 'neigh', 'show', 'dev', network.bridgeName, 'nud', 'permanent']));
    const to = forwardingOf(now);
    const lines = forwardingLines(tunnel, network.bridgeName, from, to);
    this.inKernel.delete(network.id);
    const errors = [
      lines.bridge.length ? (await tryTool('bridge', ['-force', '-batch', '-'], `${lines.bridge.join('\n')}\n`)).errors : '',
      lines.ip.length ? await host.run(lines.ip) : '',
    ].join('');
    // What is asked to go may have gone; the rest is looked at anew the next time.
    if (errors.replace(MISSING, '').trim()) throw networkingFailed(`tell network ${network.name} where others are: ${errors.trim()}`);
    this.inKernel.set(network.id, to);
  }

  /** Nodes of these of which no network has anybody any more. */
  private strangers(gone: Remote[]): string[] {
    const here = new Set([...this.remotes.values()].flatMap(remotes => remotes.map(({node}) => node)));
    const {underlay, names} = this.parts;
    return peerCommands('delete', names.table, gone.filter(({node}) => !here.has(node) && node !== underlay?.address));
  }

  private has(network: NodeNetwork): boolean {
    return this.parts.underlay !== undefined && network.vni !== undefined;
  }

  private nameOf(network: NodeNetwork): string {
    return this.parts.names.tunnel(network.vni!);
  }
}
