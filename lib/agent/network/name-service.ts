/**
 * Names on this node's networks: which networks have a server, at which ports it listens, and what the container that asks may see. Guarantees:
 * a server listens before the rules lead questions to it; only a container on that very network is answered, and of its own networks only.
 * Called by linux.ts; the servers themselves are in dns/.
 */
import type {Log} from '../../base/log';
import type {NodeNetwork} from '../../schema/agent';
import type {NetworkAttachment} from '../../schema/container';
import {DnsServers, type Scope} from './dns/servers';
import type {ResolvSettings} from './network';
import type {Records, SandboxRecord} from './records';
import {forNamed, hostResolv, nodeServers, type ResolvFiles} from './resolv';
import {type Resolver, resolverCommands} from './rules';
import type {RuleTable} from './table';

export interface NameServiceParts {
  networks: Records<NodeNetwork>;
  sandboxes: Records<SandboxRecord>;
  table: RuleTable;
  tableName: string;
  files: ResolvFiles;
  /** Who is on a network on other nodes. */
  elsewhere(networkId: string): readonly {address: string; aliases: string[]}[];
  log: Log;
}

export class NameService {
  private readonly dns: DnsServers;
  /** By network: where its questions are led to. */
  private readonly resolvers = new Map<string, Resolver[]>();
  private readonly serving = new Map<string, Promise<void>>();

  constructor(private readonly parts: NameServiceParts) {
    this.dns = new DnsServers((networkId, address) => this.scopeOf(networkId, address), parts.log);
  }

  /** For the table as a whole. */
  all(): Resolver[] {
    return [...this.resolvers.values()].flat();
  }

  /** Repeatable. Resolves when the named networks among these are answered. */
  async serve(attachments: NetworkAttachment[]): Promise<void> {
    await Promise.all(attachments.filter(named).map(({networkId}) => {
      const known = this.serving.get(networkId);
      if (known) return known;
      const begun = this.begin(networkId).catch((err: unknown) => {
        this.serving.delete(networkId);
        throw err;
      });
      this.serving.set(networkId, begun);
      return begun;
    }));
  }

  /** The network goes. */
  async stop(networkId: string): Promise<void> {
    this.dns.stop(networkId);
    await this.parts.table.run(resolverCommands('delete', this.parts.tableName, this.resolvers.get(networkId) ?? []), 'tolerant');
    this.resolvers.delete(networkId);
    this.serving.delete(networkId);
  }

  /** Our server, on a network that has one; else what the host itself asks. */
  async resolvConf(attachments: NetworkAttachment[]): Promise<ResolvSettings> {
    const host = await hostResolv(this.parts.files);
    const answering = attachments.find(a => named(a) && a.gateway);
    return answering ? {...forNamed(host, answering.gateway), ours: true} : host;
  }

  close(): void {
    this.dns.close();
  }

  private async begin(networkId: string): Promise<void> {
    const {networks, table, tableName} = this.parts;
    const {bridgeName, gateway} = networks.need(networkId);
    const ports = await this.dns.serve(networkId, gateway);
    const resolvers = (['udp', 'tcp'] as const).map((protocol): Resolver => ({bridgeName, gateway, protocol, port: ports[protocol]}));
    this.resolvers.set(networkId, resolvers);
    await table.run(resolverCommands('add', tableName, resolvers)).catch((err: unknown) => {
      this.resolvers.delete(networkId);
      throw err;
    });
  }

  /** undefined for strangers: a gateway's address can be reached from elsewhere too. */
  private async scopeOf(networkId: string, address: string): Promise<Scope | undefined> {
    const plugs = this.parts.sandboxes.all().flatMap(s => s.plugs);
    const asking = this.parts.sandboxes.all().find(s => s.plugs.some(p => p.networkId === networkId && p.attachment.address === address));
    if (!asking) return undefined;
    // Of one that has just come here from another node this node knows better.
    const on = (id: string): {address: string; aliases: string[]}[] => {
      const here = plugs.filter(p => p.networkId === id).map(p => p.attachment);
      const taken = new Set(here.map(a => a.address));
      return [...here, ...this.parts.elsewhere(id).filter(({address: elsewhere}) => !taken.has(elsewhere))];
    };
    const outward = asking.plugs.some(p => !p.attachment.internal);
    return {
      networks: asking.plugs.map(p => p.attachment).filter(named).map(({networkId: id, networkName, links = []}) => ({
        network: networkName,
        addresses: asked => {
          // A link's alias is this container's alone, and goes before what others are called.
          const name = links.find(link => link.alias.toLowerCase() === asked)?.name.toLowerCase() ?? asked;
          return on(id).filter(a => a.aliases.some(alias => alias.toLowerCase() === name)).map(a => a.address);
        },
        nameOf: wanted => on(id).find(a => a.address === wanted)?.aliases[0],
      })),
      servers: !outward ? [] : asking.dns ?? await nodeServers(this.parts.files),
    };
  }
}

/** On networks that know names each container has at least its own. */
const named = (attachment: NetworkAttachment): boolean => attachment.aliases.length > 0;
