/** The verbs on networks. Each account has its own bridge, host and none; subnets are unique in the datacenter. */
import {BlockList, isIPv4} from 'node:net';
import {CetusError, isCetusError} from '../base/errors';
import {eq} from '../moray/filter';
import {BUCKETS} from '../schema/buckets';
import type {Network} from '../schema/objects';
import {resolveContainer} from './containers/resolve';
import type {Context} from './context';
import {checkEndpointSettings} from './create/networking';
import {unsupported} from './create/options';
import {acceptFilters, booleanFilter, has, idMatcher, labelFilters, labelsMatch, nameMatcher, untilFilter, valuesOf} from './filters';
import {networkDraft, PREDEFINED, type PredefinedNetworks} from './networks-predefined';
import {resolveNetwork} from './networks-resolve';
import type {Caller, NetworkVerbs} from './verbs';

const BUCKET = BUCKETS.networks.name;
const invalid = (message: string): CetusError => new CetusError('invalid', message);
/** What nodes honour; any other com.docker.network.* option is refused, other names are the caller's own. */
const DRIVER_OPTIONS = new Set(['com.docker.network.bridge.enable_icc', 'com.docker.network.bridge.enable_ip_masquerade', 'com.docker.network.bridge.host_binding_ipv4',
  'com.docker.network.driver.mtu']);

type Body = Parameters<NetworkVerbs['create']>[1];

function checkCidr(text: string, what: string): void {
  const [address, length] = text.split('/');
  if (!isIPv4(address ?? '')) {
    if (text.includes(':')) throw unsupported(`IPAM.Config.${what} ${text}`, 'networks are IPv4 in this version');
    throw invalid(`invalid ${what} ${text}: invalid CIDR block notation`);
  }
  if (!/^\d{1,2}$/.test(length ?? '') || Number(length) > 32) throw invalid(`invalid ${what} ${text}: invalid CIDR block notation`);
}

function within(subnet: string, address: string): boolean {
  const [base, length] = subnet.split('/');
  const block = new BlockList();
  block.addSubnet(base!, Number(length), 'ipv4');
  return block.check(address, 'ipv4');
}

function checkBody(body: Body): void {
  if (!body.Name) throw invalid('network name is required');
  if (body.Name.trim() !== body.Name || !/^[^/\s][^/]*$/.test(body.Name)) throw invalid(`invalid network name: ${body.Name}`);
  if ((PREDEFINED as readonly string[]).includes(body.Name) || body.Name === 'default') throw new CetusError('forbidden', `operation is not permitted on predefined ${body.Name} network `);
  if (body.Name.startsWith('container:')) throw invalid(`invalid network name: ${body.Name}`);
  const driver = body.Driver || 'bridge';
  if (driver === 'host' || driver === 'null') throw new CetusError('forbidden', `only one instance of "${driver}" network is allowed`);
  if (driver !== 'bridge') throw new CetusError('notFound', `could not find plugin ${driver} in v1 plugin registry: plugin "${driver}" not found`);
  for (const [option, asked] of [['ConfigOnly', body.ConfigOnly], ['ConfigFrom', body.ConfigFrom && Object.values(body.ConfigFrom).some(Boolean)], ['Ingress', body.Ingress], ['EnableIPv6', body.EnableIPv6]] as const)
    if (asked) throw unsupported(option, option === 'EnableIPv6' ? 'networks are IPv4 in this version' : 'it belongs to swarm mode');
  if (body.EnableIPv4 === false) throw unsupported('EnableIPv4 false', 'networks are IPv4 in this version');
  if (body.Scope && body.Scope !== 'local') throw unsupported(`Scope ${body.Scope}`, 'networks of this datacenter are local');
  if (body.IPAM?.Driver && body.IPAM.Driver !== 'default') throw unsupported(`IPAM.Driver ${body.IPAM.Driver}`, 'addresses are given by the datacenter');
  for (const option of Object.keys(body.Options ?? {}))
    if (option.startsWith('com.docker.network.') && !DRIVER_OPTIONS.has(option)) throw unsupported(`network option ${option}`, 'nodes do not honour it');
  if ((body.IPAM?.Config?.length ?? 0) > 1) throw invalid('bridge driver supports only one IPv4 subnet');
}

