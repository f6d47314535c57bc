/**
 * NodeNetworking with iproute2 and nftables. Repeatable throughout; what is half made when a step fails is taken away before the error is thrown,
 * and what a crash leaves is found by the next open(). See README.md for the rules and for the measurements behind the shape of this.
 */
import {readdir, statfs, writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import {type Clock, systemClock} from '../../base/clock';
import {CetusError} from '../../base/errors';
import type {Log} from '../../base/log';
import type {NetworkTable, NodeNetwork} from '../../schema/agent';
import {type NetworkAttachment, type PublishedPort, renamedIn, withDefaultRoute} from '../../schema/container';
import type {Underlay} from '../../schema/node';
import {Turns} from '../turns';
import {type Coprocess, ipCoprocess} from './coprocess';
import {networkingFailed} from './failures';
import {Flows} from './flows';
import {ForwardAccess} from './forward';
import {Namespaces} from './inside';
import {DEFAULT_MTU, holderOf, linkAlias, uplinkMtu} from './interfaces';
import {bridgeLines, insideCommands, outsideLines, type Plug, removeLines} from './links';
import {NameService} from './name-service';
import {checkAttachment, checkContainerId, checkNetwork, Names, NETNS_DIR, optionsOf, ourBridges} from './names';
import type {LinkCommand} from './netlink';
import type {NodeNetworking, ResolvSettings, SandboxRequest} from './network';
import {PublishedPorts} from './published';
import {Records, type SandboxRecord} from './records';
import {checkHostIp, Reservations} from './reservations';
import {RESOLV_FILES, type ResolvFiles} from './resolv';
import {networkCommands, publicationCommands} from './rules';
import {RuleTable} from './table';
import {Tunnels} from './tunnels';
import {tool, tryTool} from './tool';
import {WarmNamespaces} from './warm';

export interface LinuxNetworkingOptions {
  /** Records live here; nothing else writes into it. */
  stateDir: string;
  /** 1 to 5 lower case letters and digits, different for each agent on the machine and the same in each of its lives. */
  prefix: string;
  /** Where other nodes reach this one. Absent: networks end at the node. */
  underlay?: Underlay;
  log: Log;
  clock?: Clock;
  /** Prepared namespaces. Default 4. */
  warm?: number;
  resolvFiles?: ResolvFiles;
  /** How often rules that others may have flushed are looked after. Default 30 s. */
  checkMs?: number;
}

const NSFS_MAGIC = 0x6e736673;
const WARM_NAMESPACES = 4;
const CHECK_MS = 30_000;
/** Three digits of base 36: names of this life of the agent differ from those of the last. */
const LIVES = 36 ** 3;

export function createLinuxNetworking(options: LinuxNetworkingOptions): NodeNetworking {
  return new LinuxNetworking(options);
}

class LinuxNetworking implements NodeNetworking {
  private readonly log: Log;
  private readonly clock: Clock;
  private readonly names: Names;
  private readonly host: Coprocess = ipCoprocess();
  private readonly namespaces = new Namespaces();
  private readonly table: RuleTable;
  private readonly forward: ForwardAccess;
  private readonly flows: Flows;
  private readonly reservations: Reservations;
  private readonly published: PublishedPorts;
  private readonly networks: Records<NodeNetwork>;
  private readonly sandboxRecords: Records<SandboxRecord>;
  private readonly warm: WarmNamespaces;
  private readonly nameService: NameService;
  private readonly tunnels: Tunnels;
  private readonly closed = new AbortController();
  /** Networks whose bridge and rules are known to stand, by what they were made of. */
  private readonly standing = new Map<string, Promise<string>>();
  /** One change at a time per container and per network. */
  private readonly turns = new Turns();
  private uplinkMtu = DEFAULT_MTU;
  private watching: Promise<void> = Promise.resolve();

  constructor(private readonly options: LinuxNetworkingOptions) {
    this.log = options.log.child({component: 'network'});
    this.clock = options.clock ?? systemClock;
    this.names = new Names(options.prefix, (Math.floor(this.clock.now() / 1000) % LIVES).toString(36));
    this.networks = new Records(join(options.stateDir, 'networks'), (id) => `network ${id} not found`, this.log);
    this.sandboxRecords = new Records(join(options.stateDir, 'sandboxes'), (id) => `no network sandbox for container ${id}`, this.log);
    this.table = new RuleTable(this.names.table, () => ({
      networks: this.networks.all(), publications: this.sandboxRecords.all().flatMap(s => this.published.publications(s)), resolvers: this.nameService.all(), tunnels: this.tunnels.view(),
    }), this.log);
    this.tunnels = new Tunnels({
      directory: join(options.stateDir, 'tables'), underlay: options.underlay, names: this.names, networks: this.networks, sandboxes: this.sandboxRecords, host: this.host, table: this.table, log: this.log,
    });
    this.nameService = new NameService({
      networks: this.networks, sandboxes: this.sandboxRecords, table: this.table, tableName: this.names.table, files: options.resolvFiles ?? RESOLV_FILES, log: this.log,
      elsewhere: networkId => this.tunnels.elsewhere(networkId),
    });
    this.forward = new ForwardAccess(this.names.comment, this.log);
    this.flows = new Flows(this.log);
    this.reservations = new Reservations(() => void this.table.check().catch((err: unknown) => this.log.warn({err}, 'rules could not be checked')));
    this.published = new PublishedPorts(this.networks, this.sandboxRecords, this.reservations);
    this.warm = new WarmNamespaces({size: options.warm ?? WARM_NAMESPACES, names: this.names, host: this.host, namespaces: this.namespaces, clock: this.clock, log: this.log});
  }

  async open(): Promise<void> {
    this.networks.load();
    this.sandboxRecords.load();
    await writeFile('/proc/sys/net/ipv4/ip_forward', '1');
    this.uplinkMtu = await uplinkMtu();
    await this.recover();
    await this.table.replace();
    await this.forward.sync(() => this.bridgeNames());
    for (const record of this.sandboxRecords.all())
      await this.published.holdAgain(record, (err, port) => this.log.warn({err, port, containerId: record.containerId}, 'a published port could not be held again; it stays published'));
    for (const {containerId, plugs} of this.sandboxRecords.all())
      await this.nameService.serve(plugs.map(p => p.attachment)).catch((err: unknown) => this.log.error({err, containerId}, 'a running container finds no names'));
    void this.warm.refill(0);
    this.watching = this.watch();
  }

  async ensureNetwork(network: NodeNetwork): Promise<void> {
    const wanted = JSON.stringify(network);
    const standing = this.standing.get(network.id);
    if (standing && await standing.catch(() => '') === wanted) return;
    checkNetwork(network);
    await this.turns.hold(`network ${network.id}`, async () => {
      if (await this.standing.get(network.id)?.catch(() => '') === wanted) return;
      const made = this.makeNetwork(network).then(() => wanted);
      this.standing.set(network.id, made);
      await made.catch((err: unknown) => {
        this.standing.delete(network.id);
        throw err;
      });
    });
  }

  async removeNetwork(networkId: string): Promise<void> {
    await this.turns.hold(`network ${networkId}`, async () => {
      const network = this.networks.get(networkId);
      if (!network) return;
      const users = this.sandboxRecords.all().filter(s => s.plugs.some(p => p.networkId === networkId)).map(s => s.containerId);
      if (users.length) throw new CetusError('conflict', `network ${network.name} has active endpoints`, {info: {containers: users}});
      this.standing.delete(networkId);
      await this.nameService.stop(networkId);
      await this.tunnels.remove(network);
      await tryTool('ip', ['link', 'del', network.bridgeName]);
      await this.table.run(networkCommands('delete', this.names.table, network), 'tolerant');
      this.networks.delete(networkId);
      await this.forward.sync(() => this.bridgeNames());
    });
  }

  async applyTable(network: NodeNetwork, table: NetworkTable): Promise<void> {
    if (!this.options.underlay) return;
    checkNetwork(network);
    // One that is not here is not made for it: the table may come late, and the network be gone for good.
    if (this.networks.get(network.id)) await this.ensureNetwork(network);
    await this.turns.hold(`network ${network.id}`, () => this.tunnels.apply(network.id, table));
  }

  createSandbox(request: SandboxRequest): Promise<{netnsPath: string}> {
    checkContainerId(request.containerId);
    request.attachments.forEach(checkAttachment);
    request.ports.forEach(port => checkHostIp(port.hostIp));
    return this.turns.hold(request.containerId, async () => {
      await Promise.all(request.networks.map(network => this.ensureNetwork(network)));
      await this.nameService.serve(request.attachments);
      const old = this.sandboxRecords.get(request.containerId);
      if (old) {
        const same = JSON.stringify([old.plugs.map(p => p.attachment), old.ports]) === JSON.stringify([request.attachments, request.ports]);
        if (same && await isNamespace(old.namespace)) return {netnsPath: `${NETNS_DIR}/${old.namespace}`};
        await this.dismantle(old);
      }
      return this.build(request);
    });
  }

  createEmptySandbox(containerId: string): Promise<{netnsPath: string}> {
    checkContainerId(containerId);
    return this.turns.hold(containerId, async () => {
      const old = this.sandboxRecords.get(containerId);
      if (old && old.plugs.length === 0 && await isNamespace(old.namespace)) return {netnsPath: `${NETNS_DIR}/${old.namespace}`};
      if (old) await this.dismantle(old);
      const {namespace} = this.names.next();
      this.sandboxRecords.put(containerId, {containerId, namespace, plugs: [], ports: []});
      await this.onHost([`netns add ${namespace}`]);
      await this.inNamespace(namespace, [{do: 'set', name: 'lo'}]);
      return {netnsPath: `${NETNS_DIR}/${namespace}`};
    });
  }

  async connect(containerId: string, network: NodeNetwork, attachment: NetworkAttachment): Promise<void> {
    checkAttachment(attachment);
    await this.ensureNetwork(network);
    await this.nameService.serve([attachment]);
    await this.turns.hold(containerId, async () => {
      const record = this.sandboxRecords.need(containerId);
      if (record.plugs.some(p => p.networkId === network.id)) return;
      const taken = new Set(record.plugs.map(p => p.inside));
      const inside = Array.from({length: taken.size + 1}, (_, i) => `eth${i}`).find(name => !taken.has(name))!;
      const plug: Plug = {networkId: network.id, bridge: network.bridgeName, inside, outside: this.names.next().hostInterface, attachment};
      await this.change(record, {...record, plugs: routed([...record.plugs, plug])}, async () => {
        await this.inNamespace(record.namespace, insideCommands(plug, this.mtu(network), {make: true}));
        await this.onHost(outsideLines(plug, network, this.mtu(network), record.ports.length > 0));
      });
    });
  }

  async disconnect(containerId: string, networkId: string): Promise<void> {
    await this.turns.hold(containerId, async () => {
      const record = this.sandboxRecords.get(containerId);
      const plug = record?.plugs.find(p => p.networkId === networkId);
      if (!record || !plug) return;
      const plugs = routed(record.plugs.filter(p => p !== plug));
      // The default route goes with its interface; the next network that leads outwards takes over.
      const next = plug.attachment.isDefaultRoute ? plugs.find(p => p.attachment.isDefaultRoute && p.attachment.gateway) : undefined;
      await this.change(record, {...record, plugs}, () => this.inNamespace(record.namespace, [
        {do: 'remove', name: plug.inside}, ...(next?.attachment.gateway ? [{do: 'defaultRoute', name: next.inside, gateway: next.attachment.gateway} as const] : []),
      ]));
    });
  }

  async removeSandbox(containerId: string): Promise<void> {
    await this.turns.hold(containerId, async () => {
      const record = this.sandboxRecords.get(containerId);
      if (record) await this.dismantle(record);
    });
  }

  async sandboxes(): Promise<string[]> { return this.sandboxRecords.ids(); }
  async bridges(): Promise<string[]> { return (await this.ourBridges()).map(b => b.name); }
  async publishedPorts(): Promise<PublishedPort[]> { return this.sandboxRecords.all().flatMap(s => s.ports); }
  async publishedAddress(containerId: string): Promise<string> { return this.published.address(this.sandboxRecords.need(containerId)); }
  resolvConf(attachments: NetworkAttachment[]): Promise<ResolvSettings> { return this.nameService.resolvConf(attachments); }

  async rename(containerId: string, from: string, to: string): Promise<void> {
    await this.turns.hold(containerId, async () => {
      const record = this.sandboxRecords.get(containerId);
      if (!record) return;
      this.sandboxRecords.put(containerId, {...record, plugs: record.plugs.map(plug => ({...plug, attachment: renamedIn([plug.attachment], from, to)[0]!}))});
    });
  }

  /** Running containers, their bridges and rules stay as they are. */
  async close(): Promise<void> {
    this.closed.abort(new CetusError('canceled', 'networking closes'));
    await this.watching;
    await this.warm.close();
    await this.turns.settled();
    await this.reservations.releaseAll();
    this.nameService.close();
    this.table.close();
    this.host.end();
    await this.namespaces.close();
  }

  private async build(request: SandboxRequest): Promise<{netnsPath: string}> {
    const started = performance.now();
    const networks = request.attachments.map(attachment => this.networks.need(attachment.networkId));
    const warm = await this.warm.take();
    const plugs = request.attachments.map((attachment, i): Plug => ({
      networkId: attachment.networkId, bridge: networks[i]!.bridgeName, inside: `eth${i}`, outside: i === 0 ? warm.hostInterface : this.names.next().hostInterface, attachment,
    }));
    const record: SandboxRecord = {containerId: request.containerId, namespace: warm.namespace, plugs, ports: request.ports, ...(request.dns?.length ? {dns: request.dns} : {})};
    try {
      await this.published.reserve(request, record);
      this.sandboxRecords.put(request.containerId, record);
      const inside: LinkCommand[] = plugs.length
        ? plugs.flatMap((plug, i) => insideCommands(plug, this.mtu(networks[i]!), {make: i > 0}))
        : [{do: 'remove', name: 'eth0'}];
      // The first pair exists, so both its ends can be worked on at once; further pairs are made inside and must exist first.
      const outside = (from: number, to?: number): string[] => plugs.slice(from, to).flatMap((plug, i) => outsideLines(plug, networks[from + i]!, this.mtu(networks[from + i]!), record.ports.length > 0));
      await Promise.all([
        warm.inside.run(inside),
        this.onHost(outside(0, 1)),
        this.table.run([...publicationCommands('add', this.names.table, this.published.publications(record)), ...this.tunnels.plugged('add', plugs)]),
      ]);
      await this.onHost(outside(1));
      await this.flows.forget(this.published.publications(record));
    } catch (err) {
      if (this.sandboxRecords.get(request.containerId) === record) await this.dismantle(record);
      else await this.warm.remove(warm);
      throw err;
    } finally {
      warm.inside.close();
    }
    this.log.debug({containerId: request.containerId, ms: performance.now() - started}, 'sandbox made');
    return {netnsPath: warm.path};
  }

  /** Removes whatever there is of it; each part may be missing. */
  private async dismantle(record: SandboxRecord): Promise<void> {
    await Promise.all([
      this.table.run([...publicationCommands('delete', this.names.table, this.published.publications(record)), ...this.tunnels.plugged('delete', record.plugs)], 'tolerant'),
      this.host.run(removeLines(record.namespace, record.plugs)),
    ]);
    await Promise.all([this.flows.forget(this.published.publications(record)), this.published.release(record)]);
    if (await isNamespace(record.namespace)) throw networkingFailed(`network namespace ${record.namespace} could not be removed`);
    this.sandboxRecords.delete(record.containerId);
  }

  /** A change of plugs, with the publications that follow from it. */
  private async change(before: SandboxRecord, after: SandboxRecord, act: () => Promise<void>): Promise<void> {
    const old = this.published.publications(before);
    const now = this.published.publications(after);
    this.sandboxRecords.put(after.containerId, after);
    await act().catch((err: unknown) => {
      this.sandboxRecords.put(before.containerId, before);
      throw err;
    });
    await this.table.run(this.tunnels.plugged('delete', before.plugs.filter(plug => !after.plugs.some(p => p.outside === plug.outside))), 'tolerant');
    await this.table.run(this.tunnels.plugged('add', after.plugs.filter(plug => !before.plugs.some(p => p.outside === plug.outside))));
    if (JSON.stringify(old) === JSON.stringify(now)) return;
    await this.table.run([...publicationCommands('delete', this.names.table, old)], 'tolerant');
    await this.table.run(publicationCommands('add', this.names.table, now));
    await this.flows.forget([...old, ...now]);
  }

  private async makeNetwork(network: NodeNetwork): Promise<void> {
    const existing = await linkAlias(network.bridgeName);
    const ours = `${this.names.aliasPrefix}${network.id}`;
    if (existing !== undefined && existing !== ours) throw new CetusError('conflict', `interface ${network.bridgeName} exists and does not belong to network ${network.name}`);
    const holder = existing === undefined ? await holderOf(network.gateway) : undefined;
    if (holder) throw new CetusError('conflict', `network ${network.name}: interface ${holder} of this machine has the address ${network.gateway} already`);
    const before = this.networks.get(network.id);
    if (before && before.bridgeName !== network.bridgeName) throw new CetusError('conflict', `network ${network.name} has bridge ${before.bridgeName} on this node, not ${network.bridgeName}`);
    this.networks.put(network.id, network);
    await this.onHost(bridgeLines(network, this.names.aliasPrefix, this.mtu(network), existing !== undefined));
    // Published ports answer at 127.0.0.1 too; the guard chain keeps containers from using this the other way.
    await writeFile(`/proc/sys/net/ipv4/conf/${network.bridgeName}/route_localnet`, '1');
    await writeFile(`/proc/sys/net/ipv6/conf/${network.bridgeName}/disable_ipv6`, '1').catch(() => undefined);
    if (before && JSON.stringify(before) !== JSON.stringify(network)) await this.table.run(networkCommands('delete', this.names.table, before), 'tolerant');
    await this.table.run(networkCommands('add', this.names.table, network));
    await this.tunnels.make(network);
    await this.forward.sync(() => this.bridgeNames());
  }

  /** After a start: what is on record and exists is adopted; what exists and is not on record goes, and the other way round. */
  private async recover(): Promise<void> {
    for (const record of this.sandboxRecords.all())
      if (!await isNamespace(record.namespace)) this.sandboxRecords.delete(record.containerId);
    const onRecord = new Set(this.sandboxRecords.all().map(s => s.namespace));
    const found = (await readdir(NETNS_DIR).catch(() => [])).filter(name => name.startsWith(this.names.namespacePrefix));
    await this.host.run(found.filter(name => !onRecord.has(name)).map(name => `netns del ${name}`));
    for (const bridge of await this.ourBridges())
      if (this.networks.get(bridge.networkId)?.bridgeName !== bridge.name) await tryTool('ip', ['link', 'del', bridge.name]);
    await this.tunnels.open();
    await this.table.replace();
    for (const network of this.networks.all()) await this.ensureNetwork(network);
    const lines = this.sandboxRecords.all().flatMap(s => s.plugs.map(p => `link set ${p.outside} master ${p.bridge} up`));
    const errors = await this.host.run(lines);
    if (errors) this.log.warn({errors}, 'interfaces of adopted sandboxes');
    this.log.info({sandboxes: onRecord.size, networks: this.networks.ids().length, orphans: found.length - onRecord.size}, 'network state recovered');
  }

  private async watch(): Promise<void> {
    const {signal} = this.closed;
    while (!signal.aborted) {
      await this.clock.sleep(this.options.checkMs ?? CHECK_MS, signal).catch(() => undefined);
      if (signal.aborted) return;
      await this.table.check().then(() => this.checkBridges()).then(() => this.forward.sync(() => this.bridgeNames())).catch((err: unknown) => this.log.warn({err}, 'rules could not be checked'));
    }
  }

  /** A bridge that somebody deleted is made again, with all that was plugged into it: containers lost nothing of theirs but the way. */
  private async checkBridges(): Promise<void> {
    const there = new Set(this.networks.ids().length ? await this.bridges() : []);
    for (const network of this.networks.all().filter(n => !there.has(n.bridgeName))) {
      // One that is just being made or removed is on its turn, and looked at again afterwards.
      await this.turns.hold(`network ${network.id}`, async () => {
        if (this.networks.get(network.id) !== network || await linkAlias(network.bridgeName) !== undefined) return;
        this.log.warn({networkId: network.id, bridge: network.bridgeName}, 'a bridge was deleted; it is made anew');
        // ip remembers which interface a name was, for as long as it runs.
        await this.host.renew();
        await this.makeNetwork(network);
        const plugged = this.sandboxRecords.all().flatMap(s => s.plugs.filter(p => p.networkId === network.id).flatMap(plug => outsideLines(plug, network, this.mtu(network), s.ports.length > 0)));
        const errors = await this.host.run(plugged);
        if (errors) this.log.warn({errors}, 'interfaces of containers that were on the deleted bridge');
      });
    }
  }

  private mtu(network: NodeNetwork): number {
    const asked = optionsOf(network).mtu ?? Math.min(DEFAULT_MTU, this.uplinkMtu);
    return Math.min(asked, this.tunnels.room(network) ?? asked);
  }
  private bridgeNames(): string[] { return this.networks.all().map(n => n.bridgeName); }

  private async onHost(lines: string[]): Promise<void> {
    if (lines.length) refuse('configure the host\'s interfaces')(await this.host.run(lines));
  }
  private async inNamespace(namespace: string, commands: LinkCommand[]): Promise<void> {
    const inside = this.namespaces.open(`${NETNS_DIR}/${namespace}`);
    await inside.run(commands).finally(() => inside.close());
  }

  private async ourBridges(): Promise<{name: string; networkId: string}[]> {
    return ourBridges(await tool('ip', ['-j', 'link', 'show', 'type', 'bridge']), this.names.aliasPrefix);
  }
}

function routed(plugs: Plug[]): Plug[] {
  const attachments = withDefaultRoute(plugs.map(p => p.attachment));
  return plugs.map((plug, i) => ({...plug, attachment: attachments[i]!}));
}

function refuse(doing: string): (output: string) => void {
  return output => {
    if (output) throw networkingFailed(`${doing}: ${output.trim()}`);
  };
}

async function isNamespace(name: string): Promise<boolean> {
  return (await statfs(`${NETNS_DIR}/${name}`).catch(() => undefined))?.type === NSFS_MAGIC;
}