export function networkVerbs(context: Context, predefined: PredefinedNetworks): NetworkVerbs {
  const resolve = (caller: Caller, nameOrId: string): Promise<Network> => resolveNetwork(context, predefined, caller, nameOrId);
  const all = async (caller: Caller): Promise<Network[]> => {
    await predefined.of(caller);
    return (await context.moray.list<Network>(BUCKET, eq('account', caller.account))).map((s) => s.value).sort((a, b) => (a.createdAt < b.createdAt ? 1 : -1));
  };
  const attachedNetworks = async (account: string): Promise<Set<string>> => new Set((await context.views.list(account)).flatMap((c) => c.attachments.map((a) => a.networkId)));

  return {
    async create(caller, body) {
      checkBody(body);
      await predefined.of(caller);
      const ipam = body.IPAM?.Config?.[0] ?? {};
      if (ipam.Subnet) checkCidr(ipam.Subnet, 'subnet');
      if (ipam.IPRange) checkCidr(ipam.IPRange, 'ip-range');
      if ((ipam.Gateway || ipam.IPRange || Object.keys(ipam.AuxiliaryAddresses ?? {}).length > 0) && !ipam.Subnet) throw invalid('invalid network config: gateway, ip-range and auxiliary addresses need a subnet');
      if (ipam.Gateway && !isIPv4(ipam.Gateway)) throw invalid(`invalid gateway ${ipam.Gateway}: parent subnet is an IPv4 block`);
      if (ipam.Gateway && !within(ipam.Subnet!, ipam.Gateway)) throw invalid(`no matching subnet for gateway ${ipam.Gateway}`);
      if (ipam.IPRange && !within(ipam.Subnet!, ipam.IPRange.split('/')[0]!)) throw invalid(`no matching subnet for range ${ipam.IPRange}`);
      for (const [name, address] of Object.entries(ipam.AuxiliaryAddresses ?? {})) if (!isIPv4(address)) throw invalid(`invalid auxiliary address ${name}: ${address}`);
      for (const address of Object.values(ipam.AuxiliaryAddresses ?? {})) if (!within(ipam.Subnet!, address)) throw invalid(`no matching subnet for aux-address ${address}`);
      const draft = networkDraft(context, caller.account, body.Name, {
        internal: body.Internal ?? false, attachable: body.Attachable ?? false, labels: body.Labels ?? {}, options: body.Options ?? {}, ipamOptions: body.IPAM?.Options ?? {},
        subnet: ipam.Subnet ?? '', gateway: ipam.Gateway ?? '', ipRange: ipam.IPRange ?? '', auxAddresses: ipam.AuxiliaryAddresses ?? {},
      });
      const network = await context.run(caller, 'network.create', {network: draft});
      return {id: network.id, warning: ''};
    },

    async list(caller, filters) {
      acceptFilters(filters, ['dangling', 'driver', 'id', 'label', 'name', 'scope', 'type']);
      for (const type of valuesOf(filters, 'type')) if (type !== 'custom' && type !== 'builtin') throw invalid(`invalid filter: 'type'='${type}'`);
      const dangling = booleanFilter(filters, 'dangling');
      const named = nameMatcher(filters, 'name');
      const ids = idMatcher(filters, 'id');
      const attached = dangling === undefined ? undefined : await attachedNetworks(caller.account);
      const any = (name: string, test: (value: string) => boolean): boolean => !has(filters, name) || valuesOf(filters, name).some(test);
      return (await all(caller)).filter((n) => named(n.name) && ids(n.id) && any('driver', (v) => v === n.driver) && any('scope', (v) => v === n.scope)
        && labelsMatch(valuesOf(filters, 'label'), n.labels) && any('type', (v) => (v === 'builtin') === n.predefined)
        && (attached === undefined || (!n.predefined && !attached.has(n.id)) === dangling));
    },

    get: resolve,

    async containers(caller, network) {
      return (await context.views.list(caller.account)).filter((c) => c.attachments.some((a) => a.networkId === network.id));
    },

    async remove(caller, nameOrId) {
      const network = await resolve(caller, nameOrId);
      if (network.predefined) throw new CetusError('forbidden', `${network.name} is a pre-defined network and cannot be removed`);
      await context.run(caller, 'network.remove', {networkId: network.id, account: caller.account});
    },

    async connect(caller, nameOrId, containerNameOrId, settings) {
      const [network, c] = [await resolve(caller, nameOrId), await resolveContainer(context, caller.account, containerNameOrId)];
      if (network.removing) throw new CetusError('notFound', `network ${nameOrId} not found`);
      if (network.driver !== 'bridge') throw invalid(network.driver === 'host' ? 'container cannot be disconnected from host network or connected to host network' : 'container cannot be connected to multiple networks with one of the networks in private (none) mode');
      if (c.spec.networkMode === 'host') throw new CetusError('forbidden', 'container cannot be connected to multiple networks with one of the networks in private (none) or host mode');
      if (c.spec.networkMode.startsWith('container:')) throw new CetusError('forbidden', 'container sharing network namespace with another container or host cannot be connected to any other network');
      checkEndpointSettings(network, settings);
      try {
        await context.run(caller, 'network.connect', {containerId: c.id, networkId: network.id, settings});
      } finally {
        context.views.touch(caller.account, c.id);
      }
    },

    async disconnect(caller, nameOrId, containerNameOrId, force) {
      const network = await resolve(caller, nameOrId);
      const c = await resolveContainer(context, caller.account, containerNameOrId);
      if (!c.networks[network.name] && !c.attachments.some((a) => a.networkId === network.id)) throw new CetusError('forbidden', `container ${c.id} is not connected to network ${network.name}`);
      try {
        await context.run(caller, 'network.disconnect', {containerId: c.id, networkId: network.id, force});
      } finally {
        context.views.touch(caller.account, c.id);
      }
    },

    async prune(caller, filters) {
      acceptFilters(filters, ['label', 'label!', 'until']);
      const matches = labelFilters(filters);
      const until = untilFilter(filters, context.clock.now());
      const attached = await attachedNetworks(caller.account);
      const deleted: string[] = [];
      for (const network of await all(caller)) {
        if (network.predefined || attached.has(network.id) || !matches(network.labels) || (until !== undefined && Date.parse(network.createdAt) > until)) continue;
        try {
          await context.run(caller, 'network.remove', {networkId: network.id, account: caller.account});
          deleted.push(network.name);
        } catch (err) {
          if (!isCetusError(err, 'conflict') && !isCetusError(err, 'forbidden') && !isCetusError(err, 'notFound')) throw err;
        }
      }
      return {deleted};
    },
  };
}
